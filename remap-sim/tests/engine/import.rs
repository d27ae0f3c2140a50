//! Lists of bad blocks that are known from elsewhere: relocated, scattered as they are, with one commit.

use std::time::Duration;

use remap_core::{AddReport, Begun, JobKind, JobState, Ranges, RemapOn, Stopped};

use super::moves::{remove, run};
use super::*;

/// A list of runs: first block, blocks.
fn list(runs: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
    Ranges::new(runs.into_iter().map(|(first, blocks)| Extent::new(lba(first), blocks)).collect())
}

fn import(world: &World, host: &Vbdev, blocks: &Ranges) -> Result<AddReport, Stopped> {
    let blocks = blocks.clone();
    run(world, host, JobKind::Import, move |engine, base, job| async move {
        engine.import(&base, &blocks, RemapOn::Media, &job).await
    })
}

/// Why not all of a list was relocated, of which so many blocks were.
#[track_caller]
fn partly<R: std::fmt::Debug>(outcome: Result<R, Stopped>, blocks: u64) -> Error {
    match outcome {
        Err(Stopped::Failed(Error::Partly { why, added, pending: 0 })) if added == blocks => *why,
        other => panic!("{other:?}, not {blocks} blocks"),
    }
}

/// Begins to import, and does not wait for it.
fn begin(world: &World, host: &Vbdev, blocks: Ranges) -> Begun {
    let (worker, base) = (Rc::clone(&host.engine), world.base.clone());
    let work = |job| async move { worker.import(&base, &blocks, RemapOn::Media, &job).await.map(drop) };
    host.engine.jobs().begin(JobKind::Import, work).unwrap()
}

/// A world with a spare that takes `blocks` blocks, and an open set.
fn large(blocks: u64) -> (World, Vbdev) {
    let world = World::with(Medium::new(BLOCK, blocks + blocks / 8 + 400), true);
    let host = world.open();
    (world, host)
}

#[test]
fn scattered_blocks_are_relocated_with_their_data_by_one_commit() {
    let (world, host) = large(3000);
    for at in [0, 100, 5000, 900_000] {
        world.write(&host, at, filled_run(at, 10)).unwrap();
    }
    let blocks = list([(5003, 1), (900_001, 3), (2, 1), (4, 2), (5, 2), (103, 1)]);
    assert_eq!(import(&world, &host, &blocks).unwrap(), AddReport { added: 9, already: 0, pending: 0 });
    assert_eq!(host.engine.status().counters.log_pages, 1);
    let moved: Vec<_> = mappings(&host.engine).iter().map(|(lba, _)| lba.0).collect();
    assert_eq!(moved, [2, 4, 5, 6, 103, 5003, 900_001, 900_002, 900_003]);
    // What is on the base now is not what is read.
    world.base.heal();
    let again = world.after_kill();
    let host = again.open();
    for at in [0, 100, 5000, 900_000] {
        assert_eq!(again.read(&host, at, 10), Ok(filled_run(at, 10)));
    }
}

