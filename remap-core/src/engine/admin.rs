//! Administrative operations: save, restore, wipe, and what the set tells about itself.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Engine;
use super::report::{
    CopyHealth, Difference, DifferingExtent, ListedExtent, ListedState, MetadataHealth, RestoreReport, SaveReport,
    SetState, SpareUsage, Status,
};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::Copy;
use crate::recovery::recover;
use crate::table::{Change, Mapping};
use crate::units::{BaseLba, Extent};

/// How many differing extents a restore names.
const FIRST_DIFFERENCES: usize = 16;

impl<D: Device, E: Env> Engine<D, E> {
    /// Writes a checkpoint now; bad copies of the metadata are rewritten with it.
    ///
    /// # Errors
    /// [`Error::CheckpointFailed`], [`Error::CheckpointTooLarge`], [`Error::Closed`].
    pub async fn save(&self) -> Result<SaveReport, Error> {
        let mut committer = self.committer.lock().await;
        if self.closed.get() {
            return Err(Error::Closed);
        }
        let saved = self.checkpoint(&mut committer).await;
        self.log.set(committer.log.view());
        let saved = saved?;
        log::info!("{}: saved, epoch {}, {} bytes", self.name, saved.epoch, saved.bytes);
        Ok(SaveReport { epoch: saved.epoch, bytes: saved.bytes, all_copies: saved.all_copies })
    }

    /// Reads the mapping from the spare again, tells what differs from the table, and, unless `dry_run`, takes it over.
    /// The caller has quiesced the bdev.
    ///
    /// # Errors
    /// As at open, where the log is damaged; nothing is changed then.
    pub async fn restore(&self, dry_run: bool) -> Result<RestoreReport, Error> {
        let mut committer = self.committer.lock().await;
        if self.closed.get() {
            return Err(Error::Closed);
        }
        let recovered = recover(committer.log.spare(), committer.log.superblock()).await?;
        let changes = self.differences(&recovered.mappings);
        let position = recovered.position;
        let report = report(
            dry_run,
            position.epoch,
            (position.first_sequence + position.next_page).saturating_sub(1),
            changes.iter().map(|change| (change.lba, self.table.mapping(change.lba), change.to)),
        );
        if dry_run {
            return Ok(report);
        }
        self.state.borrow_mut().allocator.reload(recovered.used(), recovered.bad.iter().copied());
        self.publish(changes);
        committer.forget_doubts();
        committer.log.reposition(position, recovered.log_ok);
        committer.log.found_dirty(recovered.dirty);
        if recovered.unfinished {
            committer.log.require_checkpoint();
        }
        if committer.log.needs_checkpoint()
            && let Err(error) = self.checkpoint(&mut committer).await
        {
            log::warn!("{}: not saved after restoring: {error}", self.name);
        }
        self.log.set(committer.log.view());
        log::info!(
            "{}: restored, {} blocks added, {} removed, {} changed",
            self.name,
            report.added,
            report.removed,
            report.changed
        );
        Ok(report)
    }

    /// The changes that make the table say what `mappings` say.
    fn differences(&self, mappings: &BTreeMap<BaseLba, Mapping>) -> Vec<Change> {
        let mut changes = Vec::new();
        let _ = self.table.visit(self.whole_base(), |lba, held| {
            let to = mappings.get(&lba).copied();
            if to != Some(held) {
                changes.push(Change { lba, to });
            }
            ControlFlow::Continue(())
        });
        let missing = mappings.iter().filter(|(lba, _)| self.table.mapping(**lba).is_none());
        changes.extend(missing.map(|(lba, to)| Change { lba: *lba, to: Some(*to) }));
        changes.sort_by_key(|change| change.lba);
        changes
    }

