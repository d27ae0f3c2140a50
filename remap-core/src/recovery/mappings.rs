//! What the log says of each block, in its order: what a checkpoint says comes in order already, and is only put behind what is
//! there; what changes it is kept beside it.
//!
//! In memory it is in pieces, so that nothing large is copied as it grows, or given back at once.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Range;

use crate::table::Mapping;
use crate::units::BaseLba;

/// Entries of a piece: 64 KiB, which no allocator maps by itself.
const PIECE: usize = 8192;

/// Blocks that ascend, at least one, each in 8 bytes: how far it is behind the first one, and its mapping. So few, as memory takes long that
/// is touched for the first time.
#[derive(Clone, Debug)]
struct Piece {
    first: BaseLba,
    entries: Vec<(u32, u32)>,
}

impl Piece {
    /// Grows with what is in it, as a log may name blocks so far apart that each has a piece of its own.
    fn new(first: BaseLba, mapping: Mapping) -> Piece {
        Piece { first, entries: vec![(0, mapping.encode())] }
    }

    /// Whether there was room for one that is behind all others.
    #[inline]
    fn push(&mut self, lba: BaseLba, mapping: Mapping) -> bool {
        let behind = u32::try_from(lba.0 - self.first.0).ok().filter(|_| self.entries.len() < PIECE);
        self.entries.extend(behind.map(|behind| (behind, mapping.encode())));
        behind.is_some()
    }

    #[inline]
    fn entry(first: BaseLba, (behind, mapping): (u32, u32)) -> (BaseLba, Mapping) {
        (first.plus(u64::from(behind)), Mapping::decode(mapping))
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (BaseLba, Mapping)> {
        self.some(0)
    }

    /// Those from place `at` on.
    fn some(&self, at: usize) -> impl DoubleEndedIterator<Item = (BaseLba, Mapping)> {
        self.entries[at..].iter().map(|entry| Piece::entry(self.first, *entry))
    }

    #[inline]
    fn into_iter(self) -> impl Iterator<Item = (BaseLba, Mapping)> {
        self.entries.into_iter().map(move |entry| Piece::entry(self.first, entry))
    }

    fn is_before(&self, lba: BaseLba) -> bool {
        self.iter().next_back().is_none_or(|last| last.0 < lba)
    }

    /// How many of its blocks are before this one.
    fn before(&self, lba: BaseLba) -> usize {
        self.entries.partition_point(|entry| Piece::entry(self.first, *entry).0 < lba)
    }
}

/// What is known of each block of the base that is not simply there.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// Ascending by block.
    pieces: Vec<Piece>,
    /// The last block in there.
    end: Option<BaseLba>,
    /// What holds instead: `None` for a block that is not mapped any more.
    changed: BTreeMap<BaseLba, Option<Mapping>>,
}

impl Mappings {
    /// What is known of a block.
    #[must_use]
    pub fn get(&self, lba: BaseLba) -> Option<Mapping> {
        self.changed.get(&lba).copied().unwrap_or_else(|| self.unchanged(lba))
    }

    /// All of it, ascending by block.
    pub fn iter(&self) -> impl Iterator<Item = (BaseLba, Mapping)> {
        let changed = self.changed.iter().map(|(lba, to)| (*lba, *to));
        merged(self.pieces.iter().flat_map(Piece::iter), changed).filter_map(known)
    }

    /// What is known of the blocks in `range`, ascending.
    pub fn range(&self, range: Range<BaseLba>) -> impl Iterator<Item = (BaseLba, Mapping)> {
        let Range { start, end } = range;
        let first = self.pieces.partition_point(|piece| piece.is_before(start));
        let pieces = self.pieces.iter().skip(first).flat_map(move |piece| piece.some(piece.before(start)));
        let unchanged = pieces.take_while(move |entry| entry.0 < end);
        // A range that ends before it begins has nothing in it.
        let changed = self.changed.range(start..end.max(start));
        merged(unchanged, changed.map(|(lba, to)| (*lba, *to))).filter_map(known)
    }

    /// All that was said of any block, ascending, with `None` for those of which nothing holds any more: who goes through it counts these,
    /// too, and lets others go on. Gives the memory of what was passed back as it goes on.
    pub(crate) fn into_blocks(self) -> Merged<impl Iterator<Item = Said>, impl Iterator<Item = Said>> {
        merged(self.pieces.into_iter().flat_map(Piece::into_iter), self.changed.into_iter())
    }

