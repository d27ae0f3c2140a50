//! The base grows while the set is open.

use super::open::base_blocks;
use super::*;

/// The size at first; the disk below has all of [`BASE_BLOCKS`].
const OLD: u64 = BASE_BLOCKS / 2;

fn of_size(blocks: u64) -> OpenParams {
    OpenParams { base_blocks: blocks, ..params() }
}

/// A set on the base as it was, with one remapped block; all other blocks are bad for writes.
fn small() -> (World, Vbdev) {
    let world = World::new();
    world.bad_for_writes(0, BASE_BLOCKS);
    let host = world.open_with(of_size(OLD)).unwrap();
    world.write(&host, 10, filled(1)).unwrap();
    (world, host)
}

fn grow(world: &World, host: &Vbdev, blocks: u64) -> Result<(), Error> {
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.base_has_grown(blocks).await }).unwrap()
}

#[test]
fn blocks_beyond_the_old_end_are_rescued_when_the_new_size_is_durable() {
    let last = BASE_BLOCKS - 1;
    for save in [false, true] {
        let (world, host) = small();
        assert_eq!(world.write(&host, last, filled(2)), Err(WRITE_FAULT), "nothing is remapped beyond the end");
        grow(&world, &host, BASE_BLOCKS).unwrap();
        assert_eq!(base_blocks(&world.spare.durable()), [BASE_BLOCKS; 2]);
        assert_eq!(host.engine.table().base_blocks(), BASE_BLOCKS);
        world.write(&host, last, filled(2)).unwrap();
        assert_eq!(world.read(&host, last, 1), Ok(filled(2)));
        let held = mappings(&host.engine);
        assert_eq!(held.len(), 2, "and nothing has moved");
        if save {
            world.save(&host).unwrap();
        }
        assert_eq!(world.restore(&host, false).first, []);
        let again = world.after_crash(world.spare.durable());
        assert_eq!(mappings(&again.open_with(of_size(BASE_BLOCKS)).unwrap().engine), held);
    }
}

/// Superblock A, which cannot be written, knows the old size only: it must not be the only one that is left, or blocks beyond are taken for
/// damage.
#[test]
fn a_wipe_that_fails_leaves_the_superblock_that_knows_more() {
    let last = BASE_BLOCKS - 1;
    let (world, host) = small();
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    grow(&world, &host, BASE_BLOCKS).unwrap();
    assert_eq!(base_blocks(&world.spare.durable()), [OLD, BASE_BLOCKS]);
    world.write(&host, last, filled(2)).unwrap();
    let engine = Rc::clone(&host.engine);
    let wiped = world.executor.block_on(async move { engine.wipe(true).await }).unwrap();
    assert!(matches!(wiped, Err(Error::Io { what: "zero", .. })), "{wiped:?}");
    let again = world.after_kill();
    assert_eq!(mappings(&again.open_with(of_size(BASE_BLOCKS)).unwrap().engine).len(), 2);
}

#[test]
fn a_crash_at_any_moment_of_the_growth_leaves_a_set_that_is_loaded() {
    let last = BASE_BLOCKS - 1;
    let mut grown = 0;
    for polls in 0.. {
        let (world, host) = small();
        let engine = Rc::clone(&host.engine);
        let begun = world.executor.polls();
        let (told, writer) = (Rc::new(std::cell::Cell::new(false)), host.clone());
        let done = Rc::clone(&told);
        world.executor.spawn(async move {
            engine.base_has_grown(BASE_BLOCKS).await.unwrap();
            writer.write(last, filled(2)).await.unwrap();
            done.set(true);
        });
        let over = world.executor.run_to(begun + polls);
        for medium in [world.spare.durable(), world.spare.contents()] {
            let again = world.after_crash(medium);
            again.base.attach(&again.executor);
            let host = again.open_with(of_size(BASE_BLOCKS)).unwrap();
            let held = mappings(&host.engine).len();
            assert!(held == 2 || (held == 1 && !told.get()), "after {polls} polls");
            grown += u64::from(held == 2);
        }
        if over || told.get() {
            break;
        }
    }
    assert!(grown > 0, "it went to its end");
}

#[test]
fn a_size_that_cannot_be_noted_is_not_in_force_until_it_can() {
    let (world, host) = small();
    let last = BASE_BLOCKS - 1;
    for at in [0, SPARE_BLOCKS - 1] {
        world.spare.fail(Fault::new(Verb::Write, at..at + 1, WRITE_FAULT));
    }
    assert_eq!(grow(&world, &host, BASE_BLOCKS), Err(Error::SizeNotNoted));
    assert_eq!(host.engine.table().base_blocks(), OLD);
    assert_eq!(world.write(&host, last, filled(2)), Err(WRITE_FAULT));
    world.spare.heal();
    grow(&world, &host, BASE_BLOCKS).unwrap();
    world.write(&host, last, filled(2)).unwrap();
    assert_eq!(base_blocks(&world.spare.durable()), [BASE_BLOCKS; 2]);
}

#[test]
fn one_superblock_is_enough_and_the_other_follows_by_itself() {
    let (world, host) = small();
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    grow(&world, &host, BASE_BLOCKS).unwrap();
    world.write(&host, BASE_BLOCKS - 1, filled(2)).unwrap();
    let again = world.after_crash(world.spare.durable());
    assert_eq!(mappings(&again.open_with(of_size(BASE_BLOCKS)).unwrap().engine).len(), 2);
    assert_eq!(base_blocks(&again.spare.durable()), [BASE_BLOCKS; 2]);
}

#[test]
fn what_is_not_larger_changes_nothing_and_what_is_far_too_large_is_refused() {
    let (world, host) = small();
    let before = world.spare.contents();
    let room = host.engine.table().room();
    assert_eq!(room, 1 << 35);
    for blocks in [0, OLD - 1, OLD] {
        assert_eq!(grow(&world, &host, blocks), Ok(()));
    }
    assert_eq!(grow(&world, &host, room + 1), Err(Error::BaseOutgrown { blocks: room + 1, room }));
    assert!(world.spare.contents() == before, "nothing was written");
    assert_eq!(host.engine.table().base_blocks(), OLD);
    grow(&world, &host, room).unwrap();
    world.close(&host);
    assert_eq!(grow(&world, &host, room), Err(Error::Closed));
}
