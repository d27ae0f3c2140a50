//! Whatever is in a file, and whatever the file is: a sentence and an exit code, never a panic, and never a change.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use common::{Folder, golden, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remapctl::Verdict;
use remapctl::cli::Options;

/// Runs the commands on `path` in this process, where a panic is a failure of the test.
fn look(path: &Path, base: &Path, output: &Path) -> Vec<Result<Verdict, u8>> {
    let path = path.to_str().unwrap();
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
    let (mut ends, output, map) = ([0; 3], folder.path("output"), folder.path("output.map"));
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
        let code = |result: &Result<Verdict, u8>| result.map_or_else(|code| code, Verdict::code);
        let codes: Vec<_> = found.iter().map(code).collect();
        assert!(codes.iter().all(|code| *code <= 2), "seed {seed}: {codes:?}");
        assert_eq!(codes[0], codes[1], "seed {seed}");
        // What would not be loaded is neither listed, drawn nor recovered, and what would be is.
        assert!(codes[3..6].iter().all(|code| (*code == 2) == (codes[2] == 2)), "seed {seed}: {codes:?}");
        // What is loaded is repaired, or has something that only loading it settles.
        assert!(codes[6] == 2 || codes[6] == codes[2] || codes[6] == 1, "seed {seed}: {codes:?}");
        assert!(codes[2] != 2 || codes[6] == 2, "seed {seed}: {codes:?}");
        ends[usize::from(codes[2])] += 1;
        assert!(fs::read(&path).unwrap() == image, "seed {seed}: it was changed");
        _ = fs::remove_file(&output);
        _ = fs::remove_file(&map);
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
fn a_huge_file_is_no_more_work_than_what_is_in_it() {
    let folder = Folder::new();
    // Of the greatest size that there can be, or nearly so.
    let path = folder.path("huge");
    let file = File::create(&path).unwrap();
    let size = [1_u64 << 62, 1 << 50, 1 << 43].into_iter().find(|size| file.set_len(*size).is_ok()).unwrap();
    assert_eq!(run("check", &path, &[]).code, 0, "{size} bytes of nothing are an empty spare");
    // A spare that has grown to it.
    fs::write(&path, golden("closed")).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
    let check = run("check", &path, &[]);
    assert!(check.code <= 1 && check.out.contains("6 remapped"), "{}", check.out);
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
