//! `bdev_remap_migrate`: a set moves to another spare while it is in use, and after whatever comes between exactly one is in force.

use std::{
    fs,
    time::{Duration, Instant},
};

use e2e::{
    nvme_tcp::{Status, write_command},
    random::announce,
    scene::{BLOCK, NQN, SPARE_UUID, SPARE1_UUID, Scene, Stack, copies_ok, fault, fault_every, spare_fault, stamped},
    spare_format::{BOTH, SpareFile},
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Blocks that are written: every second one goes to the spare.
const WRITTEN: u64 = 3200;

fn two_spares() -> Stack {
    Stack { spare1_mib: 32, ..Stack::default() }
}

fn faults() -> Vec<Value> {
    vec![fault_every(2, 0, WRITTEN, "write", "write_fault")]
}

/// The stack with blocks on the spare.
fn made(stack: Stack) -> Scene {
    let scene = Scene::of(stack, &faults());
    let mut host = scene.host();
    for lba in (0..WRITTEN).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS);
    }
    assert_eq!(scene.count("remapped"), WRITTEN / 2);
    scene
}

fn params(more: Value) -> Value {
    let mut params = json!({ "name": "Remap0" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn begin(scene: &Scene, more: Value) {
    assert_eq!(scene.target.rpc("bdev_remap_migrate", params(more)), true);
}

fn refused(scene: &Scene, more: Value) -> (i64, String) {
    scene.target.refused("bdev_remap_migrate", params(more))
}

/// A migration of which the end is far.
fn begin_slowly(scene: &Scene) {
    begin(scene, json!({ "spare_bdev": "Spare1", "max_mbps": 1 }));
    assert_eq!(scene.status()["state"], "migrating");
}

#[track_caller]
fn assert_content(scene: &Scene, round: u64) {
    let mut host = scene.host();
    for lba in (0..WRITTEN).step_by(32) {
        assert!(host.read(lba, 32).unwrap().unwrap() == stamped(lba, 32, round), "blocks from {lba} on");
    }
}

/// On which spare the set is, and whether it is sound.
#[track_caller]
fn assert_on(scene: &Scene, spare: &str) {
    let status = scene.status();
    assert!(status["state"] == "online" && status["spare_bdev"] == spare && copies_ok(&status), "{status}");
    assert_eq!((&status["remapped"], &status["lost"]), (&json!(WRITTEN / 2), &json!(0)), "{status}");
}

#[test]
fn all_moves_there_and_back_and_the_other_spare_is_refused_by_name() {
    let mut scene = made(two_spares());
    begin(&scene, json!({ "spare_bdev": "Spare1" }));
    let job = scene.ended("migrate");
    assert_eq!((&job["state"], &job["blocks_done"]), (&json!("done"), &json!(WRITTEN / 2)), "{job}");
    assert_on(&scene, "Spare1");
    assert_content(&scene, 1);
    let mut host = scene.host();
    for lba in (0..WRITTEN).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 2)).unwrap(), Status::SUCCESS);
    }
    // Nothing holds the old one any more.
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    assert_content(&scene, 2);
    let saved = scene.target.rpc("framework_get_config", json!({ "name": "bdev" })).to_string();
    assert!(saved.contains(r#""spare_bdev":"Spare1""#), "{saved}");
    scene.target.kill9();

    let disks = scene.disks(&faults(), &["Fault0", "Spare0"]);
    scene.target.start(&disks);
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
    let (code, message) = scene.target.refused("bdev_remap_create", create.clone());
    assert!(code == -116 && message.contains("retired") && message.contains(SPARE1_UUID), "{message} ({code})");
    scene.target.kill9();
    for order in [["Spare0", "Fault0", "Spare1"], ["Spare1", "Spare0", "Fault0"], ["Fault0", "Spare1", "Spare0"]] {
        scene.start_assembling(&faults(), &order);
        assert_on(&scene, "Spare1");
        assert_content(&scene, 2);
        scene.target.kill9();
    }

    // What is left on the old one does not stand in the way.
    scene.start_assembling(&faults(), &["Fault0", "Spare1", "Spare0"]);
    begin(&scene, json!({ "spare_bdev": "Spare0" }));
    assert_eq!(scene.ended("migrate")["state"], "done");
    assert_on(&scene, "Spare0");
    scene.target.kill9();
    scene.target.start(&disks.bdev("bdev_remap_create", create).export("Remap0", NQN, scene.port));
    assert_on(&scene, "Spare0");
    assert_content(&scene, 2);
    scene.target.stop();
}

#[test]
fn what_cannot_be_begun_is_refused_with_a_reason_and_changes_nothing() {
    let mut scene = made(two_spares());
    let file = |name: &str, mib: u64| scene.target.file(name, mib).display().to_string();
    let aio = |name: &str, mib: u64, block_size: u64| {
        let params = json!({ "name": name, "filename": file(name, mib), "block_size": block_size });
        scene.target.rpc("bdev_aio_create", params);
    };
    aio("Small", 2, 4096);
    aio("Tiny", 1, 4096);
    aio("OtherBlocks", 16, 512);
    aio("Base2", 16, 4096);
    aio("Used", 16, 4096);
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap2", "base_bdev": "Base2", "spare_bdev": "Used" }));
    scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap2" }));
    let foreign = scene.target.dir().join("Foreign");
    fs::write(&foreign, vec![7; 16 << 20]).unwrap();
    scene.target.rpc("bdev_aio_create", json!({ "name": "Foreign", "filename": foreign, "block_size": 4096 }));
    let to = |spare: &str| json!({ "spare_bdev": spare });
    for (wrong, code, sentence) in [
        (json!({}), -32602, "spare_bdev: is missing"),
        (to("Nowhere"), -19, "there is no bdev called Nowhere"),
        (to("Spare0"), -32602, "Spare0 is the spare of Remap0 already"),
        (to("Fault0"), -32602, "Fault0 is the base"),
        (to("OtherBlocks"), -32602, "has blocks of 512 bytes"),
        (to("Tiny"), -28, "too small"),
        (to("Small"), -28, "1600 are remapped"),
        (to("Used"), -17, "belongs to set"),
        (to("Foreign"), -17, "holds"),
        (json!({ "spare_bdev": "Spare1", "max_mbps": 0 }), -32602, "max_mbps: must be at least 1"),
        (json!({ "spare_bdev": "Spare1", "format": "never" }), -32602, "format: must be auto or force"),
        (json!({ "spare_bdev": "Spare1", "cancel": true }), -32602, "cancel: goes with name alone"),
        (json!({ "cancel": true }), -2, "migrate does not run"),
    ] {
        let (found, message) = refused(&scene, wrong.clone());
        assert!(found == code && message.contains(sentence), "{wrong}: {message} ({found})");
    }
    let (code, message) =
        scene.target.refused("bdev_remap_migrate", json!({ "name": "Base0", "spare_bdev": "Spare1" }));
    assert!(code == -19 && message.contains("Base0"), "{message} ({code})");
    assert!(fs::read(&foreign).unwrap().iter().all(|byte| *byte == 7), "it was not touched");
    assert!(scene.job("migrate").is_none_or(|job| job["state"] == "failed"));
    assert_on(&scene, "Spare0");

    // Hosts of a set without a volatile cache do not flush.
    for name in ["Base3", "Uncached"] {
        let params = json!({ "name": name, "filename": file(name, 16), "block_size": 4096 });
        scene.target.rpc("bdev_uring_create", params);
    }
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap3", "base_bdev": "Base3", "spare_bdev": "Uncached" }));
    let to_cached = json!({ "name": "Remap3", "spare_bdev": "Spare1" });
    let (code, message) = scene.target.refused("bdev_remap_migrate", to_cached);
    assert!(code == -32602 && message.contains("Spare1 has a volatile cache"), "{message} ({code})");

    begin_slowly(&scene);
    let (code, message) = refused(&scene, to("Foreign"));
    assert!(code == -16 && message.contains("migrate runs already"), "{message} ({code})");
    let (code, message) = scene.target.refused("bdev_remap_scrub", json!({ "name": "Remap0" }));
    assert!(code == -16 && message.contains("migrate"), "{message} ({code})");
    begin(&scene, json!({ "cancel": true }));
    assert_eq!(scene.ended("migrate")["state"], "cancelled");
    assert_on(&scene, "Spare0");
    // By force also onto what is no set.
    begin(&scene, json!({ "spare_bdev": "Foreign", "format": "force" }));
    assert_eq!(scene.ended("migrate")["state"], "done");
    assert_on(&scene, "Foreign");
    assert_content(&scene, 1);
    scene.target.stop();
}

#[test]
fn the_new_spare_goes_in_the_middle_and_the_old_one_stays() {
    let mut scene = made(two_spares());
    begin_slowly(&scene);
    wait_until("progress", LIMIT, || scene.job("migrate").is_some_and(|job| job["blocks_done"].as_u64() > Some(0)));
    let running = scene.job("migrate").unwrap();
    assert!(running["state"] == "running" && running["blocks_total"] == WRITTEN / 2, "{running}");
    assert_eq!(scene.status()["other_spare_bdev"], "Spare1");
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare1" }));
    let job = scene.ended("migrate");
    let error = job["error"].as_str().unwrap_or_else(|| panic!("{job}"));
    assert!(job["state"] == "failed" && error.contains("new spare is being removed"), "{job}");
    wait_until("the bdev to go", LIMIT, || !scene.target.has_bdev("Spare1"));
    assert_on(&scene, "Spare0");
    assert_eq!(scene.status()["other_spare_bdev"], Value::Null);
    assert_content(&scene, 1);
    scene.target.kill9();
    scene.start_assembling(&faults(), &["Spare1", "Fault0", "Spare0"]);
    assert_on(&scene, "Spare0");
    assert_content(&scene, 1);
    scene.target.stop();
}

#[test]
fn the_old_spare_goes_in_the_middle_and_the_set_waits_for_it() {
    let mut scene = made(two_spares());
    begin_slowly(&scene);
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    wait_until("the end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
    wait_until("the set to wait", LIMIT, || scene.status()["state"] == "waiting");
    let waits_for = scene.status()["waits_for"].to_string();
    assert!(waits_for.contains(SPARE_UUID), "{waits_for}");
    let file = scene.spare.display().to_string();
    let params = json!({ "name": "Spare0", "filename": file, "block_size": BLOCK, "uuid": SPARE_UUID });
    scene.target.rpc("bdev_aio_create", params);
    wait_until("the set to come back", LIMIT, || scene.status()["state"] == "online");
    assert_on(&scene, "Spare0");
    // Free again.
    begin(&scene, json!({ "spare_bdev": "Spare1" }));
    assert_eq!(scene.ended("migrate")["state"], "done");
    assert_on(&scene, "Spare1");
    scene.target.kill9();
    scene.start_assembling(&faults(), &["Spare0", "Fault0", "Spare1"]);
    assert_content(&scene, 1);
    scene.target.stop();
}

#[test]
fn rescues_adds_removes_saves_and_resets_go_on_beside_it() {
    let mut scene = made(Stack { reactors: 2, ..two_spares() });
    begin_slowly(&scene);
    let mut host = scene.host();
    scene.target.rpc("bdev_fault_inject", fault(5000, 8, "write", "write_fault"));
    assert_eq!(host.write(5000, &stamped(5000, 8, 7)).unwrap(), Status::SUCCESS, "rescued");
    let added = scene.target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 6000, "num_blocks": 8 }));
    assert_eq!(added["added"], 8, "{added}");
    scene.target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
    let removed = scene.target.rpc("bdev_remap_remove", json!({ "name": "Remap0", "lba": 6000, "num_blocks": 4 }));
    assert_eq!(removed["removed"], 4, "{removed}");
    assert_eq!(scene.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }))["all_copies"], true);
    for lba in (0..WRITTEN).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 3)).unwrap(), Status::SUCCESS);
    }
    assert_eq!(scene.status()["state"], "migrating", "all of that came between");
    scene.target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
    let job = scene.ended("migrate");
    assert_eq!(job["state"], "done", "{job}");
    let remapped = WRITTEN / 2 + 8 + 4;
    assert_eq!(scene.count("remapped"), remapped);
    scene.target.kill9();
    scene.start_assembling(&faults(), &["Spare0", "Spare1", "Fault0"]);
    assert_eq!((&scene.status()["spare_bdev"], scene.count("remapped")), (&json!("Spare1"), remapped));
    assert_content(&scene, 3);
    assert!(scene.host().read(5000, 8).unwrap().unwrap() == stamped(5000, 8, 7));
    scene.target.stop();
}

