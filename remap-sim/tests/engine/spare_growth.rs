//! The spare grows, in use or not.

use std::time::Duration;

use remap_core::format::Layout;
use remap_sim::Cut;

use super::*;

/// The spare's size later, and what there is for data then: the log areas are as long as they were.
const GROWN: u64 = 2 * SPARE_BLOCKS;
const DATA: u64 = 138;
/// A later size.
const TWICE: u64 = 3 * SPARE_BLOCKS;
const GROWN_DATA: u64 = GROWN - 1 - 130 - 131;

/// A set with two remapped blocks; all of the base is bad for writes.
fn full_of_bad_blocks() -> (World, Vbdev) {
    let world = World::new();
    world.bad_for_writes(0, BASE_BLOCKS);
    let host = world.open();
    world.write(&host, 10, filled_run(10, 2)).unwrap();
    (world, host)
}

/// The blocks of the superblocks that can be decoded, and how many blocks they give the spare.
fn superblocks(medium: &Medium) -> Vec<(u64, u64)> {
    let decoded = |at| match Superblock::decode(&medium.block(at)) {
        SuperblockContent::Valid(superblock) => Some((at, superblock.layout.spare_blocks)),
        _ => None,
    };
    (0..medium.geometry().blocks).filter_map(decoded).collect()
}

fn flush(world: &World, host: &Vbdev) -> Result<(), IoStatus> {
    let host = host.clone();
    world.executor.block_on(async move { host.flush().await }).unwrap()
}

fn spare_total(host: &Vbdev) -> u64 {
    host.engine.status().spare.total
}

#[test]
fn what_a_spare_has_grown_by_is_used_after_the_next_save_and_nothing_moves() {
    let (world, host) = full_of_bad_blocks();
    world.spare.grow(GROWN);
    world.write(&host, 12, filled(12)).unwrap();
    assert_eq!(spare_total(&host), DATA);
    let before = mappings(&host.engine);
    world.save(&host).unwrap();
    assert_eq!((spare_total(&host), host.engine.status().state), (GROWN_DATA, SetState::Online));
    assert_eq!(mappings(&host.engine), before);
    assert_eq!(superblocks(&world.spare.durable()), [(0, GROWN), (SPARE_BLOCKS - 1, SPARE_BLOCKS), (GROWN - 1, GROWN)]);
    // All of it, also where copy B of the metadata was.
    world.write(&host, 13, filled_run(13, GROWN_DATA - 3)).unwrap();
    assert_eq!(host.engine.status().spare.free, 0);
    assert_eq!(world.write(&host, 5000, filled(1)), Err(WRITE_FAULT));
    flush(&world, &host).unwrap();
    assert_eq!(superblocks(&world.spare.durable()), [(0, GROWN), (GROWN - 1, GROWN)]);
    let again = world.after_crash(world.spare.durable());
    let host = again.open();
    assert_eq!(again.read(&host, 10, GROWN_DATA), Ok(filled_run(10, GROWN_DATA)));
}

#[test]
fn a_spare_that_grew_while_nobody_used_it_is_opened_whatever_is_at_its_new_end() {
    let (world, host) = full_of_bad_blocks();
    let other = World::with(Medium::new(BLOCK, GROWN), true);
    other.open();
    world.close(&host);
    for at_end in [None, Some(other.spare.durable().block(GROWN - 1)), Some(filled(7))] {
        let mut medium = world.spare.durable();
        medium.grow(GROWN);
        if let Some(block) = at_end {
            (SPARE_BLOCKS..GROWN).for_each(|at| medium.set_block(at, &block));
        }
        let again = world.after_crash(medium);
        let host = again.open();
        assert_eq!((spare_total(&host), host.engine.status().state), (GROWN_DATA, SetState::Online));
        again.write(&host, 12, filled_run(12, 300)).unwrap();
        flush(&again, &host).unwrap();
        let last = again.after_crash(again.spare.durable());
        assert_eq!(last.read(&last.open(), 10, 302), Ok(filled_run(10, 302)));
    }
}

