//! As many remaps as there can be, and what the commands take of memory for them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use common::{Folder, remapctl};
use nix::sys::resource::{UsageWho, getrusage};
use remap_core::format::superblock::Kept;
use remap_core::format::{
    Area, Copy, Layout, PageAt, PageInfo, PageOwner, Record, SpareState, Superblock, encode_page, records_per_page,
};
use remap_core::{BaseLba, Epoch, MAX_SPARE_BLOCKS, Sequence, Slot, SpareBlock};
use uuid::Uuid;

const BLOCK: u32 = 512;
/// Enough for as many spare blocks as one set can have, with blocks of 512 bytes.
const SPARE_BLOCKS: u64 = 4_930_000;
/// KiB that a command may take.
const LIMIT: i64 = 300 << 10;

/// Writes a spare of which every block is in use: every second block of the base is remapped, so that no two are one extent.
fn write_spare(path: &Path) {
    let layout = Layout::for_spare(BLOCK, SPARE_BLOCKS).unwrap();
    assert_eq!(layout.data_blocks, MAX_SPARE_BLOCKS);
    let per_page = records_per_page(layout.page_bytes as usize) as u32;
    let pages = (MAX_SPARE_BLOCKS + 1).div_ceil(per_page);
    let (set_uuid, spare_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let file = File::create(path).unwrap();
    file.set_len(SPARE_BLOCKS * u64::from(BLOCK)).unwrap();
    let mut page = vec![0; layout.page_bytes as usize];
    let remap = |index| match SpareBlock::new(Slot::FIRST, index) {
        Some(spare) => Record::Remap { lba: BaseLba(2 * u64::from(index)), spare, count: 1 },
        None => Record::EndOfCheckpoint,
    };
    for index in 0..pages {
        let last = ((index + 1) * per_page).min(MAX_SPARE_BLOCKS + 1);
        let records: Vec<_> = (index * per_page..last).map(|index| remap(index).encode()).collect();
        let info = PageInfo {
            epoch: Epoch::ONE,
            sequence: Sequence::new(1 + u64::from(index)).unwrap(),
            checkpoint_pages: pages,
        };
        for copy in Copy::BOTH {
            let at = PageAt { copy, area: Area::Zero, index };
            encode_page(&mut page, PageOwner { set_uuid, spare_id }, at, info, &records);
            let place = layout.log_page(copy, Area::Zero, index.into());
            file.write_all_at(&page, place.0 * u64::from(BLOCK)).unwrap();
        }
    }
    let superblock = Superblock {
        set_uuid,
        base_uuid: Uuid::from_u128(3),
        host_id: Uuid::nil(),
        generation: 1,
        sequence: Sequence::ONE,
        written_at: 0,
        epoch: Epoch::ONE,
        committed: Sequence::new(pages.into()).unwrap(),
        noted_epoch: Epoch::ZERO,
        in_use: false,
        base_blocks: 2 * u64::from(MAX_SPARE_BLOCKS),
        md_size: 0,
        name: "Remap0".into(),
        slot: Slot::FIRST,
        spare_id,
        state: SpareState::Active,
        other: None,
        layout,
        scrub: None,
        compat: 0,
        kept: Kept::default(),
    };
    for copy in Copy::BOTH {
        superblock.encode(&mut page);
        file.write_all_at(&page, layout.superblock(copy).0 * u64::from(BLOCK)).unwrap();
    }
    // Something to be found in the first and in the last block of the data area.
    for (index, value) in [(0, 1), (MAX_SPARE_BLOCKS - 1, 2)] {
        let at = layout.data(SpareBlock::new(Slot::FIRST, index).unwrap());
        file.write_all_at(&[value; BLOCK as usize], at.0 * u64::from(BLOCK)).unwrap();
    }
}

/// The most that any child of this process has taken so far, in KiB.
fn most() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss()
}

#[test]
fn four_million_remaps_are_shown_and_recovered_in_300_mib() {
    let folder = Folder::on_disk();
    let (spare, base, output) = (folder.path("spare"), folder.path("base"), folder.path("output"));
    write_spare(&spare);
    let base_bytes = 2 * u64::from(MAX_SPARE_BLOCKS) * u64::from(BLOCK);
    File::create(&base).unwrap().set_len(base_bytes).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let recover = ["recover", "--base", &path(&base), "--spare", &path(&spare), "--output", &path(&output)];
    let commands: [&[&str]; 3] = [&["inspect", &path(&spare)], &["list", &path(&spare), "--format", "json"], &recover];
    for command in commands {
        let list = File::create(folder.path("stdout")).unwrap();
        let done = remapctl(command).stdout(list).stderr(Stdio::inherit()).status().unwrap();
        assert!(done.success(), "{command:?}: {done}");
        println!("{}: {} MiB", command[0], most() >> 10);
        assert!(most() < LIMIT, "{command:?}: {} KiB", most());
        if command[0] == "list" {
            let bytes = fs::metadata(folder.path("stdout")).unwrap().len();
            assert!(bytes > u64::from(MAX_SPARE_BLOCKS) * 50, "only {bytes} bytes are listed");
        }
    }
    let output = File::open(&output).unwrap();
    let mut block = [0; BLOCK as usize];
    for (lba, value) in [(0, 1), (1, 0), (2 * u64::from(MAX_SPARE_BLOCKS) - 2, 2), (2, 0)] {
        output.read_exact_at(&mut block, lba * u64::from(BLOCK)).unwrap();
        assert_eq!(block, [value; BLOCK as usize], "block {lba}");
    }
    assert_eq!(output.metadata().unwrap().len(), base_bytes);
}