#[test]
fn spare_blocks_are_taken_in_one_run_and_written_together() {
    let (world, host) = large(3000);
    let written = world.spare.writes();
    assert_eq!(import(&world, &host, &list((0..2000).map(|index| (index * 300, 1)))).unwrap().added, 2000);
    let spares: Vec<_> = mappings(&host.engine).iter().map(|(_, mapping)| mapping.spare().unwrap().index()).collect();
    assert!(spares.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in the order of the base");
    // 13 windows, of which 7 have 256 blocks; 8 pages in two copies; the superblocks.
    let written = world.spare.writes() - written;
    assert!(written <= 13 + 2 * 8 + 2, "{written} writes for 2,000 blocks");
}

#[test]
fn what_is_remapped_already_is_counted_and_what_cannot_be_read_becomes_pending() {
    let (world, host) = large(3000);
    world.write(&host, 40, filled_run(40, 20)).unwrap();
    assert_eq!(import(&world, &host, &list([(42, 3)])).unwrap().added, 3);
    world.bad_for_reads(50, 2);
    let pages = host.engine.status().counters.log_pages;
    let blocks = list([(41, 2), (44, 2), (49, 4), (58, 1)]);
    assert_eq!(import(&world, &host, &blocks).unwrap(), AddReport { added: 5, already: 2, pending: 2 });
    assert_eq!(host.engine.status().counters.log_pages, pages + 1, "one commit for all of it");
    assert_eq!(import(&world, &host, &blocks).unwrap(), AddReport { added: 0, already: 9, pending: 0 });
    assert_eq!(host.engine.status().counters.log_pages, pages + 1, "nothing to commit");
    assert_eq!(world.read(&host, 50, 1), Err(READ_ERROR));
    // A pending block is relocated by the write that heals it.
    world.write(&host, 50, filled_run(50, 2)).unwrap();
    let again = world.after_kill();
    let host = again.open();
    assert_eq!((host.engine.status().remapped, host.engine.status().pending), (10, 0));
    assert_eq!(again.read(&host, 40, 20), Ok(filled_run(40, 20)));
}

#[test]
fn a_list_for_which_the_spare_has_no_room_changes_nothing() {
    let world = World::new();
    let host = world.open();
    let free = host.engine.status().spare.free;
    let all = list((0..free).map(|index| (index * 7, 1)));
    let too_many = list(all.iter().map(|one| (one.lba.0, 1)).chain([(1_000_000, 1)]));
    let refused = import(&world, &host, &too_many);
    assert_eq!(refused, Err(Stopped::Failed(Error::NotEnoughSpare { needed: free + 1, free })));
    assert_eq!((mappings(&host.engine).len(), host.engine.status().spare.free), (0, free));
    assert_eq!(import(&world, &host, &all).unwrap().added, free);
    // What is there already needs no room.
    assert_eq!(import(&world, &host, &all).unwrap().already, free);
}

#[test]
fn a_bad_spare_block_is_replaced() {
    let (world, host) = large(3000);
    let first = host.engine.layout().data_start.0;
    world.spare.fail(Fault::new(Verb::Write, first + 5..first + 7, WRITE_FAULT));
    world.write(&host, 0, filled_run(0, 300)).unwrap();
    assert_eq!(import(&world, &host, &list((0..100).map(|index| (index * 3, 1)))).unwrap().added, 100);
    assert_eq!(host.engine.status().spare.bad, 2);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(again.read(&host, 0, 300), Ok(filled_run(0, 300)));
}

#[test]
fn what_is_not_of_the_medium_stops_it_and_what_was_copied_stays() {
    let (world, host) = large(3000);
    world.base.fail(Fault::new(Verb::Read, 600_000..600_001, IoStatus::Failed));
    let blocks = list((0..400).map(|index| (index * 2000, 1)));
    let failed = import(&world, &host, &blocks);
    // The windows before.
    let copied = 8 + 16 + 32 + 64 + 128;
    assert!(matches!(partly(failed, copied), Error::BaseIo { what: "read", .. }));
    assert_eq!(mappings(&host.engine).len() as u64, copied);
    let status = host.engine.status();
    assert_eq!(status.spare.used, copied, "nothing is left reserved");
    assert_eq!(status.jobs[0].state, JobState::Failed);
}

#[test]
fn a_spare_that_turns_out_to_be_too_small_takes_what_it_can_and_tells_how_much() {
    let world = World::new();
    let host = world.open();
    world.write(&host, 0, filled_run(0, 2000)).unwrap();
    let (free, first) = (host.engine.status().spare.free, host.engine.layout().data_start.0);
    // Of the last window.
    world.spare.fail(Fault::new(Verb::Write, first + free - 10..first + free - 7, WRITE_FAULT));
    let failed = import(&world, &host, &list((0..free).map(|index| (index * 2, 1))));
    let said = failed.as_ref().unwrap_err().to_string();
    assert!(said.contains(&format!("{} blocks were relocated", free - 3)), "{said}");
    assert_eq!(partly(failed, free - 3), Error::NoSpare);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().remapped, free - 3);
    assert_eq!(again.read(&host, 0, 2000), Ok(filled_run(0, 2000)));
}