#[test]
fn a_spare_that_has_grown_and_shrinks_again_is_refused_and_loses_nothing() {
    let (world, host) = full_of_bad_blocks();
    world.spare.grow(GROWN);
    world.save(&host).unwrap();
    world.write(&host, 12, filled_run(12, 300)).unwrap();
    flush(&world, &host).unwrap();
    let grown = world.spare.durable();
    for blocks in [SPARE_BLOCKS, GROWN - 1] {
        let mut shrunk = Medium::new(BLOCK, blocks);
        (0..blocks).for_each(|at| shrunk.set_block(at, &grown.block(at)));
        let again = world.after_crash(shrunk.clone());
        again.base.attach(&again.executor);
        assert_eq!(again.open_with(params()).err(), Some(Error::SpareSizeDiffers { found: GROWN, expected: blocks }));
        assert!(again.spare.contents() == shrunk, "nothing was written");
        // Nor does it pass for what it was when superblock A is bad.
        shrunk.flip(0, 999);
        let again = world.after_crash(shrunk);
        again.base.attach(&again.executor);
        assert!(again.open_with(params()).is_err());
    }
    let again = world.after_crash(grown);
    assert_eq!(again.read(&again.open(), 10, 302), Ok(filled_run(10, 302)));
}

#[test]
fn growth_that_leaves_no_room_behind_what_is_in_force_moves_a_superblock_and_nothing_else() {
    for by in [1, 10, 130] {
        let (world, host) = full_of_bad_blocks();
        world.spare.grow(SPARE_BLOCKS + by);
        world.save(&host).unwrap();
        assert_eq!((spare_total(&host), host.engine.status().state), (DATA, SetState::Online));
        let again = world.after_crash(world.spare.durable());
        assert_eq!(again.read(&again.open(), 10, 2), Ok(filled_run(10, 2)));
        assert_eq!(superblocks(&again.spare.durable())[0], (0, SPARE_BLOCKS + by));
    }
}

#[test]
fn a_new_end_that_cannot_be_written_is_not_used_until_it_can() {
    let (world, host) = full_of_bad_blocks();
    world.spare.grow(GROWN);
    world.spare.fail(Fault::new(Verb::Write, SPARE_BLOCKS..GROWN, WRITE_FAULT));
    world.save(&host).unwrap();
    assert_eq!((spare_total(&host), host.engine.status().state), (DATA, SetState::Online));
    world.write(&host, 12, filled(12)).unwrap();
    let again = world.after_crash(world.spare.durable());
    again.spare.fail(Fault::new(Verb::Write, SPARE_BLOCKS..GROWN, WRITE_FAULT));
    let host = again.open();
    assert_eq!((spare_total(&host), again.read(&host, 10, 3)), (DATA, Ok(filled_run(10, 3))));
    again.spare.heal();
    again.save(&host).unwrap();
    assert_eq!(spare_total(&host), GROWN_DATA);
}

#[test]
fn new_blocks_wait_until_both_superblocks_know_of_them() {
    let (world, host) = full_of_bad_blocks();
    world.spare.grow(GROWN);
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    world.save(&host).unwrap();
    assert_eq!((spare_total(&host), host.engine.status().state), (DATA, SetState::Degraded));
    let left = world.spare.durable();
    world.spare.heal();
    world.executor.run_for(Duration::from_secs(61));
    assert_eq!((spare_total(&host), host.engine.status().state), (GROWN_DATA, SetState::Online));
    // The one at the new end is enough to find the rest.
    let again = world.after_crash(left);
    assert_eq!(again.read(&again.open(), 10, 2), Ok(filled_run(10, 2)));
}

