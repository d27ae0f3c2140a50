//! Blocks that change their place without a host's write, under the range lock: relocated before they fail, or given back to
//! the base.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::join_all;
use remap_core::format::ScrubPosition;
use remap_core::{
    At, BaseLba, Device, Error, Extent, IoStatus, Job, JobKind, JobOutcome, Move, Owner, Place, Ranges, RemapOn,
    SpareLba, Stopped, Target,
};

use super::faults::{Fault, Verb};
use super::hosts::Process;

/// Records in a page of 4096 bytes.
const PAGE: usize = 251;
/// Blocks that are few.
const FEW: u64 = 64;
/// Pages of a checkpoint that are written at once.
const PAGES_AT_ONCE: usize = 32;

impl Process {
    /// Gives the remapped blocks of the range back to the base.
    pub(crate) async fn remove(&self, range: Extent) {
        let _running = self.quiesce.enter().await;
        let (engine, base, on) = (Rc::clone(&self.vbdev.engine), self.vbdev.base.clone(), self.vbdev.remap_on);
        let removed = Rc::new(Cell::new(0));
        let told = Rc::clone(&removed);
        let outcome = self.job(JobKind::Remove, move |job| async move {
            let report = engine.remove(&base, range, on, &job).await?;
            told.set(report.removed);
            Ok(())
        });
        self.judge("remove", range, outcome.await);
        if removed.get() > 0 {
            self.world.count("event: given back to the base");
        }
    }

    /// Relocates the blocks of the range.
    async fn add(&self, range: Extent) {
        let (engine, base, on) = (Rc::clone(&self.vbdev.engine), self.vbdev.base.clone(), self.vbdev.remap_on);
        let added = Rc::new(Cell::new(0));
        let told = Rc::clone(&added);
        let outcome = self.job(JobKind::Add, move |job| async move {
            let report = engine.add(&base, range, on, &job).await?;
            told.set(report.added);
            Ok(())
        });
        self.judge("add", range, outcome.await);
        if added.get() > 0 {
            self.world.count("event: relocated by an operator");
        }
    }

    /// Takes over a list: every second block of the range, the last one twice.
    async fn import_list(&self, range: Extent) {
        let (engine, base, on) = (Rc::clone(&self.vbdev.engine), self.vbdev.base.clone(), self.vbdev.remap_on);
        let listed = (range.lba.0..range.end().0).step_by(2).chain([range.end().0 - 1]);
        let blocks = Ranges::new(listed.map(|lba| Extent::new(BaseLba(lba), 1)).collect());
        let added = Rc::new(Cell::new(0));
        let told = Rc::clone(&added);
        let outcome = self.job(JobKind::Import, move |job| async move {
            let report = engine.import(&base, &blocks, on, &job).await?;
            told.set(report.added);
            Ok(())
        });
        self.judge("import", range, outcome.await);
        if added.get() > 0 {
            self.world.count("event: a list taken over");
        }
    }

    /// Scrubs the blocks of the range, and the metadata, as fast as that goes.
    pub(crate) async fn scrub(&self, range: Extent) {
        let _running = self.quiesce.enter().await;
        self.run_scrub(ScrubPosition { next: range.lba, end: range.end(), max_mbps: u32::MAX }).await;
    }

    /// Goes on with a scrub that the last process did not end, if there is one.
    pub(crate) async fn resume_scrub(&self) {
        if let Some(left) = self.vbdev.engine.unfinished_scrub() {
            self.world.count("event: scrub gone on with");
            let _running = self.quiesce.enter().await;
            self.run_scrub(left).await;
        }
    }

    async fn run_scrub(&self, plan: ScrubPosition) {
        let (engine, scrubs) = (&self.vbdev.engine, &self.world.scrubs);
        let range = Extent::new(plan.next, plan.end.0 - plan.next.0);
        let begun = match engine.begin_scrub(self.vbdev.base.clone(), plan, self.vbdev.remap_on) {
            Ok(begun) => begun,
            Err(error) => return self.judge("scrub", range, Err(error.into())),
        };
        scrubs.set(true);
        let outcome = begun.join().await;
        scrubs.set(false);
        self.judge("scrub", range, outcome);
        let last = engine.jobs().status().into_iter().find_map(|job| job.scrub).unwrap_or_default();
        for (found, what) in [
            (last.unreadable, "event: unreadable blocks found by a scrub"),
            (last.rescued, "event: rescued by a scrub"),
            (last.metadata_bad, "event: bad metadata found by a scrub"),
        ] {
            if found > 0 {
                self.world.count(what);
            }
        }
    }

