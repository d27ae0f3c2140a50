//! Blocks that are given back to the base because an operator asks for it, in windows, each under the range lock, so that a host's
//! write waits for one window at most; and what all have in hand who move blocks.

use std::cell::RefCell;
use std::ops::ControlFlow;

use serde::Serialize;

use super::owner::Operator;
use super::{DataOf, Engine};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::jobs::{Job, Stopped};
use crate::owner::{Owner, Refused};
use crate::rescue::moves::{Missed, Run, add_block};
use crate::rescue::{HostIo, HostOp, Rescue};
use crate::route::At;
use crate::slot::PerSlot;
use crate::spare::Patience;
use crate::status::{IoStatus, RemapOn};
use crate::table::Place;
use crate::units::{BaseLba, Extent};

/// Bytes of a window.
const WINDOW_BYTES: u64 = 1 << 20;
/// Blocks of a window, where they are small: what is done with all of them at once does not hold the thread for long.
const WINDOW_BLOCKS: u64 = 256;
/// I/Os that are under way at one time.
const IN_FLIGHT: usize = 32;
/// Extents that a removal names, at most.
const NAMED: usize = 1024;

/// What giving back a range came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemoveReport {
    /// Blocks that live on the base again.
    pub removed: u64,
    /// Blocks that stay on the spare, as the base or the spare failed.
    pub kept: u64,
    /// The first of those, at most 1,024 extents.
    pub kept_extents: Vec<Extent>,
}

impl RemoveReport {
    fn keep(&mut self, lba: BaseLba) {
        self.kept += 1;
        if let Some(last) = self.kept_extents.last_mut().filter(|last| last.end() == lba) {
            last.blocks += 1;
        } else if self.kept_extents.len() < NAMED {
            self.kept_extents.push(Extent::new(lba, 1));
        }
    }
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Gives the remapped blocks of `range` back to the base: their data is copied there, made durable, and read again; then their
    /// spare blocks are free. What the base or the spare fails stays where it is.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`]; [`Error::LogFailed`], [`Error::BaseIo`]. What was given back by then stays so.
    pub async fn remove<B: Device>(
        &self,
        base: &B,
        range: Extent,
        on: RemapOn,
        job: &Job,
    ) -> Result<RemoveReport, Stopped> {
        let mut report = RemoveReport::default();
        job.set_total(range.blocks);
        let mut next = range.lba;
        while let Some((first, _)) = self.shared.table.first_in(Extent::new(next, range.end().0 - next.0)) {
            job.go_on()?;
            job.advance(first.0 - next.0);
            let Some(window) = self.windows(Extent::new(first, range.end().0 - first.0)).next() else { break };
            let mut patience = Patience::new(&*self.shared.env, IoStatus::is_given_up);
            loop {
                let removed = self.with_range_locked(window, self.remove_window(base, window, on, job, &mut report));
                match removed.await {
                    // A reset has ended the FLUSH: what was written before it is not relied on, either.
                    Err(Stopped::Failed(Error::BaseIo { status, .. })) if patience.again(status).await => {
                        job.go_on()?
                    }
                    outcome => break outcome?,
                }
            }
            job.advance(window.blocks);
            next = window.end();
        }
        job.advance(range.end().0 - next.0);
        Ok(report)
    }

