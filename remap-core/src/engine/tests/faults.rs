//! Errors of the spare while the log is written: one copy, both copies, and what is in doubt then.

use super::*;
use crate::format::Copy;

/// A world with a block 10 that is remapped and holds 1, and blocks up to 99 that are bad for writes.
fn world() -> (World, SimHost) {
    let world = World::new();
    world.bad_for_writes(10, 90);
    let host = world.host();
    world.write(&host, 10, filled(1)).unwrap();
    (world, host)
}

/// Writes to all pages of this copy of the log fail, `times` times.
fn fail_log(world: &World, host: &SimHost, copy: Copy, kind: FaultKind, times: u64) {
    let layout = host.engine.layout();
    let first = layout.log_page(copy, 0, 0);
    world.spare.fail(kind, first, first + 2 * u64::from(layout.area_pages), IoStatus::Failed, times);
}

#[test]
fn one_log_copy_is_enough_and_is_healed_by_save() {
    for (copy, other) in [(Copy::A, Copy::B), (Copy::B, Copy::A)] {
        let (world, host) = world();
        fail_log(&world, &host, copy, FaultKind::Write, 1);
        world.write(&host, 11, filled(2)).unwrap();
        let status = host.engine.status();
        assert_eq!(status.state, SetState::Degraded);
        assert_eq!(status.counters.log_copy_errors, 1);
        // It is tried again for the next page.
        world.write(&host, 12, filled(3)).unwrap();
        let again = world.after_kill();
        let host = again.host();
        assert_eq!(mappings(&host.engine).len(), 3);
        let metadata = host.engine.status().metadata;
        let health = [metadata.log_a, metadata.log_b];
        assert_eq!((health[copy.index()], health[other.index()]), (CopyHealth::Bad, CopyHealth::Ok));
        assert!(again.save(&host).unwrap().all_copies);
        assert_eq!(host.engine.status().state, SetState::Online);
        assert_eq!(again.after_kill().host().engine.status().state, SetState::Online);
    }
}

#[test]
fn a_commit_that_copy_a_missed_is_not_forgotten_when_copy_b_loses_it() {
    let (world, host) = world();
    // Pages count from 0, sequence numbers from 1: this is the page that comes next.
    let page = host.engine.status().sequence;
    fail_log(&world, &host, Copy::A, FaultKind::Write, 1);
    world.write(&host, 11, filled(2)).unwrap();
    let mut medium = world.spare.contents();
    medium.set_block(host.engine.layout().log_page(Copy::B, 0, page), &filled(7));
    let again = world.after_crash(medium);
    let refused = again.open_with(params()).map(drop);
    assert!(matches!(refused, Err(Error::LogDamaged { .. })), "{refused:?}");
}

#[test]
fn a_dead_log_copy_is_survived_for_ever() {
    for copy in Copy::BOTH {
        let (world, host) = world();
        fail_log(&world, &host, copy, FaultKind::Write, u64::MAX);
        fail_log(&world, &host, copy, FaultKind::Read, u64::MAX);
        for at in 11..90 {
            world.write(&host, at, filled(at)).unwrap();
        }
        assert_eq!(host.engine.status().state, SetState::Degraded);
        assert!(host.engine.status().epoch > 1, "the area was full, and a checkpoint went to one copy");
        assert!(!world.save(&host).unwrap().all_copies);
        let again = world.after_kill();
        let host = again.host();
        assert_eq!(mappings(&host.engine).len(), 80);
        assert_eq!(value(&again.read(&host, 80, 1).unwrap()), 80);
    }
}

/// With both copies failing, whether or not the page reached the medium, no acknowledged write is lost.
#[test]
fn in_doubt_nothing_acknowledged_is_lost() {
    for kind in [FaultKind::Write, FaultKind::WriteLies] {
        let (world, host) = world();
        let log = host.engine.status().epoch;
        fail_log(&world, &host, Copy::A, kind, 1);
        fail_log(&world, &host, Copy::B, kind, 1);
        let free = host.engine.status().spare.free;
        assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
        assert_eq!(mappings(&host.engine)[1], (lba(11), Mapping::Pending));
        assert_eq!(host.engine.status().state, SetState::Degraded);
        assert_eq!(host.engine.status().spare.free, free - 1, "its spare block is in doubt");
        // What is on the medium now may say either.
        let crashed = world.spare.contents();
        // The base could take the block now, but a write of it must not be acknowledged without a commit.
        world.base.heal();
        let writes = world.base.writes();
        world.write(&host, 11, filled(3)).unwrap();
        assert_eq!(world.base.writes(), writes);
        let status = host.engine.status();
        assert_eq!((status.state, status.epoch), (SetState::Online, log + 1));
        assert_eq!(status.spare.free, free - 1, "the one in doubt is free again, another is used");
        let again = world.after_kill();
        let host = again.host();
        assert_eq!(value(&again.read(&host, 11, 1).unwrap()), 3);
        assert_eq!(value(&again.read(&host, 10, 1).unwrap()), 1);
        // Without the commit behind it, the failed write may have happened or not.
        let early = again.after_crash(crashed);
        let host = early.host();
        let found = value(&early.read(&host, 11, 1).unwrap());
        assert_eq!(found, if kind == FaultKind::Write { 0 } else { 2 });
    }
}

