//! The writing half of the remap table. There is one, and the engine has it.
//!
//! It never changes anything that readers can see other than by exchanging a pointer, and what says beforehand where to look: the
//! filter beside it, and the outline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

use smallvec::SmallVec;

use super::directory::Directory;
use super::region::{FEW_CHANGES, KeyChange, REGION_BLOCKS, Region, RegionRef};
use super::{Mapping, Retired, Table, Unpublished};
use crate::slot::Slot;
use crate::sync::{AtomicBool, Ordering};
use crate::units::BaseLba;

/// A change of one block's mapping; `to` is `None` if the block is simply on the base afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The block of the base.
    pub lba: BaseLba,
    /// What the table is to hold for it.
    pub to: Option<Mapping>,
}

/// How many blocks the table holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that live on the spare.
    pub remapped: u64,
    /// Pending blocks.
    pub pending: u64,
    /// Lost blocks.
    pub lost: u64,
}

impl Counts {
    /// All blocks that the table holds.
    #[must_use]
    pub fn total(self) -> u64 {
        self.remapped + self.pending + self.lost
    }

    /// Counts what is in a region.
    fn add(&mut self, region: RegionRef<'_>) {
        let (mut pending, mut lost) = (0_u32, 0_u32);
        region.for_each_value(|value| {
            let mapping = Mapping::decode(value);
            pending += u32::from(mapping == Mapping::Pending);
            lost += u32::from(matches!(mapping, Mapping::Lost(_)));
        });
        self.pending += u64::from(pending);
        self.lost += u64::from(lost);
        self.remapped += region.len() as u64 - u64::from(pending + lost);
    }

    fn of(&mut self, mapping: Mapping) -> &mut u64 {
        match mapping {
            Mapping::Spare(_) => &mut self.remapped,
            Mapping::Pending => &mut self.pending,
            Mapping::Lost(_) => &mut self.lost,
        }
    }
}

/// `changes` by the region that they are in, in ascending order; those of one block stay in their order.
pub(crate) fn by_region(changes: &mut [Change]) -> impl Iterator<Item = &[Change]> {
    // Stable.
    changes.sort_by_key(|change| change.lba);
    changes.chunk_by(|a, b| a.lba.0 / REGION_BLOCKS == b.lba.0 / REGION_BLOCKS)
}

/// The right to change a [`Table`].
pub struct TableWriter {
    table: Arc<Table>,
    counts: Counts,
}

impl TableWriter {
    /// An empty table for a base of `base_blocks` blocks.
    #[must_use]
    pub fn new(base_blocks: u64) -> TableWriter {
        let (used, mirrored) = (AtomicBool::new(false), AtomicBool::new(false));
        let (directory, base_blocks) = (Directory::new(base_blocks), AtomicU64::new(base_blocks));
        let slot = AtomicU8::new(Slot::FIRST.get());
        let table = Table { directory, used, mirrored, slot, base_blocks };
        TableWriter { table: Arc::new(table), counts: Counts::default() }
    }

    /// The table, to be shared with readers.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// How many blocks the table holds.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether what is written to the spare is to go to another one, too. I/O that is under way may not have seen it.
    pub fn set_mirrored(&self, mirrored: bool) {
        self.table.mirrored.store(mirrored, Ordering::Relaxed);
    }

    /// Says in which slot the spare in force is. To be called before anything is found there.
    pub fn set_slot(&self, slot: Slot) {
        self.table.slot.store(slot.get(), Ordering::Relaxed);
    }

    /// Changes what the table holds for what the table of `other`, for the same base, holds, and that the other way round: readers
    /// see all of it change at once. What is in the other one then, readers may still look at.
    pub fn exchange(&mut self, other: &mut TableWriter) {
        self.table.used.store(true, Ordering::Relaxed);
        self.table.directory.exchange(&other.table.directory);
        std::mem::swap(&mut self.counts, &mut other.counts);
    }

    /// The base has grown to `base_blocks` blocks, which is within [`Table::room`]. To be called before anybody is told.
    pub fn grow(&mut self, base_blocks: u64) {
        self.table.base_blocks.fetch_max(base_blocks.min(self.table.room()), Ordering::Relaxed);
    }

    /// Applies `changes`; of several for one block the last one counts, blocks behind the end of the base are left out.
    /// Readers see each region of 16,384 blocks change at once.
    pub fn publish(&mut self, mut changes: Vec<Change>) -> Retired {
        let mut retired = Retired::default();
        for region in by_region(&mut changes) {
            self.publish_region(region, &mut retired);
        }
        retired
    }

    /// Applies changes of one region, as [`by_region`] has them. What it holds no more goes to `retired`.
    pub(crate) fn publish_region(&mut self, region: &[Change], retired: &mut Retired) {
        let TableWriter { table, counts } = self;
        let base_blocks = table.base_blocks();
        let region = &region[..region.partition_point(|change| change.lba.0 < base_blocks)];
        let Some(first) = region.first() else { return };
        let number = first.lba.0 / REGION_BLOCKS;
        let last_of_each = region.chunk_by(|a, b| a.lba == b.lba).map(|same| same[same.len() - 1]);
        let changes: SmallVec<[KeyChange; FEW_CHANGES]> = last_of_each
            .map(|Change { lba, to }| {
                to.into_iter().for_each(|mapping| *counts.of(mapping) += 1);
                // The remainder is below 16,384.
                ((lba.0 % REGION_BLOCKS) as u16, to.map(Mapping::encode))
            })
            .collect();
        let replaced = |value| *counts.of(Mapping::decode(value)) -= 1;
        let before = table.directory.whole_region(number);
        // SAFETY: it is in the table, so that it is whole, and freed only after it was taken out.
        let region = unsafe { before.changed(&changes, retired, replaced) };
        if before.is_nothing() && region.is_nothing() {
            return;
        }
        if !region.is_nothing() {
            // Relaxed: who sees the region, which is published with Release, sees this.
            table.used.store(true, Ordering::Relaxed);
        }
        // SAFETY: the region is fresh, or what it shares with the one before was not retired; and there is one writer, which is
        // borrowed mutably here.
        unsafe { table.directory.set_region(number, region, retired) }
    }

    /// Puts a region in its place, in which nothing is. Blocks behind the end of the base are left out.
    pub(crate) fn put(&mut self, region: Unpublished) {
        let region = region.before(BaseLba(self.table.base_blocks()));
        let Some(view) = region.view() else { return };
        self.counts.add(view);
        let (number, region) = region.into_parts();
        debug_assert!(self.table.directory.whole_region(number).is_nothing(), "region {number} holds something");
        // Relaxed: who sees the region, which is published with Release, sees this.
        self.table.used.store(true, Ordering::Relaxed);
        // SAFETY: the region is whole and nobody else's; and there is one writer, which is borrowed mutably here.
        unsafe { self.table.directory.set_region(number, region, &mut Retired::default()) }
    }

    /// Takes out the first region that holds anything from number `from` on; its number, and what is to be freed. For a table that
    /// is given up: the counts are not kept.
    pub(super) fn take_region(&mut self, from: u64) -> Option<(u64, Retired)> {
        let last = self.table.base_blocks().checked_sub(1)? / REGION_BLOCKS;
        let (number, _) = self.table.directory.top()?.first_region(from, last)?;
        let mut retired = Retired::default();
        // SAFETY: it is whole, as it is in the table; and there is one writer, which is borrowed mutably here.
        unsafe {
            self.table.directory.whole_region(number).retire(&mut retired);
            self.table.directory.set_region(number, Region::NOTHING, &mut retired);
        }
        Some((number, retired))
    }
}
