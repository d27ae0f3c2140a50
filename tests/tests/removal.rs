//! A member goes away while Remap0 is in use: no crash, and everything is there again when the member is.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    slice,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use e2e::{
    config::Config,
    load::{self, Habits, Shared},
    model::{Flag, Model},
    nvme_tcp::{Host, Status},
    random::{Random, announce, number, seed},
    scene::{
        BASE_UUID, NQN, SPARE_UUID, SPARE1_UUID, Scene, Stack, fault, fault_at, fault_every, stack_on_two_reactors,
        stamped,
    },
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

/// Writes and reads until told to stop or until the device fails.
fn load(mut host: Host, stop: &AtomicBool) {
    for round in 0.. {
        let lba = round * 8 % 4096;
        let done = host.write(lba, &stamped(lba, 8, round)).is_ok_and(Status::ok)
            && host.read(lba, 8).is_ok_and(|r| r.is_ok());
        if stop.load(Ordering::Relaxed) || !done {
            return;
        }
    }
}

/// Deletes `member` under load, and waits until Remap0 is gone.
fn remove_under_load(scene: &mut Scene, member: &str) {
    let stop = AtomicBool::new(false);
    let (one, two) = (scene.host(), scene.host());
    thread::scope(|scope| {
        scope.spawn(|| load(one, &stop));
        scope.spawn(|| load(two, &stop));
        wait_until("some I/O", LIMIT, || scene.count("remapped") > 3);
        scene.target.rpc("bdev_aio_delete", json!({ "name": member }));
        wait_until("end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(scene.target.runs());
    // It is known without either of them; what is there of it is kept for it.
    let (field, kept) = if member == "Base0" { ("spare_bdev", "Spare0") } else { ("base_bdev", "Fault0") };
    wait_until("what status says then", LIMIT, || {
        let status = scene.target.rpc("bdev_remap_status", json!({}))[0].take();
        status["state"] == "waiting" && status[field] == kept
    });
}

fn faults() -> Vec<Value> {
    vec![fault_every(50, 0, 4096, "write", "write_fault"), fault_every(50, 0, 4096, "read", "read_error")]
}

#[test]
fn removal_of_the_base_under_load() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults());
    let data = stamped(8000, 8, 9);
    assert_eq!(scene.host().write(8000, &data).unwrap(), Status::SUCCESS);
    remove_under_load(&mut scene, "Base0");
    // The spare is free for others, or for the base when it comes back.
    let file = scene.base.display().to_string();
    scene
        .target
        .rpc("bdev_aio_create", json!({ "name": "Base0", "filename": file, "block_size": 4096, "uuid": BASE_UUID }));
    if !scene.target.has_bdev("Fault0") {
        scene.target.rpc("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
    }
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    assert!(scene.count("remapped") > 3);
    scene.target.kill9();
    scene.start_again(&faults());
    assert_eq!(scene.host().read(8000, 8).unwrap().unwrap(), data);
    scene.target.stop();
}

#[test]
fn removal_of_the_spare_under_load() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &faults());
    remove_under_load(&mut scene, "Spare0");
    let file = scene.spare.display().to_string();
    scene
        .target
        .rpc("bdev_aio_create", json!({ "name": "Spare0", "filename": file, "block_size": 4096, "uuid": SPARE_UUID }));
    scene.target.rpc("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    assert!(scene.count("remapped") > 3);
    scene.target.stop();
}

/// The spare's bdev again.
fn spare_returns(scene: &Scene) {
    let file = scene.spare.display().to_string();
    let params = json!({ "name": "Spare0", "filename": file, "block_size": 4096, "uuid": SPARE_UUID });
    scene.target.rpc("bdev_aio_create", params);
}

/// The spare goes while nothing is on it, and hosts are at work; `then` follows, and until its end no I/O may fail.
fn without_spare(scene: &mut Scene, then: impl FnOnce(&mut Scene)) {
    let stop = AtomicBool::new(false);
    let (mut one, rounds) = (scene.host(), AtomicU64::new(0));
    thread::scope(|scope| {
        let (stop, rounds) = (&stop, &rounds);
        let writer = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let round = rounds.fetch_add(1, Ordering::Relaxed);
                let (lba, data) = (round * 8 % 4096, stamped(round * 8 % 4096, 8, round));
                assert_eq!(one.write(lba, &data).unwrap(), Status::SUCCESS);
                assert_eq!(one.flush().unwrap(), Status::SUCCESS);
                assert_eq!(one.read(lba, 8).unwrap().unwrap(), data);
            }
        });
        let goes_on = || {
            let before = rounds.load(Ordering::Relaxed);
            wait_until("I/O", LIMIT, || rounds.load(Ordering::Relaxed) > before + 20 || writer.is_finished());
        };
        goes_on();
        scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
        wait_until("the end of the spare", LIMIT, || !scene.target.has_bdev("Spare0"));
        let status = scene.status();
        assert_eq!((&status["state"], &status["spare_bdev"]), (&json!("degraded"), &Value::Null), "{status}");
        goes_on();
        let done = catch_unwind(AssertUnwindSafe(|| then(scene)));
        // Whatever came of it: the writer ends.
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

#[test]
fn a_spare_that_nothing_is_on_goes_and_comes_back_while_hosts_go_on() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    let bad = fault(8000, 4, "write", "write_fault");
    without_spare(&mut scene, |scene| {
        scene.target.rpc("bdev_fault_inject", bad.clone());
        let written = scene.host().write(8000, &stamped(8000, 4, 1)).unwrap();
        assert_eq!(written, Status::WRITE_FAULT, "there is nowhere to go");
        spare_returns(scene);
        wait_until("the set to be whole", LIMIT, || scene.status()["state"] == "online");
        assert_eq!(scene.status()["spare_bdev"], "Spare0");
        assert_eq!(scene.host().write(8000, &stamped(8000, 4, 2)).unwrap(), Status::SUCCESS);
    });
    scene.target.kill9();
    scene.start_again(&[bad]);
    assert_eq!(scene.count("remapped"), 4);
    assert_eq!(scene.host().read(8000, 4).unwrap().unwrap(), stamped(8000, 4, 2));
    scene.target.stop();
}

