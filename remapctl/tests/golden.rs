//! Every golden image is judged and listed as it is loaded: what the files beside them say of opening holds for looking as well.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::spare::{Wanted, edit_superblocks, write_spare};
use common::{Done, Folder, Loop, golden, golden_names, known, remapctl, run};
use serde_json::{Value, json};

#[test]
fn every_image_is_judged_and_listed_as_it_is_loaded_and_none_is_changed() {
    let folder = Folder::new();
    let names = golden_names();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let (path, known) = (folder.golden(&name), known(&name));
        let (check, list) = (run("check", &path, &["--json"]), run("list", &path, &["--format", "json"]));
        let inspect = run("inspect", &path, &["--json"]);
        let repair = run("repair", &path, &[]);
        assert!(check.code <= repair.code, "{name}: {}{}", repair.out, repair.err);
        let verdict = check.json();
        if known["refused"].is_null() {
            assert!(check.code < 2, "{name}: {}", check.out);
            assert_eq!(verdict["verdict"], if check.code == 0 { "sound" } else { "degraded" }, "{name}");
            assert_eq!((list.code, &list.json()["extents"]), (0, &known["extents"]), "{name}");
            assert_eq!(verdict["bad_spare_blocks"], known["bad_spare_blocks"], "{name}");
        } else {
            assert_eq!((check.code, list.code), (2, 2), "{name}: {}", check.out);
            assert_eq!(verdict["verdict"], "refused", "{name}");
            let sentence = verdict["sentence"].as_str().unwrap();
            assert!(sentence.contains("; nothing was written; "), "{name}: {sentence}");
            assert!(list.err.contains(sentence), "{name}: {} is not {sentence}", list.err);
        }
        assert_eq!(inspect.json()["block_size"], known["block_size"], "{name}");
        assert!(inspect.code <= check.code.max(1), "{name}: {}", inspect.out);
        assert!(run("inspect", &path, &[]).code == inspect.code);
        assert!(fs::read(&path).unwrap() == golden(&name), "{name} was changed");
    }
}

#[test]
fn inspect_shows_both_copies_and_what_is_damaged_since_when() {
    let folder = Folder::new();
    let path = folder.golden("damaged-copy");
    let found = run("inspect", &path, &["--json"]);
    let report = found.json();
    assert_eq!((found.code, &report["verdict"]), (1, &json!("degraded")));
    let pages = |first, pages, a: Value, b: Value| json!({ "first": first, "pages": pages, "copy_a": a, "copy_b": b });
    let epoch = json!({ "epoch": 2 });
    let expected = [pages(0, 1, json!("zero"), epoch.clone()), pages(1, 2, epoch.clone(), epoch)];
    assert_eq!(report["areas"][1]["pages"].as_array().unwrap()[..2], expected);
    let damage = json!({
        "of": "log", "copy": "A", "area": 1, "first": 0, "pages": 1, "what": "missing", "since_epoch": 2
    });
    assert_eq!(report["damage"], json!([damage]));
    assert_eq!(report["in_force"]["copy_a_whole"], false);
    assert_eq!(report["in_force"]["copy_b_whole"], true);
    let text = run("inspect", &path, &[]).out;
    assert!(text.contains("log area 1, copy A: page 0 is missing, since epoch 2 or later"), "{text}");

    // A superblock that is gone is told from the one that is there, also where the first has to tell the block size.
    for (name, size) in [("used", 4096), ("used-520", 4160), ("used-8192", 8192)] {
        let mut bytes = golden(name);
        bytes[..size].fill(0xaa);
        let path = folder.file("first.img", &bytes);
        let report = run("inspect", &path, &["--json"]).json();
        assert_eq!(report["superblock_a"]["content"], "foreign", "{name}");
        assert_eq!(report["damage"][0]["of"], "superblock", "{name}");
        assert_eq!(report["set"]["name"], "Remap0", "{name}");
        assert_eq!(run("check", &path, &[]).code, 1, "{name}");
    }
}

