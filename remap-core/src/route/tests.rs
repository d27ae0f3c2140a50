//! The decision against a plain map: every block goes where the map says, by every request, with every ability.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::slot::Slot;
use crate::table::{Change, Mapping, TableWriter};

const BLOCKS: u64 = 100;
const BLOCK_REQUESTS: [Request; 4] = [Request::Read, Request::Write, Request::WriteZeroes, Request::Unmap];
const NONE: Abilities = Abilities { base_cache: false, base: Takes::NONE, spares: PerSlot([Takes::NONE; 2]) };
/// A spare in the first slot only.
const ONE: PerSlot<bool> = PerSlot([true, false]);

type Model = BTreeMap<u64, Mapping>;

fn spare(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

fn at_base(lba: u64) -> At {
    At::Base(BaseLba(lba))
}

fn extent(lba: u64, blocks: u64) -> Extent {
    Extent::new(BaseLba(lba), blocks)
}

/// A table that holds `model`.
fn table_of(model: &Model) -> TableWriter {
    let mut writer = TableWriter::new(BLOCKS);
    let changes = model.iter().map(|(lba, to)| Change { lba: BaseLba(*lba), to: Some(*to) });
    assert!(writer.publish(changes.collect()).is_empty());
    writer
}

/// The table is empty again; what it held is leaked.
fn cleared(model: &Model) -> TableWriter {
    let mut writer = table_of(model);
    let changes = model.keys().map(|lba| Change { lba: BaseLba(*lba), to: None });
    std::mem::forget(writer.publish(changes.collect()));
    assert!(writer.table().is_empty());
    writer
}

/// Where the model says that a block goes; `None` if the request is none for it.
fn goes(request: Request, lba: u64, mapping: Option<Mapping>, abilities: &Abilities) -> Option<At> {
    let (at, unmapped) = match mapping {
        None | Some(Mapping::Pending) => (at_base(lba), abilities.base.unmap),
        Some(Mapping::Spare(block) | Mapping::Lost(block)) => (At::Spare(block), abilities.spares[block.slot()].unmap),
    };
    (request != Request::Unmap || unmapped).then_some(at)
}

/// Where each block goes by this route; its parts are as they have to be.
fn blocks_of(route: &Route, range: Extent) -> Vec<Option<At>> {
    let parts = match route {
        Route::Whole(at) => Parts::from_slice(&[Part { at: *at, offset: 0, blocks: range.blocks }]),
        Route::Split(split) => split.parts.clone(),
        Route::Done => Parts::new(),
        other => panic!("{other:?} is for no blocks"),
    };
    if let Route::Split(split) = route {
        assert!(!split.parts.is_empty() && split.parts[0].blocks < range.blocks, "one place is no split");
        assert_eq!(split.blocks, range.blocks, "all of it is in one window");
    }
    let mut places = vec![None; usize::try_from(range.blocks).unwrap()];
    let mut last: Option<Part> = None;
    for part in parts {
        assert!(part.blocks > 0 && part.offset + part.blocks <= range.blocks);
        if let Some(last) = last {
            let end = last.offset + last.blocks;
            assert!(end <= part.offset, "parts are in order and do not overlap");
            assert!(end < part.offset || last.at.plus(last.blocks) != Some(part.at), "neighbours are coalesced");
        }
        for i in 0..part.blocks {
            places[usize::try_from(part.offset + i).unwrap()] = part.at.plus(i);
        }
        last = Some(part);
    }
    places
}

/// Runs of mapped blocks, on both spares. Neighbours have neighbouring spare blocks if they are of one shift, and never share one.
fn models() -> impl Strategy<Value = Model> {
    let run = (0..BLOCKS, 1..6_u64, 0..4_u32, prop::sample::select(vec![0, 0, 0, 0, 1, 2]));
    prop::collection::vec(run, 0..24).prop_map(|runs| {
        let mut model = Model::new();
        for (first, blocks, shift, kind) in runs {
            for lba in first..(first + blocks).min(BLOCKS) {
                let slot = Slot::new(shift % 2).unwrap();
                let block = SpareBlock::new(slot, u32::try_from(lba).unwrap() + 200 * (shift / 2)).unwrap();
                model.insert(lba, [Mapping::Spare(block), Mapping::Pending, Mapping::Lost(block)][kind]);
            }
        }
        model
    })
}

fn takes() -> impl Strategy<Value = Takes> {
    prop::array::uniform5(any::<bool>()).prop_map(|[flush, unmap, zeroes, reset, abort]| Takes {
        flush,
        unmap,
        zeroes,
        reset,
        abort,
    })
}

fn abilities() -> impl Strategy<Value = Abilities> {
    (any::<bool>(), takes(), prop::array::uniform2(takes())).prop_map(|(base_cache, base, spares)| Abilities {
        base_cache,
        base,
        spares: PerSlot(spares),
    })
}

proptest! {
    #[test]
    fn every_block_goes_where_the_map_says(
        model in models(),
        abilities in abilities(),
        request in prop::sample::select(BLOCK_REQUESTS.to_vec()),
        ranges in prop::collection::vec((0..BLOCKS, 1..BLOCKS), 1..10),
    ) {
        let writer = table_of(&model);
        for (lba, blocks) in ranges {
            let range = extent(lba, blocks.min(BLOCKS - lba));
            let held: Vec<Mapping> = model.range(lba..range.end().0).map(|(_, mapping)| *mapping).collect();
            let lost = held.iter().any(|mapping| matches!(mapping, Mapping::Lost(_)));
            let no_zeroes = request == Request::WriteZeroes
                && held.iter().any(|mapping| matches!(mapping, Mapping::Spare(at) if !abilities.spares[at.slot()].zeroes));
            let unsettled = lost || held.contains(&Mapping::Pending) || no_zeroes;
            let route = route(request, range, writer.table(), &abilities);
            match request {
                Request::Read if lost => prop_assert_eq!(route, Route::Fail(IoStatus::UNRECOVERED_READ)),
                Request::Write | Request::WriteZeroes if unsettled => {
                    prop_assert_eq!(Some(route), request.rescued_as().map(Route::Rescue));
                }
                _ => {
                    let expected: Vec<_> = (lba..range.end().0)
                        .map(|lba| goes(request, lba, model.get(&lba).copied(), &abilities))
                        .collect();
                    prop_assert_eq!(blocks_of(&route, range), expected);
                }
            }
        }
    }

    #[test]
    fn devices_get_only_what_they_take(model in models(), abilities in abilities(), again_empty in any::<bool>()) {
        let writer = if again_empty { cleared(&model) } else { table_of(&model) };
        let used = !model.is_empty();
        for request in [Request::Flush, Request::Reset, Request::Abort] {
            let takes = |device: &Takes| match request {
                Request::Flush => device.flush,
                Request::Reset => device.reset,
                _ => device.abort,
            };
            let base = takes(&abilities.base);
            let counts = |slot| request != Request::Flush || slot == Slot::FIRST;
            let used = used || request == Request::Reset;
            let spares = PerSlot::each(|slot| used && counts(slot) && takes(&abilities.spares[slot]));
            let (spare, devices) = (spares != PerSlot::NONE, Devices { base, spares });
            let expected = match request {
                Request::Flush if abilities.base_cache && !base => Route::Fail(IoStatus::Failed),
                Request::Flush if !base && !spare => Route::Done,
                Request::Flush => Route::AllOf(devices),
                Request::Reset if !base => Route::Fail(IoStatus::Failed),
                Request::Reset => Route::AllOf(devices),
                _ if !base && !spare => Route::Fail(IoStatus::Failed),
                _ => Route::AnyOf(devices),
            };
            prop_assert_eq!(route(request, extent(0, BLOCKS), writer.table(), &abilities), expected);
        }
    }
}

/// The route of one block that is mapped so.
fn one(request: Request, mapping: Mapping) -> Route {
    route(request, extent(5, 1), table_of(&Model::from([(5, mapping)])).table(), &Abilities::ALL)
}

#[test]
fn a_remapped_block_is_read_written_and_unmapped_on_the_spare() {
    for request in BLOCK_REQUESTS {
        assert_eq!(one(request, Mapping::Spare(spare(9))), Route::Whole(At::Spare(spare(9))), "{request:?}");
    }
}

#[test]
fn a_pending_block_is_read_and_unmapped_on_the_base_and_written_by_a_rescue() {
    assert_eq!(one(Request::Read, Mapping::Pending), Route::Whole(at_base(5)));
    assert_eq!(one(Request::Unmap, Mapping::Pending), Route::Whole(at_base(5)));
    assert_eq!(one(Request::Write, Mapping::Pending), Route::Rescue(HostOp::Write));
    assert_eq!(one(Request::WriteZeroes, Mapping::Pending), Route::Rescue(HostOp::WriteZeroes));
}

#[test]
fn a_lost_block_is_never_read_and_is_written_by_a_rescue() {
    let lost = Mapping::Lost(spare(9));
    assert_eq!(one(Request::Read, lost), Route::Fail(IoStatus::UNRECOVERED_READ));
    assert_eq!(one(Request::Unmap, lost), Route::Whole(At::Spare(spare(9))));
    assert_eq!(one(Request::Write, lost), Route::Rescue(HostOp::Write));
    assert_eq!(one(Request::WriteZeroes, lost), Route::Rescue(HostOp::WriteZeroes));
}

fn split(parts: &[Part], blocks: u64) -> Route {
    Route::Split(Split { parts: Parts::from_slice(parts), blocks })
}

#[test]
fn what_has_many_parts_goes_window_by_window() {
    // Every second block, none behind its neighbour's: each is a part.
    let model: Model = (0..BLOCKS).map(|i| (2 * i, Mapping::Spare(spare(u32::try_from(2 * i).unwrap())))).collect();
    let mut writer = TableWriter::new(2 * BLOCKS);
    let changes = model.iter().map(|(lba, to)| Change { lba: BaseLba(*lba), to: Some(*to) });
    assert!(writer.publish(changes.collect()).is_empty());
    for request in BLOCK_REQUESTS {
        let (mut at, mut windows) = (0, Vec::new());
        while at < 2 * BLOCKS {
            let route = route(request, extent(at, 2 * BLOCKS - at), writer.table(), &Abilities::ALL);
            let Route::Split(Split { parts, blocks }) = route else { panic!("{route:?}") };
            let covered: u64 = parts.iter().map(|part| part.blocks).sum();
            assert!(covered == blocks && parts[0].offset == 0, "{request:?} leaves nothing out");
            windows.push(parts.len());
            at += blocks;
        }
        assert_eq!(windows, [WINDOW, WINDOW, WINDOW, 200 - 3 * WINDOW], "{request:?}");
    }
}

#[test]
fn zeroes_are_written_where_the_spare_takes_none() {
    let writer = table_of(&Model::from([(2, Mapping::Spare(spare(7)))]));
    let abilities =
        Abilities { spares: PerSlot([Takes { zeroes: false, ..Takes::ALL }, Takes::ALL]), ..Abilities::ALL };
    let zeroes = |range| route(Request::WriteZeroes, range, writer.table(), &abilities);
    assert_eq!(zeroes(extent(2, 1)), Route::Rescue(HostOp::WriteZeroes));
    assert_eq!(zeroes(extent(0, 4)), Route::Rescue(HostOp::WriteZeroes));
    assert_eq!(zeroes(extent(3, 4)), Route::Whole(at_base(3)));
}

#[test]
fn a_range_on_both_devices_is_split_where_it_changes() {
    let writer = table_of(&Model::from([
        (2, Mapping::Spare(spare(7))),
        (3, Mapping::Spare(spare(8))),
        (4, Mapping::Spare(spare(3))),
        (6, Mapping::Pending),
    ]));
    let part = |at, offset, blocks| Part { at, offset, blocks };
    let parts = [
        part(at_base(1), 0, 1),
        part(At::Spare(spare(7)), 1, 2),
        part(At::Spare(spare(3)), 3, 1),
        part(at_base(5), 4, 4),
    ];
    let read = route(Request::Read, extent(1, 8), writer.table(), &Abilities::ALL);
    assert_eq!(read, split(&parts, 8));
    let run = route(Request::Write, extent(2, 2), writer.table(), &Abilities::ALL);
    assert_eq!(run, Route::Whole(At::Spare(spare(7))), "a run on the spare is one place");
    let beside = route(Request::Read, extent(5, 4), writer.table(), &Abilities::ALL);
    assert_eq!(beside, Route::Whole(at_base(5)), "a pending block is read with its neighbours");
}

#[test]
fn a_run_does_not_go_on_from_one_spare_to_the_other() {
    let of = |slot, index| SpareBlock::new(slot, index).unwrap();
    let (first, second) = (Slot::FIRST, Slot::FIRST.other());
    let blocks = [of(first, 7), of(second, 8), of(second, 9), of(first, 10)];
    let writer = table_of(&(2..).zip(blocks.map(Mapping::Spare)).collect());
    let part = |at, offset, blocks| Part { at: At::Spare(at), offset, blocks };
    let parts = [part(of(first, 7), 0, 1), part(of(second, 8), 1, 2), part(of(first, 10), 3, 1)];
    let both = Abilities { spares: PerSlot([Takes::ALL; 2]), ..Abilities::ALL };
    assert_eq!(route(Request::Write, extent(2, 4), writer.table(), &both), split(&parts, 4));
    let flush = route(Request::Flush, extent(0, BLOCKS), writer.table(), &both);
    assert_eq!(
        flush,
        Route::AllOf(Devices { base: true, spares: PerSlot([true, false]) }),
        "on the other one nothing rests"
    );
    writer.set_slot(second);
    let flush = route(Request::Flush, extent(0, BLOCKS), writer.table(), &both);
    assert_eq!(flush, Route::AllOf(Devices { base: true, spares: PerSlot([false, true]) }));
}

#[test]
fn advice_that_a_device_does_not_take_is_left_out() {
    let writer = table_of(&Model::from([(2, Mapping::Spare(spare(7)))]));
    let unmap = |range, abilities: Abilities| route(Request::Unmap, range, writer.table(), &abilities);
    let base_only = Abilities { base: Takes { unmap: true, ..Takes::NONE }, ..NONE };
    assert_eq!(unmap(extent(2, 1), base_only), Route::Done);
    assert_eq!(unmap(extent(0, 1), NONE), Route::Done);
    let parts = [Part { at: at_base(0), offset: 0, blocks: 2 }, Part { at: at_base(3), offset: 3, blocks: 1 }];
    assert_eq!(unmap(extent(0, 4), base_only), split(&parts, 4));
    let first = [Part { at: at_base(1), offset: 0, blocks: 1 }];
    assert_eq!(unmap(extent(1, 2), base_only), split(&first, 2), "a part is not the whole");
}

#[test]
fn a_flush_that_cannot_reach_the_cache_of_the_base_fails() {
    let (writer, used) = (TableWriter::new(BLOCKS), table_of(&Model::from([(2, Mapping::Spare(spare(7)))])));
    let flush = |table: &Table, abilities: Abilities| route(Request::Flush, extent(0, 0), table, &abilities);
    let deaf = Abilities { base: Takes { flush: false, ..Takes::ALL }, ..Abilities::ALL };
    assert_eq!(flush(writer.table(), deaf), Route::Fail(IoStatus::Failed));
    assert_eq!(flush(used.table(), deaf), Route::Fail(IoStatus::Failed), "also if the spare takes it");
    assert_eq!(flush(writer.table(), NONE), Route::Done, "nothing is in a cache");
    let spare_only = Abilities { spares: PerSlot::only(Slot::FIRST, Takes::ALL), ..NONE };
    assert_eq!(flush(used.table(), spare_only), Route::AllOf(Devices { base: false, spares: ONE }));
}

#[test]
fn the_spare_is_flushed_also_when_nothing_is_remapped_any_more() {
    let writer = cleared(&Model::from([(2, Mapping::Spare(spare(7)))]));
    let flush = route(Request::Flush, extent(0, BLOCKS), writer.table(), &Abilities::ALL);
    assert_eq!(flush, Route::AllOf(Devices { base: true, spares: ONE }));
}

#[test]
fn only_media_errors_of_reads_and_writes_are_rescued() {
    let (media, other) = (IoStatus::WRITE_FAULT, IoStatus::Aborted);
    for request in BLOCK_REQUESTS.into_iter().chain([Request::Flush, Request::Reset, Request::Abort]) {
        let rescued = request.rescued_as().map_or(AfterError::Complete(media), AfterError::Rescue);
        assert_eq!(after_error(request, media, RemapOn::Media), rescued, "{request:?}");
        assert_eq!(after_error(request, other, RemapOn::Any), AfterError::Complete(other), "{request:?}");
    }
    let vague = IoStatus::Failed;
    assert_eq!(after_error(Request::Read, vague, RemapOn::Media), AfterError::Complete(vague));
    assert_eq!(after_error(Request::Read, vague, RemapOn::Any), AfterError::Rescue(HostOp::Read));
    assert_eq!(after_error(Request::Unmap, media, RemapOn::Any), AfterError::Complete(media));
    for op in [HostOp::Read, HostOp::Write, HostOp::WriteZeroes] {
        assert_eq!(Request::from(op).rescued_as(), Some(op));
    }
}

/// What the figures of a change to the table are compared by: `cargo test --release -p remap-core --lib -- --ignored --nocapture how_long`.
#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_it_takes_to_route_a_read() {
    const REMAPPED: u32 = 1_000_000;
    const AMONG: u64 = 1 << 28;
    // Some number that is far from the one before, below `AMONG`.
    let scattered = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 36;
    let mut lbas: Vec<_> = (0..u64::from(REMAPPED)).map(scattered).collect();
    lbas.sort_unstable();
    lbas.dedup();
    let mut writer = TableWriter::new(AMONG);
    let changes =
        lbas.iter().zip(0..).map(|(lba, index)| Change { lba: BaseLba(*lba), to: Some(Mapping::Spare(spare(index))) });
    assert!(writer.publish(changes.collect()).is_empty());
    let (empty, full) = (TableWriter::new(AMONG), writer);
    let time = |what: &str, writer: &TableWriter, lba: &dyn Fn(u64) -> u64| {
        let lbas: Vec<_> = (0..1 << 20).map(lba).collect();
        let best = (0..9).map(|_| {
            let begun = std::time::Instant::now();
            for lba in &lbas {
                let to = route(Request::Read, extent(*lba, 1), writer.table(), std::hint::black_box(&Abilities::ALL));
                // As the vbdev does: the rest of the answer is not copied.
                std::hint::black_box(matches!(to, Route::Whole(At::Base(_))));
            }
            begun.elapsed()
        });
        println!("{what}: {:.1} ns", best.min().unwrap().as_nanos() as f64 / lbas.len() as f64);
    };
    let remapped = |n| lbas[(scattered(n) % lbas.len() as u64) as usize];
    let others = |n| scattered(n + u64::from(REMAPPED));
    time("empty table", &empty, &others);
    time("a block that is not in the table", &full, &others);
    time("a remapped block", &full, &remapped);
}
