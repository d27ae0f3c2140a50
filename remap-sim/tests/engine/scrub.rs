//! Scrubs: what cannot be read is found before a host reads it, what can be read again is rescued, and copies of the metadata
//! that are bad are healed.

use std::time::Duration;

use remap_core::format::ScrubPosition;
use remap_core::{JobKind, JobState, RemapOn, ScrubCounts, Stopped};

use super::*;

/// No rate to speak of.
const FAST: u32 = 1_000_000;

fn plan(first: u64, blocks: u64) -> ScrubPosition {
    ScrubPosition { next: lba(first), end: lba(first + blocks), max_mbps: FAST }
}

/// Runs a scrub to its end.
fn scrub(world: &World, host: &Vbdev, plan: ScrubPosition) -> Result<ScrubCounts, Stopped> {
    let (engine, base) = (Rc::clone(&host.engine), world.base.clone());
    let run = async move { engine.begin_scrub(base, plan, RemapOn::Media)?.join().await };
    world.executor.block_on(run).unwrap()?;
    Ok(counts(host))
}

fn begin(world: &World, host: &Vbdev, plan: ScrubPosition) {
    host.engine.begin_scrub(world.base.clone(), plan, RemapOn::Media).unwrap();
}

/// What the last scrub says.
fn counts(host: &Vbdev) -> ScrubCounts {
    job(host).scrub.unwrap()
}

fn job(host: &Vbdev) -> remap_core::JobStatus {
    host.engine.jobs().status().into_iter().find(|job| job.kind == JobKind::Scrub).unwrap()
}

/// Where a scrub goes on, by the superblock.
fn noted(world: &World) -> Option<ScrubPosition> {
    let SuperblockContent::Valid(superblock) = Superblock::decode(&world.spare.contents().block(0)) else {
        panic!("valid")
    };
    superblock.scrub
}

#[test]
fn blocks_that_cannot_be_read_are_found_before_a_host_reads_them() {
    let (world, host) = world();
    world.bad_for_reads(300, 1);
    world.bad_for_reads(511, 3);
    let found = scrub(&world, &host, plan(0, 2000)).unwrap();
    assert_eq!((found.blocks_read, found.unreadable, found.rescued), (2000 - 4, 4, 0));
    let pages = 2 + 4 * u64::from(host.engine.layout().area_pages);
    assert_eq!((found.metadata_pages, found.metadata_bad), (pages, 0));
    let pending: Vec<_> =
        mappings(&host.engine).into_iter().filter(|(_, at)| *at == Mapping::Pending).map(|(lba, _)| lba.0).collect();
    assert_eq!(pending, [300, 511, 512, 513]);
    let job = job(&host);
    assert_eq!((job.state, job.blocks_done, job.blocks_total), (JobState::Done, 2000, 2000));
    assert_eq!(noted(&world), None, "it has ended");
    // The next one knows them.
    assert_eq!(scrub(&world, &host, plan(0, 2000)).unwrap().unreadable, 0);
    let again = world.after_kill();
    assert_eq!(again.open().engine.status().pending, 4);
}

#[test]
fn pending_blocks_that_can_be_read_again_are_rescued_with_their_data() {
    let (world, host) = world();
    world.base.heal();
    world.write(&host, 300, filled_run(7, 5)).unwrap();
    world.bad_for_reads(300, 5);
    assert_eq!(scrub(&world, &host, plan(0, 1000)).unwrap().unreadable, 5);
    world.base.heal();
    world.bad_for_reads(302, 1);
    let found = scrub(&world, &host, plan(0, 1000)).unwrap();
    assert_eq!((found.unreadable, found.rescued), (0, 4));
    assert_eq!((host.engine.status().pending, host.engine.status().remapped), (1, 5));
    // Whatever becomes of the base.
    world.bad_for_reads(300, 5);
    let rest: Vec<_> = [300, 301, 303, 304].map(|at| value(&world.read(&host, at, 1).unwrap())).to_vec();
    assert_eq!(rest, [7, 8, 10, 11]);
    assert_eq!(world.read(&host, 302, 1), Err(READ_ERROR));
}

#[test]
fn a_full_spare_leaves_them_pending_and_the_scrub_goes_on() {
    let world = World::new();
    let host = world.open();
    let free = host.engine.status().spare.free;
    world.bad_for_writes(0, free);
    world.write(&host, 0, filled_run(1, free)).unwrap();
    world.bad_for_reads(1000, 2);
    scrub(&world, &host, plan(900, 200)).unwrap();
    world.base.heal();
    world.bad_for_reads(1500, 1);
    let found = scrub(&world, &host, plan(900, 1000)).unwrap();
    assert_eq!((found.rescued, found.unreadable), (0, 1));
    assert_eq!(host.engine.status().pending, 3);
}

