//! Base and spare grow under a Remap bdev that is in use, which grows with them.

use std::{fs::File, path::Path, time::Duration};

use e2e::{
    config::Config,
    nvme_tcp::{Host, Status},
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, connect, free_port, stamped},
    spare_format::{self, field},
    target::Target,
    wait::wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = (1 << 20) / BLOCK as u64;

#[track_caller]
fn resize(target: &Target, bdev: &str, file: &Path, mib: u64) {
    File::options().write(true).open(file).and_then(|file| file.set_len(mib << 20)).expect("the file has another size");
    target.rpc("bdev_aio_rescan", json!({ "name": bdev }));
}

fn blocks(target: &Target) -> u64 {
    let bdev = target.rpc("bdev_get_bdevs", json!({ "name": "Remap0" }));
    bdev[0]["num_blocks"].as_u64().unwrap_or_else(|| panic!("{bdev}"))
}

fn resizes(target: &Target) -> usize {
    let events = target.rpc("notify_get_notifications", json!({}));
    let of_it = |event: &&Value| event["type"] == "bdev_resize" && event["ctx"] == "Remap0";
    events.as_array().unwrap().iter().filter(of_it).count()
}

#[test]
fn a_base_that_grows_in_use_is_followed_and_its_new_end_is_remapped() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 64), target.file("spare", 16));
    let port = free_port();
    let config = Config::new()
        .aio("Base0", &base, BLOCK as u32, BASE_UUID)
        .aio("Spare0", &spare, BLOCK as u32, SPARE_UUID)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" }))
        .export("Remap0", NQN, port);
    target.start(&config);
    let mut host = connect(port, NQN);
    assert_eq!(host.write(5, &stamped(5, 1, 1)).unwrap(), Status::SUCCESS);
    target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 5, "num_blocks": 1 }));
    let last = 80 * MIB - 1;
    let add_last = json!({ "name": "Remap0", "lba": last, "num_blocks": 1 });
    let (code, message) = target.refused("bdev_remap_add", add_last.clone());
    assert!(code == -32602 && message.contains("not all on Remap0"), "{message} ({code})");

    resize(&target, "Base0", &base, 80);
    wait_until("Remap0 to grow", SOON, || blocks(&target) == 80 * MIB);
    assert_eq!(resizes(&target), 1);
    for copy in spare_format::superblocks(&spare) {
        assert_eq!(copy.expect("a valid superblock").number(field::BASE_BLOCKS), 80 * MIB);
    }
    assert_eq!(host.read(5, 1).unwrap(), Ok(stamped(5, 1, 1)), "connected as before");
    let mut host = connect(port, NQN);
    assert_eq!(host.blocks(), 80 * MIB);
    assert_eq!(host.write(last, &stamped(last, 1, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(target.rpc("bdev_remap_add", add_last)["added"], 1);
    assert_eq!(host.write(last, &stamped(last, 1, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(target.status("Remap0")["remapped"], 2);

    // Below what is used: SPDK does not let a bdev shrink that is open, and the set is refused when it is opened.
    File::options().write(true).open(&base).and_then(|file| file.set_len(64 << 20)).unwrap();
    assert!(target.call("bdev_aio_rescan", json!({ "name": "Base0" })).is_err());
    assert_eq!(blocks(&target), 80 * MIB);
    target.kill9();
    let log = target.try_start(&config.to_json()).expect_err("a remapped block is beyond the end");
    assert!(log.contains(&format!("block {last} of it is remapped or pending")), "{log}");

    File::options().write(true).open(&base).and_then(|file| file.set_len(80 << 20)).unwrap();
    target.start(&config);
    let mut host = connect(port, NQN);
    assert_eq!(host.read(last, 1).unwrap(), Ok(stamped(last, 1, 2)), "nothing is lost");
    assert_eq!(host.read(5, 1).unwrap(), Ok(stamped(5, 1, 1)));
    target.stop();
}

#[test]
fn a_spare_that_grows_in_use_takes_more_after_the_next_save() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 64), target.file("spare", 4));
    let port = free_port();
    let config = Config::new()
        .aio("Base0", &base, BLOCK as u32, BASE_UUID)
        .aio("Spare0", &spare, BLOCK as u32, SPARE_UUID)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" }))
        .export("Remap0", NQN, port);
    target.start(&config);
    let mut host = connect(port, NQN);
    let total = |target: &Target| target.status("Remap0")["spare"]["total"].as_u64().unwrap();
    let (before, mut at) = (total(&target), 0);
    let fill = |target: &Target, host: &mut Host, at: &mut u64, blocks: u64| {
        for lba in *at..*at + blocks {
            assert_eq!(host.write(lba, &stamped(lba, 1, 1)).unwrap(), Status::SUCCESS);
        }
        let all = json!({ "name": "Remap0", "lba": *at, "num_blocks": blocks });
        assert_eq!(target.rpc("bdev_remap_add", all)["added"], blocks);
        *at += blocks;
    };
    fill(&target, &mut host, &mut at, before);
    let (code, _) = target.refused("bdev_remap_add", json!({ "name": "Remap0", "lba": at, "num_blocks": 1 }));
    assert_eq!(code, -28, "the spare is full");

    resize(&target, "Spare0", &spare, 12);
    let told = || target.log().contains("the spare has grown from 1024 blocks to 3072");
    wait_until("the set to notice", SOON, told);
    assert_eq!(total(&target), before, "not before a save");
    target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
    let after = total(&target);
    assert!(after >= before + 1024, "{before} spare blocks, then {after}");
    fill(&target, &mut host, &mut at, after - before);
    let [a, b] = spare_format::superblocks(&spare).map(|copy| copy.expect("a valid superblock"));
    assert_eq!([a, b].map(|copy| copy.number(field::SPARE_BLOCKS)), [3072; 2]);

    target.kill9();
    target.start(&config);
    let mut host = connect(port, NQN);
    for lba in 0..at {
        assert_eq!(host.read(lba, 1).unwrap(), Ok(stamped(lba, 1, 1)), "block {lba}");
    }
    assert_eq!((total(&target), target.status("Remap0")["remapped"].as_u64()), (after, Some(at)));
    assert_eq!(target.status("Remap0")["state"], "online");
    target.stop();
}