#[test]
fn a_move_between_spare_blocks_that_is_in_doubt_fails_reads_until_it_is_settled() {
    for kind in [FaultKind::Write, FaultKind::WriteLies] {
        let (world, host) = world();
        let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!() };
        let at = host.engine.layout().data(old);
        world.spare.fail(FaultKind::Write, at, at + 1, WRITE_FAULT, 2);
        fail_log(&world, &host, Copy::A, kind, 1);
        fail_log(&world, &host, Copy::B, kind, 1);
        assert_eq!(world.write(&host, 10, filled(2)), Err(WRITE_FAULT));
        assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Lost(old))]);
        assert_eq!(world.read(&host, 10, 1), Err(READ_ERROR));
        // The old spare block takes writes again; this one must not be acknowledged without a commit.
        let epoch = host.engine.status().epoch;
        world.write(&host, 10, filled(3)).unwrap();
        assert!(host.engine.status().epoch > epoch);
        assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Spare(old))]);
        let again = world.after_kill();
        assert_eq!(value(&again.read(&again.host(), 10, 1).unwrap()), 3);
    }
}

#[test]
fn what_is_in_doubt_stays_so_until_a_checkpoint_succeeds() {
    let (world, host) = world();
    fail_log(&world, &host, Copy::A, FaultKind::Write, u64::MAX);
    fail_log(&world, &host, Copy::B, FaultKind::Write, u64::MAX);
    for round in 0..3 {
        assert_eq!(world.write(&host, 11, filled(round)), Err(WRITE_FAULT));
        assert_eq!(world.write(&host, 12, filled(round)), Err(WRITE_FAULT));
    }
    assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    assert_eq!(world.read(&host, 10, 1).unwrap(), filled(1), "what was remapped still works");
    let free = host.engine.status().spare.free;
    assert_eq!(free, 138 - 2, "one used, one in doubt: no reservation is left behind");
    world.spare.heal();
    let saved = world.save(&host).unwrap();
    assert!(saved.epoch >= 6, "no epoch is used twice: {}", saved.epoch);
    assert_eq!(mappings(&host.engine).len(), 1, "and what was true before is so again");
    assert_eq!(host.engine.status().spare.free, 137);
    assert_eq!(world.after_kill().host().engine.status().state, SetState::Online);
}

#[test]
fn a_failed_checkpoint_leaves_the_old_area_in_force() {
    let (world, host) = world();
    // The other area cannot be written at all.
    let layout = *host.engine.layout();
    for copy in Copy::BOTH {
        let first = layout.log_page(copy, 1, 0);
        world.spare.fail(FaultKind::Write, first, first + 65, IoStatus::Failed, u64::MAX);
    }
    assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    // A checkpoint of one page may be complete all the same, so nothing may be appended to the old area.
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    let again = world.after_kill();
    assert_eq!(mappings(&again.host().engine).len(), 1);
    world.spare.heal();
}

#[test]
fn data_that_cannot_be_flushed_is_not_committed() {
    let (world, host) = world();
    world.spare.fail(FaultKind::Flush, 0, 1, IoStatus::Failed, 1);
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    assert_eq!(mappings(&host.engine).len(), 1);
    assert_eq!(host.engine.status().spare.free, 137, "the reservation was given back");
    world.write(&host, 11, filled(3)).unwrap();
}

#[test]
fn rot_of_one_copy_degrades_and_rot_of_both_is_refused() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    world.write(&host, 12, filled(3)).unwrap();
    let layout = *host.engine.layout();
    let medium = world.spare.contents();
    for page in 0..3 {
        for copy in Copy::BOTH {
            let mut rotten = medium.clone();
            rotten.flip(layout.log_page(copy, 0, page), 77);
            let again = world.after_crash(rotten);
            let host = again.host();
            assert_eq!(host.engine.status().state, SetState::Degraded, "page {page}");
            assert_eq!(mappings(&host.engine).len(), 3);
        }
        let mut rotten = medium.clone();
        Copy::BOTH.iter().for_each(|copy| rotten.flip(layout.log_page(*copy, 0, page), 77));
        let again = world.after_crash(rotten.clone());
        assert!(again.open_with(params()).is_err(), "page {page}");
        assert_eq!(again.spare.contents(), rotten);
    }
}

#[test]
fn restore_does_not_use_the_epochs_of_failed_checkpoints_again() {
    let (world, host) = world();
    fail_log(&world, &host, Copy::A, FaultKind::Write, u64::MAX);
    fail_log(&world, &host, Copy::B, FaultKind::Write, u64::MAX);
    for _ in 0..3 {
        assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    }
    world.spare.heal();
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.restore(false).await }).unwrap().unwrap();
    // Epochs 2 to 4 failed. Restore itself has saved under epoch 5, as the failed ones may be complete on the spare.
    assert_eq!(host.engine.status().epoch, 5);
    assert_eq!(mappings(&host.engine).len(), 1);
}

/// Copy B alone is not proof that copy A had been written, if that had failed.
#[test]
fn a_crash_in_a_checkpoint_on_copy_b_alone_falls_back_to_the_old_area() {
    let world = World::with(Medium::new(BLOCK, 2000), true);
    world.bad_for_writes(0, 2000);
    let host = world.host();
    for at in 0..300 {
        let host = host.clone();
        world.executor.spawn(async move { host.write(at * 2, filled(at)).await.unwrap() });
    }
    world.executor.run();
    fail_log(&world, &host, Copy::A, FaultKind::Write, u64::MAX);
    // Copy B has one page of two when power fails.
    world.spare.die_at(world.spare.steps() + 1);
    let engine = Rc::clone(&host.engine);
    assert!(world.executor.block_on(async move { engine.save().await }).is_none());
    let again = world.after_kill();
    let host = again.host();
    assert_eq!(mappings(&host.engine).len(), 300);
    assert_eq!(host.engine.status().state, SetState::Online, "a fresh checkpoint was written");
    assert_eq!(host.engine.status().epoch, 3);
}
