//! Save, restore, list, wipe.

use super::*;

fn wipe(world: &World, host: &Vbdev, force: bool) -> Result<(), Error> {
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.wipe(force).await }).unwrap()
}

#[test]
fn save_writes_a_checkpoint_of_all() {
    let world = World::new();
    world.bad_for_writes(0, 50);
    let host = world.open();
    for at in 0..30 {
        world.write(&host, at, filled(at)).unwrap();
    }
    let saved = world.save(&host).unwrap();
    assert_eq!(saved, SaveReport { epoch: epoch(2), bytes: 4096, all_copies: true });
    assert_eq!(world.save(&host).unwrap().epoch, epoch(3));
    world.close(&host);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(host.engine.status().epoch, epoch(3));
    assert_eq!(mappings(&host.engine).len(), 30);
    assert_eq!(again.read(&host, 0, 30).unwrap(), filled_run(0, 30));
}

#[test]
fn a_checkpoint_of_many_pages_is_loaded_again() {
    // Every second block, so that no two records join: more than 252 of them.
    let world = World::with(Medium::new(BLOCK, 2000), true);
    world.bad_for_writes(0, 2000);
    let host = world.open();
    for at in 0..700 {
        let host = host.clone();
        world.executor.spawn(async move { host.write(at * 2, filled(at)).await.unwrap() });
    }
    world.executor.run();
    assert_eq!(world.save(&host).unwrap().bytes, 3 * 4096);
    let again = world.after_crash(world.spare.durable());
    let host = again.open();
    assert_eq!(mappings(&host.engine).len(), 700);
    assert_eq!(value(&again.read(&host, 1398, 1).unwrap()), 699);
}

#[test]
fn restore_tells_what_differs_and_takes_it_over() {
    let world = World::new();
    world.bad_for_writes(0, 50);
    let host = world.open();
    for at in [1, 3, 20] {
        world.write(&host, at, filled(at)).unwrap();
    }
    world.write(&host, 30, filled_run(30, 2)).unwrap();
    assert_eq!(world.restore(&host, false).first, []);
    // The spare forgets some, and dreams of others.
    let before = mappings(&host.engine);
    world.spare.rot(|medium| {
        change_page(medium, &host.engine, Area::Zero, 2, |_| vec![Record::Pending { lba: lba(3), count: 1 }]);
        change_page(medium, &host.engine, Area::Zero, 4, |_| vec![Record::Pending { lba: lba(2), count: 1 }]);
    });
    let dry = world.restore(&host, true);
    assert_eq!((dry.added, dry.changed, dry.removed), (1, 1, 2));
    assert_eq!(dry.first[0], DifferingExtent { lba: lba(2), num_blocks: 1, difference: Difference::Added });
    assert_eq!(dry.first[2], DifferingExtent { lba: lba(30), num_blocks: 2, difference: Difference::Removed });
    assert_eq!(mappings(&host.engine), before);
    let wet = world.restore(&host, false);
    assert_eq!((wet.added, wet.changed, wet.removed), (1, 1, 2));
    let [one, .., twenty, _, _] = before[..] else { panic!("{before:?}") };
    let after = [one, (lba(2), Mapping::Pending), (lba(3), Mapping::Pending), twenty];
    assert_eq!(mappings(&host.engine), after);
    world.write(&host, 40, filled(40)).unwrap();
    assert_eq!(mappings(&world.after_kill().open().engine).len(), 5);
}

#[test]
fn list_joins_neighbours_and_goes_on_where_it_stopped() {
    let world = World::new();
    world.bad_for_writes(0, 50);
    world.bad_for_reads(60, 2);
    let host = world.open();
    world.write(&host, 5, filled_run(5, 3)).unwrap();
    world.write(&host, 30, filled_run(30, 2)).unwrap();
    assert!(world.read(&host, 60, 2).is_err());
    let start = host.engine.layout().data_start;
    let extent = |at, num_blocks, spare_lba, state| ListedExtent { lba: lba(at), num_blocks, spare_lba, state };
    let all = [
        extent(5, 3, Some(start), ListedState::Remapped),
        extent(30, 2, Some(start.plus(3)), ListedState::Remapped),
        extent(60, 2, None, ListedState::Pending),
    ];
    assert_eq!(host.engine.list(lba(0), 10), (all.to_vec(), None));
    assert_eq!(host.engine.list(lba(0), 1), (all[..1].to_vec(), Some(lba(30))));
    assert_eq!(host.engine.list(lba(30), 2), (all[1..].to_vec(), None));
    assert_eq!(host.engine.list(lba(BASE_BLOCKS), 2), (vec![], None));
}

#[test]
fn wipe_is_refused_while_blocks_are_remapped_and_leaves_an_empty_spare() {
    let world = World::new();
    world.bad_for_writes(0, 50);
    let host = world.open();
    world.write(&host, 5, filled_run(5, 3)).unwrap();
    let before = world.spare.contents();
    assert_eq!(wipe(&world, &host, false), Err(Error::StillRemapped { blocks: 3 }));
    assert_eq!(world.spare.contents(), before);
    wipe(&world, &host, true).unwrap();
    assert_eq!(wipe(&world, &host, true), Err(Error::Closed));
    assert_eq!(world.save(&host), Err(Error::Closed));
    assert_eq!(world.write(&host, 9, filled(1)), Err(WRITE_FAULT), "nothing is committed any more");
    let again = world.after_crash(world.spare.durable());
    assert_eq!(again.open_with(OpenParams { format: FormatPolicy::Never, ..params() }).err(), Some(Error::Empty));
    assert!(again.open().engine.table().is_empty());
}
