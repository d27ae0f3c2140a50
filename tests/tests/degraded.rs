//! The spare fails in part: blocks of its data area, one copy of its metadata, both copies.

use std::time::Duration;

use e2e::{
    nvme_tcp::{Host, Status},
    scene::{Scene, Stack, copies_ok, fault_every, spare_fault, stack_with_caches, stamped},
    spare_format::{self, BOTH, Copy, SpareFile, field},
    wait::wait_until,
};
use serde_json::{Value, json};

fn remap0() -> Value {
    json!({ "name": "Remap0" })
}

/// The copies are tried again after pauses that double, a minute at most.
const HEALING: Duration = Duration::from_secs(70);

/// Every fourth block of the base is bad for good.
fn bad_base() -> Vec<Value> {
    vec![fault_every(4, 0, 4096, "write", "write_fault"), fault_every(4, 0, 4096, "read", "read_error")]
}

fn start() -> (Scene, Host) {
    let scene = Scene::of(Stack { faulty_spare: true, ..Stack::default() }, &bad_base());
    let mut host = scene.host();
    assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 8);
    (scene, host)
}

/// Faults in one copy of all metadata.
fn copy_fault(scene: &Scene, copy: Copy, op: &str) -> Value {
    let (first, blocks) = SpareFile::open(&scene.spare).metadata_blocks(copy);
    spare_fault(first, blocks, op, "write_fault")
}

/// Waits until all copies of the metadata are whole again, which nobody asks for, and looks at the file.
#[track_caller]
fn wait_until_healed(scene: &Scene, what: &str) {
    wait_until("the copies to be whole again", HEALING, || scene.status()["state"] == "online");
    let status = scene.status();
    assert!(copies_ok(&status) && status["metadata"]["healed_at"].is_u64(), "{what}: {status}");
    SpareFile::open(&scene.spare).assert_whole(what);
}

/// While a copy is bad, the end of the log is exactly known before a commit is acknowledged: the good superblock says it.
#[track_caller]
fn check_that_all_is_noted(scene: &Scene, bad: Copy) {
    // A checkpoint that is tried meanwhile goes on behind it.
    let acknowledged = scene.count("sequence");
    let [a, b] = spare_format::superblocks(&scene.spare);
    let good = if bad == Copy::A { b } else { a }.expect("a valid superblock");
    assert!(good.committed() >= acknowledged, "{} is noted, {acknowledged} acknowledged", good.committed());
    assert_eq!(good.number(field::NOTED_EPOCH), good.number(field::EPOCH), "copy {bad:?} is bad");
}

fn spare_lba(scene: &Scene, lba: u64) -> u64 {
    let list = scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "lba": lba, "max": 1 }));
    assert_eq!(list["extents"][0]["lba"], lba, "{list}");
    list["extents"][0]["spare_lba"].as_u64().unwrap()
}

