//! Migrations with crashes in them: a set that moves from one of two spares to the other and back, under the load of hosts.
//!
//! ```text
//! seed ──> Scene: a base, two spares, the model ──> life after life, each ended by a crash ──> Outcome
//!   actors        hosts, the operator who migrates, fate
//!   arbitration   which spare is in force after a crash, each alone and both together
//! ```
//! A campaign of its own, as plans of the other one know one spare. Nothing acknowledged may be lost, and after each crash exactly
//! one of the spares may be in force.

mod actors;
mod arbitration;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use remap_core::format::{Copy, Layout};
use remap_core::{Error, FormatPolicy, IoStatus, OpenParams, Slot};
use uuid::Uuid;

use self::actors::Actor;
use super::coverage::Coverage;
use super::disk::Disk;
use super::executor::Executor;
use super::faults::{Effect, Fault, Verb};
use super::life::Outcome;
use super::medium::Medium;
use super::model::Model;
use super::random::Random;
use super::store::Cut;
use super::threads::Threads;
use super::vbdev::{Vbdev, open_params};
use super::world::spare_blocks;

/// Blocks of the base.
const BLOCKS: u64 = 160;
/// The least room for data that a spare has.
const DATA: u64 = 64;
/// A process that has been polled so often without coming to an end never will.
const ENDLESS: u64 = 200_000;
/// Lives of a simulation, at most.
const LIVES: u64 = 12;
/// A crash comes before the spares were told so often to write or to flush.
const COMMANDS: u64 = 160;
/// Hosts.
const HOSTS: u64 = 3;

/// Disks and model, through all lives of a simulation.
struct Scene {
    base: Disk,
    spares: [Disk; 2],
    /// Which of them was in force, and in which slot, when that was last known.
    in_force: Cell<(usize, Slot)>,
    model: RefCell<Model>,
    random: Random,
    block_size: u32,
    /// Whether spares fail, too. Otherwise nothing may fail but what a reset has aborted.
    harsh: bool,
    /// The longest that a third of an operation takes, and that a call to a reactor takes.
    slowness: u64,
    /// The last number of a write, of an identity.
    number: Cell<u64>,
    set: Cell<Option<Uuid>>,
    started: Cell<Duration>,
    /// Whether a migration is under way in this life.
    migrating: Cell<bool>,
    failure: RefCell<Option<String>>,
    coverage: RefCell<Coverage>,
    trace: Option<RefCell<Vec<String>>>,
}

impl Scene {
    fn new(seed: u64, traced: bool) -> Result<Scene, Error> {
        let random = Random::new(seed);
        let block_size = random.pick(&[512_u32, 4096]);
        let slowness = random.pick(&[1, 20, 200]);
        let volatile = random.chance(4, 5);
        let spare = |random: &Random| {
            // Room for what is bad, mostly.
            let data = random.pick(&[DATA, DATA, 80, 128]);
            let blocks = spare_blocks(block_size, data)?;
            let layout = Layout::for_spare(block_size, blocks)?;
            let disk = Disk::new(&Executor::new(), Medium::new(block_size, blocks), volatile);
            disk.set_timing(random, slowness);
            let data = layout.data_start.0..layout.data_start.0 + u64::from(layout.data_blocks);
            let superblocks = Copy::BOTH.map(|copy| layout.superblock(copy).0);
            // A superblock is in one sector, and relies on it that a disk writes that as a whole.
            disk.set_tears(move |lba| match lba {
                _ if data.contains(&lba) => None,
                _ if superblocks.contains(&lba) => Some(512),
                _ => Some(16),
            });
            Ok::<_, Error>(disk)
        };
        let spares = [spare(&random)?, spare(&random)?];
        let base = Disk::new(&Executor::new(), Medium::new(block_size, BLOCKS), volatile);
        base.set_timing(&random, slowness);
        for lba in (0..BLOCKS).filter(|_| random.chance(2, 5)) {
            base.fail(Fault::new(Verb::Write, lba..lba + 1, IoStatus::WRITE_FAULT).with_effect(Effect::Some));
        }
        Ok(Scene {
            base,
            spares,
            in_force: Cell::new((0, Slot::FIRST)),
            model: RefCell::new(Model::new(BLOCKS, !volatile)),
            harsh: random.chance(1, 2),
            random,
            block_size,
            slowness,
            number: Cell::new(0),
            set: Cell::new(None),
            started: Cell::default(),
            migrating: Cell::new(false),
            failure: RefCell::default(),
            coverage: RefCell::default(),
            trace: traced.then(RefCell::default),
        })
    }

    /// A number that was not used before.
    fn next(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    fn params(&self, format: FormatPolicy) -> OpenParams {
        let id = || Uuid::from_u128(u128::from(self.next()) + 1000);
        let storm_limit = 1 << 40;
        OpenParams { fresh_set_uuid: id(), fresh_spare_id: id(), format, storm_limit, ..open_params(BLOCKS) }
    }

    /// Something is wrong. What is found first counts.
    fn fail(&self, what: impl FnOnce() -> String) {
        if self.failure.borrow().is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            *self.failure.borrow_mut() = Some(what);
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(what());
        }
    }

