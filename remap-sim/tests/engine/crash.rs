//! Crashes at every point of a history: every acknowledged write is read back, and the spare can always be opened.

use std::cell::RefCell;
use std::collections::BTreeMap;

use futures_util::future::join;

use super::*;
use remap_core::Device;
use remap_core::format::Copy;

/// What the host may find on a block.
#[derive(Clone, Default)]
struct Allowed {
    values: Vec<u64>,
}

/// What the host knows: what it wrote, and what of that was acknowledged.
#[derive(Clone, Default)]
struct Model(Rc<RefCell<BTreeMap<u64, Allowed>>>);

impl Model {
    /// Writes a block; what was there before and the new value are both possible until it is acknowledged.
    async fn write(&self, host: &Vbdev, at: u64, value: u64) {
        // A block that is on the spare already is written into its volatile cache, and durable after a flush only.
        let cached = matches!(host.engine.table().lookup(lba(at)), Place::Spare(_));
        self.0.borrow_mut().entry(at).or_insert_with(|| Allowed { values: vec![0] }).values.push(value);
        let block_size = host.base.geometry().block_size as usize;
        let result = host.write(at, value.to_le_bytes().repeat(block_size / 8)).await;
        if let (Ok(()), false, Some(allowed)) = (result, cached, self.0.borrow_mut().get_mut(&at)) {
            allowed.values.retain(|old| *old == value);
        }
    }

    async fn flush(&self, host: &Vbdev) {
        host.flush().await.unwrap();
        self.0.borrow_mut().values_mut().for_each(|allowed| {
            allowed.values.drain(..allowed.values.len() - 1);
        });
    }

    fn check(&self, world: &World, host: &Vbdev, what: &str) {
        for (at, allowed) in &*self.0.borrow() {
            let on_base = matches!(host.engine.table().lookup(lba(*at)), Place::Base(_) | Place::Pending(_));
            match world.read(host, *at, 1) {
                Ok(block) => {
                    let found = value(&block);
                    assert!(
                        allowed.values.contains(&found),
                        "{what}: block {at} holds {found}, not {:?}",
                        allowed.values
                    );
                }
                Err(_) => assert!(on_base && allowed.values.contains(&0), "{what}: block {at} is lost"),
            }
        }
    }
}

/// Relocations alone and together, pending blocks, a bad spare block, saves, and overwriting.
async fn history(host: Vbdev, model: Model) {
    for at in [10, 11, 12] {
        model.write(&host, at, at + 100).await;
    }
    model.write(&host, 10, 200).await;
    model.flush(&host).await;
    // Two at the same time, which share a commit or not.
    join(model.write(&host, 20, 120), model.write(&host, 21, 121)).await;
    // Becomes pending, and is then written.
    assert!(host.read(30, 2).await.is_err());
    model.write(&host, 30, 130).await;
    host.engine.save().await.unwrap();
    // Its spare block is bad for one write: it moves on.
    let Place::Spare(block) = host.engine.table().lookup(lba(11)) else { panic!("11 is remapped") };
    let bad = host.engine.layout().data(block).0;
    spare_of(&host).fail(Fault::new(Verb::Write, bad..bad + 1, WRITE_FAULT).times(1));
    model.write(&host, 11, 211).await;
    host.engine.save().await.unwrap();
    model.write(&host, 13, 113).await;
}

/// Runs `history` on a fresh spare, or one with `start` on it, with a power cut at `step`.
fn run<F: Future<Output = ()> + 'static>(
    start: Medium,
    step: Option<u64>,
    history: impl FnOnce(Vbdev, Model) -> F + 'static,
) -> (World, Model, u64) {
    let world = World::with(start, true);
    world.bad_for_writes(10, 1000);
    world.bad_for_reads(30, 2);
    if let Some(step) = step {
        world.spare.die_at(step);
    }
    let model = Model::default();
    let (opening, told) = (world.opening(params()), model.clone());
    world.executor.block_on(async move { history(opening.await.unwrap(), told).await });
    let steps = world.spare.steps();
    (world, model, steps)
}

/// A choice for each block of the cache, by a seed.
fn chooser(seed: u64) -> impl FnMut(u64, usize) -> usize {
    let random = Random::new(seed);
    move |_, versions| random.below(versions as u64 + 1) as usize
}

