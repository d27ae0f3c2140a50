//! Lists of bad blocks that other tools have written, taken over by the real target.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
    time::Instant,
};

use e2e::{config::Config, random::announce, scene::SPARE_UUID, script, target::Target};
use serde_json::{Value, json};

/// `bdev_remap_import Remap0 list ARGS…` on the command line, where `list` holds `text`; as a file, or through stdin.
fn import(target: &Target, text: &str, by_stdin: bool, args: &[&str]) -> Output {
    let file = target.dir().join("list");
    fs::write(&file, text).unwrap();
    let named = if by_stdin { "-".into() } else { file.display().to_string() };
    let mut command = Command::new(script("rpc"));
    command.arg("-s").arg(target.socket()).args(["bdev_remap_import", "Remap0", &named]).args(args);
    let stdin = if by_stdin { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).unwrap();
    }
    child.wait_with_output().unwrap()
}

/// What it prints.
#[track_caller]
fn imported(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A target with Remap0 on `mib` MiB of blocks of this size, and a spare of `spare_mib` MiB.
fn target(mib: u64, block_size: u32, spare_mib: u64) -> Target {
    let config = Config::new().malloc("Base", mib, block_size).malloc("Spare", spare_mib, block_size);
    let target = Target::with(&config);
    target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base", "spare_bdev": "Spare" }));
    target
}

/// What is remapped: first block and blocks, neighbours together.
fn remapped(target: &Target) -> Vec<(u64, u64)> {
    let listing = target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 16_384 }));
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for extent in listing["extents"].as_array().unwrap() {
        let (lba, blocks) = (extent["lba"].as_u64().unwrap(), extent["num_blocks"].as_u64().unwrap());
        match runs.last_mut() {
            Some(last) if last.0 + last.1 == lba => last.1 += blocks,
            _ => runs.push((lba, blocks)),
        }
    }
    runs
}

const MAP: &str = "\
# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue -d /dev/sdx image map
# current_pos  current_status  current_pass
0x00020400     -               1
#      pos        size  status
0x00000000  0x00010000  +
0x00010000  0x00000200  -
0x00010200  0x0000FE00  +
0x00020000  0x00000400  *
0x00020400  0x00000200  /
0x00020600  0x00010000  ?
";

/// Each list in blocks of 4096 bytes, and of 512, where those are not whole.
#[test]
fn lists_of_all_formats_are_taken_over_whole_blocks_at_least() {
    let listing = r#"{ "extents": [{ "lba": 9, "num_blocks": 2, "spare_lba": 77, "state": "remapped" }, { "lba": 4, "num_blocks": 1 }] }"#;
    type Runs<'a> = &'a [(u64, u64)];
    let lists: [(&str, &[&str], Runs<'_>, Runs<'_>); 8] = [
        ("5\n3\n8\n\n8\n", &[], &[(0, 3)], &[(6, 2), (10, 2), (16, 2)]),
        ("2\n10\n", &["--format", "badblocks", "--block-size", "4096"], &[(2, 1), (10, 1)], &[(16, 8), (80, 8)]),
        ("7 2\n100 1\n", &[], &[(0, 2), (12, 1)], &[(7, 2), (100, 1)]),
        (MAP, &["--format", "ddrescue"], &[(16, 1), (32, 1)], &[(128, 1), (256, 3)]),
        (MAP, &[], &[(16, 1), (32, 1)], &[(128, 1), (256, 3)]),
        ("[{\"lba\": 3, \"num_blocks\": 2},\n {\"num_blocks\": 1, \"lba\": 5}]", &[], &[(3, 3)], &[(3, 3)]),
        ("\"4+2,1, 5+9\"\n", &[], &[(1, 1), (4, 10)], &[(1, 1), (4, 10)]),
        (listing, &["--format", "json"], &[(4, 1), (9, 2)], &[(4, 1), (9, 2)]),
    ];
    for block_size in [4096, 512] {
        let mut target = target(16, block_size, 16);
        for (number, (text, args, large, small)) in lists.iter().enumerate() {
            let expected = if block_size == 4096 { large } else { small };
            let blocks: u64 = expected.iter().map(|one| one.1).sum();
            let summary = imported(&import(&target, text, number % 2 == 1, args));
            assert_eq!(remapped(&target), *expected, "{text}, blocks of {block_size}");
            assert_eq!((&summary["added"], &summary["extents"]), (&json!(blocks), &json!(expected.len())));
            let all = json!({ "name": "Remap0", "lba": 0, "num_blocks": 1024 });
            assert_eq!(target.rpc("bdev_remap_remove", all)["removed"], blocks);
        }
        let (text, args, ..) = lists[0];
        let sums = |summary: Value| ["added", "already", "extents"].map(|field| summary[field].clone());
        let [first, again] = [(); 2].map(|()| sums(imported(&import(&target, text, false, args))));
        assert_eq!((first[0].clone(), first[1].clone()), (again[1].clone(), again[0].clone()), "{again:?}");
        for empty in ["", "[]", "# nothing\n"] {
            assert_eq!(imported(&import(&target, empty, false, &[]))["extents"], 0, "{empty}");
        }
        target.stop();
    }
}

