//! The commands of remapctl on a spare that was changed anyhow: each ends with a verdict, what would be loaded is not refused, and neither
//! base nor spare is changed. A copy of it is brought to each state that an operator can choose, and back again. Run by the fuzz target
//! `remapctl`, and on the corpus of `open` by the tests of remapctl; as root, as nobody else may write to a spare.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use remapctl::cli::Options;
use tempfile::TempDir;

use super::{BASE_BLOCKS, Edit, PAGE, SPARE_BLOCKS, edited, open, params};

/// How it has ended.
pub struct Judged {
    /// The exit code of `check`.
    pub check: u8,
    /// To how many states it was brought, and back.
    pub mended: usize,
}

/// A folder, in memory where that can be had.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// The exit code of a command, and what it has said.
fn run(args: &[&str]) -> (u8, Vec<u8>) {
    let options = Options::try_parse_from(["remapctl"].iter().chain(args)).expect("it is a command line");
    let mut said = Vec::new();
    let done = remapctl::run(&options.command, &mut said, &AtomicBool::new(false));
    (done.map_or_else(|error| error.code(), |verdict| verdict.code()), said)
}

fn code(args: &[&str]) -> u8 {
    run(args).0
}

/// Brings the spare at `copy` to a state, where that can be, and back again; whether it could be.
fn mends(copy: &str, at: &str) -> bool {
    let before = fs::read(copy).expect("the copy");
    let bytes = || fs::read(copy).expect("the copy");
    let undo = format!("{copy}.undo");
    let chosen = run(&["list", copy, "--at", at, "--format", "json"]);
    let mended = code(&["repair", copy, "--at", at, "--yes", "--undo", &undo]);
    if mended == 2 {
        assert!(bytes() == before, "what is refused was changed");
        return false;
    }
    assert_eq!(mended, 0, "the repair to {at} was not refused");
    assert_eq!(code(&["check", copy]), 0, "it is not sound at {at}");
    assert_eq!(run(&["list", copy, "--format", "json"]), chosen, "it is not as it was chosen, at {at}");
    if bytes() != before {
        assert_eq!(code(&["repair", copy, "--undo-from", &undo, "--yes"]), 0, "it was not undone");
        assert!(bytes() == before, "it is not as it was before");
        fs::remove_file(undo).expect("the undo file");
    }
    true
}

/// Runs them all on a valid spare with these edits done to it.
pub fn judge(edits: &[Edit]) -> Judged {
    let medium = edited(edits);
    let image: Vec<u8> = (0..SPARE_BLOCKS).flat_map(|at| medium.block(at)).collect();
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (base, spare, copy, output) = (path("base"), path("spare"), path("copy"), path("output"));
    fs::write(&base, vec![1; BASE_BLOCKS as usize * PAGE]).expect("a base");
    [&spare, &copy].iter().for_each(|file| fs::write(file, &image).expect("a spare"));
    let check = code(&["check", &spare, "--base", &base]);
    let alone = code(&["check", &spare, "--json"]);
    let (inspect, json) = run(&["inspect", &spare, "--json"]);
    let repair = code(&["repair", &spare]);
    let mut all = vec![check, alone, inspect, repair, code(&["inspect", &spare])];
    all.extend(["table", "json", "csv", "badblocks", "ddrescue"].map(|form| code(&["list", &spare, "--format", form])));
    all.extend(["svg", "html"].map(|form| code(&["map", &spare, "--format", form])));
    let recovered = code(&["recover", "--base", &base, "--spare", &spare, "--output", &output]);
    // What has metadata beside its data is not refused, but no file shows it.
    if !(recovered == 8 && has_metadata(&json)) {
        all.push(recovered);
    }
    let mut mended = 0;
    for at in states(&json) {
        mended += usize::from(mends(&copy, &at));
        all.extend(
            [&["repair"][..], &["list"], &["map"]].map(|command| code(&[command, &[&spare, "--at", &at]].concat())),
        );
    }
    assert!(all.iter().all(|code| *code <= 2), "{all:?}");
    assert!(check >= alone, "what is refused is taken with a base");
    assert!(alone < 2 || repair == 2, "what is refused is repaired without being told to what");
    let (_, _, opened) = open(medium, params());
    assert!(opened.is_err() || check < 2, "what is loaded is refused");
    assert!(fs::read(&spare).expect("the spare") == image, "the spare was changed");
    let is_whole = |base: Vec<u8>| base.len() == BASE_BLOCKS as usize * PAGE && base.iter().all(|byte| *byte == 1);
    assert!(is_whole(fs::read(&base).expect("the base")), "the base was changed");
    Judged { check, mended }
}

/// Whether the blocks of the set are said to have metadata beside their data.
fn has_metadata(inspect: &[u8]) -> bool {
    report(inspect)["set"]["md_size"].as_u64() > Some(0)
}

fn report(inspect: &[u8]) -> serde_json::Value {
    serde_json::from_slice(inspect).expect("it is JSON")
}

/// The states of the log that an operator may choose, as `--at` takes them.
fn states(inspect: &[u8]) -> Vec<String> {
    let report = report(inspect);
    let all = report["candidates"].as_array().into_iter().flatten();
    all.map(|state| format!("{}:{}", state["epoch"], state["sequence"])).collect()
}
