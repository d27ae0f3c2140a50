//! The table against a plain map, from outside.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::slot::Slot;

/// A little more than three regions.
const BLOCKS: u64 = 3 * REGION_BLOCKS + 1000;
/// Miri, which takes its time for every step, does this much less.
const LESS: usize = if cfg!(miri) { 100 } else { 1 };
/// Batches of changes, at most.
const BATCHES: usize = if cfg!(miri) { 3 } else { 20 };

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
    let rest = |from: usize| Extent::new(range.lba.plus(from as u64), range.blocks - from as u64);
    while let Some(segment) = table.first_segment(rest(places.len()), u64::MAX) {
        assert!(segment.blocks > 0);
        if let Some(last) = last {
            assert_ne!(last.place.plus(last.blocks), Some(segment.place), "neighbours are coalesced");
        }
        places.extend((0..segment.blocks).map(|i| segment.place.plus(i).unwrap()));
        last = Some(segment);
    }
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

/// Blocks in a few places, so that they meet: around the ends of regions, and of the base.
fn block() -> impl Strategy<Value = u64> {
    let starts = [0, REGION_BLOCKS - 6, 2 * REGION_BLOCKS - 3, BLOCKS - 8];
    (prop::sample::select(starts.to_vec()), 0..12_u64).prop_map(|(start, offset)| start + offset)
}

/// Every `step`th block from `start` on, `blocks` of them, within the base: so many that regions come to have chunks, chunks come to have
/// bitmaps, of rows and of others, and all of that goes again.
#[derive(Clone, Debug)]
struct Run {
    start: u64,
    step: u64,
    blocks: u64,
    to: Option<Mapping>,
    /// Whether each goes to the spare block behind that of the one before.
    in_a_row: bool,
}

impl Run {
    fn changes(&self) -> impl Iterator<Item = Change> {
        let lbas = (self.start..BLOCKS).step_by(usize::try_from(self.step).unwrap());
        let lbas = lbas.take(usize::try_from(self.blocks).unwrap());
        (0..).zip(lbas).map(|(at, lba)| change(lba, self.to.map(|to| if self.in_a_row { behind(to, at) } else { to })))
    }
}

/// `to`, `at` spare blocks on.
fn behind(to: Mapping, at: u64) -> Mapping {
    match to {
        Mapping::Spare(block) => Mapping::Spare(block.plus(at).unwrap()),
        Mapping::Lost(block) => Mapping::Lost(block.plus(at).unwrap()),
        Mapping::Pending => Mapping::Pending,
    }
}

fn run() -> impl Strategy<Value = Run> {
    let step = prop::sample::select(vec![1, 2, 7, 31, 64, 130, 513]);
    let blocks =
        prop::sample::select(if cfg!(miri) { vec![1, 14, 17, 200] } else { vec![1, 14, 17, 200, 260, 600, 2000] });
    let start = prop_oneof![0..BLOCKS, block()];
    (start, step, blocks, mapping(), any::<bool>()).prop_map(|(start, step, blocks, to, in_a_row)| Run {
        start,
        step,
        blocks,
        to,
        in_a_row,
    })
}