#[test]
fn a_spare_that_is_gone_is_replaced_and_retired_when_it_comes_back() {
    let mut scene = Scene::of(Stack { spare1_mib: 16, ..stack_on_two_reactors(json!({})) }, &[]);
    let bad = fault(8000, 4, "write", "write_fault");
    without_spare(&mut scene, |scene| {
        scene.target.rpc("bdev_remap_migrate", json!({ "name": "Remap0", "spare_bdev": "Spare1" }));
        assert_eq!(scene.ended("migrate")["state"], "done");
        let status = scene.status();
        assert_eq!((&status["state"], &status["spare_bdev"]), (&json!("online"), &json!("Spare1")), "{status}");
        scene.target.rpc("bdev_fault_inject", bad.clone());
        assert_eq!(scene.host().write(8000, &stamped(8000, 4, 2)).unwrap(), Status::SUCCESS);
    });
    let check = |scene: &Scene| {
        assert_eq!((&scene.status()["spare_bdev"], scene.count("remapped")), (&json!("Spare1"), 4));
        assert_eq!(scene.host().read(8000, 4).unwrap().unwrap(), stamped(8000, 4, 2));
    };
    // Both say that they are in force: the one that has replaced the other is, and the other says so from then on.
    scene.target.kill9();
    scene.start_assembling(slice::from_ref(&bad), &["Spare0", "Spare1", "Fault0"]);
    check(&scene);
    wait_until("the old one to be retired", LIMIT, || scene.target.log().contains("is retired"));
    scene.target.kill9();
    for order in [["Fault0", "Spare0", "Spare1"], ["Spare0", "Fault0", "Spare1"]] {
        scene.start_assembling(slice::from_ref(&bad), &order);
        check(&scene);
        scene.target.kill9();
    }
}

