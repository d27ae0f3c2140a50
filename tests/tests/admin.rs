//! The operator's methods: status, list, save, restore, delete.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BASE_UUID, SPARE_UUID, Scene, copies_ok, fault, stamped},
    spare_format::{self, BOTH, SpareFile},
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

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
    assert!(copies_ok(&status), "{status}");
    assert!(status["metadata"]["degraded_at"].is_null() && status["metadata"]["healed_at"].is_null(), "{status}");
    assert_eq!(status["flush"], json!({ "base": true, "spare": true }), "AIO takes FLUSH: {status}");
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
    assert!(scene.status()["last_save_at"].is_null(), "{}", scene.status());
    let before = unix_time();
    let saved = scene.target.rpc("bdev_remap_save", remap0());
    assert_eq!(saved["epoch"], epoch + 1, "{saved}");
    assert!(saved["bytes"].as_u64().unwrap() > 0 && saved["duration_us"].is_u64(), "{saved}");
    assert_eq!(saved["all_copies"], true, "{saved}");
    let status = scene.status();
    assert_eq!(status["last_save_epoch"], epoch + 1, "{status}");
    assert!((before..=unix_time()).contains(&scene.count("last_save_at")), "{status}");
    // Many saves in turn use both areas.
    for _ in 0..5 {
        scene.target.rpc("bdev_remap_save", remap0());
    }
    assert_eq!(scene.count("epoch"), epoch + 6);
    scene.target.stop();
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

    let spare = SpareFile::open(&scene.spare);
    assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true, "force": true })), true);
    scene.target.stop();
    assert!(spare.is_wiped(), "both superblocks are erased, and the first pages of each area of the log");
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

