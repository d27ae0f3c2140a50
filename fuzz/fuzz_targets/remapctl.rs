//! remapctl on the same spares as `open`, whose corpus this one takes: `cargo fuzz run remapctl corpus/open`. It ends with a verdict, and
//! what would be loaded is not refused; neither base nor spare is changed.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use remap_fuzz::{BASE_BLOCKS, Edit, PAGE, SPARE_BLOCKS, edited, open, params};
use remapctl::cli::Options;

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

/// The exit code of a command.
fn code(args: &[&str]) -> u8 {
    let options = Options::try_parse_from(["remapctl"].iter().chain(args)).expect("it is a command line");
    let done = remapctl::run(&options.command, &mut Vec::new(), &AtomicBool::new(false));
    done.map_or_else(|error| error.code(), |verdict| verdict.code())
}

fuzz_target!(|edits: Vec<Edit>| {
    let medium = edited(&edits);
    let image: Vec<u8> = (0..SPARE_BLOCKS).flat_map(|at| medium.block(at)).collect();
    let path = |name: &str| folder().join(name).display().to_string();
    let (base, spare, output) = (path("base"), path("spare"), path("output"));
    fs::write(&spare, &image).expect("a spare");
    for file in [output.clone(), format!("{output}.map")] {
        let _ = fs::remove_file(file);
    }
    let check = code(&["check", &spare, "--base", &base]);
    let all = [
        code(&["inspect", &spare]),
        code(&["inspect", &spare, "--json"]),
        code(&["list", &spare, "--format", "json"]),
        code(&["map", &spare, "--format", "svg"]),
        code(&["map", &spare, "--format", "html"]),
        code(&["recover", "--base", &base, "--spare", &spare, "--output", &output]),
        check,
    ];
    assert!(all.iter().all(|code| *code <= 2), "{all:?}");
    let (_, _, opened) = open(medium, params());
    assert!(opened.is_err() || check < 2, "what is loaded is refused");
    assert!(fs::read(&spare).expect("the spare") == image, "the spare was changed");
    let is_whole = |base: Vec<u8>| base.len() == BASE_BLOCKS as usize * PAGE && base.iter().all(|byte| *byte == 1);
    assert!(is_whole(fs::read(&base).expect("the base")), "the base was changed");
});
