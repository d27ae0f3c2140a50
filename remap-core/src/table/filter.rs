//! The filter of a region: what is not in there, in two words. Nearly all looks at a block that is not remapped end here, where the
//! outline cannot tell.
//!
//! ```text
//! | places: a bit for each 256 blocks, and one for each 64 |  | blocks: a bit for each remainder by 64, and one by chance |
//! ```
//! Both bits of a word are among the same 64. A block may be in the region where all of its bits are set. Where a region holds 16 blocks, one look in six at another block goes on
//! from the first word to the second, and one in forty to the region itself, in far memory, which takes longer than all the rest. So the
//! first words of a node's regions are side by side: there are half as many bytes that all looks share a near cache for.
//!
//! A bit is there before the region holds what it is for, and until it does not any more: a reader that finds none sees the region as it
//! was, or is, without looking at it. That holds of each word by itself, so that they need not change together.

use super::region::REGION_BLOCKS;
use crate::sync::{AtomicU64, Ordering};

/// Blocks of a sixty-fourth.
pub(super) const PART_BLOCKS: u16 = (REGION_BLOCKS / 64) as u16;
/// Blocks of a group: those of every 64th one have the same bit.
const GROUP_BLOCKS: u16 = 64;
/// Up to so many blocks are asked for one by one.
const ASKED_FOR: u16 = 8;

/// The bits for some blocks of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    parts: u64,
    groups: u64,
    blocks: u64,
}

impl Marks {
    /// Those for the block with this key.
    pub(super) fn of_block(key: u16) -> Marks {
        Marks { blocks: 1 << (key % 64) | 1 << scattered(key), ..Marks::of_places(key, key) }
    }

    /// Those for all blocks from key `low` to `high`, of which there are many.
    pub(super) fn of_many(low: u16, high: u16) -> Marks {
        Marks { blocks: !0, ..Marks::of_places(low, high) }
    }

    /// Those for where the blocks from key `low` to `high` are.
    #[inline(always)]
    fn of_places(low: u16, high: u16) -> Marks {
        let parts = !0 << (low / PART_BLOCKS) & !0 >> (63 - high / PART_BLOCKS);
        let (first, last) = (low / GROUP_BLOCKS, high / GROUP_BLOCKS);
        let groups = match last - first {
            behind @ ..63 => (!0_u64 >> (63 - behind)).rotate_left(u32::from(first)),
            _ => !0,
        };
        Marks { parts, groups, blocks: 0 }
    }

    /// Those that either has.
    pub(super) fn union(self, other: Marks) -> Marks {
        let (parts, groups) = (self.parts | other.parts, self.groups | other.groups);
        Marks { parts, groups, blocks: self.blocks | other.blocks }
    }

    /// A bit for each sixty-fourth of the region.
    pub(super) fn parts(self) -> u64 {
        self.parts
    }

    /// The first word.
    pub(super) fn places(self) -> u64 {
        self.parts | self.groups
    }

    /// The second word.
    pub(super) fn blocks(self) -> u64 {
        self.blocks
    }
}

/// Which bit of the second word a block has beside the one for its remainder: as if by chance, however far apart remaps are.
#[inline(always)]
fn scattered(key: u16) -> u32 {
    let mixed = u32::from(key).wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> 26
}

/// Whether a region with this first word may hold the block with this key.
#[inline(always)]
pub(super) fn place_may_hold(places: u64, key: u16) -> bool {
    places >> (key / PART_BLOCKS % 64) & places >> (key / GROUP_BLOCKS % 64) & 1 != 0
}

/// Whether a region with this second word may hold the block with this key.
#[inline(always)]
pub(super) fn block_may_hold(blocks: u64, key: u16) -> bool {
    blocks >> (key % 64) & blocks >> scattered(key) & 1 != 0
}

/// Whether a region with this first word may hold anything from key `low` to `high`.
#[inline]
pub(super) fn places_may_hold(places: u64, low: u16, high: u16) -> bool {
    let wanted = Marks::of_places(low, high);
    places & wanted.parts != 0 && places & wanted.groups != 0
}

/// Whether a region with this second word may hold anything from key `low` to `high`: of more than a few blocks it does not tell.
#[inline]
pub(super) fn blocks_may_hold(blocks: u64, low: u16, high: u16) -> bool {
    high - low >= ASKED_FOR || (low..high + 1).any(|key| block_may_hold(blocks, key))
}

/// What readers look at.
pub(super) struct Word(AtomicU64);

impl Word {
    /// That of a region in which nothing is.
    pub(super) fn new() -> Word {
        Word(AtomicU64::new(0))
    }

    /// The bits that are there.
    #[inline]
    pub(super) fn load(&self) -> u64 {
        // Acquire: who finds no bit any more never finds the region as it was before.
        self.0.load(Ordering::Acquire)
    }