#[test]
fn a_crash_at_any_moment_of_the_growth_of_a_spare_loses_nothing() {
    let mut grown = 0;
    for polls in 0.. {
        let (world, host) = full_of_bad_blocks();
        world.spare.grow(GROWN);
        let (done, told) = (Rc::new(std::cell::Cell::new(0)), host.clone());
        let begun = world.executor.polls();
        let acknowledged = Rc::clone(&done);
        world.executor.spawn(async move {
            told.engine.save().await.unwrap();
            acknowledged.set(1);
            // Over where copy B was.
            told.write(12, filled_run(12, 200)).await.unwrap();
            acknowledged.set(2);
        });
        let over = world.executor.run_to(begun + polls);
        let written = if done.get() == 2 { 202 } else { 2 };
        for (seed, cut) in (0..).zip(&[Cut::Kill, Cut::PowerNothing, Cut::PowerSome, Cut::PowerSome, Cut::PowerAll]) {
            // The same moment, left differently.
            let spare = world.spare.forked(seed);
            spare.set_tears(|_| Some(16));
            spare.crash(*cut);
            let left = spare.durable();
            let again = world.after_crash(left.clone());
            again.base.attach(&again.executor);
            let host = again.open();
            assert_eq!(again.read(&host, 10, written), Ok(filled_run(10, written)), "polls {polls}, {cut:?} {seed}");
            let whole: Vec<_> = superblocks(&left).into_iter().map(|(at, _)| at).collect();
            grown += u64::from(whole.contains(&(GROWN - 1)));
            // Each one is enough, other than the one that the size of the device does not tell.
            for at in [0, GROWN - 1] {
                let mut damaged = left.clone();
                damaged.flip(at, 999);
                let again = world.after_crash(damaged);
                again.base.attach(&again.executor);
                match again.open_with(params()) {
                    Ok(host) => assert_eq!(again.read(&host, 10, written), Ok(filled_run(10, written)), "without {at}"),
                    Err(Error::NoSuperblock { .. }) => {
                        let other = GROWN - 1 - at;
                        assert!(!whole.contains(&other), "polls {polls}, {cut:?} {seed}, without {at}");
                    }
                    Err(error) => panic!("without {at}: {error}"),
                }
            }
        }
        if over || done.get() == 2 {
            break;
        }
    }
    assert!(grown > 0, "it went to its end");
}

/// A spare grows while a page that goes to copy B where it was hangs; whether data is as it was written when that has come true.
fn late_write_spares_data() -> bool {
    // The moment at which the page of a commit goes to copy B.
    let (moment, at) = {
        let (world, host) = full_of_bad_blocks();
        let layout = host.engine.layout();
        let log_b = layout.log[Copy::B].0..layout.superblock_b.0;
        let begun = world.executor.polls();
        world.executor.spawn(async move { host.write(12, filled(12)).await.map(drop).unwrap() });
        let goes_to_b = |access: &remap_sim::Access| access.verb == Verb::Write && log_b.contains(&access.lba);
        let mut polls = 0;
        while !world.spare.under_way().iter().any(goes_to_b) {
            polls += 1;
            world.executor.run_to(begun + polls);
        }
        (polls, world.spare.under_way().iter().find(|access| goes_to_b(access)).unwrap().lba)
    };
    let (world, host) = full_of_bad_blocks();
    let (begun, writer) = (world.executor.polls(), host.clone());
    world.executor.spawn(async move { writer.write(12, filled(12)).await.map(drop).unwrap() });
    world.executor.run_to(begun + moment - 1);
    world.spare.hang_until(world.executor.now() + Duration::from_secs(100));
    world.executor.run_to(begun + moment);
    world.spare.hang_until(Duration::ZERO);
    world.executor.run_for(Duration::from_secs(20));
    assert!(world.spare.under_way().iter().any(|access| access.lba == at), "it hangs");
    world.spare.grow(GROWN);
    world.save(&host).unwrap();
    let early = world.write(&host, 13, filled_run(13, 300));
    world.executor.run_for(Duration::from_secs(100));
    assert_eq!(world.spare.under_way(), [], "it came true");
    if early.is_err() {
        world.save(&host).unwrap();
        world.write(&host, 13, filled_run(13, 300)).unwrap();
    }
    world.read(&host, 10, 303) == Ok(filled_run(10, 303))
}

#[test]
fn what_is_still_being_written_where_copy_b_was_does_not_come_over_data() {
    assert!(late_write_spares_data());
}

/// That the test above can fail: in the simulation nothing hangs for so long.
#[cfg(feature = "mutations")]
mod mutations {
    use super::*;
    use remap_core::mutation::Mutation;

    #[test]
    fn what_is_still_being_written_comes_over_data_if_nobody_waits_for_it() {
        assert!(!with_bug(Mutation::GrownOverLateWrites, late_write_spares_data));
    }
}

#[test]
fn a_set_without_its_first_copy_is_found_at_the_new_end_too() {
    let (world, host) = full_of_bad_blocks();
    let layout = host.engine.layout();
    world.spare.fail(Fault::new(Verb::Write, 0..layout.data_start.0, WRITE_FAULT));
    world.write(&host, 12, filled(12)).unwrap();
    world.spare.grow(GROWN);
    world.save(&host).unwrap();
    world.write(&host, 13, filled(13)).unwrap();
    assert_eq!((spare_total(&host), host.engine.status().state), (DATA, SetState::Degraded));
    let mut left = world.spare.durable();
    (0..layout.data_start.0).for_each(|at| left.flip(at, 999));
    let again = world.after_crash(left);
    assert_eq!(again.read(&again.open(), 10, 4), Ok(filled_run(10, 4)));
}

