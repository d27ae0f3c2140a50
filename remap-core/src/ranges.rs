//! Runs of blocks that belong together, however many they are: what is locked at one time, or imported.

use std::sync::Arc;

use crate::units::Extent;

/// Runs of blocks, ascending, none of which overlaps or touches the next. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Arc<[Extent]>);

impl Ranges {
    /// The blocks of all of `extents`, which may overlap and be in any order.
    #[must_use]
    pub fn new(mut extents: Vec<Extent>) -> Ranges {
        extents.retain(|extent| extent.blocks > 0);
        extents.sort_unstable_by_key(|extent| extent.lba);
        extents.dedup_by(|next, extent| {
            let touches = next.lba <= extent.end();
            if touches {
                extent.blocks = next.end().max(extent.end()).0 - extent.lba.0;
            }
            touches
        });
        Ranges(extents.into())
    }

    /// The runs.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.0.iter().copied()
    }

    /// How many blocks these are.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        // At most all of the 64 bits, as none is counted twice.
        self.iter().map(|extent| extent.blocks).sum()
    }

    /// Whether any of the blocks is in `range`.
    #[must_use]
    pub fn overlaps(&self, range: Extent) -> bool {
        let first = self.0.partition_point(|extent| extent.end() <= range.lba);
        self.0.get(first).is_some_and(|extent| extent.overlaps(range))
    }

    /// Whether the two have a block in common.
    #[must_use]
    pub fn share(&self, other: &Ranges) -> bool {
        let (few, many) = if self.0.len() < other.0.len() { (self, other) } else { (other, self) };
        few.iter().any(|extent| many.overlaps(extent))
    }
}

impl From<Extent> for Ranges {
    fn from(extent: Extent) -> Ranges {
        Ranges::new(vec![extent])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::units::BaseLba;

    fn ranges(extents: &[(u64, u64)]) -> Ranges {
        Ranges::new(extents.iter().map(|(lba, blocks)| Extent::new(BaseLba(*lba), *blocks)).collect())
    }

    fn set(extents: &[(u64, u64)]) -> BTreeSet<u64> {
        extents.iter().flat_map(|(lba, blocks)| *lba..lba + blocks).collect()
    }

    #[test]
    fn what_overlaps_or_touches_is_one_run() {
        assert_eq!(ranges(&[(20, 5), (10, 4), (14, 1), (12, 1), (30, 0), (21, 9)]), ranges(&[(10, 5), (20, 10)]));
    }

    #[test]
    fn the_end_of_all_addresses_is_no_trap() {
        let all = ranges(&[(0, u64::MAX), (u64::MAX - 1, u64::MAX)]);
        assert_eq!(all.blocks(), u64::MAX);
    }

    proptest! {
        #[test]
        fn they_hold_the_blocks_of_all_extents(
            ones in prop::collection::vec((0_u64..60, 0_u64..6), 0..12),
            others in prop::collection::vec((0_u64..60, 0_u64..6), 0..4),
            at in 0_u64..70,
            blocks in 1_u64..8,
        ) {
            let (mine, all) = (ranges(&ones), set(&ones));
            prop_assert_eq!(mine.iter().flat_map(|one| one.lba.0..one.end().0).collect::<Vec<_>>(), all.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(mine.blocks(), all.len() as u64);
            let range = Extent::new(BaseLba(at), blocks);
            prop_assert_eq!(mine.overlaps(range), all.range(at..at + blocks).next().is_some());
            prop_assert_eq!(mine.share(&ranges(&others)), !all.is_disjoint(&set(&others)));
        }
    }
}
