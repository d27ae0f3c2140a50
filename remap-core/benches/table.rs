//! The remap table: what a lookup costs, and a change. `cargo bench -p remap-core`.
//!
//! Each lookup depends on the one before, so that it is latency that is measured.

use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use remap_core::{BaseLba, Change, Mapping, Place, Slot, SpareBlock, Table, TableWriter};

const LOOKUPS: usize = 1 << 15;
const MILLION: u32 = 1_000_000;

fn remapped(lba: u64, index: u32) -> Change {
    Change { lba: BaseLba(lba), to: SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare) }
}

/// A table of a base of `blocks` blocks, in which every `step`th is remapped.
fn every(step: u64, count: u32, blocks: u64) -> TableWriter {
    let mut writer = TableWriter::new(blocks);
    let changes = (0..count).map(|index| remapped(u64::from(index) * step, index)).collect();
    drop(writer.publish(changes));
    assert_eq!(writer.counts().total(), u64::from(count));
    writer
}

/// Finds one block after the other of those that `block` draws.
fn find(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    mut block: impl FnMut(&mut SmallRng) -> u64,
    find: impl Fn(u64) -> u64,
) {
    let mut random = SmallRng::seed_from_u64(1);
    let blocks: Vec<u64> = (0..LOOKUPS).map(|_| block(&mut random)).collect();
    group.throughput(Throughput::Elements(1));
    // Nothing is added, but only what was found tells.
    let (mut at, mut last, nothing) = (0, 0, black_box(0));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            at = (at + 1) % LOOKUPS;
            last = find(blocks[at] + last) & nothing;
        });
    });
    black_box(last);
}

/// Looks up one block after the other of those that `block` draws.
fn look_up(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    table: &Arc<Table>,
    block: impl FnMut(&mut SmallRng) -> u64,
) {
    find(group, name, block, |lba| match table.lookup(BaseLba(lba)) {
        Place::Base(lba) | Place::Pending(lba) => lba.0,
        Place::Spare(spare) | Place::Lost(spare) => u64::from(spare.index()),
    });
}

/// What any look into memory takes that is as large as a table of a million: it shows what the machine gives at the time.
fn far_load(group: &mut BenchmarkGroup<WallTime>) {
    const LINES: usize = (16 << 20) / 64;
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line(usize);
    let mut order: Vec<usize> = (0..LINES).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(1));
    let mut next = vec![Line(0); LINES];
    for (index, line) in order.iter().enumerate() {
        next[*line] = Line(order[(index + 1) % LINES]);
    }
    let mut at = 0;
    group.bench_function("one load", |bencher| bencher.iter(|| at = next[at].0));
    black_box(at);
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    far_load(&mut group);
    let giga = 1 << 30;
    // What is measured besides the look-up.
    find(&mut group, "the loop alone", |random| random.random_range(0..giga), |lba| lba);
    look_up(&mut group, "empty", TableWriter::new(giga).table(), |random| random.random_range(0..giga));
    for (name, step, count) in [
        ("1,000", 1 << 20, 1000_u32),
        ("1,000,000 in 1 Gi", 1 << 10, MILLION),
        ("1,000,000 in 16 Mi", 16, MILLION),
        ("1,000,000 clustered", 1, MILLION),
    ] {
        let writer = every(step, count, giga);
        let table = writer.table();
        let span = u64::from(count) * step;
        if step > 1 {
            look_up(&mut group, &format!("miss at {name}"), table, |random| {
                random.random_range(0..span / step) * step + random.random_range(1..step)
            });
        } else {
            look_up(&mut group, &format!("miss at {name}"), table, |random| random.random_range(span..giga));
        }
        look_up(&mut group, &format!("hit at {name}"), table, |random| random.random_range(0..span / step) * step);
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change of one block at 1,000,000");
    let giga = 1 << 30;
    for (name, step) in [("in 1 Gi", 1 << 10), ("every second", 2), ("sequential", 1)] {
        let mut writer = every(step, MILLION, giga);
        let mut random = SmallRng::seed_from_u64(1);
        let mut next = u64::from(MILLION) * step;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    next += step;
                    if step > 2 { random.random_range(0..giga) } else { next % giga }
                },
                |lba| {
                    let retired = writer.publish(vec![remapped(lba, 5)]);
                    // SAFETY: there is no other thread.
                    unsafe { retired.free() }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, changes);
criterion_main!(benches);
