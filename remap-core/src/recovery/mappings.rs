//! What the log says of each block, in its order: what a checkpoint says comes in order already, and is only put behind what is
//! there; what changes it is kept beside it.
//!
//! In memory it is in pieces, so that nothing large is copied as it grows, or given back at once.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::table::Mapping;
use crate::units::BaseLba;

/// Entries of a piece: 64 KiB, which no allocator maps by itself.
const PIECE: usize = 4096;

/// What is known of each block of the base that is not simply there.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// Ascending by block; no piece is empty.
    pieces: Vec<Vec<(BaseLba, Mapping)>>,
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
        merged(self.pieces.iter().flatten().copied(), changed).filter_map(known)
    }

    /// What is known of the blocks in `range`, ascending.
    pub fn range(&self, range: Range<BaseLba>) -> impl Iterator<Item = (BaseLba, Mapping)> {
        let Range { start, end } = range;
        let first = self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last.0 < start));
        let pieces = self.pieces.iter().skip(first).flat_map(move |piece| {
            let begin = piece.partition_point(|entry| entry.0 < start);
            piece.iter().skip(begin)
        });
        let unchanged = pieces.copied().take_while(move |entry| entry.0 < end);
        // A range that ends before it begins has nothing in it.
        let changed = self.changed.range(start..end.max(start));
        merged(unchanged, changed.map(|(lba, to)| (*lba, *to))).filter_map(known)
    }

    /// All that was said of any block, ascending, with `None` for those of which nothing holds any more: who goes through it counts these,
    /// too, and lets others go on. Gives the memory of what was passed back as it goes on.
    pub(crate) fn into_blocks(self) -> impl Iterator<Item = (BaseLba, Option<Mapping>)> {
        merged(self.pieces.into_iter().flatten(), self.changed.into_iter())
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
            self.push((lba, to));
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
    fn push(&mut self, entry: (BaseLba, Mapping)) {
        self.end = Some(entry.0);
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(entry),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(entry);
                self.pieces.push(piece);
            }
        }
    }

    fn unchanged(&self, lba: BaseLba) -> Option<Mapping> {
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last.0 < lba));
        let piece = self.pieces.get(piece)?;
        piece.binary_search_by_key(&lba, |entry| entry.0).ok().map(|at| piece[at].1)
    }
}

/// What is `changed`, and what is unchanged, by block.
fn merged(
    unchanged: impl Iterator<Item = (BaseLba, Mapping)>,
    changed: impl Iterator<Item = (BaseLba, Option<Mapping>)>,
) -> impl Iterator<Item = (BaseLba, Option<Mapping>)> {
    let mut unchanged = unchanged.map(|(lba, mapping)| (lba, Some(mapping))).peekable();
    let mut changed = changed.peekable();
    std::iter::from_fn(move || {
        let Some((next, _)) = changed.peek() else { return unchanged.next() };
        if let Some(before) = unchanged.next_if(|one| one.0 < *next) {
            return Some(before);
        }
        unchanged.next_if(|one| one.0 == *next);
        changed.next()
    })
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

    fn mapping(number: u32) -> Mapping {
        SpareBlock::new(Slot::FIRST, number).map_or(Mapping::Pending, Mapping::Spare)
    }

    proptest! {
        #[test]
        fn it_says_what_a_map_says(
            every in 1..4_u64,
            changes in vec((0..BLOCKS, prop::option::of(0..100_u32)), 0..300),
            from in 0..BLOCKS,
            to in 0..BLOCKS,
        ) {
            let (mut mappings, mut map) = (Mappings::default(), BTreeMap::new());
            for lba in (0..BLOCKS / 2).step_by(every as usize).map(BaseLba) {
                prop_assert_eq!(mappings.insert(lba, Mapping::Pending), map.insert(lba, Mapping::Pending));
            }
            for (lba, to) in changes {
                let lba = BaseLba(lba);
                match to.map(mapping) {
                    Some(to) => prop_assert_eq!(mappings.insert(lba, to), map.insert(lba, to)),
                    None => prop_assert_eq!(mappings.remove(lba), map.remove(&lba)),
                }
                prop_assert_eq!(mappings.last(), map.last_key_value().map(|(lba, _)| *lba));
            }
            for lba in (0..BLOCKS).map(BaseLba) {
                prop_assert_eq!(mappings.get(lba), map.get(&lba).copied());
            }
            let range = BaseLba(from)..BaseLba(to.max(from));
            let of_map = map.range(range.clone()).map(|(lba, to)| (*lba, *to));
            prop_assert!(mappings.range(range).eq(of_map));
            prop_assert!(mappings.range(BaseLba(to.max(from))..BaseLba(0)).next().is_none());
            prop_assert!(mappings.iter().eq(map.iter().map(|(lba, to)| (*lba, *to))));
            prop_assert!(mappings.into_blocks().filter_map(known).eq(map));
        }
    }
}
