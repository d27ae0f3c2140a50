//! Migrations: all that is on the spare moves to another one, while hosts go on.

use std::cell::Cell;
use std::time::Duration;

use remap_core::{Begun, JobKind, JobState, MigrateParams, RemapOn, Stopped};
use uuid::Uuid;

use super::*;

const NEW_ID: Uuid = Uuid::from_u128(77);
const UNLIMITED: MigrateParams = MigrateParams { on: RemapOn::Media, bytes_per_second: None };
/// A block a second.
const SLOW: MigrateParams = MigrateParams { on: RemapOn::Media, bytes_per_second: Some(4096) };
/// The least blocks of a spare, and how many of them are for data.
const LEAST: u64 = 326;

/// The world of `super::world`, in which blocks 10 to 99 are remapped: block 10 holds 1, the others their own numbers.
fn full_world() -> (World, Vbdev) {
    let (world, host) = world();
    world.write(&host, 11, filled_run(11, 89)).unwrap();
    (world, host)
}

fn disk(world: &World, blocks: u64) -> Disk {
    Disk::new(&world.executor, Medium::new(BLOCK, blocks), true)
}

fn begin_with(host: &Vbdev, to: &Disk, params: MigrateParams) -> Result<Begun, Error> {
    let (vbdev, to) = (host.clone(), to.clone());
    host.engine
        .jobs()
        .begin(JobKind::Migrate, move |job| async move { vbdev.migrate(&to, NEW_ID, params, false, &job).await })
}

fn join(world: &World, job: Begun) -> Result<(), Stopped> {
    world.executor.block_on(async move { job.join().await }).unwrap()
}

fn migrate(world: &World, host: &Vbdev, to: &Disk) -> Result<(), Stopped> {
    join(world, begin_with(host, to, UNLIMITED).unwrap())
}

/// What blocks 10 to 99 hold.
fn expected() -> Vec<u8> {
    [filled(1), filled_run(11, 89)].concat()
}

/// The world as it is for who starts again with this spare, after a power cut.
fn with_spare(world: &World, spare: &Disk) -> World {
    world.after_crash(spare.durable())
}

/// The old spare is in force, and the new one is not.
fn stays(world: &World, host: &Vbdev, new: &Disk) {
    assert_eq!(host.engine.slot(), Slot::FIRST);
    assert_ne!(host.engine.status().state, SetState::Migrating);
    assert_eq!(world.read(host, 10, 90), Ok(expected()));
    world.close(host);
    let new = with_spare(world, new);
    let refused = new.open_with(OpenParams { format: FormatPolicy::Never, ..params() }).map(drop);
    assert!(refused.is_err(), "the new spare is not in force");
    let old = with_spare(world, &world.spare);
    let host = old.open();
    assert_eq!(old.read(&host, 10, 90), Ok(expected()));
}

#[test]
fn all_moves_to_another_spare_of_any_size_and_the_old_one_names_it() {
    for blocks in [SPARE_BLOCKS, 4 * SPARE_BLOCKS, SPARE_BLOCKS - 30] {
        let (world, host) = full_world();
        world.bad_for_reads(200, 3);
        assert!(world.read(&host, 200, 3).is_err());
        let before = host.engine.status();
        let new = disk(&world, blocks);
        assert_eq!(migrate(&world, &host, &new), Ok(()));
        let status = host.engine.status();
        assert_eq!((status.remapped, status.pending, status.lost), (before.remapped, 3, 0));
        assert_eq!((status.state, status.jobs[0].state), (SetState::Online, JobState::Done));
        assert_eq!(host.engine.slot(), Slot::FIRST.other());
        assert_eq!(status.spare.used, 90);
        world.spare.lose_power(remap_sim::Cut::PowerNothing);
        assert_eq!(world.read(&host, 10, 90), Ok(expected()), "nothing is left on the old one");
        world.write(&host, 12, filled(5)).unwrap();
        world.bad_for_writes(300, 1);
        world.write(&host, 300, filled(300)).unwrap();
        world.close(&host);
        let old = with_spare(&world, &world.spare);
        let refused = old.open_with(params()).map(drop).unwrap_err();
        assert_eq!(refused, Error::NotActive { state: "retired", other: NEW_ID });
        assert!(refused.to_string().contains(&NEW_ID.to_string()), "{refused}");
        let new = with_spare(&world, &new);
        let host = new.open();
        let data = [filled(1), filled(11), filled(5), filled_run(13, 87)].concat();
        assert_eq!(new.read(&host, 10, 90), Ok(data));
        assert_eq!(new.read(&host, 300, 1), Ok(filled(300)));
    }
}

