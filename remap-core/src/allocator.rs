//! Which spare blocks are free.
//!
//! Used by the engine only, on the owner thread; rebuilt from the records at open. It knows nothing of what a used block
//! is used for: that is in the remap table.
//!
//! ```text
//! free ──reserve──> reserved ──commit──> used      (the table holds it)
//!   ^                │   │
//!   └────release─────┘   └──in doubt──> (a commit failed, nobody knows how) ──new checkpoint──> free
//! any ──set_bad──> bad       used ──hold──> held: not used any more, but I/O that was sent there may still be under way
//!                                       └──set_drained──> free: it no longer can be
//! ```

use std::collections::{BTreeMap, BTreeSet};

use fixedbitset::FixedBitSet;

use crate::mutation::{Mutation, active};
use crate::slot::{Slot, SpareBlock};

/// A spare block that is reserved for a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The bad spare block whose data it takes over, if it does.
    pub(crate) replaces: Option<SpareBlock>,
}

/// The blocks of one spare. Those of another are no business of it.
pub(crate) struct Allocator {
    slot: Slot,
    free: FixedBitSet,
    bad: FixedBitSet,
    reserved: BTreeMap<SpareBlock, Reservation>,
    in_doubt: Vec<SpareBlock>,
    /// Blocks that hold nothing any more, while I/O to them may still be under way.
    held: BTreeSet<SpareBlock>,
    free_count: u32,
    /// Where the search for a free block begins: behind the last one given out.
    hint: usize,
}

impl Allocator {
    /// `total` blocks of the spare in `slot`, all free.
    pub(crate) fn new(slot: Slot, total: u32) -> Allocator {
        let mut free = FixedBitSet::with_capacity(total as usize);
        free.insert_range(..);
        Allocator {
            slot,
            free,
            bad: FixedBitSet::with_capacity(total as usize),
            reserved: BTreeMap::new(),
            in_doubt: Vec::new(),
            held: BTreeSet::new(),
            free_count: total,
            hint: 0,
        }
    }

    /// There are `total` blocks now, not fewer than before; the new ones are free.
    pub(crate) fn grow(&mut self, total: u32) {
        let (before, total) = (self.free.len(), total as usize);
        if total > before {
            self.free.grow(total);
            self.bad.grow(total);
            self.free.insert_range(before..);
            // Both were made from a u32.
            self.free_count += (total - before) as u32;
        }
    }

    pub(crate) fn total(&self) -> u32 {
        // It was made from a u32.
        self.free.len() as u32
    }

    pub(crate) fn free_count(&self) -> u32 {
        self.free_count
    }

    pub(crate) fn bad_count(&self) -> u32 {
        // At most `total`.
        self.bad.count_ones(..) as u32
    }

