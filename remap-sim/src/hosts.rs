//! What hosts and operators do in a life, and what they make of the answers.

use std::ops::ControlFlow;
use std::rc::Rc;

use remap_core::{BaseLba, Error, Extent, HostOp, IoStatus, Refused, RemapOn};

use super::model::ZEROS;
use super::plan::What;
use super::quiesce::Quiesce;
use super::stamp::{stamp, value_in};
use super::vbdev::{Story, Vbdev};
use super::world::World;

/// As often as this a rescue tries another spare block, or where a block lives by now.
const MANY: usize = 16;

/// The process of a life, once the set is open.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) world: Rc<World>,
    pub(crate) vbdev: Vbdev,
    /// Held by every I/O, and wholly by a removal.
    pub(crate) quiesce: Rc<Quiesce>,
    /// Metadata errors before this life.
    pub(crate) errors_before: u64,
}

impl Process {
    pub(crate) fn new(world: &Rc<World>, vbdev: Vbdev, errors_before: u64) -> Process {
        let (world, quiesce) = (Rc::clone(world), Rc::default());
        Process { world, vbdev, quiesce, errors_before }
    }

    /// The same, as a host on that reactor.
    pub(crate) fn on_reactor(&self, reactor: usize) -> Process {
        Process { vbdev: Vbdev { reactor, ..self.vbdev.clone() }, ..self.clone() }
    }

    /// Does what the plan says; `number` is that of a write in this simulation.
    pub(crate) async fn act(&self, what: What, number: u64) {
        let world = &self.world;
        match what {
            What::Read { lba, blocks } => drop(self.read(lba, blocks).await),
            What::Write { lba, blocks } => self.write(HostOp::Write, lba, blocks, number).await,
            What::Zero { lba, blocks } => self.write(HostOp::WriteZeroes, lba, blocks, ZEROS).await,
            What::Unmap { lba, blocks } => self.unmap(lba, blocks).await,
            What::Flush => self.flush().await,
            What::Reset => self.abort(true).await,
            What::Abort => self.abort(false).await,
            What::Remove { lba, blocks } => self.remove(Extent::new(BaseLba(lba), blocks)).await,
            What::Import { lba, blocks } => self.import(Extent::new(BaseLba(lba), blocks)).await,
            What::Scrub { lba, blocks } => self.scrub(Extent::new(BaseLba(lba), blocks)).await,
            What::Save => self.save().await,
            What::Compare => self.compare(true).await,
            What::Restore => {
                let _running = self.quiesce.enter().await;
                self.compare(false).await;
            }
            What::Wipe => self.wipe().await,
            What::Rearm => self.vbdev.engine.rearm(),
            fault => {
                world.lied.set(world.lied.get() || matches!(fault, What::Lie { .. }));
                world.note(|| format!("fate: {fault:?}"));
                world.strike(fault, self.vbdev.engine.layout());
            }
        }
    }

    /// Whether metadata errors in this life, or a wipe, explain that nothing can be committed.
    pub(crate) fn log_may_fail(&self) -> bool {
        self.world.metadata_errors() > self.errors_before || self.world.wiped.get() || self.world.spare.is_gone()
    }

    async fn save(&self) {
        let world = &self.world;
        let bad = self.vbdev.engine.status().spare.bad;
        let saved = self.vbdev.engine.save().await;
        world.note(|| format!("save: {saved:?}"));
        if saved.is_err() && !self.log_may_fail() {
            world.fail(|| format!("a save failed for no reason: {saved:?}"));
        }
        if saved.is_ok() && !world.wiped.get() {
            world.bad_saved.set(world.bad_saved.get().max(bad));
        }
    }