#[test]
fn it_moves_back_to_the_spare_that_it_came_from() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    assert_eq!(migrate(&world, &host, &new), Ok(()));
    assert_eq!(migrate(&world, &host, &world.spare), Ok(()));
    assert_eq!(host.engine.slot(), Slot::FIRST);
    assert_eq!(world.read(&host, 10, 90), Ok(expected()));
    world.close(&host);
    let again = with_spare(&world, &world.spare);
    assert_eq!(again.read(&again.open(), 10, 90), Ok(expected()));
    assert!(with_spare(&world, &new).open_with(params()).is_err());
}

#[test]
fn a_spare_that_does_not_fit_or_is_used_is_refused_and_not_touched() {
    let (world, host) = full_world();
    let refusal = |to: &Disk| {
        let before = to.writes();
        let Err(Stopped::Failed(error)) = migrate(&world, &host, to) else { panic!("it is refused") };
        assert!(host.engine.status().jobs.iter().all(|job| job.state == JobState::Failed));
        (error, to.writes() - before)
    };
    assert_eq!(refusal(&disk(&world, LEAST + 4)), (Error::SpareTooSmall { room: 68, needed: 90 }, 0), "too small");
    let set = host.engine.set_uuid();
    assert_eq!(refusal(&world.spare), (Error::SpareInUse { set }, 0), "itself");
    let foreign = disk(&world, SPARE_BLOCKS);
    foreign.rot(|medium| medium.set_block(0, &filled(3)));
    assert_eq!(refusal(&foreign), (Error::Foreign { copy: 'A' }, 0), "it holds something");
    let other = World::new();
    let fresh_set_uuid = Uuid::from_u128(99);
    drop(other.open_with(OpenParams { fresh_set_uuid, ..params() }).unwrap());
    let used = Disk::new(&world.executor, other.spare.contents(), true);
    assert_eq!(refusal(&used), (Error::SpareInUse { set: fresh_set_uuid }, 0), "of another set");
    stays(&world, &host, &foreign);
}

#[test]
fn a_second_one_is_refused_and_who_cancels_leaves_the_old_spare_as_it_was() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let first = begin_with(&host, &new, SLOW).unwrap();
    world.quiet();
    let status = host.engine.status();
    assert_eq!((status.state, status.jobs[0].state), (SetState::Migrating, JobState::Running));
    let second = begin_with(&host, &new, UNLIMITED).map(drop).unwrap_err();
    assert_eq!(second, Error::JobRuns { wanted: "migrate", running: "migrate" });
    host.engine.jobs().cancel(JobKind::Migrate).unwrap();
    assert_eq!(join(&world, first), Err(Stopped::Cancelled));
    stays(&world, &host, &new);
}

#[test]
fn a_new_spare_that_fails_fails_no_host_and_ends_it() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let job = begin_with(&host, &new, SLOW).unwrap();
    world.quiet();
    new.fail(Fault::new(Verb::Write, 0..SPARE_BLOCKS, IoStatus::Other(-19)));
    new.fail(Fault::of_flush(IoStatus::Other(-19)));
    world.write(&host, 10, filled_run(10, 90)).unwrap();
    let flushed = host.clone();
    assert_eq!(world.executor.block_on(async move { flushed.flush().await }).unwrap(), Ok(()));
    world.write(&host, 10, filled(1)).unwrap();
    let failed = join(&world, job);
    let expected = Error::MigrationIo { what: "write", status: IoStatus::Other(-19) };
    assert_eq!(failed, Err(Stopped::Failed(expected)));
    stays(&world, &host, &new);
}

#[test]
fn bad_blocks_of_the_new_spare_are_replaced_there() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let layout = host.engine.layout();
    new.fail(Fault::new(Verb::Write, layout.data_start.0 + 3..layout.data_start.0 + 5, WRITE_FAULT));
    assert_eq!(migrate(&world, &host, &new), Ok(()));
    assert_eq!(host.engine.status().spare.bad, 2);
    assert_eq!(world.read(&host, 10, 90), Ok(expected()));
    world.close(&host);
    assert_eq!(with_spare(&world, &new).open().engine.status().spare.bad, 2, "and known to be bad");
}

#[test]
fn a_new_spare_that_fills_up_ends_it_and_the_old_one_goes_on() {
    let (world, host) = world();
    world.write(&host, 11, filled_run(11, 9)).unwrap();
    let new = disk(&world, LEAST);
    let job = begin_with(&host, &new, SLOW).unwrap();
    world.quiet();
    world.write(&host, 20, filled_run(20, 80)).unwrap();
    assert_eq!(join(&world, job), Err(Stopped::Failed(Error::NewSpareFull)));
    stays(&world, &host, &new);
}