    /// Of how many blocks that is known which `is` says.
    pub fn count(&self, mut is: impl FnMut(Mapping) -> bool) -> usize {
        self.iter().filter(|(_, mapping)| is(*mapping)).count()
    }

    /// The last block that anything is known of. It looks at all behind that of which nothing holds any more.
    pub(crate) fn last(&self) -> Option<BaseLba> {
        let mut unchanged = self.pieces.iter().rev().flat_map(|piece| piece.iter().rev()).map(|entry| entry.0);
        let unchanged = unchanged.find(|lba| !self.changed.contains_key(lba));
        let changed = self.changed.iter().rev().find(|(_, to)| to.is_some()).map(|(lba, _)| *lba);
        unchanged.max(changed)
    }

    /// Says what holds for a block; what did before.
    #[inline(always)]
    pub(super) fn insert(&mut self, lba: BaseLba, to: Mapping) -> Option<Mapping> {
        if self.end < Some(lba) && self.changed.is_empty() {
            self.push(lba, to);
            return None;
        }
        let before = self.unchanged(lba);
        self.changed.insert(lba, Some(to)).unwrap_or(before)
    }

    /// Nothing is known of the block any more; what was.
    pub(super) fn remove(&mut self, lba: BaseLba) -> Option<Mapping> {
        match self.unchanged(lba) {
            Some(before) => self.changed.insert(lba, None).unwrap_or(Some(before)),
            None => self.changed.remove(&lba).flatten(),
        }
    }

    #[inline]
    fn push(&mut self, lba: BaseLba, mapping: Mapping) {
        self.end = Some(lba);
        if !self.pieces.last_mut().is_some_and(|piece| piece.push(lba, mapping)) {
            self.pieces.push(Piece::new(lba, mapping));
        }
    }

    fn unchanged(&self, lba: BaseLba) -> Option<Mapping> {
        let piece = self.pieces.partition_point(|piece| piece.is_before(lba));
        let piece = self.pieces.get(piece)?;
        piece.some(piece.before(lba)).next().filter(|entry| entry.0 == lba).map(|entry| entry.1)
    }
}

/// What is `changed`, and what is unchanged, by block.
fn merged<C: Iterator<Item = Said>>(
    unchanged: impl Iterator<Item = (BaseLba, Mapping)>,
    changed: C,
) -> Merged<impl Iterator<Item = Said>, C> {
    let unchanged = unchanged.map(|(lba, mapping)| (lba, Some(mapping)));
    Merged { unchanged: unchanged.peekable(), changed: changed.peekable() }
}

/// A block, and what was said of it last: `None` if nothing holds any more.
pub(crate) type Said = (BaseLba, Option<Mapping>);

/// What [`merged`] gives.
pub(crate) struct Merged<U: Iterator<Item = Said>, C: Iterator<Item = Said>> {
    unchanged: Peekable<U>,
    changed: Peekable<C>,
}

impl<U: Iterator<Item = Said>, C: Iterator<Item = Said>> Merged<U, C> {
    /// Calls `f` for the next ones, `most` at most; how many these were. Where nothing is changed any more, as in all of a checkpoint, they
    /// come in a loop of their own: to ask for each by itself takes longer than what is done with it.
    #[inline]
    pub(crate) fn some(&mut self, most: usize, mut f: impl FnMut(Said)) -> usize {
        let mut done = 0;
        let each = |one| {
            done += 1;
            f(one);
        };
        match self.changed.peek() {
            None => self.unchanged.by_ref().take(most).for_each(each),
            Some(_) => self.by_ref().take(most).for_each(each),
        }
        done
    }
}

impl<U: Iterator<Item = Said>, C: Iterator<Item = Said>> Iterator for Merged<U, C> {
    type Item = Said;

    fn next(&mut self) -> Option<Said> {
        let Some((next, _)) = self.changed.peek() else { return self.unchanged.next() };
        if let Some(before) = self.unchanged.next_if(|one| one.0 < *next) {
            return Some(before);
        }
        self.unchanged.next_if(|one| one.0 == *next);
        self.changed.next()
    }
}

