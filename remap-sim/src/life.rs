//! One process after the other, until the plan ends or something is wrong.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::join_all;
use remap_core::Takes;
use remap_core::format::{Area, Copy};

use super::coverage::Coverage;
use super::executor::Executor;
use super::hosts::Process;
use super::opening::{check_copies, open};
use super::plan::{Config, Harm, Life, Op, Plan};
use super::stamp::value_in;
use super::store::Cut;
use super::threads::Threads;
use super::vbdev::Vbdev;
use super::world::World;

/// A process that has been polled so often without coming to an end never will.
const ENDLESS: u64 = 3_000_000;
/// Longer than the longest pause before bad copies of the metadata are tried again.
const BACK_OFF: Duration = Duration::from_secs(130);
/// Blocks that are read at once when all are read.
const AT_ONCE: u64 = 32;
/// So many states of the spare are remembered.
const PASTS: usize = 3;

/// What became of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is wrong, if anything is.
    pub failure: Option<String>,
    /// Crashes after which the set was loaded again.
    pub survived: u64,
    /// What was met.
    pub coverage: Coverage,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
}

/// Does all that the plan says.
#[must_use]
pub fn run(plan: &Plan, traced: bool) -> Outcome {
    let world = match World::new(plan, traced) {
        Ok(world) => Rc::new(world),
        Err(error) => return Outcome { failure: Some(error.to_string()), ..Outcome::default() },
    };
    let mut survived = 0;
    let (mut crashes, mut opening) = (0, false);
    let mut number = 1;
    for (index, life) in plan.lives.iter().enumerate() {
        world.note(|| format!("-- life {index}, crash {:?}", life.crash));
        life.damage.iter().for_each(|damage| world.wound(damage));
        let ops = life.ops.iter().map(|op| {
            number += 1;
            (*op, number)
        });
        let finished = live(&world, plan, life, ops.collect());
        if world.open.get() {
            survived += std::mem::take(&mut crashes);
        }
        if world.failure.borrow().is_some() || world.over.get() {
            break;
        }
        let Some(crash) = life.crash else { continue };
        if finished {
            world.count("crash: nothing left to do");
        } else {
            world.count_under_way();
        }
        if !world.open.get() {
            world.count(if world.formatted.get() { "crash: while opening" } else { "crash: while formatting" });
            if opening {
                world.count("crash: while opening, after a crash while opening");
            }
        }
        opening = !world.open.get();
        crashes += 1;
        end(&world, crash.cut);
    }
    // A crash may have stopped the healing of what was damaged earlier.
    let damage: Vec<_> = plan.lives.iter().flat_map(|life| life.damage.clone()).collect();
    let lost = super::damage::may_lose(&damage);
    if lost && plan.config.harm == Harm::Both && world.failure.borrow().is_some() {
        world.count("damage: of both copies, and lost without a trace");
        world.failure.take();
    }
    if plan.config.older_spare && world.failure.borrow().is_none() && !world.over.get() {
        with_older_spare(&world, plan);
    }
    world.count_faults();
    let (failure, coverage) = (world.failure.take(), world.coverage.take());
    let trace = world.trace.as_ref().map(|trace| trace.take()).unwrap_or_default();
    Outcome { failure, survived, coverage, trace }
}

/// The process dies, or the power fails.
fn end(world: &World, cut: [Cut; 2]) {
    let torn = [world.base.crash(cut[0]), world.spare.crash(cut[1])];
    let mut model = world.model.borrow_mut();
    model.kill();
    if !cut.contains(&Cut::Kill) {
        model.power_cut();
    } else if cut != [Cut::Kill; 2] {
        world.count("cut: power, of one device");
        model.device_lost_power();
    }
    world.count(match cut[1] {
        Cut::Kill => "cut: kill",
        Cut::PowerNothing => "cut: power, nothing of the cache written out",
        Cut::PowerSome => "cut: power, some of the cache written out",
        Cut::PowerAll => "cut: power, all of the cache written out",
    });
    if torn.contains(&true) {
        world.count("cut: torn write");
    }
    let mut past = world.past.borrow_mut();
    if past.len() < PASTS {
        past.push(world.spare.durable());
    } else {
        past[world.random.below(PASTS as u64) as usize] = world.spare.durable();
    }
    world.spare.set_past(past.first().cloned());
}

/// Devices, and threads of a process on them.
fn start(world: &World, plan: &Plan) -> Threads {
    let executor = Executor::new();
    world.base.attach(&executor);
    world.spare.attach(&executor);
    world.open.set(false);
    world.scrubs.set(false);
    world.wiped.set(false);
    let slowness = [plan.config.slowness[2], plan.config.slowness[3]];
    let mut threads = Threads::new(&executor, &world.random, slowness);
    threads.want = plan.config.want;
    // It takes a while until the next process is started.
    world.started.set(world.started.get() + Duration::from_micros(60_000_000 + world.random.below(1_000_000)));
    threads.born += world.started.get();
    threads
}

