//! RESET and ABORT of what Remap0 holds: it ends, at once, and nothing old is written later.

use std::{
    collections::HashMap,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    config::Config,
    far::{REGION_BLOCKS, far_stack},
    nvme_tcp::{Host, Queue, Status, read_command, write_command},
    random::announce,
    scene::{
        BASE_UUID, BLOCK, SPARE_UUID, Scene, Stack, connect, fault, fault_every, free_port, stack_on_two_reactors,
        stamped,
    },
    target::Target,
    wait::wait_until,
};
use serde_json::{Value, json};

const NQN: &str = "nqn.2026-01.io.bdev-remap:reset";
const LIMIT: Duration = Duration::from_secs(20);
/// Sooner than anything that hangs would end by itself.
const SOON: Duration = Duration::from_secs(5);

/// Remap0 over a base whose block 5 is bad, and a spare that is made on SpareDisk0 by `spare`.
fn start(spare: impl FnOnce(Config) -> (Config, &'static str)) -> (Target, u16) {
    let mut target = Target::prepare_on_two_reactors();
    let (base, port) = (target.file("base", 16), free_port());
    // AIO takes no ABORT.
    let config = Config::new()
        .aio("Base0", &base, BLOCK as u32, BASE_UUID)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault(5, 1, "write", "write_fault"))
        .malloc("SpareDisk0", 16, BLOCK as u32);
    let (config, spare) = spare(config);
    let config = config
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": spare }))
        .export("Remap0", NQN, port);
    target.start(&config);
    (target, port)
}

/// A spare whose writes can be made to hang until it is reset.
fn hanging(config: Config) -> (Config, &'static str) {
    (config.bdev("bdev_error_create", json!({ "base_name": "SpareDisk0", "uuid": SPARE_UUID })), "EE_SpareDisk0")
}

/// The next `count` writes of that spare hang.
fn hang(target: &Target, count: u32) {
    let next = json!({ "name": "EE_SpareDisk0", "io_type": "write", "error_type": "pending", "num": count });
    target.rpc("bdev_error_inject_error", next);
}

/// A spare whose writes can be made slow, and can be aborted then.
fn slow(config: Config) -> (Config, &'static str) {
    let delay = json!({
        "base_bdev_name": "SpareDisk0", "name": "Slow0", "uuid": SPARE_UUID, "avg_read_latency": 1, "p99_read_latency": 1,
        "avg_write_latency": 1, "p99_write_latency": 1
    });
    (config.bdev("bdev_delay_create", delay), "Slow0")
}

fn set_write_latency(target: &Target, latency: Duration) {
    for which in ["avg_write", "p99_write"] {
        let micros = latency.as_micros() as u64;
        let change = json!({ "delay_bdev_name": "Slow0", "latency_type": which, "latency_us": micros });
        target.rpc("bdev_delay_update_latency", change);
    }
}

/// Writes that have come to the disk below that spare: from then on they wait, and can be aborted.
fn spare_writes(target: &Target) -> u64 {
    let stat = target.rpc("bdev_get_iostat", json!({ "name": "SpareDisk0" }));
    stat["bdevs"][0]["num_write_ops"].as_u64().unwrap()
}

fn reset(target: &Target) -> Duration {
    let begun = Instant::now();
    target.rpc("bdev_fault_reset", json!({ "name": "Remap0" }));
    begun.elapsed()
}

/// Sends a write of block 5, and waits until its rescue has begun.
fn rescue_under_way(target: &Target, queue: &mut Queue, round: u64) -> u16 {
    let errors = |target: &Target| target.status("Remap0")["counters"]["media_errors_write"].as_u64().unwrap();
    let before = errors(target);
    let cid = queue.submit(write_command(5, 1), &stamped(5, 1, round), 0).unwrap();
    wait_until("a rescue", LIMIT, || errors(target) > before);
    cid
}

/// The only command of a queue comes back soon.
fn status_soon(queue: &mut Queue) -> Status {
    let begun = Instant::now();
    let status = queue.complete().unwrap().status;
    assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
    status
}

