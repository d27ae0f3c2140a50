//! Creating a Remap bdev: what is refused, what is taken again, what comes back after a restart.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BASE_UUID, NQN, SPARE_UUID, Scene, connect, fault, stamped},
    target::Target,
};
use serde_json::{Value, json};

fn create(base: &str, spare: &str) -> Value {
    json!({ "name": "Remap0", "base_bdev": base, "spare_bdev": spare })
}

fn create_and(base: &str, spare: &str, name: &str, value: Value) -> Value {
    let mut params = create(base, spare);
    params[name] = value;
    params
}

/// A parameter that is wrong in itself: -32602, and the sentence names it.
#[test]
fn wrong_parameters_are_named() {
    let mut target = Target::with(&Config::new().malloc("Base", 16, 4096).malloc("Spare", 16, 4096));
    let cases = [
        (json!({ "base_bdev": "Base", "spare_bdev": "Spare" }), "name"),
        (json!({ "name": "Remap0", "spare_bdev": "Spare" }), "base_bdev"),
        (json!({ "name": "Remap0", "base_bdev": "Base" }), "spare_bdev"),
        (Value::Null, "name"),
        (create_and("Base", "Spare", "spar_bdev", json!("Spare")), "spar_bdev"),
        (create_and("Base", "Spare", "name", json!(5)), "name"),
        (create_and("Base", "Spare", "name", json!("")), "name"),
        (create_and("Base", "Spare", "name", json!("x".repeat(192))), "1 to 191"),
        (create_and("Base", "Spare", "base_bdev", json!(["Base"])), "base_bdev"),
        (create_and("Base", "Spare", "uuid", json!("zzz")), "uuid"),
        (create_and("Base", "Spare", "format", json!("sometimes")), "format"),
        (create_and("Base", "Spare", "remap_on", json!("monday")), "remap_on"),
        (create_and("Base", "Spare", "storm_limit", json!("many")), "storm_limit"),
        (create_and("Base", "Spare", "storm_limit", json!(-1)), "storm_limit"),
    ];
    for (params, wrong) in cases {
        let (code, message) = target.refused("bdev_remap_create", params.clone());
        assert_eq!(code, -32602, "{params}: {message}");
        assert!(message.contains(wrong), "{params}: {message}");
    }
    assert!(!target.has_bdev("Remap0"));
    for method in
        ["bdev_remap_delete", "bdev_remap_list", "bdev_remap_save", "bdev_remap_restore", "bdev_remap_set_options"]
    {
        let (code, message) = target.refused(method, json!({}));
        assert_eq!(code, -32602, "{method}: {message}");
        assert!(message.contains("name"), "{method}: {message}");
        let (code, message) = target.refused(method, json!({ "name": "Nope" }));
        assert_eq!(code, -19, "{method}: {message}");
        assert!(message.contains("Nope"), "{method}: {message}");
    }
    assert_eq!(target.rpc("bdev_remap_create", create("Base", "Spare")), "Remap0");
    target.stop();
}

#[test]
fn longest_name_is_remembered() {
    let name = "é".repeat(95) + "x";
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 16), target.file("spare", 16));
    let config = Config::new().aio("Base", &base, 4096, BASE_UUID).aio("Spare", &spare, 4096, SPARE_UUID);
    target.start(&config);
    assert_eq!(target.rpc("bdev_remap_create", create_and("Base", "Spare", "name", json!(name))), name.as_str());
    target.stop();
    // Assembly knows it from the spare.
    target.start(&config);
    let status = target.status(&name);
    assert_eq!((&status["state"], &status["base_bdev"]), (&json!("online"), &json!("Base")), "{status}");
    target.stop();
}

/// Devices that do not fit: a negative errno, the sentence names the thing, and nothing has changed.
#[test]
fn devices_that_do_not_fit_are_refused_and_left_alone() {
    let mut target = Target::prepare();
    let junk = target.file("junk", 16);
    let content: Vec<u8> = (0..64 * 1024u32).map(|i| (i * 7 + 1) as u8).collect();
    File::options().write(true).open(&junk).unwrap().write_all_at(&content, 0).unwrap();
    let config = Config::new()
        .malloc("Base", 16, 4096)
        .malloc("Spare", 16, 4096)
        .malloc("Small", 1, 4096)
        .malloc("Other512", 16, 512)
        .bdev("bdev_malloc_create", json!({ "name": "Tiny", "num_blocks": 4, "block_size": 4096 }))
        .bdev(
            "bdev_malloc_create",
            json!({ "name": "Dif", "num_blocks": 4096, "block_size": 4096, "md_size": 8, "dif_type": 1 }),
        )
        .bdev("bdev_malloc_create", json!({ "name": "Md", "num_blocks": 4096, "block_size": 4096, "md_size": 8 }))
        .malloc("TakenBase", 16, 4096)
        .malloc("TakenSpare", 16, 4096)
        .bdev("bdev_passthru_create", json!({ "name": "P1", "base_bdev_name": "TakenBase" }))
        .bdev("bdev_passthru_create", json!({ "name": "P2", "base_bdev_name": "TakenSpare" }))
        .aio("Junk", &junk, 4096, SPARE_UUID);
    target.start(&config);

    let cases = [
        (create("Nope", "Spare"), "Nope"),
        (create("Base", "Nope"), "Nope"),
        (create("Base", "Base"), "another"),
        (create("Base", "Other512"), "512"),
        (create("Base", "Tiny"), "MiB"),
        (create("TakenBase", "Spare"), "TakenBase"),
        (create("Base", "TakenSpare"), "TakenSpare"),
        (create("Dif", "Spare"), "Dif"),
        (create("Base", "Md"), "Md"),
        (create("Base", "Junk"), "Junk"),
        (create_and("Base", "Spare", "format", json!("never")), "Spare"),
        (create_and("Base", "Spare", "name", json!("Small")), "Small"),
    ];
    for (params, thing) in cases {
        let (code, message) = target.refused("bdev_remap_create", params.clone());
        assert!(code < 0, "{params}: {message} ({code})");
        assert!(message.contains(thing), "{params}: {message}");
        assert!(!target.has_bdev("Remap0"), "{params}");
    }
    assert_eq!(target.rpc("bdev_remap_status", json!({})), json!([]));
    // Nothing is left claimed: others can take the bdevs, and so can a call that is right.
    target.rpc("bdev_passthru_create", json!({ "name": "P3", "base_bdev_name": "Junk" }));
    target.rpc("bdev_passthru_delete", json!({ "name": "P3" }));
    target.rpc("bdev_passthru_create", json!({ "name": "P4", "base_bdev_name": "Base" }));
    target.rpc("bdev_passthru_delete", json!({ "name": "P4" }));
    assert_eq!(target.rpc("bdev_remap_create", create("Base", "Spare")), "Remap0");

    let after = fs::read(&junk).unwrap();
    assert_eq!(after[..content.len()], content[..]);
    assert!(after[content.len()..].iter().all(|&byte| byte == 0));
    // What is no set can be overwritten, if that is what one wants.
    let forced = json!({ "name": "Remap1", "base_bdev": "Small", "spare_bdev": "Junk", "format": "force" });
    assert_eq!(target.rpc("bdev_remap_create", forced), "Remap1");
    target.stop();
}