    /// Reads blocks, and looks at each of them; whether that succeeded.
    pub(crate) async fn read(&self, lba: u64, blocks: u64) -> bool {
        let _running = self.quiesce.enter().await;
        let world = &self.world;
        let begun = world.model.borrow_mut().begin_read();
        let room = vec![0; blocks as usize * world.block_size()];
        let (result, story) = self.vbdev.submit(HostOp::Read, lba, room).await;
        let read = result.is_ok();
        match result {
            Ok(data) => {
                for (lba, bytes) in (lba..).zip(data.chunks(world.block_size())) {
                    let read = value_in(lba, bytes)
                        .and_then(|value| world.model.borrow_mut().read(lba, begun, value).map(|()| value));
                    match read {
                        Ok(value) => world.note(|| format!("read of block {lba}, begun at {begun}: {value}")),
                        Err(what) => world.fail(|| format!("{what} (read begun at {begun})")),
                    }
                }
            }
            Err(status) => self.failed_read(Extent::new(BaseLba(lba), blocks), begun, status, &story),
        }
        world.model.borrow_mut().end_read(begun);
        read
    }

    /// A read may fail as its device did; for a bad block only if nothing was written since the block was bad.
    fn failed_read(&self, range: Extent, begun: u64, status: IoStatus, story: &Story) {
        let world = &self.world;
        world.note(|| format!("read of {range:?}, begun at {begun}: {status:?}, {:?}", story.struck));
        let media = status.is_media_error(RemapOn::Any);
        let model = world.model.borrow();
        let struck = story.struck.iter().any(|(lba, struck)| match (media, struck.since) {
            (false, _) => struck.status == status,
            (true, None) => struck.status.is_media_error(RemapOn::Any),
            (true, Some(since)) => !model.written_since(*lba, since, begun),
        });
        drop(model);
        let in_doubt = media && self.log_may_fail();
        if struck || in_doubt {
            if status == IoStatus::Aborted {
                world.count("event: aborted");
            }
            world.count("event: read failed as it may");
        } else {
            let (blocks, lba) = (range.blocks, range.lba.0);
            world.fail(|| {
                format!("a read of {blocks} blocks from {lba} on failed for no reason ({status:?}, {:?})", story.struck)
            });
        }
    }

    async fn write(&self, op: HostOp, lba: u64, blocks: u64, value: u64) {
        let _running = self.quiesce.enter().await;
        let world = &self.world;
        let mut data = Vec::with_capacity(blocks as usize * world.block_size());
        (lba..lba + blocks).for_each(|lba| data.extend_from_slice(&stamp(lba, value, world.block_size())));
        let token = world.model.borrow_mut().begin_write(lba, blocks, value);
        world.note(|| format!("write {value} to {blocks} blocks from {lba} on, begun at {}", token.begun()));
        let (result, story) = self.vbdev.submit(op, lba, data).await;
        world.note(|| {
            format!(
                "write {value}: {:?}, relocated {:?}, {:?}, {:?}",
                result.as_ref().map(drop),
                story.relocated,
                story.refused,
                story.struck
            )
        });
        if !story.given_again.is_empty() {
            world.fail(|| format!("spare blocks were given out that had failed: {:?}", story.given_again));
        }
        match result {
            Ok(_) => {
                if !story.relocated.is_empty() {
                    world.count("event: write relocated");
                }
                if story.waited {
                    world.count("event: waited for a structure");
                }
                world.model.borrow_mut().acknowledge(&token, &story.relocated);
            }
            Err(status) => {
                let in_doubt = story.refused.iter().any(|(refused, _)| *refused == Refused::LogFailed);
                world.model.borrow_mut().fail(&token, in_doubt);
                self.failed_write(status, &story);
            }
        }
    }

    /// A write may fail as its device did with anything but a media error, or if its relocation had to be refused.
    fn failed_write(&self, status: IoStatus, story: &Story) {
        let world = &self.world;
        let media = status.is_media_error(world.remap_on);
        let refused = story.refused.iter().any(|(refused, had_to)| match refused {
            Refused::NoSpare | Refused::Tripped => *had_to,
            Refused::LogFailed => self.log_may_fail(),
            Refused::Closed => world.wiped.get(),
        });
        let struck = story.struck.iter().any(|(_, struck)| struck.status == status);
        if status == IoStatus::Aborted && struck {
            world.count("event: aborted");
        }
        if (!media && struck) || (media && (refused || story.struck.len() + story.elsewhere >= MANY)) {
            world.count("event: write failed as it may");
        } else {
            world
                .fail(|| format!("a write failed for no reason ({status:?}, {:?}, {:?})", story.struck, story.refused));
        }
        for (refused, _) in &story.refused {
            match refused {
                Refused::NoSpare => world.count("event: no spare block left"),
                Refused::Tripped => world.count("event: storm brake"),
                Refused::LogFailed => world.count("event: log in doubt"),
                Refused::Closed => {}
            }
        }
    }

