//! The `spdk_tgt` that scripts/remap_tgt.sh builds, with bdev_remap and SPDK linked in: what production would run.

use std::path::Path;

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, connect, free_port, stamped},
    target::Target,
};
use serde_json::{Value, json};

const BAD: [u64; 4] = [7, 8, 1000, 16383];

/// The base fails by SPDK's own error bdev, as there is no bdev_fault.
fn remap_over_errors(base: &Path, spare: &Path, port: u16) -> Config {
    let disk_uuid = "44444444-4444-4444-8444-444444444444";
    let create = json!({ "name": "Remap0", "base_bdev": "EE_Base0", "spare_bdev": "Spare0", "remap_on": "any" });
    Config::new()
        .aio("Base0", base, BLOCK as u32, disk_uuid)
        .bdev("bdev_error_create", json!({ "base_name": "Base0", "uuid": BASE_UUID }))
        .aio("Spare0", spare, BLOCK as u32, SPARE_UUID)
        .bdev("bdev_remap_create", create)
        .export("Remap0", NQN, port)
}

#[test]
fn linked_target_has_its_remaps_after_a_kill_and_needs_nothing_loaded() {
    let mut target = Target::prepare_linked();
    let (base, spare, port) = (target.file("base", 64), target.file("spare", 16), free_port());
    let config = remap_over_errors(&base, &spare, port);
    target.start(&config);

    let loaded = target.mappings();
    assert!(loaded.contains("/spdk_tgt\n"), "{loaded}");
    assert!(!loaded.contains("libspdk_") && !loaded.contains("librte_") && !loaded.contains("libbdev_"), "{loaded}");
    let methods = target.rpc("rpc_get_methods", Value::Null).to_string();
    assert!(methods.contains("bdev_remap_migrate") && !methods.contains("bdev_fault_"), "{methods}");

    let list = |target: &Target| target.rpc("bdev_remap_list", json!({ "name": "Remap0" }));
    let mut host = connect(port, NQN);
    assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    for lba in BAD {
        // The host's own, and the rescue's.
        let next_two = json!({ "name": "EE_Base0", "io_type": "write", "error_type": "failure", "num": 2 });
        target.rpc("bdev_error_inject_error", next_two);
        assert_eq!(host.write(lba, &stamped(lba, 1, 2)).unwrap(), Status::SUCCESS, "LBA {lba}");
    }
    let before = list(&target);
    assert_eq!(target.status("Remap0")["remapped"], BAD.len(), "{before}");
    target.kill9();

    target.start(&config);
    assert_eq!(list(&target), before);
    let mut host = connect(port, NQN);
    for lba in BAD.into_iter().chain(0..32) {
        let round = if BAD.contains(&lba) { 2 } else { 1 };
        assert!(host.read(lba, 1).unwrap() == Ok(stamped(lba, 1, round)), "LBA {lba}");
    }
    target.stop();
}
