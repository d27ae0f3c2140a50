//! Regions of the remap table that nobody but their owner knows yet: recovery makes them of what the log says, and they go into a table
//! when all of it was judged.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{ControlFlow, Range, RangeInclusive};

use smallvec::SmallVec;

use super::region::{FEW_CHANGES, KeyChange, Region, RegionRef};
use super::{Mapping, REGION_BLOCKS, Retired, place_of};
use crate::units::BaseLba;

/// A region that is in no table.
pub(crate) struct Unpublished {
    number: u64,
    region: Region,
}

impl Unpublished {
    /// That with this number, and nothing in it.
    pub(crate) fn empty(number: u64) -> Unpublished {
        Unpublished { number, region: Region::NOTHING }
    }

    /// The number of the region in which a block is.
    #[inline]
    pub(crate) fn number_of(lba: BaseLba) -> u64 {
        place_of(lba.0).0
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn view(&self) -> Option<RegionRef<'_>> {
        // SAFETY: it is whole since it was made, and borrowed as long; who frees any of it takes `self`.
        unsafe { self.region.view() }
    }

    /// How many blocks it holds.
    pub(crate) fn len(&self) -> usize {
        self.view().map_or(0, RegionRef::len)
    }

    /// What it holds for a block, which is in it.
    pub(crate) fn get(&self, lba: BaseLba) -> Option<Mapping> {
        self.view()?.get(place_of(lba.0).1).map(Mapping::decode)
    }

    /// What it holds, ascending by block.
    pub(crate) fn blocks(&self) -> Vec<(BaseLba, Mapping)> {
        self.blocks_in(&(BaseLba(0)..BaseLba(u64::MAX)))
    }

    /// The same, of these blocks.
    pub(crate) fn blocks_in(&self, range: &Range<BaseLba>) -> Vec<(BaseLba, Mapping)> {
        let mut blocks = Vec::new();
        if let Some((region, keys)) = self.view().zip(keys_in(self.number, range)) {
            let _ = region.visit(*keys.start(), *keys.end(), |key, value| {
                blocks.push(block(self.number, key, value));
                ControlFlow::Continue(())
            });
        }
        blocks
    }

    /// What it is after changes of blocks that are in it, which ascend, one for each block; `None` takes the block out.
    pub(crate) fn changed(self, changes: impl Iterator<Item = (BaseLba, Option<Mapping>)>) -> Unpublished {
        let key_change = |(lba, to): (BaseLba, Option<Mapping>)| (place_of(lba.0).1, to.map(Mapping::encode));
        let changes: SmallVec<[KeyChange; FEW_CHANGES]> = changes.map(key_change).collect();
        let (number, region) = self.into_parts();
        let mut retired = Retired::default();
        // SAFETY: it is whole, and freed below only.
        let region = unsafe { region.changed(&changes, &mut retired, |_| {}) };
        // SAFETY: nobody has looked at it but its owner, whom `self` was moved from.
        unsafe { retired.free() }
        Unpublished { number, region }
    }

    /// Without what is behind the end of the base.
    pub(super) fn before(self, end: BaseLba) -> Unpublished {
        let behind = self.blocks_in(&(end..BaseLba(u64::MAX)));
        if behind.is_empty() { self } else { self.changed(behind.into_iter().map(|(lba, _)| (lba, None))) }
    }

    /// The number, and the region, which is whole, and the caller's to free.
    pub(super) fn into_parts(self) -> (u64, Region) {
        let this = ManuallyDrop::new(self);
        (this.number, this.region)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // SAFETY: it is whole, nobody but its owner has looked at it, and nobody will any more.
        unsafe { self.region.free() }
    }
}

impl Clone for Unpublished {
    fn clone(&self) -> Unpublished {
        let entry = |(lba, mapping): (BaseLba, Mapping)| (place_of(lba.0).1, mapping.encode());
        let entries: Vec<_> = self.blocks().into_iter().map(entry).collect();
        Unpublished { number: self.number, region: Region::make(&entries) }
    }
}

impl fmt::Debug for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.blocks()).finish()
    }
}

/// A region that is gathered, block by block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathering {
    number: u64,
    entries: Vec<(u16, u32)>,
}

impl Gathering {
    /// Takes a block that is behind all that were taken before. If it is in another region than these, they are complete: theirs is
    /// the answer.
    #[inline(always)]
    pub(crate) fn push(&mut self, lba: BaseLba, mapping: Mapping) -> Option<Unpublished> {
        let (number, key) = place_of(lba.0);
        let complete = if number == self.number { None } else { self.go_on_to(number) };
        self.entries.push((key, mapping.encode()));
        complete
    }