/// So that what was not seen while loading can never come back and win.
#[test]
fn first_commit_after_an_open_is_under_a_new_epoch() {
    let mut scene = scene_with_remaps();
    scene.target.stop();
    let before = SpareFile::open(&scene.spare).log();
    scene.start_again(&[fault(40, 2, "write", "write_fault")]);
    assert_eq!(scene.count("epoch"), before.epoch, "loading alone writes nothing");
    assert_eq!(scene.host().write(40, &stamped(40, 1, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("epoch"), before.epoch + 1);
    assert_eq!(scene.host().write(41, &stamped(41, 1, 1)).unwrap(), Status::SUCCESS);
    let after = SpareFile::open(&scene.spare).log();
    assert_eq!((after.epoch, after.pages), (before.epoch + 1, after.checkpoint + 2), "{after:?}");
    assert_ne!(after.area, before.area);
    scene.target.kill9();
    scene.start_again(&[]);
    assert_eq!(scene.count("epoch"), before.epoch + 2, "what the dead one had under way is settled at once");
    assert_eq!(scene.count("remapped"), 7);
    assert_eq!(scene.host().read(40, 2).unwrap().unwrap(), stamped(40, 2, 1));
    scene.target.stop();
}

/// Inverts a byte of the spare's file while nothing runs.
fn damage(spare: &SpareFile, offset: u64) {
    let byte = spare.read(offset, 1)[0];
    spare.write(offset, &[!byte]);
}

#[test]
fn damaged_copy_is_whole_again_right_after_loading() {
    let mut scene = scene_with_remaps();
    scene.target.stop();
    for copy in BOTH {
        let spare = SpareFile::open(&scene.spare);
        damage(&spare, spare.superblock(copy) + 200);
        let before = unix_time();
        scene.start_again(&[]);
        let status = scene.status();
        assert!(status["state"] == "online" && copies_ok(&status), "{copy:?}: {status}");
        let healed_at = status["metadata"]["healed_at"].as_u64().unwrap_or_else(|| panic!("{copy:?}: {status}"));
        assert!((before..=unix_time()).contains(&healed_at), "{copy:?}: {status}");
        spare.assert_whole(&format!("superblock {copy:?}"));
        assert_eq!(scene.host().read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));
        scene.target.stop();
        spare.assert_whole(&format!("superblock {copy:?}, after a stop"));
    }
    scene.start_again(&[]);
    let status = scene.status();
    assert!(status["state"] == "online" && status["metadata"]["healed_at"].is_null(), "nothing was bad: {status}");
    assert_eq!((scene.count("remapped"), scene.host().read(0, 32).unwrap().unwrap()), (5, stamped(0, 32, 1)));
    scene.target.stop();
}

#[test]
fn spare_damaged_beyond_doubt_is_refused_untouched() {
    let mut scene = scene_with_remaps();
    scene.target.stop();
    let spare = SpareFile::open(&scene.spare);
    BOTH.iter().for_each(|copy| damage(&spare, spare.superblock(*copy) + 200));
    refused_at_start(&mut scene, &spare, "no valid superblock");
}

/// Starts the target, which must end with these words in its log and both files as they were.
#[track_caller]
fn refused_at_start(scene: &mut Scene, spare: &SpareFile, words: &str) {
    let files = |scene: &Scene| (spare.bytes(), fs::read(&scene.base).unwrap());
    let before = files(scene);
    let log = scene.target.try_start(&scene.config(&[]).to_json()).unwrap_err();
    assert!(log.contains(words), "\"{words}\" is not in: {log}");
    assert!(files(scene) == before, "{words}: base and spare must be left as they were");
}

/// A spare that lost both superblocks is no empty one: its log still shows that it belongs to a set.
#[test]
fn erased_spare_is_formatted_by_force_only_and_a_wiped_one_by_auto() {
    let mut scene = scene_with_remaps();
    let uuid = scene.status()["uuid"].as_str().map(str::to_owned).unwrap();
    scene.target.stop();
    let spare = SpareFile::open(&scene.spare);
    spare.zero_superblocks();
    refused_at_start(&mut scene, &spare, &format!("its remap log holds pages of set {uuid}: it was erased"));

    let create = |more: Value| {
        let mut params = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let disks = Config::new()
        .aio("Base0", &scene.base, 4096, BASE_UUID)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .aio("Spare0", &scene.spare, 4096, SPARE_UUID);
    scene.target.start(&disks);
    let before = spare.bytes();
    for format in ["auto", "never"] {
        let (code, message) = scene.target.refused("bdev_remap_create", create(json!({ "format": format })));
        assert!(code == -17 && message.contains("it was erased"), "{format}: {message} ({code})");
    }
    assert!(spare.bytes() == before && !scene.target.has_bdev("Remap0"));

    scene.target.rpc("bdev_remap_create", create(json!({ "format": "force" })));
    let status = scene.status();
    assert_eq!((&status["remapped"], &status["state"]), (&json!(0), &json!("online")), "{status}");
    assert_ne!(status["uuid"], uuid.as_str(), "a new set");
    scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true }));
    assert!(spare.is_wiped());
    scene.target.rpc("bdev_remap_create", create(json!({ "format": "auto" })));
    assert_eq!(scene.count("remapped"), 0);
    spare.assert_whole("formatted again");
    scene.target.stop();
}

/// Waits until both superblocks say that `sequence` is committed.
#[track_caller]
fn wait_for_the_note(scene: &Scene, sequence: u64) {
    wait_until("the note of what is committed", LIMIT, || {
        spare_format::superblocks(&scene.spare)
            .iter()
            .all(|copy| copy.as_ref().is_some_and(|s| s.committed() == sequence))
    });
}

/// The end of the log is gone from both copies without a trace. Nothing but the superblocks knows of it.
#[test]
fn lost_end_of_the_log_is_refused_once_it_was_noted() {
    for stopped in [false, true] {
        let mut scene = scene_with_remaps();
        let sequence = scene.count("sequence");
        if stopped {
            // The clean end is a note, too: nobody waits for the other one.
            scene.target.stop();
            let noted = spare_format::superblocks(&scene.spare).map(|copy| copy.map(|copy| copy.committed()));
            assert_eq!(noted, [Some(sequence); 2], "after a clean stop");
        } else {
            wait_for_the_note(&scene, sequence);
            scene.target.kill9();
        }
        let spare = SpareFile::open(&scene.spare);
        let log = spare.log();
        assert_eq!((log.last, log.pages > log.checkpoint), (sequence, true), "{log:?}");
        for copy in BOTH {
            spare.write(spare.page(copy, log.area, log.pages - 1), &[0; 4096]);
        }
        let words =
            format!("the superblock knows that log page {sequence} was committed, the log ends at {}", sequence - 1);
        refused_at_start(&mut scene, &spare, &words);
    }
}
