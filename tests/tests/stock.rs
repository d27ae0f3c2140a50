//! SPDK's own test applications on Remap: bdevio, and bdevperf with its verifying workloads.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use e2e::{
    app::{self, App, COMMON, Slot},
    config::Config,
    random::announce,
    rpc,
    scene::{BASE_UUID, SPARE_UUID, copies_ok, fault_every},
    target::place,
    wait::wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);

/// A malloc base of 64 MiB with every `stride`-th block failing its writes (and its reads, as its data is then elsewhere), a malloc
/// spare, and Remap0.
fn remap_over_faults(stride: u64, block_size: u32) -> Config {
    add_remap_over_faults(Config::new(), stride, block_size)
}

fn add_remap_over_faults(config: Config, stride: u64, block_size: u32) -> Config {
    let blocks = (64 << 20) / u64::from(block_size);
    let inject = |op: &str, error: &str| json!({ "name": "Fault0", "lba": 0, "num_blocks": blocks, "stride": stride, "op": op, "error": error });
    config
        .malloc("Base0", 64, block_size)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", inject("write", "write_fault"))
        .malloc("Spare0", 64, block_size)
        .bdev(
            "bdev_remap_create",
            json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0", "storm_limit": 1_000_000 }),
        )
}

/// Passed tests by bdev.
fn bdevio(config: &Config) -> BTreeMap<String, u32> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, config.to_json().to_string()).unwrap();
    let socket = dir.path().join("rpc.sock");
    // It needs three cores, and takes two of them twice where there are no more.
    let args =
        ["-s", "1024", "-m", "[(0,1,2)@(0,1)]", "-r", socket.to_str().unwrap(), "--json", file.to_str().unwrap()];
    let done = app::run("bdevio", &args, false, LIMIT);
    let mut passed = BTreeMap::new();
    let mut suite = String::new();
    for line in done.output.lines() {
        if let Some(name) = line.trim().strip_prefix("Suite: bdevio tests on: ") {
            suite = name.to_owned();
            passed.insert(suite.clone(), 0);
        // On a line of its own where a log line came in between.
        } else if line.trim_end().ends_with("passed") {
            *passed.entry(suite.clone()).or_default() += 1;
        }
    }
    println!("bdevio: {passed:?}, {}", done.status);
    assert!(!passed.is_empty(), "{}", done.output);
    passed
}

#[test]
fn bdevio_passes_as_on_malloc() {
    for block_size in [512, 4096] {
        let stock = bdevio(&Config::new().malloc("Base0", 64, block_size))["Base0"];
        assert!(stock >= 20, "{stock} tests of bdevio pass on malloc");
        let plain = Config::new()
            .malloc("Base0", 64, block_size)
            .malloc("Spare0", 64, block_size)
            .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" }));
        assert!(bdevio(&plain)["Remap0"] >= stock, "nothing remapped, {block_size} byte blocks");
        assert!(
            bdevio(&remap_over_faults(7, block_size))["Remap0"] >= stock,
            "every 7th block bad, {block_size} byte blocks"
        );
    }
}

/// Runs bdevperf on Remap0; yields what it printed and Remap0's status at the end.
fn bdevperf(config: &Config, args: &[&str]) -> (String, Value) {
    let slot = Slot::take();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, config.to_json().to_string()).unwrap();
    let socket = dir.path().join("rpc.sock");
    let call = |method: &str| rpc::call(Path::new(&socket), method, Value::Null, LIMIT);
    let fixed = [
        "-s",
        "1024",
        "-m",
        slot.cores(),
        "-r",
        socket.to_str().unwrap(),
        "-c",
        file.to_str().unwrap(),
        "-z",
        "-T",
        "Remap0",
    ];
    let all = COMMON.iter().chain(&fixed).chain(args);
    let mut perf = App::stock("bdevperf", all, &dir.path().join("output")).unwrap();
    wait_for("start of bdevperf", LIMIT, || {
        assert!(perf.ended().is_none(), "{}", perf.output());
        call("framework_wait_init").ok()
    });
    if let Err(error) = call("perform_tests") {
        panic!("perform_tests: {error}\n{}", perf.output());
    }
    let status = call("bdev_remap_status").unwrap()[0].take();
    perf.signal(Signal::TERM);
    let ended = perf.wait(LIMIT);
    let output = perf.output();
    assert!(ended.success(), "{ended}\n{output}");
    (output, status)
}

/// Writes, reads back and compares; nothing may fail, and something must have been remapped.
#[track_caller]
fn verified(config: &Config, size: &str, depth: &str) {
    let (output, status) = bdevperf(config, &["-w", "verify", "-q", depth, "-o", size, "-t", "3"]);
    assert!(status["remapped"].as_u64().unwrap() > 0, "{status}");
    let total =
        output.lines().find(|line| line.trim_start().starts_with("Total")).unwrap_or_else(|| panic!("{output}"));
    let failures: f64 = total.split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!(failures == 0.0, "{output}");
    assert!(!output.contains("miscompare") && !output.contains("Data miscompare"), "{output}");
}