    /// The bad blocks, ascending.
    pub(crate) fn bad(&self) -> impl Iterator<Item = SpareBlock> + '_ {
        self.bad.ones().filter_map(|index| SpareBlock::new(self.slot, u32::try_from(index).ok()?))
    }

    /// Where `block` is in the sets, if it is of this spare.
    fn place(&self, block: SpareBlock) -> Option<usize> {
        let at = block.index() as usize;
        (block.slot() == self.slot && at < self.free.len()).then_some(at)
    }

    pub(crate) fn reservation(&self, block: SpareBlock) -> Option<Reservation> {
        self.reserved.get(&block).copied()
    }

    /// Reserves `count` blocks, consecutive ones where it can; none if there are not as many.
    pub(crate) fn reserve(&mut self, count: usize) -> Option<Vec<SpareBlock>> {
        if count > self.free_count as usize {
            return None;
        }
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let index = self.next_free(self.hint).or_else(|| self.next_free(0))?;
            let spare = SpareBlock::new(self.slot, u32::try_from(index).ok()?)?;
            self.take(spare);
            self.hint = index + 1;
            self.reserved.insert(spare, Reservation { replaces: None });
            found.push(spare);
        }
        Some(found)
    }

    /// Reserves a block that takes over the data of `bad`.
    pub(crate) fn reserve_instead(&mut self, bad: SpareBlock) -> Option<SpareBlock> {
        let spare = self.reserve(1)?.pop()?;
        self.reserved.insert(spare, Reservation { replaces: Some(bad) });
        Some(spare)
    }

    /// Gives a reservation back. Anything else than a reservation is ignored.
    pub(crate) fn release(&mut self, block: SpareBlock) {
        if self.reserved.remove(&block).is_some() {
            self.put_back(block);
        }
    }

    /// The block holds data from now on, whatever it was.
    pub(crate) fn set_used(&mut self, block: SpareBlock) {
        self.reserved.remove(&block);
        self.held.remove(&block);
        self.take(block);
    }

    /// The blocks with these indices hold data; before any is given out.
    pub(crate) fn set_all_used(&mut self, used: &FixedBitSet) {
        self.free.difference_with(used);
        // It was made from a u32.
        self.free_count = self.free.count_ones(..) as u32;
    }

    /// The block is out of use for good.
    pub(crate) fn set_bad(&mut self, block: SpareBlock) {
        self.reserved.remove(&block);
        self.take(block);
        if let Some(at) = self.place(block) {
            self.bad.insert(at);
        }
    }

    /// Nobody knows whether the log says that the reserved block is used.
    pub(crate) fn set_in_doubt(&mut self, block: SpareBlock) {
        if self.reserved.remove(&block).is_some() {
            if active(Mutation::ReuseSpareTooEarly) {
                self.put_back(block);
                self.hint = block.index() as usize;
                return;
            }
            self.in_doubt.push(block);
        }
    }

    /// The log is known again, and the blocks in doubt are not in it.
    pub(crate) fn settle_in_doubt(&mut self) {
        for block in std::mem::take(&mut self.in_doubt) {
            self.put_back(block);
        }
    }

    /// The block holds nothing any more, but I/O to it may be under way.
    pub(crate) fn hold(&mut self, block: SpareBlock) {
        self.held.insert(block);
    }

    /// No I/O to the block is under way any more: it is free, unless it came into use again, or is bad.
    pub(crate) fn set_drained(&mut self, block: SpareBlock) {
        if self.held.remove(&block) {
            self.put_back(block);
        }
    }

    /// Nothing is under way to any block any more.
    pub(crate) fn settle_held(&mut self) {
        for block in std::mem::take(&mut self.held) {
            self.put_back(block);
        }
    }

    /// Nothing is in doubt any more, as the log was read again. What was taken before and is not in it is not given out
    /// before the next open.
    pub(crate) fn forget_doubts(&mut self) {
        self.in_doubt.clear();
    }

    fn take(&mut self, block: SpareBlock) {
        if let Some(at) = self.place(block)
            && self.free.contains(at)
        {
            self.free.remove(at);
            self.free_count -= 1;
        }
    }

    fn put_back(&mut self, block: SpareBlock) {
        if let Some(at) = self.place(block)
            && !self.free.contains(at)
            && !self.bad.contains(at)
        {
            self.free.insert(at);
            self.free_count += 1;
        }
    }

    /// The first free block from `from` on.
    fn next_free(&self, from: usize) -> Option<usize> {
        const BITS: usize = usize::BITS as usize;
        let words = self.free.as_slice();
        let first = from / BITS;
        let masked = words.get(first)? & (usize::MAX << (from % BITS));
        let rest = words.iter().copied().enumerate().skip(first + 1);
        std::iter::once((first, masked))
            .chain(rest)
            .find(|(_, word)| *word != 0)
            .map(|(index, word)| index * BITS + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare(index: u32) -> SpareBlock {
        SpareBlock::new(Slot::FIRST, index).unwrap()
    }

    #[test]
    fn consecutive_requests_get_consecutive_blocks() {
        let mut allocator = Allocator::new(Slot::FIRST, 200);
        assert_eq!(allocator.reserve(2).unwrap(), [spare(0), spare(1)]);
        let next: Vec<_> = (2..150).map(spare).collect();
        assert_eq!(allocator.reserve(148).unwrap(), next);
        allocator.release(spare(3));
        // A block that was given back is not taken before the search has gone around.
        assert_eq!(allocator.reserve(1).unwrap(), [spare(150)]);
    }

    #[test]
    fn every_block_is_given_out_once_and_then_none() {
        let mut allocator = Allocator::new(Slot::FIRST, 130);
        assert_eq!(allocator.reserve(131), None);
        assert_eq!(allocator.free_count(), 130);
        assert_eq!(allocator.reserve(130).unwrap().len(), 130);
        assert_eq!(allocator.reserve(1), None);
        allocator.release(spare(64));
        allocator.release(spare(64));
        assert_eq!(allocator.free_count(), 1);
        assert_eq!(allocator.reserve(1).unwrap(), [spare(64)]);
    }

    #[test]
    fn what_is_in_use_at_open_is_not_given_out() {
        let mut allocator = Allocator::new(Slot::FIRST, 100);
        allocator.set_all_used(&FixedBitSet::from_iter((0..96).chain([98])));
        allocator.set_bad(spare(97));
        assert_eq!((allocator.free_count(), allocator.bad_count()), (2, 1));
        assert_eq!(allocator.reserve(2).unwrap(), [spare(96), spare(99)]);
        assert_eq!(allocator.reserve(1), None);
    }

    #[test]
    fn bad_used_and_doubtful_blocks_are_not_given_out() {
        let mut allocator = Allocator::new(Slot::FIRST, 6);
        let got = allocator.reserve(4).unwrap();
        allocator.set_used(got[0]);
        allocator.set_bad(got[1]);
        allocator.set_in_doubt(got[2]);
        for index in &got {
            allocator.release(*index);
        }
        assert_eq!(allocator.free_count(), 3, "4, 5, and the released 3");
        assert_eq!(allocator.bad().collect::<Vec<_>>(), [got[1]]);
        allocator.settle_in_doubt();
        assert_eq!(allocator.free_count(), 4);
        let again = allocator.reserve(4).unwrap();
        assert!(!again.contains(&got[0]) && !again.contains(&got[1]));
    }

    #[test]
    fn a_block_that_holds_nothing_any_more_is_free_when_it_is_drained_and_not_in_use_again() {
        let mut allocator = Allocator::new(Slot::FIRST, 3);
        for index in allocator.reserve(3).unwrap() {
            allocator.set_used(index);
            allocator.hold(index);
        }
        assert_eq!(allocator.free_count(), 0);
        allocator.set_drained(spare(0));
        assert_eq!(allocator.free_count(), 1);
        allocator.set_used(spare(1));
        allocator.set_bad(spare(2));
        allocator.set_drained(spare(1));
        allocator.set_drained(spare(2));
        assert_eq!(allocator.free_count(), 1);
    }

    #[test]
    fn blocks_of_another_spare_are_left_alone() {
        let mut allocator = Allocator::new(Slot::FIRST.other(), 8);
        let mine = allocator.reserve(2).unwrap();
        assert!(mine.iter().all(|block| block.slot() == Slot::FIRST.other()));
        for index in 0..8 {
            let other = spare(index);
            allocator.release(other);
            allocator.set_used(other);
            allocator.hold(other);
            allocator.set_drained(other);
            allocator.set_bad(other);
        }
        assert_eq!((allocator.free_count(), allocator.bad_count()), (6, 0));
        assert!(mine.iter().all(|block| allocator.reservation(*block).is_some()));
    }

    #[test]
    fn a_replacement_knows_what_it_replaces() {
        let mut allocator = Allocator::new(Slot::FIRST, 4);
        let bad = spare(3);
        allocator.set_used(bad);
        let new = allocator.reserve_instead(bad).unwrap();
        assert_eq!(allocator.reservation(new), Some(Reservation { replaces: Some(bad) }));
        allocator.set_used(new);
        assert_eq!(allocator.reservation(new), None);
    }
}