#[test]
fn a_bad_first_superblock_has_the_other_one_follow_the_device_by_itself() {
    let (world, host) = full_of_bad_blocks();
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    world.save(&host).unwrap();
    world.spare.grow(GROWN);
    world.executor.run_for(Duration::from_secs(130));
    assert!(superblocks(&world.spare.durable()).contains(&(GROWN - 1, GROWN)));
    assert_eq!(spare_total(&host), DATA);
}

#[test]
fn a_spare_that_has_grown_and_was_wiped_is_empty() {
    let (world, host) = full_of_bad_blocks();
    world.spare.grow(GROWN);
    // Pages where another layout has the first of an area.
    for lba in 12..32 {
        if lba % 10 == 2 {
            world.save(&host).unwrap();
        }
        world.write(&host, lba, filled(lba)).unwrap();
    }
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.wipe(true).await }).unwrap().unwrap();
    let again = world.after_crash(world.spare.durable());
    let host = again.open();
    assert_eq!(host.engine.status().remapped, 0);
    assert!(spare_total(&host) < GROWN_DATA, "laid out anew");
}

#[test]
fn a_spare_that_grows_twice_is_found_although_its_first_copy_is_as_it_was_before() {
    for reopened in [false, true] {
        let (mut world, mut host) = full_of_bad_blocks();
        let first_copy = Fault::new(Verb::Write, 0..host.engine.layout().data_start.0, WRITE_FAULT);
        world.spare.fail(first_copy.clone());
        world.spare.grow(GROWN);
        world.save(&host).unwrap();
        if reopened {
            world = world.after_crash(world.spare.durable());
            world.spare.fail(first_copy.clone());
            host = world.open();
        }
        // More than there is, if what it has grown by must not be used.
        let all = (12..12 + DATA).map(|at| world.write(&host, at, filled(at)));
        assert_eq!(all.filter(Result::is_ok).count() as u64, DATA - 2);
        flush(&world, &host).unwrap();
        let written = host.engine.status().remapped;
        assert_eq!((spare_total(&host), written), (DATA, DATA));
        let mut left = world.spare.durable();
        left.grow(TWICE);
        let again = world.after_crash(left);
        assert_eq!(again.read(&again.open(), 10, written), Ok(filled_run(10, written)), "reopened: {reopened}");
    }
}

#[test]
fn nothing_rests_on_a_superblock_at_the_new_end_that_would_not_be_found_if_the_device_grew_again() {
    for reopened in [false, true] {
        let (mut world, mut host) = full_of_bad_blocks();
        let first_copy = Fault::new(Verb::Write, 0..host.engine.layout().data_start.0, WRITE_FAULT);
        let former_b = Fault::new(Verb::Write, SPARE_BLOCKS - 1..SPARE_BLOCKS, WRITE_FAULT);
        let fail = |world: &World| [&first_copy, &former_b].map(|fault| world.spare.fail(fault.clone()));
        fail(&world);
        world.spare.grow(GROWN);
        assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
        let mut acknowledged = Vec::new();
        if reopened {
            world = world.after_crash(world.spare.durable());
            fail(&world);
            assert_eq!(world.open_with(params()).err(), Some(Error::CheckpointFailed));
        } else {
            acknowledged.extend((12..40).filter(|at| world.write(&host, *at, filled(*at)).is_ok()));
        }
        let left = world.spare.durable();
        // As soon as one of them can be written all goes on.
        world.spare.heal();
        if reopened {
            host = world.open();
        }
        world.save(&host).unwrap();
        world.write(&host, 50, filled(50)).unwrap();
        for (mut left, acknowledged) in [(left, acknowledged), (world.spare.durable(), vec![10, 11, 50])] {
            left.grow(TWICE);
            let again = world.after_crash(left);
            again.base.attach(&again.executor);
            let found = again.open();
            for at in acknowledged {
                assert_eq!(again.read(&found, at, 1), Ok(filled(at)), "block {at}, reopened: {reopened}");
            }
        }
    }
}

