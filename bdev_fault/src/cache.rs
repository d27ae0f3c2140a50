//! The volatile write cache: blocks that were written and are not on the base yet. Plain memory, no I/O.
//!
//! A block is in the cache until the base has it, so that who reads first the cache and then the base misses nothing.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A block and its data.
pub type Block = (u64, Arc<[u8]>);

/// Written blocks by LBA; looked at and changed by all threads.
#[derive(Default)]
pub struct Cache(Mutex<BTreeMap<u64, Arc<[u8]>>>);

impl Cache {
    fn blocks(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in `data`, blocks of `block_size` bytes from `lba` on.
    pub fn put(&self, lba: u64, block_size: usize, data: &[u8]) {
        let mut blocks = self.blocks();
        for (at, block) in (lba..).zip(data.chunks_exact(block_size)) {
            blocks.insert(at, block.into());
        }
    }

    /// What there is in a range of LBAs, in order.
    pub fn get(&self, range: Range<u64>) -> Vec<Block> {
        if range.is_empty() {
            return Vec::new();
        }
        self.blocks().range(range).map(|(lba, data)| (*lba, Arc::clone(data))).collect()
    }

    /// The base has these blocks; those that were written again meanwhile stay.
    pub fn written(&self, written: &[Block]) {
        let mut blocks = self.blocks();
        for (lba, data) in written {
            if blocks.get(lba).is_some_and(|now| Arc::ptr_eq(now, data)) {
                blocks.remove(lba);
            }
        }
    }

    /// Loses everything.
    pub fn lose(&self) {
        self.blocks().clear();
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks().len()
    }
}
