//! Rounds of load and sudden death on one stack: start, load, faults that appear, death, start, check of every block.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    config::Config,
    load::{self, Habits, Shared},
    model::{Flag, Model},
    nvme_tcp::Host,
    random::{Random, number},
    rpc::RpcError,
    scene::{Scene, Stack, fault, fault_at, stack_on_two_reactors, stack_with_caches},
};

/// Writers at a time.
const WRITERS: u64 = 3;
/// Blocks of the base that each writer owns, one writer's behind the other's.
const OWNED: u64 = 3400;
/// Of them those that it uses in one round.
const WINDOW: u64 = 150;
/// Blocks of a round's windows that go bad: over the rounds of a stack about 1 % of all blocks.
const BAD_A_ROUND: u64 = 4;

/// How the target dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// kill -9. There is no volatile cache.
    Kill,
    /// The power goes: volatile caches on base and spare lose what was not flushed, all or at random; then kill -9.
    PowerCut,
}

/// What all rounds came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Deaths.
    pub deaths: u64,
    /// Of them, while the target was starting.
    pub while_starting: u64,
    /// Acknowledged writes.
    pub acked: u64,
    /// Acknowledged flushes.
    pub flushes: u64,
    /// Bad blocks.
    pub bad: u64,
    /// Blocks remapped in the end.
    pub remapped: u64,
    /// Blocks read and compared.
    pub compared: u64,
    /// Migrations that were begun.
    pub migrations: u64,
    /// Of them, those that had ended before the target died.
    pub migrated: u64,
    /// Starts that found the set on another spare than the start before.
    pub moved: u64,
}

impl Figures {
    /// Adds up.
    #[must_use]
    pub fn plus(self, other: Figures) -> Figures {
        Figures {
            deaths: self.deaths + other.deaths,
            while_starting: self.while_starting + other.while_starting,
            acked: self.acked + other.acked,
            flushes: self.flushes + other.flushes,
            bad: self.bad + other.bad,
            remapped: self.remapped + other.remapped,
            compared: self.compared + other.compared,
            migrations: self.migrations + other.migrations,
            migrated: self.migrated + other.migrated,
            moved: self.moved + other.moved,
        }
    }
}

/// The spares of a set that moves.
const SPARES: [&str; 2] = ["Spare0", "Spare1"];

/// A stack that dies again and again.
pub struct Mortal {
    scene: Scene,
    death: Death,
    block_size: usize,
    /// On which of its two spares the set was at the last start, if there are two, and it moves to and fro.
    on: Option<usize>,
    random: Random,
    shared: Shared,
    /// By writer: its blocks, and its next round.
    writers: Vec<(Model, u64)>,
    figures: Figures,
}

impl Mortal {
    /// A new stack with blocks of `block_size` bytes; `random` decides everything but the timing.
    #[track_caller]
    pub fn new(death: Death, block_size: usize, random: Random) -> Mortal {
        Mortal::make(death, block_size, random, false)
    }

    /// As [`Mortal::new`], with a second spare, and migrations under load from one to the other.
    #[track_caller]
    pub fn that_moves(death: Death, block_size: usize, random: Random) -> Mortal {
        Mortal::make(death, block_size, random, true)
    }

    #[track_caller]
    fn make(death: Death, block_size: usize, random: Random, moves: bool) -> Mortal {
        let spare1_mib = if moves { 12 } else { 0 };
        let plain = Stack { block_size, spare1_mib, ..stack_on_two_reactors(json!({})) };
        let stack = if death == Death::PowerCut { stack_with_caches(plain) } else { plain };
        let mut scene = Scene::prepare(stack);
        scene.start_again(&[]);
        let writers = (0..WRITERS).map(|_| (Model::new(death == Death::PowerCut), 1)).collect();
        let (on, shared, figures) = (moves.then_some(0), Shared::default(), Figures::default());
        Mortal { scene, death, block_size, on, random, shared, writers, figures }
    }

    /// Load, death, start, check.
    #[track_caller]
    pub fn round(&mut self) {
        let first = self.random.below(OWNED - WINDOW);
        self.shared.dying = Flag::default();
        self.load(first);
        self.figures.deaths += 1;
        if self.random.one_in(8) {
            self.die_while_starting();
        }
        self.start();
        self.check(Some(first));
    }