    /// What was gathered, if anything was; another region is, from now on.
    #[inline(never)]
    fn go_on_to(&mut self, number: u64) -> Option<Unpublished> {
        let complete = self.region();
        self.entries.clear();
        self.number = number;
        complete
    }

    /// What was gathered, if anything was.
    pub(crate) fn region(&self) -> Option<Unpublished> {
        let region = Region::make(&self.entries);
        (!region.is_nothing()).then_some(Unpublished { number: self.number, region })
    }

    /// What it holds for a block, which may be in another region.
    pub(crate) fn get(&self, lba: BaseLba) -> Option<Mapping> {
        let (number, key) = place_of(lba.0);
        if number != self.number {
            return None;
        }
        let at = self.entries.binary_search_by_key(&key, |entry| entry.0).ok()?;
        Some(Mapping::decode(self.entries[at].1))
    }

    /// What it holds of these blocks, ascending.
    pub(crate) fn blocks_in(&self, range: &Range<BaseLba>) -> Vec<(BaseLba, Mapping)> {
        let Some(keys) = keys_in(self.number, range) else { return Vec::new() };
        let first = self.entries.partition_point(|(key, _)| key < keys.start());
        let end = self.entries.partition_point(|(key, _)| key <= keys.end());
        self.entries[first..end].iter().map(|(key, value)| block(self.number, *key, *value)).collect()
    }
}

/// Which of the keys of a region are those of blocks in `range`.
fn keys_in(number: u64, range: &Range<BaseLba>) -> Option<RangeInclusive<u16>> {
    let first = number * REGION_BLOCKS;
    let (start, end) = (range.start.0.max(first), range.end.0.min(first + REGION_BLOCKS));
    (start < end).then(|| place_of(start).1..=place_of(end - 1).1)
}

/// What a region holds for a key.
fn block(number: u64, key: u16, value: u32) -> (BaseLba, Mapping) {
    (BaseLba(number * REGION_BLOCKS + u64::from(key)), Mapping::decode(value))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// So many blocks of region 1, so far apart.
    fn blocks(count: u64, apart: u64) -> BTreeMap<BaseLba, Mapping> {
        let block = |at| (BaseLba(REGION_BLOCKS + at * apart), Mapping::decode(at as u32 * 7));
        (0..count).map(block).collect()
    }

    #[test]
    fn it_is_as_a_map_and_freed_by_its_owner() {
        // As keys, as chunks of keys, and of bitmaps.
        for (count, apart) in [(1, 1), (100, 130), (200, 70), (600, 2)] {
            let mut map = blocks(count, apart);
            let mut gathering = Gathering::default();
            assert!(map.iter().all(|(lba, to)| gathering.push(*lba, *to).is_none()));
            let within = BaseLba(REGION_BLOCKS + count * apart / 3)..BaseLba(REGION_BLOCKS + count * apart / 2);
            let region = gathering.push(BaseLba(2 * REGION_BLOCKS), Mapping::Pending).unwrap();
            assert_eq!((region.number(), region.len()), (1, map.len()));
            for some in [gathering.blocks_in(&within), gathering.blocks_in(&(BaseLba(0)..BaseLba(REGION_BLOCKS)))] {
                assert_eq!(some, [], "that is another region now");
            }
            let copy = region.clone();
            // Every third one goes, every other one changes, some come.
            let changes = (0..count + 20).map(|at| (BaseLba(REGION_BLOCKS + at * apart), at % 3, at % 2));
            let changes: Vec<_> = changes
                .filter(|(_, third, other)| *third == 0 || *other == 0)
                .map(|(lba, third, _)| (lba, (third != 0).then_some(Mapping::Pending)))
                .collect();
            let changed = region.changed(changes.iter().copied());
            assert!(copy.blocks().into_iter().eq(map.clone()), "a copy does not change");
            assert!(copy.blocks_in(&within).into_iter().eq(map.range(within).map(|(lba, to)| (*lba, *to))));
            for (lba, to) in changes {
                match to {
                    Some(to) => map.insert(lba, to),
                    None => map.remove(&lba),
                };
            }
            assert!(changed.blocks().into_iter().eq(map.clone()));
            assert!(map.iter().all(|(lba, to)| changed.get(*lba) == Some(*to)));
            let none = changed.changed(map.keys().map(|lba| (*lba, None)));
            assert_eq!((none.number(), none.len(), none.blocks()), (1, 0, Vec::new()));
        }
    }
}
