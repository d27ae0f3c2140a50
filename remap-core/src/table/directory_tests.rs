//! The directory, on bases of every size: against a plain map, and what it takes and gives back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::slot::Slot;
use crate::units::MAX_BASE_BLOCKS;

/// Blocks below one node of height 1, and of height 2.
const NODE: u64 = REGION_BLOCKS << lowest::LOWEST_BITS;
const HIGHER: u64 = NODE << directory::INNER_BITS;

fn change(lba: u64, to: Option<Mapping>) -> Change {
    Change { lba: BaseLba(lba), to }
}

fn publish(writer: &mut TableWriter, changes: Vec<Change>) {
    let retired = writer.publish(changes);
    // SAFETY: these tests have one thread, and no method of the table is under way.
    unsafe { retired.free() }
}

fn all(table: &Table, range: Extent) -> Vec<(u64, Mapping)> {
    let mut found = Vec::new();
    let _ = table.visit(range, |lba, mapping| {
        found.push((lba.0, mapping));
        ControlFlow::Continue(())
    });
    found
}

/// The segments of a range, found one after the other.
fn one_by_one(table: &Table, range: Extent, longest: u64) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(segment) = table.first_segment(Extent::new(range.lba.plus(offset), range.blocks - offset), longest) {
        found.push(segment);
        offset += segment.blocks;
    }
    found
}

/// The segments of a range in which these blocks are held, which ascend.
fn segments_of(range: Extent, held: &[(u64, Mapping)]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut offset = 0;
    let held = held.iter().map(|(lba, mapping)| (lba - range.lba.0, Place::new(BaseLba(*lba), *mapping)));
    for (at, place) in held.map(|(at, place)| (at, Some(place))).chain([(range.blocks, None)]) {
        if at > offset {
            segments.push(Segment { place: Place::Base(range.lba.plus(offset)), blocks: at - offset });
        }
        offset = at + 1;
        match (segments.last_mut(), place) {
            (_, None) => {}
            (Some(last), Some(place)) if last.place.plus(last.blocks) == Some(place) => last.blocks += 1,
            (_, Some(place)) => segments.push(Segment { place, blocks: 1 }),
        }
    }
    segments
}

fn mapping() -> impl Strategy<Value = Option<Mapping>> {
    prop_oneof![
        2 => (0..200_u32).prop_map(|index| SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare)),
        1 => Just(Some(Mapping::Pending)),
        2 => Just(None),
    ]
}

/// A base, of any height of directory, and blocks of it: around the ends of regions and nodes, and of the base.
fn base() -> impl Strategy<Value = (u64, Vec<u64>)> {
    let small = [1, REGION_BLOCKS, NODE - 1, NODE, NODE + 1];
    let large = [5 * NODE, 20 * NODE, 100 * NODE, 300 * NODE + 77, HIGHER, HIGHER + 1, MAX_BASE_BLOCKS];
    prop::sample::select([&small[..], &large].concat()).prop_map(|size| {
        let edges = [0, REGION_BLOCKS, NODE, 255 * NODE, HIGHER, 200 * HIGHER + 5 * NODE, size];
        let blocks = edges.into_iter().flat_map(|edge| edge.saturating_sub(2)..edge + 2);
        (size, blocks.filter(|lba| *lba < size + 2).collect())
    })
}

/// Batches of changes, at most; Miri, which takes its time for every step, has time for few.
const BATCHES: usize = if cfg!(miri) { 4 } else { 20 };

/// A base, batches of changes, and pairs of blocks between which is looked.
type Story = (u64, Vec<Vec<(u64, Option<Mapping>)>>, Vec<(u64, u64)>);

fn story() -> impl Strategy<Value = Story> {
    base().prop_flat_map(|(size, blocks)| {
        let block = move || prop::sample::select(blocks.clone());
        let batch = prop::collection::vec((block(), mapping()), 0..8);
        (
            Just(size),
            prop::collection::vec(batch, 0..BATCHES),
            prop::collection::vec((block(), block()), 1..BATCHES / 2),
        )
    })
}

