//! The filter of a region: what is not in there, in three words. Nearly all looks at a block that is not remapped end here, where the
//! outline cannot tell.
//!
//! ```text
//! | places: a bit for each 256 blocks, |  | blocks: a bit for each remainder | chance: two as if by chance |
//! |         and one for each 64         |  |         by 64, and one by chance |                             |
//! ```
//! All bits of a word are among the same 64. A block may be in the region where all of its bits are set. Where a region holds 16 blocks, one look
//! in six at another block goes on from the first word to the others, and one in 240 to the region itself. So the first words of a node's regions
//! are side by side, to share a near cache, and the others are beside the pointer.
//!
//! A bit is there before the region holds what it is for, and until it does not any more: a reader that finds none sees the region as it
//! was, or is, without looking at it. That holds of each word by itself, so that they need not change together.

use super::region::{LAST_KEY, REGION_BLOCKS};
use crate::mutation::{self, Mutation};
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
    chance: u64,
}

impl Marks {
    /// Those for the blocks with these keys.
    pub(super) fn of_blocks(keys: &[u16]) -> Marks {
        let mut marks = Marks::default();
        // A loop that may stop at each key is not made into vectors, which take longer: those of x86-64-v2 cannot be shifted by a
        // number of its own for each part.
        match keys.iter().try_for_each(|key| marks.add(*key)) {
            Some(()) => marks,
            // Not a key of a region: no bit may be missing, whatever it is.
            None => Marks::of_many(0, LAST_KEY),
        }
    }

    /// Adds those for the block with this key; `None` if no region has it.
    #[inline(always)]
    fn add(&mut self, key: u16) -> Option<()> {
        let [one, two, three] = scattered(key);
        self.parts |= 1_u64.checked_shl(u32::from(key / PART_BLOCKS))?;
        self.groups |= 1 << (key / GROUP_BLOCKS % 64);
        self.blocks |= 1 << (key % 64);
        self.blocks |= 1 << one;
        self.chance |= 1 << two;
        self.chance |= 1 << three;
        Some(())
    }

    /// Those for all blocks from key `low` to `high`, of which there are many.
    pub(super) fn of_many(low: u16, high: u16) -> Marks {
        Marks { blocks: !0, chance: !0, ..Marks::of_places(low, high) }
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
        Marks { parts, groups, ..Marks::default() }
    }

    /// Those that either has.
    pub(super) fn union(self, other: Marks) -> Marks {
        Marks {
            parts: self.parts | other.parts,
            groups: self.groups | other.groups,
            blocks: self.blocks | other.blocks,
            chance: self.chance | other.chance,
        }
    }

    /// A bit for each sixty-fourth of the region.
    pub(super) fn parts(self) -> u64 {
        self.parts
    }

    /// What the first word holds.
    pub(super) fn places(self) -> u64 {
        self.parts | self.groups
    }

    /// What the other words hold.
    pub(super) fn others(self) -> [u64; OTHERS] {
        [self.blocks, self.chance]
    }
}

/// Which bits a block has beside those for where it is: as if by chance, however far apart remaps are.
#[inline(always)]
fn scattered(key: u16) -> [u32; 3] {
    let mixed = u32::from(key).wrapping_mul(0x9e37_79b1);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b);
    [mixed >> 26, mixed >> 20 & 63, mixed >> 14 & 63]
}

/// Words behind the first.
pub(super) const OTHERS: usize = 2;
/// Those that are kept. The last one is left out for loom, which looks at every place: what holds of one holds of each.
const KEPT: usize = if cfg!(loom) { 1 } else { OTHERS };

/// A word that readers look at.
#[derive(Default)]
struct Word(AtomicU64);

impl Word {
    #[inline(always)]
    fn load(&self) -> u64 {
        // Acquire: who finds no bit any more never finds the region as it was before.
        self.0.load(Ordering::Acquire)
    }

    fn announce(&self, bits: u64) {
        // Release, for `load`: who sees this and no bit of an earlier change sees what that change did. There is one writer, so
        // that nothing can come in between.
        self.0.store(self.0.load(Ordering::Relaxed) | bits, Ordering::Release);
    }

