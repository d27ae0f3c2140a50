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

use std::collections::{HashMap, HashSet};

use fixedbitset::FixedBitSet;

use crate::mutation::{Mutation, active};
use crate::units::SpareIndex;

/// A spare block that is reserved for a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The bad spare block whose data it takes over, if it does.
    pub(crate) replaces: Option<SpareIndex>,
}

pub(crate) struct Allocator {
    free: FixedBitSet,
    bad: FixedBitSet,
    reserved: HashMap<SpareIndex, Reservation>,
    in_doubt: Vec<SpareIndex>,
    /// Blocks that hold nothing any more, while I/O to them may still be under way.
    held: HashSet<SpareIndex>,
    free_count: u32,
    /// Where the search for a free block begins: behind the last one given out.
    hint: usize,
}

impl Allocator {
    /// `total` spare blocks, all free.
    pub(crate) fn new(total: u32) -> Allocator {
        let mut free = FixedBitSet::with_capacity(total as usize);
        free.insert_range(..);
        Allocator {
            free,
            bad: FixedBitSet::with_capacity(total as usize),
            reserved: HashMap::new(),
            in_doubt: Vec::new(),
            held: HashSet::new(),
            free_count: total,
            hint: 0,
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
    pub(crate) fn bad(&self) -> impl Iterator<Item = SpareIndex> + '_ {
        self.bad.ones().filter_map(|index| SpareIndex::new(u32::try_from(index).ok()?))
    }

    pub(crate) fn is_bad(&self, index: SpareIndex) -> bool {
        self.bad.contains(index.get() as usize)
    }

    pub(crate) fn reservation(&self, index: SpareIndex) -> Option<Reservation> {
        self.reserved.get(&index).copied()
    }

    /// Reserves `count` blocks, consecutive ones where it can; none if there are not as many.
    pub(crate) fn reserve(&mut self, count: usize) -> Option<Vec<SpareIndex>> {
        if count > self.free_count as usize {
            return None;
        }
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let index = self.next_free(self.hint).or_else(|| self.next_free(0))?;
            let spare = SpareIndex::new(u32::try_from(index).ok()?)?;
            self.take(spare);
            self.hint = index + 1;
            self.reserved.insert(spare, Reservation { replaces: None });
            found.push(spare);
        }
        Some(found)
    }

    /// Reserves a block that takes over the data of `bad`.
    pub(crate) fn reserve_instead(&mut self, bad: SpareIndex) -> Option<SpareIndex> {
        let spare = self.reserve(1)?.pop()?;
        self.reserved.insert(spare, Reservation { replaces: Some(bad) });
        Some(spare)
    }

    /// Gives a reservation back. Anything else than a reservation is ignored.
    pub(crate) fn release(&mut self, index: SpareIndex) {
        if self.reserved.remove(&index).is_some() {
            self.put_back(index);
        }
    }

    /// The block holds data from now on, whatever it was.
    pub(crate) fn set_used(&mut self, index: SpareIndex) {
        self.reserved.remove(&index);
        self.held.remove(&index);
        self.take(index);
    }

    /// The block is out of use for good.
    pub(crate) fn set_bad(&mut self, index: SpareIndex) {
        self.reserved.remove(&index);
        self.take(index);
        if (index.get() as usize) < self.bad.len() {
            self.bad.insert(index.get() as usize);
        }
    }

    /// Nobody knows whether the log says that the reserved block is used.
    pub(crate) fn set_in_doubt(&mut self, index: SpareIndex) {
        if self.reserved.remove(&index).is_some() {
            if active(Mutation::ReuseSpareTooEarly) {
                self.put_back(index);
                self.hint = index.get() as usize;
                return;
            }
            self.in_doubt.push(index);
        }
    }

    /// The log is known again, and the blocks in doubt are not in it.
    pub(crate) fn settle_in_doubt(&mut self) {
        for index in std::mem::take(&mut self.in_doubt) {
            self.put_back(index);
        }
    }

    /// The block holds nothing any more, but I/O to it may be under way.
    pub(crate) fn hold(&mut self, index: SpareIndex) {
        self.held.insert(index);
    }

    /// No I/O to the block is under way any more: it is free, unless it came into use again, or is bad.
    pub(crate) fn set_drained(&mut self, index: SpareIndex) {
        if self.held.remove(&index) {
            self.put_back(index);
        }
    }

    /// Nothing is in doubt any more, as the log was read again. What was taken before and is not in it is not given out
    /// before the next open.
    pub(crate) fn forget_doubts(&mut self) {
        self.in_doubt.clear();
    }

    fn take(&mut self, index: SpareIndex) {
        let index = index.get() as usize;
        if self.free.contains(index) {
            self.free.remove(index);
            self.free_count -= 1;
        }
    }

    fn put_back(&mut self, index: SpareIndex) {
        let at = index.get() as usize;
        if at < self.free.len() && !self.free.contains(at) && !self.is_bad(index) {
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

    fn spare(index: u32) -> SpareIndex {
        SpareIndex::new(index).unwrap()
    }

    #[test]
    fn consecutive_requests_get_consecutive_blocks() {
        let mut allocator = Allocator::new(200);
        assert_eq!(allocator.reserve(2).unwrap(), [spare(0), spare(1)]);
        let next: Vec<_> = (2..150).map(spare).collect();
        assert_eq!(allocator.reserve(148).unwrap(), next);
        allocator.release(spare(3));
        // A block that was given back is not taken before the search has gone around.
        assert_eq!(allocator.reserve(1).unwrap(), [spare(150)]);
    }

    #[test]
    fn every_block_is_given_out_once_and_then_none() {
        let mut allocator = Allocator::new(130);
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
    fn bad_used_and_doubtful_blocks_are_not_given_out() {
        let mut allocator = Allocator::new(6);
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
        let mut allocator = Allocator::new(3);
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
    fn a_replacement_knows_what_it_replaces() {
        let mut allocator = Allocator::new(4);
        let bad = spare(3);
        allocator.set_used(bad);
        let new = allocator.reserve_instead(bad).unwrap();
        assert_eq!(allocator.reservation(new), Some(Reservation { replaces: Some(bad) }));
        allocator.set_used(new);
        assert_eq!(allocator.reservation(new), None);
    }
}
