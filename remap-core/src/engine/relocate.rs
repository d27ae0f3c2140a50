//! Blocks that go to the spare because an operator names them: a range, or a list of bad blocks that is known from elsewhere.
//!
//! ```text
//! lock a group ─> a window: read, reserve, write ─> the next window … ─> commit the group ─> unlock ─> the next group
//! ```
//! A window is what is in memory at one time. A group is what hosts have to wait for, and what is committed together.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::Engine;
use super::gathered::Gathered;
use super::moves::{blocks_of, is_among, window_blocks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::jobs::{Job, JobOutcome, Stopped};
use crate::pace::Pace;
use crate::ranges::Ranges;
use crate::rescue::HostOp;
use crate::rescue::moves::{NotRelocated, add_block};
use crate::route::At;
use crate::status::{IoStatus, RemapOn};
use crate::table::Place;
use crate::units::{BaseLba, Extent};

/// Blocks of a list that are locked, and committed together, at most.
const GROUP_BLOCKS: u64 = 8192;
/// After this time no further window of a group begins: hosts wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Blocks of the first window; while windows are quick, each is twice as long as the one before, up to what is in memory at one time.
/// A base that is dying may take seconds for each block.
const FIRST_WINDOW: u64 = 8;
/// A window that took longer is followed by a shorter one.
const QUICK: Duration = Duration::from_millis(100);

/// What relocating blocks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddReport {
    /// Blocks that were relocated.
    pub added: u64,
    /// Blocks that were remapped, pending or lost before.
    pub already: u64,
    /// Blocks that could not be read, and are pending now.
    pub pending: u64,
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Relocates the blocks of `range` that are on the base, window by window. Those that cannot be read become pending.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`]; [`Error::NoSpare`], [`Error::Tripped`], [`Error::LogFailed`], [`Error::BaseIo`], [`Error::Io`];
    /// [`Error::Partly`] around it if something was relocated by then: that stays so.
    pub async fn add<B: Device>(&self, base: &B, range: Extent, on: RemapOn, job: &Job) -> Result<AddReport, Stopped> {
        job.set_total(range.blocks);
        let at_once = window_blocks(self.layout().block_size);
        Relocation::new(self, base, on, job).run(VecDeque::from([range]), at_once).await
    }

    /// As [`Engine::add`], for a list, of which as much is committed together as is copied within a second, and 8,192 blocks at most.
    ///
    /// # Errors
    /// As [`Engine::add`]; [`Error::NotEnoughSpare`], and nothing was changed then.
    pub async fn import<B: Device>(
        &self,
        base: &B,
        blocks: &Ranges,
        on: RemapOn,
        job: &Job,
    ) -> Result<AddReport, Stopped> {
        job.set_total(blocks.blocks());
        self.check_room_for(blocks).await?;
        Relocation::new(self, base, on, job).run(blocks.iter().collect(), GROUP_BLOCKS).await
    }

    /// Why blocks were not relocated, for the operator.
    pub(super) fn not_relocated(&self, why: NotRelocated) -> Error {
        match why {
            NotRelocated::Refused(refused) => refused.into(),
            NotRelocated::Failed(at, status) => {
                let layout = self.layout();
                let lba = at.map_or(layout.data_start, |block| layout.data(block));
                Error::Io { what: "write", lba, status }
            }
        }
    }

    /// Whether the spare has room for those of `blocks` that are on the base.
    async fn check_room_for(&self, blocks: &Ranges) -> Result<(), Error> {
        let (mut held, mut pace) = (0, Pace::default());
        for extent in blocks.iter() {
            self.shared.table.visit_range_in_steps(extent, &mut pace, |_, _| held += 1).await;
            pace.step(1).await;
        }
        let needed = blocks.blocks().saturating_sub(held);
        match u64::from(self.shared.state.borrow().allocator.free_count()) {
            free if needed > free => Err(Error::NotEnoughSpare { needed, free }),
            _ => Ok(()),
        }
    }
}

/// A relocation that goes on.
struct Relocation<'a, B: Device, D: Device, E: Env> {
    engine: &'a Engine<D, E>,
    base: &'a B,
    on: RemapOn,
    job: &'a Job,
    /// Blocks of the next window, at most.
    window: u64,
    report: AddReport,
}

impl<'a, B: Device, D: Device, E: Env> Relocation<'a, B, D, E> {
    fn new(engine: &'a Engine<D, E>, base: &'a B, on: RemapOn, job: &'a Job) -> Self {
        Relocation { engine, base, on, job, window: FIRST_WINDOW, report: AddReport::default() }
    }

    /// Relocates `all`, and locks at most `at_once` blocks of it at one time.
    async fn run(mut self, all: VecDeque<Extent>, at_once: u64) -> Result<AddReport, Stopped> {
        let outcome = self.relocate(all, at_once).await;
        let AddReport { added, pending, .. } = self.report;
        match outcome {
            Ok(()) => Ok(self.report),
            Err(Stopped::Failed(why)) if added + pending > 0 => {
                Err(Stopped::Failed(Error::Partly { why: Box::new(why), added, pending }))
            }
            Err(why) => Err(why),
        }
    }

    async fn relocate(&mut self, mut rest: VecDeque<Extent>, at_once: u64) -> JobOutcome {
        while !rest.is_empty() {
            self.job.go_on()?;
            let mut group = VecDeque::from(take(&mut rest, at_once));
            let locked = Ranges::new(group.iter().copied().collect());
            self.engine.with_range_locked(locked, self.group(&mut group)).await?;
            group.into_iter().rev().for_each(|left| rest.push_front(left));
        }
        Ok(())
    }

    /// Relocates blocks that are locked. What is left of `group` has to be locked anew, as hosts have waited for long.
    async fn group(&mut self, group: &mut VecDeque<Extent>) -> Result<(), Stopped> {
        let env = &self.engine.shared.env;
        let (gathered, until) = (Gathered::new(self.engine), env.now() + PATIENCE);
        let (mut copied, mut now) = (Ok(()), env.now());
        while copied.is_ok() && !group.is_empty() && now < until {
            let window = take(group, self.window);
            copied = self.copy(&window, &gathered).await;
            let began = std::mem::replace(&mut now, env.now());
            let quick = now.saturating_sub(began) < QUICK;
            let next = if quick { self.window * 2 } else { self.window / 2 };
            self.window = next.clamp(1, window_blocks(self.engine.layout().block_size));
        }
        // What was copied by then is relocated, also where the rest cannot be.
        let (added, pending, committed) = gathered.commit().await;
        self.report.added += added;
        self.report.pending += pending;
        committed.map_err(Error::from)?;
        copied
    }

    /// Copies a window to the spare.
    async fn copy(&mut self, window: &[Extent], gathered: &Gathered<'_, D, E>) -> Result<(), Stopped> {
        let Relocation { engine, base, on, job, .. } = *self;
        let (mut blocks, mut runs) = (Vec::new(), Vec::new());
        for lba in window.iter().flat_map(|extent| extent.lba.0..extent.end().0).map(BaseLba) {
            match engine.shared.table.lookup(lba) {
                Place::Base(_) => {
                    add_block(&mut runs, blocks.len() as u64, At::Base(lba));
                    blocks.push(lba);
                }
                _ => self.report.already += 1,
            }
        }
        let hand = engine.hand(Some(base), blocks, job);
        let missed = engine.read_in(&hand, &runs, gathered, on, IoStatus::is_given_up).await?;
        hand.only_media(&missed, on, "read")?;
        gathered.add_pending(missed.iter().map(|missed| hand.block(missed.offset)));
        let read = blocks_of(&runs).filter(|offset| !is_among(&missed, *offset));
        let failure = engine.moving(&hand.io(HostOp::Write), gathered, on).relocate_blocks(read).await;
        job.go_on()?;
        job.advance(window.iter().map(|extent| extent.blocks).sum());
        failure.map_or(Ok(()), |why| Err(Stopped::Failed(engine.not_relocated(why))))
    }
}

/// Takes at most `blocks` blocks off the front.
fn take(queue: &mut VecDeque<Extent>, blocks: u64) -> Vec<Extent> {
    let (mut taken, mut room) = (Vec::new(), blocks);
    while room > 0
        && let Some(extent) = queue.pop_front()
    {
        let part = Extent::new(extent.lba, extent.blocks.min(room));
        if part.blocks < extent.blocks {
            queue.push_front(Extent::new(part.end(), extent.blocks - part.blocks));
        }
        room -= part.blocks;
        taken.push(part);
    }
    taken
}
