//! Blocks that are moved while hosts go on: who waits for whom.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::*;

/// A mover that has `range` until `end` is set, and says so in `story`.
fn mover(
    world: &World,
    host: &Vbdev,
    name: &'static str,
    range: Extent,
    story: &Rc<RefCell<Vec<String>>>,
) -> Rc<Cell<bool>> {
    let (engine, executor, story) = (Rc::clone(&host.engine), world.executor.clone(), Rc::clone(story));
    let end = Rc::new(Cell::new(false));
    let ended = Rc::clone(&end);
    world.executor.spawn(async move {
        let work = async {
            story.borrow_mut().push(format!("{name} begins"));
            while !ended.get() {
                executor.sleep(Duration::from_micros(10)).await;
            }
            story.borrow_mut().push(format!("{name} ends"));
        };
        engine.with_range_locked(range, work).await;
    });
    end
}

/// A write of a host, which says in `story` how it ended.
fn writing(world: &World, host: &Vbdev, at: u64, blocks: u64, story: &Rc<RefCell<Vec<String>>>) {
    let (host, story) = (host.clone(), Rc::clone(story));
    world.executor.spawn(async move {
        let outcome = host.write(at, filled_run(7, blocks)).await;
        story.borrow_mut().push(format!("write of {at}: {outcome:?}"));
    });
}

fn told(story: &Rc<RefCell<Vec<String>>>) -> Vec<String> {
    story.take()
}

#[test]
fn writes_into_a_locked_range_wait_and_nothing_else_does() {
    let (world, host) = world();
    let story = Rc::default();
    let end = mover(&world, &host, "mover", Extent::new(lba(10), 5), &story);
    world.quiet();
    assert_eq!(told(&story), ["mover begins"]);
    for (at, blocks) in [(8, 3), (14, 1), (0, 8), (15, 4)] {
        writing(&world, &host, at, blocks, &story);
    }
    world.quiet();
    assert_eq!(told(&story), ["write of 0: Ok(())", "write of 15: Ok(())"]);
    assert_eq!(world.read(&host, 10, 1), Ok(filled(1)), "reads go on, and see what was there before");
    end.set(true);
    world.quiet();
    let mut after = told(&story);
    assert_eq!(after.remove(0), "mover ends");
    after.sort();
    assert_eq!(after, ["write of 14: Ok(())", "write of 8: Ok(())"]);
}

#[test]
fn a_mover_waits_for_all_that_is_under_way() {
    let (world, host) = world();
    let story = Rc::default();
    world.base.set_timing(&Random::new(0), 100_000);
    // Of other blocks: it may become a rescue that goes to any spare block.
    writing(&world, &host, 3, 1, &story);
    world.executor.run_for(Duration::from_micros(1));
    let end = mover(&world, &host, "mover", Extent::new(lba(10), 5), &story);
    end.set(true);
    world.quiet();
    assert_eq!(told(&story), ["write of 3: Ok(())", "mover begins", "mover ends"]);
}

#[test]
fn movers_of_the_same_blocks_go_one_after_the_other_and_others_side_by_side() {
    let (world, host) = world();
    let story = Rc::default();
    let one = mover(&world, &host, "one", Extent::new(lba(10), 5), &story);
    world.quiet();
    let two = mover(&world, &host, "two", Extent::new(lba(14), 5), &story);
    let three = mover(&world, &host, "three", Extent::new(lba(30), 5), &story);
    world.quiet();
    assert_eq!(told(&story), ["one begins", "three begins"]);
    one.set(true);
    world.quiet();
    assert_eq!(told(&story), ["one ends", "two begins"]);
    writing(&world, &host, 10, 1, &story);
    writing(&world, &host, 18, 1, &story);
    world.quiet();
    assert_eq!(told(&story), ["write of 10: Ok(())"]);
    two.set(true);
    three.set(true);
    world.quiet();
    let mut after = told(&story);
    after.sort();
    assert_eq!(after, ["three ends", "two ends", "write of 18: Ok(())"]);
}

#[test]
fn a_reset_ends_what_waits_for_a_mover() {
    let (world, host) = world();
    let story = Rc::default();
    let end = mover(&world, &host, "mover", Extent::new(lba(10), 5), &story);
    world.quiet();
    writing(&world, &host, 10, 1, &story);
    world.quiet();
    assert_eq!(told(&story), ["mover begins"]);
    host.abort(true).unwrap();
    world.quiet();
    assert_eq!(told(&story), ["write of 10: Err(Aborted)"]);
    end.set(true);
    world.quiet();
    assert_eq!(world.read(&host, 10, 1), Ok(filled(1)));
}

#[test]
fn a_restore_holds_writes_back_and_lets_them_go_on() {
    let (world, host) = world();
    let story = Rc::default();
    let engine = Rc::clone(&host.engine);
    world.executor.spawn(async move { drop(engine.restore(false).await.unwrap()) });
    writing(&world, &host, 10, 1, &story);
    world.quiet();
    assert_eq!(told(&story), ["write of 10: Ok(())"]);
    assert_eq!(world.read(&host, 10, 1), Ok(filled(7)));
}