#[test]
fn verified_load_over_bad_blocks() {
    for (size, depth) in [("4096", "32"), ("65536", "16")] {
        verified(&remap_over_faults(64, 4096), size, depth);
    }
}

/// Two I/O structures for each I/O of the host are not there: children have to wait for them, on every way.
#[test]
fn verified_load_without_enough_io_structures() {
    let options = json!({ "bdev_io_pool_size": 300, "bdev_io_cache_size": 16 });
    for size in ["4096", "65536"] {
        let starved = Config::new().bdev("bdev_set_options", options.clone());
        verified(&add_remap_over_faults(starved, 64, 4096), size, "128");
    }
}

/// The hosts' own I/O takes every structure that there is, again and again.
#[test]
fn healthy_bdev_is_not_dead_when_the_queue_is_deeper_than_the_pool() {
    let null = json!({ "name": "Base0", "num_blocks": 1 << 20, "block_size": 4096, "uuid": BASE_UUID });
    let config = Config::new()
        .bdev("bdev_set_options", json!({ "bdev_io_pool_size": 300, "bdev_io_cache_size": 16 }))
        .bdev("bdev_null_create", null)
        .malloc("Spare0", 64, 4096)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" }));
    for workload in ["write", "read", "randrw"] {
        let (output, _) = bdevperf(&config, &["-w", workload, "-M", "50", "-q", "512", "-o", "4096", "-t", "2"]);
        let total = output.lines().find(|line| line.trim_start().starts_with("Total")).expect("a sum");
        let rate: f64 = total.split_whitespace().nth(2).and_then(|rate| rate.parse().ok()).expect("a rate");
        assert!(rate > 1000.0, "{workload}: {total}");
    }
}

#[test]
fn reset_under_load() {
    let (_, status) = bdevperf(&remap_over_faults(16, 4096), &["-w", "reset", "-q", "32", "-o", "4096", "-t", "3"]);
    assert_ne!(status["state"], "tripped", "{status}");
    let args = ["-w", "randrw", "-M", "50", "-q", "64", "-o", "16384", "-t", "3"];
    let (_, status) = bdevperf(&remap_over_faults(16, 4096), &args);
    assert!(status["remapped"].as_u64().unwrap() > 0, "{status}");
}

#[test]
fn unmap_and_write_zeroes_under_load() {
    for workload in ["unmap", "write_zeroes", "flush"] {
        let (output, _) =
            bdevperf(&remap_over_faults(16, 4096), &["-w", workload, "-q", "16", "-o", "65536", "-t", "2"]);
        assert!(output.contains("Remap0"), "{output}");
    }
}

/// Resets of Remap0, and so of both devices, again and again under load over bad blocks: I/O may be aborted, but nothing hangs, and
/// what was aborted is not taken for a bad block.
#[test]
fn resets_under_load_over_bad_blocks() {
    let (output, status) =
        bdevperf(&remap_over_faults(64, 4096), &["-w", "reset", "-q", "32", "-o", "4096", "-t", "3"]);
    assert_eq!(status["state"], "online", "{status}\n{output}");
    let remapped = status["remapped"].as_u64().unwrap();
    assert!((1..=16384 / 64).contains(&remapped), "{status}");
    assert!((&status["pending"], &status["lost"]) == (&json!(0), &json!(0)), "{status}");
    // Metadata I/O that was aborted was tried again: no copy was ever taken for bad.
    assert!(copies_ok(&status) && status["metadata"]["degraded_at"].is_null(), "{status}");
}

/// A rescue that has its turn only when no other one comes in between would wait for seconds here, as some always does.
#[test]
fn no_rescue_starves_under_a_load_that_never_pauses() {
    let dir = tempfile::tempdir_in(place()).unwrap();
    let spare = dir.path().join("spare");
    fs::File::create(&spare).and_then(|file| file.set_len(1 << 30)).unwrap();
    // More bad blocks than are met, and fewer than the spare holds.
    let blocks = 5_000_000;
    let base = json!({ "name": "Base0", "num_blocks": blocks, "block_size": 4096, "uuid": BASE_UUID });
    let config = Config::new()
        .bdev("bdev_null_create", base)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault_every(25, 0, blocks, "write", "write_fault"))
        .aio("Spare0", &spare, 4096, SPARE_UUID)
        .bdev(
            "bdev_remap_create",
            json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0", "storm_limit": 1_000_000 }),
        );
    let (output, status) = bdevperf(&config, &["-w", "write", "-q", "128", "-o", "4096", "-t", "3"]);
    let remapped = status["remapped"].as_u64().unwrap();
    assert!(remapped > 1000 && status["counters"]["failed_writes"] == 0, "{status}");
    let total =
        output.lines().find(|line| line.trim_start().starts_with("Total")).unwrap_or_else(|| panic!("{output}"));
    let slowest = Duration::from_micros(total.split_whitespace().last().unwrap().parse::<f64>().unwrap() as u64);
    announce(&format!("{remapped} blocks rescued, the slowest write took {slowest:?}"));
    assert!(slowest < Duration::from_secs(1), "{slowest:?}\n{output}");
}
