//! How long a change of one block holds the owner thread when a million are remapped:
//! `cargo test --release -p remap-core --test change_pace -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remap_core::{BaseLba, Change, Mapping, Slot, SpareBlock, TableWriter};

const REMAPS: u32 = 1_000_000;
const BASE_BLOCKS: u64 = 1 << 30;
const CHANGES: u64 = 50_000;

fn remapped(lba: u64, index: u32) -> Change {
    Change { lba: BaseLba(lba), to: SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare) }
}

/// Median and 99th percentile of single changes of a table in which every `step`th block is remapped, and `next` tells what is
/// remapped then.
fn pace(step: u64, mut next: impl FnMut(u64) -> u64) -> (Duration, Duration) {
    let mut writer = TableWriter::new(BASE_BLOCKS);
    drop(writer.publish((0..REMAPS).map(|index| remapped(u64::from(index) * step, index)).collect()));
    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|number| {
            let change = vec![remapped(next(number), 5)];
            let began = Instant::now();
            let retired = writer.publish(change);
            // SAFETY: there is no other thread.
            unsafe { retired.free() };
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_one_change_holds_the_thread() {
    let mut random = SmallRng::seed_from_u64(1);
    let behind = |step: u64| move |number: u64| (u64::from(REMAPS) + number) * step;
    for (name, (median, tail)) in [
        ("random", pace(1024, |_| random.random_range(0..BASE_BLOCKS))),
        ("every second block", pace(2, behind(2))),
        ("one after the other", pace(1, behind(1))),
    ] {
        println!("{name}: median {} ns, p99 {} ns", median.as_nanos(), tail.as_nanos());
    }
}
