//! Hosts at random, side by side, on a spare that fails at random and loses power at random: what was acknowledged is there.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::format::Copy;

/// A small generator of numbers, the same for the same seed.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn new(seed: u64) -> Random {
        Random(Rc::new(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 20) % limit
    }
}

/// Block by block, what may be read after a crash.
type Model = Rc<RefCell<BTreeMap<u64, Vec<u64>>>>;

/// Writes blocks of its own, each value once.
async fn hammer(host: SimHost, model: Model, random: Random, first: u64) {
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
                Ok(block) => assert_eq!(super::value(&block), value, "block {at}"),
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
async fn sabotage(host: SimHost, random: Random) {
    let layout = *host.engine.layout();
    let both = 2 * u64::from(layout.area_pages);
    for _ in 0..12 {
        crate::sim::pause(u32::try_from(random.below(200)).unwrap()).await;
        let kind = if random.below(2) == 0 { FaultKind::Write } else { FaultKind::WriteLies };
        let log = |copy| layout.log_page(copy, 0, 0);
        let fail = |kind, first, blocks| host.spare.fail(kind, first, first + blocks, WRITE_FAULT, 1);
        match random.below(6) {
            0 => fail(kind, log(Copy::A), both),
            1 => fail(kind, log(Copy::B), both),
            2 => Copy::BOTH.iter().for_each(|copy| fail(kind, log(*copy), both)),
            3 => fail(kind, layout.superblock(Copy::BOTH[random.below(2) as usize]), 1),
            4 => fail(FaultKind::Flush, 0, 1),
            _ => fail(kind, layout.data_start + random.below(138), 1),
        }
    }
}

fn run(seed: u64) {
    let random = Random::new(seed);
    let world = World::new();
    world.bad_for_writes(0, 100);
    let host = world.host();
    let delays = random.clone();
    world.spare.set_delay(move || u32::try_from(delays.below(5)).unwrap());
    world.spare.die_at(world.spare.steps() + random.below(600));
    let model = Model::default();
    for task in 0..4 {
        world.executor.spawn(hammer(host.clone(), Rc::clone(&model), random.clone(), task * 10));
    }
    world.executor.spawn(sabotage(host.clone(), random.clone()));
    world.executor.run();
    mappings(&host.engine);
    let (choices, mode) = (random.clone(), random.below(3));
    let mut choose = move |_, versions| match mode {
        0 => 0,
        1 => versions,
        _ => choices.below(versions as u64 + 1) as usize,
    };
    let again = world.after_crash(world.spare.after(PowerCut::Choose(&mut choose)));
    let host = again.host_of(again.open_with(params()).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
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