    fn count(&self, kind: &'static str) {
        self.coverage.borrow_mut().count(kind);
    }

    /// How often the spares were told to write or to flush.
    fn commands(&self) -> u64 {
        self.spares.iter().map(Disk::commands).sum()
    }

    /// What is where on a spare.
    fn layout(&self, spare: &Disk) -> Option<Layout> {
        Layout::for_spare(self.block_size, remap_core::Device::geometry(spare).blocks).ok()
    }

    fn disks(&self) -> [&Disk; 3] {
        [&self.base, &self.spares[0], &self.spares[1]]
    }

    /// A process on the disks, and its threads. What comes and goes of faults is gone.
    fn start(&self) -> Threads {
        let executor = Executor::new();
        for disk in self.disks() {
            disk.attach(&executor);
            disk.faults(|faults| faults.heal(|fault| fault.left.is_some()));
        }
        self.migrating.set(false);
        let mut threads = Threads::new(&executor, &self.random, [self.slowness; 2]);
        self.started.set(self.started.get() + Duration::from_secs(60));
        threads.born += self.started.get();
        threads
    }

    /// The process dies, or the power fails.
    fn crash(&self) {
        let power = self.random.chance(1, 2);
        let cut =
            || if power { self.random.pick(&[Cut::PowerNothing, Cut::PowerSome, Cut::PowerAll]) } else { Cut::Kill };
        self.disks().iter().for_each(|disk| _ = disk.crash(cut()));
        let mut model = self.model.borrow_mut();
        model.kill();
        if power {
            model.power_cut();
        }
        self.count(if power { "cut: power" } else { "cut: kill" });
    }
}

/// Runs the simulation that `seed` stands for.
#[must_use]
pub fn run_migrations(seed: u64, traced: bool) -> Outcome {
    let scene = match Scene::new(seed, traced) {
        Ok(scene) => Rc::new(scene),
        Err(error) => return Outcome { failure: Some(error.to_string()), ..Outcome::default() },
    };
    let mut survived = 0;
    let lives = 2 + scene.random.below(LIVES - 1);
    for life in 0..lives {
        let last = life + 1 == lives;
        scene.note(|| format!("-- life {life}"));
        let inside = live(&scene, life == 0, last);
        if scene.failure.borrow().is_some() {
            break;
        }
        if !last {
            scene.crash();
            arbitration::check(&scene);
            survived += u64::from(inside && scene.failure.borrow().is_none());
        }
    }
    let (failure, coverage) = (scene.failure.take(), scene.coverage.take());
    let trace = scene.trace.as_ref().map(|trace| trace.take()).unwrap_or_default();
    Outcome { failure, survived, coverage, trace }
}

/// Runs a process to its end, or until it dies; whether it died while all moved.
fn live(scene: &Rc<Scene>, first: bool, last: bool) -> bool {
    let threads = scene.start();
    let executor = threads.executor.clone();
    let ended = Rc::new(Cell::new(false));
    let (told, world) = (Rc::clone(&ended), Rc::clone(scene));
    executor.spawn(async move {
        process(&world, &threads, first, last).await;
        told.set(true);
    });
    let before = scene.commands();
    // What it takes to format is over before the first crash.
    let (commands, polls) = (scene.random.below(COMMANDS) + if first { 30 } else { 0 }, scene.random.below(60));
    let enough = || ended.get() || (!last && scene.commands() - before >= commands);
    let mut idle = executor.run_until(ENDLESS, enough);
    if !last && !ended.get() && !idle {
        idle = executor.run_until(executor.polls().saturating_add(polls), || ended.get());
    }
    // While it cannot be told which spare is in force, it goes on for ever.
    if !ended.get() && (idle || (executor.polls() >= ENDLESS && (last || !scene.harsh))) {
        let what = if idle { "an operation never ends" } else { "it goes on for ever" };
        scene.fail(|| format!("{what} ({} polls, at {:?})", executor.polls(), executor.now()));
    }
    let inside = scene.migrating.get();
    executor.kill();
    inside
}

/// The life of a process.
async fn process(scene: &Rc<Scene>, threads: &Threads, first: bool, last: bool) {
    let opened = if first { format(scene, threads).await } else { arbitration::open(scene, threads).await };
    let Some(vbdev) = opened else { return };
    let actor = Actor::new(scene, &vbdev);
    if !first && scene.random.chance(1, 2) {
        actor.read_all().await;
    }
    actor.work(last).await;
    if last {
        for disk in scene.disks() {
            disk.faults(|faults| faults.heal(|fault| fault.left.is_some()));
        }
        actor.read_all().await;
        if scene.failure.borrow().is_none() {
            vbdev.engine.close().await;
        }
    }
}

async fn format(scene: &Scene, threads: &Threads) -> Option<Vbdev> {
    match Vbdev::open(&scene.base, &scene.spares[0], threads, scene.params(FormatPolicy::Auto)).await {
        Ok(vbdev) => {
            scene.set.set(Some(vbdev.engine.set_uuid()));
            Some(vbdev)
        }
        Err(error) => {
            scene.fail(|| format!("not formatted: {error}"));
            None
        }
    }
}