    async fn flush(&self) {
        let _running = self.quiesce.enter().await;
        let world = &self.world;
        let begun = world.model.borrow_mut().now();
        let result = self.vbdev.flush().await;
        world.note(|| format!("flush begun at {begun}: {result:?}"));
        if result.is_ok() {
            world.count("event: flush acknowledged");
            world.model.borrow_mut().flushed(begun);
        }
    }

    /// Advice: each block holds zeros then, or what it held. While it is in doubt where a block is, it may even hold one after
    /// the other, which is left out.
    async fn unmap(&self, lba: u64, blocks: u64) {
        if self.log_may_fail() {
            return;
        }
        let _running = self.quiesce.enter().await;
        let world = &self.world;
        let token = world.model.borrow_mut().begin_write(lba, blocks, ZEROS);
        let result = self.vbdev.unmap(lba, blocks).await;
        world.note(|| format!("unmap of {blocks} blocks from {lba} on: {result:?}"));
        world.model.borrow_mut().fail(&token, false);
        world.count("event: unmap");
    }

    async fn abort(&self, all: bool) {
        let result = self.vbdev.abort(all);
        self.world.note(|| format!("abort, all {all}: {result:?}"));
        if result == Ok(true) {
            self.world.count(if all { "event: reset" } else { "event: abort" });
        }
    }

    /// Compares the table with the spare, or takes over what the spare says: without errors there is no difference.
    pub(crate) async fn compare(&self, dry_run: bool) {
        let world = &self.world;
        let answer = self.vbdev.engine.restore(dry_run).await;
        world.note(|| format!("restore, dry_run {dry_run}: {answer:?}"));
        match answer {
            Ok(report) => {
                world.count(if dry_run { "event: compared with the spare" } else { "event: restored" });
                if report.added + report.removed + report.changed > 0 && !self.log_may_fail() {
                    world.fail(|| format!("the spare does not say what the table says ({report:?})"));
                }
            }
            Err(_) if self.log_may_fail() || world.damaged() => {}
            Err(error) => world.fail(|| format!("the spare cannot be read again: {error}")),
        }
    }

    async fn wipe(&self) {
        let world = &self.world;
        let held = self.quiesce.hold().await;
        let status = self.vbdev.engine.status();
        let (was, formatted) = (world.wiped.get(), world.formatted.get());
        if status.remapped + status.lost == 0 && !was {
            // From now on it may be empty, whatever comes.
            world.formatted.set(false);
            world.bad_saved.set(0);
            world.wiped.set(true);
        }
        let result = self.vbdev.engine.wipe(false).await;
        world.note(|| format!("wipe: {result:?}"));
        match result {
            Ok(()) if status.remapped + status.lost > 0 => world.fail(|| "remapped blocks were wiped".into()),
            Ok(()) => world.count("event: wiped"),
            Err(Error::StillRemapped { .. }) => {
                world.formatted.set(formatted);
                world.wiped.set(was);
            }
            Err(Error::Closed) => {}
            Err(_) => world.wipe_failed.set(true),
        }
        drop(held);
    }

    /// No two blocks on one spare block, and all of them where data may be.
    pub(crate) fn check_table(&self) {
        let world = &self.world;
        let layout = self.vbdev.engine.layout();
        world.follow(layout);
        let table = self.vbdev.engine.table();
        let mut used = std::collections::BTreeMap::new();
        let _ = table.visit(Extent::new(BaseLba(0), table.base_blocks()), |lba, mapping| {
            let Some(spare) = mapping.spare() else { return ControlFlow::Continue(()) };
            if spare.index() >= layout.data_blocks || spare.slot() != self.vbdev.engine.slot() {
                world.fail(|| format!("{lba:?} is on {spare:?}, outside the data area"));
            }
            if let Some(other) = used.insert(spare, lba) {
                world.fail(|| format!("{lba:?} and {other:?} share {spare:?}"));
            }
            ControlFlow::Continue(())
        });
    }
}