/// The spare went while nothing was on it, and the set has moved to another one. The old one says that it is in force, and nobody is there who
/// knows better but the target, or a configuration that was saved since.
#[test]
fn an_outdated_spare_alone_does_not_bring_the_set_back() {
    let mut scene = Scene::of(Stack { spare1_mib: 32, ..Stack::default() }, &[]);
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    wait_until("the end of the spare", LIMIT, || scene.status()["state"] == "degraded");
    scene.target.rpc("bdev_remap_migrate", json!({ "name": "Remap0", "spare_bdev": "Spare1" }));
    assert_eq!(scene.ended("migrate")["state"], "done");
    scene.target.rpc("bdev_fault_inject", fault(8000, 4, "write", "write_fault"));
    assert_eq!(scene.host().write(8000, &stamped(8000, 4, 2)).unwrap(), Status::SUCCESS);
    assert_eq!(scene.count("remapped"), 4);
    let saved = scene.target.saved_config();
    let calls =
        saved["subsystems"].as_array().unwrap().iter().flat_map(|of| of["config"].as_array().into_iter().flatten());
    let mut expected = calls.filter(|call| call["method"] == "bdev_remap_expect").map(|call| &call["params"]);
    let expected = expected.next().unwrap().clone();
    assert_eq!((&expected["spare_uuid"], &expected["generation"]), (&json!(SPARE1_UUID), &json!(2)));

    let before = fs::read(&scene.spare).unwrap();
    let waits = |scene: &Scene| {
        wait_until("the outdated spare", LIMIT, || {
            scene.target.rpc("bdev_remap_status", json!({}))[0]["spare_bdev"] == "Spare0"
        });
        let status = scene.target.rpc("bdev_remap_status", json!({}))[0].take();
        let why = status["waits_for"].as_str().unwrap();
        assert!(status["state"] == "waiting" && why.contains(SPARE1_UUID) && why.contains("outdated"), "{status}");
        assert_eq!((&status["base_bdev"], &status["spare_uuid"]), (&json!("Fault0"), &json!(SPARE1_UUID)), "{status}");
        let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        let (code, message) = scene.target.refused("bdev_remap_create", create);
        assert!(code == -116 && message.contains(SPARE1_UUID) && message.contains("outdated"), "{code}: {message}");
        assert!(fs::read(&scene.spare).unwrap() == before, "the outdated spare was written to");
    };
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare1" }));
    wait_until("the end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
    spare_returns(&scene);
    waits(&scene);

    scene.target.kill9();
    let fault0 = json!({ "name": "Fault0", "base_bdev": "Base0" });
    let config = Config::new().bdev("bdev_remap_expect", expected).aio("Base0", &scene.base, 4096, BASE_UUID);
    let config = config.bdev("bdev_fault_create", fault0).aio("Spare0", &scene.spare, 4096, SPARE_UUID);
    scene.target.start(&config);
    waits(&scene);
    let file = scene.spare1.display().to_string();
    let right = json!({ "name": "Spare1", "filename": file, "block_size": 4096, "uuid": SPARE1_UUID });
    scene.target.rpc("bdev_aio_create", right);
    wait_until("the set to come back", LIMIT, || scene.status()["state"] == "online");
    assert_eq!((&scene.status()["spare_bdev"], scene.count("remapped")), (&json!("Spare1"), 4));
    wait_until("the old one to be retired", LIMIT, || scene.target.log().contains("is retired"));
    scene.target.stop();
}

/// Base or spare goes under load, again and again, and comes back: as long as nothing is remapped hosts do not notice that the spare
/// goes. `E2E_REMOVALS` says how often, `E2E_SEED` which.
#[test]
fn nothing_is_lost_in_200_removals_and_returns_under_load() {
    const WINDOW: u64 = 400;
    let (removals, seed) = (number("E2E_REMOVALS", 200), seed());
    announce(&format!("removals: E2E_SEED={seed}"));
    let mut random = Random::new(seed);
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    let (mut shared, mut model, mut round) = (Shared::default(), Model::new(false), 1);
    let habits = Habits { window: 0..WINDOW, block_size: 4096, depth: 16, max_blocks: 8, flush_one_in: 20 };
    let (mut unnoticed, mut of_spare) = (0, 0);
    for removal in 0..removals {
        // Of the first ones nothing is remapped; of the others something is.
        let goes_bad = removal >= removals / 4;
        if goes_bad && scene.count("remapped") == 0 {
            scene.target.rpc("bdev_fault_inject", fault(WINDOW, 1, "write", "write_fault"));
            assert_eq!(scene.host().write(WINDOW, &stamped(WINDOW, 1, 1)).unwrap(), Status::SUCCESS);
        }
        let spare_goes = random.one_in(2);
        shared.dying = Flag::default();
        let host = scene.host();
        thread::scope(|scope| {
            let (shared, habits, model, mut fork) = (&shared, &habits, &mut model, random.fork());
            let writer = scope.spawn(move || {
                let mut queue = host.queue(2).unwrap();
                load::run(&mut queue, habits, model, shared, &mut fork, round)
            });
            let some_load = || {
                let acked = shared.acked.load(Ordering::Relaxed);
                let more = || shared.acked.load(Ordering::Relaxed) > acked + 50;
                wait_until("some load", LIMIT, || more() || writer.is_finished());
            };
            some_load();
            if goes_bad && random.one_in(4) {
                let lba = random.below(WINDOW);
                shared.bad.doom(lba, false);
                scene.target.rpc("bdev_fault_inject", fault(lba, 1, "write", "write_fault"));
                shared.bad.confirm();
            }
            thread::sleep(Duration::from_millis(random.below(20)));
            if spare_goes && !goes_bad {
                scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
                wait_until("the end of the spare", LIMIT, || !scene.target.has_bdev("Spare0"));
                some_load();
                spare_returns(&scene);
                wait_until("the set to be whole", LIMIT, || scene.status()["state"] == "online");
                some_load();
                unnoticed += 1;
            }
            shared.dying.set();
            match spare_goes && goes_bad {
                true => scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" })),
                false => scene.target.rpc("bdev_fault_delete", json!({ "name": "Fault0" })),
            };
            wait_until("the end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
            round = writer.join().unwrap();
        });
        if spare_goes && goes_bad {
            of_spare += 1;
            spare_returns(&scene);
        } else {
            scene.target.rpc("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
            let bad = shared.bad.list().into_iter().map(|(lba, _)| lba).chain(goes_bad.then_some(WINDOW));
            scene.target.rpc("bdev_fault_inject", fault_at(&bad.collect::<Vec<_>>(), "write", "write_fault"));
        }
        wait_until("the set to come back", LIMIT, || scene.status()["state"] == "online");
        let params = json!({ "nqn": NQN, "namespace": { "bdev_name": "Remap0", "nsid": 1 } });
        scene.target.rpc("nvmf_subsystem_add_ns", params);
        let mut host = scene.host();
        for (first, blocks) in model.runs(32) {
            let data = host.read(first, blocks as u16).unwrap().unwrap();
            for (lba, block) in (first..).zip(data.chunks(4096)) {
                model.recovered(lba, Some(block), &shared.bad).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    }
    let remapped = scene.count("remapped");
    announce(&format!(
        "{removals} removals, {of_spare} of the spare; {unnoticed} more of it that no host noticed; {remapped} blocks remapped"
    ));
    assert!(unnoticed > 0 && remapped > 0);
    scene.target.stop();
}

#[test]
fn a_set_that_comes_back_is_as_it_was_asked_for() {
    let options = json!({ "remap_on": "any", "storm_limit": 5000 });
    let mut scene = Scene::with(&[fault(5, 3, "write", "write_fault")], options);
    assert_eq!(scene.host().write(0, &stamped(0, 16, 1)).unwrap(), Status::SUCCESS);
    scene.target.rpc("bdev_remap_set_options", json!({ "name": "Remap0", "storm_limit": 77_777 }));
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    wait_until("the end of Remap0", LIMIT, || !scene.target.has_bdev("Remap0"));
    spare_returns(&scene);
    wait_until("the set to come back", LIMIT, || scene.target.has_bdev("Remap0"));
    let status = scene.status();
    assert_eq!((&status["remap_on"], &status["storm_limit"]), (&json!("any"), &json!(77_777)), "{status}");
    scene.target.stop();
}

#[test]
fn half_a_set_waits_and_holds_nothing_up() {
    let mut scene = Scene::of(stack_on_two_reactors(json!({})), &[]);
    scene.target.stop();
    let config = Config::new().aio("Spare0", &scene.spare, 4096, SPARE_UUID);
    scene.target.start(&config);
    assert!(!scene.target.has_bdev("Remap0"));
    assert_eq!(scene.status()["state"], "waiting");
    // A half set does not keep its member from being removed, nor the target from stopping.
    scene.target.rpc("bdev_aio_delete", json!({ "name": "Spare0" }));
    scene.target.stop();
}
