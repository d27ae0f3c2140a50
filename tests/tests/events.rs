//! Events: what happens to a set is seen with `notify_get_notifications`, each kind at most once a second, with right counts.

use std::time::{Duration, Instant};

use e2e::{
    config::Config,
    nvme_tcp::{Host, Status},
    scene::{BASE_UUID, SPARE_UUID, Scene, Stack, fault, fault_every, spare_fault, stamped},
    spare_format::{BOTH, Copy, SpareFile},
    target::Target,
    wait::{wait_for, wait_until},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);
/// The copies are tried again after pauses that double, a minute at most.
const HEALING: Duration = Duration::from_secs(70);
const TYPES: [&str; 12] = [
    "cleared",
    "conflict",
    "degraded",
    "healed",
    "job_done",
    "job_failed",
    "lost",
    "pending",
    "remapped",
    "spare_bad",
    "spare_low",
    "tripped",
];

/// The contexts of all events of a type so far.
#[track_caller]
fn events(target: &Target, kind: &str) -> Vec<String> {
    let all = target.rpc("notify_get_notifications", json!({}));
    let of_kind = all.as_array().unwrap().iter().filter(|event| event["type"] == format!("bdev_remap_{kind}"));
    of_kind.map(|event| event["ctx"].as_str().unwrap().to_owned()).collect()
}

/// Waits for so many events of a type.
#[track_caller]
fn wait_for_events(target: &Target, kind: &str, number: usize) -> Vec<String> {
    wait_for(&format!("event {number} of {kind}"), SOON, || {
        Some(events(target, kind)).filter(|events| events.len() >= number)
    })
}