/// Block 5 can be written, and holds that.
fn works(target: &mut Target, mut host: Host) {
    assert_eq!(host.write(4, &stamped(4, 3, 9)).unwrap(), Status::SUCCESS);
    assert_eq!(host.read(4, 3).unwrap().unwrap(), stamped(4, 3, 9));
    assert_eq!(target.status("Remap0")["remapped"], 1);
    target.stop();
}

#[test]
fn a_reset_frees_a_save_that_hangs_on_the_spare_while_nothing_is_remapped() {
    let (mut target, port) = start(hanging);
    hang(&target, 1);
    let saved = thread::scope(|scope| {
        let begun = Instant::now();
        let saver = scope.spawn(|| target.rpc("bdev_remap_save", json!({ "name": "Remap0" })));
        // The first one may come before the write that hangs.
        wait_until("the end of the save", LIMIT, || {
            reset(&target);
            saver.is_finished()
        });
        assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
        saver.join().unwrap()
    });
    assert_eq!(saved["all_copies"], true, "{saved}");
    works(&mut target, connect(port, NQN));
}

#[test]
fn a_reset_ends_a_rescue_that_hangs_on_the_spare_before_it_completes() {
    let (mut target, port) = start(hanging);
    let host = connect(port, NQN);
    let mut queue = host.queue(2).unwrap();
    hang(&target, 1);
    rescue_under_way(&target, &mut queue, 1);
    let took = reset(&target);
    assert!(took < SOON, "the reset took {took:?}");
    assert_eq!(status_soon(&mut queue), Status::ABORTED);
    assert_eq!(target.status("Remap0")["remapped"], 0);
    works(&mut target, host);
}

/// The write of the rescue is slow, and ends well: the rescue is given up all the same, and leaves nothing behind.
#[test]
fn what_a_rescue_would_still_do_is_not_done_after_a_reset() {
    let stack = Stack { faulty_spare: true, ..stack_on_two_reactors(json!({})) };
    let mut scene = Scene::of(stack, &[fault(5, 1, "write", "write_fault")]);
    let host = scene.host();
    let mut queue = host.queue(2).unwrap();
    for round in 1..=20 {
        queue.submit(write_command(5, 1), &stamped(5, 1, round), 0).unwrap();
        reset(&scene.target);
        // It may have been done before the reset came; what was not is never done.
        let before = queue.complete().unwrap().status;
        assert!([Status::SUCCESS, Status::ABORTED].contains(&before), "{before}");
        let mut other = scene.host();
        assert_eq!(other.write(5, &stamped(5, 1, 100 + round)).unwrap(), Status::SUCCESS);
        assert_eq!(other.read(5, 1).unwrap().unwrap(), stamped(5, 1, 100 + round));
    }
    assert_eq!(scene.count("remapped"), 1);
    scene.target.kill9();
    scene.start_again(&[fault(5, 1, "write", "write_fault")]);
    assert_eq!(scene.host().read(5, 1).unwrap().unwrap(), stamped(5, 1, 120));
    scene.target.stop();
}

#[test]
fn an_abort_ends_a_rescue_with_what_it_has_under_way_on_the_spare() {
    let (mut target, port) = start(slow);
    let mut host = connect(port, NQN);
    let mut queue = host.queue(2).unwrap();
    set_write_latency(&target, Duration::from_secs(25));
    let before = spare_writes(&target);
    let cid = rescue_under_way(&target, &mut queue, 1);
    wait_until("the write of the spare", LIMIT, || spare_writes(&target) > before);
    assert!(host.abort(2, cid).unwrap(), "it was aborted");
    assert_eq!(status_soon(&mut queue), Status::ABORTED);
    set_write_latency(&target, Duration::from_micros(1));
    assert_eq!(target.status("Remap0")["remapped"], 0);
    works(&mut target, host);
}