    async fn remove_window<B: Device>(
        &self,
        base: &B,
        window: Extent,
        on: RemapOn,
        job: &Job,
        report: &mut RemoveReport,
    ) -> Result<(), Stopped> {
        let (mut blocks, mut there, mut here) = (Vec::new(), Vec::new(), Vec::new());
        let _ = self.shared.table.visit(window, |lba, mapping| {
            if let Place::Spare(block) = Place::new(lba, mapping) {
                add_block(&mut there, blocks.len() as u64, At::Spare(block));
                add_block(&mut here, blocks.len() as u64, At::Base(lba));
                blocks.push(lba);
            }
            ControlFlow::<()>::Continue(())
        });
        if there.is_empty() {
            return Ok(());
        }
        let hand = self.hand(Some(base), blocks.clone(), job);
        // What fails in any way, at any step, is kept.
        let mut kept = self.moving(&hand.io(HostOp::Read), &Operator(self), on).do_runs(&there).await;
        kept.extend(self.moving(&hand.io(HostOp::Write), &Operator(self), on).do_runs(&without(&here, &kept)).await);
        kept.sort_unstable_by_key(|missed| missed.offset);
        job.go_on()?;
        let flushed = base.flush().await;
        flushed.map_err(|status| Error::BaseIo { what: "flush", lba: window.lba, status })?;
        let copy = self.hand(Some(base), blocks, job);
        let written = without(&here, &kept);
        kept.extend(self.moving(&copy.io(HostOp::Read), &Operator(self), on).do_runs(&written).await);
        kept.sort_unstable_by_key(|missed| missed.offset);
        job.go_on()?;
        let size = hand.block_size;
        let same = |offset: u64| {
            let bytes = offset as usize * size..(offset as usize + 1) * size;
            hand.data.borrow()[bytes.clone()] == copy.data.borrow()[bytes]
        };
        let (good, bad): (Vec<_>, Vec<_>) =
            blocks_of(&here).partition(|offset| !is_among(&kept, *offset) && same(*offset));
        bad.into_iter().for_each(|offset| report.keep(hand.block(offset)));
        if !good.is_empty() {
            let good: Vec<_> = good.into_iter().map(|offset| hand.block(offset)).collect();
            let count = good.len() as u64;
            self.clear(good).await.map_err(Error::from)?;
            report.removed += count;
        }
        Ok(())
    }

    /// The range in windows.
    pub(super) fn windows(&self, range: Extent) -> impl Iterator<Item = Extent> + use<D, E> {
        let step = window_blocks(self.layout().block_size);
        let starts = (range.lba.0..range.end().0).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        starts.map(move |lba| Extent::new(BaseLba(lba), step.min(range.end().0 - lba)))
    }

    /// Room for the data of these blocks.
    pub(super) fn hand<'a, B: Device>(
        &'a self,
        base: Option<&'a B>,
        blocks: Vec<BaseLba>,
        job: &'a Job,
    ) -> Hand<'a, B, D> {
        let block_size = self.layout().block_size as usize;
        Hand {
            block_size,
            data: RefCell::new(vec![0; blocks.len() * block_size]),
            blocks,
            base,
            spares: self.spares.borrow().clone(),
            job,
        }
    }

    /// Reads runs into the hand: which blocks of them could not be read. Another error than one of the medium says nothing of a block; what
    /// may pass, as after a reset, is tried again for a while.
    pub(super) async fn read_in<B: Device>(
        &self,
        hand: &Hand<'_, B, D>,
        runs: &[Run],
        owner: &impl Owner,
        on: RemapOn,
        may_pass: fn(IoStatus) -> bool,
    ) -> Result<Vec<Missed>, Stopped> {
        let mut patience = Patience::new(&*self.shared.env, may_pass);
        loop {
            let missed = self.moving(&hand.io(HostOp::Read), owner, on).do_runs(runs).await;
            hand.job.go_on()?;
            match missed.iter().find(|missed| !missed.status.is_media_error(on)) {
                Some(other) if patience.again(other.status).await => {}
                _ => return Ok(missed),
            }
        }
    }

    /// Moves what is in hand.
    pub(super) fn moving<'a, H: HostIo, O: Owner>(&'a self, io: &'a H, owner: &'a O, on: RemapOn) -> Rescue<'a, H, O> {
        Rescue::new(io, &self.shared.table, owner, on, &self.shared.counters).with_in_flight(IN_FLIGHT)
    }
}

/// Blocks of a window, at most.
pub(super) fn window_blocks(block_size: u32) -> u64 {
    (WINDOW_BYTES / u64::from(block_size.max(1))).clamp(1, WINDOW_BLOCKS)
}

/// The blocks of runs.
pub(super) fn blocks_of(runs: &[Run]) -> impl Iterator<Item = u64> + '_ {
    runs.iter().flat_map(|run| run.offset..run.offset + run.blocks)
}

