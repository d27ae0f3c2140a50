//! Whatever is in a file, and whatever the file is: a sentence and an exit code, never a panic, and never a change.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use common::{Folder, Loop, golden, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remapctl::Verdict;
use remapctl::cli::Options;

/// Runs the commands on `path` in this process, where a panic is a failure of the test: all that look at a spare.
fn look(path: &Path, base: &Path, output: &Path) -> Vec<Result<Verdict, u8>> {
    let path = path.to_str().unwrap();
    for file in [output, &output.with_extension("map")] {
        _ = fs::remove_file(file);
    }
    let commands: [&[&str]; 7] = [
        &["inspect"],
        &["inspect", "--json"],
        &["check"],
        &["list", "--format", "ddrescue"],
        &["map", "--format", "svg"],
        &["map", "--format", "html"],
        &["repair"],
    ];
    let mut all: Vec<Vec<&str>> = commands.iter().map(|command| [command, &[path][..]].concat()).collect();
    let (base, output) = (base.to_str().unwrap(), output.to_str().unwrap());
    all.push(vec!["recover", "--base", base, "--spare", path, "--output", output]);
    all.push(vec!["repair", path, "--at", "1:7"]);
    // And as a base, which has no format of its own; any spare that is one will do.
    all.push(vec!["check", path, "--base", path, "--json"]);
    all.iter()
        .map(|args| {
            let options = Options::try_parse_from(["remapctl"].iter().chain(args)).unwrap();
            let result = remapctl::run(&options.command, &mut Vec::new(), &AtomicBool::new(false));
            result.map_err(|error| {
                assert!(error.to_string().contains(path), "{error}");
                error.code()
            })
        })
        .collect()
}

fn codes(found: &[Result<Verdict, u8>]) -> Vec<u8> {
    found.iter().map(|result| result.map_or_else(|code| code, Verdict::code)).collect()
}