proptest! {
    #[test]
    fn a_table_that_is_filled_is_as_one_that_was_changed(runs in prop::collection::vec(run(), 0..BATCHES.min(6))) {
        let mut changed = TableWriter::new(BLOCKS);
        let mut map = BTreeMap::new();
        for change in runs.iter().flat_map(Run::changes) {
            match change.to {
                Some(mapping) => map.insert(change.lba, mapping),
                None => map.remove(&change.lba),
            };
        }
        let whole = |(lba, to): (&BaseLba, &Mapping)| Change { lba: *lba, to: Some(*to) };
        publish(&mut changed, map.iter().map(whole).collect());
        let (mut filled, mut gathering) = (TableWriter::new(BLOCKS), Gathering::default());
        // There is none behind the end.
        let behind = (BLOCKS..).step_by(REGION_BLOCKS as usize).take(2).map(|lba| (BaseLba(lba), Mapping::Pending));
        for (lba, to) in map.iter().map(|(lba, to)| (*lba, *to)).chain(behind) {
            gathering.push(lba, to).into_iter().for_each(|region| filled.put(region));
        }
        gathering.region().into_iter().for_each(|region| filled.put(region));
        prop_assert_eq!(filled.counts(), changed.counts());
        prop_assert_eq!((filled.table().was_used(), filled.table().is_empty()), (!map.is_empty(), map.is_empty()));
        let all = Extent::new(BaseLba(0), BLOCKS);
        prop_assert_eq!(blocks_of(filled.table(), all), blocks_of(changed.table(), all));
        for lba in (0..BLOCKS).step_by(LESS).map(BaseLba) {
            prop_assert_eq!(filled.table().mapping(lba), map.get(&lba).copied());
        }
        // What comes later finds it as it should be.
        let last = map.last_key_value().map_or(BaseLba(5), |(lba, _)| *lba);
        publish(&mut filled, vec![Change { lba: last, to: None }]);
        prop_assert_eq!(filled.counts().total(), map.len().saturating_sub(1) as u64);
    }

    #[test]
    fn the_table_is_as_a_map_however_much_is_in_it(
        batches in prop::collection::vec(prop::collection::vec(run(), 1..BATCHES.min(4)), 1..BATCHES.min(12)),
        ranges in prop::collection::vec((0..BLOCKS, 0..3_000_u64), 1..20),
    ) {
        let mut writer = TableWriter::new(BLOCKS);
        let table = std::sync::Arc::clone(writer.table());
        let mut model = BTreeMap::new();
        for batch in batches {
            let changes: Vec<_> = batch.iter().flat_map(Run::changes).collect();
            for Change { lba, to } in &changes {
                match to {
                    Some(to) => model.insert(lba.0, *to),
                    None => model.remove(&lba.0),
                };
            }
            publish(&mut writer, changes);
            prop_assert_eq!(writer.counts().total(), model.len() as u64);
            let mut held = Vec::new();
            let _ = table.visit(Extent::new(BaseLba(0), BLOCKS), |lba, to| {
                held.push((lba.0, to));
                ControlFlow::Continue(())
            });
            prop_assert!(held.iter().copied().eq(model.iter().map(|(lba, to)| (*lba, *to))));
            prop_assert_eq!(table.is_empty(), model.is_empty());
        }
        for lba in (0..BLOCKS).step_by(LESS) {
            prop_assert_eq!(table.mapping(BaseLba(lba)), model.get(&lba).copied());
        }
        for (lba, blocks) in ranges {
            let first = model.range(lba..lba + blocks).next().map(|(lba, to)| (BaseLba(*lba), *to));
            prop_assert_eq!(table.first_in(Extent::new(BaseLba(lba), blocks)), first);
        }
        let rest = model.keys().map(|lba| change(*lba, None)).collect();
        publish(&mut writer, rest);
        prop_assert!(table.is_empty());
    }

    #[test]
    fn the_table_is_as_a_map(
        batches in prop::collection::vec(prop::collection::vec((block(), mapping()), 0..20), 0..BATCHES),
        ranges in prop::collection::vec((block(), 0..200_000 / LESS as u64), 1..10),
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
            let is_plain = match table.glance(range) {
                Glance::Plain => true,
                Glance::Fetched => table.is_plain_near(range),
                Glance::Unknown => false,
            };
            prop_assert!(!is_plain || first.is_none(), "a glance tells that {:?} is plain", range);
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
    let far = REGION_BLOCKS + 5;
    publish(&mut writer, vec![change(5, None)]);
    assert!(table.is_empty(), "removing nothing is no entry");
    assert!(!table.was_used());
    publish(&mut writer, vec![change(5, Some(Mapping::Pending)), change(far, Some(Mapping::Spare(spare(1))))]);
    assert!(!table.is_empty());
    assert_eq!(table.lookup(BaseLba(5)), Place::Pending(BaseLba(5)));
    publish(&mut writer, vec![change(5, None)]);
    assert!(!table.is_empty());
    publish(&mut writer, vec![change(far, None)]);
    assert!(table.is_empty());
    assert!(table.was_used(), "that it is empty again does not undo what was written");
    assert_eq!(table.lookup(BaseLba(far)), Place::Base(BaseLba(far)));
}

#[test]
fn a_retired_region_can_be_read_until_it_is_freed() {
    let mut writer = TableWriter::new(BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    let first = writer.publish(vec![change(1, Some(Mapping::Pending)), change(2, Some(Mapping::Pending))]);
    assert!(first.is_empty());
    let mut kept = None;
    let mut seen = Vec::new();
    let _ = table.visit(Extent::new(BaseLba(0), 10), |lba, _| {
        // The writer replaces the region under the reader's feet.
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

/// Miri runs one thread at a time.
const READERS: usize = if cfg!(miri) { 1 } else { 2 };

#[test]
fn readers_on_other_threads_see_whole_regions() {
    let mut writer = TableWriter::new(BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    // Gone when all is written, and also if that fails.
    let writing = std::sync::Arc::new(());
    let written = std::sync::Arc::downgrade(&writing);
    let all_there = std::sync::Barrier::new(READERS + 1);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                all_there.wait();
                loop {
                    // Both blocks change together.
                    let segment = table.first_segment(Extent::new(BaseLba(10), 2), u64::MAX);
                    assert!(segment.is_some_and(|segment| segment.blocks == 2), "{segment:?}");
                    if written.strong_count() == 0 {
                        break;
                    }
                }
            });
        }
        let _writing = writing;
        all_there.wait();
        let mut kept = Vec::new();
        for round in (0..500_u32).step_by(LESS) {
            let at = |i| spare(round * 2 + i);
            let to = |i| match round % 3 {
                0 => Some(Mapping::Spare(at(i))),
                1 => Some(Mapping::Lost(at(i))),
                _ => None,
            };
            kept.push(writer.publish(vec![change(10, to(0)), change(11, to(1))]));
        }
        kept
    })
    .into_iter()
    // SAFETY: the readers' threads have ended.
    .for_each(|retired| unsafe { retired.free() });
}

#[test]
fn the_halves_may_go_where_they_have_to() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Table>();
    sent::<TableWriter>();
}
