//! The numbers that must not be mixed up.
//!
//! Used everywhere in the crate. Holds no logic beyond range checks.

use serde::{Deserialize, Serialize};

/// The largest number of spare blocks that one set uses; what a spare has beyond it stays unused.
pub const MAX_SPARE_BLOCKS: u32 = 1 << 22;

/// The largest base, in blocks: records hold 48 bits of LBA.
pub const MAX_BASE_BLOCKS: u64 = 1 << 48;

/// A block address on the base, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BaseLba(pub u64);

impl BaseLba {
    /// The address `blocks` blocks further on (saturating).
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> BaseLba {
        BaseLba(self.0.saturating_add(blocks))
    }
}

/// A spare block: index into the data area of the spare, always below [`MAX_SPARE_BLOCKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpareIndex(u32);

impl SpareIndex {
    /// `index` as a spare block, or `None` if it is [`MAX_SPARE_BLOCKS`] or more.
    #[inline]
    #[must_use]
    pub fn new(index: u32) -> Option<SpareIndex> {
        (index < MAX_SPARE_BLOCKS).then_some(SpareIndex(index))
    }

    /// The index, in blocks from the start of the data area.
    #[inline]
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The spare block `blocks` further on, if there can be such a one.
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> Option<SpareIndex> {
        u32::try_from(u64::from(self.0).checked_add(blocks)?).ok().and_then(SpareIndex::new)
    }

    /// The index that the low bits of a table value hold.
    #[inline]
    pub(crate) fn masked(value: u32) -> SpareIndex {
        SpareIndex(value & (MAX_SPARE_BLOCKS - 1))
    }
}

/// A run of blocks of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The first block.
    pub lba: BaseLba,
    /// The length in blocks.
    pub blocks: u64,
}

impl Extent {
    /// `blocks` blocks from `lba` on.
    #[inline]
    #[must_use]
    pub fn new(lba: BaseLba, blocks: u64) -> Extent {
        Extent { lba, blocks }
    }

    /// The first block behind the extent.
    #[inline]
    #[must_use]
    pub fn end(self) -> BaseLba {
        self.lba.plus(self.blocks)
    }
}
