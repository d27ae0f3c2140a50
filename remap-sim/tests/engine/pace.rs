//! Long work in small steps: what the owner thread does with very many remaps does not hold it for long.

use std::time::{Duration, Instant};

use super::*;
use remap_core::{JobKind, Move, Owner, Ranges, RemapOn, Target};

/// How long the longest single poll took while `work` was done, and all of it.
fn longest<T: 'static>(world: &World, work: impl Future<Output = T> + 'static) -> (T, Duration, Duration) {
    let began = Instant::now();
    world.executor.measure_polls();
    let done = world.executor.block_on(work).unwrap();
    (done, world.executor.longest_poll(), began.elapsed())
}

/// These blocks, remapped in their order, without a host.
fn remap(world: &World, engine: &Rc<SimEngine>, blocks: impl Iterator<Item = u64>) {
    let (engine, blocks) = (Rc::clone(engine), blocks.map(lba).collect::<Vec<_>>());
    let all = async move {
        for part in blocks.chunks(4096) {
            let targets = engine.reserve(part.to_vec()).await.unwrap();
            let to = |target| if let Target::New(to) = target { to } else { panic!("{target:?}") };
            let moves = part.iter().zip(targets).map(|(lba, target)| Move { lba: *lba, to: to(target) });
            engine.commit(moves.collect()).await.unwrap();
        }
    };
    world.executor.block_on(all).unwrap();
}

/// More than a checkpoint keeps of what it is to write, so that some of it is made once more for each copy.
#[test]
fn a_checkpoint_has_all_of_very_many_remaps() {
    const MANY: u64 = 300_000;
    let params = OpenParams { storm_limit: u64::MAX, ..params() };
    let world = World::with(Medium::new(BLOCK, 2 * MANY), false);
    let engine = world.open_with(params.clone()).unwrap().engine;
    remap(&world, &engine, (0..MANY).map(|index| index * 3));
    let before = mappings(&engine);
    assert_eq!(before.len() as u64, MANY);
    let saving = Rc::clone(&engine);
    assert!(world.executor.block_on(async move { saving.save().await }).unwrap().unwrap().all_copies);
    for copy in Copy::BOTH {
        // Of each copy by itself.
        let mut medium = world.spare.contents();
        let log = engine.layout().log[copy].0;
        medium.clear(log, 2 * engine.layout().area_blocks());
        let again = World::with(medium, false);
        assert_eq!(mappings(&again.open_with(params.clone()).unwrap().engine), before);
    }
}

/// A million remaps: `cargo test --release -p remap-sim --test engine pace -- --ignored --nocapture`.
#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_a_million_remaps_hold_the_thread() {
    for (name, apart) in [("one by one", 2), ("sequential", 1), ("spread", 1000)] {
        let params = OpenParams { base_blocks: 1 << 31, storm_limit: u64::MAX, ..params() };
        // Without a cache, as writing out that of a simulated disk is long work itself.
        let world = World::with(Medium::new(BLOCK, 1_200_000), false);
        let engine = world.open_with(params.clone()).unwrap().engine;
        remap(&world, &engine, (0..1_000_000).map(|index| index * apart));
        let say = |what: &str, longest: Duration, all: Duration| {
            println!("{name}: {what}: longest step {longest:?} of {all:?}");
        };
        let saving = Rc::clone(&engine);
        let (_, longest_step, all) = longest(&world, async move { saving.save().await.unwrap() });
        say("save", longest_step, all);
        let restoring = Rc::clone(&engine);
        let (_, longest_step, all) = longest(&world, async move { restoring.restore(false).await.unwrap() });
        say("restore", longest_step, all);
        let again = world.restarted();
        let (opened, longest_step, all) = longest(&again, again.opening(params));
        assert_eq!(opened.unwrap().engine.status().remapped, 1_000_000);
        say("open", longest_step, all);
    }
}