#[test]
fn what_is_used_of_a_grown_spare_stays_so_although_a_superblock_is_as_it_was_before() {
    for copy in Copy::BOTH {
        let (world, host) = full_of_bad_blocks();
        let before = world.spare.durable();
        world.spare.grow(GROWN);
        world.save(&host).unwrap();
        // One block more than there was before.
        let written = DATA + 1;
        world.write(&host, 12, filled_run(12, written - 2)).unwrap();
        flush(&world, &host).unwrap();
        let mut left = world.spare.durable();
        let (from, to) = match copy {
            Copy::A => (0, 0),
            Copy::B => (SPARE_BLOCKS - 1, GROWN - 1),
        };
        left.set_block(to, &before.block(from));
        let again = world.after_crash(left);
        let host = again.open();
        assert_eq!((host.engine.status().remapped, spare_total(&host)), (written, GROWN_DATA), "copy {}", copy.name());
        again.write(&host, 1000, filled_run(1000, GROWN_DATA - written)).unwrap();
        assert!(again.read(&host, 10, written) == Ok(filled_run(10, written)), "copy {}", copy.name());
    }
}

/// An attempt at a checkpoint in the new layout that nothing tells of leaves pages where that layout has the other area of the next one.
#[test]
fn what_an_attempt_has_left_at_the_new_end_is_not_taken_for_a_checkpoint() {
    let (world, host) = full_of_bad_blocks();
    for at in [0, SPARE_BLOCKS - 1, GROWN - 1] {
        world.spare.fail(Fault::new(Verb::Write, at..at + 1, WRITE_FAULT));
    }
    assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    world.spare.grow(GROWN);
    for _ in 0..2 {
        assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    }
    let mut again = world.after_kill();
    for at in 12..14 {
        let host = again.open();
        assert_eq!(again.read(&host, 10, at - 10), Ok(filled_run(10, at - 10)));
        assert_eq!(spare_total(&host), GROWN_DATA);
        again.bad_for_writes(at, 1);
        again.write(&host, at, filled(at)).unwrap();
        again = again.after_kill();
    }
}

/// All that the second process committed is in the other area, of which nothing tells where it is once superblock A is lost.
#[test]
fn a_spare_that_has_grown_and_lost_its_first_superblock_is_not_taken_for_an_empty_one() {
    let world = World::new();
    world.bad_for_writes(0, BASE_BLOCKS);
    world.open();
    let world = world.after_kill();
    let host = world.open();
    world.write(&host, 10, filled(10)).unwrap();
    let layout = host.engine.layout();
    let first = layout.log[Copy::A].0;
    for blocks in [SPARE_BLOCKS + 1, 40 * SPARE_BLOCKS] {
        let mut medium = world.spare.contents();
        medium.clear(0, 1);
        medium.grow(blocks);
        let grown = Layout::for_spare(BLOCK, blocks).unwrap();
        assert_eq!(grown.area_pages > layout.area_pages, blocks > SPARE_BLOCKS + 1);
        let erased = Error::Erased { set: Uuid::from_u128(1) };
        assert_eq!(refused(medium.clone(), params()), erased);
        // Nor where not all of the first area can be read, or it was zeroed for the next checkpoint.
        let again = world.after_crash(medium.clone());
        again.spare.fail(Fault::new(Verb::Read, first..first + 1, READ_ERROR));
        assert_eq!(again.open_with(params()).err(), Some(erased.clone()));
        medium.clear(first, layout.area_blocks());
        assert_eq!(refused(medium, params()), erased);
    }
}

/// What wiping leaves of a log is no log, wherever its area is looked for.
#[test]
fn a_spare_that_was_wiped_and_has_grown_is_empty() {
    let (world, host) = full_of_bad_blocks();
    (0..100).for_each(|at| world.write(&host, 2 * at, filled(1)).unwrap());
    let wiped = Rc::clone(&host.engine);
    world.executor.block_on(async move { wiped.wipe(true).await }).unwrap().unwrap();
    for blocks in [SPARE_BLOCKS, SPARE_BLOCKS + 1, 40 * SPARE_BLOCKS] {
        let mut medium = world.spare.contents();
        assert!(medium.written(0..SPARE_BLOCKS).count() > 40, "pages are left");
        medium.grow(blocks);
        let again = World::with(medium, true);
        assert_eq!(mappings(&again.open_with(params()).unwrap().engine), []);
    }
}