#[test]
fn spare_block_that_goes_bad_is_replaced_and_never_used_again() {
    let (mut scene, mut host) = start();
    let (four, eight) = (spare_lba(&scene, 4), spare_lba(&scene, 8));
    let faults = [spare_fault(four, 1, "write", "write_fault"), spare_fault(eight, 1, "all", "read_error")];
    for fault in &faults {
        scene.target.rpc("bdev_fault_inject", fault.clone());
    }
    // A write goes to another spare block; a read of a block whose only copy is unreadable fails until it is written.
    assert_eq!(host.read(4, 1).unwrap().unwrap(), stamped(4, 1, 1));
    assert_eq!(host.write(3, &stamped(3, 3, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(8, 1).unwrap().unwrap_err(), Status::READ_ERROR);
    assert_eq!(host.write(8, &stamped(8, 1, 2)).unwrap(), Status::SUCCESS);
    let status = scene.status();
    assert_eq!((&status["spare"]["bad"], &status["remapped"]), (&json!(2), &json!(8)), "{status}");
    assert_eq!(host.write(32, &stamped(32, 32, 1)).unwrap(), Status::SUCCESS);

    scene.target.kill9();
    scene.start_again(&[bad_base(), faults.to_vec()].concat());
    let status = scene.status();
    assert_eq!((&status["spare"]["bad"], &status["remapped"]), (&json!(2), &json!(16)), "{status}");
    for lba in (0..64).step_by(4) {
        assert!(![four, eight].contains(&spare_lba(&scene, lba)), "LBA {lba} is on a bad spare block");
    }
    let mut host = scene.host();
    let expected = [stamped(0, 3, 1), stamped(3, 3, 2), stamped(6, 2, 1), stamped(8, 1, 2), stamped(9, 55, 1)].concat();
    assert_eq!(host.read(0, 32).unwrap().unwrap(), expected[..32 * 4096]);
    assert_eq!(host.read(32, 32).unwrap().unwrap(), expected[32 * 4096..]);
    scene.target.stop();
}

#[test]
fn one_unwritable_metadata_copy_is_degraded_and_still_durable() {
    for copy in BOTH {
        let (mut scene, mut host) = start();
        let (superblock, log) = copy.names();
        let fault = copy_fault(&scene, copy, "write");
        scene.target.rpc("bdev_fault_inject", fault.clone());
        for lba in (32..512).step_by(32) {
            assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
            check_that_all_is_noted(&scene, copy);
        }
        let status = scene.status();
        assert_eq!((&status["state"], &status["metadata"][log]), (&json!("degraded"), &json!("bad")), "{status}");
        assert!(status["metadata"]["degraded_at"].is_u64() && status["metadata"]["healed_at"].is_null(), "{status}");
        assert_eq!(status["remapped"], 128, "{status}");
        // A save cannot repair what cannot be written, but what it writes is durable.
        let saved = scene.target.rpc("bdev_remap_save", remap0());
        assert_eq!(saved["all_copies"], false, "{saved}");
        assert_eq!(scene.status()["metadata"][superblock], "bad");
        assert_eq!(host.write(512, &stamped(512, 32, 1)).unwrap(), Status::SUCCESS);

        scene.target.kill9();
        scene.start_again(&[bad_base(), vec![fault]].concat());
        assert_eq!((scene.status()["state"].as_str(), scene.count("remapped")), (Some("degraded"), 136));
        assert_eq!(scene.host().read_all(0, 544).unwrap().unwrap(), stamped(0, 544, 1));
        // The copy can be written again. Each is enough then while the other is dead.
        scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
        wait_until_healed(&scene, &format!("copy {copy:?} after a restart"));
        scene.target.kill9();

        let fault = copy_fault(&scene, copy.other(), "all");
        scene.start_again(&[bad_base(), vec![fault]].concat());
        assert_eq!((scene.status()["state"].as_str(), scene.count("remapped")), (Some("degraded"), 136));
        assert_eq!(scene.host().read_all(0, 544).unwrap().unwrap(), stamped(0, 544, 1));
        scene.target.stop();
    }
}

#[test]
fn log_copy_that_fails_for_a_while_is_made_whole_without_being_asked() {
    for copy in BOTH {
        let (mut scene, mut host) = start();
        let (superblock, log) = copy.names();
        let (offset, len) = SpareFile::open(&scene.spare).log_bytes(copy);
        let fault = spare_fault(offset / 4096, len as u64 / 4096, "write", "write_fault");
        scene.target.rpc("bdev_fault_inject", fault);
        assert_eq!(host.write(32, &stamped(32, 32, 1)).unwrap(), Status::SUCCESS);
        let status = scene.status();
        assert_eq!((&status["state"], &status["metadata"][log]), (&json!("degraded"), &json!("bad")), "{status}");
        assert_eq!(status["metadata"][superblock], "ok", "{status}");
        let degraded_at = status["metadata"]["degraded_at"].as_u64().unwrap_or_else(|| panic!("{status}"));
        check_that_all_is_noted(&scene, copy);
        // It goes on trying, and does not say that it is well.
        let epoch = scene.count("epoch");
        wait_until("another attempt", HEALING, || scene.count("epoch") > epoch);
        assert_eq!(scene.status()["state"], "degraded");
        assert_eq!(host.write(64, &stamped(64, 32, 1)).unwrap(), Status::SUCCESS);
        check_that_all_is_noted(&scene, copy);

        let epoch = scene.count("epoch");
        scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
        wait_until_healed(&scene, &format!("log copy {copy:?}"));
        let status = scene.status();
        assert!(status["metadata"]["healed_at"].as_u64() >= Some(degraded_at), "{status}");
        assert!(status["epoch"].as_u64() > Some(epoch) && status["last_save_epoch"] == status["epoch"], "{status}");
        assert_eq!(status["metadata"]["degraded_at"], degraded_at, "{status}");

        // Each copy has all of it by itself.
        for dead in BOTH {
            scene.target.kill9();
            let fault = copy_fault(&scene, dead, "all");
            scene.start_again(&[bad_base(), vec![fault]].concat());
            assert_eq!(scene.count("remapped"), 24);
            assert_eq!(scene.host().read_all(0, 96).unwrap().unwrap(), stamped(0, 96, 1));
            scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
            wait_until_healed(&scene, &format!("log copy {copy:?}, then {dead:?}"));
        }
        scene.target.stop();
    }
}

/// The caches lose some of what was not flushed, while only one copy of the log has the last commits.
#[test]
fn power_cut_while_one_metadata_copy_is_bad_loses_nothing() {
    for (seed, copy) in (1..=3).flat_map(|seed| BOTH.map(|copy| (seed, copy))) {
        let what = format!("copy {copy:?}, seed {seed}");
        let mut scene = Scene::of(stack_with_caches(Stack::default()), &bad_base());
        let mut host = scene.host();
        assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
        let fault = copy_fault(&scene, copy, "write");
        scene.target.rpc("bdev_fault_inject", fault.clone());
        for lba in (32..128).step_by(8) {
            assert_eq!(host.write(lba, &stamped(lba, 8, 1)).unwrap(), Status::SUCCESS, "{what}: LBA {lba}");
        }
        assert_eq!(host.flush().unwrap(), Status::SUCCESS);
        for lba in (128..224).step_by(8) {
            assert_eq!(host.write(lba, &stamped(lba, 8, 1)).unwrap(), Status::SUCCESS, "{what}: LBA {lba}");
        }
        assert_eq!(scene.status()["state"], "degraded", "{what}");
        check_that_all_is_noted(&scene, copy);
        for name in ["Spare0", "Fault0"] {
            scene.target.rpc("bdev_fault_power_cut", json!({ "name": name, "keep": "random", "seed": seed }));
        }
        scene.target.kill9();

        // The copy may have come back by then, or not.
        let comes_back = seed % 2 == 0;
        let faults = if comes_back { bad_base() } else { [bad_base(), vec![fault]].concat() };
        scene.start_again(&faults);
        let status = scene.status();
        let state = if comes_back { "online" } else { "degraded" };
        assert_eq!((&status["state"], &status["remapped"]), (&json!(state), &json!(56)), "{what}: {status}");
        let mut host = scene.host();
        assert_eq!(host.read_all(0, 128).unwrap().unwrap(), stamped(0, 128, 1), "{what}");
        // Relocated blocks are durable when they are acknowledged, others by the flush that did not come.
        for lba in 128..224 {
            let read = host.read(lba, 1).unwrap();
            let right = read == Ok(stamped(lba, 1, 1)) || (lba % 4 > 0 && read == Ok(vec![0; 4096]));
            assert!(right, "{what}: LBA {lba}");
        }
        scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
        wait_until_healed(&scene, &what);
        scene.target.stop();
    }
}

#[test]
fn no_writable_metadata_copy_refuses_rescues_and_nothing_else() {
    let (mut scene, mut host) = start();
    for copy in BOTH {
        let fault = copy_fault(&scene, copy, "write");
        scene.target.rpc("bdev_fault_inject", fault);
    }
    // The original error goes up, again and again; nothing is acknowledged that could not be found after a crash.
    for _ in 0..3 {
        assert_eq!(host.write(100, &stamped(100, 1, 1)).unwrap(), Status::WRITE_FAULT);
        assert_eq!(host.write(104, &stamped(104, 4, 1)).unwrap(), Status::WRITE_FAULT);
    }
    assert_eq!(host.read(108, 1).unwrap().unwrap_err(), Status::READ_ERROR);
    let status = scene.status();
    assert_eq!((&status["state"], &status["remapped"]), (&json!("degraded"), &json!(8)), "{status}");
    assert!(status["counters"]["refused_log_failed"].as_u64().unwrap() > 0, "{status}");
    let (code, message) = scene.target.refused("bdev_remap_save", remap0());
    assert!(code == -5 && message.contains("any copy"), "{message} ({code})");
    // Reads and plain writes go on, on the base and on the spare.
    assert_eq!(host.write(101, &stamped(101, 3, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.write(0, &stamped(0, 32, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(0, 32).unwrap().unwrap(), stamped(0, 32, 2));
    assert_eq!(host.read(101, 3).unwrap().unwrap(), stamped(101, 3, 1));

    scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
    // The log is not tried for every write that fails, but after a pause.
    wait_until("rescues to work again", HEALING, || host.write(100, &stamped(100, 8, 3)).unwrap().ok());
    wait_until_healed(&scene, "both copies");
    let counts = ["remapped", "pending", "lost"].map(|count| scene.count(count));
    assert_eq!(counts, [10, 0, 0], "what was refused has left no trace");
    scene.target.kill9();
    scene.start_again(&bad_base());
    assert_eq!(scene.status()["state"], "online");
    assert_eq!(["remapped", "pending", "lost"].map(|count| scene.count(count)), counts);
    let mut host = scene.host();
    assert_eq!(host.read(0, 32).unwrap().unwrap(), stamped(0, 32, 2));
    assert_eq!(host.read(100, 8).unwrap().unwrap(), stamped(100, 8, 3));
    scene.target.stop();
}