#[test]
fn what_is_left_of_a_spare_is_used_for_as_many_as_it_takes() {
    let world = World::new();
    let host = world.open();
    let used = host.engine.status().spare.free - 2;
    world.bad_for_writes(0, used);
    world.write(&host, 0, filled_run(1, used)).unwrap();
    world.bad_for_reads(1000, 5);
    scrub(&world, &host, plan(900, 200)).unwrap();
    world.base.heal();
    assert_eq!(scrub(&world, &host, plan(900, 200)).unwrap().rescued, 2);
    assert_eq!((host.engine.status().pending, host.engine.status().spare.free), (3, 0));
}

#[test]
fn remapped_blocks_are_read_on_the_spare_and_stay_remapped() {
    let (world, host) = world();
    world.write(&host, 10, filled_run(1, 4)).unwrap();
    let Place::Spare(bad) = host.engine.table().lookup(lba(12)) else { panic!() };
    let at = host.engine.layout().data(bad).0;
    world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    let found = scrub(&world, &host, plan(0, 100)).unwrap();
    assert_eq!((found.blocks_read, found.spare_unreadable, found.unreadable), (99, 1, 0));
    assert_eq!(host.engine.status().remapped, 4);
    assert_eq!(world.read(&host, 12, 1), Err(READ_ERROR), "as for a host");
    world.spare.heal();
    assert_eq!(world.read(&host, 12, 1), Ok(filled(3)));
}

#[test]
fn each_copy_of_each_page_that_is_bad_is_found_and_healed() {
    let (world, host) = world();
    for at in 11..14 {
        world.write(&host, at, filled(at)).unwrap();
    }
    let layout = host.engine.layout();
    let (in_force, other) = (host.engine.layout().log_page(Copy::A, Area::Zero, 0), Area::One);
    let mut places: Vec<_> = Copy::BOTH.iter().map(|copy| layout.superblock(*copy).0).collect();
    for copy in Copy::BOTH {
        // In the checkpoint, behind it, and behind the end; and in the area that is not in force.
        places.extend([0, 2, 60].map(|page| layout.log_page(copy, Area::Zero, page).0));
        places.push(layout.log_page(copy, other, 5).0);
    }
    assert!(in_force.0 > 0);
    for place in places {
        world.spare.rot(|medium| {
            let mut block = medium.block(place);
            block[100] ^= 1;
            block[5] ^= 1;
            medium.set_block(place, &block);
        });
        let found = scrub(&world, &host, plan(0, 100)).unwrap();
        assert_eq!(found.metadata_bad, 1, "block {place}");
        assert_eq!(host.engine.status().state, SetState::Online);
        assert_eq!(scrub(&world, &host, plan(0, 100)).unwrap().metadata_bad, 0, "block {place}");
        world.save(&host).unwrap();
    }
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(mappings(&host.engine).len(), 4);
    assert_eq!(again.read(&host, 13, 1), Ok(filled(13)));
}

#[test]
fn a_page_that_is_gone_from_both_copies_is_written_anew_from_memory() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let layout = host.engine.layout();
    world
        .spare
        .rot(|medium| Copy::BOTH.iter().for_each(|copy| medium.clear(layout.log_page(*copy, Area::Zero, 1).0, 1)));
    assert_eq!(scrub(&world, &host, plan(0, 1)).unwrap().metadata_bad, 2);
    let again = world.after_kill();
    assert_eq!(mappings(&again.open().engine).len(), 2);
}

/// After a crash the log could not be read beyond that page.
#[test]
fn nothing_is_committed_behind_a_page_that_is_gone_from_both_copies() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let layout = host.engine.layout();
    let spoil = |area, copies: &[Copy]| {
        let spoil = |medium: &mut Medium| {
            copies.iter().for_each(|copy| medium.flip(layout.log_page(*copy, area, 1).0, 99));
        };
        world.spare.rot(spoil);
        scrub(&world, &host, plan(0, 1)).unwrap().metadata_bad
    };
    // The area where a checkpoint would go is bad, and is not zeroed.
    for copy in Copy::BOTH {
        let other = layout.log_page(copy, Area::One, 0).0;
        world.spare.fail(Fault::new(Verb::Write, other..other + layout.area_blocks(), WRITE_FAULT));
    }
    assert_eq!(spoil(Area::One, &[Copy::A]), 1);
    // It is known to be bad, whatever of it zeroing that fails has zeroed by then.
    world.spare.rot(|medium| medium.clear(layout.log_page(Copy::A, Area::One, 1).0, 1));
    assert_eq!(spoil(Area::Zero, &Copy::BOTH), 2);
    assert_eq!(host.engine.status().state, SetState::Degraded);
    assert_eq!(world.write(&host, 12, filled(3)), Err(WRITE_FAULT));
    world.spare.heal();
    world.executor.run_for(Duration::from_secs(60));
    assert_eq!(host.engine.status().state, SetState::Online);
    world.write(&host, 13, filled(4)).unwrap();
    let again = world.after_kill();
    assert_eq!(value(&again.read(&again.open(), 13, 1).unwrap()), 4);
}

