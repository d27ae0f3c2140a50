//! From records to the mapping: the records of a checkpoint, then those of the pages behind it.
//!
//! Checks each record against what the earlier ones said. Does no I/O; takes any records and never panics.

use std::collections::BTreeSet;
use std::slice;

use fixedbitset::FixedBitSet;

use super::mappings::Mappings;
use crate::format::record::RawRecord;
use crate::format::{Record, Superblock};
use crate::pace::Pace;
use crate::slot::{Slot, SpareBlock};
use crate::table::Mapping;
use crate::units::BaseLba;

/// The records of a page, in pieces that do not hold the thread for long.
pub(super) struct Pieces<'a> {
    raw: slice::Iter<'a, RawRecord>,
    /// What is left of a record that was longer.
    left: Option<Record>,
    slot: Slot,
}

impl<'a> Pieces<'a> {
    /// Those of `records`, which speak of the spare in `slot`.
    pub(super) fn new(records: &'a [RawRecord], slot: Slot) -> Pieces<'a> {
        Pieces { raw: records.iter(), left: None, slot }
    }

    /// Takes the next ones, `most` at most, as long as each is of one block alone that is remapped, and `take` takes it; how many.
    #[inline(always)]
    fn while_one_remapped(&mut self, most: usize, mut take: impl FnMut(BaseLba, SpareBlock) -> bool) -> usize {
        if self.left.is_some() {
            return 0;
        }
        let raw = self.raw.as_slice();
        let mut takes =
            |record: &RawRecord| record.one_remapped(self.slot).is_some_and(|(lba, spare)| take(lba, spare));
        let taken = raw.iter().take(most).position(|record| !takes(record)).unwrap_or(raw.len().min(most));
        self.raw = raw[taken..].iter();
        taken
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Record, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let whole = match self.left.take() {
            Some(left) => left,
            None => match Record::decode(self.raw.next()?, self.slot) {
                Some(record) => record,
                None => return Some(Err("an unknown record")),
            },
        };
        let (first, rest) = whole.cut(Pace::STRIDE as u32);
        self.left = rest;
        Some(Ok(first))
    }
}

/// The mapping as the log says it.
pub(super) struct Replay {
    pub(super) mappings: Mappings,
    pub(super) bad: BTreeSet<SpareBlock>,
    /// The spare blocks that the mappings name, by index.
    pub(super) used: FixedBitSet,
    pending: u64,
    bounds: Bounds,
    pending_limit: u64,
    ended: bool,
}

/// Where the blocks can be that a record names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) base_blocks: u64,
    pub(super) data_blocks: u32,
}

impl Bounds {
    pub(super) fn of(superblock: &Superblock) -> Bounds {
        Bounds { base_blocks: superblock.base_blocks, data_blocks: superblock.layout.data_blocks }
    }

    /// Checks that all blocks that a record names are there.
    pub(super) fn check(self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Remap { lba, spare, count } | Record::Lost { lba, spare, count } => {
                self.check_base(lba, count)?;
                self.check_spare(spare, count)
            }
            Record::Pending { lba, count } | Record::Clear { lba, count } => self.check_base(lba, count),
            Record::BadSpare { spare, count } => self.check_spare(spare, count),
            Record::EndOfCheckpoint => Ok(()),
        }
    }

    fn check_base(self, lba: BaseLba, count: u32) -> Result<(), &'static str> {
        if lba.plus(u64::from(count)).0 <= self.base_blocks {
            Ok(())
        } else {
            Err("an address behind the end of the base")
        }
    }

    fn check_spare(self, spare: SpareBlock, count: u32) -> Result<(), &'static str> {
        if u64::from(spare.index()) + u64::from(count) <= u64::from(self.data_blocks) {
            Ok(())
        } else {
            Err("an address behind the end of the data area")
        }
    }
}

impl Replay {
    pub(super) fn new(bounds: Bounds, pending_limit: u64) -> Replay {
        Replay {
            mappings: Mappings::default(),
            bad: BTreeSet::new(),
            used: FixedBitSet::with_capacity(bounds.data_blocks as usize),
            pending: 0,
            bounds,
            pending_limit,
            ended: false,
        }
    }