    /// Runs a job to its end.
    async fn job<F: Future<Output = JobOutcome> + 'static>(
        &self,
        kind: JobKind,
        work: impl FnOnce(Job) -> F,
    ) -> Result<(), Stopped> {
        self.vbdev.engine.jobs().begin(kind, work)?.join().await
    }

    /// A job may fail only for a reason.
    fn judge(&self, what: &str, range: Extent, outcome: JobOutcome) {
        self.world.note(|| format!("{what} of {range:?}: {outcome:?}"));
        match reason(outcome) {
            Ok(()) | Err(Stopped::Cancelled) => {}
            Err(Stopped::Failed(
                Error::JobRuns { .. }
                | Error::BaseIo { .. }
                | Error::NoSpare
                | Error::NotEnoughSpare { .. }
                | Error::Tripped
                | Error::Closed
                | Error::TooManyUnreadable { .. },
            )) => {}
            // A reset came between.
            Err(Stopped::Failed(Error::Io { status: IoStatus::Aborted, .. })) => {}
            // As of a host's write, after many attempts.
            Err(Stopped::Failed(Error::Io { what: "write", lba, status }))
                if status.is_media_error(RemapOn::Any) && self.spare_fails_writes(lba) => {}
            Err(_) if self.log_may_fail() => {}
            Err(why) => self.world.fail(|| format!("{what} failed for no reason: {why}")),
        }
    }

    fn spare_fails_writes(&self, lba: SpareLba) -> bool {
        let fails = |fault: &Fault| fault.verb == Verb::Write && (fault.first..fault.end).contains(&lba.0);
        self.world.spare.faults(|faults| faults.any(fails))
    }

    /// Relocates a few blocks as an operator does, by range or, where that begins at an odd block, by list; or, of many, every
    /// second one that is in its own place and can be read, in one commit.
    pub(crate) async fn import(&self, range: Extent) {
        let _running = self.quiesce.enter().await;
        match range.blocks {
            0..=FEW if range.lba.0 % 2 == 1 => self.import_list(range).await,
            0..=FEW => self.add(range).await,
            _ => self.vbdev.engine.with_range_locked(range, self.relocate(range)).await,
        }
    }

    async fn relocate(&self, range: Extent) {
        let (vbdev, world) = (&self.vbdev, &self.world);
        let mut found = Vec::new();
        for lba in (range.lba.0..range.end().0).step_by(2) {
            if matches!(vbdev.engine.table().lookup(BaseLba(lba)), Place::Base(_)) {
                found.push(lba);
            }
        }
        let Ok(targets) = vbdev.engine.reserve(found.iter().copied().map(BaseLba).collect()).await else { return };
        let (mut moves, mut unused) = (Vec::new(), Vec::new());
        for chunk in found.iter().copied().zip(targets).collect::<Vec<_>>().chunks(64) {
            let copies = self.read_base(chunk.iter().map(|(lba, _)| *lba).collect()).await;
            for ((lba, target), data) in chunk.iter().zip(copies) {
                let Target::New(to) = *target else { continue };
                let copied = match data {
                    // What could not be read is not moved.
                    None => false,
                    Some(data) => {
                        let Some((spare, at)) = vbdev.reach(At::Spare(to)) else { return };
                        // A spare block that never held anything holds zeros.
                        let fresh = data.iter().all(|byte| *byte == 0) && spare.is_zero(at);
                        fresh || spare.write(at, data).await.1.is_ok()
                    }
                };
                if copied { moves.push(Move { lba: BaseLba(*lba), to }) } else { unused.push(to) }
            }
        }
        vbdev.engine.release(unused).await;
        let count = moves.len();
        let committed = vbdev.engine.commit(moves).await;
        world.note(|| format!("import of {count} blocks of {range:?}: {:?}", committed.as_ref().map(Vec::len)));
        match committed {
            Ok(_) if count > PAGE => {
                world.count("event: several pages in a batch");
                if count > PAGES_AT_ONCE * PAGE {
                    world.count("event: several chunks in a checkpoint");
                }
            }
            Ok(_) => {}
            Err(_) if self.log_may_fail() => {}
            Err(refused) => world.fail(|| format!("blocks were not relocated for no reason: {refused}")),
        }
    }

    /// The data of these blocks of the base: read at once, and one by one if that fails.
    async fn read_base(&self, blocks: Vec<u64>) -> Vec<Option<Vec<u8>>> {
        let (base, size) = (&self.vbdev.base, self.world.block_size());
        let Some((first, last)) = blocks.first().copied().zip(blocks.last().copied()) else { return Vec::new() };
        let (data, read) = base.read(first, vec![0; (last + 1 - first) as usize * size]).await;
        if read.is_ok() {
            return blocks.iter().map(|lba| Some(data[(lba - first) as usize * size..][..size].to_vec())).collect();
        }
        join_all(blocks.iter().map(|lba| async {
            let (data, read) = base.read(*lba, vec![0; size]).await;
            read.ok().map(|()| data)
        }))
        .await
    }
}

/// What became of a job, without how much of it was done.
pub(crate) fn reason(outcome: JobOutcome) -> JobOutcome {
    match outcome {
        Err(Stopped::Failed(Error::Partly { why, .. })) => Err(Stopped::Failed(*why)),
        outcome => outcome,
    }
}
