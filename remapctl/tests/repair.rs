//! What is damaged in one copy is written from the other, and back again byte for byte; whatever comes in between, the set is loaded as
//! before; and nothing is written without being asked for, to a spare that is in use, or where nobody knows what is right.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Done, Folder, Loop, golden, golden_names, known, remapctl, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// Where the metadata of an image is, in bytes.
struct Places {
    page: usize,
    area: usize,
    superblocks: [usize; 2],
    logs: [usize; 2],
}

impl Places {
    fn of(image: &Path) -> Places {
        let set = run("inspect", image, &["--json"]).json()["set"].clone();
        let number = |name: &str| usize::try_from(set[name].as_u64().unwrap()).unwrap();
        let (page, pages) = (number("page_bytes"), number("area_pages"));
        let area = page * pages;
        let superblock_b = (fs::metadata(image).unwrap().len() as usize / page - 1) * page;
        Places { page, area, superblocks: [0, superblock_b], logs: [page, superblock_b - 2 * area] }
    }

    fn log(&self, copy: usize, area: usize, page: usize) -> usize {
        self.logs[copy] + area * self.area + page * self.page
    }

    /// One of each kind of page, in both copies.
    fn all(&self) -> Vec<usize> {
        let pages = [0, 1, 2, 5].map(|page| [(0, page), (1, page)]).concat();
        let logs = pages.iter().flat_map(|(area, page)| [0, 1].map(|copy| self.log(copy, *area, *page)));
        self.superblocks.into_iter().chain(logs).collect()
    }
}

fn spoil(image: &mut [u8], at: usize, page: usize, kind: usize) {
    match kind {
        0 => image[at..at + page].fill(0),
        1 => image[at + 300] ^= 0x10,
        _ => image[at..at + page].fill(0xa7),
    }
}

/// An image, in a folder of its own.
struct Image {
    folder: Folder,
    path: PathBuf,
}