proptest! {
    #[test]
    fn the_table_is_as_a_map_whatever_the_size_of_the_base((size, batches, ranges) in story()) {
        let mut writer = TableWriter::new(size);
        let table = std::sync::Arc::clone(writer.table());
        let mut model = BTreeMap::new();
        for batch in batches {
            for (lba, to) in batch.iter().filter(|(lba, _)| *lba < size) {
                match to {
                    Some(to) => model.insert(*lba, *to),
                    None => model.remove(lba),
                };
            }
            publish(&mut writer, batch.into_iter().map(|(lba, to)| change(lba, to)).collect());
            prop_assert_eq!(table.is_empty(), model.is_empty());
            let whole: Vec<_> = model.iter().map(|(lba, to)| (*lba, *to)).collect();
            prop_assert_eq!(all(&table, Extent::new(BaseLba(0), u64::MAX)), whole);
        }
        for (one, other) in ranges {
            let (first, end) = (one.min(other), one.max(other) + 1);
            let range = Extent::new(BaseLba(first), end - first);
            let expected: Vec<_> = model.range(first..end).map(|(lba, to)| (*lba, *to)).collect();
            let first_held = table.first_in(range).map(|(lba, mapping)| (lba.0, mapping));
            prop_assert_eq!(first_held, expected.first().copied());
            prop_assert_eq!(&all(&table, range), &expected);
            prop_assert_eq!(table.mapping(BaseLba(one)), model.get(&one).copied());
            prop_assert_eq!(table.look_up_more(BaseLba(one)), table.lookup(BaseLba(one)));
            let segments = segments_of(range, &expected);
            prop_assert_eq!(one_by_one(&table, range, u64::MAX), segments);
            let short = one_by_one(&table, range, 2);
            prop_assert_eq!(short.iter().map(|segment| segment.blocks).sum::<u64>(), range.blocks);
            let too_long = |segment: &Segment| segment.blocks > 2 && !matches!(segment.place, Place::Base(_));
            prop_assert!(!short.iter().any(too_long));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it measures time")]
fn the_largest_base_with_three_remaps_is_visited_at_once() {
    let mut writer = TableWriter::new(MAX_BASE_BLOCKS);
    let table = std::sync::Arc::clone(writer.table());
    let places = [5, MAX_BASE_BLOCKS / 3, MAX_BASE_BLOCKS - 1];
    publish(&mut writer, places.map(|lba| change(lba, Some(Mapping::Pending))).to_vec());
    let begin = Instant::now();
    let found = all(&table, Extent::new(BaseLba(0), MAX_BASE_BLOCKS));
    let time = begin.elapsed();
    assert_eq!(found, places.map(|lba| (lba, Mapping::Pending)));
    // Microseconds when optimised; 2^32 places to look at would take seconds in any case.
    assert!(time < Duration::from_millis(200), "{time:?}");
}

#[test]
fn a_node_goes_with_the_last_region_below_it() {
    let mut writer = TableWriter::new(MAX_BASE_BLOCKS);
    let pending = Some(Mapping::Pending);
    publish(&mut writer, vec![change(1, pending), change(REGION_BLOCKS, pending), change(HIGHER, pending)]);
    let mut retired = |changes: Vec<Change>| {
        let retired = writer.publish(changes);
        let sizes = retired.sizes();
        // SAFETY: as in `publish`.
        unsafe { retired.free() }
        sizes
    };
    assert_eq!(retired(vec![change(1, None)]), (1, 0), "there is another region");
    assert_eq!(retired(vec![change(REGION_BLOCKS, None)]), (1, 2), "two nodes are empty, the one above is not");
    assert_eq!(retired(vec![change(3 * NODE, None)]), (0, 0), "nothing is made for nothing");
    assert_eq!(retired(vec![change(HIGHER, None)]), (1, 4), "the way there, and the top");
    assert!(writer.table().is_empty());
}

#[test]
fn a_retired_node_can_be_read_until_it_is_freed() {
    let mut writer = TableWriter::new(HIGHER);
    let table = std::sync::Arc::clone(writer.table());
    let (places, pending) = ([1, REGION_BLOCKS, NODE], Some(Mapping::Pending));
    publish(&mut writer, places.map(|lba| change(lba, pending)).to_vec());
    let mut kept = None;
    let mut seen = Vec::new();
    let _ = table.visit(Extent::new(BaseLba(0), HIGHER), |lba, _| {
        // The writer takes everything away under the reader's feet.
        kept.get_or_insert_with(|| writer.publish(places.map(|lba| change(lba, None)).to_vec()));
        seen.push(lba.0);
        ControlFlow::Continue(())
    });
    assert_eq!(seen, [1], "what is gone is not met");
    assert!(table.is_empty());
    // SAFETY: the only reader is done.
    unsafe { kept.unwrap().free() }
}

/// A block in each of so many regions.
fn one_in_each(regions: u64) -> Vec<u64> {
    (0..regions).map(|number| number * REGION_BLOCKS + number * 37 % REGION_BLOCKS).collect()
}

#[test]
#[cfg_attr(miri, ignore = "it would take an hour to fill a far table")]
fn what_is_plain_by_what_was_fetched_is_plain() {
    let held = one_in_each(directory::FAR_REGIONS);
    let size = directory::FAR_REGIONS * REGION_BLOCKS;
    let mut writer = TableWriter::new(size);
    let table = std::sync::Arc::clone(writer.table());
    let range = |first, blocks| Extent::new(BaseLba(first), blocks);
    publish(&mut writer, held.iter().map(|lba| change(*lba, Some(Mapping::Pending))).collect());
    assert!(table.is_far());
    let is_plain = |range| match table.glance(range) {
        Glance::Plain => true,
        Glance::Fetched => table.is_plain_near(range),
        Glance::Unknown => panic!("{range:?} is in one region"),
    };
    let (mut others, mut plain) = (0, 0);
    for (number, lba) in (0..).zip(held.iter().copied()).step_by(7) {
        let start = lba - lba % REGION_BLOCKS;
        for first in [lba, lba - (lba - start).min(number % 9)] {
            assert!(!is_plain(range(first, lba - first + 1)));
        }
        let blocks = 1 + number % 3;
        for first in (start..=start + REGION_BLOCKS - blocks).step_by(997) {
            let there = table.first_in(range(first, blocks)).is_some();
            assert!(!there || !is_plain(range(first, blocks)), "{blocks} blocks from {first}");
            others += u64::from(!there);
            plain += u64::from(is_plain(range(first, blocks)));
        }
    }
    assert!(plain * 100 > others * 99, "{plain} of {others} looks at other blocks end at the filter");
    for (first, blocks, what) in
        [(REGION_BLOCKS - 1, 2, "two regions"), (5, 0, "no blocks"), (size - 1, 2, "behind the end")]
    {
        assert_eq!(table.glance(range(first, blocks)), Glance::Unknown, "{what}");
        assert!(!table.is_plain_near(range(first, blocks)), "{what}");
    }
    publish(&mut writer, vec![change(held[9], None)]);
    assert!(!table.is_far(), "one region less");
    publish(&mut writer, vec![change(held[9], Some(Mapping::Pending)), change(held[9] + 1, Some(Mapping::Pending))]);
    assert!(table.is_far(), "as many as before");
}
