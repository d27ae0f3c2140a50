//! What a rescue does, through the engine: relocation, pending and lost blocks, bad spare blocks, and refusals.

use futures_util::future::{join, join3};

use super::*;
use remap_core::Device;
use remap_core::{Committed, Move, Owner, Refused, Target};

fn place(host: &Vbdev, at: u64) -> Place {
    host.engine.table().lookup(lba(at))
}

fn spare_block(host: &Vbdev, at: u64) -> u64 {
    let Place::Spare(index) = place(host, at) else { panic!("block {at} is not on the spare") };
    host.engine.layout().data(index).0
}

#[test]
fn only_the_bad_blocks_of_a_write_are_relocated() {
    let world = World::new();
    world.bad_for_writes(103, 2);
    world.bad_for_writes(109, 1);
    let host = world.open();
    world.write(&host, 100, filled_run(1000, 12)).unwrap();
    let moved: Vec<_> = mappings(&host.engine).iter().map(|(lba, _)| lba.0).collect();
    assert_eq!(moved, [103, 104, 109]);
    assert_eq!(world.read(&host, 100, 12).unwrap(), filled_run(1000, 12));
    let status = host.engine.status();
    assert_eq!((status.counters.rescued_writes, status.counters.rescued_blocks), (1, 3));
    assert_eq!(status.counters.media_errors_write, 3);
    assert_eq!(status.counters.log_pages, 1, "one commit for all three");
    assert_eq!(spare_block(&host, 104), spare_block(&host, 103) + 1);
    // It is not tried on the base again.
    world.base.heal();
    let writes = world.base.writes();
    world.write(&host, 103, filled(7)).unwrap();
    assert_eq!(world.base.writes(), writes);
    let host = world.after_kill().open();
    assert_eq!(mappings(&host.engine).len(), 3);
}

#[test]
fn write_zeroes_is_rescued_like_a_write() {
    let world = World::new();
    world.bad_for_writes(20, 1);
    let host = world.open();
    let one = host.clone();
    world.executor.block_on(async move { one.write_zeroes(18, 5).await }).unwrap().unwrap();
    assert!(matches!(place(&host, 20), Place::Spare(_)));
    assert_eq!(world.read(&host, 18, 5).unwrap(), filled_run(0, 1).repeat(5));
    assert_eq!(host.engine.status().counters.media_errors_write_zeroes, 1);
}

#[test]
fn a_read_that_fails_makes_its_bad_blocks_pending_and_stays_failed() {
    let world = World::new();
    let host = world.open();
    world.write(&host, 40, filled_run(400, 4)).unwrap();
    world.bad_for_reads(41, 1);
    assert_eq!(world.read(&host, 40, 4), Err(READ_ERROR));
    assert_eq!(mappings(&host.engine), [(lba(41), Mapping::Pending)]);
    // The others can be read, and the pending one too when the base can.
    assert_eq!(value(&world.read(&host, 40, 1).unwrap()), 400);
    assert_eq!(world.read(&host, 41, 1), Err(READ_ERROR));
    world.base.heal();
    assert_eq!(value(&world.read(&host, 41, 1).unwrap()), 401);
    // A write of it goes straight to the spare.
    let writes = world.base.writes();
    world.write(&host, 41, filled(500)).unwrap();
    assert_eq!(world.base.writes(), writes);
    assert_eq!(value(&world.read(&host, 41, 1).unwrap()), 500);
    let status = host.engine.status();
    assert_eq!((status.pending, status.remapped, status.counters.failed_reads), (0, 1, 2));
    let again = world.after_kill();
    assert_eq!(value(&again.read(&again.open(), 41, 1).unwrap()), 500);
}

#[test]
fn a_read_that_succeeds_when_retried_is_a_success() {
    let world = World::new();
    let host = world.open();
    world.write(&host, 40, filled_run(400, 4)).unwrap();
    world.base.fail(Fault::new(Verb::Read, 41..42, READ_ERROR).times(1));
    assert_eq!(world.read(&host, 40, 4).unwrap(), filled_run(400, 4));
    assert!(host.engine.table().is_empty());
    assert_eq!(host.engine.status().counters.retried_reads, 1);
}

#[test]
fn errors_that_are_not_of_the_medium_go_up_unchanged() {
    let world = World::new();
    let host = world.open();
    for status in [IoStatus::Aborted, IoStatus::NoMemory, IoStatus::Aio(-5), IoStatus::Failed] {
        world.base.heal();
        world.base.fail(Fault::new(Verb::Write, 50..51, status));
        assert_eq!(world.write(&host, 50, filled(1)), Err(status));
    }
    // One that comes in the middle of a rescue does, too, and the reservation is given back.
    world.base.heal();
    world.bad_for_writes(60, 1);
    world
        .spare
        .fail(Fault::new(Verb::Write, host.engine.layout().data_start.0..SPARE_BLOCKS, IoStatus::Aborted).times(1));
    assert_eq!(world.write(&host, 60, filled(1)), Err(IoStatus::Aborted));
    assert!(host.engine.table().is_empty());
    assert_eq!(host.engine.status().spare.free, 138);
}

