//! The migration of a set to another spare, while hosts go on: the job.
//!
//! ```text
//! prepare: format as migrating-in ─> writes go to both ─> copy, window by window, under the range lock ─> all held back:
//! copy the rest ─> switch (`switch`) ─> writes go to one
//! ```
//! Until the switch the old spare is in force, and nothing rests on the new one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::committer::Request;
use super::mirror::Mirror;
use super::moves::{blocks_of, is_among};
use super::open::format_beside;
use super::owner::Operator;
use super::switch::{SwitchTo, Switched, retire};
use super::{DataOf, Engine};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::Layout;
use crate::jobs::{Job, Stopped};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::remap_log::Log;
use crate::rescue::HostOp;
use crate::rescue::moves::{Missed, Run, add_block};
use crate::route::At;
use crate::slot::Slot;
use crate::spare::Spare;
use crate::status::{IoStatus, RemapOn};
use crate::table::{Change, Mapping, TableWriter, reclaim_table};
use crate::units::{BaseLba, Extent};

/// So few blocks are copied while hosts' writes wait.
const FEW: u64 = 64;
/// The first pause after a pass of which all was aborted; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// So many such passes, one after the other, end it: after about a minute.
const PATIENCE: u32 = 13;
/// Passes over the table after which the rest is copied while hosts' writes wait, however much it is.
const PASSES: u32 = 16;

/// How a set moves to another spare.
#[derive(Clone, Copy, Debug)]
pub struct MigrateParams {
    /// Which errors count as media errors.
    pub on: RemapOn,
    /// Bytes that are copied in a second, at most; None: as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

/// A spare that was formatted to take over all that is on the one in force.
pub struct NewSpare<D: Device, E: Env> {
    log: Box<Log<D, E>>,
    data: DataOf<D>,
}

impl<D: Device, E: Env> NewSpare<D, E> {
    /// Where it is in the set.
    pub fn slot(&self) -> Slot {
        self.log.superblock().slot
    }

    /// What is where on it.
    pub fn layout(&self) -> Layout {
        self.data.layout
    }

    /// Its identity.
    pub fn id(&self) -> Uuid {
        self.log.superblock().spare_id
    }
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Formats a spare to which all can move, under the identity `id`. One that holds something is refused, other than what was
    /// left of this set on it, or anything but a valid set if it is to be formatted by `force`.
    ///
    /// # Errors
    /// [`Error::SpareInUse`], [`Error::Foreign`], [`Error::Erased`], [`Error::NoSuperblock`], [`Error::BlockSizeDiffers`],
    /// [`Error::TooSmall`], [`Error::SpareTooSmall`], and nothing was written then; [`Error::Io`], [`Error::CheckpointFailed`];
    /// [`Error::Closed`].
    pub async fn prepare(&self, device: D, id: Uuid, force: bool) -> Result<NewSpare<D, E>, Error> {
        let shared = &self.shared;
        let in_force = self.superblock().await.ok_or(Error::Closed)?;
        let spare = Rc::new(Spare::with_tasks(device, Rc::clone(&shared.env), shared.tasks.clone()));
        let device = Rc::clone(spare.device());
        let needed = shared.state.borrow().writer.counts();
        let needed = needed.remapped + needed.lost;
        let log = format_beside(spare, Arc::clone(&shared.counters), &in_force, id, force, needed).await?;
        let layout = log.superblock().layout;
        Ok(NewSpare { log: Box::new(log), data: DataOf { device, layout } })
    }

    /// Moves all that is on the spare in force to `new`, which is in force then. The caller has seen to it that hosts' I/O reaches
    /// `new` in its slot, and may end that for the spare that is not in force when this returns.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`], and whatever failed: the spare in force is the one that was. Other than where the set is being
    /// closed ([`Error::Closed`]): then the next start says which is.
    pub async fn migrate(&self, new: NewSpare<D, E>, params: MigrateParams, job: &Job) -> Result<(), Stopped> {
        let shared = &self.shared;
        let (slot, layout) = (new.slot(), new.layout());
        let mirror = Rc::new(Mirror::new(slot, layout, shared.table.base_blocks()));
        *shared.mirror.borrow_mut() = Some(Rc::clone(&mirror));
        self.spares.borrow_mut()[slot] = Some(new.data);
        shared.state.borrow().writer.set_mirrored(true);
        shared.env.drain().await;
        let result = self.copy_and_switch(new.log, &mirror, params, job).await;
        shared.mirror.take();
        shared.state.borrow().writer.set_mirrored(false);
        // Whoever may still have to do with the other spare.
        shared.env.drain().await;
        let unused = self.slot().other();
        self.spares.borrow_mut()[unused] = None;
        // Empty if all has moved.
        let given_up = mirror.writer.replace(TableWriter::new(shared.table.base_blocks()));
        shared.tasks.spawn(reclaim_table(Rc::clone(&shared.env), given_up));
        result
    }

