//! The numbers that must not be mixed up.
//!
//! Used everywhere in the crate. Holds no logic beyond range checks.

use std::fmt;

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

/// A block address on the spare device, in blocks; not to be mixed up with a [`crate::SpareBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpareLba(pub u64);

impl SpareLba {
    /// The address `blocks` blocks further on (saturating).
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> SpareLba {
        SpareLba(self.0.saturating_add(blocks))
    }
}

impl fmt::Display for SpareLba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Epochs and sequence numbers beyond this were not written by this software: it would take thousands of years to get there.
const MAX_COUNT: u64 = 1 << 62;

macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: $name = $name(0);
            /// The first.
            pub const ONE: $name = $name(1);

            /// `count` as one of these, or `None` if it is beyond all that can have been written.
            #[must_use]
            pub fn new(count: u64) -> Option<$name> {
                (count <= MAX_COUNT).then_some($name(count))
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> u64 {
                self.0
            }

            /// Whether there is still room for all that may come after it.
            pub(crate) fn has_room(self) -> bool {
                self.0 <= MAX_COUNT / 2
            }

            /// The one `by` further on (saturating; [`Self::new`] keeps what is read from a spare far from that).
            #[must_use]
            pub fn plus(self, by: u64) -> $name {
                $name(self.0.saturating_add(by))
            }

            /// The one `by` before.
            #[must_use]
            pub fn minus(self, by: u64) -> Option<$name> {
                self.0.checked_sub(by).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count! {
    /// The number of a checkpoint, and of the log behind it. No two attempts at a checkpoint have the same.
    Epoch
}
count! {
    /// The number of a log page, or of a superblock, over the life of a set.
    Sequence
}

/// A run of blocks of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The first block.
    pub lba: BaseLba,
    /// The length in blocks.
    #[serde(rename = "num_blocks")]
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

    /// Whether the two have a block in common.
    #[inline]
    #[must_use]
    pub fn overlaps(self, other: Extent) -> bool {
        self.lba < other.end() && other.lba < self.end()
    }
}
