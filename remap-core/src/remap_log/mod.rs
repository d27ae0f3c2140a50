//! The remap log: what makes a mapping durable.
//!
//! The committer has it, alone. It knows where the log stands and which copies are sound; what the records say it does not
//! know. [`crate::recovery`] is its mirror.
//!
//! A page goes to copy A, then, after a flush, to copy B: a crash can tear one of them at most. A page that one copy took
//! is durable. One that neither took may yet be on the medium: then nothing is appended before a checkpoint under a new
//! epoch has made it void. The same holds after every open, for what recovery may not have seen.
//!
//! **Noted commits.** As long as both copies hold everything, one tells where the other ends. From the moment on at which
//! one missed a page, the superblocks say how far the log is committed, before each commit is acknowledged, until a
//! checkpoint has made both whole.

mod checkpoint;
mod found;
mod records;
mod superblocks;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::Counters;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::record::RawRecord;
use crate::format::{
    Area, Copy, CopyB, InUse, PageAt, PageInfo, PageOwner, PerArea, PerCopy, Superblock, encode_page, records_per_page,
};
use crate::mutation::{Mutation, active};
use crate::spare::Spare;
use crate::units::{Epoch, Sequence, SpareLba};

pub(crate) use self::checkpoint::Saved;
pub(crate) use self::records::Records;

/// By how much at least epochs and superblock sequences go on where something that could not be read may hide some.
const HIDDEN: u64 = 1 << 32;

/// By how much epochs and superblock sequences go on where something that could not be read may hide some: not twice the same,
/// as what is hidden may be what went on like this before, by an open that a crash stopped.
pub(crate) fn hidden(time: Duration) -> u64 {
    // Below 2^33; the clock modulo 2^32 microseconds comes round after 71 minutes.
    HIDDEN + time.as_micros() as u64 % HIDDEN
}

/// Where the log stands: in which area, how far, under which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The log area that is in force.
    pub(crate) area: Area,
    /// The epoch of its checkpoint.
    pub(crate) epoch: Epoch,
    /// The sequence number of its page 0.
    pub(crate) first_sequence: Sequence,
    /// Pages of its checkpoint.
    pub(crate) checkpoint_pages: u32,
    /// The page that is written next.
    pub(crate) next_page: u32,
    /// An epoch that no attempt at a checkpoint has used.
    pub(crate) next_epoch: Epoch,
    /// The highest sequence number used so far.
    pub(crate) top_sequence: Sequence,
}

impl Position {
    /// Before the first checkpoint of a spare.
    pub(crate) const START: Position = Position {
        area: Area::One,
        epoch: Epoch::ZERO,
        first_sequence: Sequence::ZERO,
        checkpoint_pages: 0,
        next_page: 0,
        next_epoch: Epoch::ONE,
        top_sequence: Sequence::ZERO,
    };

    /// The sequence number of the last page.
    pub(crate) fn last(&self) -> Sequence {
        let next = self.first_sequence.plus(u64::from(self.next_page));
        next.minus(1).unwrap_or(Sequence::ZERO)
    }
}

/// What recovery, or formatting, tells the log of the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Whether the log copy holds every page that it should.
    pub(crate) log: PerCopy<bool>,
    /// Whether the superblock is the newest, and can be read.
    pub(crate) superblock: PerCopy<bool>,
    /// Whether the area has bad pages.
    pub(crate) dirty: PerArea<bool>,
}

/// Why nothing may be appended before a checkpoint has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sealed {
    /// The log was opened: what recovery did not see must not come back later, and win.
    Opened,
    /// As above, and recovery saw something that is to be put right.
    Unfinished,
    /// A page, or a checkpoint, may be on the medium or not.
    InDoubt,
}

/// What the log tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogView {
    pub(crate) epoch: Epoch,
    /// Of the last page.
    pub(crate) sequence: Sequence,
    /// Of the superblocks.
    pub(crate) superblock_sequence: Sequence,
    pub(crate) log_ok: PerCopy<bool>,
    pub(crate) superblock_ok: PerCopy<bool>,
    /// Whether something is in doubt, or to be put right, until a checkpoint succeeds.
    pub(crate) unfinished: bool,
}

impl LogView {
    /// Whether every copy of everything is as it should be.
    pub(crate) fn sound(&self) -> bool {
        self.log_ok.all() && self.superblock_ok.all() && !self.unfinished
    }
}

/// Why a page was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// Nothing of it was written.
    NotWritten,
    /// It was written, but is not known to be durable: it may be on the medium or not.
    InDoubt,
}

