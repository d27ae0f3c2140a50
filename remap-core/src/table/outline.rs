//! The outline of the remap table: where on the base anything is remapped at all, in few bits.
//!
//! A bit stands for 256 blocks or, so that there are no more bits than a near cache has room for, on a larger base for twice as many,
//! and so on. Nearly all looks at a block that is not remapped end here: a look at the region itself is one into far memory, which
//! takes as long as all else that is done for an I/O.
//!
//! A far table, of very many regions, mostly fills its outline, which would take time and a near cache's room to say nothing: then it is not asked.
//!
//! As with the filter beside a region, a bit is there before the region holds what it is for, and until it does not any more. A base
//! that has grown has no bits for its new end: there, every look is one at the region.

use super::filter::PART_BLOCKS;
use super::region::REGION_BLOCKS;
use crate::sync::{AtomicU64, Ordering};

/// Words of the outline: 16 KiB. Few for loom, which looks at every place.
const WORDS: usize = if cfg!(loom) { 1 } else { 2048 };
const BITS: u64 = WORDS as u64 * 64;
/// Blocks of a bit of the outline of a small base, and of a part of a region's filter, as a power of two.
const FILTER_SHIFT: u32 = PART_BLOCKS.trailing_zeros();

pub(super) struct Outline {
    words: [AtomicU64; WORDS],
    /// Blocks of a bit, as a power of two.
    shift: u32,
    /// So many bits are asked for: all, or none.
    asked: AtomicU64,
}

/// Bits of one word.
#[derive(Clone, Copy)]
struct Bits {
    word: usize,
    mask: u64,
}

impl Outline {
    /// That of an empty table for a base of this size.
    pub(super) fn new(base_blocks: u64) -> Outline {
        let mut shift = FILTER_SHIFT;
        while base_blocks.saturating_sub(1) >> shift >= BITS {
            shift += 1;
        }
        Outline { words: std::array::from_fn(|_| AtomicU64::new(0)), shift, asked: AtomicU64::new(BITS) }
    }

    /// Whether it is asked from now on. If not, it goes on to be right.
    pub(super) fn set_asked(&self, asked: bool) {
        let bits = if asked { BITS } else { 0 };
        // Relaxed, as what the words say holds whenever they are asked. It is not written without need, as readers are near.
        if self.asked.load(Ordering::Relaxed) != bits {
            self.asked.store(bits, Ordering::Relaxed);
        }
    }

    /// Whether anything may be remapped from block `first` to block `last`.
    #[inline(always)]
    pub(super) fn may_hold(&self, first: u64, last: u64) -> bool {
        match self.bits(first, last, self.asked.load(Ordering::Relaxed)) {
            // Acquire: who finds no bit any more never finds a region as it was before.
            Some(Bits { word, mask }) => self.words[word].load(Ordering::Acquire) & mask != 0,
            None => true,
        }
    }

    /// Those of the first `end` bits that are for these blocks; `None` if they are not in one word, or not there.
    #[inline(always)]
    fn bits(&self, first: u64, last: u64, end: u64) -> Option<Bits> {
        let (first, last) = (first >> self.shift, last >> self.shift);
        if last >= end || first / 64 != last / 64 {
            return None;
        }
        // It is below WORDS, as there are no more bits: the remainder only tells the compiler.
        Some(Bits { word: (first / 64) as usize % WORDS, mask: !0 << (first % 64) & !0 >> (63 - last % 64) })
    }

    /// Regions that share a bit, as the first and the last number, with this one among them.
    pub(super) fn together(&self, number: u64) -> (u64, u64) {
        let others = (1 << self.shift) / REGION_BLOCKS;
        let first = number - number % others.max(1);
        (first, first + others.saturating_sub(1))
    }

    /// Region `number` is about to hold what this filter is for.
    pub(super) fn announce(&self, number: u64, filter: u64) {
        if let Some((_, set)) = self.of_region(number, filter) {
            self.change(set.word, |bits| bits | set.mask);
        }
    }

    /// Region `number`, and those that share its bit, hold what this filter is for, and nothing else any more.
    pub(super) fn settle(&self, number: u64, filter: u64) {
        if let Some((all, set)) = self.of_region(number, filter) {
            self.change(set.word, |bits| bits & !(all.mask & !set.mask));
        }
    }

    fn change(&self, word: usize, change: impl Fn(u64) -> u64) {
        let word = &self.words[word];
        // Release, for `may_hold`; there is one writer, so that nothing can come in between.
        word.store(change(word.load(Ordering::Relaxed)), Ordering::Release);
    }

