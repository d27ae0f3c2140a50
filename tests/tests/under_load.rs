//! Delete and reset while writers are at work over bad blocks: nothing acknowledged is lost, and nothing hangs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    far::{REGION_BLOCKS, REGIONS, far_stack},
    load::{self, Habits, Shared},
    model::Model,
    nvme_tcp::{Host, Status},
    random::{Random, announce, seed},
    scene::{NQN, Scene, Stack, fault_every, stack_on_two_reactors, stamped},
    wait::wait_until,
};
use serde_json::{Value, json};

const WRITERS: u64 = 3;
const OWNED: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(30);

/// A hundredth of the blocks is bad for writing.
fn faults() -> Vec<Value> {
    vec![fault_every(100, 7, WRITERS * OWNED, "write", "write_fault")]
}

/// Writers at work until `end` has had its way with the device; then the target is started again and every block is checked.
fn survive(what: &str, end: impl FnOnce(&mut Scene, &Shared)) {
    survive_on(stack_on_two_reactors(json!({})), what, end);
}

/// As [`survive`], on any stack.
fn survive_on(stack: Stack, what: &str, end: impl FnOnce(&mut Scene, &Shared)) {
    let seed = seed();
    announce(&format!("{what}: E2E_SEED={seed}"));
    let mut random = Random::new(seed);
    let mut scene = Scene::of(stack, &faults());
    let shared = Shared::default();
    let mut models: Vec<Model> = (0..WRITERS).map(|_| Model::new(false)).collect();
    let hosts: Vec<Host> = (0..WRITERS).map(|_| scene.host()).collect();
    thread::scope(|scope| {
        for ((writer, host), model) in (0..).zip(&hosts).zip(&mut models) {
            let habits = Habits {
                window: writer * OWNED..(writer + 1) * OWNED,
                block_size: 4096,
                depth: 16,
                max_blocks: 8,
                flush_one_in: 50,
            };
            let (mut random, shared) = (random.fork(), &shared);
            scope.spawn(move || {
                let mut queue = host.queue(2).expect("an I/O queue");
                load::run(&mut queue, &habits, model, shared, &mut random, 1);
            });
        }
        wait_until("some load", LIMIT, || shared.acked.load(Ordering::Relaxed) > 2000);
        let ended = catch_unwind(AssertUnwindSafe(|| end(&mut scene, &shared)));
        // Whatever came of it: the writers end with the target.
        shared.dying.set();
        scene.target.kill9();
        ended.unwrap_or_else(|panic| resume_unwind(panic));
    });

    scene.start_again(&faults());
    assert_eq!(scene.status()["state"], "online");
    let mut host = scene.host();
    for model in &mut models {
        for (first, blocks) in model.runs(32) {
            let data = host.read(first, blocks as u16).unwrap().unwrap();
            for (lba, block) in (first..).zip(data.chunks(4096)) {
                model.recovered(lba, Some(block), &shared.bad).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    }
    scene.target.stop();
}

#[test]
fn acknowledged_writes_survive_delete_under_load() {
    survive("delete", |scene, shared| {
        shared.dying.set();
        assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0" })), true);
        assert!(!scene.target.has_bdev("Remap0"));
        assert_eq!(scene.target.rpc("bdev_remap_status", json!({})), json!([]));
        // Base and spare are free, and the set can be had again.
        let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        scene.target.rpc("bdev_remap_create", create);
        assert!(scene.count("remapped") > 5, "{}", scene.status());
    });
}

/// Blocks go to the spare and back again and again, while they are written; those that the base does not take stay.
#[test]
fn acknowledged_writes_survive_add_and_remove_under_load() {
    survive("add and remove", |scene, shared| {
        let end = Instant::now() + Duration::from_secs(3);
        let (mut added, mut removed, mut kept) = (0, 0, 0);
        while Instant::now() < end || added == 0 || removed == 0 {
            for writer in 0..WRITERS {
                let range = json!({ "name": "Remap0", "lba": writer * OWNED, "num_blocks": 300 });
                let report = scene.target.rpc("bdev_remap_add", range.clone());
                let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{report}"));
                assert_eq!((number("added") + number("already"), number("pending")), (300, 0), "{report}");
                added += number("added");
                let report = scene.target.rpc("bdev_remap_remove", range);
                let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{report}"));
                removed += number("removed");
                kept += number("kept");
                for extent in report["kept_extents"].as_array().unwrap() {
                    let first = extent["lba"].as_u64().unwrap();
                    let end = first + extent["num_blocks"].as_u64().unwrap();
                    (first..end).for_each(|lba| assert_eq!(lba % 100, 7, "the base takes block {lba}: {report}"));
                }
            }
        }
        announce(&format!("{added} blocks added, {removed} removed, {kept} times one was kept"));
        assert!(kept > 0, "there are blocks that the base does not take");
        let status = scene.status();
        assert_eq!((&status["state"], &status["pending"], &status["lost"]), (&json!("online"), &json!(0), &json!(0)));
        shared.dying.set();
    });
}

/// Lists of blocks of all writers are taken over while these are at work, and go back to the base.
#[test]
fn acknowledged_writes_survive_import_under_load() {
    survive("import", |scene, shared| {
        let end = Instant::now() + Duration::from_secs(3);
        let (mut added, mut rounds) = (0, 0);
        while Instant::now() < end || rounds < 2 {
            // Every other block, from the last one on, and some of them twice.
            let listed = (0..WRITERS * OWNED).rev().filter(|lba| lba % 2 == rounds % 2);
            let text = listed.map(|lba| if lba % 6 == 0 { format!("{lba}+1,{lba}") } else { lba.to_string() });
            let extents = text.collect::<Vec<_>>().join(",");
            let report = scene.target.rpc("bdev_remap_import", json!({ "name": "Remap0", "extents": extents }));
            let number = |field: &str| report[field].as_u64().unwrap_or_else(|| panic!("{report}"));
            assert_eq!((number("added") + number("already"), number("pending")), (WRITERS * OWNED / 2, 0), "{report}");
            added += number("added");
            rounds += 1;
            if Instant::now() < end {
                let all = json!({ "name": "Remap0", "lba": 0, "num_blocks": WRITERS * OWNED });
                scene.target.rpc("bdev_remap_remove", all);
            }
        }
        announce(&format!("{added} blocks by {rounds} lists, {} writes", shared.acked.load(Ordering::Relaxed)));
        let status = scene.status();
        assert_eq!((&status["state"], &status["pending"], &status["lost"]), (&json!("online"), &json!(0), &json!(0)));
        shared.dying.set();
    });
}

/// A subsystem that is paused, and saves and options that change, disturb no I/O.
#[test]
fn acknowledged_writes_survive_administration_under_load() {
    survive("administration", |scene, shared| {
        let end = Instant::now() + Duration::from_millis(500);
        let acked = shared.acked.load(Ordering::Relaxed);
        let mut saves = 0;
        // A slow machine takes its time over a few rounds.
        while saves < 4 || Instant::now() < end {
            let saved = scene.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
            assert_eq!(saved["all_copies"], true, "{saved}");
            for dry_run in [true, false] {
                let params = json!({ "name": "Remap0", "dry_run": dry_run });
                let restored = scene.target.rpc("bdev_remap_restore", params);
                let same = ["added", "removed", "changed"].iter().all(|what| restored[*what] == 0);
                assert!(same, "{restored}");
            }
            let limit = json!({ "name": "Remap0", "storm_limit": 5000 + saves });
            scene.target.rpc("bdev_remap_set_options", limit);
            scene.target.rpc("bdev_get_bdevs", json!({ "name": "Remap0" }));
            saves += 1;
        }
        assert!(shared.acked.load(Ordering::Relaxed) > acked, "I/O goes on");
        assert_eq!(scene.writing_threads(), 2, "hosts are on both reactors");
        assert!(scene.target.rpc("nvmf_get_subsystems", json!({ "nqn": NQN })).is_array());
        shared.dying.set();
    });
}

/// With remaps in so many regions of the table, I/O is put aside while it is looked up; meanwhile more blocks go bad, and in the end there is a
/// reset.
#[test]
fn acknowledged_writes_survive_where_the_table_is_far() {
    survive_on(far_stack(), "a far table", |scene, shared| {
        scene.become_far(5);
        scene.wait_for_aside(LIMIT);
        let (acked, remapped) = (shared.acked.load(Ordering::Relaxed), scene.count("remapped"));
        scene.target.rpc("bdev_fault_inject", fault_every(50, 3, WRITERS * OWNED, "write", "write_fault"));
        wait_until("more load", LIMIT, || shared.acked.load(Ordering::Relaxed) > acked + 5000);
        assert!(scene.count("remapped") > remapped + 20, "{}", scene.status());
        assert_eq!(scene.writing_threads(), 2, "hosts are on both reactors");
        let mut host = scene.host();
        let last = (REGIONS - 1) * REGION_BLOCKS;
        for lba in last + 3..last + 8 {
            assert_eq!(host.write(lba, &stamped(lba, 1, 1)).unwrap(), Status::SUCCESS);
        }
        assert_eq!(host.read(last + 3, 5).unwrap().unwrap(), stamped(last + 3, 5, 1));
        assert_eq!(scene.base_blocks(last + 5, 1), vec![0; 4096], "it is on the spare");
        assert_eq!(scene.base_blocks(last + 6, 2), stamped(last + 6, 2, 1));
        shared.dying.set();
        scene.target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
    });
}