#[test]
fn a_new_spare_that_becomes_full_ends_it() {
    // Room for the blocks that are there, and for fewer than come.
    let mut scene = made(Stack { spare1_mib: 9, ..Stack::default() });
    begin(&scene, json!({ "spare_bdev": "Spare1", "max_mbps": 1 }));
    let added = scene.target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 6000, "num_blocks": 1000 }));
    assert_eq!(added["added"], 1000, "{added}");
    let job = scene.ended("migrate");
    let error = job["error"].as_str().unwrap_or_else(|| panic!("{job}"));
    assert!(job["state"] == "failed" && error.contains("no room left"), "{job}");
    assert_eq!(scene.status()["spare_bdev"], "Spare0");
    assert_content(&scene, 1);
    scene.target.stop();
}

/// A configuration has its bdevs in the order in which they were made: the spare comes behind the set that has moved to it.
#[test]
fn a_configuration_that_is_saved_after_it_brings_the_set_back_as_it_was() {
    let mut scene = made(Stack { options: json!({ "remap_on": "any", "storm_limit": 77_777 }), ..Stack::default() });
    let file = scene.target.file("late", 32);
    let late = json!({ "name": "Late", "filename": file, "block_size": BLOCK, "uuid": SPARE1_UUID });
    scene.target.rpc("bdev_aio_create", late);
    begin(&scene, json!({ "spare_bdev": "Late" }));
    assert_eq!(scene.ended("migrate")["state"], "done");
    let saved = scene.target.saved_config();
    scene.target.stop();
    if let Err(log) = scene.target.try_start(&saved) {
        panic!("the saved configuration was refused:\n{log}");
    }
    assert_on(&scene, "Late");
    let status = scene.status();
    assert_eq!((&status["remap_on"], &status["storm_limit"]), (&json!("any"), &json!(77_777)), "{status}");
    assert_content(&scene, 1);
    scene.target.stop();
}

