//! The main job: what becomes of a write, and of a read, that meets a bad block.

use e2e::{
    nvme_tcp::Status,
    scene::{BLOCK, Scene, fault, fault_every, stack_on_two_reactors, stamped},
};
use serde_json::json;

/// Bad for good: neither writes nor reads work any more.
fn dead(stride: u64, lba: u64, blocks: u64) -> Vec<serde_json::Value> {
    vec![
        fault_every(stride, lba, blocks, "write", "write_fault"),
        fault_every(stride, lba, blocks, "read", "read_error"),
    ]
}

#[test]
fn acked_write_over_bad_blocks_survives_kill() {
    let faults = dead(7, 100, 100);
    let bad: Vec<u64> = (100..200).step_by(7).collect();
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults);
    let mut host = scene.host();
    let data = stamped(96, 128, 1);
    // Single blocks, then runs with several bad blocks in them.
    for lba in 96..112 {
        let at = (lba - 96) as usize * BLOCK;
        assert_eq!(host.write(lba, &data[at..at + BLOCK]).unwrap(), Status::SUCCESS, "LBA {lba}");
    }
    for lba in (112..224).step_by(16) {
        let at = (lba - 96) as usize * BLOCK;
        assert_eq!(host.write(lba, &data[at..at + 16 * BLOCK]).unwrap(), Status::SUCCESS, "LBA {lba}");
    }
    assert_eq!(host.read_all(96, 128).unwrap().unwrap(), data);
    assert_eq!(scene.count("remapped"), bad.len() as u64);

    scene.target.kill9();
    let base = scene.base_blocks(96, 128);
    for lba in 96..224 {
        let at = (lba - 96) as usize * BLOCK;
        let there = base[at..at + BLOCK] == data[at..at + BLOCK];
        assert_eq!(there, !bad.contains(&lba), "the base must hold LBA {lba} exactly if it is good");
    }

    scene.start_again(&faults);
    assert_eq!(scene.count("remapped"), bad.len() as u64);
    assert_eq!(scene.host().read_all(96, 128).unwrap().unwrap(), data);
    scene.target.stop();
}

#[test]
fn rewrite_of_a_remapped_block_survives_kill() {
    let faults = dead(1, 40, 3);
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults);
    let mut host = scene.host();
    for round in 1..=5 {
        assert_eq!(host.write(38, &stamped(38, 8, round)).unwrap(), Status::SUCCESS);
    }
    assert_eq!(scene.count("remapped"), 3);
    scene.target.kill9();
    scene.start_again(&faults);
    let mut host = scene.host();
    assert_eq!(host.read(38, 8).unwrap().unwrap(), stamped(38, 8, 5));
    // The block stays remapped although the base would take the write again.
    scene.target.rpc("bdev_fault_clear", json!({ "name": "Fault0" }));
    assert_eq!(host.write(40, &stamped(40, 3, 6)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 3);
    assert_eq!(scene.base_blocks(40, 3), vec![0; 3 * BLOCK]);
    scene.target.stop();
}

#[test]
fn failed_read_stays_failed_until_written() {
    let faults = [fault(50, 1, "read", "read_error")];
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults);
    let mut host = scene.host();
    assert_eq!(host.write(48, &stamped(48, 8, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(50, 1).unwrap().unwrap_err(), Status::READ_ERROR);
    assert_eq!(host.read(48, 8).unwrap().unwrap_err(), Status::READ_ERROR);
    assert_eq!(host.read(48, 2).unwrap().unwrap(), stamped(48, 2, 1));
    assert_eq!(host.read(51, 5).unwrap().unwrap(), stamped(51, 5, 1));
    assert_eq!((scene.count("pending"), scene.count("remapped")), (1, 0));
    let list = scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0" }));
    assert_eq!(list["extents"][0]["lba"], 50, "{list}");
    assert_eq!(list["extents"][0]["state"], "pending", "{list}");

    scene.target.kill9();
    scene.start_again(&faults);
    let mut host = scene.host();
    assert_eq!((scene.count("pending"), scene.count("remapped")), (1, 0));
    assert_eq!(host.read(50, 1).unwrap().unwrap_err(), Status::READ_ERROR);
    assert_eq!(host.write(49, &stamped(49, 3, 2)).unwrap(), Status::SUCCESS);
    assert_eq!((scene.count("pending"), scene.count("remapped")), (0, 1));
    assert_eq!(host.read(49, 3).unwrap().unwrap(), stamped(49, 3, 2));

    scene.target.kill9();
    assert_eq!(scene.base_blocks(50, 1), stamped(50, 1, 1), "the base was not tried again");
    scene.start_again(&faults);
    assert_eq!(scene.host().read(49, 3).unwrap().unwrap(), stamped(49, 3, 2));
    scene.target.stop();
}

#[test]
fn read_that_works_when_retried_is_a_success() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    let mut host = scene.host();
    assert_eq!(host.write(60, &stamped(60, 4, 1)).unwrap(), Status::SUCCESS);
    let mut once = fault(61, 1, "read", "read_error");
    once["count"] = 1.into();
    scene.target.rpc("bdev_fault_inject", once);
    assert_eq!(host.read(60, 4).unwrap().unwrap(), stamped(60, 4, 1));
    assert_eq!((scene.count("pending"), scene.count("remapped")), (0, 0));
    scene.target.stop();
}

