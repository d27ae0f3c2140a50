//! A spare that goes while nothing is on it, and comes back, or is replaced.

use remap_core::engine::retire_outdated;
use remap_core::{JobKind, MigrateParams, RemapOn, Stopped};
use remap_sim::Cut;
use uuid::Uuid;

use super::*;

const NEW_ID: Uuid = Uuid::from_u128(78);

/// A world of which nothing is remapped, its spare gone.
fn without_spare() -> (World, Vbdev) {
    let world = World::new();
    let host = world.open();
    world.write(&host, 5, filled(5)).unwrap();
    world.spare.lose_power(Cut::PowerAll);
    assert!(goes(&world, &host), "nothing was on it");
    (world, host)
}

/// Whether the set can do without its spare.
fn goes(world: &World, host: &Vbdev) -> bool {
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.do_without_spare().await }).unwrap()
}

fn try_to_move(world: &World, host: &Vbdev, new: &Disk) -> Result<(), Stopped> {
    let (vbdev, to, params) = (host.clone(), new.clone(), MigrateParams { on: RemapOn::Media, bytes_per_second: None });
    let jobs = host.engine.jobs();
    let begun =
        jobs.begin(JobKind::Migrate, move |job| async move { vbdev.migrate(&to, NEW_ID, params, false, &job).await });
    let begun = begun.unwrap();
    world.executor.block_on(async move { begun.join().await }).unwrap()
}

#[test]
fn the_set_goes_on_degraded_rescues_nothing_and_is_whole_when_the_spare_is_back() {
    let (world, host) = without_spare();
    let status = host.engine.status();
    assert_eq!(status.state, SetState::Degraded);
    world.write(&host, 6, filled(6)).unwrap();
    world.bad_for_writes(10, 1);
    assert_eq!(world.write(&host, 10, filled(10)), Err(WRITE_FAULT), "there is nowhere to go");
    assert_eq!(world.read(&host, 5, 2), Ok([filled(5), filled(6)].concat()));
    world.bad_for_reads(20, 1);
    assert!(world.read(&host, 20, 1).is_err());

    let found = superblock(&world.spare);
    world.spare.attach(&world.executor);
    let engine = Rc::clone(&host.engine);
    let back = async move { (engine.knows(&found).await, engine.take_spare_back().await) };
    assert_eq!(world.executor.block_on(back).unwrap(), (true, Ok(())));
    assert_eq!(host.engine.status().state, SetState::Online);
    world.write(&host, 10, filled(10)).unwrap();
    let again = world.after_crash(world.spare.durable());
    assert_eq!(again.read(&again.open(), 10, 1), Ok(filled(10)));
}

#[test]
fn a_spare_that_something_is_on_cannot_be_done_without() {
    let (world, host) = world();
    world.spare.lose_power(Cut::PowerAll);
    assert!(!goes(&world, &host));
    assert!(!host.engine.is_without_spare());
}

/// What a spare says of itself, as whoever starts anew finds it.
fn superblock(spare: &Disk) -> Superblock {
    let executor = Executor::new();
    let (disk, threads) = (Disk::new(&executor, spare.durable(), true), Threads::in_order(&executor));
    executor.block_on(async move { remap_core::engine::identify(disk, threads).await }).unwrap().unwrap().unwrap()
}

#[test]
fn a_spare_that_somebody_has_used_meanwhile_is_not_known() {
    let (world, host) = without_spare();
    let found = superblock(&world.spare);
    let others = [
        Superblock { generation: found.generation + 1, ..found.clone() },
        Superblock { host_id: Uuid::from_u128(5), ..found.clone() },
        Superblock { sequence: found.sequence.plus(1000), ..found.clone() },
        Superblock { spare_id: NEW_ID, ..found.clone() },
    ];
    for other in others {
        let engine = Rc::clone(&host.engine);
        assert!(!world.executor.block_on(async move { engine.knows(&other).await }).unwrap());
    }
}

#[test]
fn all_moves_to_another_spare_and_the_one_that_was_away_is_retired() {
    let (world, host) = without_spare();
    world.bad_for_writes(10, 1);
    let new = Disk::new(&world.executor, Medium::new(BLOCK, SPARE_BLOCKS), true);
    assert_eq!(try_to_move(&world, &host, &new), Ok(()));
    assert_eq!((host.engine.status().state, host.engine.slot()), (SetState::Online, Slot::FIRST.other()));
    world.write(&host, 10, filled(10)).unwrap();
    let in_force = superblock(&new);
    assert!(in_force.generation > superblock(&world.spare).generation, "so it is known which one counts");

    world.spare.attach(&world.executor);
    let (old, threads) = (world.spare.clone(), Threads::in_order(&world.executor));
    let retired = async move { retire_outdated(old, threads, &in_force).await };
    assert_eq!(world.executor.block_on(retired), Some(Ok(true)));
    world.close(&host);
    let refused = world.after_crash(world.spare.durable()).open_with(params()).map(drop).unwrap_err();
    assert_eq!(refused, Error::NotActive { state: "retired", other: NEW_ID });
    let again = world.after_crash(new.durable());
    assert_eq!(again.read(&again.open(), 10, 1), Ok(filled(10)));
}

/// Where the old spare cannot say that it was given up, what the new one says has to survive the loss of either copy.
#[test]
fn a_spare_that_replaces_one_that_is_away_says_so_on_both_copies() {
    for (copy, other) in [(Copy::A, Copy::B), (Copy::B, Copy::A)] {
        for passes in 0..8 {
            let (world, host) = without_spare();
            world.bad_for_writes(10, 1);
            let new = Disk::new(&world.executor, Medium::new(BLOCK, SPARE_BLOCKS), true);
            let at = |copy| remap_core::format::Layout::for_spare(BLOCK, SPARE_BLOCKS).unwrap().superblock(copy).0;
            new.fail(Fault::new(Verb::Write, at(copy)..at(copy) + 1, WRITE_FAULT).times(20).after(passes));
            if try_to_move(&world, &host, &new).is_err() {
                continue;
            }
            world.write(&host, 10, filled(10)).unwrap();
            let mut left = new.durable();
            left.clear(at(other), 1);
            let again = world.after_crash(left);
            let host = again.open_with(OpenParams { format: FormatPolicy::Never, ..params() });
            let host = host.unwrap_or_else(|error| panic!("{copy:?} after {passes}: {error}"));
            assert_eq!(again.read(&host, 10, 1), Ok(filled(10)));
        }
    }
}
