//! Writes the spare of a disk that wears out, for pictures: a scratch across tracks, a spot where more and more blocks go bad, and single
//! blocks anywhere; always the same. `cargo run -p remapctl --example worn_spare -- FILE`

#![allow(clippy::unwrap_used)]

#[path = "../tests/common/spare.rs"]
mod spare;

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remap_core::BaseLba;
use remap_core::format::Record;
use spare::{Wanted, spare_block, write_spare};

/// Blocks of a disk of 4 TB.
const BASE_BLOCKS: u64 = 976_754_646;
/// A spare of 256 MiB.
const SPARE_BLOCKS: u64 = 65_536;
/// Blocks of a track, about.
const TRACK: u64 = 500;
/// 2026-06-01, 03:12 in the night.
const WRITTEN_AT: u64 = 1_780_283_520_000_000;

/// What became of a block.
enum Fate {
    Remapped,
    Pending,
    Lost,
}

fn main() {
    let mut random = SmallRng::seed_from_u64(7);
    // In the order in which they were found.
    let mut found = Vec::new();
    // Single blocks, anywhere.
    found.extend((0..260).map(|_| (random.random_range(0..BASE_BLOCKS), Fate::Remapped)));
    // A scratch: some blocks of many tracks after each other.
    let scratch = 402_000_000;
    for track in 0..1900 {
        let at = scratch + track * TRACK * 2 + random.random_range(0..4);
        found.extend((at..at + random.random_range(1..9)).map(|lba| (lba, Fate::Remapped)));
    }
    // A spot, dense in its middle.
    let spot = 655_400_000_u64;
    for _ in 0..7000 {
        let away: u64 = (0..4).map(|_| random.random_range(0..1 << 21)).sum();
        found.push((spot + away, Fate::Remapped));
    }
    // Blocks that failed when they were read, some after they had been remapped.
    found.extend((0..38).map(|_| (spot + random.random_range(0..1 << 23), Fate::Pending)));
    found.extend((0..9).map(|_| (scratch + 1900 * TRACK * 2 + random.random_range(0..1 << 23), Fate::Pending)));
    found.extend([(spot + (1 << 22), Fate::Lost), (spot + (1 << 22) + 1, Fate::Lost), (120_034_567, Fate::Lost)]);

    // Blocks of the spare that failed themselves.
    let bad = [1200, 1201, 1202, 9031];
    let mut places = (0..).filter(|index| !bad.contains(index)).map(spare_block);
    let mut records = BTreeMap::new();
    for (lba, fate) in found {
        records.entry(lba).or_insert_with(|| match fate {
            Fate::Remapped => Record::Remap { lba: BaseLba(lba), spare: places.next().unwrap(), count: 1 },
            Fate::Pending => Record::Pending { lba: BaseLba(lba), count: 1 },
            Fate::Lost => Record::Lost { lba: BaseLba(lba), spare: places.next().unwrap(), count: 1 },
        });
    }
    let bad = bad.map(|index| Record::BadSpare { spare: spare_block(index), count: 1 });
    let wanted = Wanted {
        name: "Remap0",
        block_size: 4096,
        spare_blocks: SPARE_BLOCKS,
        base_blocks: BASE_BLOCKS,
        written_at: WRITTEN_AT,
    };
    let path = std::env::args_os().nth(1).unwrap();
    write_spare(Path::new(&path), &wanted, records.into_values().chain(bad));
}