    /// Erases the superblocks, so that the spare is empty. Afterwards nothing can be committed any more.
    ///
    /// # Errors
    /// [`Error::StillRemapped`] unless `force`; [`Error::Io`], and the set is closed all the same; [`Error::Closed`].
    pub async fn wipe(&self, force: bool) -> Result<(), Error> {
        let committer = self.committer.lock().await;
        if self.closed.get() {
            return Err(Error::Closed);
        }
        let counts = self.state.borrow().writer.counts();
        let blocks = counts.remapped + counts.lost;
        if blocks > 0 && !force {
            return Err(Error::StillRemapped { blocks });
        }
        self.closed.set(true);
        for copy in [Copy::B, Copy::A] {
            let spare = committer.log.spare();
            spare.zero(self.layout.superblock(copy), self.layout.page_blocks()).await?;
            spare.flush().await?;
        }
        log::warn!("{}: superblocks erased, {blocks} blocks were remapped", self.name);
        Ok(())
    }

    /// Does `work` while no commit, checkpoint or restore is under way, and holds them back meanwhile.
    pub async fn while_idle<R>(&self, work: impl Future<Output = R>) -> R {
        let _committer = self.committer.lock().await;
        work.await
    }

    /// All that there is to know about the set, at this moment.
    pub fn status(&self) -> Status {
        let state = self.state.borrow();
        let log = self.log.get();
        let counts = state.writer.counts();
        let (total, free) = (u64::from(state.allocator.total()), u64::from(state.allocator.free_count()));
        let bad = u64::from(state.allocator.bad_count());
        let sound = log.log_ok == [true; 2] && log.superblock_ok == [true; 2] && !log.must_checkpoint;
        let health = |ok: bool| if ok { CopyHealth::Ok } else { CopyHealth::Bad };
        Status {
            state: match (state.storm.tripped(), sound) {
                (true, _) => SetState::Tripped,
                (false, true) => SetState::Online,
                (false, false) => SetState::Degraded,
            },
            uuid: self.set_uuid,
            spare: SpareUsage { total, used: total.saturating_sub(free + bad), free, bad },
            remapped: counts.remapped,
            pending: counts.pending,
            lost: counts.lost,
            epoch: log.epoch,
            sequence: log.sequence,
            metadata: MetadataHealth {
                superblock_a: health(log.superblock_ok[0]),
                superblock_b: health(log.superblock_ok[1]),
                log_a: health(log.log_ok[0]),
                log_b: health(log.log_ok[1]),
            },
            last_save_epoch: log.epoch,
            storm_limit: state.storm.limit(),
            counters: self.counters.snapshot(),
        }
    }

    /// At most `max` extents of what the table holds from `from` on, and where to go on if there is more.
    pub fn list(&self, from: BaseLba, max: usize) -> (Vec<ListedExtent>, Option<BaseLba>) {
        let mut listed: Vec<ListedExtent> = Vec::new();
        let mut go_on = None;
        let rest = Extent::new(from, self.table.base_blocks().saturating_sub(from.0));
        let _ = self.table.visit(rest, |lba, mapping| {
            let next = ListedExtent {
                lba,
                num_blocks: 1,
                spare_lba: mapping.spare().map(|index| self.layout.data(index)),
                state: match mapping {
                    Mapping::Spare(_) => ListedState::Remapped,
                    Mapping::Pending => ListedState::Pending,
                    Mapping::Lost(_) => ListedState::Lost,
                },
            };
            if let Some(last) = listed.last_mut()
                && last.lba.plus(last.num_blocks) == lba
                && last.state == next.state
                && last.spare_lba.map(|spare| spare + last.num_blocks) == next.spare_lba
            {
                last.num_blocks += 1;
            } else if listed.len() >= max {
                go_on = Some(lba);
                return ControlFlow::Break(());
            } else {
                listed.push(next);
            }
            ControlFlow::Continue(())
        });
        (listed, go_on)
    }

    fn whole_base(&self) -> Extent {
        Extent::new(BaseLba(0), self.table.base_blocks())
    }
}

/// Counts what differs: block, what the table has, what the spare has.
fn report(
    dry_run: bool,
    epoch: u64,
    sequence: u64,
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
