//! The scrub: reads all blocks where they live, to find those that cannot be read before a host does, and all copies of the
//! metadata.
//!
//! ```text
//! metadata ─> window ─> rest ─> window ─> rest ─> …        where it goes on is noted in the superblocks now and then
//! ```
//! A window is read whole, if all of it is on the base and can be read; else in parts, and in halves what fails. What cannot be
//! read becomes pending, as for a host's read. A pending block that can be read again is copied to the spare, under the range lock:
//! it is the only thing that hosts may have to wait for.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;

use super::Engine;
use super::check::{Checked, Part};
use super::committer::{Committer, Request};
use super::moves::{Hand, blocks_of, is_among};
use super::owner::Operator;
use super::storm::Recent;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::ScrubPosition;
use crate::gate::Passed;
use crate::jobs::{Begun, Job, JobKind, JobOutcome, ScrubCounts, Stopped};
use crate::mutation::{Mutation, active};
use crate::owner::Owner;
use crate::ranges::Ranges;
use crate::rescue::HostOp;
use crate::rescue::moves::{Missed, Run, add_block};
use crate::route::At;
use crate::status::RemapOn;
use crate::table::Place;
use crate::units::{BaseLba, Extent};

/// While hosts are at work, a scrub rests this many times as long as it has read: it takes a sixteenth of the time of a device,
/// whatever the device is.
const REST: u32 = 15;
/// The longest rest for the sake of hosts, so that a scrub ends on a busy device, too.
const LONGEST_REST: Duration = Duration::from_millis(250);
/// How often it is noted where a scrub goes on.
const NOTE_EVERY: Duration = Duration::from_secs(60);

impl<D: Device, E: Env> Engine<D, E> {
    /// The scrub that the last process that had the set did not end.
    pub fn unfinished_scrub(&self) -> Option<ScrubPosition> {
        let end = BaseLba(self.shared.table.base_blocks());
        let found = self.unfinished_scrub.map(|scrub| ScrubPosition { end: scrub.end.min(end), ..scrub });
        found.filter(|scrub| scrub.next < scrub.end)
    }

    /// Begins a scrub of the blocks from `plan.next` on to `plan.end`, which are on the base.
    ///
    /// # Errors
    /// [`Error::Tripped`], [`Error::JobRuns`], [`Error::Closed`].
    pub fn begin_scrub<B: Device>(self: &Rc<Self>, base: B, plan: ScrubPosition, on: RemapOn) -> Result<Begun, Error> {
        self.no_storm()?;
        let engine = Rc::clone(self);
        self.jobs.begin(JobKind::Scrub, |job| async move {
            let counts = ScrubCounts { max_mbps: plan.max_mbps, ..ScrubCounts::default() };
            job.set_total(plan.end.0.saturating_sub(plan.next.0));
            job.set_scrub(counts);
            let (found, passed) = (Recent::default(), engine.shared.env.passed().await);
            let scrub =
                Scrub { engine: &engine, base: &base, on, job: &job, at: plan, counts, found, passed, buffer: None };
            scrub.run().await
        })
    }

    fn no_storm(&self) -> Result<(), Error> {
        if self.shared.state.borrow().storm.tripped() { Err(Error::Tripped) } else { Ok(()) }
    }

    /// Has the superblocks say where a scrub goes on: now, or with the next that is written.
    async fn note_scrub(&self, at: Option<ScrubPosition>, durable: bool) {
        // A committer that is gone has noted what there was.
        let _ = self.ask(|answer| Request::Scrub { at, durable, answer }).await;
    }
}

/// A scrub under way.
struct Scrub<'a, B: Device, D: Device, E: Env> {
    engine: &'a Engine<D, E>,
    base: &'a B,
    on: RemapOn,
    job: &'a Job,
    /// Where it goes on.
    at: ScrubPosition,
    counts: ScrubCounts,
    /// What could not be read lately.
    found: Recent,
    /// How much I/O of hosts had passed when that was last looked at.
    passed: Passed,
    /// For windows that are read whole.
    buffer: Option<B::Buffer>,
}

