//! Whatever of an undo is done, the set is as the repair might have left it: loaded as before, or refused, or in the state that was chosen.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use flate2::read::GzDecoder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remap_core::engine::Preview;
use remap_core::format::{Area, Copy};
use remap_core::{Epoch, Mapping, Sequence, StatedEnd};
use tempfile::TempDir;

use super::file::{NOT_READ, PAGE_HEADER};
use super::*;
use crate::cli::Options;
use crate::spare::Base;

const PAGE: usize = 4096;

/// A spare, an undo file of it, and where its pages are.
struct Image {
    folder: TempDir,
    layout: Layout,
}

/// What a set is loaded as: epoch, sequence, and what is mapped; nothing if it is refused.
type Seen = Option<(u64, u64, Vec<(u64, Mapping)>)>;

impl Image {
    fn new(golden: &str) -> Image {
        let folder = tempfile::tempdir().unwrap();
        let golden = format!("{}/../remap-core/tests/golden/{golden}.img.gz", env!("CARGO_MANIFEST_DIR"));
        let path = folder.path().join("spare.img");
        io::copy(&mut GzDecoder::new(File::open(golden).unwrap()), &mut File::create(&path).unwrap()).unwrap();
        let layout = Spare::open(&path, None).unwrap().superblock.unwrap().layout;
        Image { folder, layout }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("spare.img")
    }

