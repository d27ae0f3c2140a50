//! `recover`: the content is that of the set, byte for byte, what cannot be read is told, and it goes on where it was stopped.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{BLOCK, Done, Folder, Loop, golden, known, remapctl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Blocks of the base: the last one that the images know is 202.
const BASE_BLOCKS: u64 = 300;

struct Files {
    folder: Folder,
    base: PathBuf,
    spare: PathBuf,
    output: PathBuf,
}

impl Files {
    /// A base full of numbers, and a golden image.
    fn new(name: &str) -> Files {
        let folder = Folder::new();
        let block_size = known(name)["block_size"].as_u64().unwrap();
        let base: Vec<u8> = (0..BASE_BLOCKS * block_size / 8).flat_map(|word| (word | 1 << 63).to_le_bytes()).collect();
        let (base, spare, output) = (folder.file("base", &base), folder.golden(name), folder.path("output"));
        Files { folder, base, spare, output }
    }

    fn command(&self, more: &[&str]) -> Command {
        let paths = [("--base", &self.base), ("--spare", &self.spare), ("--output", &self.output)];
        let mut command = remapctl(["recover"]);
        paths.iter().for_each(|(name, path)| _ = command.arg(name).arg(path));
        command.args(more);
        command
    }

    fn recover(&self, more: &[&str]) -> Done {
        Done::of(self.command(more).output().unwrap())
    }

    fn map(&self) -> String {
        fs::read_to_string(self.folder.path("output.map")).unwrap()
    }

    /// What a host would read: the base, with what the image says in its places. Lost blocks are zeros.
    fn expected(&self, name: &str) -> Vec<u8> {
        let (mut content, spare, known) = (fs::read(&self.base).unwrap(), golden(name), known(name));
        let size = known["block_size"].as_u64().unwrap() as usize;
        for extent in known["extents"].as_array().unwrap() {
            let number = |field: &str| extent[field].as_u64().map(|number| number as usize);
            for block in 0..number("num_blocks").unwrap() {
                let at = (number("lba").unwrap() + block) * size;
                match (extent["state"].as_str().unwrap(), number("spare_lba")) {
                    ("remapped", Some(from)) => {
                        content[at..at + size]
                            .copy_from_slice(&spare[(from + block) * size..(from + block + 1) * size]);
                    }
                    ("lost", _) => content[at..at + size].fill(0),
                    _ => {}
                }
            }
        }
        content
    }
}

/// The extents of a map with this status, in blocks.
fn in_map(map: &str, status: &str) -> Vec<(u64, u64)> {
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x").unwrap(), 16).unwrap() / BLOCK as u64;
    let lines = map.lines().filter(|line| !line.starts_with('#')).skip(1);
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words[2] == status).map(|words| (number(words[0]), number(words[1]))).collect()
}

#[test]
fn the_content_is_that_of_the_set_byte_for_byte_and_base_and_spare_stay_as_they_are() {
    for name in ["used", "used-512", "used-520", "used-8192", "full-area", "one-copy", "damaged-copy", "torn-page"] {
        let files = Files::new(name);
        let before = [&files.base, &files.spare].map(|path| fs::read(path).unwrap());
        let done = files.recover(&[]);
        assert_eq!(done.code, 0, "{name}: {}{}", done.out, done.err);
        assert!(fs::read(&files.output).unwrap() == files.expected(name), "{name}");
        assert!([&files.base, &files.spare].map(|path| fs::read(path).unwrap()) == before, "{name}");
    }
}

#[test]
fn lost_blocks_are_zeros_and_listed() {
    let files = Files::new("lost");
    let done = files.recover(&[]);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.out.contains("2 blocks cannot be read (2 of that lost): zeros in it, and listed in"), "{}", done.out);
    assert!(fs::read(&files.output).unwrap() == files.expected("lost"));
    assert_eq!(in_map(&files.map(), "-"), [(60, 2)]);
    // Once more with nothing to do, and with another try.
    for more in [&[][..], &["--retry"]] {
        assert_eq!(files.recover(more).code, 1);
        assert_eq!(in_map(&files.map(), "-"), [(60, 2)]);
    }
}

