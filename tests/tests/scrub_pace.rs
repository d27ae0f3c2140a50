//! What a scrub at its default rate leaves to a host with one command under way: at least nine tenths.
//!
//! `cargo test -p e2e --test scrub_pace -- --ignored --nocapture`, on a machine with nothing else to do.

use std::{fs, io::Write, path::Path, time::Duration};

use e2e::{
    app,
    config::Config,
    random::announce,
    scene::{BASE_UUID, SPARE_UUID},
};
use serde_json::json;

/// What else the machine does is different in each round.
const ROUNDS: usize = 9;
/// Bytes of the base: more than a scrub comes to.
const BASE_MIB: u64 = 512;

/// The base, and what it is.
type Base = (&'static str, fn(Config, &Path) -> Config);

const BASES: [Base; 3] = [
    ("memory", |config, _| config.bdev("bdev_malloc_create", malloc("Base0"))),
    ("a file", |config, file| config.aio("Base0", file, 4096, BASE_UUID)),
    ("100 us of latency", |config, _| {
        let slow = json!({ "name": "Base0", "base_bdev": "Disk0", "latency_us": 100 });
        config.bdev("bdev_malloc_create", malloc("Disk0")).bdev("bdev_fault_create", slow)
    }),
];

fn malloc(name: &str) -> serde_json::Value {
    json!({ "name": name, "num_blocks": BASE_MIB << 8, "block_size": 4096, "uuid": BASE_UUID })
}

/// Commands a second of one round.
fn round(base: &Base, directory: &Path, workload: &str, scrubbed: bool) -> f64 {
    let spare = directory.join("spare");
    fs::File::create(&spare).and_then(|file| file.set_len(16 << 20)).unwrap();
    let create = json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0", "format": "force" });
    let mut config = base.1(Config::new(), &directory.join("base"))
        .aio("Spare0", &spare, 4096, SPARE_UUID)
        .bdev("bdev_remap_create", create);
    if scrubbed {
        config = config.bdev("bdev_remap_scrub", json!({ "name": "Remap0" }));
    }
    let file = directory.join("config.json");
    fs::write(&file, config.to_json().to_string()).unwrap();
    let args = [
        "-s",
        "1024",
        "-c",
        file.to_str().unwrap(),
        "-T",
        "Remap0",
        "-q",
        "1",
        "-o",
        "4096",
        "-t",
        "2",
        "-w",
        workload,
    ];
    let perf = app::run("bdevperf", &args, false, Duration::from_secs(60));
    assert!(perf.status.success(), "{}", perf.output);
    let ended = perf.output.contains("scrub ends at block");
    assert_eq!(ended, scrubbed, "it runs to the end, and is cancelled then: {}", perf.output);
    let total =
        perf.output.lines().find_map(|line| line.trim().strip_prefix("Total")?.split_whitespace().nth(1)?.parse().ok());
    total.unwrap_or_else(|| panic!("no total: {}", perf.output))
}

#[test]
#[ignore = "a measurement of some minutes"]
fn a_scrub_leaves_nine_tenths_to_a_host_with_one_command_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(directory.path().join("base")).unwrap();
    (0..BASE_MIB).for_each(|mib| file.write_all(&vec![mib as u8; 1 << 20]).unwrap());
    file.sync_all().unwrap();
    for base in &BASES {
        for workload in ["randread", "randwrite"] {
            let mut ratios: Vec<_> = (0..ROUNDS)
                .map(|number| {
                    let run = |scrubbed| round(base, directory.path(), workload, scrubbed);
                    // Neither is always the first.
                    let (alone, beside) = if number % 2 == 0 {
                        let alone = run(false);
                        (alone, run(true))
                    } else {
                        let beside = run(true);
                        (run(false), beside)
                    };
                    announce(&format!("{}, {workload}: {alone:.0} alone, {beside:.0} beside a scrub", base.0));
                    beside / alone
                })
                .collect();
            ratios.sort_by(f64::total_cmp);
            let median = ratios[ROUNDS / 2];
            announce(&format!("{}, {workload}: {median:.3}", base.0));
            assert!(median >= 0.9, "{}, {workload}: {ratios:?}", base.0);
        }
    }
}
