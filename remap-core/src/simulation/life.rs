//! One process after the other, until the plan ends or something is wrong.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::join_all;

use super::coverage::Coverage;
use super::disk::Cut;
use super::gate::Gate;
use super::hosts::Process;
use super::plan::{Life, Op, Plan};
use super::vbdev::{SimEngine, Threads, Vbdev};
use super::world::World;
use crate::engine::Engine;
use crate::error::Error;
use crate::format::Copy;
use crate::sim::Executor;

/// A process that has been polled so often without coming to an end never will.
const ENDLESS: u64 = 3_000_000;

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
    world.count_faults();
    let (failure, coverage) = (world.failure.take(), world.coverage.take());
    let trace = world.trace.as_ref().map(|trace| trace.take()).unwrap_or_default();
    Outcome { failure, survived, coverage, trace }
}

/// The process dies, or the power fails.
fn end(world: &World, cut: Cut) {
    let torn = [world.base.crash(cut), world.spare.crash(cut)];
    let mut model = world.model.borrow_mut();
    model.kill();
    if cut != Cut::Kill {
        model.power_cut();
    }
    world.count(match cut {
        Cut::Kill => "cut: kill",
        Cut::PowerNothing => "cut: power, nothing of the cache written out",
        Cut::PowerSome => "cut: power, some of the cache written out",
        Cut::PowerAll => "cut: power, all of the cache written out",
    });
    if torn.contains(&true) {
        world.count("cut: torn write");
    }
}

/// Runs a process to its end; false if it died with something left to do.
fn live(world: &Rc<World>, plan: &Plan, life: &Life, ops: Vec<(Op, u64)>) -> bool {
    let executor = Executor::new();
    world.base.attach(&executor);
    world.spare.attach(&executor);
    world.open.set(false);
    world.wiped.set(false);
    let ended = Rc::new(Cell::new(false));
    let threads =
        Threads { executor: executor.clone(), random: world.random.clone(), slowness: plan.config.slowness[2] };
    let (told, verify, last) = (Rc::clone(&ended), life.verify, life.crash.is_none());
    let process = main(Rc::clone(world), threads, ops, verify, last);
    executor.spawn(async move {
        process.await;
        told.set(true);
    });
    let finished = executor.run_to(life.crash.map_or(ENDLESS, |crash| crash.polls));
    if !finished && life.crash.is_none() {
        world.fail(|| "it goes on for ever".into());
    }
    if finished && !ended.get() {
        world.fail(|| "an operation never ends".into());
    }
    executor.kill();
    finished
}

/// The life of a process.
async fn main(world: Rc<World>, threads: Threads, ops: Vec<(Op, u64)>, verify: bool, last: bool) {
    let errors_before = world.metadata_errors();
    let Some(engine) = open(&world, &threads).await else { return };
    let vbdev = Vbdev {
        engine,
        base: world.base.clone(),
        spare: world.spare.clone(),
        remap_on: world.remap_on,
        threads: threads.clone(),
    };
    let process = Process { world: Rc::clone(&world), vbdev, quiesce: Gate::default(), errors_before };
    process.check_table();
    process.compare(true).await;
    if verify {
        read_all(&process).await;
    }
    let hosts = ops.iter().map(|(op, _)| op.host).max().map_or(0, |host| host + 1);
    let ends = (0..hosts).map(|host| {
        let mine: Vec<_> = ops.iter().filter(|(op, _)| op.host == host).copied().collect();
        let (tell, end) = oneshot::channel();
        let (process, executor) = (process.clone(), threads.executor.clone());
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
    if last {
        world.calm();
        read_all(&process).await;
        process.compare(true).await;
    }
    let replaced = process.vbdev.engine.status().spare.bad;
    if replaced > 0 {
        world.count("event: spare block replaced");
    }
}

async fn read_all(process: &Process) {
    for lba in 0..process.vbdev.engine.table().base_blocks() {
        process.read(lba, 1).await;
    }
}

/// Opens the set. It may be refused only if the metadata was damaged; then nothing was written, and it opens when that
/// is undone. What failing writes left behind cannot be undone: that ends the simulation.
async fn open(world: &World, threads: &Threads) -> Option<Rc<SimEngine>> {
    let mut undone = false;
    loop {
        let (errors, writes) = (world.metadata_errors(), world.spare.writes());
        let known = world.formatted.get();
        let error = match Engine::open(world.spare.clone(), threads.clone(), world.params()).await {
            Ok(engine) => {
                world.settled_errors.set(errors);
                world.formatted.set(true);
                world.open.set(true);
                if undone {
                    world.count("event: refused, and loaded when the damage was undone");
                }
                let metadata = engine.status().metadata;
                world.note(|| format!("open: {metadata:?}"));
                let copies = [metadata.superblock_a, metadata.superblock_b, metadata.log_a, metadata.log_b];
                if copies.contains(&crate::CopyHealth::Bad) {
                    world.count("event: loaded with a bad copy");
                }
                return Some(engine);
            }
            Err(error) => error,
        };
        world.note(|| format!("open: {error}"));
        if known && world.spare.writes() != writes {
            world.fail(|| format!("a refusal has written: {error}"));
        }
        let write_errors = world.metadata_errors() > world.settled_errors.get();
        let healed = world.undo_damage();
        match (healed && !undone, write_errors) {
            (true, _) => undone = true,
            (false, true) => {
                world.over.set(true);
                world.count("event: refused for good after metadata errors");
                return None;
            }
            (false, false) => {
                world.fail(|| refusal(&error));
                return None;
            }
        }
    }
}

fn refusal(error: &Error) -> String {
    format!("refused for no reason: {error}")
}

impl World {
    /// Whether a log area was used up.
    fn check_full(&self) {
        let last = u64::from(self.layout.area_pages) - 1;
        let full = (0..2).any(|area| {
            Copy::BOTH.iter().all(|copy| self.spare.durable(self.layout.log_page(*copy, area, last)).is_some())
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
