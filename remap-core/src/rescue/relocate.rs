//! Relocation: gets the data of blocks to good spare blocks, and their mapping committed.
//!
//! ```text
//! reserve, or replace a bad spare block ──> write ──> commit          each for all blocks of a batch
//!    ^                                        │          │
//!    └────── the spare block is bad, or the block lives elsewhere by now
//! ```

use futures_util::stream::{self, StreamExt};

use super::parts::Part;
use super::{At, Errors, Failed, HostIo, Rescue};
use crate::owner::{Committed, Move, Owner, Refused, Target};
use crate::slot::SpareBlock;
use crate::status::IoStatus;

/// How often a block may turn out to be elsewhere, or its new spare block to be bad, before the rescue gives up.
const ROUNDS: usize = 16;
/// Bad spare blocks that are replaced at one time.
const REPLACED_AT_ONCE: usize = 8;

impl Failed {
    /// The spare block on which it failed.
    pub(super) fn bad_spare(&self) -> Option<SpareBlock> {
        match self.part.at {
            Some(At::Spare(at)) => Some(at),
            Some(At::Base(_)) | None => None,
        }
    }

    /// The same block, to be relocated anew: from a bad spare block, or to where it may live by now.
    fn again(self, at: Option<At>) -> Failed {
        Failed { part: Part { at, ..self.part }, ..self }
    }
}

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    /// Gets the data of each of `blocks` to a good spare block, with as many reservations and commits as there are rounds:
    /// one, unless a spare block is bad or a block is relocated by somebody else at the same time. What failed on the spare
    /// gets another spare block. Returns how many blocks were moved.
    pub(super) async fn relocate(&self, blocks: Vec<Failed>, errors: &mut Errors) -> u64 {
        let mut moved = 0;
        let mut open = blocks;
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return moved;
            }
            if self.io.is_given_up() {
                open.iter_mut().for_each(|failed| failed.status = IoStatus::Aborted);
                break;
            }
            let targets = self.targets(open, errors).await;
            let (written, mut again) = self.write_targets(targets, errors).await;
            let (done, elsewhere) = self.commit(written, errors).await;
            moved += done;
            again.extend(elsewhere);
            open = again;
        }
        // Those that turned out to be bad are not replaced any more.
        let bad: Vec<_> = open.iter().filter_map(Failed::bad_spare).collect();
        if !bad.is_empty() {
            self.owner.condemn(bad).await;
        }
        open.into_iter().for_each(|failed| errors.add(failed));
        moved
    }

    /// Where each block is to be written. What is refused goes to `errors`, with the error that the block had.
    async fn targets(&self, open: Vec<Failed>, errors: &mut Errors) -> Vec<(Failed, Target)> {
        let (on_spare, fresh): (Vec<_>, Vec<_>) = open.into_iter().partition(|failed| failed.bad_spare().is_some());
        let mut targets = Vec::with_capacity(on_spare.len() + fresh.len());
        let replaced = on_spare.into_iter().filter_map(|failed| {
            let bad = failed.bad_spare()?;
            Some(async move { (failed, self.owner.replace(self.block(failed.part.offset), bad).await) })
        });
        let mut replaced = stream::iter(replaced).buffered(REPLACED_AT_ONCE);
        while let Some((failed, answer)) = replaced.next().await {
            match answer {
                Ok(target) => targets.push((failed, target)),
                Err(refused) => self.refuse(refused, failed, errors),
            }
        }
        if !fresh.is_empty() {
            let blocks = fresh.iter().map(|failed| self.block(failed.part.offset)).collect();
            match self.owner.reserve(blocks).await {
                Ok(places) if places.len() == fresh.len() => targets.extend(fresh.into_iter().zip(places)),
                // An owner that does not answer for each block cannot be relied on.
                Ok(_) => fresh.into_iter().for_each(|failed| self.refuse(Refused::Closed, failed, errors)),
                Err(refused) => fresh.into_iter().for_each(|failed| self.refuse(refused, failed, errors)),
            }
        }
        targets.sort_unstable_by_key(|(failed, _)| failed.part.offset);
        targets
    }

    /// Writes each block to its target. Returns what is to be committed, and what found its spare block bad.
    async fn write_targets(
        &self,
        targets: Vec<(Failed, Target)>,
        errors: &mut Errors,
    ) -> (Vec<(Failed, Move)>, Vec<Failed>) {
        let broken = self.work_off(&mut runs(&targets), targets.len()).await;
        let given_up = self.io.is_given_up();
        let (mut written, mut again, mut release) = (Vec::new(), Vec::new(), Vec::new());
        for (failed, target) in targets {
            let (offset, to) = (failed.part.offset, target.spare());
            let index = broken.partition_point(|broken| broken.part.offset + broken.part.blocks <= offset);
            match (broken.get(index).filter(|broken| broken.part.offset <= offset), target) {
                (None, target) if given_up => {
                    errors.add(Failed { status: IoStatus::Aborted, ..failed });
                    if matches!(target, Target::New(_)) {
                        release.push(to);
                    }
                }
                (None, Target::New(_) | Target::Fill(_)) => {
                    written.push((failed, Move { lba: self.block(offset), to }));
                }
                (None, Target::Existing(_)) => {}
                (Some(broken), _) if self.is_media(broken.status) => again.push(failed.again(Some(At::Spare(to)))),
                (Some(broken), target) => {
                    errors.add(*broken);
                    if matches!(target, Target::New(_)) {
                        release.push(to);
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
    async fn commit(&self, written: Vec<(Failed, Move)>, errors: &mut Errors) -> (u64, Vec<Failed>) {
        if written.is_empty() {
            return (0, Vec::new());
        }
        match self.owner.commit(written.iter().map(|(_, one)| *one).collect()).await {
            Ok(answers) if answers.len() == written.len() => {
                let elsewhere: Vec<_> = written
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| matches!(answer, Committed::Elsewhere(_)))
                    .map(|((failed, _), _)| failed.again(None))
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
}

/// The targets as parts, the last one first: consecutive blocks that go to consecutive spare blocks are one.
fn runs(targets: &[(Failed, Target)]) -> Vec<Part> {
    let mut runs: Vec<Part> = Vec::new();
    for (failed, target) in targets {
        let (offset, at) = (failed.part.offset, At::Spare(target.spare()));
        match runs.last_mut() {
            Some(run) if run.offset + run.blocks == offset && run.at.and_then(|to| to.plus(run.blocks)) == Some(at) => {
                run.blocks += 1;
            }
            _ => runs.push(Part { offset, blocks: 1, at: Some(at) }),
        }
    }
    runs.reverse();
    runs
}
