//! The operator's methods: status, list, save, restore, delete.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use e2e::{
    nvme_tcp::Status,
    scene::{Scene, fault, stamped},
};
use serde_json::{Value, json};

fn remap0() -> Value {
    json!({ "name": "Remap0" })
}

/// Remap0 with the blocks 10..13, 20 and 30 remapped.
fn scene_with_remaps() -> Scene {
    let faults = [
        fault(10, 3, "write", "write_fault"),
        fault(20, 1, "write", "write_fault"),
        fault(30, 1, "write", "write_fault"),
    ];
    let scene = Scene::start(&faults);
    assert_eq!(scene.host().write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 5);
    scene
}

#[test]
fn status_says_how_things_are() {
    let mut scene = scene_with_remaps();
    let status = scene.status();
    assert_eq!(status["name"], "Remap0");
    assert_eq!(status["state"], "online");
    assert_eq!((&status["base_bdev"], &status["spare_bdev"]), (&json!("Fault0"), &json!("Spare0")));
    assert_eq!((&status["remap_on"], &status["storm_limit"]), (&json!("media"), &json!(4096)));
    let spare = |field: &str| status["spare"][field].as_u64().unwrap_or_else(|| panic!("{field}: {status}"));
    assert_eq!((spare("used"), spare("bad")), (5, 0));
    assert_eq!(spare("free"), spare("total") - 5);
    for copy in ["superblock_a", "superblock_b", "log_a", "log_b"] {
        assert_eq!(status["metadata"][copy], "ok", "{copy}");
    }
    assert!(status["counters"].is_object(), "{status}");
    assert_eq!(scene.target.rpc("bdev_remap_status", json!({})).as_array().unwrap().len(), 1);
    scene.target.stop();
}

#[test]
fn list_goes_on_where_it_stopped() {
    let mut scene = scene_with_remaps();
    let all = scene.target.rpc("bdev_remap_list", remap0());
    let lbas = |list: &Value| -> Vec<(u64, u64)> {
        list["extents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["lba"].as_u64().unwrap(), e["num_blocks"].as_u64().unwrap()))
            .collect()
    };
    // Neighbours may come as one extent or, where their spare blocks are no neighbours, as several.
    assert_eq!(lbas(&all).iter().map(|(_, blocks)| blocks).sum::<u64>(), 5, "{all}");
    assert!(all.get("next").is_none_or(Value::is_null), "{all}");
    assert!(
        all["extents"].as_array().unwrap().iter().all(|e| e["state"] == "remapped" && e["spare_lba"].is_u64()),
        "{all}"
    );

    let mut params = remap0();
    params["max"] = 1.into();
    let mut pages = Vec::new();
    loop {
        let page = scene.target.rpc("bdev_remap_list", params.clone());
        assert_eq!(page["extents"].as_array().unwrap().len(), 1, "{page}");
        pages.extend(lbas(&page));
        match page["next"].as_u64() {
            Some(next) => params["lba"] = next.into(),
            None => break,
        }
    }
    assert_eq!(pages, lbas(&all));

    let mut from = remap0();
    from["lba"] = 21.into();
    assert_eq!(lbas(&scene.target.rpc("bdev_remap_list", from)), [(30, 1)]);
    scene.target.stop();
}

#[test]
fn save_writes_a_checkpoint_that_is_loaded() {
    let mut scene = scene_with_remaps();
    let epoch = scene.count("epoch");
    let saved = scene.target.rpc("bdev_remap_save", remap0());
    assert_eq!(saved["epoch"], epoch + 1, "{saved}");
    assert!(saved["bytes"].as_u64().unwrap() > 0 && saved["duration_us"].is_u64(), "{saved}");
    // Many saves in turn use both areas.
    for _ in 0..5 {
        scene.target.rpc("bdev_remap_save", remap0());
    }
    assert_eq!(scene.count("epoch"), epoch + 6);
    scene.target.kill9();
    scene.start_again(&[]);
    assert_eq!((scene.count("epoch"), scene.count("remapped")), (epoch + 6, 5));
    assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
    scene.target.stop();
}

#[test]
fn restore_finds_no_difference_on_a_healthy_set() {
    let mut scene = scene_with_remaps();
    let before = scene.target.rpc("bdev_remap_list", remap0());
    let mut dry = remap0();
    dry["dry_run"] = true.into();
    scene.target.rpc("bdev_remap_restore", dry);
    scene.target.rpc("bdev_remap_restore", remap0());
    assert_eq!(scene.target.rpc("bdev_remap_list", remap0()), before);
    assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
    scene.target.stop();
}

#[test]
fn delete_frees_the_members_and_keeps_the_data() {
    let mut scene = scene_with_remaps();
    assert_eq!(scene.target.rpc("bdev_remap_delete", remap0()), true);
    assert!(!scene.target.has_bdev("Remap0"));
    for member in ["Fault0", "Spare0"] {
        scene.target.rpc("bdev_passthru_create", json!({ "name": "P", "base_bdev_name": member }));
        scene.target.rpc("bdev_passthru_delete", json!({ "name": "P" }));
    }
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
    scene.target.rpc("bdev_remap_create", create);
    assert_eq!(scene.count("remapped"), 5);
    scene.target.stop();
}

#[test]
fn wipe_is_refused_while_blocks_are_remapped() {
    let mut scene = scene_with_remaps();
    let (code, message) = scene.target.refused("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true }));
    assert!(code < 0 && message.contains("5"), "{message} ({code})");
    assert!(scene.target.has_bdev("Remap0"));
    assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));

    let spare = fs::read(&scene.spare).unwrap();
    assert!(spare[..4096].iter().any(|&byte| byte != 0));
    assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true, "force": true })), true);
    scene.target.stop();
    let spare = fs::read(&scene.spare).unwrap();
    assert!(
        spare[..4096].iter().chain(&spare[spare.len() - 4096..]).all(|&byte| byte == 0),
        "both superblocks are erased"
    );
}