pub(crate) struct Log<D: Device, E: Env> {
    spare: Rc<Spare<D, E>>,
    counters: Arc<Counters>,
    superblock: Superblock,
    position: Position,
    /// Whether the copy holds every page of this epoch.
    log_ok: PerCopy<bool>,
    superblock_ok: PerCopy<bool>,
    /// Where superblock B was when superblock A was last written, if the spare has grown since.
    former_b: Option<SpareLba>,
    sealed: Option<Sealed>,
    /// Whether nothing was appended under this epoch since it was read.
    only_read: bool,
    /// Whether the data of the last page could not be flushed.
    data_stuck: bool,
    /// What the superblocks on the spare say is committed, and which epoch they know.
    noted: (Sequence, Epoch),
    /// What they say of its use.
    marked: InUse,
    /// Whether the area may have bad pages, as a torn write or a failed one leaves them. Recovery takes a bad page at the
    /// end of the log for one that may have held records, so an area is zeroed before it is used again.
    dirty: PerArea<bool>,
    /// The buffer of the page that was written last, with what is in it.
    page: Option<D::Buffer>,
    /// What makes a page for copy B of it.
    copy_b: CopyB,
}

impl<D: Device, E: Env> Log<D, E> {
    /// The log of the set that `superblock` describes, as recovery found it, or before its first checkpoint.
    pub(crate) fn new(
        spare: Rc<Spare<D, E>>,
        counters: Arc<Counters>,
        superblock: Superblock,
        position: Position,
        health: Health,
        former_b: Option<SpareLba>,
    ) -> Log<D, E> {
        let (noted, marked) = ((superblock.committed, superblock.epoch), superblock.in_use);
        // From the first that is written on: before that, nothing is appended.
        let superblock = Superblock { in_use: InUse::Yes, ..superblock };
        let copy_b = CopyB::new(superblock.layout.page_bytes as usize);
        let mut log = Log {
            spare,
            counters,
            superblock,
            position,
            log_ok: health.log,
            superblock_ok: health.superblock,
            former_b,
            sealed: None,
            only_read: false,
            data_stuck: false,
            noted,
            marked,
            dirty: health.dirty,
            page: None,
            copy_b,
        };
        log.seal_after_reading();
        log
    }

    pub(crate) fn view(&self) -> LogView {
        LogView {
            epoch: self.position.epoch,
            sequence: self.position.last(),
            superblock_sequence: self.superblock.sequence,
            log_ok: self.log_ok,
            superblock_ok: self.superblock_ok,
            unfinished: matches!(self.sealed, Some(Sealed::Unfinished | Sealed::InDoubt)),
        }
    }

