//! Every job of an operator, in every situation that may come over it: it is refused with a reason, or ends in order, and no data is
//! lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{
    nvme_tcp::Status,
    rpc::{self, RpcError},
    scene::{Scene, Stack, fault, stamped},
    wait::wait_until,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Blocks that the jobs are about.
const BLOCKS: u64 = 512;

/// A job, and how it is asked for.
struct Work {
    kind: &'static str,
    params: Value,
}

impl Work {
    fn method(&self) -> String {
        format!("bdev_remap_{}", self.kind)
    }

    /// The same on another bdev.
    fn on(&self, name: &str) -> Value {
        let mut params = self.params.clone();
        params["name"] = name.into();
        params
    }

    /// Whether the answer comes at the end of the job, not at its beginning.
    fn answers_at_its_end(&self) -> bool {
        !matches!(self.kind, "scrub" | "migrate")
    }

    /// Does `meanwhile` while the job runs. Yields what was answered, too.
    #[track_caller]
    fn with<T>(&self, scene: &mut Scene, meanwhile: impl FnOnce(&mut Scene) -> T) -> (Result<Value, RpcError>, T) {
        if matches!(self.kind, "migrate" | "remove") {
            relocate_all(scene);
        }
        let socket = scene.target.socket();
        thread::scope(|scope| {
            let asked = scope.spawn(|| rpc::call(&socket, &self.method(), self.params.clone(), LIMIT));
            wait_until(&format!("{} to run", self.kind), LIMIT, || progress(scene, self.kind) > Some(0));
            let done = meanwhile(scene);
            (asked.join().expect("no panic"), done)
        })
    }
}

/// All of them, in an order in which each has something to do.
fn all() -> [Work; 5] {
    let work = |kind, params: Value| Work { kind, params };
    let half = BLOCKS / 2;
    [
        work("add", json!({ "name": "Remap0", "lba": 0, "num_blocks": half })),
        work("import", json!({ "name": "Remap0", "extents": format!("{half}+{half}") })),
        work("migrate", json!({ "name": "Remap0", "spare_bdev": "Spare1", "max_mbps": 1 })),
        work("remove", json!({ "name": "Remap0", "lba": 0, "num_blocks": BLOCKS })),
        work("scrub", json!({ "name": "Remap0", "lba": 0, "num_blocks": BLOCKS, "max_mbps": 1 })),
    ]
}

/// How many blocks a job that runs has done.
fn progress(scene: &Scene, kind: &str) -> Option<u64> {
    scene.job(kind).filter(|job| job["state"] == "running").and_then(|job| job["blocks_done"].as_u64())
}

/// All blocks are on the spare, so that what is about them there has enough to do.
#[track_caller]
fn relocate_all(scene: &Scene) {
    scene.target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 0, "num_blocks": BLOCKS }));
    assert_eq!(scene.count("remapped"), BLOCKS);
}

/// A set on which jobs take long, with data.
fn slow() -> Scene {
    with_data(Stack { latency_us: 50_000, ..Stack::default() })
}

fn with_data(stack: Stack) -> Scene {
    let scene = Scene::of(Stack { spare1_mib: 16, ..stack }, &[]);
    let mut host = scene.host();
    for lba in (0..BLOCKS).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 1)).unwrap(), Status::SUCCESS);
    }
    scene
}

/// Nothing is lost, and no block has become bad.
#[track_caller]
fn assert_whole(scene: &Scene, when: &str) {
    assert_eq!(scene.host().read_all(0, BLOCKS).unwrap().unwrap(), stamped(0, BLOCKS, 1), "{when}");
    let status = scene.status();
    assert_eq!((&status["pending"], &status["lost"]), (&json!(0), &json!(0)), "{when}: {status}");
}

#[test]
fn asked_for_twice_the_second_is_refused_and_the_first_is_done() {
    let mut scene = slow();
    for work in all() {
        let ask = |scene: &mut Scene| scene.target.refused(&work.method(), work.params.clone());
        let (answer, (code, message)) = work.with(&mut scene, ask);
        assert!(code == -16 && message.contains(&format!("{} runs already", work.kind)), "{message} ({code})");
        answer.unwrap_or_else(|error| panic!("{}: {error}", work.kind));
        assert_eq!(scene.ended(work.kind)["state"], "done");
        assert_whole(&scene, work.kind);
    }
    scene.target.stop();
}

#[test]
fn on_a_bdev_that_is_no_set_or_is_not_there_it_is_refused_by_name() {
    let mut scene = slow();
    for (work, name) in all().iter().flat_map(|work| ["Base0", "Spare0", "Nowhere"].map(|name| (work, name))) {
        let (code, message) = scene.target.refused(&work.method(), work.on(name));
        assert!(code == -19 && message.contains(name), "{} on {name}: {message} ({code})", work.kind);
    }
    assert_eq!(scene.count("remapped"), 0);
    assert_whole(&scene, "all were refused");
    scene.target.stop();
}