#[test]
fn foreign_spare_is_refused_until_wiped() {
    let mut target = Target::prepare();
    let files = [target.file("base1", 16), target.file("base2", 16), target.file("spare", 16)];
    let config = Config::new()
        .aio("Base1", &files[0], 4096, BASE_UUID)
        .aio("Base2", &files[1], 4096, "33333333-3333-4333-8333-333333333333")
        .aio("Spare", &files[2], 4096, SPARE_UUID);
    target.start(&config);
    target.rpc("bdev_remap_create", create("Base1", "Spare"));
    target.rpc("bdev_remap_delete", json!({ "name": "Remap0" }));
    let before = fs::read(&files[2]).unwrap();

    let (code, message) = target.refused("bdev_remap_create", create("Base2", "Spare"));
    assert!(code < 0 && message.contains("Spare"), "{message} ({code})");
    assert!(!target.has_bdev("Remap0"));
    assert_eq!(fs::read(&files[2]).unwrap(), before);

    // Force is for what is no set; a set is given up by wiping it, on its own base.
    let (code, _) = target.refused("bdev_remap_create", create_and("Base2", "Spare", "format", json!("force")));
    assert!(code < 0);
    assert_eq!(fs::read(&files[2]).unwrap(), before);
    target.rpc("bdev_remap_create", create("Base1", "Spare"));
    target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true }));
    target.rpc("bdev_remap_create", create("Base2", "Spare"));
    assert_eq!(target.status("Remap0")["base_bdev"], "Base2");
    target.stop();
}

#[test]
fn create_again_is_a_success_and_changes_nothing() {
    let mut target =
        Target::with(&Config::new().malloc("Base", 16, 4096).malloc("Base2", 16, 4096).malloc("Spare", 16, 4096));
    target.rpc("bdev_remap_create", create("Base", "Spare"));
    let uuid = target.status("Remap0")["uuid"].take();
    assert_eq!(target.rpc("bdev_remap_create", create("Base", "Spare")), "Remap0");
    assert_eq!(target.status("Remap0")["uuid"], uuid);
    assert_eq!(target.rpc("bdev_remap_status", json!({})).as_array().unwrap().len(), 1);

    // The same name for something else is no repetition.
    let (code, message) = target.refused("bdev_remap_create", create("Base2", "Spare"));
    assert!(code < 0 && !message.is_empty(), "{message}");
    assert_eq!(target.status("Remap0")["base_bdev"], "Base");
    target.stop();
}

#[test]
fn bdev_get_bdevs_shows_a_remap_object() {
    let mut scene = Scene::start(&[fault(5, 1, "write", "write_fault")]);
    assert_eq!(scene.host().write(5, &stamped(5, 1, 1)).unwrap(), Status::SUCCESS);
    let bdev = scene.target.rpc("bdev_get_bdevs", json!({ "name": "Remap0" }));
    let (base, remap) = (&bdev[0], &bdev[0]["driver_specific"]["remap"]);
    assert_eq!((base["block_size"].as_u64(), base["num_blocks"].as_u64()), (Some(4096), Some(16384)), "{bdev}");
    assert_eq!(remap["base_bdev"], "Fault0", "{bdev}");
    assert_eq!(remap["spare_bdev"], "Spare0", "{bdev}");
    assert_eq!(remap["remapped"], 1, "{bdev}");
    scene.target.stop();
}

#[test]
fn saved_config_brings_everything_back() {
    let mut scene = Scene::start(&[fault(5, 3, "write", "write_fault")]);
    assert_eq!(scene.host().write(4, &stamped(4, 8, 1)).unwrap(), Status::SUCCESS);
    let config = scene.target.saved_config();
    assert!(config.to_string().contains("bdev_remap_create"), "save_config must contain the call");
    scene.target.stop();

    if let Err(log) = scene.target.try_start(&config) {
        panic!("the saved configuration was refused:\n{log}");
    }
    assert_eq!(scene.count("remapped"), 3);
    assert_eq!(connect(scene.port, NQN).read(4, 8).unwrap().unwrap(), stamped(4, 8, 1));
    scene.target.stop();
}