/// Runs a process to its end; false if it died with something left to do.
fn live(world: &Rc<World>, plan: &Plan, life: &Life, ops: Vec<(Op, u64)>) -> bool {
    let threads = start(world, plan);
    let executor = threads.executor.clone();
    let ended = Rc::new(Cell::new(false));
    let (told, before) = (Rc::clone(&ended), world.spare.commands());
    let process = main(Rc::clone(world), threads, plan.config, ops, life.verify, life.close, life.crash.is_none());
    executor.spawn(async move {
        process.await;
        told.set(true);
    });
    // The engine never ends by itself while copies of the metadata are bad.
    let idle = match life.crash {
        None => executor.run_until(ENDLESS, || ended.get()),
        Some(crash) => {
            let enough = || ended.get() || world.spare.commands() - before >= crash.commands;
            let polls = || executor.polls().saturating_add(crash.polls);
            executor.run_until(ENDLESS, enough) || executor.run_until(polls(), || ended.get())
        }
    };
    let finished = ended.get();
    if !finished && executor.polls() >= ENDLESS {
        world.fail(|| "it goes on for ever".into());
    }
    if !finished && idle {
        world.fail(|| "an operation never ends".into());
    }
    executor.kill();
    finished
}

/// The life of a process.
async fn main(
    world: Rc<World>,
    threads: Threads,
    config: Config,
    ops: Vec<(Op, u64)>,
    verify: bool,
    close: bool,
    last: bool,
) {
    let errors_before = world.metadata_errors();
    let Some(vbdev) = open(&world, &threads).await else { return };
    let process = Process::new(&world, with_abilities(vbdev, &config), errors_before);
    process.check_table();
    process.compare(true).await;
    let resumed = process.clone();
    threads.executor.spawn(async move { resumed.resume_scrub().await });
    if verify {
        read_all(&process).await;
    }
    let hosts = ops.iter().map(|(op, _)| op.host).max().map_or(0, |host| host + 1);
    let ends = (0..hosts).map(|host| {
        let mine: Vec<_> = ops.iter().filter(|(op, _)| op.host == host).copied().collect();
        let (tell, end) = oneshot::channel();
        let (process, executor) = (process.on_reactor(usize::from(host)), threads.executor.clone());
        threads.executor.spawn(async move {
            for (op, number) in mine {
                executor.sleep(Duration::from_micros(u64::from(op.wait))).await;
                process.act(op.what, number).await;
            }
            let _ = tell.send(());
        });
        end
    });
    join_all(ends.collect::<Vec<_>>()).await;
    process.check_table();
    world.check_full();
    if last && !world.spare.is_gone() {
        world.calm();
        read_all(&process).await;
        process.compare(true).await;
        threads.executor.sleep(BACK_OFF).await;
        check_copies(&world, &process.vbdev, "in the end");
    }
    if close {
        process.vbdev.engine.close().await;
        world.count("event: closed");
    }
    if world.grew.get() && process.vbdev.engine.layout() == world.layout.get() {
        world.count("event: the spare has grown, and is used to its end");
    }
    let replaced = process.vbdev.engine.status().spare.bad;
    if replaced > 0 {
        world.count("event: spare block replaced");
    }
}

fn with_abilities(vbdev: Vbdev, config: &Config) -> Vbdev {
    vbdev.set_spare_takes(Takes { unmap: config.unmap[1], ..Takes::ALL });
    let base_takes = (Takes { unmap: config.unmap[0], ..Takes::ALL }, config.admits_cache);
    Vbdev { remap_on: config.remap_on, base_takes, ..vbdev }
}

async fn read_all(process: &Process) {
    let blocks = process.vbdev.engine.table().base_blocks();
    for lba in (0..blocks).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(blocks - lba);
        if blocks <= 100 || !process.read(lba, count).await {
            for lba in lba..lba + count {
                process.read(lba, 1).await;
            }
        }
    }
}

/// The spare comes back as it was earlier: it is refused or, as nothing can tell, comes up in a state that it was in, so that
/// every block holds something that was once written to it.
fn with_older_spare(world: &Rc<World>, plan: &Plan) {
    let past = world.past.borrow().first().cloned();
    let Some(past) = past else { return };
    let threads = start(world, plan);
    world.spare.crash(Cut::PowerAll);
    world.spare.rot(|medium| *medium = past);
    let (told, known) = (Rc::clone(world), world.set.get());
    let hops = threads.clone();
    let opened = threads.executor.block_on(async move {
        let vbdev = Vbdev::open(&told.base, &told.spare, &hops, told.params()).await;
        let Ok(vbdev) = vbdev else { return told.count("event: an older spare was refused") };
        if Some(vbdev.engine.set_uuid()) != known {
            return;
        }
        told.count("event: an older spare came up");
        let process = Process::new(&told, vbdev, 0);
        process.check_table();
        for lba in 0..process.vbdev.engine.table().base_blocks() {
            if let Ok(data) = process.vbdev.read(lba, 1).await
                && let Err(what) = value_in(lba, &data)
            {
                told.fail(|| format!("with an older spare, {what}"));
            }
        }
    });
    if opened.is_none() {
        world.fail(|| "an operation never ends".into());
    }
    threads.executor.kill();
}

impl World {
    /// Whether a log area was used up.
    fn check_full(&self) {
        let last = u64::from(self.layout.get().area_pages) - 1;
        let full = Area::BOTH.iter().any(|area| {
            Copy::BOTH.iter().all(|copy| self.spare.block(self.layout.get().log_page(*copy, *area, last).0).is_some())
        });
        if full {
            self.count("event: area full");
        }
    }

    fn count_faults(&self) {
        for disk in [&self.base, &self.spare] {
            disk.faults(|faults| {
                faults.counts().iter().for_each(|(name, times)| self.coverage.borrow_mut().add(name, *times));
            });
        }
    }
}