/// Whatever the base takes.
#[test]
fn an_abort_reaches_what_is_on_the_spare_over_a_base_that_takes_none() {
    let (mut target, port) = start(slow);
    let mut host = connect(port, NQN);
    let mut queue = host.queue(2).unwrap();
    assert_eq!(host.write(5, &stamped(5, 1, 1)).unwrap(), Status::SUCCESS);
    set_write_latency(&target, Duration::from_secs(25));
    let before = spare_writes(&target);
    let cid = queue.submit(write_command(5, 1), &stamped(5, 1, 2), 0).unwrap();
    wait_until("the write of the spare", LIMIT, || spare_writes(&target) > before);
    assert!(host.abort(2, cid).unwrap(), "it was aborted");
    assert_eq!(status_soon(&mut queue), Status::ABORTED);
    set_write_latency(&target, Duration::from_micros(1));
    works(&mut target, host);
}

/// The number of a command that is not under way any more is no reason to abort another.
#[test]
fn an_abort_of_nothing_leaves_what_is_under_way_alone() {
    let (mut target, port) = start(slow);
    let mut host = connect(port, NQN);
    let mut queue = host.queue(2).unwrap();
    let cid = rescue_under_way(&target, &mut queue, 1);
    assert_eq!(status_soon(&mut queue), Status::SUCCESS);
    set_write_latency(&target, Duration::from_millis(500));
    queue.submit(write_command(5, 1), &stamped(5, 1, 2), 0).unwrap();
    assert!(!host.abort(2, cid).unwrap(), "there was nothing to abort");
    assert_eq!(status_soon(&mut queue), Status::SUCCESS);
    set_write_latency(&target, Duration::from_micros(1));
    works(&mut target, host);
}

/// Where the remap table is far, a write is put aside for a moment. If it is aborted then, it is not written; nothing else is aborted.
#[test]
fn an_abort_ends_what_is_put_aside_and_nothing_else() {
    const DEPTH: u64 = 24;
    const REMAPPED: u64 = DEPTH / 2;
    let mut scene = Scene::of(far_stack(), &[]);
    scene.become_far(5);
    let mut host = scene.host();
    // One of them is on another reactor than the aborts.
    let mut queues = [2, 3].map(|qid| (qid, host.queue(qid).unwrap()));
    // Near remapped blocks, and one of those.
    let lba = |at: u64| at * 7 * REGION_BLOCKS + if at == REMAPPED { 5 } else { 6 + at };
    let (mut held, mut rounds) = ([0; DEPTH as usize], 0);
    // The last one is still in the ring; the remapped one has had its turn, and is for the round.
    let mut aborted = HashMap::from([(DEPTH - 1, 0), (REMAPPED, 0)]);
    let end = Instant::now() + 3 * LIMIT;
    while aborted.values().any(|times| *times == 0) {
        assert!(Instant::now() < end, "{aborted:?} aborts in {rounds} rounds");
        rounds += 1;
        let (qid, queue) = &mut queues[rounds as usize % 2];
        let victim = if rounds / 2 % 2 == 0 { DEPTH - 1 } else { REMAPPED };
        let mut under_way = HashMap::new();
        // The abort is there before any of them is looked up.
        scene.target.while_it_stands_still(|| {
            for at in 0..DEPTH {
                under_way.insert(queue.submit(write_command(lba(at), 1), &stamped(lba(at), 1, rounds), 0).unwrap(), at);
            }
            let (cid, _) = under_way.iter().find(|(_, at)| **at == victim).expect("it was sent");
            host.submit_abort(*qid, *cid).unwrap();
        });
        let told = host.aborted().unwrap();
        while queue.outstanding() > 0 {
            let completion = queue.complete().unwrap();
            let at = under_way[&completion.cid];
            match completion.status {
                Status::SUCCESS => held[at as usize] = rounds,
                // Only what is aside can end so: its data came with the command, and AIO takes no ABORT. That it was aborted is said,
                // too, of what ends by itself meanwhile.
                Status::ABORTED if told && at == victim => *aborted.get_mut(&at).expect("a victim") += 1,
                other => panic!("LBA {}: {other}, abort of {}: {told}", lba(at), lba(victim)),
            }
        }
        for (at, round) in (0..).zip(held) {
            let data = queue.run(read_command(lba(at), 1), &[], BLOCK).unwrap().data;
            let expected = if round == 0 { vec![0; BLOCK] } else { stamped(lba(at), 1, round) };
            assert!(data == expected, "LBA {}, round {round} of {rounds}", lba(at));
        }
    }
    announce(&format!("aborts that came while it was aside: {aborted:?} of {rounds}"));
    scene.wait_for_aside(SOON);
    scene.target.stop();
}