    fn settle(&self, bits: u64) {
        // Release, for `load`.
        self.0.store(bits, Ordering::Release);
    }
}

/// The first word of a filter.
#[derive(Default)]
pub(super) struct Places(Word);

impl Places {
    /// Whether the region may hold the block with this key.
    #[inline(always)]
    pub(super) fn may_hold_block(&self, key: u16) -> bool {
        let places = self.0.load();
        places >> (key / PART_BLOCKS % 64) & places >> (key / GROUP_BLOCKS % 64) & 1 != 0
    }

    /// Whether the region may hold anything from key `low` to `high`.
    #[inline(always)]
    pub(super) fn may_hold(&self, low: u16, high: u16) -> bool {
        if low == high {
            return self.may_hold_block(low);
        }
        let (places, wanted) = (self.0.load(), Marks::of_places(low, high));
        places & wanted.parts != 0 && places & wanted.groups != 0
    }

    /// The region is about to hold what these bits are for.
    pub(super) fn announce(&self, marks: Marks) {
        self.0.announce(marks.places());
    }

    /// The region holds what these bits are for, and nothing else any more.
    pub(super) fn settle(&self, marks: Marks) {
        self.0.settle(marks.places());
    }
}

/// The other words of a filter.
#[derive(Default)]
pub(super) struct Others([Word; KEPT]);

impl Others {
    /// Whether the region may hold the block with this key.
    #[inline(always)]
    pub(super) fn may_hold_block(&self, key: u16) -> bool {
        self.any_of(key, key)
    }

    /// Whether the region may hold anything from key `low` to `high`: of more than a few blocks these do not tell.
    #[inline]
    pub(super) fn may_hold(&self, low: u16, high: u16) -> bool {
        let high = if mutation::active(Mutation::FilterOfFirstBlockOnly) { low } else { high };
        high - low >= ASKED_FOR || self.any_of(low, high)
    }

    #[inline(always)]
    fn any_of(&self, low: u16, high: u16) -> bool {
        let load = |word| self.0.get(word).map_or(!0, Word::load);
        let (blocks, chance): (u64, u64) = (load(0), load(1));
        (low..high + 1).any(|key| {
            let [one, two, three] = scattered(key);
            blocks >> (key % 64) & blocks >> one & chance >> two & chance >> three & 1 != 0
        })
    }

    /// As [`Places::announce`].
    pub(super) fn announce(&self, marks: Marks) {
        self.0.iter().zip(marks.others()).for_each(|(word, bits)| word.announce(bits));
    }

