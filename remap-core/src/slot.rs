//! The slots of a set: where its spares are, one in each. Two, so that all can move from one spare to another.
//!
//! Whoever has something for each spare keeps it [`PerSlot`]; a [`SpareBlock`] says in which slot the spare is that it is on.

use std::fmt;
use std::ops::{Index, IndexMut};

use crate::units::MAX_SPARE_BLOCKS;

/// The slot of a spare in its set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    /// The slot of the first spare of a set.
    pub const FIRST: Slot = Slot(0);
    /// Both.
    pub const BOTH: [Slot; 2] = [Slot(0), Slot(1)];

    /// Slot 0 or 1.
    #[must_use]
    pub fn new(slot: u32) -> Option<Slot> {
        // 0 or 1.
        (slot < 2).then_some(Slot(slot as u8))
    }

    /// 0 or 1.
    #[inline]
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Slot {
        Slot(1 - self.0)
    }
}

/// One of something for each slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSlot<T>(pub [T; 2]);

impl<T> PerSlot<T> {
    /// What `make` makes for each slot.
    pub fn each(make: impl FnMut(Slot) -> T) -> PerSlot<T> {
        PerSlot(Slot::BOTH.map(make))
    }

    /// `one` in `slot`, and in the other what is there where there is no spare.
    pub fn only(slot: Slot, one: T) -> PerSlot<T>
    where
        T: Default,
    {
        let mut all = PerSlot::<T>::default();
        all[slot] = one;
        all
    }

    /// What there is, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        Slot::BOTH.into_iter().zip(&self.0)
    }
}

impl PerSlot<bool> {
    /// So in no slot.
    pub const NONE: PerSlot<bool> = PerSlot([false; 2]);
}

impl<T> Index<Slot> for PerSlot<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: Slot) -> &T {
        // Cut to the two that there are, so that this cannot fail.
        &self.0[usize::from(slot.0 & 1)]
    }
}

impl<T> IndexMut<Slot> for PerSlot<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.0[usize::from(slot.0 & 1)]
    }
}

/// Where the slot is in a [`SpareBlock`], above the index.
const SLOT_SHIFT: u32 = 30;

/// A spare block: a slot, and an index into the data area of the spare there, always below [`MAX_SPARE_BLOCKS`]. Of 31 bits,
/// so that a value of the remap table holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpareBlock(u32);

impl SpareBlock {
    /// The block `index` of the spare in `slot`, or `None` if that is [`MAX_SPARE_BLOCKS`] or more.
    #[inline]
    #[must_use]
    pub fn new(slot: Slot, index: u32) -> Option<SpareBlock> {
        (index < MAX_SPARE_BLOCKS).then_some(SpareBlock(u32::from(slot.0) << SLOT_SHIFT | index))
    }

    /// In which slot its spare is.
    #[inline]
    #[must_use]
    pub fn slot(self) -> Slot {
        // One bit: there is none above it.
        Slot((self.0 >> SLOT_SHIFT) as u8)
    }

    /// Its index, in blocks from the start of the data area.
    #[inline]
    #[must_use]
    pub fn index(self) -> u32 {
        self.0 & (MAX_SPARE_BLOCKS - 1)
    }

    /// The block `blocks` further on, on the same spare, if there can be such a one.
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> Option<SpareBlock> {
        let index = u64::from(self.index()).checked_add(blocks)?;
        SpareBlock::new(self.slot(), u32::try_from(index).ok()?)
    }

    /// What a value of the remap table holds.
    #[inline]
    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    /// The block that a value of the remap table holds, whatever else that says.
    #[inline]
    pub(crate) fn of_bits(value: u32) -> SpareBlock {
        SpareBlock(value & (1 << SLOT_SHIFT | (MAX_SPARE_BLOCKS - 1)))
    }
}

impl fmt::Debug for SpareBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpareBlock({}:{})", self.slot().get(), self.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_knows_its_slot_and_its_index() {
        for slot in Slot::BOTH {
            for index in [0, 1, 77, MAX_SPARE_BLOCKS - 1] {
                let block = SpareBlock::new(slot, index).unwrap();
                assert_eq!((block.slot(), block.index()), (slot, index));
                assert_eq!(SpareBlock::of_bits(block.to_bits()), block);
            }
            assert_eq!(SpareBlock::new(slot, MAX_SPARE_BLOCKS), None);
        }
    }

    #[test]
    fn a_run_of_blocks_stays_on_its_spare() {
        for slot in Slot::BOTH {
            let block = |index| SpareBlock::new(slot, index);
            assert_eq!(block(5).unwrap().plus(7), block(12));
            assert_eq!(block(MAX_SPARE_BLOCKS - 1).unwrap().plus(1), None);
            assert_eq!(block(1).unwrap().plus(u64::MAX), None);
            assert_eq!(block(0).unwrap().plus(1 << SLOT_SHIFT), None);
        }
    }

    #[test]
    fn what_is_for_one_slot_is_not_for_the_other() {
        let second = Slot::FIRST.other();
        let only = PerSlot::only(second, true);
        assert_eq!((only[Slot::FIRST], only[second]), (false, true));
        assert_eq!(only.iter().map(|(slot, there)| (slot.get(), *there)).collect::<Vec<_>>(), [(0, false), (1, true)]);
        assert_eq!(PerSlot::each(|slot| slot.get()).0, [0, 1]);
    }
}
