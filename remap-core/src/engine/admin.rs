//! Administrative operations: save, restore, wipe, close, and what the set tells about itself.

use std::ops::ControlFlow;

use futures_channel::oneshot;

use super::batch::{Answer, Asked};
use super::committer::{Committer, Request};
use super::report::{
    CopyHealth, Difference, DifferingExtent, ListedExtent, MetadataHealth, RestoreReport, SaveReport, SetState,
    SpareUsage, Status,
};
use super::{Engine, Shared};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::page::TELLING_PAGES;
use crate::format::{Copy, Layout};
use crate::owner::Refused;
use crate::pace::{Pace, join_what_was_freed};
use crate::recovery::{Mappings, recover};
use crate::table::{Change, Mapping, Unpublished};
use crate::units::{BaseLba, Epoch, Extent, MAX_BASE_BLOCKS, Sequence};

/// How many differing extents a restore names.
const FIRST_DIFFERENCES: usize = 16;

impl<D: Device, E: Env> Engine<D, E> {
    /// Asks the committer, and waits for its answer; `None` if it is gone.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request<D, E>) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.unbounded_send(request(answer)).ok()?;
        answered.await.ok()
    }

    /// Writes a checkpoint now; bad copies of the metadata are rewritten with it.
    ///
    /// # Errors
    /// [`Error::CheckpointFailed`], [`Error::CheckpointTooLarge`], [`Error::Closed`].
    pub async fn save(&self) -> Result<SaveReport, Error> {
        self.ask(Request::Save).await.unwrap_or(Err(Error::Closed))
    }

    /// Reads the mapping from the spare again, tells what differs from the table, and, unless `dry_run`, takes it over; what
    /// hosts change is held back meanwhile.
    ///
    /// # Errors
    /// As at open, where the log is damaged; [`Error::CheckpointFailed`] if a commit is in doubt and cannot be settled.
    /// Nothing is changed then.
    pub async fn restore(&self, dry_run: bool) -> Result<RestoreReport, Error> {
        let restore =
            async { self.ask(|answer| Request::Restore { dry_run, answer }).await.unwrap_or(Err(Error::Closed)) };
        if dry_run {
            return restore.await;
        }
        // What it grows by meanwhile, too.
        let all = Extent::new(BaseLba(0), MAX_BASE_BLOCKS);
        self.with_range_locked(all, restore).await
    }

    /// Erases the superblocks and what shows the log, so that the spare is empty, and ends all jobs. Afterwards nothing can be
    /// committed any more.
    ///
    /// # Errors
    /// [`Error::StillRemapped`] unless `force`; [`Error::Io`], and the set is closed all the same; [`Error::Closed`].
    pub async fn wipe(&self, force: bool) -> Result<(), Error> {
        let wiped = self.ask(|answer| Request::Wipe { force, answer }).await.unwrap_or(Err(Error::Closed));
        // Unless that was refused.
        if self.shared.closed.get() {
            self.jobs.close().await;
        }
        wiped
    }

    /// The set is to be closed as soon as the I/O of hosts has ended: what keeps that waiting without an end gives in.
    pub fn leave(&self) {
        self.shared.closing.set(true);
    }

    /// The clean end: all jobs end, what waits is committed, and the superblocks note how far the log goes. Afterwards nothing
    /// can be committed any more, no task of the engine is left, and nothing of it is under way to any device. So this waits for
    /// a device that hangs: what that still has may come true at any time, and hit whoever has the device then.
    pub async fn close(&self) {
        self.leave();
        self.jobs.close().await;
        // A committer that is gone has closed already.
        let _ = self.ask(Request::Close).await;
        self.shared.events.close().await;
        self.shared.tasks.join().await;
    }

    /// Gives blocks back to the base, and frees their spare blocks. The caller has copied the data to the base, made it
    /// durable there and seen that it can be read, and holds writes of the blocks back until this returns.
    ///
    /// # Errors
    /// [`Refused::LogFailed`], [`Refused::Closed`]; the blocks are where they were.
    pub async fn clear(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.change(Asked::Clear(blocks)).await.map(drop)
    }

    /// Has a change of the mapping decided and made durable, together with whatever else waits.
    pub(super) async fn change(&self, asked: Asked) -> Answer {
        self.ask(|answer| Request::Change(asked, answer)).await.unwrap_or(Err(Refused::Closed))
    }

    /// All that there is to know about the set, at this moment.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let state = shared.state.borrow();
        let (log, times) = (shared.log.get(), shared.times.get());
        let counts = state.writer.counts();
        let (total, free) = (u64::from(state.allocator.total()), u64::from(state.allocator.free_count()));
        let bad = u64::from(state.allocator.bad_count());
        let health = |ok: bool| if ok { CopyHealth::Ok } else { CopyHealth::Bad };
        Status {
            state: match (state.storm.tripped(), log.sound(), shared.mirror.borrow().is_some()) {
                (true, _, _) => SetState::Tripped,
                (false, false, _) => SetState::Degraded,
                (false, true, true) => SetState::Migrating,
                (false, true, false) => SetState::Online,
            },
            uuid: shared.set_uuid,
            spare: SpareUsage { total, used: total.saturating_sub(free + bad), free, bad },
            remapped: counts.remapped,
            pending: counts.pending,
            lost: counts.lost,
            epoch: log.epoch,
            sequence: log.sequence,
            metadata: MetadataHealth {
                superblock_a: health(log.superblock_ok[Copy::A]),
                superblock_b: health(log.superblock_ok[Copy::B]),
                log_a: health(log.log_ok[Copy::A]),
                log_b: health(log.log_ok[Copy::B]),
                degraded_at: times.degraded,
                healed_at: times.healed,
            },
            last_save_epoch: log.epoch,
            last_save_at: times.saved,
            storm_limit: state.storm.limit(),
            counters: shared.counters.snapshot(),
            jobs: self.jobs.status(),
        }
    }

    /// At most `max` extents of what the table holds from `from` on, and where to go on if there is more.
    pub fn list(&self, from: BaseLba, max: usize) -> (Vec<ListedExtent>, Option<BaseLba>) {
        let mut listed: Vec<ListedExtent> = Vec::new();
        let mut go_on = None;
        let (table, layout) = (&self.shared.table, self.shared.layout.get());
        let rest = Extent::new(from, table.base_blocks().saturating_sub(from.0));
        let _ = table.visit(rest, |lba, mapping| {
            let next = ListedExtent::of(lba, mapping, &layout);
            if listed.last_mut().is_some_and(|last| last.extend(&next)) {
                return ControlFlow::Continue(());
            }
            if listed.len() >= max {
                go_on = Some(lba);
                return ControlFlow::Break(());
            }
            listed.push(next);
            ControlFlow::Continue(())
        });
        (listed, go_on)
    }
}