/// Whether the block is among these, which are in order.
pub(super) fn is_among(missed: &[Missed], offset: u64) -> bool {
    missed.binary_search_by_key(&offset, |missed| missed.offset).is_ok()
}

/// Runs without these blocks.
fn without(runs: &[Run], missed: &[Missed]) -> Vec<Run> {
    let mut left = Vec::new();
    for run in runs {
        for offset in run.offset..run.offset + run.blocks {
            if let (false, Some(at)) = (is_among(missed, offset), run.at.plus(offset - run.offset)) {
                add_block(&mut left, offset, at);
            }
        }
    }
    left
}

/// The data of some blocks, in memory. An I/O for it counts its blocks from the first of them on, wherever they are.
pub(super) struct Hand<'a, B, D> {
    blocks: Vec<BaseLba>,
    block_size: usize,
    data: RefCell<Vec<u8>>,
    /// None, if it goes from spare to spare.
    base: Option<&'a B>,
    spares: PerSlot<Option<DataOf<D>>>,
    job: &'a Job,
}

impl<'a, B: Device, D: Device> Hand<'a, B, D> {
    pub(super) fn io(&'a self, op: HostOp) -> InHand<'a, B, D> {
        InHand { hand: self, op }
    }

    /// The block that is so far from the first.
    pub(super) fn block(&self, offset: u64) -> BaseLba {
        // There are no others than those that are in hand.
        self.blocks.get(offset as usize).copied().unwrap_or(BaseLba(u64::MAX))
    }

    /// An error that is not of the medium says nothing about a block.
    pub(super) fn only_media(&self, missed: &[Missed], on: RemapOn, what: &'static str) -> Result<(), Error> {
        match missed.iter().find(|missed| !missed.status.is_media_error(on)) {
            None => Ok(()),
            Some(Missed { offset, status }) => Err(Error::BaseIo { what, lba: self.block(*offset), status: *status }),
        }
    }

    async fn transfer<T: Device>(
        &self,
        op: HostOp,
        device: &T,
        lba: u64,
        offset: u64,
        blocks: u64,
    ) -> Result<(), IoStatus> {
        let bytes = offset as usize * self.block_size..(offset + blocks) as usize * self.block_size;
        let mut buffer = device.alloc(blocks as usize)?;
        match op {
            HostOp::Read => {
                let (buffer, result) = device.read(lba, buffer).await;
                result?;
                self.data.borrow_mut()[bytes].copy_from_slice(buffer.as_ref());
                Ok(())
            }
            HostOp::Write | HostOp::WriteZeroes => {
                buffer.as_mut().copy_from_slice(&self.data.borrow()[bytes]);
                device.write(lba, buffer).await.1
            }
        }
    }
}

/// The data of some blocks as an I/O: read into memory, or written from there.
pub(super) struct InHand<'a, B, D> {
    hand: &'a Hand<'a, B, D>,
    op: HostOp,
}

impl<B: Device, D: Device> HostIo for InHand<'_, B, D> {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        Extent::new(self.block(0), self.hand.blocks.len() as u64)
    }

    fn block(&self, offset: u64) -> BaseLba {
        self.hand.block(offset)
    }

    fn is_given_up(&self) -> bool {
        self.hand.job.go_on().is_err()
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let hand = self.hand;
        match at {
            At::Base(lba) => match hand.base {
                Some(base) => hand.transfer(self.op, base, lba.0, offset, blocks).await,
                None => Err(IoStatus::Failed),
            },
            At::Spare(block) => match &hand.spares[block.slot()] {
                Some(spare) => hand.transfer(self.op, &*spare.device, spare.layout.data(block).0, offset, blocks).await,
                None => Err(IoStatus::Failed),
            },
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::NoSpare => Error::NoSpare,
            Refused::Tripped => Error::Tripped,
            Refused::LogFailed => Error::LogFailed,
            Refused::Closed => Error::Closed,
        }
    }
}
