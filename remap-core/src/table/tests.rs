//! The table against a plain map, from outside.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::slot::Slot;

/// A little more than three leaves.
const BLOCKS: u64 = 3 * LEAF_BLOCKS + 1000;

fn spare(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

fn change(lba: u64, to: Option<Mapping>) -> Change {
    Change { lba: BaseLba(lba), to }
}

/// Publishes, and frees what that took out.
fn publish(writer: &mut TableWriter, changes: Vec<Change>) {
    let retired = writer.publish(changes);
    // SAFETY: these tests have one thread, and no method of the table is under way.
    unsafe { retired.free() }
}

/// The segments of a range, each block for itself.
fn blocks_of(table: &Table, range: Extent) -> Vec<Place> {
    let mut places = Vec::new();
    let mut last: Option<Segment> = None;
    let _ = table.visit_segments(range, |segment| {
        assert_eq!(segment.offset, places.len() as u64, "segments follow each other");
        assert!(segment.blocks > 0);
        if let Some(last) = last {
            assert_ne!(last.place.plus(last.blocks), Some(segment.place), "neighbours are coalesced");
        }
        places.extend((0..segment.blocks).map(|i| segment.place.plus(i).unwrap()));
        last = Some(segment);
        ControlFlow::Continue(())
    });
    places
}

fn mapping() -> impl Strategy<Value = Option<Mapping>> {
    prop_oneof![
        3 => (0..200_u32).prop_map(|index| Some(Mapping::Spare(spare(index)))),
        1 => (0..200_u32).prop_map(|index| Some(Mapping::Lost(spare(index)))),
        1 => Just(Some(Mapping::Pending)),
        2 => Just(None),
    ]
}

/// Blocks in a few places, so that they meet: around the ends of leaves, and of the base.
fn block() -> impl Strategy<Value = u64> {
    let starts = [0, LEAF_BLOCKS - 6, 2 * LEAF_BLOCKS - 3, BLOCKS - 8];
    (prop::sample::select(starts.to_vec()), 0..12_u64).prop_map(|(start, offset)| start + offset)
}

proptest! {
    #[test]
    fn the_table_is_as_a_map(
        batches in prop::collection::vec(prop::collection::vec((block(), mapping()), 0..20), 0..20),
        ranges in prop::collection::vec((block(), 0..200_000_u64), 1..10),
    ) {
        let mut writer = TableWriter::new(BLOCKS);
        let table = std::sync::Arc::clone(writer.table());
        let mut model = BTreeMap::new();
        for batch in batches {
            for (lba, to) in batch.iter().filter(|(lba, _)| *lba < BLOCKS) {
                match to {
                    Some(to) => model.insert(*lba, *to),
                    None => model.remove(lba),
                };
            }
            publish(&mut writer, batch.into_iter().map(|(lba, to)| change(lba, to)).collect());
            prop_assert_eq!(table.is_empty(), model.is_empty());
            prop_assert_eq!(writer.counts().total(), model.len() as u64);
        }
        let counts = writer.counts();
        let count = |f: fn(&Mapping) -> bool| model.values().filter(|mapping| f(mapping)).count() as u64;
        prop_assert_eq!(counts.remapped, count(|mapping| matches!(mapping, Mapping::Spare(_))));
        prop_assert_eq!(counts.pending, count(|mapping| *mapping == Mapping::Pending));
        for (lba, blocks) in ranges {
            let range = Extent::new(BaseLba(lba), blocks);
            let expected: Vec<_> = (lba..lba + blocks)
                .map(|lba| model.get(&lba).map_or(Place::Base(BaseLba(lba)), |to| Place::new(BaseLba(lba), *to)))
                .collect();
            let first = model.range(lba..lba + blocks).next().map(|(lba, to)| (BaseLba(*lba), *to));
            prop_assert_eq!(table.first_in(range), first);
            prop_assert_eq!(blocks_of(&table, range), expected);
            prop_assert_eq!(table.mapping(BaseLba(lba)), model.get(&lba).copied());
        }
    }

    #[test]
    fn every_mapping_is_decoded_as_it_was_encoded(index in 0..crate::units::MAX_SPARE_BLOCKS) {
        for mapping in [Mapping::Spare(spare(index)), Mapping::Lost(spare(index)), Mapping::Pending] {
            prop_assert_eq!(Mapping::decode(mapping.encode()), mapping);
        }
    }
}

#[test]
fn the_root_is_null_before_the_first_and_after_the_last_entry() {
    let mut writer = TableWriter::new(BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    assert!(table.is_empty());
    publish(&mut writer, vec![change(5, None)]);
    assert!(table.is_empty(), "removing nothing is no entry");
    assert!(!table.was_used());
    publish(&mut writer, vec![change(5, Some(Mapping::Pending)), change(70_000, Some(Mapping::Spare(spare(1))))]);
    assert!(!table.is_empty());
    assert_eq!(table.lookup(BaseLba(5)), Place::Pending(BaseLba(5)));
    publish(&mut writer, vec![change(5, None)]);
    assert!(!table.is_empty());
    publish(&mut writer, vec![change(70_000, None)]);
    assert!(table.is_empty());
    assert!(table.was_used(), "that it is empty again does not undo what was written");
    assert_eq!(table.lookup(BaseLba(70_000)), Place::Base(BaseLba(70_000)));
}

#[test]
fn a_retired_leaf_can_be_read_until_it_is_freed() {
    let mut writer = TableWriter::new(BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    let first = writer.publish(vec![change(1, Some(Mapping::Pending)), change(2, Some(Mapping::Pending))]);
    assert!(first.is_empty());
    let mut kept = None;
    let mut seen = Vec::new();
    let _ = table.visit(Extent::new(BaseLba(0), 10), |lba, _| {
        // The writer replaces the leaf under the reader's feet.
        if kept.is_none() {
            kept = Some(writer.publish(vec![change(1, None), change(2, None)]));
        }
        seen.push(lba.0);
        ControlFlow::Continue(())
    });
    assert_eq!(seen, [1, 2]);
    assert!(table.is_empty());
    // SAFETY: the only reader is done.
    unsafe { kept.unwrap().free() }
}

#[test]
fn readers_on_other_threads_see_whole_leaves() {
    let mut writer = TableWriter::new(BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let mut places = Vec::new();
                    let _ = table.visit_segments(Extent::new(BaseLba(10), 2), |segment| {
                        places.push(segment.place);
                        ControlFlow::Continue(())
                    });
                    // Both blocks change together.
                    assert!(
                        matches!(places[..], [Place::Base(_)] | [Place::Spare(_)] | [Place::Lost(_)]),
                        "{places:?}"
                    );
                }
            });
        }
        let mut kept = Vec::new();
        for round in 0..500_u32 {
            let at = |i| spare(round * 2 + i);
            let to = |i| match round % 3 {
                0 => Some(Mapping::Spare(at(i))),
                1 => Some(Mapping::Lost(at(i))),
                _ => None,
            };
            kept.push(writer.publish(vec![change(10, to(0)), change(11, to(1))]));
        }
        // Dropped without being freed: readers may still be there.
        drop(kept);
    });
}

#[test]
fn the_halves_may_go_where_they_have_to() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Table>();
    sent::<TableWriter>();
}
