//! A member goes away while Remap0 is in use: no crash, and everything is there again when the member is.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use e2e::{
    config::Config,
    nvme_tcp::{Host, Status},
    scene::{BASE_UUID, SPARE_UUID, Scene, fault_every, stack_on_two_reactors, stamped},
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

/// Writes and reads until told to stop or until the device fails.
fn load(mut host: Host, stop: &AtomicBool) {
    for round in 0.. {
        let lba = round * 8 % 4096;
        let done = host.write(lba, &stamped(lba, 8, round)).is_ok_and(Status::ok)
            && host.read(lba, 8).is_ok_and(|r| r.is_ok());
        if stop.load(Ordering::Relaxed) || !done {
            return;
        }
    }
}

/// Deletes `member` under load, and waits until Remap0 is gone.
fn remove_under_load(scene: &mut Scene, member: &str) {
    let stop = AtomicBool::new(false);
    let (one, two) = (scene.host(), scene.host());
    thread::scope(|scope| {
        scope.spawn(|| load(one, &stop));
        scope.spawn(|| load(two, &stop));
        wait_until("some I/O", LIMIT, || scene.count("remapped") > 3);
        scene.target.rpc("bdev_aio_delete", json!({ "name": member }));
        wait_until("end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(scene.target.runs());
    // It is known without either of them; what is there of it is kept for it.
    let (field, kept) = if member == "Base0" { ("spare_bdev", "Spare0") } else { ("base_bdev", "Fault0") };
    wait_until("what status says then", LIMIT, || {
        let status = scene.target.rpc("bdev_remap_status", json!({}))[0].take();
        status["state"] == "waiting" && status[field] == kept
    });
}

fn faults() -> Vec<Value> {
    vec![fault_every(50, 0, 4096, "write", "write_fault"), fault_every(50, 0, 4096, "read", "read_error")]
}

#[test]
fn removal_of_the_base_under_load() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults());
    let data = stamped(8000, 8, 9);
    assert_eq!(scene.host().write(8000, &data).unwrap(), Status::SUCCESS);
    remove_under_load(&mut scene, "Base0");
    // The spare is free for others, or for the base when it comes back.
    let file = scene.base.display().to_string();
    scene
        .target
        .rpc("bdev_aio_create", json!({ "name": "Base0", "filename": file, "block_size": 4096, "uuid": BASE_UUID }));
    if !scene.target.has_bdev("Fault0") {
        scene.target.rpc("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
    }
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    assert!(scene.count("remapped") > 3);
    scene.target.kill9();
    scene.start_again(&faults());
    assert_eq!(scene.host().read(8000, 8).unwrap().unwrap(), data);
    scene.target.stop();
}

#[test]
fn removal_of_the_spare_under_load() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults());
    remove_under_load(&mut scene, "Spare0");
    let file = scene.spare.display().to_string();
    scene
        .target
        .rpc("bdev_aio_create", json!({ "name": "Spare0", "filename": file, "block_size": 4096, "uuid": SPARE_UUID }));
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    assert!(scene.count("remapped") > 3);
    scene.target.stop();
}

#[test]
fn half_a_set_waits_and_holds_nothing_up() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    scene.target.stop();
    let config = Config::new().aio("Spare0", &scene.spare, 4096, SPARE_UUID);
    scene.target.start(&config);
    assert!(!scene.target.has_bdev("Remap0"));
    assert_eq!(scene.status()["state"], "waiting");
    // A half set does not keep its member from being removed, nor the target from stopping.
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    scene.target.stop();
}