#[test]
fn what_the_old_spare_cannot_read_is_lost_on_the_new_one_until_it_is_written() {
    let (world, host) = full_world();
    let layout = host.engine.layout();
    world.spare.fail(Fault::new(Verb::Read, layout.data_start.0 + 1..layout.data_start.0 + 3, READ_ERROR));
    let new = disk(&world, SPARE_BLOCKS);
    assert_eq!(migrate(&world, &host, &new), Ok(()));
    assert_eq!(host.engine.status().lost, 2);
    assert_eq!(world.read(&host, 11, 1), Err(READ_ERROR));
    assert_eq!(world.read(&host, 13, 87), Ok(filled_run(13, 87)));
    world.write(&host, 11, filled_run(11, 2)).unwrap();
    assert_eq!(world.read(&host, 10, 90), Ok(expected()));
}

#[test]
fn an_old_spare_that_fails_ends_it_and_nothing_is_given_up() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    world.spare.fail(Fault::new(Verb::Read, 0..SPARE_BLOCKS, IoStatus::Other(-5)).times(1));
    let expected = Error::MigrationIo { what: "read", status: IoStatus::Other(-5) };
    assert_eq!(migrate(&world, &host, &new), Err(Stopped::Failed(expected)));
    for copy in Copy::BOTH {
        // The superblocks of the old one can be written once more: to say that it was not given up after all.
        let at = host.engine.layout().superblock(copy).0;
        world.spare.fail(Fault::new(Verb::Write, at..at + 1, IoStatus::Failed).times(1));
    }
    assert_eq!(migrate(&world, &host, &new), Err(Stopped::Failed(Error::CheckpointFailed)));
    world.quiet();
    stays(&world, &host, &new);
}

#[test]
fn what_a_reset_aborts_is_copied_later() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let layout = host.engine.layout();
    let data = layout.data_start.0..layout.data_start.0 + u64::from(layout.data_blocks);
    world.spare.fail(Fault::new(Verb::Read, data.clone(), IoStatus::Aborted).times(3));
    new.fail(Fault::new(Verb::Write, data, IoStatus::Aborted).times(3));
    assert_eq!(migrate(&world, &host, &new), Ok(()));
    assert_eq!((host.engine.status().lost, host.engine.status().spare.bad), (0, 0));
    assert_eq!(world.read(&host, 10, 90), Ok(expected()));
}

/// The commit by which block 10 moves on the old spare is in doubt, and settled at some moment of a migration. Whether it has its data
/// on the new spare, whenever that was.
fn what_is_settled_at_any_moment_is_there() -> bool {
    for polls in 0.. {
        let (world, host) = full_world();
        let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!("remapped") };
        let at = host.engine.layout().data(old).0;
        world.spare.fail(Fault::new(Verb::Write, at..at + 1, WRITE_FAULT).times(2));
        log_cannot_be_written(&world, &host, Effect::Nothing);
        assert_eq!(world.write(&host, 10, filled(2)), Err(WRITE_FAULT));
        assert_eq!(world.read(&host, 10, 1), Err(READ_ERROR), "in doubt");
        let new = disk(&world, SPARE_BLOCKS);
        let job = begin_with(&host, &new, UNLIMITED).unwrap();
        world.executor.run_to(world.executor.polls() + polls);
        world.spare.heal();
        world.save(&host).unwrap();
        let failed = join(&world, job).is_err();
        if world.read(&host, 10, 1) != Ok(filled(1)) {
            return false;
        }
        if failed {
            // At the switch nothing may be in doubt.
            break;
        }
    }
    true
}

#[test]
fn what_is_settled_while_it_is_copied_is_copied_as_it_is_then() {
    assert!(what_is_settled_at_any_moment_is_there());
}

/// That the test above can fail: it takes a moment that the simulation seldom meets.
#[cfg(feature = "mutations")]
mod mutations {
    use super::*;
    use remap_core::mutation::Mutation;

    #[test]
    fn what_is_settled_while_it_is_copied_is_lost_if_nobody_looks() {
        assert!(!with_bug(Mutation::ChangedWhileCopied, what_is_settled_at_any_moment_is_there));
    }
}

