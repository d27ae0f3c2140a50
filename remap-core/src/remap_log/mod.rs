//! The remap log: what makes a mapping durable.
//!
//! The engine's committer has it, behind a lock, so that one page or checkpoint at a time is written. It knows where the
//! log stands and which copies are sound; what the records say it does not know. [`crate::recovery`] is its mirror.
//!
//! A page goes to copy A, then, after a flush, to copy B: a crash can tear one of them at most. A page that one copy took
//! is durable. One that neither took may yet be on the medium: then nothing is appended before a checkpoint under a new
//! epoch has made it void.

mod checkpoint;

use std::rc::Rc;
use std::sync::Arc;

use crate::counters::Counters;
use crate::device::Device;
use crate::error::Error;
use crate::format::{Copy, PageInfo, Record, Superblock, encode_page, records_per_page};
use crate::mutation::{Mutation, active};
use crate::spare::Spare;

pub(crate) use self::checkpoint::{Saved, checkpoint_records};

/// Where the log stands: in which area, how far, under which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The log area that is appended to.
    pub(crate) area: usize,
    /// The epoch of its checkpoint.
    pub(crate) epoch: u64,
    /// The sequence number of its page 0.
    pub(crate) first_sequence: u64,
    /// Pages of its checkpoint.
    pub(crate) checkpoint_pages: u32,
    /// The page that is written next.
    pub(crate) next_page: u64,
    /// An epoch that no attempt at a checkpoint has used.
    pub(crate) next_epoch: u64,
    /// The highest sequence number used so far.
    pub(crate) top_sequence: u64,
}

/// What the log tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogView {
    pub(crate) epoch: u64,
    /// Of the last page.
    pub(crate) sequence: u64,
    /// By copy: whether it holds every page that it should.
    pub(crate) log_ok: [bool; 2],
    /// By copy.
    pub(crate) superblock_ok: [bool; 2],
    /// Whether nothing may be appended before a checkpoint has succeeded.
    pub(crate) must_checkpoint: bool,
}

/// Why a page was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// Nothing of it was written.
    NotWritten,
    /// It was written, and both copies reported errors: it may be on the medium or not.
    InDoubt,
}

pub(crate) struct Log<D: Device> {
    spare: Rc<Spare<D>>,
    counters: Arc<Counters>,
    superblock: Superblock,
    position: Position,
    log_ok: [bool; 2],
    superblock_ok: [bool; 2],
    must_checkpoint: bool,
    /// By area: whether it may have bad pages, as a torn write or a failed one leaves them. Recovery takes a bad page at the
    /// end of the log for one that may have held records, so an area is zeroed before it is used again.
    dirty: [bool; 2],
}

impl<D: Device> Log<D> {
    pub(crate) fn new(
        spare: Rc<Spare<D>>,
        counters: Arc<Counters>,
        superblock: Superblock,
        position: Position,
        log_ok: [bool; 2],
        superblock_ok: [bool; 2],
    ) -> Log<D> {
        Log { spare, counters, superblock, position, log_ok, superblock_ok, must_checkpoint: false, dirty: [false; 2] }
    }

    pub(crate) fn view(&self) -> LogView {
        let Position { epoch, first_sequence, next_page, .. } = self.position;
        LogView {
            epoch,
            sequence: (first_sequence + next_page).saturating_sub(1),
            log_ok: self.log_ok,
            superblock_ok: self.superblock_ok,
            must_checkpoint: self.must_checkpoint,
        }
    }