#[test]
fn a_scrub_that_is_cancelled_ends_and_is_forgotten() {
    let (world, host) = world();
    begin(&world, &host, ScrubPosition { max_mbps: 1, ..plan(0, BASE_BLOCKS) });
    world.quiet();
    assert_eq!((job(&host).state, noted(&world).map(|at| at.next)), (JobState::Running, Some(lba(0))));
    let second = host.engine.begin_scrub(world.base.clone(), plan(0, 1), RemapOn::Media);
    assert_eq!(second.map(drop), Err(Error::JobRuns { wanted: "scrub", running: "scrub" }));
    host.engine.jobs().cancel(JobKind::Scrub).unwrap();
    world.executor.run_for(Duration::from_millis(100));
    assert_eq!((job(&host).state, noted(&world)), (JobState::Cancelled, None));
    assert_eq!(host.engine.jobs().cancel(JobKind::Scrub), Err(Error::NoJob { kind: "scrub" }));
}

#[test]
fn its_rate_is_what_was_asked_for_and_where_it_goes_on_is_noted_each_minute() {
    let (world, host) = world();
    begin(&world, &host, ScrubPosition { max_mbps: 2, ..plan(0, 100_000) });
    world.executor.run_for(Duration::from_secs(30));
    assert_eq!(noted(&world).unwrap().next, lba(0));
    world.executor.run_for(Duration::from_secs(60));
    let next = noted(&world).unwrap().next.0;
    assert!((28_000..32_000).contains(&next), "2 MB/s for a minute: {next}");
    // The process dies: the next one knows where it was.
    let again = world.after_kill();
    let host = again.open();
    let left = host.engine.unfinished_scrub().unwrap();
    assert_eq!((left.next.0, left.end.0, left.max_mbps), (next, 100_000, 2));
    scrub(&again, &host, ScrubPosition { max_mbps: FAST, ..left }).unwrap();
    assert_eq!((job(&host).blocks_total, noted(&again)), (100_000 - next, None));
}

#[test]
fn a_set_that_is_closed_goes_on_with_its_scrub_and_one_that_is_done_does_not() {
    let (world, host) = world();
    begin(&world, &host, ScrubPosition { max_mbps: 10, ..plan(1000, 100_000) });
    world.quiet();
    let done = job(&host).blocks_done;
    assert!(done > 1000);
    world.close(&host);
    assert_eq!(job(&host).state, JobState::Cancelled);
    let again = world.after_kill();
    let host = again.open();
    let left = host.engine.unfinished_scrub().unwrap();
    assert!(left.next.0 >= 1000 + done && left.end == lba(101_000), "{left:?}");
    scrub(&again, &host, left).unwrap();
    assert_eq!(again.after_kill().open().engine.unfinished_scrub(), None);
}

/// Writes of hosts meet a scrub that rescues what they write.
#[test]
fn what_hosts_write_meanwhile_is_there_afterwards() {
    let world = World::new();
    let host = world.open();
    world.write(&host, 0, filled_run(1, 64)).unwrap();
    world.bad_for_reads(0, 64);
    scrub(&world, &host, plan(0, 64)).unwrap();
    assert_eq!(host.engine.status().pending, 64);
    world.base.heal();
    world.base.set_timing(&Random::new(3), 2000);
    world.spare.set_timing(&Random::new(4), 2000);
    begin(&world, &host, plan(0, 64));
    for at in (0..64).step_by(2) {
        let (host, executor) = (host.clone(), world.executor.clone());
        world.executor.spawn(async move {
            executor.sleep(Duration::from_micros(500 * at)).await;
            host.write(at, filled(1000 + at)).await.unwrap();
        });
    }
    world.quiet();
    assert_eq!(job(&host).state, JobState::Done);
    world.base.heal();
    for at in 0..64 {
        let expected = if at % 2 == 0 { 1000 + at } else { 1 + at };
        assert_eq!(value(&world.read(&host, at, 1).unwrap()), expected, "block {at}");
    }
    assert_eq!((host.engine.status().remapped, host.engine.status().pending), (64, 0));
}