/// A number in the context of an event.
#[track_caller]
fn fact(event: &str, name: &str) -> u64 {
    let value = event.split(' ').find_map(|fact| fact.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {name} in {event}"))
}

fn sum(events: &[String], name: &str) -> u64 {
    events.iter().map(|event| fact(event, name)).sum()
}

#[track_caller]
fn write(host: &mut Host, lba: u64, blocks: u64) {
    assert_eq!(host.write(lba, &stamped(lba, blocks, 1)).unwrap(), Status::SUCCESS, "LBA {lba}");
}

/// No copy of the log can be written.
fn fail_the_log(scene: &Scene) {
    for copy in BOTH {
        let (first, blocks) = SpareFile::open(&scene.spare).metadata_blocks(copy);
        scene.target.rpc("bdev_fault_inject", spare_fault(first, blocks, "write", "write_fault"));
    }
}

#[test]
fn all_types_are_known_from_the_start() {
    let mut target = Target::with(&Config::new());
    let types = target.rpc("notify_get_types", Value::Null);
    let ours = types.as_array().unwrap().iter().filter_map(|name| name.as_str()?.strip_prefix("bdev_remap_"));
    let mut ours: Vec<_> = ours.collect();
    ours.sort_unstable();
    assert_eq!(ours, TYPES);
    target.stop();
}

#[test]
fn blocks_that_change_are_told_with_lba_and_counts() {
    let mut scene = Scene::start(&[fault(100, 12, "write", "write_fault"), fault(300, 3, "read", "read_error")]);
    let mut host = scene.host();
    write(&mut host, 96, 20);
    let free = scene.status()["spare"]["free"].as_u64().unwrap();
    let remapped = events(&scene.target, "remapped");
    assert_eq!(remapped, [format!("Remap0 blocks=12 lba=100 total=12 spare_free={free}")]);

    assert_eq!(host.read(298, 8).unwrap().unwrap_err(), Status::READ_ERROR);
    assert_eq!(events(&scene.target, "pending"), ["Remap0 blocks=3 lba=300 total=3"]);

    // The base takes its blocks again.
    scene.target.rpc("bdev_fault_clear", json!({ "name": "Fault0" }));
    scene.target.rpc("bdev_remap_remove", json!({ "name": "Remap0", "lba": 104, "num_blocks": 100 }));
    assert_eq!(events(&scene.target, "cleared"), ["Remap0 blocks=8 lba=104"]);
    assert_eq!(events(&scene.target, "job_done"), ["Remap0 times=1 job=remove blocks=100"]);
    scene.target.stop();
}

#[test]
fn a_load_of_many_rescues_is_told_once_a_second_and_nothing_is_left_out() {
    let mut scene = Scene::start(&[fault_every(2, 0, 16384, "write", "write_fault")]);
    let mut host = scene.host();
    let start = Instant::now();
    let mut lba = 0;
    while start.elapsed() < Duration::from_millis(3500) && lba < 7000 {
        write(&mut host, lba, 2);
        lba += 2;
    }
    let took = start.elapsed();
    let remapped = scene.count("remapped");
    assert!(remapped == lba / 2 && remapped > 100, "{remapped} blocks, {lba} written");
    wait_until("the last of them", SOON, || sum(&events(&scene.target, "remapped"), "blocks") == remapped);
    let told = events(&scene.target, "remapped");
    let most = took.as_secs() as usize + 2;
    println!("{remapped} rescues in {took:?}, {} events", told.len());
    assert!(told.len() >= 2 && told.len() <= most, "{} events in {took:?}", told.len());
    assert!(told.iter().all(|event| event.starts_with("Remap0 ")), "{told:?}");
    assert_eq!(fact(&told[0], "blocks"), 1, "the first is not held back");
    // Each goes on where the one before it ended.
    let mut total = 0;
    for event in &told {
        assert_eq!(fact(event, "lba"), total * 2, "{told:?}");
        total += fact(event, "blocks");
        assert_eq!(fact(event, "total"), total, "{told:?}");
    }
    scene.target.stop();
}

#[test]
fn a_storm_is_told() {
    let mut scene = Scene::with(&[fault(0, 100, "write", "write_fault")], json!({ "storm_limit": 5 }));
    let mut host = scene.host();
    write(&mut host, 0, 5);
    for _ in 0..3 {
        assert_eq!(host.write(20, &stamped(20, 1, 1)).unwrap(), Status::WRITE_FAULT);
    }
    assert_eq!(events(&scene.target, "tripped"), ["Remap0 times=1 limit=5"]);
    scene.target.stop();
}

#[test]
fn a_spare_that_runs_out_is_told_and_so_is_a_job_that_fails_by_that() {
    let faults = [fault(0, 1024, "write", "write_fault")];
    let mut scene = Scene::of(Stack { spare_mib: 2, ..Stack::default() }, &faults);
    let total = scene.status()["spare"]["total"].as_u64().unwrap();
    let little = total / 10;
    let mut host = scene.host();
    for lba in 0..total - little - 1 {
        write(&mut host, lba, 1);
    }
    assert_eq!(events(&scene.target, "spare_low"), [""; 0]);
    write(&mut host, 500, 1);
    let low = format!("Remap0 times=1 free={little} total={total}");
    assert_eq!(events(&scene.target, "spare_low"), [low.as_str()]);

    let add = json!({ "name": "Remap0", "lba": 2000, "num_blocks": 256 });
    let (_, error) = scene.target.refused("bdev_remap_add", add);
    assert!(error.contains("no spare block is left"), "{error}");
    let failed = events(&scene.target, "job_failed");
    assert!(failed.len() == 1 && failed[0].starts_with("Remap0 times=1 job=add blocks="), "{failed:?}");
    assert!(failed[0].contains(" error=no spare block is left"), "{failed:?}");

    // The rest, one by one.
    let free = scene.status()["spare"]["free"].as_u64().unwrap();
    for lba in 600..600 + free {
        write(&mut host, lba, 1);
    }
    assert_eq!(host.write(900, &stamped(900, 1, 1)).unwrap(), Status::WRITE_FAULT);
    let all = wait_for_events(&scene.target, "spare_low", 2);
    assert_eq!(all, [low, format!("Remap0 times=1 free=0 total={total}")]);
    scene.target.kill9();

    scene.start_again(&faults);
    assert_eq!(events(&scene.target, "spare_low"), [format!("Remap0 times=1 free=0 total={total}")]);
    scene.target.stop();
}

#[test]
fn copies_that_fail_and_heal_and_blocks_that_are_lost_by_that_are_told() {
    let faults = [fault(0, 100, "write", "write_fault")];
    let mut scene = Scene::of(Stack { faulty_spare: true, ..Stack::default() }, &faults);
    let mut host = scene.host();
    write(&mut host, 0, 8);
    assert_eq!(events(&scene.target, "degraded"), [""; 0]);

    let (first, blocks) = SpareFile::open(&scene.spare).metadata_blocks(Copy::A);
    scene.target.rpc("bdev_fault_inject", spare_fault(first, blocks, "write", "write_fault"));
    write(&mut host, 8, 1);
    let degraded = events(&scene.target, "degraded");
    assert!(degraded.len() == 1 && degraded[0].contains(" bad=") && degraded[0].contains("log_a"), "{degraded:?}");
    assert!(!degraded[0].contains("_b"), "{degraded:?}");
    scene.target.rpc("bdev_fault_clear", json!({ "name": "Spare0" }));
    wait_until("the copies to be whole again", HEALING, || scene.status()["state"] == "online");
    assert_eq!(events(&scene.target, "healed"), ["Remap0 times=1"]);

    // A spare block goes bad: its data moves. Where the move cannot be recorded, the block is lost, as far as anybody knows.
    let spare_lba = |lba: u64| {
        let list = scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "lba": lba, "max": 1 }));
        list["extents"][0]["spare_lba"].as_u64().unwrap()
    };
    scene.target.rpc("bdev_fault_inject", spare_fault(spare_lba(0), 1, "write", "write_fault"));
    write(&mut host, 0, 1);
    assert_eq!(events(&scene.target, "spare_bad"), ["Remap0 blocks=1 total=1"]);
    scene.target.rpc("bdev_fault_inject", spare_fault(spare_lba(3), 1, "write", "write_fault"));
    fail_the_log(&scene);
    assert_eq!(host.write(3, &stamped(3, 1, 2)).unwrap(), Status::WRITE_FAULT);
    assert_eq!(scene.count("lost"), 1);
    assert_eq!(events(&scene.target, "lost"), ["Remap0 blocks=1 lba=3 total=1"]);
    scene.target.stop();
}

#[test]
fn sets_that_claim_one_base_are_told() {
    const SPARE_1: &str = "aaaaaaaa-0000-4000-8000-000000000002";
    let mut target = Target::prepare();
    let [base, one, two] = ["base", "spare1", "spare2"].map(|name| target.file(name, 16));
    let disks = Config::new().aio("Spare1", &one, 4096, SPARE_1).aio("Spare2", &two, 4096, SPARE_UUID);
    let disks = disks.aio("Base0", &base, 4096, BASE_UUID);
    let mut sets = Vec::new();
    target.start(&disks);
    for spare in ["Spare1", "Spare2"] {
        let create = json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": spare });
        target.rpc("bdev_remap_create", create);
        sets.push(target.status("Remap0")["uuid"].as_str().unwrap().to_owned());
        target.rpc("bdev_remap_delete", json!({ "name": "Remap0" }));
    }
    assert_eq!(events(&target, "conflict"), [""; 0]);
    target.stop();

    target.start(&disks);
    assert!(!target.has_bdev("Remap0"));
    let mut told = events(&target, "conflict");
    let mut expected: Vec<_> =
        sets.iter().map(|set| format!("Remap0 times=1 uuid={set} base_uuid={BASE_UUID} claims=2")).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    target.stop();
}