#[test]
fn deleted_or_stopped_in_the_middle_it_ends_in_order() {
    let mut scene = made(two_spares());
    begin_slowly(&scene);
    assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0" })), true);
    let (code, _) = refused(&scene, json!({ "spare_bdev": "Spare1" }));
    assert_eq!(code, -19, "it is gone");
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
    scene.target.rpc("bdev_remap_create", create);
    assert_on(&scene, "Spare0");
    begin_slowly(&scene);
    scene.target.stop();
    scene.start_assembling(&faults(), &["Spare1", "Spare0", "Fault0"]);
    assert_on(&scene, "Spare0");
    assert_content(&scene, 1);
    scene.target.stop();
}

/// At the switch no superblock of the old spare can be written, so that it is not known which spare is in force: hosts' writes wait. Then
/// that spare goes: so do the writes, and the set.
#[test]
fn a_switch_that_cannot_end_does_not_hold_up_the_removal_of_the_old_spare() {
    let mut scene = made(Stack { faulty_spare: true, ..two_spares() });
    begin_slowly(&scene);
    let (old, page) = (SpareFile::open(&scene.spare), BLOCK as u64);
    for copy in BOTH {
        let bad = spare_fault(old.superblock(copy) / page, 1, "write", "write_fault");
        scene.target.rpc("bdev_fault_inject", bad);
    }
    let host = scene.host();
    let mut queue = host.queue(2).unwrap();
    wait_until("the switch", LIMIT, || scene.target.log().contains("whether the old spare was given up"));
    queue.submit(write_command(1, 1), &stamped(1, 1, 9), 0).unwrap();
    scene.target.rpc("bdev_fault_delete", json!({ "name": "Spare0" }));
    let answer = queue.complete();
    assert!(answer.as_ref().is_ok_and(|done| !done.status.ok()), "nobody knows where it would be: {answer:?}");
    wait_until("the end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
    scene.target.rpc("bdev_fault_create", json!({ "name": "Spare0", "base_bdev": "SpareDisk0" }));
    wait_until("the set to come back", LIMIT, || scene.status()["state"] == "online");
    assert_on(&scene, "Spare0");
    scene.target.kill9();
    scene.start_assembling(&faults(), &["Spare1", "Fault0", "Spare0"]);
    assert_content(&scene, 1);
    scene.target.stop();
}

/// A load at queue depth 1, of writes of remapped blocks and of others, while a set of 100,000 remapped blocks moves: its longest waits.
#[test]
#[ignore = "measures"]
fn how_long_io_waits_while_100_000_remapped_blocks_move() {
    const REMAPPED: u64 = 100_000;
    let stack = Stack { base_mib: 1024, spare_mib: 512, spare1_mib: 600, reactors: 2, ..Stack::default() };
    let mut scene = Scene::of(stack, &[]);
    for first in (0..REMAPPED).step_by(2500) {
        let extents: Vec<_> = (first..first + 2500).map(|block| (2 * block).to_string()).collect();
        let params = json!({ "name": "Remap0", "extents": extents.join(",") });
        assert_eq!(scene.target.rpc("bdev_remap_import", params)["added"], 2500);
    }
    let mut host = scene.host();
    let data = stamped(0, 1, 1);
    let mut waits = |until: &mut dyn FnMut() -> bool| {
        let (mut longest, mut count, mut lba) = (vec![Duration::ZERO; 5], 0, 0);
        while count % 64 != 0 || !until() {
            lba = (lba + 7919) % (2 * REMAPPED);
            let begun = Instant::now();
            assert_eq!(host.write(lba, &data).unwrap(), Status::SUCCESS);
            longest.push(begun.elapsed());
            longest.sort_unstable_by(|a, b| b.cmp(a));
            longest.truncate(5);
            count += 1;
        }
        (count, longest)
    };
    let end = Instant::now() + Duration::from_secs(3);
    announce(&format!("before: {:?}", waits(&mut || Instant::now() > end)));
    for name in ["Ring0", "Ring1"] {
        let params = json!({ "name": name, "filename": scene.target.file(name, 600), "block_size": BLOCK });
        scene.target.rpc("bdev_uring_create", params);
    }
    // Whoever leaves an aio bdev waits for the kernel: to close a channel of one takes it some 30 ms, on each thread.
    for (to, mbps) in [("Ring0", 100), ("Ring1", 100), ("Ring0", 100_000), ("Spare1", 100_000)] {
        let from = scene.status()["spare_bdev"].clone();
        begin(&scene, json!({ "spare_bdev": to, "max_mbps": mbps }));
        let (count, longest) = waits(&mut || scene.job("migrate").unwrap()["state"] != "running");
        let job = scene.ended("migrate");
        assert_eq!((&job["state"], &job["blocks_done"]), (&json!("done"), &json!(REMAPPED)), "{job}");
        announce(&format!("from {from} to {to}, {mbps} MB/s at most: {count} writes, the longest {longest:?}; {job}"));
    }
    scene.target.stop();
}
