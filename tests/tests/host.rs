//! The harness itself: the NVMe/TCP host against stock bdevs only.

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BLOCK, connect, free_port, stamped},
    target::Target,
};
use serde_json::json;

const NQN: &str = "nqn.2026-01.io.bdev-remap:stock";

#[test]
fn host_reads_back_what_it_wrote() {
    let port = free_port();
    let mut target = Target::with(&Config::new().malloc("M0", 16, BLOCK as u32).export("M0", NQN, port));
    let mut host = connect(port, NQN);
    assert_eq!((host.block_size(), host.blocks()), (BLOCK, 4096));

    // In the capsule; by one R2T; by several R2Ts.
    for (lba, blocks) in [(3, 1), (10, 4), (100, 32)] {
        let data = stamped(lba, blocks, 1);
        assert_eq!(host.write(lba, &data).unwrap(), Status::SUCCESS);
        assert_eq!(host.read(lba, blocks as u16).unwrap().unwrap(), data);
    }
    assert_eq!(host.flush().unwrap(), Status::SUCCESS);
    assert_eq!(host.write_zeroes(11, 2).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(11, 2).unwrap().unwrap(), vec![0; 2 * BLOCK]);
    assert_eq!(host.unmap(100, 8).unwrap(), Status::SUCCESS);

    // Beyond the end: LBA out of range.
    assert_eq!(host.read(4096, 1).unwrap().unwrap_err(), Status { sct: 0, sc: 0x80 });
    drop(host);
    target.stop();
}

#[test]
fn host_sees_the_status_of_failures() {
    let port = free_port();
    let config = Config::new()
        .malloc("M0", 16, 512)
        .bdev("bdev_error_create", json!({ "base_name": "M0" }))
        .bdev(
            "bdev_error_inject_error",
            json!({ "name": "EE_M0", "io_type": "write", "error_type": "failure", "num": 1 }),
        )
        .export("EE_M0", NQN, port);
    let mut target = Target::with(&config);
    let mut host = connect(port, NQN);
    assert_eq!(host.write(0, &[7; 512]).unwrap(), Status::INTERNAL);
    assert_eq!(host.write(0, &[7; 512]).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(0, 1).unwrap().unwrap(), [7; 512]);
    target.kill9();
    assert!(host.read(0, 1).is_err(), "the connection must break");
}

#[test]
fn refused_config_yields_the_log() {
    let mut target = Target::prepare();
    let config = Config::new()
        .bdev("bdev_aio_create", json!({ "name": "A", "filename": "/nonexistent/file", "block_size": 512 }));
    let log = target.try_start(&config.to_json()).unwrap_err();
    assert!(log.contains("/nonexistent/file"), "{log}");
}