impl Image {
    fn new(bytes: &[u8]) -> Image {
        let folder = Folder::new();
        let path = folder.file("spare.img", bytes);
        Image { folder, path }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn undo(&self) -> String {
        self.folder.path("undo").to_str().unwrap().to_owned()
    }

    fn repair(&self) -> Done {
        self.alone(&["--yes", "--undo", &self.undo()])
    }

    fn back(&self) -> Done {
        self.alone(&["--yes", "--undo-from", &self.undo()])
    }

    /// Repairs when nobody else has the image open: a process that another test has just begun has, for a moment, what was open in this one.
    fn alone(&self, args: &[&str]) -> Done {
        let mut attempts = (0..100).map(|_| run("repair", &self.path, args));
        attempts.find(|done| !done.err.contains(": it is open in process")).unwrap()
    }

    /// Exit code of `check`, and what `list` says.
    fn seen(&self) -> (i32, String) {
        let list = run("list", &self.path, &["--format", "json"]);
        assert!(list.code == 0 || list.out.is_empty());
        (run("check", &self.path, &[]).code, list.out)
    }
}

#[test]
fn one_copy_is_written_from_the_other_and_back_again_byte_for_byte() {
    let (mut repaired, mut refused) = (0, 0);
    for (number, name) in golden_names().iter().enumerate() {
        let image = Image::new(&golden(name));
        if !known(name)["refused"].is_null() {
            let done = image.repair();
            assert_eq!(done.code, 2, "{name}: {}", done.err);
            assert!(image.bytes() == golden(name), "{name} was changed");
            continue;
        }
        let places = Places::of(&image.path);
        // Every other one: the next image has the others.
        for (kind, at) in places.all().into_iter().enumerate().filter(|(kind, _)| (kind / 2 + number) % 2 == 0) {
            let mut spoiled = golden(name);
            spoil(&mut spoiled, at, places.page, (kind + number) % 3);
            fs::write(&image.path, &spoiled).unwrap();
            let what = format!("{name}, byte {at}");
            let (_, list) = image.seen();
            let shown = run("repair", &image.path, &["--json"]);
            assert!(image.bytes() == spoiled, "{what}: changed without being asked for");
            if list.is_empty() {
                refused += 1;
                assert_eq!((shown.code, image.repair().code), (2, 2), "{what}");
                assert!(image.bytes() == spoiled, "{what}: changed");
                continue;
            }
            let done = image.repair();
            assert_eq!(done.code, 0, "{what}: {}", done.err);
            assert_eq!(image.seen(), (0, list), "{what}");
            assert_eq!(run("repair", &image.path, &[]).code, 0, "{what}: there is nothing more");
            if shown.json()["pages"].as_array().unwrap().is_empty() {
                // What is behind the end was never written.
                assert_eq!((shown.code, image.bytes() == spoiled), (0, true), "{what}");
                continue;
            }
            repaired += 1;
            assert_eq!(shown.code, 1, "{what}");
            assert_eq!(run("repair", &image.path, &["--undo-from", &image.undo()]).code, 0, "{what}");
            let back = image.back();
            assert_eq!(back.code, 0, "{what}: {}", back.err);
            assert!(image.bytes() == spoiled, "{what}: not as it was");
            fs::remove_file(image.undo()).unwrap();
        }
    }
    assert!(repaired > 100 && refused > 0, "{repaired} repaired, {refused} refused");
}

/// An image of which both copies have bad pages, other ones, and a superblock.
fn scattered() -> Vec<u8> {
    let image = Image::new(&golden("full-area"));
    let places = Places::of(&image.path);
    let mut bytes = image.bytes();
    spoil(&mut bytes, places.superblocks[0], places.page, 2);
    for page in [0, 3, 4, 9] {
        for copy in [0, 1] {
            spoil(&mut bytes, places.log(copy, 0, page + copy), places.page, page % 3);
            spoil(&mut bytes, places.log(copy, 1, page + 2 * copy), places.page, 1);
        }
    }
    bytes
}

#[test]
fn any_part_of_a_repair_leaves_a_set_that_is_loaded_as_before_and_can_be_gone_on_with_or_undone() {
    let before = scattered();
    let image = Image::new(&before);
    let (code, list) = image.seen();
    assert_eq!(code, 1);
    let plan = run("repair", &image.path, &["--json"]).json();
    let page = Places::of(&image.path).page;
    assert_eq!(image.repair().code, 0);
    let (after, undo) = (image.bytes(), fs::read(image.undo()).unwrap());
    let pages: Vec<usize> =
        plan["pages"].as_array().unwrap().iter().map(|page| page["lba"].as_u64().unwrap() as usize * 4096).collect();
    assert!(pages.len() > 10, "{plan}");
    let mut half = before.clone();
    for at in &pages {
        for torn in [512, page] {
            half[*at..at + torn].copy_from_slice(&after[*at..at + torn]);
            fs::write(&image.path, &half).unwrap();
            let (code, seen) = image.seen();
            assert!(code < 2 && seen == list, "byte {at}, {torn}");
        }
        assert_eq!(image.back().code, 0, "byte {at}");
        assert!(image.bytes() == before, "byte {at}");
        fs::write(&image.path, &half).unwrap();
        let other = image.folder.path("other");
        let done = image.alone(&["--yes", "--undo", other.to_str().unwrap()]);
        assert_eq!(done.code, 0, "byte {at}: {}", done.err);
        assert!(image.bytes() == after, "byte {at}");
        _ = fs::remove_file(other);
    }
    assert!(half == after && fs::read(image.undo()).unwrap() == undo);
}

#[test]
fn killed_at_any_moment_it_leaves_what_can_be_loaded_and_undone() {
    // A whole copy, so that it takes a while.
    let mut before = golden("full-area");
    let places = Places::of(&Image::new(&before).path);
    let log = places.logs[1];
    before[log..log + 2 * places.area].fill(0x55);
    let mut random = SmallRng::seed_from_u64(7);
    let (mut half, mut rounds) = (0, 0);
    while (half < 3 && rounds < 400) || rounds < 20 {
        rounds += 1;
        let image = Image::new(&before);
        let (_, list) = image.seen();
        let mut repair = remapctl(["repair", image.path.to_str().unwrap(), "--yes", "--undo", &image.undo()]);
        let mut child = repair.stdout(Stdio::null()).spawn().unwrap();
        while !Path::new(&image.undo()).exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // Mostly much shorter than the longest, as how long it takes depends on the machine.
        let longest = 30_000_u64 >> random.random_range(0..10);
        std::thread::sleep(Duration::from_micros(random.random_range(0..longest)));
        child.kill().unwrap();
        let ended = child.wait().unwrap().success();
        let now = image.bytes();
        let (code, seen) = image.seen();
        assert!(code < 2 && seen == list, "round {rounds}");
        half += u32::from(!ended && now != before);
        if now != before {
            assert_eq!(image.back().code, 0, "round {rounds}");
            assert!(image.bytes() == before, "round {rounds}");
        }
    }
    assert!(half >= 3, "{half} of {rounds} were killed in the midst of it");
}

#[test]
fn a_spare_that_is_in_use_or_without_an_undo_file_is_not_written_to() {
    let before = scattered();
    let image = Image::new(&before);
    let opened = File::open(&image.path).unwrap();
    let done = run("repair", &image.path, &["--yes", "--undo", &image.undo()]);
    assert_eq!(done.code, 8, "{}", done.out);
    assert!(done.err.contains(&format!("it is open in process {}", std::process::id())), "{}", done.err);
    drop(opened);
    for undo in [image.folder.path("nowhere/undo"), image.path.clone()] {
        let done = image.alone(&["--yes", "--undo", undo.to_str().unwrap()]);
        assert_eq!(done.code, 8, "{}", done.out);
        assert!(done.err.contains("nothing was written to the spare"), "{}", done.err);
    }
    assert!(image.bytes() == before);
    // Without a name it is beside whoever gives the command.
    let folder = image.folder.path("");
    let named = remapctl(["repair", "spare.img", "--yes"]).current_dir(&folder).output().unwrap();
    assert_eq!(Done::of(named).code, 0);
    assert!(image.folder.path("spare.img.undo").exists());
}

/// A file system at the start of a spare of which copy B is whole: the kernel has it, and no process.
#[test]
fn a_device_that_is_mounted_is_not_written_to() {
    let image = Image::new(&golden("used"));
    let Some(device) = Loop::on(&image.path) else {
        println!("skipped: loop devices need root");
        return;
    };
    let folder = image.folder.path("mounted");
    fs::create_dir(&folder).unwrap();
    let does = |command: &str, args: &[&str], path: &Path| {
        let mut command = Command::new(command);
        command.args(args).arg(&device.0).args(Some(path).filter(|path| !path.as_os_str().is_empty()));
        command.status().is_ok_and(|status| status.success())
    };
    assert!(does("mkfs.ext2", &["-q", "-F", "-b", "1024"], Path::new("256")), "mkfs.ext2 of e2fsprogs");
    let repair = || run("repair", &device.0, &["--yes", "--undo", &image.undo()]);
    if !does("mount", &["-o", "ro"], &folder) {
        println!("skipped: nothing can be mounted here");
        return;
    }
    let before = image.bytes();
    let (look, done) = (run("check", &device.0, &[]), repair());
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    assert!(look.code == 1 && look.err.contains("it is mounted"), "{}: {}{}", look.code, look.out, look.err);
    assert!(done.code == 8 && done.err.contains("it is mounted"), "{}: {}", done.code, done.err);
    assert!(image.bytes() == before && !Path::new(&image.undo()).exists());
    // And its file is attached, whoever asks.
    let done = run("repair", &image.path, &["--yes", "--undo", &image.undo()]);
    assert!(done.code == 8 && done.err.contains("attached to the loop device"), "{}: {}", done.code, done.err);
    // When it is not mounted any more, it is repaired.
    let done = (0..100).map(|_| repair()).find(|done| !done.err.contains(": it is open in process")).unwrap();
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(run("check", &device.0, &[]).code, 0);
}

#[test]
fn an_undo_file_is_for_the_spare_that_it_is_of_as_the_repair_left_it() {
    let before = scattered();
    let image = Image::new(&before);
    assert_eq!(image.repair().code, 0);
    let (after, undo) = (image.bytes(), fs::read(image.undo()).unwrap());
    let refused = |spare: &[u8], undo: &[u8], says: &str| {
        fs::write(&image.path, spare).unwrap();
        fs::write(image.undo(), undo).unwrap();
        let done = image.back();
        assert!(done.code == 8 && done.err.contains(says), "{says}: {} {}", done.code, done.err);
        assert!(image.bytes() == spare, "{says}: it was changed");
    };
    // A page that the repair has not written, and one that it has.
    let places = Places::of(&image.path);
    for (at, says) in
        [(places.log(0, 0, 1), "was written to since"), (places.log(0, 1, 3), "neither as before nor as after")]
    {
        let mut changed = after.clone();
        changed[at + 700] ^= 1;
        refused(&changed, &undo, says);
    }
    let mut longer = after.clone();
    longer.resize(after.len() + 4096, 0);
    refused(&longer, &undo, "another spare");
    refused(&golden("used-512"), &undo, "another spare");
    for len in [0, 10, undo.len() / 2, undo.len() - 1] {
        refused(&after, &undo[..len], "not an undo file");
    }
    let flipped = |at: usize| {
        let mut flipped = undo.clone();
        flipped[at] ^= 1;
        flipped
    };
    refused(&after, &flipped(undo.len() - 2000), "not an undo file");
    refused(&after, &[&undo[..], b"more"].concat(), "not an undo file");
    refused(&after, &flipped(2), "not an undo file");
    fs::write(image.undo(), &undo).unwrap();
    assert_eq!(image.back().code, 0);
    assert!(image.bytes() == before);
    assert_eq!(image.back().code, 0, "again, it is as it was");
}

#[test]
fn what_is_ambiguous_is_refused_with_what_each_choice_would_lose() {
    let image = Image::new(&golden("damaged"));
    let done = image.repair();
    assert_eq!(done.code, 2);
    assert!(
        done.out.contains("--at 1:7: ") && done.out.contains("after sequence 7: the spare knows of 10"),
        "{}",
        done.out
    );
    let of_what =
        "2 pages of the log: 2 blocks remapped, 0 pending, 0 lost, 0 on the base again; and 1 page that cannot be read";
    assert!(done.out.contains(of_what), "{}", done.out);
    let json = run("repair", &image.path, &["--json"]);
    assert!(json.code == 2 && json.out.is_empty() && !json.err.is_empty(), "{}", json.out);
    assert!(image.bytes() == golden("damaged") && !Path::new(&image.undo()).exists());

    // Two superblocks with one number that differ.
    let mut bytes = golden("used");
    bytes[104] ^= 1;
    bytes[8..12].fill(0);
    let crc = crc32c::crc32c(&bytes[..4096]).to_le_bytes();
    bytes[8..12].copy_from_slice(&crc);
    let image = Image::new(&bytes);
    let done = image.repair();
    assert_eq!(done.code, 2);
    assert!(done.out.contains("superblock A: \"Remap0\"") && done.out.contains("superblock B: "), "{}", done.out);
    assert!(image.bytes() == bytes);
}

#[test]
fn a_set_that_is_refused_is_mended_to_the_state_that_is_chosen_and_back_again_byte_for_byte() {
    let before = golden("damaged");
    let image = Image::new(&before);
    let chosen = run("list", &image.path, &["--format", "json", "--at", "1:7"]).out;
    let mend = |undo: &str| image.alone(&["--at", "1:7", "--yes", "--undo", undo]);
    let plan = run("repair", &image.path, &["--at", "1:7", "--json"]);
    assert_eq!((plan.code, &plan.json()["refused"]), (1, &Value::from(true)));
    let plan = plan.json();
    assert_eq!((&plan["gives_up"]["pages"], &plan["gives_up"]["remapped"]), (&2.into(), &2.into()), "{plan}");
    assert_eq!(run("repair", &image.path, &["--at", "1:8"]).code, 2, "there is no such state");
    assert_eq!(image.seen(), (2, String::new()));
    assert!(image.bytes() == before && !Path::new(&image.undo()).exists(), "it was changed without being asked for");

    let done = mend(&image.undo());
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(image.seen(), (0, chosen.clone()));
    let after = image.bytes();
    assert_eq!(run("repair", &image.path, &["--at", "1:7"]).code, 0, "there is nothing more");
    let back = image.back();
    assert!(back.code == 0 && image.bytes() == before, "{}", back.err);

    // Whatever of it was written: it is refused, or as it was chosen; and the same command goes on, or the undo file goes back.
    let page = Places::of(&image.path).page;
    let mut half = before.clone();
    for at in plan["pages"].as_array().unwrap().iter().map(|page| page["lba"].as_u64().unwrap() as usize * 4096) {
        for torn in [512, page] {
            half[at..at + torn].copy_from_slice(&after[at..at + torn]);
            fs::write(&image.path, &half).unwrap();
            let seen = image.seen();
            assert!(seen == (2, String::new()) || seen.0 < 2 && seen.1 == chosen, "byte {at}, {torn}: {seen:?}");
        }
        let other = image.folder.path("other");
        let done = mend(other.to_str().unwrap());
        assert!(done.code == 0 && image.seen() == (0, chosen.clone()), "byte {at}: {}", done.err);
        assert!(image.bytes() == after, "byte {at}: as if it had not been stopped");
        _ = fs::remove_file(other);
        fs::write(&image.path, &half).unwrap();
        assert_eq!(image.back().code, 0, "byte {at}");
        assert!(image.bytes() == before, "byte {at}");
    }
    assert!(half == after);
}

#[test]
fn a_set_that_is_not_refused_keeps_the_state_that_is_in_force() {
    let image = Image::new(&golden("used"));
    let states = run("inspect", &image.path, &["--json"]).json();
    let in_force = &states["in_force"];
    let other = states["candidates"].as_array().unwrap().iter().find(|one| one["epoch"] != in_force["epoch"]);
    let at = other.map(|one| format!("{}:{}", one["epoch"], one["sequence"])).unwrap();
    let done = image.alone(&["--at", &at, "--yes", "--undo", &image.undo()]);
    assert!(done.code == 2 && done.err.contains("the set is not refused"), "{}: {}", done.code, done.err);
    assert!(image.bytes() == golden("used") && !Path::new(&image.undo()).exists());
}

/// As it is after a crash in the midst of a repair that had been told to which state.
#[test]
fn of_a_set_that_is_in_the_chosen_state_nothing_is_lost() {
    let image = Image::new(&golden("unfinished-checkpoint"));
    let (code, list) = image.seen();
    let in_force = run("inspect", &image.path, &["--json"]).json()["in_force"].clone();
    let at = format!("{}:{}", in_force["epoch"], in_force["sequence"]);
    let plan = run("repair", &image.path, &["--at", &at]);
    assert!(code < 2 && plan.code == 1, "{code}, {}: {}", plan.code, plan.err);
    assert!(plan.out.contains(": degraded: ") && !plan.out.contains("loses"), "{}", plan.out);
    let json = run("repair", &image.path, &["--at", &at, "--json"]).json();
    assert!(json["gives_up"].is_null() && json["refused"] == false, "{json}");
    assert_eq!(image.alone(&["--at", &at, "--yes", "--undo", &image.undo()]).code, 0);
    assert_eq!(image.seen(), (0, list));
    // Of one that is whole there is nothing to be written.
    let image = Image::new(&golden("used"));
    let done = run("repair", &image.path, &["--at", "2:10"]);
    assert!(done.code == 0 && done.out.contains("nothing to repair"), "{}: {}", done.code, done.out);
}

#[test]
fn whatever_is_in_a_file_it_is_repaired_to_what_it_was_or_not_changed() {
    let images = ["used", "full-area", "one-copy", "lost"].map(golden);
    let places = Places::of(&Image::new(&images[0]).path);
    let mut ends = [0; 2];
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut bytes = images[random.random_range(0..images.len())].clone();
        for _ in 0..random.random_range(1..4) {
            let all = places.all();
            let at = all[random.random_range(0..all.len())];
            let from = all[random.random_range(0..all.len())];
            match random.random_range(0..5) {
                3 => bytes.copy_within(from..from + places.page, at),
                4 => {
                    bytes[at + random.random_range(12..512)] = random.random();
                    bytes[at + 8..at + 12].fill(0);
                    let crc = crc32c::crc32c(&bytes[at..at + places.page]).to_le_bytes();
                    bytes[at + 8..at + 12].copy_from_slice(&crc);
                }
                kind => spoil(&mut bytes, at, places.page, kind),
            }
        }
        let image = Image::new(&bytes);
        let (code, list) = image.seen();
        let done = image.repair();
        if code == 2 {
            assert_eq!(done.code, 2, "seed {seed}");
        } else if done.code == 2 {
            assert!(done.err.contains("cannot be repaired in place"), "seed {seed}: {}", done.err);
        } else {
            assert_eq!((done.code, image.seen()), (0, (0, list)), "seed {seed}: {}", done.err);
        }
        ends[usize::from(done.code == 0)] += 1;
        assert!(done.code == 0 || image.bytes() == bytes, "seed {seed}");
    }
    assert!(ends.iter().all(|count| *count > 2), "{ends:?}");
}

#[test]
fn json_has_all_that_is_written() {
    let image = Image::new(&golden("damaged-copy"));
    let report = run("repair", &image.path, &["--json", "--undo", "x"]).json();
    let page = &report["pages"][0];
    let of = |name: &str| page[name].clone();
    assert_eq!([of("of"), of("copy"), of("area"), of("page")], [Value::from("log"), "A".into(), 1.into(), 0.into()]);
    assert_eq!([of("what"), of("from")], ["missing", "copy B"]);
    assert_eq!((&report["written"], &report["undo"]), (&Value::from(false), &Value::from("x")));
}
