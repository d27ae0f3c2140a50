//! bdev_fault by itself: every kind of failure comes up with the status that the other tests rely on.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use e2e::{
    config::Config,
    nvme_tcp::Status,
    scene::{BASE_UUID, BLOCK, connect, fault, fault_at, fault_every, free_port, stamped},
    target::Target,
};
use serde_json::{Value, json};

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

    target.rpc("bdev_fault_inject", fault_at(&[300, 302, 309], "write", "write_fault"));
    target.rpc("bdev_fault_inject", fault_at(&[], "all", "io"));
    let failing: Vec<_> = (298..312).filter(|&lba| !host.write(lba, &stamped(lba, 1, 1)).unwrap().ok()).collect();
    assert_eq!(failing, [300, 302, 309]);

    let mut twice = fault(200, 1, "write", "write_fault");
    twice["count"] = 2.into();
    target.rpc("bdev_fault_inject", twice);
    let failed = (0..4).map(|_| !host.write(200, &stamped(200, 1, 1)).unwrap().ok()).collect::<Vec<_>>();
    assert_eq!(failed, [true, true, false, false]);
    target.stop();
}

#[test]
fn hollow_blocks_take_everything_and_keep_nothing() {
    let mut target = Target::prepare();
    let (port, file) = (free_port(), target.file("base", 16));
    let create = json!({ "name": "Fault0", "base_bdev": "Base0", "hollow_lba": 100, "hollow_blocks": 50 });
    let config = Config::new()
        .aio("Base0", &file, BLOCK as u32, BASE_UUID)
        .bdev("bdev_fault_create", create)
        .export("Fault0", NQN, port);
    target.start(&config);
    let medium = |lba: u64, blocks: usize| fs::read(&file).unwrap()[lba as usize * BLOCK..][..blocks * BLOCK].to_vec();
    let mut host = connect(port, NQN);
    // On either side of it, and at its ends.
    for lba in [99, 100, 149, 150] {
        assert_eq!(host.write(lba, &stamped(lba, 1, 1)).unwrap(), Status::SUCCESS);
        assert!(host.read(lba, 1).unwrap().is_ok(), "LBA {lba}");
        let there = if (100..150).contains(&lba) { zeroes(1) } else { stamped(lba, 1, 1) };
        assert_eq!(medium(lba, 1), there, "LBA {lba}");
    }
    assert_eq!(host.write(110, &stamped(110, 32, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(medium(110, 32), zeroes(32));
    // What is partly hollow goes to the base whole.
    assert_eq!(host.write(148, &stamped(148, 4, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(medium(148, 4), stamped(148, 4, 2));
    // Faults are of hollow blocks as of others.
    target.rpc("bdev_fault_inject", fault(120, 1, "write", "write_fault"));
    assert_eq!(host.write(120, &stamped(120, 1, 1)).unwrap(), Status::WRITE_FAULT);
    assert_eq!(host.write(121, &stamped(121, 1, 1)).unwrap(), Status::SUCCESS);

    let saved = target.rpc("framework_get_config", json!({ "name": "bdev" })).to_string();
    assert!(saved.contains(r#""hollow_lba":100"#) && saved.contains(r#""hollow_blocks":50"#), "{saved}");
    target.rpc("bdev_malloc_create", json!({ "name": "Base1", "num_blocks": 4096, "block_size": BLOCK }));
    for wrong in [
        json!({ "name": "F1", "base_bdev": "Base1", "hollow_lba": 4000, "hollow_blocks": 97 }),
        json!({ "name": "F1", "base_bdev": "Base1", "hollow_blocks": 1, "volatile_cache": true }),
    ] {
        let (code, message) = target.refused("bdev_fault_create", wrong);
        assert_eq!(code, -22, "{message}");
    }
    target.stop();
}

#[test]
fn bad_faults_are_refused() {
    let (mut target, _) = fault0();
    for (params, word) in [
        (json!({ "name": "Fault0", "lba": 0, "num_blocks": 1, "op": "erase", "error": "io" }), "op"),
        (json!({ "name": "Fault0", "lba": 0, "num_blocks": 1, "op": "read", "error": "smoke" }), "error"),
        (json!({ "name": "Fault0", "num_blocks": 1, "op": "read", "error": "io" }), "lba"),
        (json!({ "name": "Fault0", "lba": "5", "num_blocks": 1, "op": "read", "error": "io" }), "an array of blocks"),
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

/// A Fault bdev with a volatile cache, on a file, exported.
struct Cached {
    target: Target,
    port: u16,
    file: PathBuf,
}

impl Cached {
    fn start(latency_us: u32) -> Cached {
        let target = Target::prepare();
        let file = target.file("base", 16);
        let mut cached = Cached { target, port: free_port(), file };
        cached.start_again(latency_us);
        cached
    }

    fn start_again(&mut self, latency_us: u32) {
        let create =
            json!({ "name": "Fault0", "base_bdev": "Base0", "volatile_cache": true, "latency_us": latency_us });
        let config = Config::new()
            .aio("Base0", &self.file, BLOCK as u32, BASE_UUID)
            .bdev("bdev_fault_create", create)
            .export("Fault0", NQN, self.port);
        self.target.start(&config);
    }

    /// What is on the medium.
    fn medium(&self, lba: u64, blocks: u64) -> Vec<u8> {
        fs::read(&self.file).unwrap()[lba as usize * BLOCK..][..blocks as usize * BLOCK].to_vec()
    }
}

fn zeroes(blocks: u64) -> Vec<u8> {
    vec![0; blocks as usize * BLOCK]
}

#[test]
fn cached_writes_are_read_back_and_reach_the_medium_by_flush() {
    let mut cached = Cached::start(0);
    let mut host = connect(cached.port, NQN);
    let data = stamped(10, 32, 1);
    assert_eq!(host.write(10, &data).unwrap(), Status::SUCCESS);
    assert_eq!(cached.medium(10, 32), zeroes(32));
    // Partly from the cache, partly from the medium; a block that was written twice.
    assert_eq!(host.read(8, 32).unwrap().unwrap(), [zeroes(2), stamped(10, 30, 1)].concat());
    assert_eq!(host.write(12, &stamped(12, 1, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(11, 3).unwrap().unwrap(), [stamped(11, 1, 1), stamped(12, 1, 2), stamped(13, 1, 1)].concat());
    assert_eq!(host.flush().unwrap(), Status::SUCCESS);
    assert_eq!(cached.medium(10, 32), [stamped(10, 2, 1), stamped(12, 1, 2), stamped(13, 29, 1)].concat());

    // Zeroes go through the cache as well.
    assert_eq!(host.write_zeroes(10, 4).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(10, 4).unwrap().unwrap(), zeroes(4));
    assert_ne!(cached.medium(10, 4), zeroes(4));
    // Who stops in order loses nothing.
    cached.target.stop();
    assert_eq!(cached.medium(10, 4), zeroes(4));
    let bdev = {
        cached.start_again(0);
        cached.target.rpc("bdev_get_bdevs", json!({ "name": "Fault0" }))
    };
    assert_eq!(bdev[0]["supported_io_types"]["flush"], true, "{bdev}");
    cached.target.stop();
}

#[test]
fn power_cut_loses_what_was_not_flushed_and_no_more() {
    let mut cached = Cached::start(0);
    let power = |method: &str, more: Value| {
        let mut params = json!({ "name": "Fault0" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cached.target.rpc(method, params);
    };
    let mut host = connect(cached.port, NQN);
    assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.flush().unwrap(), Status::SUCCESS);
    assert_eq!(host.write(0, &stamped(0, 32, 2)).unwrap(), Status::SUCCESS);
    power("bdev_fault_power_cut", json!({}));
    assert_eq!(host.read(0, 1).unwrap().unwrap_err().sct, 3, "no power");
    assert_eq!(host.write(0, &stamped(0, 1, 9)).unwrap().sct, 3);
    assert_eq!(host.flush().unwrap().sct, 3);
    power("bdev_fault_power_on", json!({}));
    assert_eq!(host.read(0, 32).unwrap().unwrap(), stamped(0, 32, 1));

    // A random part, block by block: the same with the same seed, another with another.
    let mut torn = |seed: u64| -> Vec<bool> {
        assert_eq!(host.write(0, &stamped(0, 32, 1)).unwrap(), Status::SUCCESS);
        assert_eq!(host.flush().unwrap(), Status::SUCCESS);
        assert_eq!(host.write(0, &stamped(0, 32, 2)).unwrap(), Status::SUCCESS);
        power("bdev_fault_power_cut", json!({ "keep": "random", "seed": seed }));
        power("bdev_fault_power_on", json!({}));
        let read = |lba| host.read(lba, 1).unwrap().unwrap();
        (0..32)
            .map(read)
            .zip(0..)
            .map(|(data, lba)| {
                assert!(data == stamped(lba, 1, 1) || data == stamped(lba, 1, 2), "LBA {lba} is torn");
                data == stamped(lba, 1, 2)
            })
            .collect()
    };
    let (one, again, two) = (torn(1), torn(1), torn(2));
    assert_eq!(one, again);
    assert_ne!(one, two);
    assert!(one.contains(&true) && one.contains(&false), "{one:?}");

    // Faults are of the medium: they stay.
    cached.target.rpc("bdev_fault_inject", fault(40, 1, "all", "read_error"));
    power("bdev_fault_power_cut", json!({ "keep": "none" }));
    power("bdev_fault_power_on", json!({}));
    assert_eq!(host.read(40, 1).unwrap().unwrap_err(), Status::READ_ERROR);
    cached.target.stop();
}

#[test]
fn kill_loses_the_cache_and_saved_config_has_its_options() {
    let mut cached = Cached::start(0);
    let mut host = connect(cached.port, NQN);
    assert_eq!(host.write(0, &stamped(0, 4, 1)).unwrap(), Status::SUCCESS);
    assert_eq!(host.flush().unwrap(), Status::SUCCESS);
    assert_eq!(host.write(2, &stamped(2, 4, 2)).unwrap(), Status::SUCCESS);
    cached.target.kill9();
    assert_eq!(cached.medium(0, 6), [stamped(0, 4, 1), zeroes(2)].concat());

    cached.start_again(20_000);
    let saved = cached.target.rpc("framework_get_config", json!({ "name": "bdev" })).to_string();
    assert!(saved.contains(r#""volatile_cache":true"#) && saved.contains(r#""latency_us":20000"#), "{saved}");
    let mut host = connect(cached.port, NQN);
    let start = Instant::now();
    assert_eq!(host.read(0, 4).unwrap().unwrap(), stamped(0, 4, 1));
    assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
    cached.target.stop();
}
