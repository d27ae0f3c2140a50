//! Auto-assembly: sets come online by themselves when base and spare are there, whatever the order, at the start and later.

use std::{path::Path, time::Duration};

use e2e::{
    config::Config,
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, Scene, connect, fault, free_port, stamped},
    spare_format::{BOTH, SpareFile},
    target::Target,
    wait::wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A set with four remapped blocks whose base is a plain AIO bdev, on disk, its target stopped.
struct Made {
    scene: Scene,
    data: Vec<u8>,
}

/// As for `bdev_aio_create`.
fn aio(name: &str, file: &Path, uuid: &str) -> Value {
    json!({ "name": name, "filename": file, "block_size": BLOCK, "uuid": uuid })
}

impl Made {
    fn new() -> Made {
        // The faults come from a vbdev whose UUID is not that of its base: it is what the set remembers.
        let mut scene = Scene::start(&[fault(100, 4, "write", "write_fault")]);
        let data = stamped(96, 12, 1);
        assert!(scene.host().write(96, &data).expect("connected").ok());
        assert_eq!(scene.count("remapped"), 4);
        scene.target.stop();
        Made { scene, data }
    }

    fn base(&self, config: Config) -> Config {
        let config = config.aio("Base0", &self.scene.base, BLOCK as u32, BASE_UUID);
        config.bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
    }

    fn spare(&self, config: Config) -> Config {
        config.aio("Spare0", &self.scene.spare, BLOCK as u32, SPARE_UUID)
    }

    #[track_caller]
    fn online(&self) -> bool {
        let all = self.scene.target.rpc("bdev_remap_status", json!({}));
        all[0]["name"] == "Remap0" && all[0]["state"] == "online" && all[0]["remapped"] == 4
    }

    #[track_caller]
    fn waiting(&self) -> Value {
        let status = self.scene.target.status("Remap0");
        assert_eq!(status["state"], "waiting", "{status}");
        status
    }

    #[track_caller]
    fn reads_back(&self, port: u16) {
        assert_eq!(connect(port, NQN).read(96, 12).expect("connected"), Ok(self.data.clone()));
    }
}

#[test]
fn a_set_comes_online_whether_base_or_spare_is_first() {
    let mut made = Made::new();
    for spare_first in [true, false] {
        let port = free_port();
        let config = Config::new();
        let config = if spare_first { made.base(made.spare(config)) } else { made.spare(made.base(config)) };
        made.scene.target.start(&config.export("Remap0", NQN, port));
        assert!(made.online(), "spare first: {spare_first}");
        made.reads_back(port);
        made.scene.target.stop();
    }
}

