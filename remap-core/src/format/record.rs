//! A record of the remap log: 16 bytes, a run of blocks.
//!
//! Encoded by the engine, decoded by recovery. Knows nothing of pages. `docs/format.md` describes the fields.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::slot::{Slot, SpareBlock};
use crate::units::{BaseLba, MAX_BASE_BLOCKS};

/// A record as it is on the spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawRecord {
    /// First block on the base, bits 0 to 31.
    pub lba_low: U32,
    /// First block on the base, bits 32 to 47.
    pub lba_high: U16,
    /// What the record says: a [`kind`].
    pub kind: u8,
    /// The slot of the spare that the spare blocks are on.
    pub slot: u8,
    /// First spare block, as index into the data area.
    pub spare: U32,
    /// Length of the run in blocks.
    pub count: U32,
}

impl RawRecord {
    #[inline]
    fn lba(&self) -> BaseLba {
        BaseLba(u64::from(self.lba_low.get()) | u64::from(self.lba_high.get()) << 32)
    }

    /// The block and the spare block of a record that says of one block only that it lives on the spare in `slot`: what
    /// [`Record::decode`] says of nearly all records there are, in less time.
    #[inline(always)]
    pub(crate) fn one_remapped(&self, slot: Slot) -> Option<(BaseLba, SpareBlock)> {
        let one = self.kind == kind::REMAP && self.slot == slot.get() && self.count.get() == 1;
        let spare = SpareBlock::new(slot, self.spare.get()).filter(|_| one)?;
        Some((self.lba(), spare))
    }
}

/// Bytes of a record.
pub const RECORD_SIZE: usize = size_of::<RawRecord>();

/// The values of [`RawRecord::kind`]. Zero is none of them.
pub mod kind {
    /// The blocks live on the spare.
    pub const REMAP: u8 = 1;
    /// The blocks are known unreadable on the base.
    pub const PENDING: u8 = 2;
    /// The blocks have a place on the spare, which does not hold their data.
    pub const LOST: u8 = 3;
    /// The blocks are simply on the base again.
    pub const CLEAR: u8 = 4;
    /// The spare blocks are bad.
    pub const BAD_SPARE: u8 = 5;
    /// The checkpoint ends here.
    pub const END_OF_CHECKPOINT: u8 = 6;
}

/// A record, decoded: `count` blocks from each address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The blocks live on the spare.
    Remap {
        /// First block on the base.
        lba: BaseLba,
        /// First spare block.
        spare: SpareBlock,
        /// Length in blocks.
        count: u32,
    },
    /// The blocks are known unreadable on the base.
    Pending {
        /// First block on the base.
        lba: BaseLba,
        /// Length in blocks.
        count: u32,
    },
    /// The blocks have a place on the spare, which does not hold their data.
    Lost {
        /// First block on the base.
        lba: BaseLba,
        /// First spare block.
        spare: SpareBlock,
        /// Length in blocks.
        count: u32,
    },
    /// The blocks are simply on the base again.
    Clear {
        /// First block on the base.
        lba: BaseLba,
        /// Length in blocks.
        count: u32,
    },
    /// The spare blocks are bad.
    BadSpare {
        /// First spare block.
        spare: SpareBlock,
        /// Length in blocks.
        count: u32,
    },
    /// The checkpoint ends here.
    EndOfCheckpoint,
}

/// What is in [`RawRecord::slot`]: only where a record speaks of spare blocks.
fn slot_field(kind: u8, slot: Slot) -> u8 {
    if matches!(kind, kind::REMAP | kind::LOST | kind::BAD_SPARE) { slot.get() } else { 0 }
}

impl Record {
    /// The record as it is on the spare.
    #[inline]
    #[must_use]
    pub fn encode(self) -> RawRecord {
        let raw = |kind, lba: BaseLba, spare: Option<SpareBlock>, count: u32| RawRecord {
            // Cut to the 48 bits that there are; an LBA of the base is below that.
            lba_low: U32::new(lba.0 as u32),
            lba_high: U16::new((lba.0 >> 32) as u16),
            kind,
            slot: spare.map_or(0, |spare| spare.slot().get()),
            spare: U32::new(spare.map_or(0, SpareBlock::index)),
            count: U32::new(count),
        };
        match self {
            Record::Remap { lba, spare, count } => raw(kind::REMAP, lba, Some(spare), count),
            Record::Pending { lba, count } => raw(kind::PENDING, lba, None, count),
            Record::Lost { lba, spare, count } => raw(kind::LOST, lba, Some(spare), count),
            Record::Clear { lba, count } => raw(kind::CLEAR, lba, None, count),
            Record::BadSpare { spare, count } => raw(kind::BAD_SPARE, BaseLba(0), Some(spare), count),
            Record::EndOfCheckpoint => raw(kind::END_OF_CHECKPOINT, BaseLba(0), None, 0),
        }
    }