/// Resets without end over writes of which every third is rescued. After each, what is acknowledged is there.
#[test]
fn resets_over_rescues_lose_nothing_that_was_acknowledged() {
    let seconds = std::env::var("E2E_RESET_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    // More blocks than are come to: a block is rescued only once.
    let (base_mib, spare_mib) = (256 * seconds, 32 * seconds);
    let blocks = (base_mib << 20) / BLOCK as u64;
    let stack = Stack { base_mib, spare_mib, ..stack_on_two_reactors(json!({ "storm_limit": 1_000_000 })) };
    let faults: Vec<Value> = vec![fault_every(3, 0, blocks, "write", "write_fault")];
    let mut scene = Scene::of(stack, &faults);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (done, aborted) = thread::scope(|scope| {
        let scene = &scene;
        let writers: Vec<_> = (0..4)
            .map(|part| part * blocks / 4..(part + 1) * blocks / 4)
            .map(|part| scope.spawn(move || write_until(&scene.host(), part, end)))
            .collect();
        while Instant::now() < end {
            let took = reset(&scene.target);
            assert!(took < SOON, "the reset took {took:?}");
            // The pace of the load is not that of the resets.
            thread::sleep(Duration::from_millis(200));
        }
        writers.into_iter().map(|w| w.join().expect("a writer")).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    let status = scene.status();
    let remapped = status["remapped"].as_u64().unwrap();
    announce(&format!("{done} writes acknowledged, {aborted} aborted, {remapped} blocks remapped"));
    assert_eq!(scene.writing_threads(), 2, "hosts are on both reactors");
    assert!(done > 1000 && aborted > 0 && remapped > 100, "{done} writes, {aborted} aborted, {remapped} remapped");
    assert_eq!((&status["state"], &status["pending"], &status["lost"]), (&json!("online"), &json!(0), &json!(0)));
    scene.target.stop();
}

/// Writes the blocks of a part, several at a time, and reads back what was acknowledged; yields how many were, and how
/// many were aborted.
fn write_until(host: &Host, part: Range<u64>, end: Instant) -> (u64, u64) {
    const DEPTH: u64 = 16;
    let mut queue = host.queue(2).unwrap();
    let (mut done, mut aborted) = (0, 0);
    for (round, start) in part.step_by(DEPTH as usize).enumerate() {
        let round = round as u64;
        let mut under_way = HashMap::new();
        for lba in start..start + DEPTH {
            under_way.insert(queue.submit(write_command(lba, 1), &stamped(lba, 1, round), 0).unwrap(), lba);
        }
        let mut written = Vec::new();
        while queue.outstanding() > 0 {
            let completion = queue.complete().unwrap();
            let lba = under_way[&completion.cid];
            match completion.status {
                Status::SUCCESS => written.push(lba),
                Status::ABORTED => aborted += 1,
                other => panic!("LBA {lba}: {other}"),
            }
        }
        done += written.len() as u64;
        for lba in written {
            loop {
                let read = queue.run(read_command(lba, 1), &[], BLOCK).unwrap();
                match read.status {
                    Status::SUCCESS => break assert!(read.data == stamped(lba, 1, round), "LBA {lba}, round {round}"),
                    Status::ABORTED => {}
                    other => panic!("read of LBA {lba}: {other}"),
                }
            }
        }
        if Instant::now() > end {
            return (done, aborted);
        }
    }
    panic!("the part is too small for this machine")
}