impl<D: Device, E: Env> Committer<D, E> {
    pub(super) async fn save(&mut self) -> Result<SaveReport, Error> {
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        let saved = self.checkpoint().await?;
        log::info!("{}: saved, epoch {}, {} bytes", self.shared.name, saved.epoch, saved.bytes);
        Ok(SaveReport { epoch: saved.epoch, bytes: saved.bytes, all_copies: saved.all_copies })
    }

    pub(super) async fn restore(&mut self, dry_run: bool) -> Result<RestoreReport, Error> {
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        if !dry_run && self.in_doubt() {
            // What was written and failed may reach the medium after it was read here.
            self.checkpoint().await?;
        }
        let recovered = recover(self.log.spare(), self.log.superblock(), None, Pace::default()).await?;
        let changes = self.shared.differences(recovered.mappings).await;
        let position = recovered.position;
        let table = &self.shared.table;
        let differing = changes.iter().map(|change| (change.lba, table.mapping(change.lba), change.to));
        let report = report(dry_run, position.epoch, position.last(), differing);
        if dry_run {
            return Ok(report);
        }
        let shared = &self.shared;
        shared.state.borrow_mut().allocator.forget_doubts();
        recovered.bad.iter().for_each(|spare| shared.state.borrow_mut().allocator.set_bad(*spare));
        shared.publish_many(changes.into_iter()).await;
        log::info!(
            "{}: restored, {} blocks added, {} removed, {} changed",
            shared.name,
            report.added,
            report.removed,
            report.changed
        );
        self.log.reposition(position, recovered.log_ok, recovered.dirty);
        if recovered.unfinished
            && let Err(error) = self.heal_what_was_found(recovered.unsettled).await
        {
            log::warn!("{}: what was restored is not safe yet: {error}", self.shared.name);
        }
        Ok(report)
    }