#[test]
fn it_goes_on_where_the_map_says() {
    let files = Files::new("used");
    assert_eq!(files.recover(&[]).code, 0);
    let expected = fs::read(&files.output).unwrap();
    let map = files.map();
    // Half of it is done, and of that block 5 could not be read.
    let head: String = map.lines().take_while(|line| !line.starts_with("0x")).map(|line| format!("{line}\n")).collect();
    let half = "0x96000 ? 1\n0x0 0x5000 +\n0x5000 0x1000 -\n0x6000 0x90000 +\n0x96000 0x96000 ?\n";
    fs::write(files.folder.path("output.map"), head + half).unwrap();
    let (done, rest) = expected.split_at(150 * BLOCK);
    fs::write(&files.output, [vec![9; done.len()], vec![0; rest.len()]].concat()).unwrap();
    let again = files.recover(&[]);
    assert_eq!(again.code, 1, "{}{}", again.out, again.err);
    let content = fs::read(&files.output).unwrap();
    assert!(content[..done.len()] == vec![9; done.len()], "what is done is not done again");
    assert!(content[done.len()..] == *rest, "and what is not, is");
    assert_eq!(in_map(&files.map(), "-"), [(5, 1)]);
    assert_eq!(files.recover(&["--retry"]).code, 0);
    assert!(fs::read(&files.output).unwrap()[5 * BLOCK..6 * BLOCK] == expected[5 * BLOCK..6 * BLOCK]);
    assert_eq!(in_map(&files.map(), "-"), []);
}

#[test]
fn what_would_mix_two_states_or_hit_something_else_is_refused() {
    let files = Files::new("used");
    let refused = |files: &Files, more: &[&str], code: i32, says: &str| {
        let done = files.recover(more);
        assert!(done.code == code && done.err.contains(says), "{says}: {}: {}", done.code, done.err);
    };
    // Something else is there.
    fs::write(&files.output, "precious").unwrap();
    refused(&files, &[], 8, "it is there already");
    refused(&files, &["--force"], 8, "it is there already");
    assert_eq!(fs::read(&files.output).unwrap(), b"precious");
    fs::remove_file(&files.output).unwrap();
    // A map of something else.
    fs::write(files.folder.path("output.map"), "# Mapfile.\n0x0 ? 1\n0x0 0x12c000 ?\n").unwrap();
    refused(&files, &[], 8, "the map is of something else");
    fs::remove_file(files.folder.path("output.map")).unwrap();
    // The output is gone, and the map is not.
    assert_eq!(files.recover(&[]).code, 0);
    fs::remove_file(&files.output).unwrap();
    refused(&files, &[], 8, "it is not there, although its map is");
    fs::remove_file(files.folder.path("output.map")).unwrap();
    // The set has changed meanwhile.
    assert_eq!(files.recover(&[]).code, 0);
    fs::write(&files.spare, golden("full-area")).unwrap();
    refused(&files, &[], 8, "the map is of set");
    // A map that somebody has changed.
    fs::write(&files.spare, golden("used")).unwrap();
    fs::write(files.folder.path("output.map"), files.map().replace(" +\n", " *\n")).unwrap();
    refused(&files, &[], 8, "is not one of this recovery");
    // The output is the base, under another name.
    let base = fs::read(&files.base).unwrap();
    let link = files.folder.path("link");
    std::os::unix::fs::symlink(&files.base, &link).unwrap();
    let mut itself = Files::new("used");
    (itself.base, itself.output) = (files.base.clone(), link);
    refused(&itself, &["--force"], 8, "the base or the spare itself");
    assert!(fs::read(&files.base).unwrap() == base);
    // Another base.
    refused(&Files::new("used"), &["--base-uuid", "00000000-0000-0000-0000-000000000004"], 2, "belongs to base");
    // A set that is refused, and one that is not there.
    refused(&Files::new("damaged"), &[], 2, "nothing was written");
    let empty = Files::new("used");
    fs::write(&empty.spare, vec![0; 8 << 20]).unwrap();
    refused(&empty, &[], 2, "the spare is empty");
}

