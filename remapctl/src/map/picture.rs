//! What there is to be drawn, computed once, whatever it is drawn as: counts, cells of base and spare, and all extents, packed. It takes a
//! few bytes an extent, and reads them once, so that they can come from anywhere.

use std::ops::Range;

use remap_core::{ListedExtent, ListedState, SpareLba};

use super::about::About;
use super::grid::{COLUMNS, Cell, Grid};
use super::packed::{Packed, number};
use crate::error::Error;

/// Cells of the base, at most.
const BASE_CELLS: u64 = 64 * COLUMNS;
/// Cells of the spare, at most.
const SPARE_CELLS: u64 = 8 * COLUMNS;
/// Extents that are named one by one: the lost ones, as nobody looks for those in a picture alone.
const NAMED: usize = 12;
/// Parts of the base that are compared with each other.
const REGIONS: u64 = 16;

/// Kinds of blocks of the spare, as its cells have them.
pub mod spare {
    /// It holds the data of a block.
    pub const USED: usize = 0;
    /// It is bad, and not used.
    pub const BAD: usize = 1;
    /// It is there for a block whose data is lost.
    pub const LOST: usize = 2;
}

/// Everything that is drawn.
pub struct Picture {
    /// What is known of the set beside its blocks.
    pub about: About,
    /// Blocks that are remapped, pending and lost.
    pub counts: Cell,
    /// The base: how many of its blocks are remapped, pending and lost.
    pub base: Grid,
    /// The data area of the spare: how many of its blocks are used, bad and lost.
    pub spare: Grid,
    /// The base in large parts.
    pub regions: Grid,
    /// The first lost extents.
    pub lost: Vec<ListedExtent>,
    /// How many there are.
    pub lost_extents: u64,
    /// All extents.
    pub packed: Packed,
}

impl Picture {
    /// A picture of a set of which no block is known yet.
    #[must_use]
    pub fn new(about: About) -> Picture {
        let blocks = about.base_blocks;
        Picture {
            counts: Cell::default(),
            base: Grid::new(blocks, BASE_CELLS),
            spare: Grid::new(about.spare.blocks, SPARE_CELLS),
            regions: Grid::new(blocks, REGIONS),
            lost: Vec::new(),
            lost_extents: 0,
            packed: Packed::default(),
            about,
        }
    }

    /// Adds an extent. They come in ascending order.
    ///
    /// # Errors
    /// [`Error::Disorder`] if it begins before the end of the last one, or is not on the base.
    pub fn add(&mut self, extent: &ListedExtent) -> Result<(), Error> {
        let (lba, num_blocks) = (extent.lba.0, extent.num_blocks);
        let blocks = lba..lba.saturating_add(num_blocks);
        if lba < self.packed.end() || blocks.end > self.about.base_blocks || num_blocks == 0 {
            return Err(Error::Disorder { lba });
        }
        let kind = number(extent.state);
        self.counts[kind] += num_blocks;
        self.base.add(blocks.clone(), kind);
        self.regions.add(blocks, kind);
        if let (Some(first), Some(kind)) = (extent.spare_lba, kind_on_spare(extent.state)) {
            self.on_spare(first, num_blocks, kind);
        }
        if extent.state == ListedState::Lost {
            self.lost_extents += 1;
            if self.lost.len() < NAMED {
                self.lost.push(*extent);
            }
        }
        self.packed.push(extent);
        Ok(())
    }

    /// Adds a bad block of the spare.
    pub fn add_bad(&mut self, block: SpareLba) {
        self.on_spare(block, 1, spare::BAD);
    }

    fn on_spare(&mut self, first: SpareLba, blocks: u64, kind: usize) {
        let start = first.0.saturating_sub(self.about.spare.first);
        self.spare.add(start..start.saturating_add(blocks), kind);
    }

    /// The large parts of the base that have anything, and what.
    pub fn worst(&self) -> impl Iterator<Item = (Range<u64>, Cell)> + '_ {
        let cells = self.regions.cells().iter().enumerate();
        cells.filter(|(_, cell)| **cell != Cell::default()).map(|(index, cell)| (self.regions.range(index), *cell))
    }
}

fn kind_on_spare(state: ListedState) -> Option<usize> {
    match state {
        ListedState::Remapped => Some(spare::USED),
        ListedState::Lost => Some(spare::LOST),
        ListedState::Pending => None,
    }
}
