//! The filter beside a region: what is not in there, in sixteen bytes. Nearly all looks at a block that is not remapped end here, where
//! the outline cannot tell.
//!
//! ```text
//! | parts: a bit for each sixty-fourth of the region | rests: a bit for each remainder of a key by 64 |
//! ```
//! A block may be in the region where its bits are set in both. Of 16 blocks anywhere, each has a quarter of its bits: so one look in twenty at
//! another block goes on to the region itself, in far memory.
//!
//! A bit is there before the region holds what it is for, and until it does not any more: a reader that finds none sees the region as it
//! was, or is, without looking at it. That holds of each of the two by itself, so that they need not change together.

use super::region::REGION_BLOCKS;
use crate::sync::{AtomicU64, Ordering};

/// Blocks of a sixty-fourth.
pub(super) const PART_BLOCKS: u16 = (REGION_BLOCKS / 64) as u16;

/// The bits for some blocks of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    parts: u64,
    rests: u64,
}

impl Marks {
    pub(super) const NONE: Marks = Marks { parts: 0, rests: 0 };

    /// Those for the blocks from key `low` to `high`.
    #[inline]
    pub(super) fn of(low: u16, high: u16) -> Marks {
        let parts = !0 << (low / PART_BLOCKS) & !0 >> (63 - high / PART_BLOCKS);
        let rests = match high - low {
            behind @ ..63 => (!0_u64 >> (63 - behind)).rotate_left(u32::from(low)),
            _ => !0,
        };
        Marks { parts, rests }
    }

    /// Those that either has.
    pub(super) fn union(self, other: Marks) -> Marks {
        Marks { parts: self.parts | other.parts, rests: self.rests | other.rests }
    }

    /// A bit for each sixty-fourth of the region.
    pub(super) fn parts(self) -> u64 {
        self.parts
    }
}

/// What readers look at.
#[repr(C, align(16))]
pub(super) struct Filter {
    parts: AtomicU64,
    rests: AtomicU64,
}

impl Filter {
    /// That of a region in which nothing is.
    pub(super) fn new() -> Filter {
        Filter { parts: AtomicU64::new(0), rests: AtomicU64::new(0) }
    }

    /// Whether the region may hold the block with this key. Both are in one cache line, and one branch is guessed right more often than
    /// two.
    #[inline]
    pub(super) fn may_hold_one(&self, key: u16) -> bool {
        let (parts, rests) = self.load();
        parts >> (key / PART_BLOCKS % 64) & rests >> (key % 64) & 1 != 0
    }

    /// Whether the region may hold anything from key `low` to `high`.
    #[inline]
    pub(super) fn may_hold(&self, low: u16, high: u16) -> bool {
        let (Marks { parts, rests }, found) = (Marks::of(low, high), self.load());
        found.0 & parts != 0 && found.1 & rests != 0
    }

    #[inline]
    fn load(&self) -> (u64, u64) {
        // Acquire: who finds no bit any more never finds the region as it was before.
        (self.parts.load(Ordering::Acquire), self.rests.load(Ordering::Acquire))
    }

    /// The region is about to hold what these are for.
    pub(super) fn announce(&self, marks: Marks) {
        // Relaxed: who sees the region, which is published with Release, sees this. No store: so who sees this and no bit of an earlier
        // change sees what that change did, as this goes on with its release sequence.
        self.parts.fetch_or(marks.parts, Ordering::Relaxed);
        self.rests.fetch_or(marks.rests, Ordering::Relaxed);
    }

    /// The region holds what these are for, and nothing else any more.
    pub(super) fn settle(&self, marks: Marks) {
        // Release, for `may_hold`.
        self.parts.store(marks.parts, Ordering::Release);
        self.rests.store(marks.rests, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::region::LAST_KEY;

    #[test]
    fn a_range_has_the_bits_of_its_blocks() {
        for (low, lengths) in [(0, 1..200), (63, 1..200), (255, 1..70), (16_000, 1..300)] {
            let mut all = Marks::NONE;
            for length in lengths {
                let high = low + length - 1;
                all = all.union(Marks::of(high, high));
                assert_eq!(Marks::of(low, high), all, "{low} to {high}");
            }
        }
        assert_eq!(Marks::of(0, LAST_KEY), Marks { parts: !0, rests: !0 });
    }

    #[test]
    fn what_is_in_there_may_be_there_and_little_else() {
        let filter = Filter::new();
        assert!(!filter.may_hold(0, LAST_KEY));
        // As the blocks of a million that are spread at random over 4 TiB, in one region.
        let keys: Vec<u16> = (0..16_u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16).collect();
        let marks = keys.iter().fold(Marks::NONE, |marks, key| marks.union(Marks::of(*key, *key)));
        filter.announce(marks);
        assert!(keys.iter().all(|key| filter.may_hold_one(*key)));
        assert!((0..=LAST_KEY).all(|key| filter.may_hold_one(key) == filter.may_hold(key, key)));
        let taken = (0..=LAST_KEY).filter(|key| filter.may_hold_one(*key)).count();
        assert!(taken < usize::from(LAST_KEY) / 15, "{taken} of {LAST_KEY} may be there");
        let few = Marks::of(keys[0], keys[0]);
        filter.settle(few);
        assert_eq!((0..=LAST_KEY).filter(|key| filter.may_hold_one(*key)).count(), 4, "those that share both bits");
    }
}