/// Where what was remapped first is behind all of it: `cargo test --release -p remap-sim --test engine pace -- --ignored --nocapture`.
#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_changes_of_full_regions_hold_the_thread() {
    let params = OpenParams { base_blocks: 1 << 31, storm_limit: u64::MAX, ..params() };
    let world = World::with(Medium::new(BLOCK, 1_200_000), false);
    let engine = world.open_with(params.clone()).unwrap().engine;
    remap(&world, &engine, std::iter::once(8_000_000).chain(0..500_000));
    let restoring = Rc::clone(&engine);
    let (_, longest_step, all) = longest(&world, async move { restoring.restore(false).await.unwrap() });
    println!("restore: longest step {longest_step:?} of {all:?}");
    let again = world.restarted();
    let (opened, longest_step, all) = longest(&again, again.opening(params));
    assert_eq!(opened.unwrap().engine.status().remapped, 500_001);
    println!("open: longest step {longest_step:?} of {all:?}");
}

/// In calls of 4,000 extents: `cargo test --release -p remap-sim --test engine pace -- --ignored --nocapture`.
#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_an_import_holds_the_thread() {
    // The last one changes several full regions with each page.
    for (name, first, apart, count) in
        [("one by one", 0, 2, 400_000), ("sequential", 0, 1, 100_000), ("into full regions", 1, 200, 4000)]
    {
        // Small blocks, as memory is the simulated disk's own matter.
        let params = OpenParams { base_blocks: 1 << 31, storm_limit: u64::MAX, ..params() };
        let world = World::with(Medium::new(512, 1_000_000), false);
        let host = world.open_with(params).unwrap();
        if name == "into full regions" {
            remap(&world, &host.engine, (0..400_000).map(|index| index * 2));
        }
        let (mut longest_step, mut all) = (Duration::ZERO, Duration::ZERO);
        for call in 0..count / 4000 {
            let (engine, base) = (Rc::clone(&host.engine), world.base.clone());
            let one = |index: u64| Extent::new(lba(first + (call * 4000 + index) * apart), 1);
            let blocks = Ranges::new((0..4000).map(one).collect());
            let work = async move {
                let worker = Rc::clone(&engine);
                let import = |job| async move { worker.import(&base, &blocks, RemapOn::Media, &job).await.map(drop) };
                engine.jobs().begin(JobKind::Import, import).unwrap().join().await.unwrap();
            };
            let ((), longest, time) = longest(&world, work);
            (longest_step, all) = (longest_step.max(longest), all + time);
        }
        println!("{name}: import: longest step {longest_step:?} of {all:?}");
    }
}

#[test]
fn work_on_many_remaps_lets_others_go_on_all_the_time() {
    let params = OpenParams { storm_limit: u64::MAX, ..params() };
    let world = World::with(Medium::new(BLOCK, 60_000), true);
    let engine = world.open_with(params.clone()).unwrap().engine;
    remap(&world, &engine, (0..50_000).map(|index| index * 2));
    let turns = |world: &World, work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let before = world.executor.polls();
        world.executor.block_on(work).unwrap();
        world.executor.polls() - before
    };
    let reads_and_writes = 4 * 400 / 32;
    let saving = Rc::clone(&engine);
    let polls = turns(&world, Box::pin(async move { assert!(saving.save().await.is_ok()) }));
    assert!(polls > 50_000 / 2048 + reads_and_writes, "{polls} turns for a save");
    let restoring = Rc::clone(&engine);
    let polls = turns(&world, Box::pin(async move { drop(restoring.restore(false).await.unwrap()) }));
    assert!(polls > 3 * 50_000 / 2048 + reads_and_writes, "{polls} turns for a restore");
    let again = world.restarted();
    let opening = again.opening(params);
    let polls = turns(&again, Box::pin(async move { drop(opening.await.unwrap()) }));
    assert!(polls > 2 * 50_000 / 2048 + reads_and_writes, "{polls} turns to open");
}
