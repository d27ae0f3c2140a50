//! The base dies as a whole: the storm brake ends relocation, and everything else goes on.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    model::Flag,
    nvme_tcp::{Host, Status},
    scene::{BLOCK, Scene, connect, fault, free_port, stack_on_two_reactors, stamped},
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const OTHER_NQN: &str = "nqn.2026-01.io.bdev-remap:other";

/// Another bdev of the same target, exported.
fn other_bdev(scene: &Scene) -> Host {
    let port = free_port();
    let rpc = |method: &str, params: Value| scene.target.rpc(method, params);
    rpc("bdev_malloc_create", json!({ "name": "Other0", "num_blocks": 4096, "block_size": BLOCK }));
    rpc("nvmf_create_subsystem", json!({ "nqn": OTHER_NQN, "allow_any_host": true, "serial_number": "OTHER0" }));
    rpc("nvmf_subsystem_add_ns", json!({ "nqn": OTHER_NQN, "namespace": { "bdev_name": "Other0", "nsid": 1 } }));
    let listen = json!({ "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port.to_string() });
    rpc("nvmf_subsystem_add_listener", json!({ "nqn": OTHER_NQN, "listen_address": listen }));
    connect(port, OTHER_NQN)
}

/// Writes its blocks over and over, whatever comes of it; yields how many writes there were.
fn hammer(mut host: Host, first: u64, blocks: u64, stop: &Flag) -> u64 {
    let mut writes = 0;
    while !stop.is_set() {
        let lba = first + writes * 4 % blocks;
        let status = host.write(lba, &stamped(lba, 4, 9)).expect("the connection must not break");
        assert!(status.ok() || status == Status::WRITE_FAULT, "LBA {lba}: {status}");
        writes += 1;
    }
    writes
}

#[test]
fn dying_base_trips_the_brake_and_the_rest_goes_on() {
    const STORM_LIMIT: u64 = 200;
    let mut scene = Scene::of(
        stack_on_two_reactors(json!({ "storm_limit": STORM_LIMIT })),
        &[fault(8000, 8, "write", "write_fault")],
    );
    let mut host = scene.host();
    for lba in (0..8192).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS);
    }
    assert_eq!(scene.count("remapped"), 8);
    let mut other = other_bdev(&scene);

    let stop = Flag::default();
    let hosts = [scene.host(), scene.host(), scene.host()];
    let (mut slowest, mut answers, mut others) = (Duration::ZERO, 0, 0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..)
            .zip(hosts)
            .map(|(i, host)| {
                scope.spawn({
                    let stop = &stop;
                    move || hammer(host, i * 1024, 1024, stop)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        scene.target.rpc("bdev_fault_inject", fault(0, 16384, "write", "write_fault"));
        wait_until("the brake", LIMIT, || scene.status()["state"] == "tripped");
        // It is answered at once, and another bdev is as good as ever, while all writes to Remap0 fail.
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let start = Instant::now();
            assert_eq!(scene.status()["state"], "tripped");
            slowest = slowest.max(start.elapsed());
            answers += 1;
            let lba = answers % 4096;
            assert_eq!(other.write(lba, &stamped(lba, 1, 5)).unwrap(), Status::SUCCESS);
            assert_eq!(other.read(lba, 1).unwrap().unwrap(), stamped(lba, 1, 5));
            others += 2;
        }
        stop.set();
        let writes: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        println!("{answers} answers, the slowest after {slowest:?}; {others} I/Os to the other bdev; {writes} writes");
    });
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    // No more than the limit was relocated, and the status says why no more is.
    let status = scene.status();
    let used = status["spare"]["used"].as_u64().unwrap();
    assert!(used <= STORM_LIMIT + 8, "{status}");
    assert!(status["spare"]["free"].as_u64().unwrap() > 1000, "{status}");
    assert!(status["counters"]["refused_tripped"].as_u64().unwrap() > 0, "{status}");
    assert!(scene.target.log().contains("storm brake"), "{}", scene.target.log());

    // Reads go on, and so do writes of what is remapped already; a read makes nothing pending or lost.
    assert_eq!(host.read_all(4096, 2048).unwrap().unwrap(), stamped(4096, 2048, 1));
    assert_eq!(host.write(8000, &stamped(8000, 8, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(host.write(8100, &stamped(8100, 1, 2)).unwrap(), Status::WRITE_FAULT);

    // Re-armed: relocation works again, until the limit.
    let options = scene.target.rpc("bdev_remap_set_options", json!({ "name": "Remap0", "rearm": true }));
    assert_eq!(options["storm_limit"], STORM_LIMIT, "{options}");
    assert_eq!(scene.status()["state"], "online");
    assert_eq!(host.write(8100, &stamped(8100, 1, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), used + 1);

    let list = scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 100_000 }));
    scene.target.kill9();
    scene.start_again(&[fault(0, 16384, "write", "write_fault")]);
    assert_eq!(scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 100_000 })), list);
    let mut host = scene.host();
    assert_eq!(host.read(8000, 8).unwrap().unwrap(), stamped(8000, 8, 2));
    assert_eq!(host.read(8100, 1).unwrap().unwrap(), stamped(8100, 1, 2));
    scene.target.stop();
}
