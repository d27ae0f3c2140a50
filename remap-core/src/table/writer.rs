//! The writing half of the remap table. There is one, and the engine has it.
//!
//! It never changes anything that readers can see other than by swapping one pointer.

use std::sync::Arc;

use super::leaf::{LEAF_BLOCKS, Leaf};
use super::{Directory, Mapping, Table, leaf_of};
use crate::sync::{AtomicPtr, Ordering};
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

    fn of(&mut self, mapping: Mapping) -> &mut u64 {
        match mapping {
            Mapping::Spare(_) => &mut self.remapped,
            Mapping::Pending => &mut self.pending,
            Mapping::Lost(_) => &mut self.lost,
        }
    }
}

/// What a [`TableWriter::publish`] took out of the table and readers may still look at. Dropping it leaks the memory.
#[must_use = "free it after a grace period, or it is leaked"]
#[derive(Default)]
pub struct Retired {
    leaves: Vec<*mut Leaf>,
    directory: Option<*mut Directory>,
}

impl Retired {
    /// Whether there is nothing to free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.directory.is_none()
    }

    /// Frees it.
    ///
    /// # Safety
    /// Every reader that could have begun before the publish returned has left the methods of [`Table`].
    pub unsafe fn free(self) {
        for leaf in self.leaves {
            // SAFETY: made by `Leaf::make`, taken out of the table by `publish` and kept only here, so freed once; by
            // contract nobody looks at it.
            unsafe { Leaf::free(leaf) }
        }
        if let Some(directory) = self.directory {
            // SAFETY: came from `Box::into_raw`, taken out of `root` by `publish`; by contract nobody looks at it. Its
            // leaves were all taken out before.
            drop(unsafe { Box::from_raw(directory) });
        }
    }
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
        let table = Table { root: AtomicPtr::new(std::ptr::null_mut()), base_blocks };
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

    /// Applies `changes`; of several for one block the last one counts, blocks behind the end of the base are left out.
    /// Readers see each run of 65,536 blocks change at once.
    pub fn publish(&mut self, mut changes: Vec<Change>) -> Retired {
        changes.retain(|change| change.lba.0 < self.table.base_blocks);
        // Stable, so that the changes of one block stay in order.
        changes.sort_by_key(|change| change.lba);
        let mut retired = Retired::default();
        if changes.is_empty() {
            return retired;
        }
        let fresh = self.table.is_empty().then(|| Directory::new(self.table.base_blocks));
        match &fresh {
            Some(directory) => self.apply(directory, &changes, &mut retired),
            None => {
                let table = Arc::clone(&self.table);
                if let Some(directory) = table.directory() {
                    self.apply(directory, &changes, &mut retired);
                }
            }
        }
        match fresh {
            Some(directory) if self.counts.total() > 0 => {
                // Release: whoever sees the root sees the leaves that were put in.
                self.table.root.store(Box::into_raw(Box::new(directory)), Ordering::Release);
            }
            // Nothing came in, so it has no leaves, and nobody ever saw it.
            Some(_) => {}
            None if self.counts.total() == 0 => {
                retired.directory = Some(self.table.root.swap(std::ptr::null_mut(), Ordering::AcqRel));
            }
            None => {}
        }
        retired
    }

    fn apply(&mut self, directory: &Directory, changes: &[Change], retired: &mut Retired) {
        for group in changes.chunk_by(|a, b| a.lba.0 / LEAF_BLOCKS == b.lba.0 / LEAF_BLOCKS) {
            let index = group[0].lba.0 / LEAF_BLOCKS;
            let Some(slot) = usize::try_from(index).ok().and_then(|index| directory.leaves.get(index)) else {
                continue;
            };
            let entries = self.merged(directory, index, group);
            // Release: whoever sees the leaf sees what is in it.
            let old = slot.swap(Leaf::make(&entries), Ordering::AcqRel);
            if !old.is_null() {
                retired.leaves.push(old);
            }
        }
    }

    /// The entries of the leaf `index` with `group` applied; keeps the counts.
    fn merged(&mut self, directory: &Directory, index: u64, group: &[Change]) -> Vec<(u16, u32)> {
        let (keys, values) = leaf_of(directory, index).map_or((&[][..], &[][..]), |leaf| (leaf.keys, leaf.values));
        let mut entries = Vec::with_capacity(keys.len() + group.len());
        let mut old = keys.iter().copied().zip(values.iter().copied()).peekable();
        for same in group.chunk_by(|a, b| a.lba == b.lba) {
            let last = same[same.len() - 1];
            // The remainder is below 65,536.
            let key = (last.lba.0 % LEAF_BLOCKS) as u16;
            while let Some(entry) = old.next_if(|entry| entry.0 < key) {
                entries.push(entry);
            }
            if let Some((_, value)) = old.next_if(|entry| entry.0 == key) {
                *self.counts.of(Mapping::decode(value)) -= 1;
            }
            if let Some(mapping) = last.to {
                *self.counts.of(mapping) += 1;
                entries.push((key, mapping.encode()));
            }
        }
        entries.extend(old);
        entries
    }
}
