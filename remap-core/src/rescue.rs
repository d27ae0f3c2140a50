//! The rescue of a host's I/O: after a media error, or of a write that touches pending or lost blocks.
//!
//! Runs on the thread of the I/O, which is held meanwhile. It does the whole I/O again, slowly: block by block where it
//! asks the base, so that only blocks that fail are relocated. What may change the mapping it asks of the [`Owner`], and
//! it looks the range up again whenever that may have changed. It holds no lock, and waits for no other I/O.

use std::future::Future;

use futures_util::stream::{self, StreamExt};

use crate::counters::{Counter, Counters};
use crate::owner::{Committed, Move, Owner, Refused, Target};
use crate::status::{IoStatus, RemapOn};
use crate::table::{Place, Segment, Table};
use crate::units::{BaseLba, Extent, SpareIndex};

/// Single-block I/Os that are under way at one time, of one rescue.
const IN_FLIGHT: usize = 8;
/// How often a block may turn out to be elsewhere, or its new spare block to be bad, before the rescue gives up.
const ROUNDS: usize = 16;

/// What the host asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOp {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A write of zeroes, without data.
    WriteZeroes,
}

/// Where a part of a host's I/O goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// To the base, from this block on.
    Base(BaseLba),
    /// To the spare, from this block on.
    Spare(SpareIndex),
}

/// A host's I/O that is held while it is rescued.
pub trait HostIo {
    /// What the host asked for.
    fn op(&self) -> HostOp;

    /// The blocks that it asked for.
    fn range(&self) -> Extent;

    /// Does the host's operation for `blocks` blocks, those `offset` blocks into the I/O, at `at` and on. Several may be
    /// under way at one time, for different blocks.
    fn issue(&self, offset: u64, blocks: u64, at: At) -> impl Future<Output = Result<(), IoStatus>>;
}

/// Does the whole of `io` again, relocating what has to be; the result is the host's.
///
/// # Errors
/// Of the blocks that failed for good, the error of the first one.
pub async fn rescue<H: HostIo, O: Owner>(
    io: &H,
    table: &Table,
    owner: &O,
    on: RemapOn,
    counters: &Counters,
) -> Result<(), IoStatus> {
    let rescue = Rescue { io, table, owner, on, counters };
    match io.op() {
        HostOp::Read => rescue.read().await,
        HostOp::Write | HostOp::WriteZeroes => rescue.write().await,
    }
}

/// A part of the I/O that failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    /// In blocks from the start of the I/O.
    offset: u64,
    status: IoStatus,
}

/// The errors of an I/O: what the host gets is that of the first block.
#[derive(Default)]
struct Errors(Option<Failed>);

impl Errors {
    fn add(&mut self, failed: Failed) {
        if self.0.is_none_or(|first| failed.offset < first.offset) {
            self.0 = Some(failed);
        }
    }

    fn into_result(self) -> Result<(), IoStatus> {
        self.0.map_or(Ok(()), |failed| Err(failed.status))
    }
}