#[test]
fn write_that_works_when_retried_is_not_remapped() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    let mut host = scene.host();
    let mut once = fault(61, 1, "write", "write_fault");
    once["count"] = 1.into();
    scene.target.rpc("bdev_fault_inject", once);
    assert_eq!(host.write(60, &stamped(60, 4, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 0);
    assert_eq!(host.read(60, 4).unwrap().unwrap(), stamped(60, 4, 1));
    scene.target.stop();
    assert_eq!(scene.base_blocks(60, 4), stamped(60, 4, 1));
}

#[test]
fn path_error_goes_up_unchanged() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[fault(10, 1, "all", "path")]);
    let mut host = scene.host();
    assert_eq!(host.write(10, &stamped(10, 1, 1)).unwrap().sct, 3);
    assert_eq!(host.write(8, &stamped(8, 4, 1)).unwrap().sct, 3);
    assert_eq!(host.read(10, 1).unwrap().unwrap_err().sct, 3);
    assert_eq!((scene.count("pending"), scene.count("remapped")), (0, 0));
    scene.target.stop();
}

#[test]
fn linux_medium_error_is_rescued_and_eio_only_with_remap_on_any() {
    let mut scene =
        Scene::of(stack_on_two_reactors(json!({})), &[fault(20, 1, "write", "aio_enodata"), fault(30, 1, "all", "io")]);
    let mut host = scene.host();
    assert_eq!(host.write(20, &stamped(20, 1, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 1);
    assert_eq!(host.write(30, &stamped(30, 1, 1)).unwrap(), Status::INTERNAL);
    assert_eq!(scene.count("remapped"), 1);

    let options = scene.target.rpc("bdev_remap_set_options", json!({ "name": "Remap0", "remap_on": "any" }));
    assert_eq!(options["remap_on"], "any");
    assert_eq!(host.write(30, &stamped(30, 1, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 2);
    assert_eq!(host.read(30, 1).unwrap().unwrap(), stamped(30, 1, 1));
    scene.target.stop();
}

#[test]
fn storm_brake_trips_and_is_rearmed() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({ "storm_limit": 16 })), &dead(1, 0, 1000));
    let mut host = scene.host();
    let first_failure = (0..1000).find(|&lba| !host.write(lba, &stamped(lba, 1, 1)).unwrap().ok());
    assert_eq!(first_failure, Some(16), "more than 16 blocks within a minute trip it");
    assert_eq!(scene.status()["state"], "tripped");
    assert_eq!(host.write(500, &stamped(500, 1, 1)).unwrap(), Status::WRITE_FAULT);
    // What was rescued is still there, and takes writes.
    assert_eq!(host.write(3, &stamped(3, 1, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(3, 2).unwrap().unwrap(), [stamped(3, 1, 2), stamped(4, 1, 1)].concat());

    scene.target.rpc("bdev_remap_set_options", json!({ "name": "Remap0", "rearm": true, "storm_limit": 4096 }));
    assert_eq!(scene.status()["state"], "online");
    assert_eq!(host.write(500, &stamped(500, 1, 1)).unwrap(), Status::SUCCESS);
    scene.target.stop();
}

#[test]
fn full_spare_passes_the_error_on_and_loses_nothing() {
    let faults = dead(1, 0, 16384);
    let mut scene = Scene::of(stack_on_two_reactors(json!({ "storm_limit": 100_000 })), &faults);
    let total = scene.status()["spare"]["total"].as_u64().unwrap();
    assert!((1000..4096).contains(&total), "{total} of 4096 blocks are for data");
    let mut host = scene.host();
    let mut lba = 0;
    while lba + 16 <= total {
        assert_eq!(host.write(lba, &stamped(lba, 16, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
        lba += 16;
    }
    while lba < total {
        assert_eq!(host.write(lba, &stamped(lba, 1, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
        lba += 1;
    }
    assert_eq!(scene.status()["spare"]["free"], 0);
    assert_eq!(host.write(total, &stamped(total, 1, 1)).unwrap(), Status::WRITE_FAULT);
    scene.target.kill9();
    scene.start_again(&faults);
    let mut host = scene.host();
    assert_eq!(scene.count("remapped"), total);
    for lba in 0..total {
        assert_eq!(host.read(lba, 1).unwrap().unwrap(), stamped(lba, 1, 1), "LBA {lba}");
    }
    scene.target.stop();
}
