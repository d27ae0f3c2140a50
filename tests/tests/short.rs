//! I/O structures run short: an I/O with many parts takes a few at a time, and ends.

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BLOCK, connect, fault_every, free_port, stamped},
    target::Target,
};
use serde_json::json;

const NQN: &str = "nqn.2026-01.io.bdev-remap:short";
/// Every second of these blocks is bad, so that an I/O over all of them has as many parts.
const BLOCKS: u64 = 2048;

/// A target whose bdevs have 300 I/O structures in all, and Remap0 over malloc, whose every second block is bad.
fn start() -> (Target, u16) {
    let port = free_port();
    let config = Config::new()
        .bdev("bdev_set_options", json!({ "bdev_io_pool_size": 300, "bdev_io_cache_size": 16 }))
        .malloc("Base0", 16, BLOCK as u32)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault_every(2, 0, BLOCKS, "write", "write_fault"))
        .malloc("Spare0", 16, BLOCK as u32)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }))
        .export("Remap0", NQN, port);
    (Target::with(&config), port)
}

/// Each part is a structure: all at once would be more than there are.
#[test]
fn an_io_of_a_thousand_parts_ends_with_three_hundred_structures() {
    let (mut target, port) = start();
    let mut host = connect(port, NQN);
    for lba in (0..BLOCKS).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
    }
    assert_eq!(target.status("Remap0")["remapped"], BLOCKS / 2);
    assert_eq!(host.write_zeroes(0, BLOCKS as u16).unwrap(), Status::SUCCESS);
    assert_eq!(host.read_all(0, BLOCKS).unwrap().unwrap(), vec![0; BLOCKS as usize * BLOCK]);
    assert_eq!(host.write(0, &stamped(0, 32, 2)).unwrap(), Status::SUCCESS);
    // Nobody else was left without: many at once end, too.
    let hosts: Vec<_> = (0..4).map(|_| connect(port, NQN)).collect();
    std::thread::scope(|scope| {
        for mut host in hosts {
            scope.spawn(move || {
                for _ in 0..8 {
                    assert_eq!(host.write_zeroes(0, BLOCKS as u16).unwrap(), Status::SUCCESS);
                }
            });
        }
    });
    assert_eq!(host.unmap(1, BLOCKS as u32 - 2).unwrap(), Status::SUCCESS);
    target.stop();
}
