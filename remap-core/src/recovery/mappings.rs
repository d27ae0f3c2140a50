//! What the log says of each block, in its order: what a checkpoint says comes in order already, and is only put behind what is
//! there; what changes it is kept beside it.
//!
//! In memory it is in pieces, so that nothing large is copied as it grows, or given back at once.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Range;
use std::vec;

use crate::table::Mapping;
use crate::units::BaseLba;

/// Entries of a piece: 64 KiB, which no allocator maps by itself.
const PIECE: usize = 8192;

/// Blocks that ascend, at least one, each in 8 bytes: how far it is behind the first one, and its mapping. So few, as memory takes long that
/// is touched for the first time.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    first: BaseLba,
    entries: Vec<(u32, u32)>,
}

impl Piece {
    /// Has room for all if the piece `before` it is full. Else it grows with what is in it, as a log may name blocks so far apart that
    /// each has a piece of its own.
    fn new(first: BaseLba, mapping: Mapping, before: Option<&Piece>) -> Piece {
        let room = if before.is_some_and(Piece::is_full) { PIECE } else { 1 };
        let mut entries = Vec::with_capacity(room);
        entries.push((0, mapping.encode()));
        Piece { first, entries }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= PIECE
    }

    /// Whether there was room for one that is behind all others.
    #[inline(always)]
    fn push(&mut self, lba: BaseLba, mapping: Mapping) -> bool {
        let behind = lba.0 - self.first.0;
        let room = behind <= u64::from(u32::MAX) && !self.is_full();
        if room {
            // It fits.
            self.entries.push((behind as u32, mapping.encode()));
        }
        room
    }

    #[inline]
    fn entry(first: BaseLba, (behind, mapping): (u32, u32)) -> (BaseLba, Mapping) {
        (first.plus(u64::from(behind)), Mapping::decode(mapping))
    }

    /// Those at these places.
    #[inline]
    fn some(&self, at: Range<usize>) -> impl DoubleEndedIterator<Item = (BaseLba, Mapping)> {
        self.entries[at].iter().map(|entry| Piece::entry(self.first, *entry))
    }

    fn get(&self, at: usize) -> Option<(BaseLba, Mapping)> {
        self.entries.get(at).map(|entry| Piece::entry(self.first, *entry))
    }

    fn is_before(&self, lba: BaseLba) -> bool {
        self.entries.last().is_none_or(|last| Piece::entry(self.first, *last).0 < lba)
    }

    /// How many of its blocks are before this one.
    fn before(&self, lba: BaseLba) -> usize {
        self.before_from(0, lba)
    }

    /// The same, where the first `at` are: found the sooner, the fewer more there are.
    fn before_from(&self, at: usize, lba: BaseLba) -> usize {
        let is_before = |entry: &(u32, u32)| Piece::entry(self.first, *entry).0 < lba;
        let (rest, mut few) = (&self.entries[at..], 1);
        while rest.get(few - 1).is_some_and(is_before) {
            few *= 2;
        }
        at + few / 2 + rest[few / 2..few.min(rest.len())].partition_point(is_before)
    }
}