    /// Erases the superblocks first: from then on the spare does not pass for a set, whatever else is left of it.
    pub(super) async fn wipe(&mut self, force: bool) -> Result<(), Error> {
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        let counts = self.shared.state.borrow().writer.counts();
        let blocks = counts.remapped + counts.lost;
        if blocks > 0 && !force {
            return Err(Error::StillRemapped { blocks });
        }
        self.shared.closed.set(true);
        let (spare, layout) = (self.log.spare(), self.log.superblock().layout);
        // A bad copy first, which may know less: it must not be the only one that is left.
        let order = if self.log.view().superblock_ok[Copy::A] { [Copy::B, Copy::A] } else { Copy::BOTH };
        for copy in order {
            spare.zero(layout.superblock(copy), layout.page_blocks()).await?;
            spare.flush().await?;
        }
        // Also where they are looked for on a device of this size.
        let fresh = Layout::for_spare(layout.block_size, layout.spare_blocks).unwrap_or(layout);
        for start in layout.log_areas().chain(fresh.log_areas()) {
            spare.zero(start, u64::from(TELLING_PAGES) * layout.page_blocks()).await?;
        }
        spare.flush().await?;
        log::warn!("{}: spare erased, {blocks} blocks were remapped", self.shared.name);
        Ok(())
    }

    /// Notes in the superblocks how far the log goes, and that nothing is under way. Nothing can be committed any more then.
    pub(super) async fn close(&mut self) {
        if !self.shared.closed.replace(true) {
            self.log.close().await;
        }
    }
}

impl<E: Env> Shared<E> {
    /// The changes that make the table say what `mappings` say.
    async fn differences(&self, mappings: Mappings) -> Vec<Change> {
        let mut changes = Vec::new();
        let visited = self.table.visit_in_steps(|lba, held| {
            let to = mappings.get(lba);
            if to != Some(held) {
                changes.push(Change { lba, to });
            }
        });
        visited.await;
        let mut pace = Pace::default();
        let mut all = Vec::new();
        let mut changes = changes.into_iter().peekable();
        // It is taken apart as it is gone through: to drop it at once would take long, too.
        for group in mappings.into_regions() {
            pace.step(group.blocks).await;
            join_what_was_freed();
            for (lba, to) in group.regions.iter().flat_map(Unpublished::blocks) {
                while let Some(earlier) = changes.next_if(|change| change.lba <= lba) {
                    all.push(earlier);
                    pace.step(1).await;
                }
                if self.table.mapping(lba).is_none() {
                    all.push(Change { lba, to: Some(to) });
                }
                pace.step(1).await;
            }
        }
        all.extend(changes);
        all
    }
}

/// Counts what differs: block, what the table has, what the spare has.
fn report(
    dry_run: bool,
    epoch: Epoch,
    sequence: Sequence,
    differing: impl Iterator<Item = (BaseLba, Option<Mapping>, Option<Mapping>)>,
) -> RestoreReport {
    let mut report = RestoreReport { dry_run, epoch, sequence, added: 0, removed: 0, changed: 0, first: Vec::new() };
    let mut complete = false;
    for (lba, had, has) in differing {
        let (difference, count) = match (had, has) {
            (None, _) => (Difference::Added, &mut report.added),
            (Some(_), None) => (Difference::Removed, &mut report.removed),
            (Some(_), Some(_)) => (Difference::Changed, &mut report.changed),
        };
        *count += 1;
        if let Some(last) = report.first.last_mut()
            && !complete
            && last.difference == difference
            && last.lba.plus(last.num_blocks) == lba
        {
            last.num_blocks += 1;
        } else if report.first.len() < FIRST_DIFFERENCES {
            report.first.push(DifferingExtent { lba, num_blocks: 1, difference });
        } else {
            complete = true;
        }
    }
    report
}