#[test]
fn a_state_that_an_operator_names_is_shown_and_no_other() {
    let folder = Folder::new();
    let path = folder.golden("damaged");
    assert_eq!(run("list", &path, &[]).code, 2);
    let inspect = run("inspect", &path, &[]);
    assert!(inspect.code == 2 && inspect.out.contains("--at 1:7"), "{}", inspect.out);
    let chosen = run("list", &path, &["--format", "csv", "--at", "1:7"]);
    assert_eq!(chosen.code, 0, "{}", chosen.err);
    assert!(chosen.out.contains("200,3,,pending"), "{}", chosen.out);
    let wrong = run("list", &path, &["--at", "1:8"]);
    assert!(wrong.code == 2 && wrong.err.contains("epoch 1, sequence 8"), "{}", wrong.err);
}

#[test]
fn lists_are_as_other_tools_have_them() {
    let folder = Folder::new();
    let path = folder.golden("lost");
    let list = |more: &[&str]| {
        let done = run("list", &path, more);
        assert_eq!(done.code, 0, "{}", done.err);
        done.out
    };
    let blocks = [1, 2, 3, 10, 12, 20, 60, 61, 200, 201, 202];
    assert_eq!(list(&["--format", "badblocks"]), blocks.map(|block| format!("{block}\n")).concat());
    assert_eq!(list(&["--format", "badblocks", "--state", "lost,pending"]), "60\n61\n200\n201\n202\n");
    let csv = list(&["--format", "csv"]);
    assert!(csv.starts_with("lba,num_blocks,spare_lba,state\n1,1,131,remapped\n2,1,136,remapped\n"), "{csv}");
    assert!(csv.ends_with("60,2,171,lost\n200,3,,pending\n"), "{csv}");
    let table = list(&[]);
    assert_eq!(table.lines().count(), 1 + 8, "{table}");

    let map = list(&["--format", "ddrescue"]);
    let lines: Vec<_> = map.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0x000100000000", "+", "1"]);
    let (mut at, mut bad) = (0, Vec::new());
    for line in &lines[1..] {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x").unwrap(), 16).unwrap();
        assert_eq!(number(words[0]), at, "{line}: without a gap");
        at += number(words[1]);
        if words[2] == "-" {
            bad.extend(number(words[0]) / 4096..at / 4096);
        }
    }
    assert_eq!((at, bad), (1 << 32, blocks.to_vec()));
}

#[test]
fn check_looks_at_the_base_as_well() {
    let folder = Folder::new();
    let spare = folder.golden("closed");
    let base = folder.path("base");
    let check = |blocks: u64, more: &[&str]| {
        std::fs::File::create(&base).unwrap().set_len(blocks * 4096).unwrap();
        let args: Vec<_> = [&["--base", base.to_str().unwrap()], more].concat();
        run("check", &spare, &args)
    };
    let uuid = "00000000-0000-0000-0000-000000000003";
    let sound = check(1 << 20, &["--base-uuid", uuid]);
    assert!(
        sound.code == 0 && sound.out.contains("every mapping is on it") && !sound.out.contains("note"),
        "{}",
        sound.out
    );
    let unknown = check(1 << 20, &[]);
    assert!(unknown.code == 0 && unknown.out.contains(&format!("it has to be {uuid}")), "{}", unknown.out);
    let grown = check((1 << 20) + 1, &[]);
    assert!(grown.code == 0 && grown.out.contains("would grow"), "{}", grown.out);
    let smaller = check(203, &[]);
    assert!(smaller.code == 0 && smaller.out.contains("check that it is the right one"), "{}", smaller.out);
    let shrunk = check(202, &[]);
    assert!(shrunk.code == 2 && shrunk.out.contains("block 202 of it is remapped or pending"), "{}", shrunk.out);
    let foreign = check(1 << 20, &["--base-uuid", "00000000-0000-0000-0000-000000000004"]);
    assert!(foreign.code == 2 && foreign.out.contains("belongs to base"), "{}", foreign.out);
    let empty = run("check", &folder.file("empty", &vec![0; 8 << 20]), &[]);
    assert!(empty.code == 0 && empty.out.contains("would format it"), "{}", empty.out);
}