/// What is known of each block of the base that is not simply there.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// Ascending by block.
    pieces: Vec<Piece>,
    /// The number behind that of the last block in there.
    end: u64,
    /// What holds instead, and between it: all of it is before `end`. `None` for a block that is not mapped any more.
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
        Merged::new(self.pieces.iter(), BaseLba(0), self.changed.iter().map(said)).filter_map(known)
    }

    /// What is known of the blocks in `range`, ascending.
    pub fn range(&self, range: Range<BaseLba>) -> impl Iterator<Item = (BaseLba, Mapping)> {
        let Range { start, end } = range;
        let first = self.pieces.partition_point(|piece| piece.is_before(start));
        let merged = Merged::new(self.pieces[first..].iter(), start, self.changed.range(start..).map(said));
        merged.take_while(move |(lba, _)| *lba < end).filter_map(known)
    }

    /// All that was said of any block, ascending, with `None` for those of which nothing holds any more: who goes through it counts these,
    /// too, and lets others go on. Gives the memory of what was passed back as it goes on.
    pub(crate) fn into_blocks(self) -> IntoBlocks {
        Merged::new(self.pieces.into_iter(), BaseLba(0), self.changed.into_iter())
    }

    /// Of how many blocks that is known which `is` says.
    pub fn count(&self, mut is: impl FnMut(Mapping) -> bool) -> usize {
        self.iter().filter(|(_, mapping)| is(*mapping)).count()
    }

    /// The last block that anything is known of. It looks at all behind that of which nothing holds any more.
    pub(crate) fn last(&self) -> Option<BaseLba> {
        let mut unchanged =
            self.pieces.iter().rev().flat_map(|piece| piece.some(0..piece.entries.len()).rev()).map(|entry| entry.0);
        let unchanged = unchanged.find(|lba| !self.changed.contains_key(lba));
        let changed = self.changed.iter().rev().find(|(_, to)| to.is_some()).map(|(lba, _)| *lba);
        unchanged.max(changed)
    }

    /// Whether the block is behind all others.
    #[inline(always)]
    pub(super) fn end_before(&self, lba: BaseLba) -> bool {
        self.end <= lba.0
    }

    /// Says what holds for a block that is behind all others.
    #[inline(always)]
    pub(super) fn push(&mut self, lba: BaseLba, to: Mapping) {
        self.end = lba.0 + 1;
        if !self.pieces.last_mut().is_some_and(|piece| piece.push(lba, to)) {
            self.begin(lba, to);
        }
    }

    /// Begins a piece with a block.
    #[cold]
    fn begin(&mut self, lba: BaseLba, to: Mapping) {
        let piece = Piece::new(lba, to, self.pieces.last());
        self.pieces.push(piece);
    }

    /// Says what holds for a block; what did before.
    pub(super) fn insert(&mut self, lba: BaseLba, to: Mapping) -> Option<Mapping> {
        if self.end_before(lba) {
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

    fn unchanged(&self, lba: BaseLba) -> Option<Mapping> {
        let piece = self.pieces.partition_point(|piece| piece.is_before(lba));
        let piece = self.pieces.get(piece)?;
        piece.get(piece.before(lba)).filter(|entry| entry.0 == lba).map(|entry| entry.1)
    }
}

/// A block, and what was said of it last: `None` if nothing holds any more.
pub(crate) type Said = (BaseLba, Option<Mapping>);

/// [`Mappings::into_blocks`].
pub(crate) type IntoBlocks = Merged<vec::IntoIter<Piece>, btree_map::IntoIter<BaseLba, Option<Mapping>>>;

/// What is in pieces, and what was changed, by block.
pub(crate) struct Merged<P: Iterator, C: Iterator<Item = Said>> {
    pieces: P,
    piece: Option<P::Item>,
    /// Which of its entries come next, before what was changed does.
    unchanged: Range<usize>,
    changed: Peekable<C>,
}

impl<P: Iterator<Item: Borrow<Piece>>, C: Iterator<Item = Said>> Merged<P, C> {
    /// From block `from` on, which the first piece reaches; nothing of `changed` is before it.
    fn new(mut pieces: P, from: BaseLba, changed: C) -> Merged<P, C> {
        let piece = pieces.next();
        let at = piece.as_ref().map_or(0, |piece| piece.borrow().before(from));
        let mut merged = Merged { pieces, piece, unchanged: 0..0, changed: changed.peekable() };
        merged.go_on_at(at);
        merged
    }

    /// Goes on with the entry at this place of the piece.
    fn go_on_at(&mut self, at: usize) {
        let end = self.piece.as_ref().map_or(at, |piece| match self.changed.peek() {
            Some((lba, _)) => piece.borrow().before_from(at, *lba),
            None => piece.borrow().entries.len(),
        });
        self.unchanged = at..end;
    }

    /// Calls `f` for the next ones, `most` at most; how many these were. What is unchanged comes in a loop of its own, up to what is
    /// not: to ask for each by itself takes longer than what is done with it.
    #[inline]
    pub(crate) fn some(&mut self, most: usize, mut f: impl FnMut(Said)) -> usize {
        let mut done = 0;
        while done < most {
            let Range { start, end } = self.unchanged;
            match &self.piece {
                Some(piece) if start < end => {
                    let end = end.min(start + (most - done));
                    piece.borrow().some(start..end).for_each(|(lba, mapping)| f((lba, Some(mapping))));
                    self.unchanged.start = end;
                    done += end - start;
                }
                Some(piece) if start == piece.borrow().entries.len() => {
                    self.piece = self.pieces.next();
                    self.go_on_at(0);
                }
                piece => {
                    let Some(changed) = self.changed.next() else { break };
                    let instead = piece.as_ref().and_then(|piece| piece.borrow().get(start));
                    let skipped = usize::from(instead.is_some_and(|entry| entry.0 == changed.0));
                    f(changed);
                    done += 1;
                    self.go_on_at(start + skipped);
                }
            }
        }
        done
    }
}

impl<P: Iterator<Item: Borrow<Piece>>, C: Iterator<Item = Said>> Iterator for Merged<P, C> {
    type Item = Said;

    fn next(&mut self) -> Option<Said> {
        let mut next = None;
        self.some(1, |one| next = Some(one));
        next
    }
}

fn said((lba, to): (&BaseLba, &Option<Mapping>)) -> Said {
    (*lba, *to)
}

/// A block, if anything is known of it.
fn known((lba, to): Said) -> Option<(BaseLba, Mapping)> {
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