    /// All bits of a region, and those that are set for its filter; `None` if it has none.
    fn of_region(&self, number: u64, filter: u64) -> Option<(Bits, Bits)> {
        let start = number * REGION_BLOCKS;
        let all = self.bits(start, start + (REGION_BLOCKS - 1), BITS)?;
        // A bit here is for so many of the filter.
        let together = 1 << (self.shift - FILTER_SHIFT).min(6);
        let mut mask = 0;
        let mut rest = filter;
        while rest != 0 {
            let part = rest.trailing_zeros();
            let block = start + (u64::from(part) << FILTER_SHIFT);
            mask |= self.bits(block, block, BITS)?.mask;
            rest &= (!0_u64).checked_shl(part - part % together + together).unwrap_or(0);
        }
        Some((all, Bits { word: all.word, mask }))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The base with the smallest bits, and one with a bit for four regions.
    const BASES: [u64; 2] = [BITS << FILTER_SHIFT, (BITS * 4) << REGION_BLOCKS.trailing_zeros()];

    #[test]
    fn a_bit_stands_for_as_few_blocks_as_there_is_room_for() {
        let shift = |blocks| Outline::new(blocks).shift;
        assert_eq!(BASES.map(shift), [8, 16]);
        assert_eq!(shift(BASES[0] + 1), 9);
        assert_eq!((shift(0), shift(1)), (8, 8));
        assert_eq!(Outline::new(BASES[0]).together(5), (5, 5));
        assert_eq!(Outline::new(BASES[1]).together(5), (4, 7));
    }

    #[test]
    fn a_bit_is_set_where_one_of_a_filter_is_that_it_is_for() {
        let filters = [0, 1, 1 << 63, 1 << 31 | 1 << 32, 0x8000_0100_0001_8000, 0x5555_5555_5555_5555, !0];
        for shift in FILTER_SHIFT..FILTER_SHIFT + 20 {
            let outline = Outline::new(BITS << shift);
            assert_eq!(outline.shift, shift);
            for (number, filter) in [0, 5, 63].into_iter().flat_map(|number| filters.map(|filter| (number, filter))) {
                let start = number * REGION_BLOCKS;
                let block = |part: u64| start + (part << FILTER_SHIFT);
                let expected = (0..64).filter(|part| filter >> part & 1 != 0).map(block);
                let expected = expected.fold(0, |mask, block| mask | outline.bits(block, block, BITS).unwrap().mask);
                let (all, set) = outline.of_region(number, filter).unwrap();
                assert_eq!((set.mask, set.mask & !all.mask), (expected, 0), "{filter:x} of {number}, {shift}");
            }
        }
    }

    #[test]
    fn what_is_announced_may_be_there_until_it_is_settled() {
        let outline = Outline::new(BASES[0]);
        let start = 9 * REGION_BLOCKS;
        assert!(!outline.may_hold(start, start + 255));
        // The third and the last sixty-fourth of the region.
        outline.announce(9, 1 << 2 | 1 << 63);
        let held = |part: u64| outline.may_hold(start + part * 256 + 7, start + part * 256 + 9);
        assert_eq!((0..64).filter(|part| held(*part)).collect::<Vec<_>>(), [2, 63]);
        assert!(outline.may_hold(start, start + REGION_BLOCKS - 1), "the whole region");
        assert!(outline.may_hold(start - 1, start), "two words are not looked at");
        assert!(!outline.may_hold(start + 3 * 256, start + 63 * 256 - 1), "what is between them");
        outline.settle(9, 1 << 63);
        assert_eq!((0..64).filter(|part| held(*part)).collect::<Vec<_>>(), [63]);
        outline.settle(9, 0);
        assert!(!outline.may_hold(start, start + REGION_BLOCKS - 1));
    }

    #[test]
    fn while_it_is_not_asked_all_may_be_there_and_it_goes_on_to_be_right() {
        let outline = Outline::new(BASES[0]);
        outline.announce(9, 1);
        outline.set_asked(false);
        assert!(outline.may_hold(0, 0) && outline.may_hold(9 * REGION_BLOCKS, 9 * REGION_BLOCKS));
        outline.announce(0, 1);
        outline.settle(9, 0);
        outline.set_asked(true);
        assert!(outline.may_hold(0, 0) && !outline.may_hold(9 * REGION_BLOCKS, 9 * REGION_BLOCKS));
    }

    #[test]
    fn behind_its_end_all_may_be_there() {
        let outline = Outline::new(BASES[0]);
        assert!(!outline.may_hold(BASES[0] - 1, BASES[0] - 1));
        assert!(outline.may_hold(BASES[0], BASES[0]));
        outline.announce(BASES[0] / REGION_BLOCKS, !0);
        outline.settle(BASES[0] / REGION_BLOCKS, 0);
    }
}
