//! The commands of remapctl on a spare that was changed anyhow: each ends with a verdict, what would be loaded is not refused, and neither
//! base nor spare is changed. Run by the fuzz target `remapctl`, and on the corpus of `open` by the tests of remapctl.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use remapctl::cli::Options;

use super::{BASE_BLOCKS, Edit, PAGE, SPARE_BLOCKS, edited, open, params};

/// A folder of this process, in memory where that can be had, with a base in it.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = place.join(format!("remapctl-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("base"), vec![1; BASE_BLOCKS as usize * PAGE]).expect("a base");
        folder
    })
}

/// Removes the folder: for who knows when all is done.
pub fn clean_up() {
    let _ = fs::remove_dir_all(folder());
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

/// Runs them all on a valid spare with these edits done to it; how `check` has ended.
pub fn judge(edits: &[Edit]) -> u8 {
    let medium = edited(edits);
    let image: Vec<u8> = (0..SPARE_BLOCKS).flat_map(|at| medium.block(at)).collect();
    let path = |name: &str| folder().join(name).display().to_string();
    let (base, spare, output) = (path("base"), path("spare"), path("output"));
    fs::write(&spare, &image).expect("a spare");
    for file in [output.clone(), format!("{output}.map")] {
        let _ = fs::remove_file(file);
    }
    let check = code(&["check", &spare, "--base", &base]);
    let (inspect, json) = run(&["inspect", &spare, "--json"]);
    let repair = code(&["repair", &spare]);
    let mut all = vec![check, inspect, repair, code(&["inspect", &spare]), code(&["check", &spare, "--json"])];
    all.extend(["table", "json", "csv", "badblocks", "ddrescue"].map(|form| code(&["list", &spare, "--format", form])));
    all.extend(["svg", "html"].map(|form| code(&["map", &spare, "--format", form])));
    all.push(code(&["recover", "--base", &base, "--spare", &spare, "--output", &output]));
    for at in states(&json) {
        all.extend(
            [&["repair"][..], &["list"], &["map"]].map(|command| code(&[command, &[&spare, "--at", &at]].concat())),
        );
    }
    assert!(all.iter().all(|code| *code <= 2), "{all:?}");
    assert!(check < 2 || repair == 2, "what is refused is repaired without being told to what");
    let (_, _, opened) = open(medium, params());
    assert!(opened.is_err() || check < 2, "what is loaded is refused");
    assert!(fs::read(&spare).expect("the spare") == image, "the spare was changed");
    let is_whole = |base: Vec<u8>| base.len() == BASE_BLOCKS as usize * PAGE && base.iter().all(|byte| *byte == 1);
    assert!(is_whole(fs::read(&base).expect("the base")), "the base was changed");
    check
}

/// The states of the log that an operator may choose, as `--at` takes them.
fn states(inspect: &[u8]) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_slice(inspect).expect("it is JSON");
    let all = report["candidates"].as_array().into_iter().flatten();
    all.map(|state| format!("{}:{}", state["epoch"], state["sequence"])).collect()
}
