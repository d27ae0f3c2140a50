//! As many remaps as there can be, and what the commands take of memory for them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use common::spare::{Wanted, edit_superblocks, spare_block, write_spare};
use common::{Folder, remapctl};
use nix::sys::resource::{UsageWho, getrusage};
use remap_core::format::{Area, Copy, Layout, Record};
use remap_core::{BaseLba, MAX_SPARE_BLOCKS};

const BLOCK: u32 = 512;
/// Enough for as many spare blocks as one set can have, with blocks of 512 bytes.
const SPARE_BLOCKS: u64 = 4_930_000;
/// KiB that a command may take.
const LIMIT: i64 = 300 << 10;

/// Writes a spare of which every block is in use: every second block of the base is remapped, so that no two are one extent.
fn write_full_spare(path: &Path) -> Layout {
    let wanted = Wanted {
        name: "Remap0",
        block_size: BLOCK,
        spare_blocks: SPARE_BLOCKS,
        base_blocks: 2 * u64::from(MAX_SPARE_BLOCKS),
        written_at: 0,
    };
    let remap = |index| Record::Remap { lba: BaseLba(2 * u64::from(index)), spare: spare_block(index), count: 1 };
    let layout = write_spare(path, &wanted, (0..MAX_SPARE_BLOCKS).map(remap));
    assert_eq!(layout.data_blocks, MAX_SPARE_BLOCKS);
    let file = File::options().write(true).open(path).unwrap();
    // Something to be found in the first and in the last block of the data area.
    for (index, value) in [(0, 1), (MAX_SPARE_BLOCKS - 1, 2)] {
        let at = layout.data(spare_block(index));
        file.write_all_at(&[value; BLOCK as usize], at.0 * u64::from(BLOCK)).unwrap();
    }
    layout
}

/// Makes every third page of copy A bad.
fn spoil(path: &Path, layout: &Layout) {
    let file = File::options().write(true).open(path).unwrap();
    for page in (0..u64::from(layout.area_pages)).step_by(3) {
        let at = layout.log_page(Copy::A, Area::Zero, page).0 * u64::from(BLOCK);
        file.write_all_at(&[0xaa; BLOCK as usize], at).unwrap();
    }
}

/// Makes the superblocks know of one page more than there is, so that the set is refused. The state that is there, for `--at`.
fn lose_last_page(path: &Path, layout: &Layout) -> String {
    let mut state = String::new();
    edit_superblocks(path, layout, |superblock| {
        state = format!("{}:{}", superblock.epoch, superblock.committed);
        superblock.committed = superblock.committed.plus(1);
    });
    state
}

/// The most that any child of this process has taken so far, in KiB.
fn most() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss()
}

#[test]
fn four_million_remaps_are_shown_recovered_and_planned_for_in_300_mib() {
    let folder = Folder::on_disk();
    let (spare, base, output) = (folder.path("spare"), folder.path("base"), folder.path("output"));
    let layout = write_full_spare(&spare);
    let base_bytes = 2 * u64::from(MAX_SPARE_BLOCKS) * u64::from(BLOCK);
    File::create(&base).unwrap().set_len(base_bytes).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let recover = ["recover", "--base", &path(&base), "--spare", &path(&spare), "--output", &path(&output)];
    // The plan of a repair is rehearsed only where there is something to repair: it comes last, of a copy that is bad.
    let commands: [&[&str]; 8] = [
        &["inspect", &path(&spare)],
        &["inspect", &path(&spare), "--json"],
        &["check", &path(&spare), "--base", &path(&base)],
        &["list", &path(&spare), "--format", "json"],
        &["map", &path(&spare), "--format", "svg"],
        &["map", &path(&spare), "--format", "html"],
        &recover,
        &["repair", &path(&spare)],
    ];
    let run = |command: &[&str]| {
        let list = File::create(folder.path("stdout")).unwrap();
        let done = remapctl(command).stdout(list).stderr(Stdio::inherit()).status().unwrap();
        println!("{}: {} MiB", command[0], most() >> 10);
        assert!(most() < LIMIT, "{command:?}: {} KiB", most());
        done.code().unwrap()
    };
    for command in commands {
        let expected = i32::from(command[0] == "repair");
        if command[0] == "repair" {
            spoil(&spare, &layout);
        }
        assert_eq!(run(command), expected, "{command:?}");
        if command[0] == "list" {
            let bytes = fs::metadata(folder.path("stdout")).unwrap().len();
            assert!(bytes > u64::from(MAX_SPARE_BLOCKS) * 50, "only {bytes} bytes are listed");
        }
    }
    // And to a state that is chosen, a third of whose pages are there once.
    let at = lose_last_page(&spare, &layout);
    assert_eq!(run(&["repair", &path(&spare), "--at", &at]), 1);

    let output = File::open(&output).unwrap();
    let mut block = [0; BLOCK as usize];
    for (lba, value) in [(0, 1), (1, 0), (2 * u64::from(MAX_SPARE_BLOCKS) - 2, 2), (2, 0)] {
        output.read_exact_at(&mut block, lba * u64::from(BLOCK)).unwrap();
        assert_eq!(block, [value; BLOCK as usize], "block {lba}");
    }
    assert_eq!(output.metadata().unwrap().len(), base_bytes);
}