#[test]
fn a_log_that_fails_after_some_pages_makes_those_count_that_are_durable() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 4000)).unwrap();
    // The third page of eight.
    for copy in Copy::BOTH {
        let fault = log_fault(&host, copy, Verb::Write).with_effect(Effect::Nothing);
        world.spare.fail(Fault { passes: 2, ..fault });
    }
    let failed = import(&world, &host, &list((0..2000).map(|index| (index * 2, 1))));
    let remapped = host.engine.status().remapped;
    assert!(remapped > 0 && remapped < 2000, "{remapped} blocks");
    assert_eq!(partly(failed, remapped), Error::LogFailed);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().remapped, remapped);
    assert_eq!(again.read(&host, 0, 4000), Ok(filled_run(0, 4000)));
}

#[test]
fn a_storm_in_the_middle_stops_it_and_what_was_copied_stays() {
    let (world, _) = large(3000);
    let host = world.open_with(OpenParams { storm_limit: 4, ..params() }).unwrap();
    world.write(&host, 0, filled_run(0, 600)).unwrap();
    world.base.set_timing(&Random::new(0), 10_000);
    let begun = begin(&world, &host, list((0..300).map(|index| (index * 2, 1))));
    world.executor.run_for(Duration::from_millis(100));
    world.base.fail(Fault::new(Verb::Write, 1000..1010, WRITE_FAULT));
    assert_eq!(world.write(&host, 1000, filled_run(0, 10)), Err(WRITE_FAULT));
    let outcome = world.executor.block_on(async move { begun.join().await }).unwrap();
    let remapped = host.engine.status().remapped;
    assert_eq!(partly(outcome, remapped), Error::Tripped);
    assert_eq!(host.engine.status().spare.used, remapped, "nothing is left reserved");
    assert_eq!(world.read(&host, 0, 600), Ok(filled_run(0, 600)));
}

#[test]
fn a_set_that_is_closed_in_the_middle_keeps_what_was_copied() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 900)).unwrap();
    world.base.set_timing(&Random::new(0), 10_000);
    let begun = begin(&world, &host, list((0..300).map(|index| (index * 3, 1))));
    world.executor.run_for(Duration::from_millis(100));
    world.close(&host);
    let outcome = world.executor.block_on(async move { begun.join().await }).unwrap();
    assert_eq!(outcome, Err(Stopped::Cancelled));
    let remapped = host.engine.status().remapped;
    assert!(remapped > 0 && remapped < 300, "{remapped} blocks");
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().remapped, remapped);
    assert_eq!(again.read(&host, 0, 900), Ok(filled_run(0, 900)));
}

#[test]
fn what_was_answered_survives_a_power_cut_at_that_moment() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 900)).unwrap();
    let begun = begin(&world, &host, list((0..300).map(|index| (index * 3, 1))));
    world.executor.block_on(async move { begun.join().await }).unwrap().unwrap();
    let again = world.after_crash(world.spare.durable());
    let host = again.open();
    assert_eq!(host.engine.status().remapped, 300);
    assert_eq!(again.read(&host, 0, 900), Ok(filled_run(0, 900)));
}

#[test]
fn a_log_that_cannot_be_written_leaves_everything_on_the_base() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 100)).unwrap();
    log_cannot_be_written(&world, &host, Effect::Nothing);
    let failed = import(&world, &host, &list((0..50).map(|index| (index * 2, 1))));
    assert_eq!(failed, Err(Stopped::Failed(Error::LogFailed)));
    assert_eq!(host.engine.status().remapped, 0);
    world.spare.heal();
    world.quiet();
    assert_eq!(world.read(&host, 0, 100), Ok(filled_run(0, 100)));
}

#[test]
fn more_than_the_log_has_room_for_is_committed_by_checkpoints_between() {
    // The smallest spare that takes as many: its log areas have few pages to spare.
    let (world, host) = large(20_000);
    let blocks = list((0..20_000).map(|index| (index * 50, 1)));
    assert_eq!(import(&world, &host, &blocks).unwrap().added, 20_000);
    let again = world.after_kill();
    assert_eq!(again.open().engine.status().remapped, 20_000);
}