/// Whether a write of a block that a scrub rescues is there afterwards, whenever it came.
fn a_write_at_any_moment_stays() -> bool {
    for polls in 0.. {
        let (world, host) = world();
        world.bad_for_reads(300, 1);
        scrub(&world, &host, plan(300, 1)).unwrap();
        world.base.heal();
        begin(&world, &host, plan(300, 1));
        world.executor.run_to(world.executor.polls() + polls);
        let over = job(&host).state == JobState::Done;
        world.write(&host, 300, filled(9)).unwrap();
        world.quiet();
        world.bad_for_reads(300, 1);
        if world.read(&host, 300, 1) != Ok(filled(9)) {
            return false;
        }
        if over {
            break;
        }
    }
    true
}

#[test]
fn what_a_host_writes_while_a_block_is_rescued_stays() {
    assert!(a_write_at_any_moment_stays());
}

/// That the test above can fail: it takes a moment that the simulation seldom meets.
#[cfg(feature = "mutations")]
mod mutations {
    use super::*;
    use remap_core::mutation::Mutation;

    #[test]
    fn what_a_host_writes_while_a_block_is_rescued_is_lost_without_a_lock() {
        assert!(!with_bug(Mutation::ScrubWithoutLock, a_write_at_any_moment_stays));
    }
}

#[test]
fn a_base_that_dies_ends_the_scrub_and_one_with_the_brake_on_is_not_scrubbed() {
    let world = World::new();
    let host = world.open_with(OpenParams { storm_limit: 10, ..params() }).unwrap();
    world.bad_for_reads(100, 6);
    world.bad_for_reads(1000, 10_000);
    let died = scrub(&world, &host, plan(0, BASE_BLOCKS));
    assert_eq!(died, Err(Stopped::Failed(Error::TooManyUnreadable { limit: 10 })));
    assert_eq!((host.engine.status().pending, host.engine.status().state), (6, SetState::Online));
    assert_eq!((job(&host).state, noted(&world)), (JobState::Failed, None));
    world.bad_for_writes(100, 20);
    assert_eq!(world.write(&host, 100, filled_run(1, 20)), Err(WRITE_FAULT));
    assert_eq!(scrub(&world, &host, plan(0, 100)), Err(Stopped::Failed(Error::Tripped)));
}

#[test]
fn an_error_that_is_not_of_the_medium_says_nothing_of_a_block() {
    let (world, host) = world();
    world.base.fail(Fault::new(Verb::Read, 500..501, IoStatus::Aborted));
    begin(&world, &host, plan(0, 1000));
    world.executor.run_for(Duration::from_secs(1));
    assert_eq!(job(&host).state, JobState::Running, "it may pass");
    world.base.heal();
    world.quiet();
    assert_eq!((job(&host).state, counts(&host).unreadable), (JobState::Done, 0));
    world.base.fail(Fault::new(Verb::Read, 500..501, IoStatus::Aborted));
    let failed = scrub(&world, &host, plan(0, 1000));
    assert!(
        matches!(failed, Err(Stopped::Failed(Error::BaseIo { what: "read", lba: BaseLba(256), .. }))),
        "{failed:?}"
    );
    assert_eq!(host.engine.status().pending, 0);
}

#[test]
fn a_spare_that_fails_is_told_from_the_base() {
    let (world, host) = world();
    let Place::Spare(at) = host.engine.table().lookup(lba(10)) else { panic!() };
    let at = host.engine.layout().data(at);
    world.spare.fail(Fault::new(Verb::Read, at.0..at.0 + 1, IoStatus::Aborted));
    let failed = scrub(&world, &host, plan(0, 100));
    assert_eq!(failed, Err(Stopped::Failed(Error::Io { what: "read", lba: at, status: IoStatus::Aborted })));
}

#[test]
fn it_takes_a_small_part_of_the_time_of_a_device_that_hosts_use() {
    let (world, host) = world();
    // Reads of the base take 5 ms on average.
    world.base.set_timing(&Random::new(1), 10_000);
    begin(&world, &host, plan(0, BASE_BLOCKS));
    world.executor.run_for(Duration::from_secs(10));
    let alone = job(&host).blocks_done;
    let (busy, executor) = (host.clone(), world.executor.clone());
    world.executor.spawn(async move {
        for _ in 0..10_000 {
            busy.read(0, 1).await.unwrap();
            executor.sleep(Duration::from_millis(1)).await;
        }
    });
    world.executor.run_for(Duration::from_secs(10));
    let beside = job(&host).blocks_done - alone;
    assert!(alone > 8 * beside && beside > 0, "{alone} blocks alone, {beside} beside a host");
    host.engine.jobs().cancel(JobKind::Scrub).unwrap();
    world.executor.run_for(Duration::from_secs(1));
    assert_eq!(job(&host).state, JobState::Cancelled);
}