#[test]
fn a_set_that_lost_a_device_waits_and_comes_back_with_it() {
    let mut made = Made::new();
    let config = made.spare(made.base(Config::new()));
    made.scene.target.start(&config);
    assert!(made.online());
    let target = &made.scene.target;

    target.rpc("bdev_aio_delete", json!({ "name": "Base0" }));
    wait_until("the end of Remap0", SOON, || !target.has_bdev("Remap0"));
    wait_until("the set to wait", SOON, || target.status("Remap0")["state"] == "waiting");
    wait_until("the spare to be found", SOON, || target.status("Remap0")["spare_bdev"] == "Spare0");
    let status = made.waiting();
    assert!(status["waits_for"].as_str().is_some_and(|what| what.contains("the base with UUID")), "{status}");
    target.rpc("bdev_aio_create", aio("Base0", &made.scene.base, BASE_UUID));
    target.rpc("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
    wait_until("Remap0 to come back", SOON, || made.online());

    target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    wait_until("the end of Remap0", SOON, || !target.has_bdev("Remap0"));
    wait_until("the set to keep its base", SOON, || target.status("Remap0")["base_bdev"] == "Fault0");
    let status = made.waiting();
    assert!(status["waits_for"].as_str().is_some_and(|what| what.contains("the spare with UUID")), "{status}");
    assert_eq!(status["spare_bdev"], Value::Null, "{status}");
    target.rpc("bdev_aio_create", aio("Spare0", &made.scene.spare, SPARE_UUID));
    wait_until("Remap0 to come back", SOON, || made.online());
    made.scene.target.stop();
}

/// A spare that takes 200 ms for each I/O is loaded slowly enough for its base to go meanwhile. Whoever waits for bdevs to be
/// examined must not wait for ever: SPDK keeps a bdev that was just registered until they are.
#[test]
fn a_base_that_goes_while_its_set_is_assembled_holds_nothing_up() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 16), target.file("spare", 16));
    let disks =
        Config::new().aio("Base0", &base, BLOCK as u32, BASE_UUID).aio("SpareDisk", &spare, BLOCK as u32, SPARE_UUID);
    let spare = |latency_us: u32| json!({ "name": "Spare0", "base_bdev": "SpareDisk", "latency_us": latency_us });
    let create = json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" });
    target.start(&disks.clone().bdev("bdev_fault_create", spare(0)).bdev("bdev_remap_create", create));
    target.stop();
    target.start(&disks);
    target.rpc("bdev_fault_create", spare(200_000));
    wait_until("the set to be opened", SOON, || {
        let all = target.rpc("bdev_remap_status", json!({}));
        assert_ne!(all[0]["state"], "online", "too fast for this test");
        all[0]["state"] == "opening"
    });
    target.rpc("bdev_aio_delete", json!({ "name": "Base0" }));
    target.rpc("bdev_wait_for_examine", Value::Null);
    wait_until("the set to wait", SOON, || target.status("Remap0")["state"] == "waiting");
    assert!(!target.has_bdev("Remap0") && !target.has_bdev("Base0"));
    target.rpc("bdev_aio_create", aio("Base0", &base, BASE_UUID));
    wait_until("Remap0 to come back", SOON, || target.status("Remap0")["state"] == "online");
    target.stop();
}

#[test]
fn a_create_call_agrees_with_assembly_and_sets_its_options() {
    let mut made = Made::new();
    let create =
        json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0", "remap_on": "any", "storm_limit": 7 });
    let config = made.base(made.spare(Config::new())).bdev("bdev_remap_create", create);
    made.scene.target.start(&config);
    assert!(made.online());
    let status = made.scene.target.status("Remap0");
    assert_eq!((&status["remap_on"], &status["storm_limit"]), (&json!("any"), &json!(7)), "{status}");
}

#[test]
fn a_deleted_set_stays_away() {
    let mut made = Made::new();
    made.scene.target.start(&made.base(made.spare(Config::new())));
    let target = &made.scene.target;
    target.rpc("bdev_remap_delete", json!({ "name": "Remap0" }));
    // Another bdev that appears is no reason to bring it back.
    target.rpc("bdev_malloc_create", json!({ "name": "Other", "num_blocks": 1024, "block_size": BLOCK }));
    target.rpc("bdev_wait_for_examine", Value::Null);
    assert!(!target.has_bdev("Remap0"));
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
    target.rpc("bdev_remap_create", create);
    assert!(made.online());
}

#[test]
fn the_base_of_a_refused_set_is_kept_from_others() {
    let mut made = Made::new();
    let spare = SpareFile::open(&made.scene.spare);
    for copy in BOTH {
        let (offset, len) = spare.log_bytes(copy);
        spare.write(offset, &vec![0x5a; len]);
    }
    made.scene.target.start(&made.base(made.spare(Config::new())));
    let status = made.waiting();
    assert!(status["waits_for"].as_str().is_some_and(|why| why.contains("spare_bdev Spare0")), "{status}");
    assert_eq!(status["base_bdev"], "Fault0", "{status}");
    let passthru = json!({ "name": "Other", "base_bdev_name": "Fault0" });
    assert!(made.scene.target.call("bdev_passthru_create", passthru).is_err() || !made.scene.target.has_bdev("Other"));
    made.scene.target.stop();
}
