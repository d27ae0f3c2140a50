//! Golden images: small spares in every state, as this version of the format writes them, kept for ever. Every later version
//! has to load them, or refuse them, as the files beside them say.
//!
//! `cargo test -p remap-sim --test engine golden -- --ignored` makes those that are missing; none is ever made anew.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::*;
use remap_core::format::{OtherSpare, SpareState};

/// What is known of an image.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    about: String,
    block_size: u32,
    /// Whether it is refused, and with which errno.
    refused: Option<i32>,
    /// What the table holds, as `bdev_remap_list` shows it.
    extents: Vec<serde_json::Value>,
    bad_spare_blocks: u64,
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../remap-core/tests/golden")
}

/// What a look without writing says that opening will come to.
fn foreseen(world: &World) -> Result<Vec<(BaseLba, Mapping)>, Error> {
    let (before, threads) = (world.spare.contents(), Threads::in_order(&world.executor));
    let spare = world.spare.clone();
    let previewed = world.executor.block_on(async move { preview(spare, threads, &params()).await }).unwrap();
    assert_eq!((world.spare.contents(), world.spare.writes()), (before, 0), "a look writes nothing");
    previewed.map(|preview| match preview {
        Preview::Format => Vec::new(),
        Preview::Set(set) => set.mappings.iter().collect(),
    })
}

/// What opening the image comes to.
fn look(about: &str, medium: Medium) -> Golden {
    let block_size = medium.block_size();
    let world = World::with(medium, true);
    let foreseen = foreseen(&world);
    let golden =
        |refused| Golden { about: about.into(), block_size, refused, extents: Vec::new(), bad_spare_blocks: 0 };
    match world.open_with(params()) {
        Err(error) => {
            assert_eq!(foreseen, Err(error.clone()));
            golden(Some(error.errno()))
        }
        Ok(host) => {
            assert_eq!(foreseen, Ok(mappings(&host.engine)));
            let (extents, rest) = host.engine.list(BaseLba(0), 1000);
            assert_eq!(rest, None);
            Golden {
                extents: extents.iter().map(|extent| serde_json::to_value(extent).unwrap()).collect(),
                bad_spare_blocks: host.engine.status().spare.bad,
                ..golden(None)
            }
        }
    }
}

pub(super) fn load(name: &str, block_size: u32) -> Medium {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(folder().join(name).with_extension("img.gz")).unwrap();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let mut medium = Medium::new(block_size, (bytes.len() / block_size as usize) as u64);
    for (at, block) in (0..).zip(bytes.chunks(block_size as usize)) {
        medium.set_block(at, block);
    }
    medium
}

#[test]
fn every_golden_image_is_loaded_or_refused_as_it_always_was() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let golden: Golden = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(look(&golden.about, load(&name, golden.block_size)), golden, "{name}");
        seen.push(name);
    }
    seen.sort();
    let mut made: Vec<_> = images().iter().map(|image| image.0.to_owned()).collect();
    made.sort();
    assert_eq!(seen, made, "every state has its image");
}

