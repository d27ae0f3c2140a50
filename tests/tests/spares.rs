//! Caches that nobody can rely on. Spares that report none although there is one below them: what is relocated survives a power cut
//! without any FLUSH of the host. A base whose cache no FLUSH empties: nothing durable goes there.

use std::{fs::File, path::Path};

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, connect, fault, free_port, stamped},
    target::Target,
};
use gpt::{
    GptConfig,
    disk::LogicalBlockSize,
    mbr::ProtectiveMBR,
    partition_types::{OperatingSystem, Type},
};
use serde_json::{Value, json};

/// Blocks that fail on the base, and are relocated.
const BAD: u64 = 64;
/// The type that SPDK looks for.
const SPDK_PARTITION: &str = "6527994E-2C5A-4EEC-9613-8F5944074E8B";

/// A disk with a volatile cache that owns up to it, `number` of a kind, by aio or uring.
fn cached_disk(config: Config, target: &Target, number: u64, method: &str) -> Config {
    let (file, uuid) = (target.file(&format!("spare{number}"), 16), format!("{}{number}", &SPARE_UUID[..35]));
    let disk = json!({ "name": format!("Disk{number}"), "filename": file, "block_size": BLOCK, "uuid": uuid });
    let cache =
        json!({ "name": format!("Cache{number}"), "base_bdev": format!("Disk{number}"), "volatile_cache": true });
    config.bdev(method, disk).bdev("bdev_fault_create", cache)
}

/// A partition for SPDK over most of the file.
fn partition(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("the disk");
    let blocks = file.metadata().expect("its size").len() / BLOCK as u64;
    ProtectiveMBR::with_lb_size(blocks as u32 - 1).overwrite_lba0(&mut &file).expect("an MBR");
    let size = LogicalBlockSize::Lb4096;
    let mut disk =
        GptConfig::new().writable(true).logical_block_size(size).create_from_device(file, None).expect("a GPT");
    let spdk = Type { guid: SPDK_PARTITION.parse().expect("a GUID"), os: OperatingSystem::None };
    disk.add_partition("spare", 12 << 20, spdk, 0, None).expect("a partition");
    disk.write().expect("the GPT is written");
}

/// Relocates blocks to `spare`, which the configuration makes, cuts the power of the `caches`, and looks for the blocks.
fn survives(mut target: Target, config: Config, spare: &str, caches: &[&str]) {
    let (base, port) = (target.file("base", 64), free_port());
    let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": spare });
    let config = config
        .aio("Base0", &base, BLOCK as u32, BASE_UUID)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault(0, BAD, "write", "write_fault"))
        .bdev("bdev_remap_create", create)
        .export("Remap0", NQN, port);
    target.start(&config);
    let mut host = connect(port, NQN);
    for lba in 0..BAD {
        assert_eq!(host.write(lba, &stamped(lba, 1, 1)).expect("an answer"), Status::SUCCESS);
    }
    for cache in caches {
        target.rpc("bdev_fault_power_cut", json!({ "name": cache, "keep": "none" }));
    }
    target.kill9();
    target.start(&config);
    let status = target.status("Remap0");
    assert_eq!((status["state"].as_str(), status["remapped"].as_u64()), (Some("online"), Some(BAD)), "{status}");
    let read = connect(port, NQN).read_all(0, BAD).expect("an answer").expect("data");
    assert!(read == stamped(0, BAD, 1), "what was acknowledged is not there");
    target.stop();
}

#[test]
fn a_raid1_of_two_disks() {
    let target = Target::prepare();
    let config = cached_disk(Config::new(), &target, 0, "bdev_aio_create");
    let raid =
        json!({ "name": "Raid0", "raid_level": "raid1", "base_bdevs": ["Cache0", "Cache1"], "uuid": SPARE_UUID });
    let config = cached_disk(config, &target, 1, "bdev_aio_create").bdev("bdev_raid_create", raid);
    survives(target, config, "Raid0", &["Cache0", "Cache1"]);
}

#[test]
fn a_part_of_a_split_disk() {
    let target = Target::prepare();
    let split = json!({ "base_bdev": "Cache0", "split_count": 2 });
    let config = cached_disk(Config::new(), &target, 0, "bdev_aio_create").bdev("bdev_split_create", split);
    survives(target, config, "Cache0p1", &["Cache0"]);
}

#[test]
fn a_partition() {
    let target = Target::prepare();
    // It is to be found through the cache, not on the disk below.
    let config = Config::new().bdev("bdev_set_options", json!({ "bdev_auto_examine": false }));
    let config = cached_disk(config, &target, 0, "bdev_aio_create")
        .bdev("bdev_examine", json!({ "name": "Cache0" }))
        .bdev("bdev_wait_for_examine", Value::Null);
    partition(&target.dir().join("spare0"));
    survives(target, config, "Cache0p1", &["Cache0"]);
}

#[test]
fn a_uring_disk() {
    let target = Target::prepare();
    let config = cached_disk(Config::new(), &target, 0, "bdev_uring_create");
    survives(target, config, "Cache0", &["Cache0"]);
}

/// What is on the spare survives a loss of power. On such a base it would not, so it stays where it is.
#[test]
fn a_base_whose_cache_cannot_be_flushed_gets_nothing_back() {
    let mut target = Target::prepare();
    let (base, spare, port) = (target.file("base", 64), target.file("spare", 16), free_port());
    let cache = json!({ "name": "Fault0", "base_bdev": "Base0", "volatile_cache": true, "no_flush": true });
    let config = Config::new()
        .aio("Base0", &base, BLOCK as u32, BASE_UUID)
        .bdev("bdev_fault_create", cache)
        .bdev("bdev_fault_inject", fault(0, BAD, "write", "write_fault"))
        .aio("Spare0", &spare, BLOCK as u32, SPARE_UUID)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }))
        .export("Remap0", NQN, port);
    target.start(&config);
    let mut host = connect(port, NQN);
    for lba in 0..BAD {
        assert_eq!(host.write(lba, &stamped(lba, 1, 1)).expect("an answer"), Status::SUCCESS);
    }
    assert_ne!(host.flush().expect("an answer"), Status::SUCCESS, "success would be a lie");
    target.rpc("bdev_fault_clear", json!({ "name": "Fault0" }));
    let range = json!({ "name": "Remap0", "lba": 0, "num_blocks": BAD });
    let (code, why) = target.refused("bdev_remap_remove", range);
    assert_eq!((code, why.contains("Fault0")), (-95, true), "{why}");
    assert_eq!(target.status("Remap0")["remapped"], BAD);
    target.rpc("bdev_fault_power_cut", json!({ "name": "Fault0", "keep": "none" }));
    target.kill9();
    target.start(&config);
    let read = connect(port, NQN).read_all(0, BAD).expect("an answer").expect("data");
    assert!(read == stamped(0, BAD, 1), "what was durable is not there");
    target.stop();
}