    async fn copy_and_switch(
        &self,
        mut log: Box<Log<D, E>>,
        mirror: &Rc<Mirror>,
        params: MigrateParams,
        job: &Job,
    ) -> Result<(), Stopped> {
        // Also what the base may grow by meanwhile.
        let all = Extent::new(BaseLba(0), self.shared.table.room());
        let copying = Copying { mirror, params, job, began: self.shared.env.now() };
        let mut idle = 0;
        loop {
            let mut pass = self.copy_pass(&copying).await?;
            let mut passes = 0;
            while pass.copied > FEW && passes < PASSES {
                passes += 1;
                pass = self.copy_pass(&copying).await?;
            }
            // What was aborted is tried again: a reset is no failure of a spare.
            if pass.aborted.is_some() {
                idle = if pass.copied > 0 { 0 } else { idle + 1 };
                self.pause(&copying, idle, pass).await?;
                continue;
            }
            let switched = self.with_range_locked(all, async {
                if self.copy_rest(&copying).await?.aborted.is_some() {
                    return Ok(Switched::NotYet(log));
                }
                copying.go_on()?;
                let to = SwitchTo { log, mirror: Rc::clone(mirror) };
                let switched = self.ask(|answer| Request::Switch(to, answer)).await.unwrap_or(Err(Error::Closed));
                if matches!(switched, Err(Error::Closed)) {
                    // Nobody knows which spare is in force: no write may go to either, for as long as there are hosts.
                    self.jobs.closing(copying.job).await;
                }
                switched.map_err(Stopped::Failed)
            });
            match switched.await? {
                Switched::Done(old) => {
                    retire(old).await;
                    return Ok(());
                }
                Switched::NotYet(back) => log = back,
            }
        }
    }

    async fn pause(&self, copying: &Copying<'_>, idle: u32, pass: Pass) -> Result<(), Stopped> {
        if let Some((what, status)) = pass.aborted.filter(|_| idle >= PATIENCE) {
            return Err(copying.failed(what, status));
        }
        self.sleep(copying, FIRST_PAUSE * (1 << idle)).await;
        copying.go_on()
    }

    async fn sleep(&self, copying: &Copying<'_>, time: Duration) {
        let sleep = self.shared.env.sleep(time);
        futures_util::future::select(Box::pin(copying.job.cancelled()), Box::pin(sleep)).await;
    }

    /// Copies what is not over there yet.
    async fn copy_pass(&self, copying: &Copying<'_>) -> Result<Pass, Stopped> {
        let mut pass = Pass::default();
        let mut from = BaseLba(0);
        while let Some(window) = self.next_window(copying.mirror, from).await {
            copying.go_on()?;
            pass.add(self.with_range_locked(window, self.copy_window(copying, window)).await?);
            self.keep_to_the_rate(copying).await;
            from = window.end();
        }
        Ok(pass)
    }

    /// The same while all is locked.
    async fn copy_rest(&self, copying: &Copying<'_>) -> Result<Pass, Stopped> {
        let mut pass = Pass::default();
        let mut from = BaseLba(0);
        while let Some(window) = self.next_window(copying.mirror, from).await {
            copying.go_on()?;
            pass.add(self.copy_window(copying, window).await?);
            from = window.end();
        }
        Ok(pass)
    }

    /// A window that begins with the first block from `from` on that is not over there.
    async fn next_window(&self, mirror: &Mirror, mut from: BaseLba) -> Option<Extent> {
        // All that it holds, the table holds, too.
        if mirror.count() == self.shared.state.borrow().writer.counts().total() {
            return None;
        }
        let (table, end) = (&self.shared.table, self.shared.table.base_blocks());
        let mut pace = Pace::default();
        while from.0 < end {
            let (mut seen, mut found, mut next) = (0, None, BaseLba(end));
            let _ = table.visit(Extent::new(from, end - from.0), |lba, _| {
                if !mirror.holds(lba) {
                    found = Some(lba);
                    return std::ops::ControlFlow::Break(());
                }
                seen += 1;
                if seen == Pace::STRIDE {
                    next = lba.plus(1);
                    return std::ops::ControlFlow::Break(());
                }
                std::ops::ControlFlow::Continue(())
            });
            if let Some(first) = found {
                return self.windows(Extent::new(first, end - first.0)).next();
            }
            from = next;
            pace.step(seen.max(1)).await;
        }
        None
    }

