//! The plugin of rpc.py against the real target; several Remap bdevs, and odd names.

use std::{
    process::{Command, Output},
    thread,
    time::Duration,
};

use e2e::{config::Config, script, target::Target, wait::wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const UUIDS: [&str; 3] = [
    "dddddddd-0000-4000-8000-000000000001",
    "dddddddd-0000-4000-8000-000000000002",
    "dddddddd-0000-4000-8000-000000000003",
];

fn cli(target: &Target, args: &[&str]) -> Output {
    Command::new(script("rpc")).arg("-s").arg(target.socket()).args(args).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn jobs_are_waited_for_with_a_progress_bar() {
    let config = Config::new().malloc("Base", 16, 4096).malloc("Spare", 16, 4096).malloc("Spare1", 16, 4096);
    let mut target = Target::with(&config);
    target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base", "spare_bdev": "Spare" }));
    target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 0, "num_blocks": 3000 }));
    let slowly = ["bdev_remap_migrate", "Remap0", "Spare1", "-m", "1"];
    printed(&cli(&target, &slowly));
    printed(&cli(&target, &["bdev_remap_migrate", "Remap0", "--cancel", "--wait"]));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cli(&target, &[&slowly[..], &["--wait"]].concat()));
        wait_until("the migration", LIMIT, || target.status("Remap0")["state"] == "migrating");
        target.rpc("bdev_remap_migrate", json!({ "name": "Remap0", "cancel": true }));
        let cancelled = waiting.join().unwrap();
        let said = String::from_utf8_lossy(&cancelled.stdout);
        assert!(!cancelled.status.success() && said.contains("migrate was cancelled"), "{cancelled:?}");
    });
    let moved = cli(&target, &["bdev_remap_migrate", "Remap0", "Spare1", "--wait"]);
    let job: Value = serde_json::from_str(&printed(&moved)).unwrap();
    assert_eq!((&job["kind"], &job["state"], &job["blocks_done"]), (&json!("migrate"), &json!("done"), &json!(3000)));
    let bar = String::from_utf8_lossy(&moved.stderr);
    assert!(bar.contains("migrate Remap0: 100%") && bar.contains("3.00k/3.00k"), "{bar}");
    let refused = cli(&target, &["bdev_remap_migrate", "Remap0", "Spare1", "--wait"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("already"), "{refused:?}");
    let scrubbed = printed(&cli(&target, &["bdev_remap_scrub", "Remap0", "-m", "1000", "--wait"]));
    assert_eq!(serde_json::from_str::<Value>(&scrubbed).unwrap()["state"], "done", "{scrubbed}");
    target.stop();
}