struct Rescue<'a, H, O> {
    io: &'a H,
    table: &'a Table,
    owner: &'a O,
    on: RemapOn,
    counters: &'a Counters,
}

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    async fn read(&self) -> Result<(), IoStatus> {
        let mut errors = Errors::default();
        let mut unreadable = Vec::new();
        for segment in self.segments() {
            match segment.place {
                Place::Base(_) | Place::Pending(_) => {
                    for failed in self.one_by_one(segment).await {
                        let block = self.block(failed.offset);
                        if !self.is_media(failed) {
                            errors.add(failed);
                        } else if self.table.lookup(block) != Place::Base(block) {
                            // Pending already, or it has moved since: then it can be read from there.
                            if let Err(status) = self.read_elsewhere(failed).await {
                                errors.add(Failed { status, ..failed });
                            }
                        } else {
                            unreadable.push(block);
                            errors.add(failed);
                        }
                    }
                }
                Place::Spare(at) => {
                    if let Err(status) = self.issue(segment.offset, segment.blocks, At::Spare(at)).await {
                        errors.add(Failed { offset: segment.offset, status });
                    }
                }
                Place::Lost(_) => errors.add(Failed { offset: segment.offset, status: IoStatus::UNRECOVERED_READ }),
            }
        }
        if !unreadable.is_empty()
            && let Err(refused) = self.owner.set_pending(unreadable).await
        {
            self.counters.refused(refused);
        }
        let result = errors.into_result();
        match result {
            Ok(()) => self.counters.retried_reads.add(1),
            Err(status) if status.is_media_error(self.on) => self.counters.failed_reads.add(1),
            Err(_) => {}
        }
        result
    }

    /// Reads a block that failed on the base from where it lives now, if it has moved.
    async fn read_elsewhere(&self, failed: Failed) -> Result<(), IoStatus> {
        match self.table.lookup(self.block(failed.offset)) {
            Place::Spare(at) => self.issue(failed.offset, 1, At::Spare(at)).await,
            Place::Lost(_) => Err(IoStatus::UNRECOVERED_READ),
            Place::Base(_) | Place::Pending(_) => Err(failed.status),
        }
    }

    async fn write(&self) -> Result<(), IoStatus> {
        let mut errors = Errors::default();
        let mut relocate = Vec::new();
        for segment in self.segments() {
            match segment.place {
                Place::Base(_) => {
                    for failed in self.one_by_one(segment).await {
                        if self.is_media(failed) { relocate.push((failed, None)) } else { errors.add(failed) }
                    }
                }
                // Nothing is tried on the base, and a lost block is filled: the owner knows which.
                Place::Pending(_) | Place::Lost(_) => {
                    let blocks = segment.offset..segment.offset + segment.blocks;
                    relocate.extend(blocks.map(|offset| (Failed { offset, status: IoStatus::WRITE_FAULT }, None)));
                }
                Place::Spare(at) => {
                    let run = Run { offset: segment.offset, at, blocks: segment.blocks };
                    for (failed, bad) in self.write_run(run).await {
                        if self.is_media(failed) { relocate.push((failed, Some(bad))) } else { errors.add(failed) }
                    }
                }
            }
        }
        let moved = if relocate.is_empty() { 0 } else { self.relocate(relocate, &mut errors).await };
        let result = errors.into_result();
        self.counters.rescued_blocks.add(moved);
        match result {
            Ok(()) if moved > 0 => self.counters.rescued_writes.add(1),
            Ok(()) => {}
            Err(_) => self.counters.failed_writes.add(1),
        }
        result
    }

    /// Gets the data of each block to a good spare block, with as many reservations and commits as there are rounds:
    /// one, unless a spare block is bad or a block is relocated by somebody else at the same time. A block may come with
    /// the spare block that was found bad. Returns how many blocks were moved.
    async fn relocate(&self, blocks: Vec<(Failed, Option<SpareIndex>)>, errors: &mut Errors) -> u64 {
        let mut moved = 0;
        let mut open = blocks;
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return moved;
            }
            let targets = self.targets(&mut open, errors).await;
            let (written, mut again) = self.write_targets(targets, errors).await;
            let (done, elsewhere) = self.commit(written, errors).await;
            moved += done;
            again.extend(elsewhere);
            open = again;
        }
        for (failed, bad) in open {
            // A reservation that turned out bad is still ours.
            self.owner.release(bad.into_iter().collect()).await;
            errors.add(failed);
        }
        moved
    }

    /// Where each block is to be written. What is refused goes to `errors`, with the error that the block had.
    async fn targets(
        &self,
        open: &mut Vec<(Failed, Option<SpareIndex>)>,
        errors: &mut Errors,
    ) -> Vec<(Failed, Target)> {
        let mut targets = Vec::new();
        let mut fresh = Vec::new();
        for (failed, bad) in open.drain(..) {
            let Some(bad) = bad else {
                fresh.push(failed);
                continue;
            };
            match self.owner.replace(self.block(failed.offset), bad).await {
                Ok(target) => targets.push((failed, target)),
                Err(refused) => self.refuse(refused, failed, errors),
            }
        }
        if !fresh.is_empty() {
            let blocks = fresh.iter().map(|failed| self.block(failed.offset)).collect();
            match self.owner.reserve(blocks).await {
                Ok(places) if places.len() == fresh.len() => targets.extend(fresh.into_iter().zip(places)),
                // An owner that does not answer for each block cannot be relied on.
                Ok(_) => fresh.into_iter().for_each(|failed| self.refuse(Refused::Closed, failed, errors)),
                Err(refused) => fresh.into_iter().for_each(|failed| self.refuse(refused, failed, errors)),
            }
        }
        targets.sort_by_key(|(failed, _)| failed.offset);
        targets
    }

    /// Writes each block to its target. Returns what is to be committed, and what found its spare block bad.
    async fn write_targets(
        &self,
        targets: Vec<(Failed, Target)>,
        errors: &mut Errors,
    ) -> (Vec<(Failed, Move)>, Vec<(Failed, Option<SpareIndex>)>) {
        let place = |target: &Target| match target {
            Target::New(at) | Target::Existing(at) | Target::Fill(at) => *at,
        };
        let mut broken = Vec::new();
        for run in runs(targets.iter().map(|(failed, target)| (failed.offset, place(target)))) {
            broken.extend(self.write_run(run).await);
        }
        let (mut written, mut again, mut release) = (Vec::new(), Vec::new(), Vec::new());
        for (failed, target) in targets {
            let at = place(&target);
            match (broken.iter().find(|(broken, _)| broken.offset == failed.offset), target) {
                (None, Target::New(to) | Target::Fill(to)) => {
                    written.push((failed, Move { lba: self.block(failed.offset), to }));
                }
                (None, Target::Existing(_)) => {}
                (Some((broken, _)), _) if self.is_media(*broken) => again.push((failed, Some(at))),
                (Some((broken, _)), target) => {
                    errors.add(*broken);
                    if matches!(target, Target::New(_)) {
                        release.push(at);
                    }
                }
            }
        }
        if !release.is_empty() {
            self.owner.release(release).await;
        }
        (written, again)
    }

    /// Commits what was written. Returns how many blocks were moved, and which have to be written elsewhere.
    async fn commit(
        &self,
        written: Vec<(Failed, Move)>,
        errors: &mut Errors,
    ) -> (u64, Vec<(Failed, Option<SpareIndex>)>) {
        if written.is_empty() {
            return (0, Vec::new());
        }
        match self.owner.commit(written.iter().map(|(_, one)| *one).collect()).await {
            Ok(answers) if answers.len() == written.len() => {
                let elsewhere: Vec<_> = written
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| matches!(answer, Committed::Elsewhere(_)))
                    .map(|((failed, _), _)| (*failed, None))
                    .collect();
                ((written.len() - elsewhere.len()) as u64, elsewhere)
            }
            answer => {
                // An owner that does not answer for each block cannot be relied on.
                let refused = answer.err().unwrap_or(Refused::Closed);
                written.into_iter().for_each(|(failed, _)| self.refuse(refused, failed, errors));
                (0, Vec::new())
            }
        }
    }

    /// Writes a run of blocks to the spare: at once, and block by block if that fails with a media error. Returns what
    /// failed, each with its spare block.
    async fn write_run(&self, run: Run) -> Vec<(Failed, SpareIndex)> {
        match self.issue(run.offset, run.blocks, At::Spare(run.at)).await {
            Ok(()) => Vec::new(),
            Err(status) if run.blocks > 1 && status.is_media_error(self.on) => {
                let segment = Segment { place: Place::Spare(run.at), offset: run.offset, blocks: run.blocks };
                let failed = self.one_by_one(segment).await;
                failed
                    .into_iter()
                    .filter_map(|failed| Some((failed, run.at.plus(failed.offset - run.offset)?)))
                    .collect()
            }
            // The whole run failed, and with it each of its blocks.
            Err(status) => (0..run.blocks)
                .filter_map(|i| Some((Failed { offset: run.offset + i, status }, run.at.plus(i)?)))
                .collect(),
        }
    }

    /// Issues each block of the segment, a few at a time; returns those that failed, in order.
    async fn one_by_one(&self, segment: Segment) -> Vec<Failed> {
        let attempts = (0..segment.blocks).filter_map(|i| {
            let at = match segment.place.plus(i)? {
                Place::Base(lba) | Place::Pending(lba) => At::Base(lba),
                Place::Spare(index) | Place::Lost(index) => At::Spare(index),
            };
            let offset = segment.offset + i;
            Some(async move { self.issue(offset, 1, at).await.err().map(|status| Failed { offset, status }) })
        });
        stream::iter(attempts).buffered(IN_FLIGHT).filter_map(std::future::ready).collect().await
    }

    /// Issues a part of the I/O, and counts its media error, unless it will be tried again block by block.
    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let result = self.io.issue(offset, blocks, at).await;
        if (blocks == 1 || self.io.op() == HostOp::Read) && result.is_err_and(|status| status.is_media_error(self.on)) {
            self.media_errors().add(1);
            if matches!(at, At::Spare(_)) {
                self.counters.media_errors_spare.add(1);
            }
        }
        result
    }

    fn media_errors(&self) -> &Counter {
        match self.io.op() {
            HostOp::Read => &self.counters.media_errors_read,
            HostOp::Write => &self.counters.media_errors_write,
            HostOp::WriteZeroes => &self.counters.media_errors_write_zeroes,
        }
    }

    fn refuse(&self, refused: Refused, failed: Failed, errors: &mut Errors) {
        self.counters.refused(refused);
        errors.add(failed);
    }

    fn is_media(&self, failed: Failed) -> bool {
        failed.status.is_media_error(self.on)
    }

    fn block(&self, offset: u64) -> BaseLba {
        self.io.range().lba.plus(offset)
    }

    /// The range as the table has it now.
    fn segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        self.table.for_each_segment(self.io.range(), |segment| segments.push(segment));
        segments
    }
}

/// Consecutive blocks of the I/O that go to consecutive spare blocks.
#[derive(Clone, Copy)]
struct Run {
    offset: u64,
    at: SpareIndex,
    blocks: u64,
}

/// Joins blocks, each with its spare block, to runs.
fn runs(blocks: impl Iterator<Item = (u64, SpareIndex)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (offset, at) in blocks {
        match runs.last_mut() {
            Some(run) if run.offset + run.blocks == offset && run.at.plus(run.blocks) == Some(at) => run.blocks += 1,
            _ => runs.push(Run { offset, at, blocks: 1 }),
        }
    }
    runs
}