#[test]
fn a_list_that_is_malformed_is_named_by_file_and_line_and_nothing_is_sent() {
    let mut target = target(16, 4096, 16);
    for (text, args, wrong) in [
        ("1\n2\nx3\n", &[][..], "line 3: 'x3'"),
        ("1\n\n-2\n", &[], "line 3: '-2'"),
        ("1 2\n3\n", &[], "line 2: '3'"),
        ("1 2\n3 0\n", &[], "line 2: '3 0'"),
        ("1 2 3\n", &[], "line 1: '1 2 3'"),
        ("7\n", &["--format", "md"], "line 1: '7'"),
        ("1\n2\n16384\n", &[], "line 3: bytes 16777216 to 16778239"),
        ("0x0 + 1\n0x0 0x200 -\n0x200 0x200 x\n", &[], "line 3: '0x200 0x200 x'"),
        ("0x0 0x200 -\n", &["--format", "ddrescue"], "line 1: '0x0 0x200 -'"),
        ("[{\"lba\": 1,\n \"num_blocks\": }]", &[], "line 2: "),
        ("[{\"lba\": 1, \"num_blocks\": 1}, {\"lba\": 1, \"num_blocks\": 0}]", &[], "item 2 "),
        ("\"1,2+x\"", &[], "item 2 "),
        ("\"1,4095+2\"", &[], "item 2, 4095+2, is not all on the bdev"),
        ("{}", &[], "line 1: there is no array"),
    ] {
        let output = import(&target, text, false, args);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{text}: {said}");
        assert!(said.contains("list, ") && said.contains(wrong) && said.contains("nothing was sent"), "{text}: {said}");
    }
    for size in ["0", "-512"] {
        let output = import(&target, "1\n", false, &[&format!("--block-size={size}")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&format!("{size} is less than 1")), "{output:?}");
    }
    assert_eq!(target.status("Remap0")["remapped"], 0);
    target.stop();
}

#[test]
fn a_call_that_is_wrong_is_refused_by_name_and_item_and_changes_nothing() {
    let mut target = target(16, 4096, 2);
    for (extents, wrong) in [
        (json!("1,2+x"), "extents: item 2, \"2+x\""),
        (json!("1,4095+2"), "extents: item 2, \"4095+2\", is not all on the bdev, which has 4096 blocks"),
        (json!(""), "extents: no extent is listed"),
        (json!([]), "extents: no extent is listed"),
        (json!(5), "extents: "),
        (json!([{ "lba": 1, "num_blocks": 1 }, { "lba": 1 }]), "extents[1]: missing field `num_blocks`"),
        (json!([{ "lba": 4096, "num_blocks": 1 }]), "extents: item 1, \"4096+1\""),
    ] {
        let (code, message) = target.refused("bdev_remap_import", json!({ "name": "Remap0", "extents": extents }));
        assert_eq!(code, -32602, "{message}");
        assert!(message.contains(wrong), "{message}");
    }
    let free = target.status("Remap0")["spare"]["free"].as_u64().unwrap();
    let too_many = json!({ "name": "Remap0", "extents": format!("0+{}", free + 1) });
    let (code, message) = target.refused("bdev_remap_import", too_many.clone());
    assert_eq!(code, -28, "ENOSPC: {message}");
    assert!(message.contains(&format!("needs {} spare blocks, {free} are free", free + 1)), "{message}");
    let said = import(&target, &format!("\"0+{}\"", free + 1), false, &[]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("are free") && said.contains("begins with extent 0+") && said.lines().count() < 12, "{said}");
    assert_eq!(target.status("Remap0")["remapped"], 0);

    // As many as SPDK takes in an array.
    let array: Vec<_> = (0..168).map(|index| json!({ "lba": index * 3, "num_blocks": 1 })).collect();
    let report = target.rpc("bdev_remap_import", json!({ "name": "Remap0", "extents": array }));
    assert_eq!(report, json!({ "added": 168, "already": 0, "pending": 0 }));
    let job = target.status("Remap0")["jobs"][0].take();
    assert_eq!((&job["kind"], &job["state"], &job["blocks_done"]), (&json!("import"), &json!("done"), &json!(168)));
    target.stop();
}

/// A million single blocks: `cargo test --release -p e2e import:: -- --ignored --nocapture`. `E2E_DIR` says where the files
/// are. How much memory it takes, or disk: 512 MiB.
#[test]
#[ignore = "measures; nothing is asserted of a machine"]
fn how_long_a_million_extents_take() {
    const EXTENTS: u64 = 1_000_000;
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 1024), target.file("spare", 1024));
    let config = Config::new().aio("Base", &base, 512, e2e::scene::BASE_UUID).aio("Spare", &spare, 512, SPARE_UUID);
    target.start(&config);
    target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base", "spare_bdev": "Spare" }));
    let text: String = (0..EXTENTS).map(|index| format!("{} 1\n", index * 2)).collect();
    let began = Instant::now();
    let output = import(&target, &text, false, &["--format", "md"]);
    announce(&format!("{:?}: {}", began.elapsed(), imported(&output)));
    assert_eq!(target.status("Remap0")["remapped"], EXTENTS);
    target.stop();
}