#[test]
#[ignore = "makes the images that are missing"]
fn make_those_that_are_missing() {
    std::fs::create_dir_all(folder()).unwrap();
    for (name, about, medium) in images() {
        let path = folder().join(name);
        if path.with_extension("json").exists() {
            continue;
        }
        let file = std::fs::File::create(path.with_extension("img.gz")).unwrap();
        let mut writer = GzEncoder::new(file, Compression::best());
        for at in 0..medium.geometry().blocks {
            writer.write_all(&medium.block(at)).unwrap();
        }
        writer.finish().unwrap();
        let golden = look(about, medium);
        std::fs::write(path.with_extension("json"), serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
    }
}

/// A spare with remapped and pending blocks and a bad spare block, in a checkpoint and behind it.
fn used(block_size: u32) -> (World, Vbdev) {
    let world = World::with(Medium::new(block_size, SPARE_BLOCKS * 4096 / u64::from(block_size).min(4096)), true);
    let data = |value: u8| vec![value; block_size as usize];
    world.bad_for_writes(0, 100);
    world.bad_for_reads(200, 5);
    let host = world.open();
    for at in [1, 2, 3, 10, 12] {
        world.write(&host, at, data(1)).unwrap();
    }
    assert!(world.read(&host, 200, 3).is_err());
    world.save(&host).unwrap();
    let Place::Spare(index) = host.engine.table().lookup(lba(2)) else { panic!("2 is remapped") };
    let bad = host.engine.layout().data(index).0;
    world.spare.fail(Fault::new(Verb::Write, bad..bad + 1, WRITE_FAULT));
    world.write(&host, 2, data(2)).unwrap();
    world.write(&host, 20, data(3)).unwrap();
    (world, host)
}

/// The same with both superblocks changed.
fn with_superblocks(change: impl Fn(&mut Superblock)) -> Medium {
    patched(used(BLOCK).0.spare.contents(), change)
}

/// The same with some bytes of both superblocks changed, under a right checksum.
fn with_bytes(at: usize, bytes: &[u8]) -> Medium {
    let mut medium = used(BLOCK).0.spare.contents();
    for place in [0, SPARE_BLOCKS - 1] {
        let mut block = medium.block(place);
        block[at..at + bytes.len()].copy_from_slice(bytes);
        block[8..12].fill(0);
        let crc = crc32c::crc32c(&block);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
        medium.set_block(place, &block);
    }
    medium
}

fn in_state(state: SpareState) -> Medium {
    with_superblocks(|superblock| {
        superblock.state = state;
        superblock.other = Some(OtherSpare { id: Uuid::from_u128(9), state: SpareState::Active });
    })
}

/// The used spare, changed by `change`, which gets the engine that was on it.
fn changed(change: impl FnOnce(&mut Medium, &SimEngine)) -> Medium {
    let (world, host) = used(BLOCK);
    let mut medium = world.spare.contents();
    change(&mut medium, &host.engine);
    medium
}

/// The used spare as if its last page had not been seen when it was opened, and could not be saved; then that page is in copy A.
fn ended() -> Medium {
    let (world, host) = used(BLOCK);
    let pages = Copy::BOTH.map(|copy| host.engine.layout().log_page(copy, Area::One, 2).0);
    let mut medium = world.spare.contents();
    let last = medium.block(pages[0]);
    pages.iter().for_each(|page| medium.clear(*page, 1));
    let world = world.after_crash(medium);
    log_cannot_be_written(&world, &host, Effect::Nothing);
    world.open();
    let mut medium = world.spare.contents();
    medium.set_block(pages[0], &last);
    medium
}

/// All images: name, what it is, and how it is made.
fn images() -> Vec<(&'static str, &'static str, Medium)> {
    let empty = World::new();
    empty.open();
    let closed = used(BLOCK);
    closed.0.close(&closed.1);
    let one_copy = used(BLOCK);
    let area_a = one_copy.1.engine.layout().log_page(Copy::A, Area::Zero, 0).0;
    let end_a = area_a + 2 * one_copy.1.engine.layout().area_blocks();
    one_copy.0.spare.fail(Fault::new(Verb::Write, area_a..end_a, WRITE_FAULT));
    for at in 30..33 {
        one_copy.0.write(&one_copy.1, at, filled(at)).unwrap();
    }
    let saved = used(BLOCK);
    let before = saved.0.spare.contents();
    saved.0.save(&saved.1).unwrap();
    let after = saved.0.spare.contents();
    let layout = saved.1.engine.layout();
    let mut unfinished = before.clone();
    let first = layout.log_page(Copy::A, Area::Zero, 0).0;
    unfinished.set_block(first, &after.block(first));
    let full = used(BLOCK);
    for at in 30..92 {
        full.0.write(&full.1, at, filled(at)).unwrap();
    }
    let lost = changed(|medium, engine| {
        // As a migration that could not read a block writes it.
        let record =
            Record::Lost { lba: lba(60), spare: remap_core::SpareBlock::new(Slot::FIRST, 40).unwrap(), count: 2 };
        change_page(medium, engine, Area::One, 1, |records| records.iter().copied().chain([record]).collect());
    });
    let torn = changed(|medium, engine| {
        let place = engine.layout().log_page(Copy::A, Area::One, 3).0;
        let mut half = medium.block(engine.layout().log_page(Copy::A, Area::One, 2).0);
        half[100..].fill(0);
        medium.set_block(place, &half);
    });
    let gone = |copies: &'static [Copy]| {
        changed(move |medium, engine| {
            copies.iter().for_each(|copy| medium.clear(engine.layout().log_page(*copy, Area::One, 0).0, 1));
        })
    };
    vec![
        ("empty", "formatted, and nothing else", empty.spare.contents()),
        ("used", "remapped, pending, and a bad spare block", used(BLOCK).0.spare.contents()),
        ("used-512", "the same with blocks of 512 bytes", used(512).0.spare.contents()),
        ("used-520", "the same with blocks of 520 bytes", used(520).0.spare.contents()),
        ("used-8192", "the same with blocks of 8192 bytes", used(8192).0.spare.contents()),
        ("lost", "with lost blocks", lost),
        ("closed", "after a clean close", closed.0.spare.contents()),
        ("full-area", "after commits that filled an area", full.0.spare.contents()),
        ("torn-page", "a crash tore the last page of copy A", torn),
        ("unfinished-checkpoint", "a crash stopped a checkpoint", unfinished),
        ("one-copy", "copy A of the log misses commits, which are noted", one_copy.0.spare.contents()),
        ("ended", "opened and not saved: a page behind the end of the log does not count", ended()),
        ("damaged-copy", "page 0 is gone from copy A", gone(&[Copy::A])),
        ("damaged", "page 0 is gone from both copies", gone(&Copy::BOTH)),
        (
            "erased",
            "both superblocks are gone",
            changed(|medium, _| {
                medium.clear(0, 1);
                medium.clear(SPARE_BLOCKS - 1, 1);
            }),
        ),
        ("migrating-in", "being filled from another spare", in_state(SpareState::MigratingIn)),
        ("migrating-out", "copied to another spare", in_state(SpareState::MigratingOut)),
        ("retired", "another spare has taken over", in_state(SpareState::Retired)),
        ("after-migration", "the other spare of the set is retired", {
            with_superblocks(|superblock| {
                superblock.other = Some(OtherSpare { id: Uuid::from_u128(9), state: SpareState::Retired });
            })
        }),
        ("other-host", "of some host", with_superblocks(|superblock| superblock.host_id = Uuid::from_u128(77))),
        ("compatible", "with an unknown compatible feature", with_bytes(32, &[0x40])),
        ("read-only-compatible", "with an unknown feature of those needed to write", with_bytes(24, &[1])),
        ("incompatible", "with an unknown feature of those needed to read", with_bytes(16, &[1])),
        ("scrubbing", "a scrub has not ended", {
            let at = remap_core::format::ScrubPosition { next: lba(7), end: lba(1000), max_mbps: 50 };
            with_superblocks(move |superblock| superblock.scrub = Some(at))
        }),
        ("version-2", "of a later version", with_bytes(12, &[2])),
    ]
}