#[test]
fn a_state_that_an_operator_names_can_be_recovered() {
    let files = Files::new("damaged");
    assert_eq!(files.recover(&["--at", "1:7"]).code, 0);
    let content = fs::read(&files.output).unwrap();
    // Of the image, block 20 was remapped later than that.
    let base = fs::read(&files.base).unwrap();
    let block = |bytes: &[u8], at: usize| bytes[at * BLOCK..(at + 1) * BLOCK].to_vec();
    assert!(block(&content, 20) == block(&base, 20));
    assert!(block(&content, 10) == block(&golden("used"), 134));
}

/// A base of 4 TiB, nearly all of which is a hole.
fn huge(name: &str) -> Files {
    let files = Files::new(name);
    File::options().write(true).open(&files.base).unwrap().set_len(1 << 42).unwrap();
    files
}

/// Begins to recover; when this returns, it is under way.
fn start(files: &Files) -> Child {
    let map = files.folder.path("output.map");
    // It is written anew before anything else is done, and a new one is another file.
    let which = || fs::metadata(&map).ok().map(|metadata| metadata.ino());
    let before = which();
    let child = files.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while which() == before {
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_signal_ends_it_and_the_same_command_goes_on() {
    let files = huge("used");
    let mut done_before = 0;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT] {
        let child = start(&files);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, 130, "{}", done.err);
        assert!(done.err.contains("the same command goes on"), "{}", done.err);
        let tried: u64 = in_map(&files.map(), "+").iter().map(|extent| extent.1).sum();
        let rest: u64 = in_map(&files.map(), "?").iter().map(|extent| extent.1).sum();
        assert_eq!((tried + rest) * BLOCK as u64, 1 << 42);
        assert!(tried >= done_before);
        done_before = tried;
    }
}

#[test]
fn holes_stay_holes() {
    let files = Files::new("used");
    let expected = files.expected("used");
    File::options().write(true).open(&files.base).unwrap().set_len(1 << 32).unwrap();
    assert_eq!(files.recover(&[]).code, 0);
    let made = fs::metadata(&files.output).unwrap();
    assert_eq!(made.len(), 1 << 32);
    assert!(made.blocks() * 512 < 4 << 20, "{} bytes are taken", made.blocks() * 512);
    let mut content = vec![0; BASE_BLOCKS as usize * BLOCK];
    std::io::Read::read_exact(&mut File::open(&files.output).unwrap(), &mut content).unwrap();
    assert!(content == expected);
}

#[test]
fn blocks_of_a_device_that_cannot_be_read_are_listed_and_tried_again() {
    let mut files = Files::new("used");
    let file = std::mem::take(&mut files.base);
    let (Some(base), Some(spare)) = (Loop::on(&file), Loop::on(&files.spare)) else {
        println!("skipped: loop devices need root");
        return;
    };
    (files.base, files.spare) = (base.0.clone(), spare.0.clone());
    // From block 200 on, the device has nothing to read from; 200 to 202 are pending.
    let whole = fs::read(&file).unwrap();
    File::options().write(true).open(&file).unwrap().set_len(200 * BLOCK as u64).unwrap();
    let done = files.recover(&[]);
    assert_eq!(done.code, 1, "{}{}", done.out, done.err);
    assert!(done.out.contains("100 blocks cannot be read (0 of that lost)"), "{}", done.out);
    assert_eq!(in_map(&files.map(), "-"), [(200, 100)]);
    // It is as good as it was.
    fs::write(&file, &whole).unwrap();
    assert_eq!(files.recover(&["--retry"]).code, 0);
    files.base = file;
    assert!(fs::read(&files.output).unwrap() == files.expected("used"));

    // Onto a device, which is overwritten only if that is said.
    let target = files.folder.file("target", &vec![0xee; BASE_BLOCKS as usize * BLOCK]);
    let device = Loop::on(&target).unwrap();
    files.output = device.0.clone();
    let map = files.folder.path("device.map");
    let more = ["--map", map.to_str().unwrap()];
    let done = files.recover(&more);
    assert!(done.code == 8 && done.err.contains("--force"), "{}", done.err);
    let done = files.recover(&[&more[..], &["--force"]].concat());
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    drop(device);
    assert!(fs::read(&target).unwrap() == files.expected("used"));
}