#[test]
fn wipe_makes_an_empty_spare() {
    let mut scene = Scene::start(&[]);
    let uuid = scene.status()["uuid"].take();
    assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true })), true);
    scene.target.rpc("bdev_remap_create", json!({ "name": "Again", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    let status = scene.target.status("Again");
    assert_eq!(status["remapped"], 0);
    assert_ne!(status["uuid"], uuid, "a new set");
    scene.target.stop();
}

/// Inverts a byte of the spare's file while nothing runs.
fn damage(scene: &Scene, offset: u64) {
    let file = File::options().read(true).write(true).open(&scene.spare).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

#[test]
fn damaged_copy_is_reported_and_repaired_by_save() {
    let mut scene = scene_with_remaps();
    scene.target.stop();
    let spare_size = fs::metadata(&scene.spare).unwrap().len();
    // The two superblocks are at both ends of the spare (docs/format.md).
    for (offset, copy) in [(200, "superblock_a"), (spare_size - 4096 + 200, "superblock_b")] {
        damage(&scene, offset);
        scene.start_again(&[]);
        let status = scene.status();
        assert_eq!((&status["state"], &status["metadata"][copy]), (&json!("degraded"), &json!("bad")), "{status}");
        assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
        scene.target.rpc("bdev_remap_save", remap0());
        let status = scene.status();
        assert_eq!((&status["state"], &status["metadata"][copy]), (&json!("online"), &json!("ok")), "{status}");
        scene.target.stop();
    }
    scene.start_again(&[]);
    assert_eq!(scene.status()["state"], "online");
    assert_eq!((scene.count("remapped"), scene.host().read(0, 32).unwrap().unwrap()), (5, stamped(0, 32, 1)));
    scene.target.stop();
}

#[test]
fn spare_damaged_beyond_doubt_is_refused_untouched() {
    let mut scene = scene_with_remaps();
    scene.target.stop();
    let spare_size = fs::metadata(&scene.spare).unwrap().len();
    damage(&scene, 200);
    damage(&scene, spare_size - 4096 + 200);
    let before = fs::read(&scene.spare).unwrap();
    let log = scene.target.try_start(&scene.config(&[]).to_json()).unwrap_err();
    assert!(log.contains("no valid superblock"), "{log}");
    assert!(fs::read(&scene.spare).unwrap() == before, "the spare must be left as it was");
}