    /// The region is about to hold what these bits are for.
    pub(super) fn announce(&self, bits: u64) {
        // Relaxed: who sees the region, which is published with Release, sees this. No store: so who sees this and no bit of an earlier
        // change sees what that change did, as this goes on with its release sequence.
        self.0.fetch_or(bits, Ordering::Relaxed);
    }

    /// The region holds what these bits are for, and nothing else any more.
    pub(super) fn settle(&self, bits: u64) {
        // Release, for `load`.
        self.0.store(bits, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::region::LAST_KEY;

    fn union(keys: impl IntoIterator<Item = u16>) -> Marks {
        keys.into_iter().fold(Marks::default(), |marks, key| marks.union(Marks::of_block(key)))
    }

    /// Whether what has these marks may hold anything between these keys.
    fn holds(marks: Marks, low: u16, high: u16) -> bool {
        places_may_hold(marks.places(), low, high) && blocks_may_hold(marks.blocks(), low, high)
    }

    #[test]
    fn many_blocks_have_the_bits_of_all_of_them() {
        for (low, high) in
            [(0, 255), (100, 163), (127, 128), (512, 1023), (16_000, LAST_KEY), (300, 5_000), (0, LAST_KEY)]
        {
            let (of_many, of_blocks) = (Marks::of_many(low, high), union(low..=high));
            assert_eq!(of_many.places(), of_blocks.places(), "{low} to {high}");
            assert_eq!(of_many.parts(), of_blocks.parts(), "{low} to {high}");
            assert_eq!(of_many.blocks(), !0);
        }
    }

    #[test]
    fn a_look_at_several_blocks_sees_each_of_them() {
        for key in [0, 63, 64, 255, 256, 5_000, LAST_KEY] {
            let marks = Marks::of_block(key);
            for length in [1, 2, 7, 8, 9, 64, 65, 300, 5_000] {
                for low in [key.saturating_sub(length - 1), key.saturating_sub(length / 2), key] {
                    let high = low.saturating_add(length - 1).min(LAST_KEY);
                    assert!(holds(marks, low, high), "{key}, from {low} to {high}");
                }
            }
        }
        let marks = Marks::of_block(5_000);
        assert!(!holds(marks, 0, 63) && !holds(marks, 6_000, LAST_KEY), "where nothing is");
        assert!(!holds(marks, 5_001, 5_004) && holds(marks, 5_001, 5_016), "few are asked for one by one");
    }

    #[test]
    fn each_bit_is_for_about_as_many_blocks() {
        let mut counts = [[0; 64]; 3];
        for marks in (0..=LAST_KEY).map(Marks::of_block) {
            for (counts, word) in counts.iter_mut().zip([marks.parts, marks.groups, marks.blocks]) {
                counts.iter_mut().enumerate().for_each(|(bit, count)| *count += word >> bit & 1);
            }
        }
        let [parts, groups, blocks] = counts;
        assert_eq!((parts, groups), ([256; 64], [256; 64]));
        assert!(blocks.iter().all(|count| (400..600).contains(count)), "{blocks:?}");
    }

    #[test]
    fn what_is_in_there_may_be_there_and_little_else() {
        // As the blocks of a million that are spread over 4 TiB are in one region: at random, and evenly.
        let random = |seed: u64| {
            (1..16).map(move |at| ((seed * 16 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 50) as u16)
        };
        let even = |first: u64| (0..15).map(move |at| (at * 1073 + first * 17) as u16);
        let taken = |keys: Vec<u16>| {
            let marks = union(keys.iter().copied());
            assert!(keys.iter().all(|key| holds(marks, *key, *key)));
            let holds_one = |key| place_may_hold(marks.places(), key) && block_may_hold(marks.blocks(), key);
            assert!((0..=LAST_KEY).all(|key| holds_one(key) == holds(marks, key, key)));
            (0..=LAST_KEY).filter(|key| holds_one(*key)).count()
        };
        for (name, taken) in [
            ("at random", (0..60).map(|seed| taken(random(seed).collect())).sum::<usize>()),
            ("evenly", (0..60).map(|first| taken(even(first).collect())).sum()),
        ] {
            let share = taken as f64 / (60.0 * f64::from(LAST_KEY));
            assert!(share < 0.03, "{name}: {share} of all blocks may be there");
        }
    }

    #[test]
    fn bits_are_there_from_when_they_are_announced_until_others_are_settled() {
        let word = Word::new();
        assert_eq!(word.load(), 0);
        word.announce(0b101);
        word.announce(0b1000);
        assert_eq!(word.load(), 0b1101);
        word.settle(0b1001);
        assert_eq!(word.load(), 0b1001);
    }
}
