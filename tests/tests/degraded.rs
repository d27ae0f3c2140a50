//! The spare fails in part: blocks of its data area, one copy of its metadata, both copies.

use e2e::{
    nvme_tcp::{Host, Status},
    scene::{Scene, Stack, fault_every, spare_fault, stamped},
    spare_format::{BOTH, Copy, SpareFile},
};
use serde_json::{Value, json};

fn remap0() -> Value {
    json!({ "name": "Remap0" })
}

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

fn names(copy: Copy) -> (&'static str, &'static str) {
    if copy == Copy::A { ("superblock_a", "log_a") } else { ("superblock_b", "log_b") }
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
        let (superblock, log) = names(copy);
        let fault = copy_fault(&scene, copy, "write");
        scene.target.rpc("bdev_fault_inject", fault.clone());
        for lba in (32..512).step_by(32) {
            assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
        }
        let status = scene.status();
        assert_eq!((&status["state"], &status["metadata"][log]), (&json!("degraded"), &json!("bad")), "{status}");
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
        // The copy can be written again: a save puts all right. Each copy is enough then while the other is dead.
        scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
        scene.target.rpc("bdev_remap_save", remap0());
        assert_eq!(scene.status()["state"], "online", "{}", scene.status());
        scene.target.kill9();

        let other = if copy == Copy::A { Copy::B } else { Copy::A };
        let fault = copy_fault(&scene, other, "all");
        scene.start_again(&[bad_base(), vec![fault]].concat());
        assert_eq!((scene.status()["state"].as_str(), scene.count("remapped")), (Some("degraded"), 136));
        assert_eq!(scene.host().read_all(0, 544).unwrap().unwrap(), stamped(0, 544, 1));
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
    assert_eq!(host.write(100, &stamped(100, 8, 3)).unwrap(), Status::SUCCESS, "rescues work again");
    scene.target.rpc("bdev_remap_save", remap0());
    assert_eq!(scene.status()["state"], "online");
    scene.target.kill9();
    scene.start_again(&bad_base());
    assert_eq!(scene.status()["state"], "online");
    let mut host = scene.host();
    assert_eq!(host.read(0, 32).unwrap().unwrap(), stamped(0, 32, 2));
    assert_eq!(host.read(100, 8).unwrap().unwrap(), stamped(100, 8, 3));
    scene.target.stop();
}