    /// Copies the blocks of a window, which is locked, that are not over there. Those that the old spare cannot read are lost there.
    async fn copy_window(&self, copying: &Copying<'_>, window: Extent) -> Result<Pass, Stopped> {
        let Copying { mirror, params, job, .. } = copying;
        let mut pass = Pass::default();
        let (mut there, mut lost, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = BTreeMap::new();
        let _ = self.shared.table.visit(window, |lba, mapping| {
            if mirror.holds(lba) {
                return std::ops::ControlFlow::Continue(());
            }
            let offset = lba.0 - window.lba.0;
            seen.insert(lba, mapping);
            match mapping {
                Mapping::Spare(block) => add_block(&mut there, offset, At::Spare(block)),
                Mapping::Lost(_) => lost.push(offset),
                Mapping::Pending => changes.push(Change { lba, to: Some(Mapping::Pending) }),
            }
            std::ops::ControlFlow::Continue(())
        });
        let blocks = (0..window.blocks).map(|offset| window.lba.plus(offset)).collect();
        let hand = self.hand(None::<&D>, blocks, job);
        let unread = self.moving(&hand.io(HostOp::Read), &Operator(self), params.on).do_runs(&there).await;
        let mut open: Vec<u64> = blocks_of(&there).filter(|offset| !is_among(&unread, *offset)).collect();
        lost.extend(copying.only_media(unread, "read", &mut pass)?);
        let mut change = |offset: u64, to| changes.push(Change { lba: window.lba.plus(offset), to: Some(to) });
        for offset in lost {
            change(offset, Mapping::Lost(copying.reserve(1)?.pop().ok_or(Error::NewSpareFull)?));
        }
        while !open.is_empty() && pass.aborted.is_none() {
            job.go_on()?;
            let targets = copying.reserve(open.len())?;
            let mut here: Vec<Run> = Vec::new();
            open.iter().zip(&targets).for_each(|(offset, to)| add_block(&mut here, *offset, At::Spare(*to)));
            let unwritten = self.moving(&hand.io(HostOp::Write), &Operator(self), params.on).do_runs(&here).await;
            let written = |offset: &u64| !is_among(&unwritten, *offset);
            for (offset, to) in open.iter().zip(&targets).filter(|(offset, _)| written(offset)) {
                change(*offset, Mapping::Spare(*to));
            }
            let of: Vec<_> = open.iter().copied().zip(targets).filter(|(offset, _)| !written(offset)).collect();
            open = copying.only_media(unwritten, "write", &mut pass)?;
            let allocator = &mut mirror.allocator.borrow_mut();
            for (offset, to) in of {
                if open.contains(&offset) { allocator.set_bad(to) } else { allocator.release(to) }
            }
        }
        // A read may have made a block pending, and what was in doubt may be settled, although hosts' writes wait.
        let (changes, changed): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change: &Change| {
            self.shared.table.mapping(change.lba) == seen.get(&change.lba).copied()
                || active(Mutation::ChangedWhileCopied)
        });
        for to in changed.into_iter().filter_map(|change| change.to.and_then(Mapping::spare)) {
            mirror.allocator.borrow_mut().release(to);
        }
        pass.copied = changes.len() as u64;
        self.shared.add_copies(mirror, changes);
        job.advance(pass.copied);
        job.set_total(self.shared.state.borrow().writer.counts().total());
        Ok(pass)
    }

    /// Waits until so much may have been copied.
    async fn keep_to_the_rate(&self, copying: &Copying<'_>) {
        let Some(rate) = copying.params.bytes_per_second.filter(|rate| *rate > 0) else { return };
        let bytes = copying.job.done().saturating_mul(u64::from(self.layout().block_size));
        let due = copying.began + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        let now = self.shared.env.now();
        if due > now {
            self.sleep(copying, due - now).await;
        }
    }
}

/// What came of copying.
#[derive(Clone, Copy, Default)]
struct Pass {
    /// Blocks that are over there now.
    copied: u64,
    /// What was given up by the device, as after a reset, and is to be tried again.
    aborted: Option<(&'static str, IoStatus)>,
}

impl Pass {
    fn add(&mut self, other: Pass) {
        self.copied += other.copied;
        self.aborted = self.aborted.or(other.aborted);
    }
}

/// A migration that runs.
struct Copying<'a> {
    mirror: &'a Rc<Mirror>,
    params: MigrateParams,
    job: &'a Job,
    began: Duration,
}

impl Copying<'_> {
    /// Whether it is to go on.
    fn go_on(&self) -> Result<(), Stopped> {
        self.job.go_on()?;
        match self.mirror.failure.get() {
            None => Ok(()),
            Some(status) => Err(self.failed("write", status)),
        }
    }

    fn failed(&self, what: &'static str, status: IoStatus) -> Stopped {
        Stopped::Failed(Error::MigrationIo { what, status })
    }

    /// Which blocks failed with media errors; those that were aborted are left for later.
    fn only_media(&self, missed: Vec<Missed>, what: &'static str, pass: &mut Pass) -> Result<Vec<u64>, Stopped> {
        self.job.go_on()?;
        let mut media = Vec::new();
        for Missed { offset, status } in missed {
            match status {
                _ if status.is_media_error(self.params.on) => media.push(offset),
                _ if status.is_given_up() => pass.aborted = Some((what, status)),
                _ => return Err(self.failed(what, status)),
            }
        }
        Ok(media)
    }

    fn reserve(&self, count: usize) -> Result<Vec<crate::slot::SpareBlock>, Error> {
        self.mirror.allocator.borrow_mut().reserve(count).ok_or(Error::NewSpareFull)
    }
}