#[test]
fn a_bad_spare_block_is_replaced_and_recorded() {
    let world = World::new();
    world.bad_for_writes(10, 1);
    let host = world.open();
    let start = host.engine.layout().data_start.0;
    // The first one that is reserved holds nothing yet.
    world.spare.fail(Fault::new(Verb::Write, start..start + 1, WRITE_FAULT));
    world.write(&host, 10, filled(1)).unwrap();
    assert_eq!(host.engine.status().spare.bad, 1);
    // The second one goes bad with data on it.
    let at = spare_block(&host, 10);
    world.spare.fail(Fault::new(Verb::Write, at..at + 1, WRITE_FAULT));
    world.write(&host, 10, filled(2)).unwrap();
    assert_ne!(spare_block(&host, 10), at);
    let status = host.engine.status();
    assert_eq!((status.spare.bad, status.spare.used, status.remapped), (2, 1, 1));
    assert_eq!(value(&world.read(&host, 10, 1).unwrap()), 2);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().spare.bad, 2);
    assert_eq!(value(&again.read(&host, 10, 1).unwrap()), 2);
    // Bad spare blocks survive a checkpoint.
    again.save(&host).unwrap();
    assert_eq!(again.after_kill().open().engine.status().spare.bad, 2);
}

#[test]
fn a_read_of_a_bad_spare_block_fails() {
    let world = World::new();
    world.bad_for_writes(10, 1);
    let host = world.open();
    world.write(&host, 10, filled(1)).unwrap();
    let at = spare_block(&host, 10);
    world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    assert_eq!(world.read(&host, 9, 3), Err(READ_ERROR));
    assert_eq!(spare_block(&host, 10), at);
}

#[test]
fn without_spare_blocks_the_original_error_goes_up() {
    let world = World::new();
    world.bad_for_writes(0, 200);
    let host = world.open();
    world.write(&host, 0, filled_run(0, 138)).unwrap();
    let nvme = IoStatus::Nvme { cdw0: 7, sct: 2, sc: 0x80 };
    world.base.fail(Fault::new(Verb::Write, 1000..1001, nvme));
    assert_eq!(world.write(&host, 1000, filled(1)), Err(nvme));
    let status = host.engine.status();
    assert_eq!((status.spare.free, status.remapped, status.counters.refused_no_spare), (0, 138, 1));
    // What is remapped already goes on to work.
    world.write(&host, 5, filled(9)).unwrap();
    assert_eq!(value(&world.read(&host, 5, 1).unwrap()), 9);
}

#[test]
fn the_storm_brake_stops_relocation_until_it_is_released() {
    let world = World::new();
    world.bad_for_writes(0, 20);
    let host = world.open_with(OpenParams { storm_limit: 4, ..params() }).unwrap();
    for at in 0..4 {
        world.write(&host, at, filled(at)).unwrap();
    }
    assert_eq!(world.write(&host, 4, filled(4)), Err(WRITE_FAULT));
    assert_eq!(host.engine.status().state, SetState::Tripped);
    world.executor.advance(std::time::Duration::from_secs(100));
    assert_eq!(world.write(&host, 4, filled(4)), Err(WRITE_FAULT), "it stays on");
    world.write(&host, 3, filled(33)).unwrap();
    host.engine.set_storm_limit(100);
    host.engine.rearm();
    world.write(&host, 4, filled(4)).unwrap();
    assert_eq!(host.engine.status().counters.refused_tripped, 2);
}

#[test]
fn two_relocations_of_one_block_use_one_spare_block() {
    let world = World::new();
    world.bad_for_writes(70, 1);
    let host = world.open();
    let (one, two) = (host.clone(), host.clone());
    let both = async move { join(one.write(70, filled(1)), two.write(70, filled(2))).await };
    let (first, second) = world.executor.block_on(both).unwrap();
    first.unwrap();
    second.unwrap();
    let status = host.engine.status();
    assert_eq!((status.remapped, status.spare.used, status.spare.free), (1, 1, 137));
    let found = value(&world.read(&host, 70, 1).unwrap());
    assert!(found == 1 || found == 2);
    let again = world.after_kill();
    assert_eq!(value(&again.read(&again.open(), 70, 1).unwrap()), found);
}

