//! Rescues under load: each gets its turn, however many come after it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{
    config::Config,
    nvme_tcp::{Host, write_command},
    random::announce,
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, connect, fault_every, free_port, stamped},
    target::Target,
};
use serde_json::json;

/// Hosts, each with a part of the base.
const HOSTS: u64 = 8;
/// Commands that each has under way: as many as its queue takes.
const DEPTH: usize = 127;
/// One block in so many is bad.
const STRIDE: u64 = 25;
/// Blocks of a write.
const SIZE: u64 = 8;
/// Blocks of a host's part of the base: more than it comes to.
const PART: u64 = 1 << 19;
/// How long the load goes on.
const LOAD: Duration = Duration::from_secs(4);
/// A machine that others use may take so long over nothing.
const NOISE: Duration = Duration::from_secs(1);

/// A write with a bad block in it.
struct Rescue {
    /// How many were sent before it.
    number: usize,
    completed: Instant,
    took: Duration,
}

/// Writes a part of the base from its beginning, with [`DEPTH`] commands under way, and counts in `sent` those that have to be
/// rescued; yields them.
fn write_on(host: &Host, part: u64, sent: &AtomicUsize) -> Vec<Rescue> {
    let mut queue = host.queue_of(2, DEPTH as u16 + 1).expect("an I/O queue");
    let (mut under_way, mut rescues) = (HashMap::new(), Vec::new());
    let (start, data, mut lba) = (Instant::now(), stamped(0, SIZE, 1), part * PART);
    loop {
        while queue.outstanding() < DEPTH && start.elapsed() < LOAD {
            let bad = lba.next_multiple_of(STRIDE) < lba + SIZE;
            let number = bad.then(|| sent.fetch_add(1, Ordering::Relaxed));
            let cid = queue.submit(write_command(lba, SIZE as u16), &data, 0).expect("sent");
            under_way.insert(cid, (number, Instant::now()));
            lba += SIZE;
            assert!(lba < (part + 1) * PART, "the part is too small for this machine");
        }
        if queue.outstanding() == 0 {
            return rescues;
        }
        let done = queue.complete().expect("a completion");
        assert!(done.status.ok(), "{}", done.status);
        let Some((number, since)) = under_way.remove(&done.cid) else { panic!("completion of unknown {}", done.cid) };
        let (completed, took) = (Instant::now(), since.elapsed());
        rescues.extend(number.map(|number| Rescue { number, completed, took }));
    }
}

/// By how many that were sent after it any was overtaken, at most.
fn most_overtaken(rescues: &mut [Rescue]) -> usize {
    rescues.sort_unstable_by_key(|rescue| rescue.completed);
    let mut done = vec![false; rescues.len()];
    let (mut first_open, mut most) = (0, 0);
    for (completed, rescue) in (1..).zip(rescues) {
        done[rescue.number] = true;
        while done.get(first_open) == Some(&true) {
            first_open += 1;
        }
        // All before the first one that is open have completed: the rest of the completed ones were sent after it.
        most = most.max(completed - first_open);
    }
    most
}

#[test]
fn no_rescue_waits_for_all_that_come_after_it() {
    let mut target = Target::prepare_alone();
    let (spare, port) = (target.file("spare", 256), free_port());
    let base = json!({
        "name": "Base0", "num_blocks": HOSTS * PART, "block_size": BLOCK, "uuid": BASE_UUID
    });
    // The base takes no time, so that many rescues meet.
    let config = Config::new()
        .bdev("bdev_null_create", base)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", fault_every(STRIDE, 0, HOSTS * PART, "write", "write_fault"))
        .aio("Spare0", &spare, BLOCK as u32, SPARE_UUID)
        .bdev(
            "bdev_remap_create",
            json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0", "storm_limit": 1_000_000 }),
        )
        .export("Remap0", NQN, port);
    target.start(&config);
    // What takes no FLUSH is used, and said to be.
    assert_eq!(target.status("Remap0")["flush"], json!({ "base": false, "spare": true }));
    assert_eq!(target.log().matches("base_bdev Fault0 takes no FLUSH").count(), 1, "{}", target.log());

    let sent = AtomicUsize::new(0);
    let hosts: Vec<Host> = (0..HOSTS).map(|_| connect(port, NQN)).collect();
    let mut rescues: Vec<Rescue> = thread::scope(|scope| {
        let sent = &sent;
        let writers: Vec<_> =
            (0..).zip(&hosts).map(|(part, host)| scope.spawn(move || write_on(host, part, sent))).collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let overtaken = most_overtaken(&mut rescues);
    let mut times: Vec<Duration> = rescues.iter().map(|rescue| rescue.took).collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let (median, slowest) = (at(50), at(100));
    announce(&format!(
        "{} rescues: median {median:?}, 99 % {:?}, slowest {slowest:?}, overtaken by {overtaken} at most",
        times.len(),
        at(99)
    ));
    assert!(times.len() > 1000, "too little happened: {} rescues", times.len());
    assert_eq!(target.status("Remap0")["remapped"], times.len() as u64);
    // Who is served in turn is overtaken only by those that are under way together with it.
    let under_way = HOSTS as usize * DEPTH;
    assert!(overtaken <= 2 * under_way, "{overtaken}, with {under_way} commands under way");
    assert!(slowest <= NOISE.max(10 * median), "{slowest:?}, and the median is {median:?}");
    target.stop();
}