#[test]
fn check_knows_that_a_file_has_no_metadata() {
    let folder = Folder::new();
    let (spare, base) = (folder.path("spare"), folder.path("base"));
    let wanted = Wanted { name: "Remap0", block_size: 4096, spare_blocks: 4096, base_blocks: 300, written_at: 0 };
    let layout = write_spare(&spare, &wanted, std::iter::empty());
    edit_superblocks(&spare, &layout, |superblock| superblock.md_size = 64);
    std::fs::File::create(&base).unwrap().set_len(300 * 4096).unwrap();

    let check = |base: &str| run("check", &spare, &["--base", base]);
    assert_eq!(run("check", &spare, &[]).code, 0);
    let file = check(base.to_str().unwrap());
    let says = "formatted with 64 bytes of metadata a block, the base has 0; nothing was written";
    assert!(file.code == 2 && file.out.contains(says), "{}", file.out);
    // The kernel shows no metadata of a block device, and its bdev may have some all the same.
    let Some(device) = Loop::on(&base) else {
        println!("skipped: loop devices need root");
        return;
    };
    let device = check(device.0.to_str().unwrap());
    assert!(device.code == 0 && device.out.contains("it has to be 64 bytes each"), "{}", device.out);
}

#[test]
fn the_command_line_is_as_documented() {
    let done = |args: &[&str]| Done::of(remapctl(args).output().unwrap());
    assert_eq!(done(&["--help"]).code, 0);
    assert_eq!(done(&["--version"]).out, format!("remapctl {}\n", env!("CARGO_PKG_VERSION")));
    let commands =
        ["inspect", "check", "list", "map", "recover", "repair", "doctor", "serve", "watch", "completions", "man"];
    for command in commands {
        let help = done(&[command, "--help"]);
        assert!(help.code == 0 && help.out.contains("Usage: remapctl"), "{command}: {}", help.out);
    }
    for wrong in [&["nonsense"][..], &["list"], &["list", "x", "--format", "xml"], &["check", "x", "--block-size", "7"]]
    {
        let done = done(wrong);
        assert!(done.code == 16 && !done.err.is_empty(), "{wrong:?}: {}", done.code);
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(&["completions", shell]).out.contains("recover"), "{shell}");
    }
    let folder = Folder::new();
    let man = folder.path("man");
    assert_eq!(done(&["man", man.to_str().unwrap()]).code, 0);
    for page in ["remapctl.1", "remapctl-recover.1"] {
        assert!(fs::read_to_string(man.join(page)).unwrap().contains(".SH NAME"), "{page}");
    }
    // No colours but on a terminal.
    let inspect = run("inspect", &folder.golden("damaged"), &[]);
    assert!(!inspect.out.contains('\x1b') && !inspect.err.contains('\x1b'));
}

#[test]
fn the_document_shows_what_is_printed() {
    let folder = Folder::new();
    golden_names().iter().for_each(|name| _ = folder.golden(name));
    fs::File::create(folder.path("base.img")).unwrap().set_len(300 * 4096).unwrap();
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/remapctl.md")).unwrap();
    let examples = document.split("```text\n$ remapctl ").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut seen = 0;
    for (args, printed) in examples.map(|example| example.split_once('\n').unwrap()) {
        let done = Done::of(remapctl(args.split(' ')).current_dir(folder.path("")).output().unwrap());
        assert_eq!(done.out, printed, "{args}: {}", done.err);
        seen += 1;
    }
    assert!(seen >= 8, "{seen} examples");
}

#[test]
fn a_name_that_would_write_lines_of_its_own_cannot() {
    let folder = Folder::new();
    let image = folder.path("hostile.img");
    let wanted = Wanted {
        name: "a\n0x0 0x1 -\u{1b}[2J\u{ffff}",
        block_size: 4096,
        spare_blocks: 400,
        base_blocks: 1000,
        written_at: 0,
    };
    write_spare(&image, &wanted, std::iter::empty());
    let map = run("list", &image, &["--format", "ddrescue"]);
    assert_eq!(map.code, 0, "{}", map.err);
    for line in map.out.lines().filter(|line| line.contains("0x0 0x1")) {
        assert!(line.starts_with("# a\u{fffd}0x0 0x1 -\u{fffd}[2J\u{fffd} ("), "{line}");
    }
    for command in ["check", "inspect", "repair"] {
        let text = run(command, &image, &[]).out;
        assert!(text.contains("\"a\u{fffd}0x0 0x1 -\u{fffd}[2J\u{fffd}\""), "{command}: {text}");
    }
}