impl<B: Device, D: Device, E: Env> Scrub<'_, B, D, E> {
    async fn run(mut self) -> JobOutcome {
        log::info!("{}: scrub of blocks {} to {} begins", self.engine.shared.name, self.at.next.0, self.at.end.0);
        let outcome = self.go_through().await;
        // The next process that has the set goes on where this one is stopped.
        let at = self.engine.jobs.is_closing().then_some(self.at).filter(|at| at.next < at.end);
        self.engine.note_scrub(at, true).await;
        let ScrubCounts { unreadable, rescued, spare_unreadable, metadata_bad, .. } = self.counts;
        log::info!(
            "{}: scrub ends at block {}: {unreadable} blocks unreadable, {rescued} rescued, {spare_unreadable} unreadable on the spare, {metadata_bad} pages of metadata bad",
            self.engine.shared.name,
            self.at.next.0,
        );
        outcome
    }

    async fn go_through(&mut self) -> JobOutcome {
        let engine = self.engine;
        self.check_metadata().await?;
        let mut noted = engine.shared.env.now();
        let all = Extent::new(self.at.next, self.at.end.0.saturating_sub(self.at.next.0));
        for window in engine.windows(all) {
            self.job.go_on()?;
            engine.no_storm()?;
            let began = engine.shared.env.now();
            self.check_blocks(window).await?;
            self.at.next = window.end();
            self.job.advance(window.blocks);
            self.job.set_scrub(self.counts);
            let durable = engine.shared.env.now() >= noted + NOTE_EVERY;
            if durable {
                noted = engine.shared.env.now();
            }
            engine.note_scrub(Some(self.at), durable).await;
            let bytes = window.blocks * u64::from(engine.layout().block_size);
            self.rest(began, bytes).await;
        }
        Ok(())
    }

    /// Lets as much time pass as the rate demands for these bytes, and as hosts need that are at work.
    async fn rest(&mut self, began: Duration, bytes: u64) {
        let env = &*self.engine.shared.env;
        let took = env.now().saturating_sub(began);
        let before = std::mem::replace(&mut self.passed, env.passed().await);
        // 10^6 bytes a second are a byte a microsecond.
        let by_rate = Duration::from_micros(bytes / u64::from(self.at.max_mbps.max(1))).saturating_sub(took);
        let for_hosts = if self.passed.any_since(before) { (took * REST).min(LONGEST_REST) } else { Duration::ZERO };
        let pause = by_rate.max(for_hosts);
        if !pause.is_zero() {
            select(pin!(env.sleep(pause)), pin!(self.job.cancelled())).await;
        }
    }

    async fn check_metadata(&mut self) -> Result<(), Stopped> {
        let engine = self.engine;
        self.check_part(Part::Superblocks).await?;
        // Not before, as this writes them anew.
        engine.note_scrub(Some(self.at), true).await;
        for part in Part::log(&engine.layout()) {
            self.job.go_on()?;
            self.check_part(part).await?;
        }
        // What is in force was healed at once. This is for bad pages in the area that is not: it is zeroed with it.
        if self.counts.metadata_bad > 0
            && let Err(error) = engine.save().await
        {
            log::warn!("{}: bad pages of metadata are not healed yet: {error}", engine.shared.name);
        }
        Ok(())
    }

    async fn check_part(&mut self, part: Part) -> Result<(), Stopped> {
        let engine = self.engine;
        let began = engine.shared.env.now();
        let checked = engine.ask(|answer| Request::Check(part, answer)).await.unwrap_or(Err(Error::Closed));
        let Checked { pages, bad } = checked?;
        self.counts.metadata_pages += pages;
        self.counts.metadata_bad += bad;
        self.job.set_scrub(self.counts);
        self.rest(began, pages * u64::from(engine.layout().page_bytes)).await;
        Ok(())
    }

    async fn check_blocks(&mut self, window: Extent) -> Result<(), Stopped> {
        let engine = self.engine;
        let table = &engine.shared.table;
        if table.first_in(window).is_none() && self.read_whole(window).await {
            self.counts.blocks_read += window.blocks;
            return Ok(());
        }
        let (mut runs, mut places) = (Vec::new(), Vec::new());
        for offset in 0..window.blocks {
            let place = table.lookup(window.lba.plus(offset));
            match place {
                Place::Base(lba) | Place::Pending(lba) => add_block(&mut runs, offset, At::Base(lba)),
                Place::Spare(block) => add_block(&mut runs, offset, At::Spare(block)),
                // Its data is nowhere.
                Place::Lost(_) => {}
            }
            places.push(place);
        }
        let missed = self.read(window, &runs).await?;
        self.counts.blocks_read += runs.iter().map(|run| run.blocks).sum::<u64>() - missed.len() as u64;
        let (mut unreadable, mut on_spare) = (Vec::new(), Vec::new());
        for offset in missed.iter().map(|missed| missed.offset) {
            let lba = window.lba.plus(offset);
            match (places[offset as usize], table.lookup(lba)) {
                (Place::Base(_), Place::Base(_)) => unreadable.push(lba),
                (Place::Spare(was), Place::Spare(is)) if was == is => on_spare.push(lba),
                // It was known, or has moved since.
                _ => {}
            }
        }
        if let Some(first) = on_spare.first() {
            self.counts.spare_unreadable += on_spare.len() as u64;
            let (name, count) = (&engine.shared.name, on_spare.len());
            log::warn!("{name}: {count} remapped blocks cannot be read on the spare, from LBA {} on", first.0);
        }
        if !unreadable.is_empty() {
            self.unreadable(unreadable).await?;
        }
        let pending = |offset: &u64| matches!(places[*offset as usize], Place::Pending(_));
        let readable: Vec<_> = (0..window.blocks)
            .filter(pending)
            .filter(|offset| !is_among(&missed, *offset) || active(Mutation::ScrubKeepsFailedReads))
            .collect();
        if !readable.is_empty() {
            let locked = readable.iter().map(|offset| Extent::new(window.lba.plus(*offset), 1)).collect();
            let rescue = self.rescue(window, readable);
            match active(Mutation::ScrubWithoutLock) {
                true => rescue.await?,
                false => engine.with_range_locked(Ranges::new(locked), rescue).await?,
            }
        }
        Ok(())
    }

    /// Reads a window of the base; whether that works.
    async fn read_whole(&mut self, window: Extent) -> bool {
        let bytes = window.blocks as usize * self.base.geometry().block_size as usize;
        let buffer = match self.buffer.take() {
            Some(buffer) if buffer.as_ref().len() == bytes => buffer,
            _ => match self.base.alloc(window.blocks as usize) {
                Ok(buffer) => buffer,
                Err(_) => return false,
            },
        };
        let (buffer, read) = self.base.read(window.lba.0, buffer).await;
        self.buffer = Some(buffer);
        read.is_ok()
    }

    /// Reads runs of a window: which blocks the medium does not yield.
    async fn read(&self, window: Extent, runs: &[Run]) -> Result<Vec<Missed>, Stopped> {
        let (engine, hand) = (self.engine, self.hand(window));
        let missed = engine.read_in(&hand, runs, &Operator(engine), self.on, |_| true).await?;
        match missed.iter().find(|missed| !missed.status.is_media_error(self.on)) {
            None => Ok(missed),
            Some(other) => Err(self.failed(window, runs, *other).into()),
        }
    }

    /// Which device failed.
    fn failed(&self, window: Extent, runs: &[Run], Missed { offset, status }: Missed) -> Error {
        let what = "read";
        let run = runs.iter().rfind(|run| run.offset <= offset);
        match run.and_then(|run| run.at.plus(offset - run.offset)) {
            Some(At::Spare(block)) => Error::Io { what, lba: self.engine.layout().data(block), status },
            Some(At::Base(_)) | None => Error::BaseIo { what, lba: window.lba.plus(offset), status },
        }
    }

    /// Blocks that cannot be read become pending.
    async fn unreadable(&mut self, blocks: Vec<BaseLba>) -> Result<(), Stopped> {
        let (engine, count) = (self.engine, blocks.len() as u64);
        let limit = engine.shared.state.borrow().storm.limit();
        // Whoever reads all of a device that dies does not list it block by block.
        if !self.found.admit(engine.shared.env.now(), count, limit) {
            return Err(Error::TooManyUnreadable { limit }.into());
        }
        engine.set_pending(blocks).await.map_err(Error::from)?;
        self.counts.unreadable += count;
        Ok(())
    }

    /// Copies pending blocks that could be read to the spare, as they are when no host writes them.
    async fn rescue(&mut self, window: Extent, offsets: Vec<u64>) -> Result<(), Stopped> {
        let engine = self.engine;
        let mut runs = Vec::new();
        // A spare that has not enough takes none.
        let free = engine.shared.state.borrow().allocator.free_count() as usize;
        for offset in offsets.into_iter().take(free) {
            if let Place::Pending(lba) = engine.shared.table.lookup(window.lba.plus(offset)) {
                add_block(&mut runs, offset, At::Base(lba));
            }
        }
        let hand = self.hand(window);
        // What fails this time stays pending.
        let mut missed = engine.moving(&hand.io(HostOp::Read), &Operator(engine), self.on).do_runs(&runs).await;
        if active(Mutation::ScrubKeepsFailedReads) {
            missed.clear();
        }
        self.job.go_on()?;
        let read = blocks_of(&runs).filter(|offset| !is_among(&missed, *offset));
        let failure = engine.moving(&hand.io(HostOp::Write), &Operator(engine), self.on).relocate_blocks(read).await;
        let on_spare = |offset: &u64| matches!(engine.shared.table.lookup(hand.block(*offset)), Place::Spare(_));
        self.counts.rescued += blocks_of(&runs).filter(on_spare).count() as u64;
        self.job.go_on()?;
        match failure.map(|why| engine.not_relocated(why)) {
            // They are no worse than before, and there is more to be found.
            None | Some(Error::NoSpare | Error::Io { .. }) => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Room for the data of a window.
    fn hand(&self, window: Extent) -> Hand<'_, B, D> {
        let blocks = (window.lba.0..window.end().0).map(BaseLba).collect();
        self.engine.hand(Some(self.base), blocks, self.job)
    }
}

impl<D: Device, E: Env> Committer<D, E> {
    /// Where a scrub goes on; at once, if that is to be durable.
    pub(super) async fn note_scrub(&mut self, at: Option<ScrubPosition>, durable: bool) {
        self.log.set_scrub(at);
        if durable && !self.shared.closed.get() {
            self.log.note_committed().await;
        }
    }
}