    /// As [`Places::settle`].
    pub(super) fn settle(&self, marks: Marks) {
        self.0.iter().zip(marks.others()).for_each(|(word, bits)| word.settle(bits));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn union(keys: impl IntoIterator<Item = u16>) -> Marks {
        Marks::of_blocks(&keys.into_iter().collect::<Vec<_>>())
    }

    #[derive(Default)]
    struct Filter(Places, Others);

    impl Filter {
        /// What has these marks.
        fn of(marks: Marks) -> Filter {
            let filter = Filter::default();
            filter.settle(marks);
            filter
        }

        fn settle(&self, marks: Marks) {
            self.0.settle(marks);
            self.1.settle(marks);
        }

        fn announce(&self, marks: Marks) {
            self.0.announce(marks);
            self.1.announce(marks);
        }

        fn may_hold(&self, low: u16, high: u16) -> bool {
            self.0.may_hold(low, high) && self.1.may_hold(low, high)
        }

        fn may_hold_block(&self, key: u16) -> bool {
            self.0.may_hold_block(key) && self.1.may_hold_block(key)
        }

        fn words(&self) -> Vec<u64> {
            [&self.0.0].into_iter().chain(&self.1.0).map(Word::load).collect()
        }
    }

    #[test]
    fn many_blocks_have_the_bits_of_all_of_them() {
        for (low, high) in
            [(0, 255), (100, 163), (127, 128), (512, 1023), (16_000, LAST_KEY), (300, 5_000), (0, LAST_KEY)]
        {
            let (of_many, of_blocks) = (Marks::of_many(low, high), union(low..=high));
            assert_eq!(of_many.places(), of_blocks.places(), "{low} to {high}");
            assert_eq!(of_many.parts(), of_blocks.parts(), "{low} to {high}");
            assert_eq!(of_many.others(), [!0, !0]);
        }
    }

    #[test]
    fn a_look_at_several_blocks_sees_each_of_them() {
        for key in [0, 63, 64, 255, 256, 5_000, LAST_KEY] {
            let filter = Filter::of(Marks::of_blocks(&[key]));
            for length in [1, 2, 7, 8, 9, 64, 65, 300, 5_000] {
                for low in [key.saturating_sub(length - 1), key.saturating_sub(length / 2), key] {
                    let high = low.saturating_add(length - 1).min(LAST_KEY);
                    assert!(filter.may_hold(low, high), "{key}, from {low} to {high}");
                }
            }
        }
        let filter = Filter::of(Marks::of_blocks(&[5_000]));
        assert!(!filter.may_hold(0, 63) && !filter.may_hold(6_000, LAST_KEY), "where nothing is");
        assert!(!filter.may_hold(5_001, 5_004) && filter.may_hold(5_001, 5_016), "few are asked for one by one");
    }

    #[test]
    #[cfg_attr(miri, ignore = "it looks at a million bits, and nothing of it is unsafe")]
    fn each_bit_is_for_about_as_many_blocks() {
        let mut counts = [[0; 64]; 4];
        for marks in (0..=LAST_KEY).map(|key| Marks::of_blocks(&[key])) {
            for (counts, word) in counts.iter_mut().zip([marks.parts, marks.groups, marks.blocks, marks.chance]) {
                counts.iter_mut().enumerate().for_each(|(bit, count)| *count += word >> bit & 1);
            }
        }
        let [parts, groups, blocks, chance] = counts;
        assert_eq!((parts, groups), ([256; 64], [256; 64]));
        for by_chance in [blocks, chance] {
            assert!(by_chance.iter().all(|count| (400..600).contains(count)), "{by_chance:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it looks at a million keys, and nothing of it is unsafe")]
    fn what_is_in_there_may_be_there_and_little_else() {
        // As the blocks of a million that are spread over 4 TiB are in one region: at random, and evenly.
        let random = |seed: u64| {
            (1..16).map(move |at| ((seed * 16 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 50) as u16)
        };
        let even = |first: u64| (0..15).map(move |at| (at * 1073 + first * 17) as u16);
        let taken = |keys: Vec<u16>| {
            let filter = Filter::of(union(keys.iter().copied()));
            assert!(keys.iter().all(|key| filter.may_hold_block(*key)));
            assert!((0..=LAST_KEY).all(|key| filter.may_hold_block(key) == filter.may_hold(key, key)));
            (0..=LAST_KEY).filter(|key| filter.may_hold_block(*key)).count()
        };
        for (name, taken) in [
            ("at random", (0..60).map(|seed| taken(random(seed).collect())).sum::<usize>()),
            ("evenly", (0..60).map(|first| taken(even(first).collect())).sum()),
        ] {
            let share = taken as f64 / (60.0 * f64::from(LAST_KEY));
            assert!(share < 0.006, "{name}: {share} of all blocks may be there");
        }
    }

    #[test]
    fn bits_are_there_from_when_they_are_announced_until_others_are_settled() {
        let filter = Filter::default();
        let [one, two] = [100, 9_000].map(|key| Marks::of_blocks(&[key]));
        let words = |marks: Marks| [&[marks.places()][..], &marks.others()].concat();
        assert_eq!(filter.words(), [0; 1 + OTHERS]);
        filter.announce(one);
        filter.announce(two);
        assert_eq!(filter.words(), words(one.union(two)));
        filter.settle(two);
        assert_eq!(filter.words(), words(two));
    }
}