    /// The last check, of everything that was ever written; what all rounds came to.
    #[track_caller]
    pub fn end(mut self) -> Figures {
        self.check(None);
        self.scene.target.stop();
        self.figures.acked = self.shared.acked.into_inner();
        self.figures.flushes = self.shared.flushes.into_inner();
        self.figures.bad = self.shared.bad.list().len() as u64;
        self.figures
    }

    /// Writers, each on a window of its own, faults that appear there, and then death.
    fn load(&mut self, first: u64) {
        let hosts: Vec<Host> = (0..WRITERS).map(|_| self.scene.host()).collect();
        let habits = |writer: u64| Habits {
            window: writer * OWNED + first..writer * OWNED + first + WINDOW,
            block_size: self.block_size,
            depth: 16,
            max_blocks: 8,
            flush_one_in: if self.death == Death::PowerCut { 40 } else { 0 },
        };
        let (shared, random) = (&self.shared, &mut self.random);
        let death = self.death;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for ((number, host), (model, round)) in (0..).zip(&hosts).zip(&mut self.writers) {
                let (habits, mut random) = (habits(number), random.fork());
                threads.push(scope.spawn(move || {
                    match host.queue(2) {
                        Ok(mut queue) => *round = load::run(&mut queue, &habits, model, shared, &mut random, *round),
                        // Dead before it could begin.
                        Err(error) => assert!(shared.dying.is_set(), "{error}"),
                    }
                }));
            }
            let mut move_at = self.on.map(|_| Instant::now() + Duration::from_millis(random.below(60)));
            let mut faults_left = BAD_A_ROUND;
            let deadline = Instant::now() + Duration::from_millis(random.below(number("E2E_LIFE_MS", 120)));
            while faults_left > 0 || move_at.is_some() || Instant::now() < deadline {
                // A writer that ends now has found something wrong: its panic comes up at the end of the scope.
                if threads.iter().any(thread::ScopedJoinHandle::is_finished) {
                    break;
                }
                if faults_left > 0 {
                    faults_left -= 1;
                    let lba = random.below(WRITERS) * OWNED + first + random.below(WINDOW);
                    let unreadable = random.one_in(2);
                    shared.bad.doom(lba, unreadable);
                    self.scene.target.rpc("bdev_fault_inject", fault(lba, 1, "write", "write_fault"));
                    if unreadable {
                        self.scene.target.rpc("bdev_fault_inject", fault(lba, 1, "read", "read_error"));
                    }
                    shared.bad.confirm();
                }
                if let (Some(on), true) = (self.on, move_at.is_some_and(|at| Instant::now() >= at)) {
                    move_at = None;
                    begin_to_move(&self.scene, SPARES[1 - on], random);
                    self.figures.migrations += 1;
                }
                thread::sleep(Duration::from_millis(random.below(12)));
            }
            shared.dying.set();
            let status = self.on.and_then(|on| Some((on, self.scene.job("migrate")?)));
            self.figures.migrated += u64::from(status.is_some_and(|(_, job)| job["state"] == "done"));
            if death == Death::PowerCut {
                cut_power(&self.scene, random);
            }
            self.scene.target.kill9();
        });
    }

    /// Starts the target and kills it before it is ready.
    fn die_while_starting(&mut self) {
        let config = self.config().to_json();
        self.scene.target.launch(&config);
        thread::sleep(Duration::from_millis(150 + self.random.below(400)));
        self.scene.target.kill9();
        self.figures.deaths += 1;
        self.figures.while_starting += 1;
    }

    /// All of them in two calls, as each that a configuration makes takes 8 ms.
    fn faults(&self) -> [serde_json::Value; 2] {
        let bad = self.shared.bad.list();
        let unreadable = bad.iter().filter(|(_, unreadable)| *unreadable);
        let writes = bad.iter().map(|(lba, _)| *lba).collect::<Vec<_>>();
        let reads = unreadable.map(|(lba, _)| *lba).collect::<Vec<_>>();
        [fault_at(&writes, "write", "write_fault"), fault_at(&reads, "read", "read_error")]
    }

    /// A set that moves is found by what is on its devices, whichever comes first.
    fn config(&mut self) -> Config {
        let faults = self.faults();
        if self.on.is_none() {
            return self.scene.config(&faults);
        }
        let mut order = vec!["Fault0", SPARES[0], SPARES[1]];
        for last in (1..order.len()).rev() {
            order.swap(last, self.random.below(last as u64 + 1) as usize);
        }
        self.scene.assembling(&faults, &order)
    }

    fn start(&mut self) {
        let config = self.config();
        self.scene.target.start(&config);
        let status = self.scene.status();
        assert_eq!(status["state"], "online", "a crash must not leave the set degraded: {status}");
        if let Some(on) = &mut self.on {
            let found = SPARES.iter().position(|spare| status["spare_bdev"] == *spare);
            let found = found.unwrap_or_else(|| panic!("{status}"));
            self.figures.moved += u64::from(std::mem::replace(on, found) != found);
        }
        let remapped = self.scene.count("remapped");
        assert!(remapped >= self.figures.remapped, "{remapped} blocks are remapped, {} were", self.figures.remapped);
        self.figures.remapped = remapped;
        self.check_list();
        let compared = self.scene.target.rpc("bdev_remap_restore", json!({ "name": "Remap0", "dry_run": true }));
        let same = ["added", "removed", "changed"].iter().all(|what| compared[*what] == 0);
        assert!(same, "the table is not what the spare says: {compared}");
    }

    /// Only bad blocks are remapped or pending, and no two of them are on one spare block.
    fn check_list(&self) {
        let bad = self.shared.bad.list();
        let list = self.scene.target.rpc("bdev_remap_list", json!({ "name": "Remap0", "max": 100_000 }));
        let mut spare_blocks = std::collections::BTreeSet::new();
        for extent in list["extents"].as_array().unwrap_or_else(|| panic!("{list}")) {
            let number = |field: &str| extent[field].as_u64();
            for i in 0..number("num_blocks").unwrap_or_default() {
                let lba = number("lba").unwrap_or_default() + i;
                assert!(bad.iter().any(|(bad, _)| *bad == lba), "LBA {lba} is good, but in the list: {extent}");
                let fresh = number("spare_lba").is_none_or(|spare| spare_blocks.insert(spare + i));
                assert!(fresh, "a spare block is used twice: {list}");
            }
        }
    }

    /// Reads what was written, in the windows of the last round or anywhere, and compares it with the model.
    fn check(&mut self, window: Option<u64>) {
        let mut host = self.scene.host();
        let (bad, block_size) = (&self.shared.bad, self.block_size);
        for ((model, _), owned) in self.writers.iter_mut().zip((0..).step_by(OWNED as usize)) {
            for (first, blocks) in model.runs(32) {
                let outside = |window: u64| first + blocks <= owned + window || first >= owned + window + WINDOW;
                if window.is_some_and(outside) {
                    continue;
                }
                let whole = host.read(first, blocks as u16).expect("an answer").ok();
                for at in 0..blocks {
                    let alone = match &whole {
                        Some(data) => Some(data[at as usize * block_size..][..block_size].to_vec()),
                        None => host.read(first + at, 1).expect("an answer").ok(),
                    };
                    model.recovered(first + at, alone.as_deref(), bad).unwrap_or_else(|wrong| panic!("{wrong}"));
                    self.figures.compared += 1;
                }
            }
        }
    }
}

