//! What a scrub at its default rate leaves to a host with one command under way: at least nine tenths.
//!
//! `cargo test -p e2e scrub_pace:: -- --ignored --nocapture`, on a machine with little else to do.

use std::{fs, io::Write, path::Path, time::Duration};

use e2e::{
    app::{App, COMMON, Slot},
    config::Config,
    random::announce,
    rpc,
    scene::{BASE_UUID, SPARE_UUID},
    wait::wait_for,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Seconds with and without a scrub, in turn: what else the machine does meets both.
const SECONDS: usize = 15;
/// Size of the base in MiB: more than a scrub comes to in a second.
const BASE_MIB: u64 = 512;

/// The base, and what it is.
type Base = (&'static str, fn(Config, &Path) -> Config);

const BASES: [Base; 3] = [
    ("memory", |config, _| config.bdev("bdev_malloc_create", memory("Base0"))),
    ("a file", |config, file| config.aio("Base0", file, 4096, BASE_UUID)),
    ("100 us of latency", |config, _| {
        let slow = json!({ "name": "Base0", "base_bdev": "Disk0", "latency_us": 100 });
        config.bdev("bdev_malloc_create", memory("Disk0")).bdev("bdev_fault_create", slow)
    }),
];

fn memory(name: &str) -> Value {
    json!({ "name": name, "num_blocks": BASE_MIB << 8, "block_size": 4096, "uuid": BASE_UUID })
}

/// Commands a second without a scrub, and beside one.
fn measure(base: &Base, directory: &Path, workload: &str) -> [f64; 2] {
    let slot = Slot::take();
    let [spare, file, socket] = ["spare", "config.json", "rpc.sock"].map(|name| directory.join(name));
    fs::File::create(&spare).and_then(|spare| spare.set_len(16 << 20)).unwrap();
    let create = json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" });
    let config = base.1(Config::new(), &directory.join("base"))
        .aio("Spare0", &spare, 4096, SPARE_UUID)
        .bdev("bdev_remap_create", create);
    fs::write(&file, config.to_json().to_string()).unwrap();
    let (config, rpc_socket) = (file.to_str().unwrap(), socket.to_str().unwrap());
    let args = ["-s", "1024", "-m", slot.cores(), "-r", rpc_socket, "-c", config, "-z", "-T", "Remap0"];
    let load = ["-q", "1", "-o", "4096", "-t", "1", "-w", workload];
    let args = COMMON.iter().chain(&args).chain(&load);
    let mut perf = App::stock("bdevperf", args, &directory.join("output")).unwrap();
    let call = |method: &str, params: Value| rpc::call(&socket, method, params, LIMIT);
    wait_for("start of bdevperf", LIMIT, || {
        assert!(perf.ended().is_none(), "{}", perf.output());
        call("framework_wait_init", Value::Null).ok()
    });
    let mut sums = [0.0; 2];
    for second in 0..2 * SECONDS {
        let scrubbed = second % 2 == 1;
        if scrubbed {
            call("bdev_remap_scrub", json!({ "name": "Remap0" })).unwrap();
        }
        let done = call("perform_tests", Value::Null).unwrap();
        sums[usize::from(scrubbed)] += done["results"][0]["iops"].as_f64().unwrap_or_else(|| panic!("{done}"));
        if scrubbed {
            call("bdev_remap_scrub", json!({ "name": "Remap0", "cancel": true })).expect("it has run all the time");
        }
    }
    sums.map(|sum| sum / SECONDS as f64)
}

#[test]
#[ignore = "a measurement of four minutes"]
fn a_scrub_leaves_nine_tenths_to_a_host_with_one_command_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(directory.path().join("base")).unwrap();
    (0..BASE_MIB).for_each(|mib| file.write_all(&vec![mib as u8; 1 << 20]).unwrap());
    file.sync_all().unwrap();
    let mut ratios = Vec::new();
    for base in &BASES {
        for workload in ["randread", "randwrite"] {
            let [alone, beside] = measure(base, directory.path(), workload);
            announce(&format!(
                "{}, {workload}: {alone:.0} alone, {beside:.0} beside a scrub, {:.3}",
                base.0,
                beside / alone
            ));
            ratios.push(beside / alone);
        }
    }
    assert!(ratios.iter().all(|ratio| *ratio >= 0.9), "{ratios:?}");
}
