//! What moves blocks of which no host's I/O has failed: the same parts and the same relocation, for blocks that a job names.
//! Hosts do not change the blocks meanwhile.

use super::parts::Part;
use super::{At, Errors, Failed, HostIo, Rescue};
use crate::owner::{Owner, Refused};
use crate::slot::SpareBlock;
use crate::status::IoStatus;

/// Blocks with which a thing is to be done, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// In blocks from the start of the I/O.
    pub offset: u64,
    /// Length in blocks.
    pub blocks: u64,
    /// Where the first one is; the others follow one by one.
    pub at: At,
}

/// A block with which it could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) offset: u64,
    pub(crate) status: IoStatus,
}

/// Appends a block to runs, or to the last of them.
pub(crate) fn add_block(runs: &mut Vec<Run>, offset: u64, at: At) {
    match runs.last_mut() {
        Some(run) if run.offset + run.blocks == offset && run.at.plus(run.blocks) == Some(at) => run.blocks += 1,
        _ => runs.push(Run { offset, blocks: 1, at }),
    }
}

/// Why a block was not relocated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotRelocated {
    /// The owner does not.
    Refused(Refused),
    /// No spare block could be written: the last that was tried, if any was.
    Failed(Option<SpareBlock>, IoStatus),
}

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    /// Does the I/O for `runs`. Which blocks failed, or may have, ascending.
    pub(crate) async fn do_runs(&self, runs: &[Run]) -> Vec<Missed> {
        let part = |run: &Run| Part { offset: run.offset, blocks: run.blocks, at: Some(run.at) };
        let mut todo: Vec<_> = runs.iter().rev().map(part).collect();
        let failed = self.work_off(&mut todo, usize::MAX).await;
        let blocks = |Failed { part, status }: Failed| {
            (part.offset..part.offset + part.blocks).map(move |offset| Missed { offset, status })
        };
        failed.into_iter().flat_map(blocks).collect()
    }

    /// Relocates blocks whose data the I/O has; the answer is why some of them were not.
    pub(crate) async fn relocate_blocks(&self, offsets: impl Iterator<Item = u64>) -> Option<NotRelocated> {
        let mut errors = Errors::default();
        let unmoved =
            offsets.map(|offset| Failed { part: Part::block(offset), status: IoStatus::WRITE_FAULT }).collect();
        self.relocate(unmoved, &mut errors).await;
        match errors {
            Errors { refused: Some(refused), .. } => Some(NotRelocated::Refused(refused)),
            Errors { first: Some(failed), .. } => Some(NotRelocated::Failed(failed.bad_spare(), failed.status)),
            Errors { .. } => None,
        }
    }
}