/// Changes something in an image, as damage does, or somebody who makes checksums right afterwards.
fn spoil(image: &mut Vec<u8>, random: &mut SmallRng) {
    let pages = image.len() / 4096;
    // Mostly where there is something.
    let page = match random.random_range(0..6) {
        0 => 0,
        1 => pages - 1,
        2 => random.random_range(0..pages),
        _ => [1, 66, pages - 131, pages - 66][random.random_range(0..4)] + random.random_range(0..8),
    };
    let at = page * 4096;
    match random.random_range(0..8) {
        0 => image.truncate(random.random_range(0..=image.len())),
        1 => image.resize(image.len() + random.random_range(0..100_000), 0),
        2 => image[at..at + 4096].fill(0),
        3 => {
            let from = random.random_range(0..pages) * 4096;
            image.copy_within(from..from + 4096, at);
        }
        kind => {
            for _ in 0..random.random_range(1..4) {
                let offset = at + random.random_range(0..if kind > 5 { 512 } else { 4096 });
                image[offset] = random.random();
            }
            image[at + 8..at + 12].fill(0);
            let crc = crc32c::crc32c(&image[at..at + 4096]);
            image[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[test]
fn spoiled_images_are_judged_and_never_changed() {
    let folder = Folder::new();
    let base = folder.file("base", &vec![1; 300 * 4096]);
    let images = ["used", "full-area", "one-copy", "lost"].map(golden);
    let (mut ends, output) = ([0; 3], folder.path("output"));
    for seed in 0..150 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut image = images[random.random_range(0..images.len())].clone();
        for _ in 0..random.random_range(1..4) {
            // Pages are where they were as long as nothing is cut off.
            if image.len() >= images[0].len() {
                spoil(&mut image, &mut random);
            }
        }
        let path = folder.file("spoiled", &image);
        let found = look(&path, &base, &output);
        let codes = codes(&found);
        assert!(codes.iter().all(|code| *code <= 2), "seed {seed}: {codes:?}");
        assert_eq!(codes[0], codes[1], "seed {seed}");
        // What would not be loaded is neither listed, drawn nor recovered, and what would be is.
        assert!(codes[3..6].iter().all(|code| (*code == 2) == (codes[2] == 2)), "seed {seed}: {codes:?}");
        // What is loaded is repaired, or has something that only loading it settles.
        assert!(codes[6] == 2 || codes[6] == codes[2] || codes[6] == 1, "seed {seed}: {codes:?}");
        assert!(codes[2] != 2 || codes[6] == 2, "seed {seed}: {codes:?}");
        ends[usize::from(codes[2])] += 1;
        assert!(fs::read(&path).unwrap() == image, "seed {seed}: it was changed");
    }
    assert!(ends.iter().all(|count| *count > 10), "{ends:?}");
}

#[test]
fn files_that_are_no_spare_are_named_with_what_to_do() {
    let folder = Folder::new();
    let socket = folder.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    for (path, code, says) in [
        (folder.path("nowhere"), 8, "cannot be opened"),
        (folder.path("folder"), 8, "neither a file nor a block device"),
        (socket, 8, "neither a file nor a block device"),
        ("/dev/zero".into(), 8, "neither a file nor a block device"),
        (folder.file("nothing", &[]), 2, "too small"),
        (folder.file("small", &[7; 100]), 2, "too small"),
        (folder.file("text", &b"some text\n".repeat(900_000)), 2, "holds data that is not ours"),
    ] {
        for command in ["inspect", "check", "list", "map", "repair"] {
            let done = run(command, &path, &[]);
            let said = format!("{}{}", done.out, done.err);
            assert_eq!(done.code, code, "{command} {}: {said}", path.display());
            assert!(said.contains(path.to_str().unwrap()), "{command}: {said}");
            assert!(command == "inspect" || said.contains(says), "{command} {}: {said}", path.display());
        }
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_judged_and_not_changed() {
    let folder = Folder::new();
    let base = folder.file("base", &vec![1; 300 * 4096]);
    for name in ["used", "damaged", "used-512"] {
        let image = golden(name);
        let len = image.len();
        let ends = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 67 * 4096, len / 2, len / 2 + 100];
        for end in ends.into_iter().chain([1, 100, 512, 4096, 5000].map(|less| len - less)) {
            let path = folder.file("cut", &image[..end]);
            let codes = codes(&look(&path, &base, &folder.path("output")));
            assert!(codes.iter().all(|code| *code <= 2), "{name}, {end}: {codes:?}");
            // Its end is missing, which a superblock at its start tells.
            assert!(end < 4096 || codes[2] == 2, "{name}, {end}: {codes:?}");
            assert!(fs::read(&path).unwrap() == image[..end], "{name}, {end}: it was changed");
        }
    }
}

#[test]
fn what_cannot_be_read_is_bad_or_told_by_every_command() {
    let folder = Folder::new();
    let (base, output) = (folder.file("base", &vec![1; 300 * 4096]), folder.path("output"));
    let image = golden("used");
    let file = folder.file("spare", &image);
    let Some(device) = Loop::on(&file) else {
        println!("skipped: loop devices need root");
        return;
    };
    // From there on, the device has nothing to read from: all but superblock A, half the log, copy B, superblock B.
    let mut ends = BTreeSet::new();
    for blocks in [0, 1, 3, 66, 68, 131, 265, 268, 335, 399] {
        File::options().write(true).open(&file).unwrap().set_len(blocks * 4096).unwrap();
        let codes = codes(&look(&device.0, &base, &output));
        assert!(codes.iter().all(|code| *code <= 2 || *code == 8), "{blocks} blocks: {codes:?}");
        // One copy is enough, where it can be read.
        assert!(blocks < 335 || codes[2] == 1, "{blocks} blocks: {codes:?}");
        ends.insert(codes[2]);
        assert!(fs::read(&file).unwrap() == image[..blocks as usize * 4096], "{blocks} blocks: it was changed");
        fs::write(&file, &image).unwrap();
    }
    assert!(ends.contains(&1) && ends.contains(&2), "{ends:?}");
}

/// Says that all is over when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The file is cut off, replaced, removed and there again, all while it is looked at.
#[test]
fn a_file_that_vanishes_meanwhile_ends_no_command_in_a_panic() {
    let folder = Folder::new();
    let (base, output) = (folder.file("base", &vec![1; 300 * 4096]), folder.path("output"));
    let image = golden("full-area");
    let path = folder.file("vanishing", &image);
    let (away, over) = (folder.path("away"), AtomicBool::new(false));
    let mut ends = BTreeSet::new();
    std::thread::scope(|scope| {
        // Also where an assertion fails: the scope ends when its threads do.
        let _over = Over(&over);
        scope.spawn(|| {
            let mut random = SmallRng::seed_from_u64(11);
            while !over.load(Ordering::Relaxed) {
                match random.random_range(0..4) {
                    0 => _ = fs::rename(&path, &away).and_then(|()| fs::rename(&away, &path)),
                    1 => _ = fs::remove_file(&path).and_then(|()| fs::write(&path, &image)),
                    2 => _ = File::create(&path),
                    _ => fs::write(&path, &image).unwrap(),
                }
                // So that some of a command gets through.
                std::thread::sleep(Duration::from_micros(random.random_range(0..3000)));
            }
        });
        // Each of the commands takes some seconds where the file has gone: it may be a device that comes back.
        for round in 0..60 {
            let codes = codes(&look(&path, &base, &output));
            assert!(codes.iter().all(|code| *code <= 2 || *code == 8), "{codes:?}");
            ends.extend(codes);
            if round >= 2 && ends.contains(&8) && ends.contains(&0) {
                break;
            }
        }
    });
    // Some found it, and some did not.
    assert!(ends.contains(&8) && ends.contains(&0), "{ends:?}");
}

#[test]
fn a_huge_file_is_no_more_work_than_what_is_in_it() {
    let folder = Folder::new();
    let (base, output) = (folder.file("base", &vec![1; 300 * 4096]), folder.path("output"));
    // Of the greatest size that there can be, or nearly so.
    let path = folder.path("huge");
    let file = File::create(&path).unwrap();
    let size = [1_u64 << 62, 1 << 50, 1 << 43].into_iter().find(|size| file.set_len(*size).is_ok()).unwrap();
    assert_eq!(run("check", &path, &[]).code, 0, "{size} bytes of nothing are an empty spare");
    let found = codes(&look(&path, &base, &output));
    assert!(found.iter().all(|code| *code == 0 || *code == 2), "{found:?}");
    // A spare that has grown to it.
    fs::write(&path, golden("closed")).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
    let check = run("check", &path, &[]);
    assert!(check.code <= 1 && check.out.contains("6 remapped"), "{}", check.out);
    let found = codes(&look(&path, &base, &output));
    assert!(found[..8].iter().all(|code| *code <= 1), "{found:?}");
    assert_eq!(file.metadata().unwrap().len(), size);
}

#[test]
fn who_else_has_it_open_is_said() {
    let folder = Folder::new();
    let path = folder.golden("closed");
    assert_eq!(run("check", &path, &[]).err, "");
    let _open = File::open(&path).unwrap();
    let check = run("check", &path, &[]);
    assert_eq!(check.code, 0);
    assert!(check.err.contains(&format!("it is open in process {}", std::process::id())), "{}", check.err);
}

#[test]
fn nobody_who_stops_reading_is_told_of_it() {
    let folder = Folder::new();
    let path = folder.golden("full-area");
    let mut child = common::remapctl(["list", path.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = common::Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (0, ""));
}