    fn undo(&self) -> PathBuf {
        self.folder.path().join("undo")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// Makes a page bad, in each of these copies.
    fn spoil(&self, copies: &[Copy], place: impl Fn(Copy) -> SpareLba) {
        let mut bytes = self.bytes();
        for copy in copies {
            let at = place(*copy).0 as usize * PAGE;
            bytes[at + 300] ^= 1;
        }
        fs::write(self.path(), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Result<Verdict, Error> {
        let path = self.path();
        let args = ["remapctl", "repair", path.to_str().unwrap(), "--yes"].into_iter().chain(args.iter().copied());
        let options = Options::try_parse_from(args).unwrap();
        crate::run(&options.command, &mut Vec::new(), &AtomicBool::new(false))
    }

    fn repair(&self, at: Option<&str>) {
        let undo = self.undo();
        let at = at.into_iter().flat_map(|at| ["--at", at]);
        let args: Vec<_> = ["--undo", undo.to_str().unwrap()].into_iter().chain(at).collect();
        assert_eq!(self.run(&args).unwrap(), Verdict::Sound);
    }

    fn back(&self) {
        self.run(&["--undo-from", self.undo().to_str().unwrap()]).unwrap();
    }

    fn seen(&self, at: Option<StatedEnd>) -> Seen {
        let Ok(Preview::Set(set)) = Spare::open(&self.path(), None).unwrap().preview(Base::default(), at) else {
            return None;
        };
        let mappings = set.mappings.iter().map(|(lba, to)| (lba.0, to)).collect();
        Some((set.epoch.get(), set.sequence.get(), mappings))
    }
}

/// Makes the file say that what was there of these pages could not be read, as if the disk had not yielded it.
fn not_read(undo: &Path, places: &[u64]) {
    let header = Pages::open(undo).unwrap().header;
    let mut bytes = fs::read(undo).unwrap();
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let all = bytes.len() - 4;
    for page in bytes[line..all].chunks_mut(PAGE_HEADER as usize + header.page_bytes as usize) {
        if places.contains(&u64::from_le_bytes(page[..8].try_into().unwrap())) {
            page[12] |= NOT_READ as u8;
            page[16..].fill(0);
        }
    }
    let crc = crc32c::crc32c(&bytes[..all]).to_le_bytes();
    bytes[all..].copy_from_slice(&crc);
    fs::write(undo, bytes).unwrap();
}

/// A set that is refused as its last page is bad in both copies; superblock A cannot be read. The first page of area 1 is in one copy only.
fn refused() -> (Image, Vec<u64>) {
    let image = Image::new("used");
    let layout = image.layout;
    image.spoil(&Copy::BOTH, |copy| layout.log_page(copy, Area::One, 2));
    image.spoil(&[Copy::B], |copy| layout.log_page(copy, Area::One, 0));
    image.spoil(&[Copy::A], |copy| layout.superblock(copy));
    let unreadable = vec![layout.superblock(Copy::A).0, layout.log_page(Copy::A, Area::One, 2).0];
    (image, unreadable)
}

#[test]
fn what_could_not_be_read_is_bad_again_and_the_set_refused_as_before() {
    let (image, unreadable) = refused();
    let before = image.bytes();
    assert_eq!(image.seen(None), None);
    image.repair(Some("1:7"));
    assert_eq!(image.seen(None).unwrap().0, 1);
    not_read(&image.undo(), &unreadable);
    image.back();
    assert_eq!(image.seen(None), None);
    // All else is as it was.
    let now = image.bytes();
    let pages = now.chunks(PAGE).zip(before.chunks(PAGE));
    let differ: Vec<u64> = (0..).zip(pages).filter(|(_, (now, before))| now != before).map(|(at, _)| at).collect();
    assert_eq!(differ, unreadable);
}

/// What an undo writes, in the order in which it does; each part is durable before the next one.
fn steps_back(undo: &Path) -> Vec<Vec<(usize, Vec<u8>)>> {
    let steps = RefCell::new(vec![Vec::new()]);
    let write = |at: SpareLba, page: &[u8]| {
        steps.borrow_mut().last_mut().unwrap().push((at.0 as usize * PAGE, page.to_vec()));
        Ok(())
    };
    let sync = || {
        steps.borrow_mut().push(Vec::new());
        Ok(())
    };
    put_back(&mut Pages::open(undo).unwrap(), write, sync).unwrap();
    let mut steps = steps.into_inner();
    assert_eq!(steps.pop(), Some(Vec::new()), "all of it is durable at the end");
    steps
}

/// Undoes a repair with all that a crash may leave of it: any part of a step, each page torn. Of a set that was refused, `at` is the state that
/// was chosen; of another one all leaves it as it was.
fn undone_in_steps(image: &Image, unreadable: &[u64], at: Option<&str>) {
    let before = image.seen(None);
    image.repair(at);
    let after = image.seen(None);
    assert!(after.is_some() && (at.is_some() || before == after));
    not_read(&image.undo(), unreadable);
    let stated = at.map(|_| {
        let (epoch, sequence, _) = after.as_ref().unwrap();
        StatedEnd { epoch: Epoch::new(*epoch).unwrap(), sequence: Sequence::new(*sequence).unwrap() }
    });
    let mut now = image.bytes();
    let check = |bytes: &[u8], what: &str| {
        fs::write(image.path(), bytes).unwrap();
        let seen = image.seen(None);
        assert!(seen == after || (seen.is_none() && before.is_none()), "{what}: {seen:?}");
        assert_eq!(image.seen(stated), after, "{what}: it can be chosen no more");
    };
    let mut random = SmallRng::seed_from_u64(3);
    let steps = steps_back(&image.undo());
    assert!(steps.len() > 2);
    for step in steps {
        for _ in 0..16 {
            let mut part = now.clone();
            let done = step.iter().filter(|_| random.random());
            done.for_each(|(at, page)| part[*at..at + PAGE].copy_from_slice(page));
            check(&part, "a part of a step");
        }
        for (at, page) in step {
            for bytes in [512, PAGE] {
                now[at..at + bytes].copy_from_slice(&page[..bytes]);
                check(&now, &format!("{bytes} bytes at {at}"));
            }
        }
    }
    assert_eq!(image.seen(None), before);
}

#[test]
fn whatever_of_an_undo_is_done_the_set_is_as_the_repair_might_have_left_it() {
    let (image, unreadable) = refused();
    undone_in_steps(&image, &unreadable, Some("1:7"));
    undone_in_steps(&refused().0, &[], Some("1:7"));
    undone_in_steps(&refused().0, &[], Some("2:9"));
    undone_in_steps(&Image::new("damaged"), &[], Some("1:7"));

    // Of each copy something is bad, and one superblock.
    let image = Image::new("used");
    let layout = image.layout;
    for page in [0, 2, 5] {
        image.spoil(&[Copy::A], |copy| layout.log_page(copy, Area::Zero, page));
        image.spoil(&[Copy::B], |copy| layout.log_page(copy, Area::One, page));
    }
    image.spoil(&[Copy::A], |copy| layout.log_page(copy, Area::One, 1));
    image.spoil(&[Copy::B], |copy| layout.superblock(copy));
    undone_in_steps(&image, &[layout.superblock(Copy::B).0, layout.log_page(Copy::A, Area::One, 1).0], None);
}