/// Has the set move to this spare, at any rate; what is left there of an earlier attempt may stand in the way.
fn begin_to_move(scene: &Scene, spare: &str, random: &mut Random) {
    let mbps = [1, 4, 20, 1000][random.below(4) as usize];
    let params = json!({ "name": "Remap0", "spare_bdev": spare, "max_mbps": mbps });
    match scene.target.call("bdev_remap_migrate", params.clone()) {
        Err(RpcError::Answer { message, .. }) if message.contains("format") => {
            let mut params = params;
            params["format"] = "force".into();
            scene.target.rpc("bdev_remap_migrate", params);
        }
        begun => assert!(begun.is_ok(), "{begun:?}"),
    }
}

/// Both devices lose power, one shortly after the other; or neither does, and the kill alone loses both caches at once.
fn cut_power(scene: &Scene, random: &mut Random) {
    let mut devices = vec!["Fault0", "Spare0"];
    match random.below(4) {
        0 => return,
        1 => devices.swap(0, 1),
        _ => {}
    }
    if scene.target.has_bdev("Spare1") {
        devices.insert(random.below(3) as usize, "Spare1");
    }
    for name in devices {
        let keep = if random.one_in(4) { "none" } else { "random" };
        let seed = random.bits() >> 1;
        scene.target.rpc("bdev_fault_power_cut", json!({ "name": name, "keep": keep, "seed": seed }));
    }
}