/// Opens what a crash left, checks it, goes on writing, and opens it once more.
fn check_after(world: &World, model: &Model, medium: Medium, what: &str) {
    let world = world.after_crash(medium);
    let opened = world.open_with(params()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let host = opened;
    mappings(&host.engine);
    model.check(&world, &host, what);
    let data = 77_u64.to_le_bytes().repeat(world.spare.geometry().block_size as usize / 8);
    world.write(&host, 500, data).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(host.engine.status().state, SetState::Online, "{what}");
    let before = mappings(&host.engine);
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(mappings(&host.engine), before, "{what}");
    assert_eq!(value(&again.read(&host, 500, 1).unwrap()), 77);
}

#[test]
fn acked_writes_survive_a_crash_at_every_step() {
    let (.., steps) = run(Medium::new(BLOCK, SPARE_BLOCKS), None, history);
    assert!(steps > 300, "formatting alone takes 260 steps: {steps}");
    for step in (0..steps + 1).filter(|step| *step > 255 || step % 32 == 0) {
        let (world, model, _) = run(Medium::new(BLOCK, SPARE_BLOCKS), Some(step), history);
        check_after(&world, &model, world.spare.durable(), &format!("step {step}, cache dropped"));
        check_after(&world, &model, world.spare.contents(), &format!("step {step}, cache kept"));
        for seed in 1..4 {
            let medium = world.spare.left_by(chooser(seed + step * 8));
            check_after(&world, &model, medium, &format!("step {step}, seed {seed}"));
        }
    }
}

/// With eight blocks a page, a crash leaves torn pages behind.
#[test]
fn acked_writes_survive_a_crash_that_tears_pages() {
    let medium = Medium::new(512, SPARE_BLOCKS * 8);
    let (.., steps) = run(medium.clone(), None, history);
    let formatted = 65 * 4 * 8;
    assert!(steps > formatted + 300);
    for step in formatted - 20..steps + 1 {
        let (world, model, _) = run(medium.clone(), Some(step), history);
        check_after(&world, &model, world.spare.contents(), &format!("step {step}, cache kept"));
        let medium = world.spare.left_by(chooser(step));
        check_after(&world, &model, medium, &format!("step {step}"));
    }
}

/// Commits until the area is full twice, so that checkpoints are written on the way.
async fn long_history(host: Vbdev, model: Model) {
    for at in 100..235 {
        model.write(&host, at, at).await;
    }
}

#[test]
fn acked_writes_survive_a_crash_around_the_checkpoint_of_a_full_area() {
    let medium = Medium::new(BLOCK, SPARE_BLOCKS);
    let (world, _, steps) = run(medium.clone(), None, long_history);
    assert_eq!(world.spare.geometry().blocks, SPARE_BLOCKS);
    // 64 commits fill the first area, each of a data block, two pages, and three flushes.
    let full = 270 + 64 * 6;
    assert!(steps > full + 64 * 6);
    for step in full - 30..full + 50 {
        let (world, model, _) = run(medium.clone(), Some(step), long_history);
        for seed in 0..3 {
            let medium = world.spare.left_by(chooser(seed + step * 8));
            check_after(&world, &model, medium, &format!("step {step}, seed {seed}"));
        }
    }
    let world = world.after_kill();
    let host = world.open();
    assert_eq!(mappings(&host.engine).len(), 135);
    assert!(host.engine.status().epoch >= epoch(3));
}

/// The log page of copy B that follows the last one of area 0, overwritten with something.
fn with_bad_page(world: &World, host: &Vbdev, page: u64) -> Medium {
    let mut medium = world.spare.contents();
    medium.set_block(host.engine.layout().log_page(Copy::B, Area::Zero, page).0, &filled(7));
    medium
}

/// Found by the simulation: the torn page lay in wait until its area was used again.
#[test]
fn a_torn_page_is_no_trap_for_later_epochs() {
    let world = World::new();
    world.bad_for_writes(5, 1);
    let host = world.open();
    world.write(&host, 5, filled(55)).unwrap();
    // As a crash leaves it in the middle of writing copy B.
    let world = world.after_crash(with_bad_page(&world, &host, 1));
    let host = world.open();
    assert_eq!(host.engine.status().epoch, epoch(2), "a fresh checkpoint, in area 1");
    world.save(&host).unwrap();
    let world = world.after_kill();
    let host = world.open();
    assert_eq!(value(&world.read(&host, 5, 1).unwrap()), 55);
}

/// Found by fuzzing: a bad page behind the end did no harm until the end came to it.
#[test]
fn a_bad_page_behind_the_end_is_no_trap_for_later_commits() {
    let world = World::new();
    world.bad_for_writes(5, 2);
    let host = world.open();
    world.write(&host, 5, filled(55)).unwrap();
    let world = world.after_crash(with_bad_page(&world, &host, 3));
    let host = world.open();
    world.write(&host, 6, filled(66)).unwrap();
    let world = world.after_kill();
    let host = world.open();
    assert_eq!(value(&world.read(&host, 6, 1).unwrap()), 66);
}