    pub(crate) fn spare(&self) -> &Spare<D> {
        &self.spare
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Nothing is appended any more before a checkpoint has succeeded.
    pub(crate) fn require_checkpoint(&mut self) {
        self.must_checkpoint = true;
    }

    /// Recovery found these areas to have bad pages.
    pub(crate) fn found_dirty(&mut self, dirty: [bool; 2]) {
        self.dirty = [self.dirty[0] || dirty[0], self.dirty[1] || dirty[1]];
    }

    /// Whether a checkpoint has to be written before the next page.
    pub(crate) fn needs_checkpoint(&self) -> bool {
        self.must_checkpoint || self.position.next_page >= u64::from(self.superblock.layout.area_pages)
    }

    /// Goes on from another position, which recovery found.
    pub(crate) fn reposition(&mut self, position: Position, log_ok: [bool; 2]) {
        // What failed attempts used is not on the spare, and not used again all the same.
        let next_epoch = position.next_epoch.max(self.position.next_epoch);
        let top_sequence = position.top_sequence.max(self.position.top_sequence);
        self.position = Position { next_epoch, top_sequence, ..position };
        self.log_ok = log_ok;
    }

    /// How many records a page takes.
    pub(crate) fn page_capacity(&self) -> usize {
        records_per_page(self.superblock.layout.page_bytes as usize)
    }

    /// Makes `records`, one page at most, durable, and before them the data that they speak of.
    ///
    /// # Errors
    /// See [`AppendError`]. A checkpoint that is needed first counts as not written.
    pub(crate) async fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        if self.needs_checkpoint() || records.len() > self.page_capacity() {
            return Err(AppendError::NotWritten);
        }
        let layout = self.superblock.layout;
        let Position { area, epoch, first_sequence, checkpoint_pages, next_page, .. } = self.position;
        let info = PageInfo { epoch, sequence: first_sequence + next_page, checkpoint_pages, solo: false };
        let mut page = self.spare.alloc(layout.page_blocks()).map_err(|_| AppendError::NotWritten)?;
        encode_page(page.as_mut(), self.superblock.set_uuid, info, records);
        // The data must not be lost when the record of it survives.
        if !active(Mutation::SkipFlushBeforeRecord) {
            self.spare.flush().await.map_err(|error| {
                log::warn!("{}: data not flushed: {error}", self.superblock.name);
                AppendError::NotWritten
            })?;
        }
        let mut taken = [false; 2];
        for copy in Copy::BOTH {
            let at = layout.log_page(copy, area, next_page);
            let (back, result) = if active(Mutation::CompleteBeforeCommit) {
                self.spare.write(at, page).await
            } else {
                self.write_durably(at, page).await
            };
            page = back;
            match result {
                Ok(()) => taken[copy.index()] = true,
                Err(error) => self.copy_failed(copy, &error),
            }
        }
        if taken == [false; 2] || !self.note_missed(taken).await {
            self.must_checkpoint = true;
            return Err(AppendError::InDoubt);
        }
        if !active(Mutation::RewriteCommittedPage) {
            self.position.next_page += 1;
        }
        self.position.top_sequence = self.position.top_sequence.max(info.sequence);
        self.counters.log_pages.add(1);
        Ok(())
    }

    /// Before a page that copy A did not take counts as committed, the superblocks say so: once in an epoch. Otherwise
    /// recovery takes a copy A that has no page for one that shows where the log ends. Whether it is durable.
    async fn note_missed(&mut self, taken: [bool; 2]) -> bool {
        if taken[Copy::A.index()] || self.superblock.missed_by_a == self.position.epoch {
            return true;
        }
        self.superblock.missed_by_a = self.position.epoch;
        self.write_superblocks().await
    }

    async fn write_durably(&self, lba: u64, buffer: D::Buffer) -> (D::Buffer, Result<(), Error>) {
        let (buffer, mut result) = self.spare.write(lba, buffer).await;
        if result.is_ok() {
            result = self.spare.flush().await;
        }
        (buffer, result)
    }

    fn copy_failed(&mut self, copy: Copy, error: &Error) {
        self.counters.log_copy_errors.add(1);
        self.dirty[self.position.area & 1] = true;
        if std::mem::replace(&mut self.log_ok[copy.index()], false) {
            log::warn!("{}: log copy {} is bad: {error}", self.superblock.name, copy.name());
        }
    }
}
