//! bdev_fault by itself: every kind of failure comes up with the status that the other tests rely on.

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BLOCK, connect, fault, fault_every, free_port, stamped},
    target::Target,
};
use serde_json::json;

const NQN: &str = "nqn.2026-01.io.bdev-remap:fault";

fn fault0() -> (Target, u16) {
    let port = free_port();
    let config = Config::new()
        .malloc("Base0", 16, BLOCK as u32)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .export("Fault0", NQN, port);
    (Target::with(&config), port)
}

#[test]
fn faults_fail_as_they_were_told() {
    let (mut target, port) = fault0();
    let mut host = connect(port, NQN);
    for (lba, error, status) in [
        (10, "write_fault", Status::WRITE_FAULT),
        (11, "read_error", Status::READ_ERROR),
        (12, "io", Status::INTERNAL),
        (13, "aio_enodata", Status::INTERNAL),
    ] {
        target.rpc("bdev_fault_inject", fault(lba, 1, "all", error));
        assert_eq!(host.write(lba, &stamped(lba, 1, 1)).unwrap(), status, "{error}");
        assert_eq!(host.read(lba, 1).unwrap().unwrap_err(), status, "{error}");
    }
    target.rpc("bdev_fault_inject", fault(14, 1, "all", "path"));
    assert_eq!(host.write(14, &stamped(14, 1, 1)).unwrap().sct, 3);
    // One bad block fails a whole I/O; its neighbours work.
    assert_eq!(host.write(8, &stamped(8, 4, 1)).unwrap(), Status::WRITE_FAULT);
    assert_eq!(host.write(8, &stamped(8, 2, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(8, 2).unwrap().unwrap(), stamped(8, 2, 1));

    target.rpc("bdev_fault_clear", json!({ "name": "Fault0" }));
    assert_eq!(host.write(8, &stamped(8, 8, 1)).unwrap(), Status::SUCCESS);
    target.stop();
}

#[test]
fn faults_keep_to_operation_stride_and_count() {
    let (mut target, port) = fault0();
    let mut host = connect(port, NQN);
    target.rpc("bdev_fault_inject", fault(10, 1, "write", "write_fault"));
    target.rpc("bdev_fault_inject", fault(20, 1, "read", "read_error"));
    assert!(host.read(10, 1).unwrap().is_ok());
    assert_eq!(host.write(20, &stamped(20, 1, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.write_zeroes(10, 1).unwrap(), Status::WRITE_FAULT, "write zeroes are writes");

    target.rpc("bdev_fault_inject", fault_every(3, 100, 9, "write", "write_fault"));
    let failing: Vec<_> = (98..112).filter(|&lba| !host.write(lba, &stamped(lba, 1, 1)).unwrap().ok()).collect();
    assert_eq!(failing, [100, 103, 106]);

    let mut twice = fault(200, 1, "write", "write_fault");
    twice["count"] = 2.into();
    target.rpc("bdev_fault_inject", twice);
    let failed = (0..4).map(|_| !host.write(200, &stamped(200, 1, 1)).unwrap().ok()).collect::<Vec<_>>();
    assert_eq!(failed, [true, true, false, false]);
    target.stop();
}

#[test]
fn bad_faults_are_refused() {
    let (mut target, _) = fault0();
    for (params, word) in [
        (json!({ "name": "Fault0", "lba": 0, "num_blocks": 1, "op": "erase", "error": "io" }), "op"),
        (json!({ "name": "Fault0", "lba": 0, "num_blocks": 1, "op": "read", "error": "smoke" }), "error"),
        (json!({ "name": "Fault0", "num_blocks": 1, "op": "read", "error": "io" }), "lba"),
    ] {
        let (code, message) = target.refused("bdev_fault_inject", params.clone());
        assert!(code == -32602 && message.contains(word), "{params}: {message} ({code})");
    }
    let (code, message) = target
        .refused("bdev_fault_inject", json!({ "name": "X", "lba": 0, "num_blocks": 1, "op": "read", "error": "io" }));
    assert!(code < 0 && message.contains('X'), "{message} ({code})");
    let (code, message) = target.refused("bdev_fault_create", json!({ "name": "F1", "base_bdev": "Nope" }));
    assert!(code < 0 && message.contains("Nope"), "{message} ({code})");
    target.stop();
}
