//! `bdev_remap_scrub`: what is bad is found before a host meets it, and whatever comes between ends or goes on in order.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    nvme_tcp::Status,
    scene::{Scene, copies_ok, fault, fault_every, stamped},
    spare_format::{BOTH, SpareFile},
    wait::{wait_for, wait_until},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Blocks of the base.
const BLOCKS: u64 = 16_384;

/// Begins a scrub of Remap0.
fn begin(scene: &Scene, more: Value) {
    assert_eq!(scene.target.rpc("bdev_remap_scrub", params(more)), true);
}

fn params(more: Value) -> Value {
    let mut params = json!({ "name": "Remap0" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

fn refused(scene: &Scene, more: Value) -> (i64, String) {
    scene.target.refused("bdev_remap_scrub", params(more))
}

/// The scrub in Remap0's status.
fn job(scene: &Scene) -> Option<Value> {
    scene.job("scrub")
}

/// Waits for its end; how it ended.
fn ended(scene: &Scene) -> Value {
    scene.ended("scrub")
}

/// A scrub of which the end is far.
fn slow() -> Value {
    json!({ "max_mbps": 1 })
}

#[test]
fn blocks_that_cannot_be_read_are_found_and_rescued_when_they_can() {
    let mut scene = Scene::start(&[]);
    let mut host = scene.host();
    assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    for bad in [fault(7, 1, "read", "read_error"), fault(1000, 3, "read", "read_error")] {
        scene.target.rpc("bdev_fault_inject", bad);
    }
    begin(&scene, json!({ "max_mbps": 1000 }));
    let job = ended(&scene);
    assert_eq!((&job["state"], &job["blocks_done"]), (&json!("done"), &json!(BLOCKS)), "{job}");
    let found = |job: &Value, field: &str| job["scrub"][field].as_u64().unwrap_or_else(|| panic!("{field}: {job}"));
    assert_eq!((found(&job, "unreadable"), found(&job, "blocks_read")), (4, BLOCKS - 4), "{job}");
    assert!(found(&job, "metadata_pages") > 2 && found(&job, "metadata_bad") == 0, "{job}");
    assert_eq!(scene.count("pending"), 4, "no host has read them");

    scene.target.rpc("bdev_fault_clear", json!({ "name": "Fault0" }));
    begin(&scene, json!({ "lba": 0, "num_blocks": 100 }));
    let job = ended(&scene);
    assert_eq!((found(&job, "rescued"), found(&job, "unreadable"), &job["blocks_total"]), (1, 0, &json!(100)), "{job}");
    assert_eq!((scene.count("pending"), scene.count("remapped")), (3, 1));
    scene.target.rpc("bdev_fault_inject", fault(7, 1, "read", "read_error"));
    assert_eq!(host.read(0, 32).unwrap().unwrap(), stamped(0, 32, 1), "block 7 is on the spare");
    scene.target.kill9();
    scene.start_again(&[fault(7, 1, "read", "read_error")]);
    assert_eq!((scene.count("pending"), scene.count("remapped")), (3, 1));
    assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
    scene.target.stop();
}

#[test]
fn damage_of_each_copy_of_the_metadata_is_found_and_healed() {
    let mut scene = Scene::start(&[fault(10, 3, "write", "write_fault")]);
    assert_eq!(scene.host().write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    let spare = SpareFile::open(&scene.spare);
    for copy in BOTH {
        let log = spare.log();
        for place in [spare.superblock(copy) + 200, spare.page(copy, log.area, log.pages - 1) + 90] {
            let byte = spare.read(place, 1)[0];
            spare.write(place, &[!byte]);
            begin(&scene, json!({ "num_blocks": 1 }));
            let job = ended(&scene);
            assert_eq!(job["scrub"]["metadata_bad"], 1, "{copy:?}: {job}");
            let status = scene.status();
            assert!(status["state"] == "online" && copies_ok(&status), "{copy:?}: {status}");
            assert!(status["metadata"]["healed_at"].is_u64(), "{copy:?}: {status}");
            spare.assert_whole(&format!("{copy:?}"));
        }
    }
    scene.target.kill9();
    scene.start_again(&[]);
    assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
    scene.target.stop();
}

#[test]
fn what_cannot_be_begun_or_cancelled_is_refused_with_a_reason() {
    let mut scene = Scene::with(&[fault_every(2, 5000, 20, "write", "write_fault")], json!({ "storm_limit": 8 }));
    for (wrong, parameter) in [
        (json!({ "lba": BLOCKS }), "lba"),
        (json!({ "lba": 1, "num_blocks": BLOCKS }), "num_blocks"),
        (json!({ "num_blocks": 0 }), "num_blocks"),
        (json!({ "max_mbps": 0 }), "max_mbps"),
        (json!({ "cancel": true, "lba": 0 }), "cancel"),
    ] {
        let (code, message) = refused(&scene, wrong);
        assert!(code == -32602 && message.contains(parameter), "{message} ({code})");
    }
    let (code, message) = scene.target.refused("bdev_remap_scrub", json!({ "name": "Base0" }));
    assert!(code == -19 && message.contains("Base0"), "{message} ({code})");
    let (code, message) = refused(&scene, json!({ "cancel": true }));
    assert!(code == -2 && message.contains("scrub does not run"), "{message} ({code})");

    begin(&scene, slow());
    let running = wait_for("progress", LIMIT, || job(&scene).filter(|job| job["blocks_done"].as_u64() > Some(0)));
    assert_eq!((&running["state"], &running["blocks_total"]), (&json!("running"), &json!(BLOCKS)), "{running}");
    assert!(running["remaining_seconds"].as_u64() > Some(10), "{running}");
    let (code, message) = refused(&scene, json!({}));
    assert!(code == -16 && message.contains("scrub runs already"), "{message} ({code})");
    begin(&scene, json!({ "cancel": true }));
    assert_eq!(ended(&scene)["state"], "cancelled");

    assert!(!scene.host().write(5000, &stamped(5000, 20, 1)).unwrap().ok());
    assert_eq!(scene.status()["state"], "tripped");
    let (code, message) = refused(&scene, json!({}));
    assert!(code == -16 && message.contains("the storm brake is on"), "{message} ({code})");
    scene.target.stop();
    scene.start_again(&[]);
    assert_eq!(job(&scene), None, "a scrub that was cancelled is not gone on with");
    scene.target.stop();
}

#[test]
fn a_base_that_dies_ends_the_scrub_and_leaves_the_brake_off() {
    let mut scene = Scene::with(&[fault(3000, 10_000, "read", "read_error")], json!({ "storm_limit": 8 }));
    begin(&scene, json!({ "max_mbps": 1000 }));
    let job = ended(&scene);
    let error = job["error"].as_str().unwrap_or_else(|| panic!("{job}"));
    assert!(job["state"] == "failed" && error.contains("more than 8 blocks could not be read within 60 s"), "{job}");
    assert_eq!((&scene.status()["state"], scene.count("pending")), (&json!("online"), 0));
    scene.target.stop();
}

#[test]
fn deleted_stopped_or_killed_it_ends_at_once_and_goes_on_the_next_time() {
    let mut scene = Scene::start(&[fault(BLOCKS - 5, 1, "read", "read_error")]);
    begin(&scene, json!({ "lba": 4000, "max_mbps": 2 }));
    wait_until("progress", LIMIT, || job(&scene).is_some_and(|job| job["blocks_done"].as_u64() > Some(1000)));
    let begun = Instant::now();
    assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0" })), true);
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
    let (code, _) = refused(&scene, json!({}));
    assert_eq!(code, -19, "it is gone");
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
    scene.target.rpc("bdev_remap_create", create);
    let total = |scene: &Scene| job(scene).unwrap()["blocks_total"].as_u64().unwrap();
    let left = total(&scene);
    assert!(left <= BLOCKS - 4000 - 1000, "{left}");

    wait_until("progress", LIMIT, || job(&scene).is_some_and(|job| job["blocks_done"].as_u64() > Some(1000)));
    scene.target.stop();
    scene.start_again(&[fault(BLOCKS - 5, 1, "read", "read_error")]);
    let stopped = total(&scene);
    assert!(stopped <= left - 1000, "{stopped} of {left}");
    // Where it is is noted when it begins, and once a minute.
    wait_until("progress", LIMIT, || job(&scene).is_some_and(|job| job["blocks_done"].as_u64() > Some(500)));
    scene.target.kill9();
    scene.start_again(&[fault(BLOCKS - 5, 1, "read", "read_error")]);
    assert_eq!(total(&scene), stopped);
    let job = ended(&scene);
    assert_eq!((&job["state"], &job["scrub"]["unreadable"]), (&json!("done"), &json!(1)), "{job}");
    scene.target.stop();
}

/// A base that is reset aborts what is under way: that is no bad block.
#[test]
fn resets_neither_end_a_scrub_nor_make_blocks_pending() {
    let mut scene = Scene::start(&[]);
    begin(&scene, json!({ "max_mbps": 20 }));
    thread::scope(|scope| {
        let scene = &scene;
        let ended = scope.spawn(move || ended(scene));
        while !ended.is_finished() {
            scene.target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
            thread::sleep(Duration::from_millis(20));
        }
        let job = ended.join().unwrap();
        assert_eq!((&job["state"], &job["scrub"]["unreadable"]), (&json!("done"), &json!(0)), "{job}");
    });
    assert_eq!(scene.count("pending"), 0);
    scene.target.stop();
}