    /// Whether the end of the checkpoint was seen.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes as many records, of the checkpoint or from behind it, as long work does in one step; how many entries they were, none only
    /// when there are no more records. The region of the table that becomes complete with them is made besides.
    pub(super) fn some(&mut self, records: &mut Pieces<'_>, of_checkpoint: bool) -> Result<usize, &'static str> {
        let mut entries = 0;
        loop {
            entries += self.in_order(records, Pace::STRIDE.saturating_sub(entries), of_checkpoint);
            if entries >= Pace::STRIDE {
                return Ok(entries);
            }
            let Some(record) = records.next() else { return Ok(entries) };
            let record = record?;
            entries += record.count() as usize + 1;
            if of_checkpoint { self.checkpoint_record(record) } else { self.log_record(record) }?;
        }
    }

    /// Takes records, `most` at most, as long as each is of one block that is remapped, behind all others, to a spare block of which
    /// nothing else was said: nearly all of a checkpoint are like that, and little is to be done for each. What is not so is left,
    /// whatever is wrong with it. How many they were.
    // Inlined, the loop would not have all that it needs in registers.
    #[inline(never)]
    fn in_order(&mut self, records: &mut Pieces<'_>, most: usize, of_checkpoint: bool) -> usize {
        if !self.bad.is_empty() || (of_checkpoint && self.ended) {
            return 0;
        }
        let Replay { mappings, used, bounds, .. } = self;
        records.while_one_remapped(most, |lba, spare| {
            let index = spare.index() as usize;
            let fits = lba.0 < bounds.base_blocks && spare.index() < bounds.data_blocks && mappings.end_before(lba);
            // Who finds it used has changed nothing.
            let taken = fits && !used.put(index);
            if taken {
                mappings.push(lba, Mapping::Spare(spare));
            }
            taken
        })
    }

    /// Takes a record of the checkpoint. Its end has to be its last record.
    pub(super) fn checkpoint_record(&mut self, record: Record) -> Result<(), &'static str> {
        if self.ended {
            return Err("records behind the end of the checkpoint");
        }
        match record {
            Record::EndOfCheckpoint => {
                self.ended = true;
                Ok(())
            }
            Record::Clear { .. } => Err("a clear record in a checkpoint"),
            record => self.apply(record, false),
        }
    }

    /// Takes a record from behind the checkpoint.
    pub(super) fn log_record(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::EndOfCheckpoint => Err("an end of checkpoint behind the checkpoint"),
            record => self.apply(record, true),
        }
    }

    /// Applies a record; `again` if it may change what is mapped already.
    fn apply(&mut self, record: Record, again: bool) -> Result<(), &'static str> {
        self.bounds.check(record)?;
        match record {
            Record::Remap { lba, spare, count } => self.place_run(lba, (spare, count), Mapping::Spare, again),
            Record::Lost { lba, spare, count } => self.place_run(lba, (spare, count), Mapping::Lost, again),
            Record::Pending { lba, count } => (0..u64::from(count)).try_for_each(|i| self.pend(lba.plus(i), again)),
            Record::Clear { lba, count } => {
                for lba in (0..u64::from(count)).map(|i| lba.plus(i)) {
                    if let Some(old) = self.mappings.remove(lba) {
                        self.leave(old);
                    }
                }
                Ok(())
            }
            Record::BadSpare { spare, count } => {
                for block in (0..count).filter_map(|i| spare.plus(u64::from(i))) {
                    if self.used.contains(block.index() as usize) {
                        return Err("a spare block is both bad and used");
                    }
                    self.bad.insert(block);
                }
                Ok(())
            }
            Record::EndOfCheckpoint => Ok(()),
        }
    }

    fn pend(&mut self, lba: BaseLba, again: bool) -> Result<(), &'static str> {
        match self.mappings.insert(lba, Mapping::Pending) {
            // One record may name 2^32 blocks, more than there is memory for.
            None if self.pending >= self.pending_limit => return Err("more pending blocks than there can be"),
            None => self.pending += 1,
            Some(Mapping::Pending) if again => {}
            Some(_) => return Err("a block is both pending and something else"),
        }
        Ok(())
    }

    /// A block is not any more what it was.
    fn leave(&mut self, old: Mapping) {
        match old {
            Mapping::Pending => self.pending -= 1,
            Mapping::Spare(at) | Mapping::Lost(at) => self.used.set(at.index() as usize, false),
        }
    }

    fn place_run(
        &mut self,
        lba: BaseLba,
        (spare, count): (SpareBlock, u32),
        mapping: impl Fn(SpareBlock) -> Mapping,
        again: bool,
    ) -> Result<(), &'static str> {
        let blocks = (0..u64::from(count)).filter_map(|i| Some((lba.plus(i), spare.plus(i)?)));
        for (lba, spare) in blocks {
            self.place(lba, spare, mapping(spare), again)?;
        }
        Ok(())
    }

    fn place(&mut self, lba: BaseLba, spare: SpareBlock, to: Mapping, again: bool) -> Result<(), &'static str> {
        if let Some(old) = self.mappings.insert(lba, to) {
            if !again {
                return Err("two remaps of one block");
            }
            // The block's own old place is free for it to take.
            self.leave(old);
        }
        if self.used.put(spare.index() as usize) {
            return Err("a spare block is used twice");
        }
        if self.bad.contains(&spare) {
            return Err("a bad spare block is used");
        }
        Ok(())
    }
}
