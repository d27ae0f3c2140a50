//! Publishing and freeing under every interleaving that loom finds. `RUSTFLAGS="--cfg loom" cargo test --lib loom`.
//!
//! The grace period is what it is in production: the writer hears from each reader, behind its last look.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering as LoomOrdering};
use loom::thread;

use super::filter::Marks;
use super::*;
use crate::slot::Slot;

/// Runs `story` in every order of its threads with at most two preemptions, which takes a minute or so for all of them; with as many
/// as `LOOM_MAX_PREEMPTIONS` says, if it does: with three it takes ten times as long.
fn in_every_order(story: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.check(story);
}

/// What `Env::drain` promises: the writer hears from each reader when the I/O that it had begun has ended.
#[test]
fn a_spare_block_is_used_again_only_when_no_io_is_under_way_to_it() {
    in_every_order(|| {
        let mut writer = TableWriter::new(REGION_BLOCKS);
        let spare = SpareBlock::new(Slot::FIRST, 7).unwrap();
        assert!(writer.publish(vec![Change { lba: BaseLba(1), to: Some(Mapping::Spare(spare)) }]).is_empty());
        let block = Arc::new(loom::cell::UnsafeCell::new(1_u64));
        let drained = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (table, block) = (std::sync::Arc::clone(writer.table()), Arc::clone(&block));
                let drained = Arc::clone(&drained);
                thread::spawn(move || {
                    // An I/O is looked up, and then under way to where that said, whatever the table says meanwhile.
                    if table.lookup(BaseLba(1)) == Place::Spare(spare) {
                        // SAFETY: loom fails the test if anybody writes it at the same time.
                        block.with(|data| assert_eq!(unsafe { *data }, 1, "the data of another block"));
                    }
                    // Release: the I/O has ended before.
                    drained.fetch_add(1, LoomOrdering::Release);
                })
            })
            .collect();
        let retired = writer.publish(vec![Change { lba: BaseLba(1), to: None }]);
        while drained.load(LoomOrdering::Acquire) < 2 {
            thread::yield_now();
        }
        // SAFETY: as above. It holds another block's data now.
        block.with_mut(|data| unsafe { *data = 2 });
        // SAFETY: both readers have left the table.
        unsafe { retired.free() }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn readers_never_see_freed_or_half_made_regions() {
    in_every_order(|| {
        let mut writer = TableWriter::new(REGION_BLOCKS);
        let first = Change { lba: BaseLba(1), to: SpareBlock::new(Slot::FIRST, 7).map(Mapping::Spare) };
        assert!(writer.publish(vec![first]).is_empty());
        let done = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (table, done) = (std::sync::Arc::clone(writer.table()), Arc::clone(&done));
                thread::spawn(move || {
                    let place = table.lookup(BaseLba(1));
                    assert!(place == Place::Spare(SpareBlock::of_bits(7)) || place == Place::Base(BaseLba(1)));
                    // Release: what was read before comes before the freeing.
                    done.fetch_add(1, LoomOrdering::Release);
                })
            })
            .collect();
        let retired = writer.publish(vec![Change { lba: BaseLba(1), to: None }]);
        while done.load(LoomOrdering::Acquire) < 2 {
            thread::yield_now();
        }
        // SAFETY: both readers have left the table.
        unsafe { retired.free() }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// As above, on a base that needs nodes of two heights below the top: of each, one comes while the readers look, another goes.
#[test]
fn readers_never_see_freed_or_half_made_nodes() {
    in_every_order(|| {
        // With two slots a node, regions 0 to 3 are below one node, 4 to 7 below another.
        let mut writer = TableWriter::new(8 * REGION_BLOCKS);
        let [old, new] = [BaseLba(1), BaseLba(4 * REGION_BLOCKS)];
        let to = |index| SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare);
        assert!(writer.publish(vec![Change { lba: old, to: to(7) }]).is_empty());
        let done = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (table, done) = (std::sync::Arc::clone(writer.table()), Arc::clone(&done));
                thread::spawn(move || {
                    let (lba, index) = [(old, 7), (new, 8)][reader];
                    let place = table.lookup(lba);
                    assert!(place == Place::Spare(SpareBlock::of_bits(index)) || place == Place::Base(lba));
                    done.fetch_add(1, LoomOrdering::Release);
                })
            })
            .collect();
        assert!(writer.publish(vec![Change { lba: new, to: to(8) }]).is_empty());
        let retired = writer.publish(vec![Change { lba: old, to: None }]);
        assert_eq!(retired.sizes(), (1, 2));
        while done.load(LoomOrdering::Acquire) < 2 {
            thread::yield_now();
        }
        // SAFETY: both readers have left the table.
        unsafe { retired.free() }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A table of one region, in which `held` is remapped, and what tells a reader how far its writer has come.
fn one_region(held: BaseLba) -> (TableWriter, Arc<AtomicUsize>) {
    let mut writer = TableWriter::new(REGION_BLOCKS);
    assert!(writer.publish(change(held, Some(7))).is_empty());
    (writer, Arc::new(AtomicUsize::new(0)))
}

fn spare(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

fn change(lba: BaseLba, to: Option<u32>) -> Vec<Change> {
    vec![Change { lba, to: to.map(spare).map(Mapping::Spare) }]
}

/// To a look at all of the region every bit of the outline and of the filter's first word counts, to one at a block all of its own.
fn sees(table: &Table, block: BaseLba) -> bool {
    let look = |lba, _| if lba == block { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    table.visit(Extent::new(BaseLba(1), REGION_BLOCKS - 1), look) == ControlFlow::Break(())
}

/// What says beforehand where to look comes before the region does.
#[test]
fn readers_find_what_they_were_told_of() {
    in_every_order(|| {
        // Of different bits.
        let [old, new] = [BaseLba(1), BaseLba(REGION_BLOCKS - 1)];
        let (mut writer, told) = one_region(old);
        let reader = {
            let (table, told) = (std::sync::Arc::clone(writer.table()), Arc::clone(&told));
            thread::spawn(move || {
                assert!(!sees(&table, new) || table.lookup(new) == Place::Spare(spare(8)), "it is away again");
                let told = told.load(LoomOrdering::Acquire);
                assert!(told < 1 || table.lookup(new) == Place::Spare(spare(8)), "what was told of is not there");
            })
        };
        let retired = writer.publish(change(new, Some(8)));
        told.store(1, LoomOrdering::Release);
        reader.join().unwrap();
        // SAFETY: the reader has left the table.
        unsafe { retired.free() }
    });
}

/// And it goes when the region has.
#[test]
fn readers_never_find_again_what_they_found_gone() {
    in_every_order(|| {
        // The third one is where the second one is, and neither has a bit of the first one.
        let keys = [1, REGION_BLOCKS / 2 + 64, REGION_BLOCKS / 2 + 66];
        let [first, second, last] = keys.map(|key| Marks::of_blocks(&[key as u16])).map(|marks| {
            let [blocks, chance] = marks.others();
            [marks.places(), blocks, chance]
        });
        assert!((0..first.len()).all(|word| first[word] & (second[word] | last[word]) == 0));
        assert_eq!(second[0], last[0]);
        let [old, other, third] = keys.map(BaseLba);
        let (mut writer, told) = one_region(old);
        let before = writer.publish(change(other, Some(8)));
        let reader = {
            let (table, told) = (std::sync::Arc::clone(writer.table()), Arc::clone(&told));
            thread::spawn(move || {
                let gone = table.lookup(old) == Place::Base(old);
                assert!(!gone || !sees(&table, old), "it is back");
                let told = told.load(LoomOrdering::Acquire);
                assert!(told < 1 || table.lookup(old) == Place::Base(old), "what was taken away is there");
            })
        };
        let gone = writer.publish(change(old, None));
        // What announces this must not hide that the other one has gone.
        let retired = [before, gone, writer.publish(change(third, Some(9)))];
        told.store(1, LoomOrdering::Release);
        reader.join().unwrap();
        // SAFETY: the reader has left the table.
        retired.into_iter().for_each(|retired| unsafe { retired.free() });
    });
}

/// All of a table changes for another at once: readers see the one or the other, and nothing of it is freed under them.
#[test]
fn readers_see_a_table_that_is_exchanged_as_it_was_or_as_it_is() {
    in_every_order(|| {
        let blocks = [BaseLba(1), BaseLba(REGION_BLOCKS)];
        let table = |slot| {
            let mut writer = TableWriter::new(2 * REGION_BLOCKS);
            let to = |(index, lba): (u32, &BaseLba)| Change {
                lba: *lba,
                to: SpareBlock::new(slot, index).map(Mapping::Spare),
            };
            assert!(writer.publish((0..).zip(&blocks).map(to).collect()).is_empty());
            writer
        };
        let (mut writer, mut other) = (table(Slot::FIRST), table(Slot::FIRST.other()));
        let done = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (table, done) = (std::sync::Arc::clone(writer.table()), Arc::clone(&done));
                thread::spawn(move || {
                    let [first, second] = blocks.map(|lba| match table.lookup(lba) {
                        Place::Spare(block) => block,
                        place => panic!("{place:?}"),
                    });
                    assert_eq!([first.index(), second.index()], [0, 1], "reader {reader}");
                    assert!(first.slot() == second.slot() || first.slot() == Slot::FIRST, "never back");
                    assert!(second.slot() == Slot::FIRST || table.slot() == second.slot(), "the slot is told before");
                    done.fetch_add(1, LoomOrdering::Release);
                })
            })
            .collect();
        writer.set_slot(Slot::FIRST.other());
        writer.exchange(&mut other);
        while done.load(LoomOrdering::Acquire) < 2 {
            thread::yield_now();
        }
        while let Some((_, retired)) = other.take_region(0) {
            // SAFETY: both readers have left the table.
            unsafe { retired.free() }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