#[test]
fn hosts_write_and_operators_work_while_all_moves() {
    let (world, host) = full_world();
    world.bad_for_writes(500, 10);
    let new = disk(&world, SPARE_BLOCKS);
    let job = begin_with(&host, &new, MigrateParams { bytes_per_second: Some(20 * 4096), ..SLOW }).unwrap();
    let busy = Rc::new(Cell::new(true));
    let mut round = 0;
    while busy.get() {
        round += 1;
        // A block that was copied, or not yet; a new one; one that goes back to the base and comes again.
        world.write(&host, 10 + round % 90, filled(1000 + round)).unwrap();
        world.write(&host, 500 + round % 10, filled(2000 + round)).unwrap();
        if round == 5 {
            world.save(&host).unwrap();
        }
        let (engine, base) = (Rc::clone(&host.engine), world.base.clone());
        let add = engine.jobs().begin(JobKind::Add, {
            let engine = Rc::clone(&engine);
            move |job| async move {
                let report = engine.add(&base, Extent::new(lba(600 + round), 1), RemapOn::Media, &job).await;
                report.map(drop)
            }
        });
        join(&world, add.unwrap()).unwrap();
        let base = world.base.clone();
        let remove = host.engine.jobs().begin(JobKind::Remove, {
            move |job| async move {
                let report = engine.remove(&base, Extent::new(lba(600), round), RemapOn::Media, &job).await;
                report.map(drop)
            }
        });
        join(&world, remove.unwrap()).unwrap();
        world.executor.run_for(Duration::from_millis(200));
        busy.set(host.engine.status().jobs.iter().any(|job| job.state == JobState::Running));
    }
    assert_eq!(join(&world, job), Ok(()));
    assert!(round > 5, "it took a while: {round}");
    let last = |lba: u64, first: u64, of: u64| (1..=round).rev().find(|round| first + round % of == lba);
    world.close(&host);
    let again = with_spare(&world, &new);
    let host = again.open();
    for at in 10..100 {
        let value = last(at, 10, 90).map_or(if at == 10 { 1 } else { at }, |round| 1000 + round);
        assert_eq!(again.read(&host, at, 1), Ok(filled(value)), "block {at}");
    }
    for at in 500..510 {
        let value = last(at, 500, 10).map(|round| 2000 + round).unwrap();
        assert_eq!(again.read(&host, at, 1), Ok(filled(value)), "block {at}");
    }
    assert_eq!(host.engine.status().remapped, 90 + 10 + 1, "what was added last");
}

#[test]
fn a_set_that_is_closed_meanwhile_stays_on_the_old_spare() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let job = begin_with(&host, &new, SLOW).unwrap();
    world.quiet();
    world.close(&host);
    assert_eq!(join(&world, job), Err(Stopped::Cancelled));
    stays(&world, &host, &new);
}

#[test]
fn more_pending_blocks_than_the_new_spare_records_end_it() {
    let world = World::with(Medium::new(BLOCK, 40_000), true);
    let host = world.open();
    let (engine, small) = (Rc::clone(&host.engine), disk(&world, SPARE_BLOCKS));
    let pending = async move { remap_core::Owner::set_pending(&*engine, (0..1100).map(lba).collect()).await };
    world.executor.block_on(pending).unwrap().unwrap();
    assert_eq!(host.engine.status().pending, 1100);
    assert_eq!(migrate(&world, &host, &small), Err(Stopped::Failed(Error::NewSpareFull)));
    assert_eq!(migrate(&world, &host, &disk(&world, 40_000)), Ok(()));
    assert_eq!(host.engine.status().pending, 1100);
}

#[test]
fn both_spares_may_grow_while_all_moves_from_one_to_the_other() {
    let (world, host) = full_world();
    let new = disk(&world, SPARE_BLOCKS);
    let job = begin_with(&host, &new, SLOW).unwrap();
    world.executor.run_for(Duration::from_secs(10));
    world.spare.grow(2 * SPARE_BLOCKS);
    new.grow(3 * SPARE_BLOCKS);
    let before = host.engine.status().spare.total;
    world.save(&host).unwrap();
    assert_eq!(host.engine.status().state, SetState::Migrating);
    let old_total = host.engine.status().spare.total;
    assert_eq!(old_total, before + SPARE_BLOCKS, "of the old one what it has grown by can be used meanwhile");
    world.write(&host, 12, filled(5)).unwrap();
    assert_eq!(join(&world, job), Ok(()));
    let status = host.engine.status();
    assert_eq!((status.state, status.spare.total), (SetState::Online, before + 2 * SPARE_BLOCKS));
    world.bad_for_writes(300, 400);
    world.write(&host, 300, filled_run(300, 400)).unwrap();
    let again = with_spare(&world, &new);
    let host = again.open();
    let data = [filled(1), filled(11), filled(5), filled_run(13, 87)].concat();
    assert_eq!(again.read(&host, 10, 90), Ok(data));
    assert_eq!(again.read(&host, 300, 400), Ok(filled_run(300, 400)));
}
