//! What the doctor says of a machine, of which a test does not know what it is like: each thing that is wrong is found, and the exit code is
//! that of the worst.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Done, Folder, remapctl};
use serde_json::{Value, json};

fn doctor(args: &[&str]) -> Done {
    Done::of(remapctl(["doctor"].iter().chain(args)).env("SPDK_DIR", "/nowhere/spdk").output().unwrap())
}

/// What is said about something, as "level: sentence; advice".
fn said(done: &Done, about: &str) -> Vec<String> {
    let report = done.json();
    let findings = report["findings"].as_array().unwrap();
    let worst = findings
        .iter()
        .map(|finding| ["ok", "warning", "bad"].iter().position(|level| finding["level"] == *level).unwrap());
    assert_eq!(usize::try_from(done.code).unwrap(), worst.max().unwrap(), "{report}");
    for finding in findings {
        assert_eq!(finding["level"] == "ok", finding["advice"].is_null(), "{finding}");
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = findings.iter().filter(|finding| finding["about"] == about);
    of.map(|one| format!("{}: {}; {}", text(&one["level"]), text(&one["sentence"]), text(&one["advice"]))).collect()
}

#[test]
fn every_finding_is_a_line_with_what_to_do() {
    let done = doctor(&["--socket", "/nowhere/spdk.sock"]);
    let lines: Vec<_> = done.out.lines().collect();
    assert!(
        lines.len() > 6
            && lines.iter().all(|line| ["ok ", "warning ", "bad "].iter().any(|level| line.starts_with(level)))
    );
    let json = doctor(&["--socket", "/nowhere/spdk.sock", "--json"]);
    assert_eq!(json.json()["findings"].as_array().unwrap().len(), lines.len());
    assert_eq!(said(&json, "hugepages").len(), 2);
    assert!(said(&json, "target")[0].starts_with("warning: /nowhere/spdk.sock: nobody listens"));
}

#[test]
fn an_spdk_that_will_not_do_is_found() {
    let folder = Folder::new();
    let said_of = |spdk: &Path| said(&doctor(&["--json", "--spdk", spdk.to_str().unwrap()]), "SPDK").concat();
    assert!(said(&doctor(&["--json"]), "SPDK")[0].contains("/nowhere/spdk is no SPDK tree"));
    let spdk = folder.path("spdk");
    fs::create_dir_all(spdk.join("include/spdk")).unwrap();
    let header = |year, month| {
        let text = format!("#define SPDK_VERSION_MAJOR\t{year}\n#define SPDK_VERSION_MINOR\t{month}\n");
        fs::write(spdk.join("include/spdk/version.h"), text).unwrap();
    };
    header(25, 9);
    assert!(said_of(&spdk).contains("is SPDK 25.09; run scripts/setup.sh, or set SPDK_DIR to 26.01 or newer"));
    header(26, 1);
    assert!(said_of(&spdk).contains("build/lib/libspdk_bdev.so is not built"), "{}", said_of(&spdk));
    fs::write(spdk.join("include/spdk/version.h"), [0xff; 100]).unwrap();
    assert!(said_of(&spdk).starts_with("bad: "));
    let library = folder.file("libbdev_remap.so", b"nothing");
    let there = doctor(&["--json", "--library", library.to_str().unwrap()]);
    assert!(said(&there, "library")[0].starts_with("ok: "), "without an SPDK nothing more is known");
    let gone = doctor(&["--json", "--library", folder.path("gone").to_str().unwrap()]);
    assert!(said(&gone, "library")[0].contains("libbdev_remap.so is not found; run scripts/setup.sh"));
}

#[test]
fn a_library_that_does_not_go_with_the_spdk_is_found() {
    let folder = Folder::new();
    let spdk = folder.path("spdk");
    for part in ["include/spdk", "build/lib", "build/bin"] {
        fs::create_dir_all(spdk.join(part)).unwrap();
    }
    let header = "#define SPDK_VERSION_MAJOR 26\n#define SPDK_VERSION_MINOR 1\n";
    fs::write(spdk.join("include/spdk/version.h"), header).unwrap();
    fs::write(spdk.join("build/lib/libspdk_bdev.so.19.0"), "").unwrap();
    std::os::unix::fs::symlink("libspdk_bdev.so.19.0", spdk.join("build/lib/libspdk_bdev.so")).unwrap();
    // Any program that the loader can look at.
    fs::copy(env!("CARGO_BIN_EXE_remapctl"), spdk.join("build/bin/spdk_tgt")).unwrap();
    for (holds, says) in [
        ("nothing", "does not say for which SPDK it was built"),
        ("libspdk_bdev.so.18.1", "was built for libspdk_bdev.so.18.1, SPDK has libspdk_bdev.so.19.0"),
        ("libspdk_bdev.so.19.0", "cannot be loaded: "),
    ] {
        let library = folder.file("libbdev_remap.so", holds.as_bytes());
        let args = ["--json", "--spdk", spdk.to_str().unwrap(), "--library", library.to_str().unwrap()];
        let found = said(&doctor(&args), "library").concat();
        assert!(
            found.starts_with("bad: ") && found.contains(says) && found.contains("; run scripts/setup.sh"),
            "{found}"
        );
    }
}

/// A socket at which somebody answers each call with this.
fn answering(folder: &Folder, answer: &Value) -> String {
    let path = folder.path("spdk.sock");
    let (listener, answer) = (UnixListener::bind(&path).unwrap(), answer.to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_target_that_does_not_serve_is_found() {
    for (answer, says) in [
        (json!({ "jsonrpc": "2.0", "id": 1, "result": [] }), "ok: "),
        (
            json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32601, "message": "Method not found" } }),
            "bdev_remap is not loaded",
        ),
        (json!({ "jsonrpc": "2.0", "id": 1 }), "bad: "),
        (
            json!({ "jsonrpc": "2.0", "id": 1, "result": [{
                "name": "Remap7", "uuid": "00000000-0000-0000-0000-000000000007", "state": "waiting", "waits_for": "its base"
            }] }),
            "ok: ",
        ),
    ] {
        let folder = Folder::new();
        let done = doctor(&["--json", "--socket", &answering(&folder, &answer)]);
        assert!(said(&done, "target")[0].contains(says), "{says}: {}", done.out);
        if answer.to_string().contains("Remap7") {
            assert!(
                said(&done, "set")[0]
                    .contains("\"Remap7\", 00000000-0000-0000-0000-000000000007, is waiting: its base")
            );
        }
    }
}