#[test]
fn resets_in_the_middle_do_not_end_it() {
    let mut scene = slow();
    for work in all() {
        let reset = |scene: &mut Scene| {
            for _ in 0..4 {
                let before = progress(scene, work.kind);
                scene.target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
                wait_until("progress", LIMIT, || progress(scene, work.kind).is_none_or(|now| Some(now) > before));
            }
        };
        let (answer, ()) = work.with(&mut scene, reset);
        answer.unwrap_or_else(|error| panic!("{}: {error}", work.kind));
        let job = scene.ended(work.kind);
        assert_eq!(job["state"], "done", "{job}");
        assert_whole(&scene, work.kind);
    }
    scene.target.stop();
}

#[test]
fn deleted_in_the_middle_it_ends_soon_and_says_so() {
    let mut scene = slow();
    for work in all() {
        let delete = |scene: &mut Scene| {
            let begun = Instant::now();
            assert_eq!(scene.target.rpc("bdev_remap_delete", json!({ "name": "Remap0" })), true);
            begun.elapsed()
        };
        let (answer, took) = work.with(&mut scene, delete);
        assert!(took < Duration::from_secs(5), "{} held it up for {took:?}", work.kind);
        if work.answers_at_its_end() {
            let error = answer.expect_err("it did not come to its end");
            assert!(error.code() == -125 && error.to_string().contains("cancelled"), "{}: {error}", work.kind);
        }
        let (code, message) = scene.target.refused(&work.method(), work.params.clone());
        assert!(code == -19 && message.contains("Remap0"), "{}: {message} ({code})", work.kind);
        let create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        scene.target.rpc("bdev_remap_create", create);
        assert_eq!(scene.status()["state"], "online");
        scene
            .target
            .rpc("nvmf_subsystem_add_ns", json!({ "nqn": e2e::scene::NQN, "namespace": { "bdev_name": "Remap0" } }));
        assert_whole(&scene, work.kind);
    }
    scene.target.stop();
}

#[test]
fn stopped_in_the_middle_the_target_ends_cleanly_and_comes_back_with_all_data() {
    let mut scene = slow();
    for work in all() {
        let (answer, ()) = work.with(&mut scene, |scene| scene.target.stop());
        assert!(answer.is_err() || !work.answers_at_its_end(), "{}: {answer:?}", work.kind);
        scene.start_assembling(&[], &["Fault0", "Spare0", "Spare1"]);
        assert_eq!(scene.status()["state"], "online");
        assert_whole(&scene, work.kind);
    }
    scene.target.stop();
}

#[test]
fn with_the_storm_brake_on_nothing_is_relocated_and_the_rest_is_done() {
    let mut scene = with_data(Stack { options: json!({ "storm_limit": BLOCKS }), ..Stack::default() });
    let given = scene.target.rpc("bdev_remap_add", json!({ "name": "Remap0", "lba": 0, "num_blocks": 64 }));
    assert_eq!(given["added"], 64, "{given}");
    let mut host = scene.host();
    scene.target.rpc("bdev_fault_inject", fault(4096, 2 * BLOCKS, "write", "write_fault"));
    let statuses: Vec<_> =
        (4096..4096 + 2 * BLOCKS).step_by(32).map(|lba| host.write(lba, &stamped(lba, 32, 1)).unwrap()).collect();
    assert!(statuses.iter().any(|status| !status.ok()) && scene.status()["state"] == "tripped", "{statuses:?}");
    let tripped = scene.count("remapped");
    for work in all() {
        match work.kind {
            "add" | "import" | "scrub" => {
                let (code, message) = scene.target.refused(&work.method(), work.params.clone());
                let told = message.contains("the storm brake is on") && message.contains("re-arm");
                assert!(code == -16 && told, "{}: {message} ({code})", work.kind);
            }
            kind => {
                scene.target.rpc(&work.method(), work.params.clone());
                assert_eq!(scene.ended(kind)["state"], "done");
            }
        }
        assert_whole(&scene, work.kind);
    }
    assert_eq!(scene.status()["spare_bdev"], "Spare1", "it has moved");
    assert_eq!(scene.count("remapped"), tripped - 64, "and given back what was asked for");
    assert_eq!(scene.status()["state"], "tripped", "the brake stays on");
    scene.target.rpc("bdev_remap_set_options", json!({ "name": "Remap0", "rearm": true }));
    assert_eq!(scene.status()["state"], "online");
    scene.target.stop();
}