    pub(crate) fn spare(&self) -> &Spare<D, E> {
        &self.spare
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Whether a checkpoint has to be written before the next page.
    pub(crate) fn needs_checkpoint(&self) -> bool {
        self.sealed.is_some() || self.position.next_page >= self.superblock.layout.area_pages
    }

    /// Goes on from what recovery found on the spare of a log that is open already.
    pub(crate) fn reposition(&mut self, position: Position, log_ok: PerCopy<bool>, dirty: PerArea<bool>) {
        // What failed attempts used is not on the spare, and not used again all the same.
        let next_epoch = position.next_epoch.max(self.position.next_epoch);
        let top_sequence = position.top_sequence.max(self.position.top_sequence);
        self.position = Position { next_epoch, top_sequence, ..position };
        self.log_ok = log_ok;
        self.dirty = PerArea::each(|area| self.dirty[area] || dirty[area]);
        self.seal_after_reading();
    }

    /// What recovery saw was not put right: until it is, the set is not sound.
    pub(crate) fn still_unfinished(&mut self) {
        if self.sealed == Some(Sealed::Opened) {
            self.sealed = Some(Sealed::Unfinished);
        }
    }

    /// All of it has gone: nothing is appended before a checkpoint has made everything anew.
    pub(crate) fn lose_all_copies(&mut self) {
        (self.log_ok, self.superblock_ok) = (PerCopy::NONE, PerCopy::NONE);
        self.sealed = Some(Sealed::Unfinished);
    }

    fn seal_after_reading(&mut self) {
        self.superblock.epoch = self.superblock.epoch.max(self.position.epoch);
        self.superblock.committed = self.superblock.committed.max(self.position.last());
        if !active(Mutation::GoOnInTheSameEpoch) {
            (self.sealed, self.only_read) = (Some(Sealed::Opened), true);
        }
    }

    /// How many records a page takes.
    pub(crate) fn page_capacity(&self) -> usize {
        records_per_page(self.superblock.layout.page_bytes as usize)
    }

    fn owner(&self) -> PageOwner {
        PageOwner { set_uuid: self.superblock.set_uuid, spare_id: self.superblock.spare_id }
    }

    /// Makes `records`, one page at most, durable, and before them the data that they speak of.
    ///
    /// # Errors
    /// See [`AppendError`]. A checkpoint that is needed first counts as not written.
    pub(crate) async fn append(&mut self, records: &[RawRecord]) -> Result<(), AppendError> {
        if self.needs_checkpoint() || records.len() > self.page_capacity() {
            return Err(AppendError::NotWritten);
        }
        // The data must not be lost when the record of it survives.
        if !active(Mutation::SkipFlushBeforeRecord) {
            let flushed = self.spare.flush().await;
            let stuck = std::mem::replace(&mut self.data_stuck, flushed.is_err());
            if let Err(error) = flushed {
                // Once, not for each commit that is tried meanwhile.
                if !stuck {
                    log::warn!("{}: nothing is remapped, as data cannot be flushed: {error}", self.superblock.name);
                }
                return Err(AppendError::NotWritten);
            }
        }
        let sequence = self.position.first_sequence.plus(u64::from(self.position.next_page));
        self.position.top_sequence = self.position.top_sequence.max(sequence);
        let mut taken = PerCopy::NONE;
        for copy in Copy::BOTH {
            if copy == Copy::B && !taken[Copy::A] && !self.note_from_now_on().await {
                return Err(self.in_doubt());
            }
            let page = match self.page.take() {
                // It is this very page, as copy A has just taken it.
                Some(mut page) if copy == Copy::B && taken[Copy::A] => {
                    self.copy_b.make_of(page.as_mut());
                    Ok(page)
                }
                page => self.encode(page, copy, sequence, records),
            };
            let appended = match page {
                Ok(page) => self.append_to(copy, page).await,
                Err(error) => Err(error),
            };
            match appended {
                Ok(()) => taken[copy] = true,
                Err(error) => self.copy_failed(copy, &error),
            }
        }
        if !taken.any() || !self.note(sequence).await {
            return Err(self.in_doubt());
        }
        self.superblock.committed = sequence;
        if !active(Mutation::RewriteCommittedPage) {
            self.position.next_page += 1;
        }
        self.counters.log_pages.add(1);
        Ok(())
    }

    /// The next page as that of `copy`, in `page` if there is such a buffer.
    fn encode(
        &self,
        page: Option<D::Buffer>,
        copy: Copy,
        sequence: Sequence,
        records: &[RawRecord],
    ) -> Result<D::Buffer, Error> {
        let Position { area, epoch, checkpoint_pages, next_page: index, .. } = self.position;
        let mut page = page.map_or_else(|| self.spare.alloc(self.superblock.layout.page_blocks()), Ok)?;
        let info = PageInfo { epoch, sequence, checkpoint_pages };
        encode_page(page.as_mut(), self.owner(), PageAt { copy, area, index }, info, records);
        Ok(page)
    }

    async fn append_to(&mut self, copy: Copy, page: D::Buffer) -> Result<(), Error> {
        let Position { area, next_page: index, .. } = self.position;
        let at = self.superblock.layout.log_page(copy, area, u64::from(index));
        let (page, written) = self.spare.write(at, page).await;
        self.page = page;
        written?;
        if active(Mutation::CompleteBeforeCommit) { Ok(()) } else { self.spare.flush().await }
    }

    /// Copy A did not take a page, and copy B may be torn now: from this moment on the superblocks tell what is committed,
    /// beginning with all that was before. Whether that is durable.
    async fn note_from_now_on(&mut self) -> bool {
        if self.superblock.noted_epoch == self.position.epoch {
            return true;
        }
        self.superblock.noted_epoch = self.position.epoch;
        self.write_superblocks().await
    }

    /// Has the superblocks say how far the log goes, and, as long as it was only read, that it ends there. Then a loss is noticed
    /// later, and what turns up behind the end does not count. False if a loss would not be noticed: where a copy misses a page, or
    /// the epoch is not known yet, that has to be durable.
    pub(crate) async fn note_end(&mut self) -> bool {
        let noted = self.note(self.position.last()).await;
        if noted {
            self.note_if_due().await;
        }
        noted
    }

    /// If a copy misses a page of this epoch, or did so once, or no superblock knows the epoch, the superblocks say what is
    /// committed before it is acknowledged. Whether that is durable, or not needed.
    async fn note(&mut self, sequence: Sequence) -> bool {
        let epoch = self.position.epoch;
        let noting = !self.log_ok.all() || self.superblock.noted_epoch == epoch || self.noted.1 < epoch;
        if !noting || active(Mutation::CommitNotNoted) {
            return true;
        }
        let before = (self.superblock.committed, self.superblock.noted_epoch);
        (self.superblock.committed, self.superblock.noted_epoch) = (sequence, self.position.epoch);
        let noted = self.write_superblocks().await;
        if !noted {
            (self.superblock.committed, self.superblock.noted_epoch) = before;
        }
        noted
    }

    fn in_doubt(&mut self) -> AppendError {
        self.sealed = Some(Sealed::InDoubt);
        AppendError::InDoubt
    }

    fn copy_failed(&mut self, copy: Copy, error: &Error) {
        self.counters.log_copy_errors.add(1);
        self.dirty[self.position.area] = true;
        if std::mem::replace(&mut self.log_ok[copy], false) {
            log::warn!("{}: log copy {} is bad: {error}", self.superblock.name, copy.name());
        }
    }
}
