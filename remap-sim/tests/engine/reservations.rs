//! What becomes of spare blocks that were reserved, and then not used.

use super::*;
use remap_core::{Owner, Target};

/// Blocks of the spare that may be reserved.
const DATA: u64 = 138;

#[test]
fn a_spare_block_that_failed_in_the_last_round_is_bad_and_not_free() {
    let world = World::new();
    world.bad_for_writes(10, 2);
    let host = world.open();
    let start = host.engine.layout().data_start.0;
    world.spare.fail(Fault::new(Verb::Write, start..start + DATA, WRITE_FAULT));
    assert_eq!(world.write(&host, 10, filled_run(1, 2)), Err(WRITE_FAULT));
    let spare = host.engine.status().spare;
    assert_eq!((spare.used, spare.bad, spare.free), (0, 32, 106), "two blocks, in 16 rounds");
    let again = world.after_kill();
    assert_eq!(again.open().engine.status().spare.bad, 32, "each is recorded");
}

#[test]
fn a_spare_block_is_given_back_when_its_write_failed_otherwise() {
    let world = World::new();
    world.bad_for_writes(10, 2);
    let host = world.open();
    let start = host.engine.layout().data_start.0;
    world.spare.fail(Fault::new(Verb::Write, start..start + DATA, IoStatus::Aborted));
    assert_eq!(world.write(&host, 10, filled_run(1, 2)), Err(IoStatus::Aborted));
    let spare = host.engine.status().spare;
    assert_eq!((spare.used, spare.bad, spare.free), (0, 0, 138));
}

#[test]
fn only_reservations_are_condemned() {
    let world = World::new();
    world.bad_for_writes(10, 1);
    let host = world.open();
    world.write(&host, 10, filled(1)).unwrap();
    let Place::Spare(used) = host.engine.table().lookup(lba(10)) else { panic!() };
    let engine = Rc::clone(&host.engine);
    let reserved = async move {
        let Target::New(reserved) = engine.reserve(vec![lba(20)]).await.unwrap()[0] else { panic!() };
        let free = reserved.plus(1).unwrap();
        engine.condemn(vec![used, reserved, free]).await;
    };
    world.executor.block_on(reserved).unwrap();
    let spare = host.engine.status().spare;
    assert_eq!((spare.used, spare.bad, spare.free), (1, 1, 136));
    assert_eq!(value(&world.read(&host, 10, 1).unwrap()), 1);
}