#[test]
fn writes_of_listed_blocks_wait_and_those_between_do_not() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 1000)).unwrap();
    // A base that takes 10 ms for each I/O.
    world.base.set_timing(&Random::new(0), 10_000);
    begin(&world, &host, list((0..300).map(|index| (index * 3, 1))));
    let story: Rc<std::cell::RefCell<Vec<u64>>> = Rc::default();
    world.executor.run_for(Duration::from_micros(500));
    for at in [3, 4] {
        let (host, story) = (host.clone(), Rc::clone(&story));
        world.executor.spawn(async move {
            host.write(at, filled(77)).await.unwrap();
            story.borrow_mut().push(at);
        });
    }
    world.executor.run_for(Duration::from_millis(20));
    assert_eq!(*story.borrow(), [4]);
    world.quiet();
    assert_eq!(*story.borrow(), [4, 3]);
    assert_eq!(host.engine.status().remapped, 300);
    let expected = [filled_run(0, 3), filled(77), filled(77), filled_run(5, 995)].concat();
    assert_eq!(world.read(&host, 0, 1000), Ok(expected));
}

#[test]
fn a_slow_base_holds_hosts_for_a_second_at_a_time() {
    let (world, host) = large(3000);
    world.base.set_timing(&Random::new(0), 300_000);
    let begun = begin(&world, &host, list((0..1200).map(|index| (index * 3, 1))));
    world.executor.run_for(Duration::from_secs(60));
    let (done, pages) = (host.engine.status().remapped, host.engine.status().counters.log_pages);
    assert!(done >= 8 && pages > 10, "{done} blocks are committed, by {pages} pages");
    begun.cancel();
    world.quiet();
    let status = host.engine.status();
    assert_eq!(status.jobs[0].state, JobState::Cancelled);
    assert!(status.remapped < 1200 && status.spare.used == status.remapped, "nothing is left reserved: {status:?}");
    world.base.set_timing(&Random::new(0), 0);
    assert_eq!(world.write(&host, 0, filled(4)), Ok(()), "nothing is left locked");
    world.close(&host);
}

#[test]
fn what_was_imported_goes_back_to_the_base() {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 1000)).unwrap();
    import(&world, &host, &list((0..333).map(|index| (index * 3, 1)))).unwrap();
    world.write(&host, 0, filled_run(5, 1000)).unwrap();
    let report = remove(&world, &host, Extent::new(lba(0), BASE_BLOCKS)).unwrap();
    assert_eq!((report.removed, report.kept), (333, 0));
    assert_eq!(world.read(&host, 0, 1000), Ok(filled_run(5, 1000)));
}

/// A world in which a list of 600 blocks, of which hosts have written 900, is being imported, since so many polls of tasks.
fn cut_short(polls: u64) -> (World, bool) {
    let (world, host) = large(3000);
    world.write(&host, 0, filled_run(0, 900)).unwrap();
    begin(&world, &host, list((0..300).flat_map(|index| [(index * 3, 1), (500_000 + index * 3, 1)])));
    let ended = world.executor.run_until(world.executor.polls() + polls, || host.engine.status().remapped == 600);
    (world, ended || host.engine.status().remapped == 600)
}

#[test]
fn a_power_cut_in_the_middle_of_a_list_loses_nothing() {
    let mut some = [0, 0];
    for polls in (0..).step_by(15) {
        let (world, ended) = cut_short(polls);
        for seed in 0..3 {
            let random = Random::new(polls + seed);
            let medium = match seed {
                0 => world.spare.durable(),
                _ => world.spare.left_by(|_, versions| random.below(versions as u64 + 1) as usize),
            };
            let again = world.after_crash(medium);
            let host = again.open();
            some[usize::from(host.engine.status().remapped == 0)] += 1;
            let data = again.read(&host, 0, 900).unwrap();
            assert!(data == filled_run(0, 900), "{polls} polls, cut {seed}");
        }
        if ended {
            break;
        }
    }
    assert!(some.iter().all(|times| *times > 3), "before and after the commit: {some:?}");
}