/// A block, if anything is known of it.
fn known((lba, to): (BaseLba, Option<Mapping>)) -> Option<(BaseLba, Mapping)> {
    Some((lba, to?))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::slot::{Slot, SpareBlock};

    /// More than a piece.
    const BLOCKS: u64 = 3 * PIECE as u64;

    /// One of each kind, in both slots.
    fn mapping(number: u32) -> Mapping {
        let slot = if number.is_multiple_of(2) { Slot::FIRST } else { Slot::FIRST.other() };
        let block = SpareBlock::new(slot, number).unwrap();
        match number % 5 {
            0 => Mapping::Pending,
            1 | 2 => Mapping::Lost(block),
            _ => Mapping::Spare(block),
        }
    }

    #[test]
    fn a_piece_reaches_as_far_as_its_numbers() {
        let blocks = [5, 5 + u64::from(u32::MAX), 6 + u64::from(u32::MAX)].map(BaseLba);
        let mut mappings = Mappings::default();
        blocks.iter().for_each(|lba| _ = mappings.insert(*lba, mapping(3)));
        assert_eq!(mappings.pieces.iter().map(|piece| piece.entries.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(mappings.iter().map(|(lba, _)| lba).eq(blocks));
    }

    #[test]
    fn blocks_that_are_far_apart_take_little_memory_each() {
        let mut mappings = Mappings::default();
        (0..1000).for_each(|at| _ = mappings.insert(BaseLba(at << 33), mapping(7)));
        assert_eq!(mappings.pieces.len(), 1000);
        assert!(mappings.pieces.iter().all(|piece| piece.entries.capacity() <= 8));
        assert!(mappings.iter().eq((0..1000).map(|at| (BaseLba(at << 33), mapping(7)))));
    }

    proptest! {
        #[test]
        fn it_says_what_a_map_says(
            every in 1..4_u64,
            // As near as can be, and so far that a piece does not reach over many.
            apart in prop::sample::select(vec![1, 1 << 30]),
            // Anywhere, or before nearly all that is unchanged.
            changes in prop::sample::select(vec![BLOCKS, BLOCKS / 16])
                .prop_flat_map(|end| vec((0..end, prop::option::of(0..100_u32)), 0..300)),
            from in 0..BLOCKS,
            to in 0..BLOCKS,
            at_once in prop_oneof![Just(1), Just(64), 1..3 * PIECE],
        ) {
            let (mut mappings, mut map) = (Mappings::default(), BTreeMap::new());
            for lba in (0..BLOCKS / 2).step_by(every as usize).map(|at| BaseLba(at * apart)) {
                let to = mapping(lba.0 as u32 % 100);
                prop_assert_eq!(mappings.insert(lba, to), map.insert(lba, to));
            }
            for (lba, to) in changes {
                let lba = BaseLba(lba * apart);
                match to.map(mapping) {
                    Some(to) => prop_assert_eq!(mappings.insert(lba, to), map.insert(lba, to)),
                    None => prop_assert_eq!(mappings.remove(lba), map.remove(&lba)),
                }
                prop_assert_eq!(mappings.last(), map.last_key_value().map(|(lba, _)| *lba));
            }
            for lba in (0..BLOCKS).map(|at| BaseLba(at * apart)) {
                prop_assert_eq!(mappings.get(lba), map.get(&lba).copied());
            }
            let (from, to) = (from * apart, to * apart);
            let range = BaseLba(from)..BaseLba(to.max(from));
            let of_map = map.range(range.clone()).map(|(lba, to)| (*lba, *to));
            prop_assert!(mappings.range(range).eq(of_map));
            prop_assert!(mappings.range(BaseLba(to.max(from))..BaseLba(0)).next().is_none());
            prop_assert!(mappings.iter().eq(map.iter().map(|(lba, to)| (*lba, *to))));
            prop_assert!(mappings.clone().into_blocks().filter_map(known).eq(map));
            let (mut blocks, mut said) = (mappings.clone().into_blocks(), Vec::new());
            loop {
                let before = said.len();
                let some = blocks.some(at_once, |one| said.push(one));
                prop_assert!(some <= at_once && said.len() == before + some);
                if some == 0 {
                    break;
                }
            }
            prop_assert!(mappings.into_blocks().eq(said));
        }
    }
}
