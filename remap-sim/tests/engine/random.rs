//! Hosts at random, side by side, on a spare that fails at random and loses power at random: what was acknowledged is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use remap_core::format::Copy;

/// Block by block, what may be read after a crash.
type Model = Rc<RefCell<BTreeMap<u64, Vec<u64>>>>;

/// Writes blocks of its own, each value once.
async fn hammer(host: Vbdev, model: Model, random: Random, first: u64) {
    for round in 1..25 {
        let at = first + random.below(4);
        let value = first * 1000 + round;
        let cached = matches!(host.engine.table().lookup(lba(at)), Place::Spare(_));
        model.borrow_mut().entry(at).or_insert_with(|| vec![0]).push(value);
        if host.write(at, filled(value)).await.is_ok() {
            // Without a flush, only a relocation is durable at once; what is read now is this all the same.
            if !cached {
                model.borrow_mut().entry(at).and_modify(|values| values.retain(|old| *old == value));
            }
            match host.read(at, 1).await {
                Ok(block) => assert_eq!(crate::value(&block), value, "block {at}"),
                // Its mapping came to be in doubt meanwhile.
                Err(status) => assert_eq!(status, READ_ERROR),
            }
        }
        if random.below(8) == 0 {
            let _ = host.engine.save().await;
        }
    }
}

/// Errors of log, superblocks and spare blocks, one in a while.
async fn sabotage(host: Vbdev, random: Random) {
    let layout = host.engine.layout();
    let both = 2 * u64::from(layout.area_pages);
    for _ in 0..12 {
        host.threads.executor.sleep(Duration::from_micros(random.below(200))).await;
        let effect = random.pick(&[Effect::Nothing, Effect::Some, Effect::Everything]);
        let fail = |first, blocks| {
            let fault = Fault::new(Verb::Write, first..first + blocks, WRITE_FAULT);
            spare_of(&host).fail(fault.times(1).with_effect(effect));
        };
        let fail_log = |copy| fail(layout.log_page(copy, Area::Zero, 0).0, both);
        match random.below(6) {
            0 => fail_log(Copy::A),
            1 => fail_log(Copy::B),
            2 => Copy::BOTH.into_iter().for_each(fail_log),
            3 => fail(layout.superblock(random.pick(&Copy::BOTH)).0, 1),
            4 => spare_of(&host).fail(Fault::of_flush(WRITE_FAULT).times(1)),
            _ => fail(layout.data_start.0 + random.below(138), 1),
        }
    }
}

fn run(seed: u64) {
    let random = Random::new(seed);
    let world = World::new();
    world.bad_for_writes(0, 100);
    let host = world.open();
    world.spare.set_timing(&random, 5);
    world.spare.die_at(world.spare.steps() + random.below(600));
    let model = Model::default();
    for task in 0..4 {
        world.executor.spawn(hammer(host.clone(), Rc::clone(&model), random.clone(), task * 10));
    }
    world.executor.spawn(sabotage(host.clone(), random.clone()));
    world.executor.run();
    mappings(&host.engine);
    let left = match random.below(3) {
        0 => world.spare.durable(),
        1 => world.spare.contents(),
        _ => world.spare.left_by(|_, versions| random.below(versions as u64 + 1) as usize),
    };
    let again = world.after_crash(left);
    let host = again.open_with(params()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    mappings(&host.engine);
    for (at, values) in &*model.borrow() {
        let found = value(&again.read(&host, *at, 1).unwrap_or_else(|error| panic!("seed {seed}: {error:?}")));
        assert!(values.contains(&found), "seed {seed}: block {at} holds {found}, not {values:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_random_faults_and_a_crash() {
    (0..400).for_each(run);
}