#[test]
fn plugin_speaks_to_the_target() {
    let config = Config::new().malloc("Base", 16, 4096).malloc("Spare", 16, 4096).malloc("Spare1", 16, 4096);
    let mut target = Target::with(&config);
    let about_sets = ["expect", "forget", "set_module_options"];
    for method in ["create", "delete", "status", "list", "save", "restore", "set_options", "scrub", "migrate"]
        .iter()
        .chain(&about_sets)
    {
        assert!(printed(&cli(&target, &[&format!("bdev_remap_{method}"), "-h"])).contains("usage"), "{method}");
    }
    for method in ["create", "delete", "inject", "clear", "list", "power_cut", "power_on", "reset"] {
        assert!(printed(&cli(&target, &[&format!("bdev_fault_{method}"), "-h"])).contains("usage"), "{method}");
    }
    let create = ["bdev_remap_create", "-n", "Remap0", "-b", "Fault0", "-s", "Spare", "--storm-limit", "100"];
    let refused = cli(&target, &create);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stdout).contains("Fault0"), "{refused:?}");

    let options = ["--volatile-cache", "--latency-us", "10", "--hidden-memory"];
    printed(&cli(&target, &[&["bdev_fault_create", "-n", "Fault0", "-b", "Base"][..], &options].concat()));
    printed(&cli(
        &target,
        &["bdev_fault_inject", "Fault0", "0x10", "4", "write", "write_fault", "--stride", "2", "-c", "9"],
    ));
    let faults: Value = serde_json::from_str(&printed(&cli(&target, &["bdev_fault_list", "Fault0"]))).unwrap();
    assert!(faults.to_string().contains("write_fault"), "{faults}");
    assert_eq!(printed(&cli(&target, &[&create[..], &["--no-take-over"]].concat())).trim(), "\"Remap0\"");

    let status: Value = serde_json::from_str(&printed(&cli(&target, &["bdev_remap_status"]))).unwrap();
    assert_eq!((&status[0]["name"], &status[0]["storm_limit"]), (&json!("Remap0"), &json!(100)));
    let table = printed(&cli(&target, &["bdev_remap_status", "Remap0", "--table"]));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("Remap0") && lines[1].contains("online"), "{table}");
    assert!(lines[1].trim_end().ends_with("ok"), "all copies of the metadata are: {table}");

    for args in [
        &["bdev_remap_list", "Remap0", "-l", "0", "-m", "10"][..],
        &["bdev_remap_save", "Remap0"],
        &["bdev_remap_restore", "Remap0", "--check"],
        &["bdev_remap_set_options", "Remap0", "--remap-on", "any", "--rearm"],
        &["bdev_fault_clear", "Fault0"],
        &["bdev_fault_power_cut", "Fault0", "--keep", "random", "--seed", "7"],
        &["bdev_fault_power_on", "Fault0"],
        &["bdev_remap_set_module_options", "--no-auto-assemble", "--host-id", UUIDS[0]],
        &["bdev_remap_set_module_options", "--auto-assemble"],
        &["bdev_remap_expect", "-n", "Remap1", "-u", UUIDS[0], "-b", UUIDS[1], "-s", UUIDS[2]],
        &["bdev_remap_status", "Remap1"],
        &["bdev_remap_forget", UUIDS[0]],
        &["bdev_fault_reset", "Remap0"],
        // So many that a migration of 1 MB/s goes on until it is cancelled.
        &["bdev_remap_add", "Remap0", "1000", "3000"],
        &["bdev_remap_migrate", "Remap0", "Spare1", "--format", "force", "-m", "1"],
        &["bdev_remap_migrate", "Remap0", "--cancel"],
        &["bdev_remap_remove", "Remap0", "1000", "3000"],
        &["bdev_remap_delete", "Remap0", "--wipe"],
        &["bdev_fault_delete", "Fault0"],
    ] {
        let text = printed(&cli(&target, args));
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{args:?}: {text}");
    }
    let options: Value = serde_json::from_str(&printed(&cli(&target, &["bdev_remap_set_module_options"]))).unwrap();
    assert_eq!(options, json!({ "auto_assemble": true, "host_id": UUIDS[0] }));
    target.stop();
}

#[test]
fn two_bdevs_at_once_with_odd_names() {
    let names = ["Remap \"ö\" 0/1", "日本\\語"];
    let config =
        Config::new().malloc("B 0", 16, 4096).malloc("S\"0", 16, 4096).malloc("B1", 16, 512).malloc("S1", 16, 512);
    let mut target = Target::with(&config);
    for (name, base, spare) in [(names[0], "B 0", "S\"0"), (names[1], "B1", "S1")] {
        let created = target.rpc("bdev_remap_create", json!({ "name": name, "base_bdev": base, "spare_bdev": spare }));
        assert_eq!(created, name);
    }
    let all = target.rpc("bdev_remap_status", json!({}));
    let mut shown: Vec<_> = all.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    shown.sort_unstable();
    assert_eq!(shown, names);
    assert_eq!(target.status(names[1])["base_bdev"], "B1");

    // One and the same spare does not serve two.
    let (code, message) =
        target.refused("bdev_remap_create", json!({ "name": "R3", "base_bdev": "S1", "spare_bdev": "S\"0" }));
    assert!(code < 0 && !message.is_empty());
    for name in names {
        assert_eq!(target.rpc("bdev_remap_delete", json!({ "name": name })), true);
    }
    assert_eq!(target.rpc("bdev_remap_status", json!({})), json!([]));
    target.stop();
}
