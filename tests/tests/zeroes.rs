//! Write zeroes, unmap and flush where some blocks live on the spare.

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BLOCK, Scene, connect, fault, free_port, spare_fault, stamped},
    target::Target,
};
use serde_json::json;

#[test]
fn zeroes_reach_remapped_blocks() {
    let faults = [fault(10, 2, "write", "write_fault"), fault(100, 1, "write", "write_fault")];
    let mut scene = Scene::start(&faults);
    let mut host = scene.host();
    assert_eq!(host.write(8, &stamped(8, 8, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 2);
    assert_eq!(host.write_zeroes(9, 2).unwrap(), Status::SUCCESS);
    let expected = [stamped(8, 1, 1), vec![0; 2 * BLOCK], stamped(11, 5, 1)].concat();
    assert_eq!(host.read(8, 8).unwrap().unwrap(), expected);

    // Zeroes over a bad block that nobody knew of.
    assert_eq!(host.write_zeroes(98, 4).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 3);
    assert_eq!(host.flush().unwrap(), Status::SUCCESS);
    scene.target.kill9();
    scene.start_again(&faults);
    let mut host = scene.host();
    assert_eq!(host.read(8, 8).unwrap().unwrap(), expected);
    assert_eq!(host.read(98, 4).unwrap().unwrap(), vec![0; 4 * BLOCK]);
    scene.target.stop();
}

/// Over malloc, which has write zeroes and unmap of its own.
#[test]
fn unmap_leaves_the_neighbours_alone() {
    const NQN: &str = "nqn.2026-01.io.bdev-remap:zeroes";
    let port = free_port();
    let config = Config::new()
        .malloc("Base0", 16, BLOCK as u32)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault(10, 4, "write", "write_fault"))
        .malloc("Spare0", 16, BLOCK as u32)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }))
        .export("Remap0", NQN, port);
    let mut target = Target::with(&config);
    let mut host = connect(port, NQN);
    assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.unmap(8, 4).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(0, 8).unwrap().unwrap(), stamped(0, 8, 1));
    assert_eq!(host.read(12, 20).unwrap().unwrap(), stamped(12, 20, 1));
    assert_eq!(host.write_zeroes(12, 4).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(12, 4).unwrap().unwrap(), vec![0; 4 * BLOCK]);
    assert_eq!(host.write(8, &stamped(8, 8, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(8, 8).unwrap().unwrap(), stamped(8, 8, 2));
    assert_eq!(target.status("Remap0")["remapped"], 4);
    target.stop();
}

/// The bdev layer writes zeros to what takes no write_zeroes, and hides with which error that failed.
#[test]
fn zeroes_are_rescued_over_a_base_and_on_a_spare_that_take_none() {
    const NQN: &str = "nqn.2026-01.io.bdev-remap:no-zeroes";
    for (base_takes_none, what) in [(true, "neither takes any"), (false, "the spare takes none")] {
        let port = free_port();
        // A Fault bdev with a cache takes none.
        let fault_bdev =
            |name: &str, base: &str, none: bool| json!({ "name": name, "base_bdev": base, "volatile_cache": none });
        let config = Config::new()
            .malloc("Base0", 16, BLOCK as u32)
            .bdev("bdev_fault_create", fault_bdev("Fault0", "Base0", base_takes_none))
            .bdev("bdev_fault_inject", fault(99, 1, "write", "write_fault"))
            .malloc("SpareDisk0", 16, BLOCK as u32)
            .bdev("bdev_fault_create", fault_bdev("Spare0", "SpareDisk0", true))
            .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }))
            .export("Remap0", NQN, port);
        let mut target = Target::with(&config);
        let mut host = connect(port, NQN);
        assert_eq!(host.write(96, &stamped(96, 3, 1)).unwrap(), Status::SUCCESS);
        assert_eq!(host.write_zeroes(98, 4).unwrap(), Status::SUCCESS, "{what}: a bad block");
        assert_eq!(target.status("Remap0")["remapped"], 1, "{what}");
        assert_eq!(host.write(98, &stamped(98, 4, 2)).unwrap(), Status::SUCCESS);
        let list = target.rpc("bdev_remap_list", json!({ "name": "Remap0" }));
        let bad = spare_fault(list["extents"][0]["spare_lba"].as_u64().unwrap(), 1, "write", "write_fault");
        target.rpc("bdev_fault_inject", bad);
        assert_eq!(host.write_zeroes(98, 4).unwrap(), Status::SUCCESS, "{what}: a bad spare block");
        let status = target.status("Remap0");
        assert_eq!((&status["remapped"], &status["spare"]["bad"]), (&json!(1), &json!(1)), "{what}: {status}");
        let expected = [stamped(96, 2, 1), vec![0; 4 * BLOCK]].concat();
        assert_eq!(host.read(96, 6).unwrap().unwrap(), expected, "{what}");
        target.stop();
    }
}
