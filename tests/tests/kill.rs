//! kill -9 in the middle of concurrent writes over bad blocks: what was acknowledged is there afterwards, and nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use e2e::{
    nvme_tcp::{Host, write_command},
    scene::{Scene, fault_every, stamped},
    wait::wait_until,
};

const BLOCKS: u64 = 3000;
const WRITERS: u64 = 3;
const DEPTH: usize = 16;

/// What a block may hold: the round that was acknowledged last, and one that was under way when the target died.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    acked: u64,
    in_flight: Option<u64>,
}

/// xorshift64*: which block comes next. The seed makes a run repeatable up to timing.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// Writes blocks of its own (LBA modulo WRITERS) in any order, DEPTH at a time, until the connection breaks.
fn write_until_death(
    host: &Host,
    writer: u64,
    first_round: u64,
    blocks: &mut BTreeMap<u64, Expected>,
    acked: &AtomicU64,
) {
    let mut queue = host.queue(2).expect("an I/O queue");
    let mut random = Random(first_round * WRITERS + writer + 1);
    let mut under_way: HashMap<u16, u64> = HashMap::new();
    for round in first_round.. {
        while queue.outstanding() == DEPTH {
            let Ok(done) = queue.complete() else { return };
            let lba = under_way.remove(&done.cid).expect("a command of ours");
            assert!(done.status.ok(), "LBA {lba}: {}", done.status);
            let block = blocks.entry(lba).or_default();
            block.acked = block.in_flight.take().expect("it was under way");
            acked.fetch_add(1, Ordering::Relaxed);
        }
        let lba = random.below(BLOCKS / WRITERS) * WRITERS + writer;
        if blocks.get(&lba).is_some_and(|block| block.in_flight.is_some()) {
            continue;
        }
        // Under way from before it is sent: it may arrive although sending fails.
        blocks.entry(lba).or_default().in_flight = Some(round);
        match queue.submit(write_command(lba, 1), &stamped(lba, 1, round), 0) {
            Ok(cid) => under_way.insert(cid, lba),
            Err(_) => return,
        };
    }
}

#[test]
fn acknowledged_writes_survive_kill_under_load() {
    let faults = [fault_every(3, 0, BLOCKS, "write", "write_fault"), fault_every(3, 0, BLOCKS, "read", "read_error")];
    let mut scene = Scene::start(&faults);
    let mut blocks: Vec<BTreeMap<u64, Expected>> = vec![BTreeMap::new(); WRITERS as usize];
    let mut remapped = 0;
    for kill in 0..5_u64 {
        let acked = AtomicU64::new(0);
        // Another moment each time: at the very start, in the middle of many relocations, when nearly all is remapped.
        let enough = [40, 400, 1500, 3, 4000][kill as usize];
        let hosts: Vec<Host> = (0..WRITERS).map(|_| scene.host()).collect();
        thread::scope(|scope| {
            for ((writer, host), blocks) in (0..).zip(&hosts).zip(&mut blocks) {
                let acked = &acked;
                scope.spawn(move || write_until_death(host, writer, 1 + kill * 1_000_000, blocks, acked));
            }
            wait_until("acknowledged writes", Duration::from_secs(60), || acked.load(Ordering::Relaxed) >= enough);
            scene.target.kill9();
        });

        scene.start_again(&faults);
        let mut host = scene.host();
        for (&lba, expected) in blocks.iter_mut().flatten() {
            let candidates = [Some(expected.acked), expected.in_flight];
            let read = host.read(lba, 1).unwrap();
            let found = match &read {
                Ok(data) => candidates.into_iter().flatten().find(|&round| match round {
                    0 => data.iter().all(|&byte| byte == 0),
                    round => *data == stamped(lba, 1, round),
                }),
                // A bad block that was never acknowledged holds nothing that could be read.
                Err(_) => (expected.acked == 0).then_some(0),
            };
            let Some(found) = found else {
                panic!("kill {kill}, LBA {lba}: expected {expected:?}, read {:?}", read.map(|data| data[..32].to_vec()))
            };
            *expected = Expected { acked: found, in_flight: None };
        }
        let now = scene.count("remapped");
        assert!(now >= remapped, "{now} blocks are remapped, {remapped} were");
        remapped = now;
        assert!(remapped <= BLOCKS.div_ceil(3), "{remapped} blocks are remapped, more than are bad");
    }
    assert!(remapped > 100, "{remapped}");
    scene.target.stop();
}