#[test]
fn concurrent_commits_share_a_page() {
    let world = World::new();
    world.bad_for_writes(0, 50);
    let host = world.open();
    for at in 0..20 {
        let host = host.clone();
        world.executor.spawn(async move { host.write(at * 2, filled(at)).await.unwrap() });
    }
    world.executor.run();
    let status = host.engine.status();
    assert_eq!(status.remapped, 20);
    assert!(status.counters.log_pages < 5, "{} pages", status.counters.log_pages);
    assert_eq!(mappings(&world.after_kill().open().engine), mappings(&host.engine));
}

#[test]
fn a_lost_block_fails_reads_and_is_healed_by_a_write() {
    let world = World::new();
    world.bad_for_writes(80, 1);
    let host = world.open();
    world.write(&host, 80, filled(1)).unwrap();
    let at = spare_block(&host, 80);
    let Place::Spare(spare) = place(&host, 80) else { panic!() };
    // As a migration leaves it.
    let mut medium = world.spare.contents();
    change_page(&mut medium, &host.engine, Area::Zero, 1, |_| vec![Record::Lost { lba: lba(80), spare, count: 1 }]);
    let world = world.after_crash(medium);
    let host = world.open();
    assert_eq!(mappings(&host.engine), [(lba(80), Mapping::Lost(spare))]);
    assert_eq!(world.read(&host, 80, 1), Err(READ_ERROR));
    world.save(&host).unwrap();
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().lost, 1);
    assert_eq!(again.read(&host, 79, 3), Err(READ_ERROR));
    again.write(&host, 80, filled(2)).unwrap();
    assert_eq!(spare_block(&host, 80), at);
    let last = again.after_kill();
    let host = last.open();
    assert_eq!((host.engine.status().lost, value(&last.read(&host, 80, 1).unwrap())), (0, 2));
}

#[test]
fn the_owner_decides_by_the_state_at_the_moment_of_the_commit() {
    let world = World::new();
    let host = world.open();
    let engine = Rc::clone(&host.engine);
    let all = async move {
        let Target::New(one) = engine.reserve(vec![lba(1)]).await.unwrap()[0] else { panic!() };
        let Target::New(two) = engine.reserve(vec![lba(1)]).await.unwrap()[0] else { panic!() };
        assert_eq!(engine.commit(vec![Move { lba: lba(1), to: one }]).await, Ok(vec![Committed::Done]));
        assert_eq!(engine.commit(vec![Move { lba: lba(1), to: two }]).await, Ok(vec![Committed::Elsewhere(one)]));
        assert_eq!(engine.reserve(vec![lba(1)]).await, Ok(vec![Target::Existing(one)]));
        // Neither a block that moved meanwhile nor one that is not there becomes pending.
        engine.set_pending(vec![lba(1), lba(BASE_BLOCKS)]).await.unwrap();
        assert_eq!(engine.table().lookup(lba(1)), Place::Spare(one));
        // A spare block that nobody reserved is not taken.
        assert_eq!(engine.commit(vec![Move { lba: lba(2), to: two }]).await, Err(Refused::Closed));
        assert_eq!(engine.reserve(vec![lba(BASE_BLOCKS)]).await, Err(Refused::Closed));
    };
    world.executor.block_on(all).unwrap();
    assert_eq!(host.engine.status().pending, 0);
    assert_eq!(world.base.geometry().blocks, BASE_BLOCKS);
}

#[test]
fn requests_of_one_page_see_each_other() {
    let world = World::new();
    let host = world.open();
    let engine = Rc::clone(&host.engine);
    let all = async move {
        let targets = engine.reserve(vec![lba(1), lba(2), lba(2)]).await.unwrap();
        let [Target::New(first), Target::New(one), Target::New(two)] = targets[..] else { panic!() };
        let commit = |at, to| engine.commit(vec![Move { lba: lba(at), to }]);
        // They share a page.
        let (zero, one_done, two_done) = join3(commit(1, first), commit(2, one), commit(2, two)).await;
        assert_eq!(zero, Ok(vec![Committed::Done]));
        assert_eq!((one_done, two_done), (Ok(vec![Committed::Done]), Ok(vec![Committed::Elsewhere(one)])));
    };
    world.executor.block_on(all).unwrap();
    let status = host.engine.status();
    assert_eq!((status.counters.log_pages, status.remapped, status.spare.free), (1, 2, 136));
    assert_eq!(mappings(&world.after_kill().open().engine), mappings(&host.engine));
}

#[test]
fn no_more_blocks_become_pending_than_the_log_has_room_for() {
    let world = World::new();
    world.bad_for_reads(0, 200);
    let host = world.open();
    assert_eq!(world.read(&host, 0, 100), Err(READ_ERROR));
    let status = host.engine.status();
    assert_eq!((status.pending, status.counters.pending_skipped), (64, 36));
    world.save(&host).unwrap();
    assert_eq!(world.after_kill().open().engine.status().pending, 64);
}