    /// Decodes a record that speaks of the spare in `slot`; `None` if this version of the code cannot have written it.
    #[must_use]
    pub fn decode(raw: &RawRecord, slot: Slot) -> Option<Record> {
        let (lba, count, spare) = (raw.lba(), raw.count.get(), raw.spare.get());
        if raw.slot != slot_field(raw.kind, slot) {
            return None;
        }
        if raw.kind == kind::END_OF_CHECKPOINT {
            return (lba.0 == 0 && count == 0 && spare == 0).then_some(Record::EndOfCheckpoint);
        }
        if count == 0 || lba.plus(u64::from(count)).0 > MAX_BASE_BLOCKS {
            return None;
        }
        // The last spare block has to be one, too.
        let first_spare = || SpareBlock::new(slot, spare).filter(|first| first.plus(u64::from(count) - 1).is_some());
        match raw.kind {
            kind::REMAP => Some(Record::Remap { lba, spare: first_spare()?, count }),
            kind::PENDING if spare == 0 => Some(Record::Pending { lba, count }),
            kind::LOST => Some(Record::Lost { lba, spare: first_spare()?, count }),
            kind::CLEAR if spare == 0 => Some(Record::Clear { lba, count }),
            kind::BAD_SPARE if lba.0 == 0 => Some(Record::BadSpare { spare: first_spare()?, count }),
            _ => None,
        }
    }

    /// The record as far as its first `most` blocks, of which there is at least one, and what is left of it.
    #[inline]
    pub(crate) fn cut(self, most: u32) -> (Record, Option<Record>) {
        match self.count().checked_sub(most) {
            // Most records are no longer than that.
            None | Some(0) => (self, None),
            Some(left) => (self.piece(0, most).unwrap_or(self), self.piece(most, left)),
        }
    }

    /// How many blocks the record speaks of.
    pub(crate) fn count(self) -> u32 {
        match self {
            Record::Remap { count, .. }
            | Record::Pending { count, .. }
            | Record::Lost { count, .. }
            | Record::Clear { count, .. }
            | Record::BadSpare { count, .. } => count,
            Record::EndOfCheckpoint => 0,
        }
    }

    /// `count` blocks of the record, from the one with number `from` on.
    fn piece(self, from: u32, count: u32) -> Option<Record> {
        let skip = u64::from(from);
        Some(match self {
            Record::Remap { lba, spare, .. } => Record::Remap { lba: lba.plus(skip), spare: spare.plus(skip)?, count },
            Record::Lost { lba, spare, .. } => Record::Lost { lba: lba.plus(skip), spare: spare.plus(skip)?, count },
            Record::Pending { lba, .. } => Record::Pending { lba: lba.plus(skip), count },
            Record::Clear { lba, .. } => Record::Clear { lba: lba.plus(skip), count },
            Record::BadSpare { spare, .. } => Record::BadSpare { spare: spare.plus(skip)?, count },
            Record::EndOfCheckpoint => Record::EndOfCheckpoint,
        })
    }

    /// Puts `next`, a record of one block, on the end of this one, if it is its direct continuation.
    pub(crate) fn extend(&mut self, next: Record) -> bool {
        match (self, next) {
            (Record::Remap { lba, spare, count }, Record::Remap { lba: l, spare: s, count: 1 })
            | (Record::Lost { lba, spare, count }, Record::Lost { lba: l, spare: s, count: 1 })
                if lba.plus(u64::from(*count)) == l
                    && spare.plus(u64::from(*count)) == Some(s)
                    && *count < u32::MAX =>
            {
                *count += 1;
                true
            }
            (Record::Pending { lba, count }, Record::Pending { lba: l, count: 1 })
            | (Record::Clear { lba, count }, Record::Clear { lba: l, count: 1 })
                if lba.plus(u64::from(*count)) == l && *count < u32::MAX =>
            {
                *count += 1;
                true
            }
            (Record::BadSpare { spare, count }, Record::BadSpare { spare: s, count: 1 })
                if spare.plus(u64::from(*count)) == Some(s) =>
            {
                *count += 1;
                true
            }
            _ => false,
        }
    }
}
