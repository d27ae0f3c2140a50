//! What is on a disk for good: blocks that survive everything but rot. Tests copy it, patch it, and compare it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use remap_core::Geometry;

use super::block::{Block, block_of};

/// The durable contents of a disk. Cheap to clone; blocks that are not in it are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    block_size: u32,
    size: u64,
    blocks: BTreeMap<u64, Rc<[u8]>>,
}

impl Medium {
    /// `size` blocks of `block_size` bytes, all of them zeros.
    #[must_use]
    pub fn new(block_size: u32, size: u64) -> Medium {
        Medium { block_size, size, blocks: BTreeMap::new() }
    }

    /// There are `blocks` blocks now, not fewer than before; the new ones are zeros.
    pub fn grow(&mut self, blocks: u64) {
        self.size = self.size.max(blocks);
    }

    /// Bytes a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The geometry of a disk with this medium.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry { block_size: self.block_size, blocks: self.size }
    }

    /// The bytes of a block.
    #[must_use]
    pub fn block(&self, lba: u64) -> Vec<u8> {
        self.blocks.get(&lba).map_or_else(|| vec![0; self.block_size as usize], |block| block.to_vec())
    }

    /// Sets the bytes of a block.
    pub fn set_block(&mut self, lba: u64, bytes: &[u8]) {
        self.set(lba, block_of(bytes));
    }

    /// The contents of a block.
    #[must_use]
    pub fn get(&self, lba: u64) -> Block {
        self.blocks.get(&lba).cloned()
    }

    /// Sets the contents of a block. There is none behind the end.
    pub fn set(&mut self, lba: u64, block: Block) {
        match block {
            Some(block) if lba < self.size => self.blocks.insert(lba, block),
            _ => self.blocks.remove(&lba),
        };
    }

    /// The blocks of `range` that are not zeros.
    pub fn written(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Rc<[u8]>)> {
        self.blocks.range(range).map(|(lba, block)| (*lba, block))
    }

    /// Flips a bit of a block.
    pub fn flip(&mut self, lba: u64, bit: usize) {
        let mut block = self.block(lba);
        if let Some(byte) = block.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        self.set_block(lba, &block);
    }

    /// Makes `blocks` blocks from `lba` on zeros.
    pub fn clear(&mut self, lba: u64, blocks: u64) {
        (lba..lba + blocks).for_each(|lba| self.set(lba, None));
    }
}
