//! A stretch of blocks as cells of equal length: what each holds is counted, so that a picture is no larger however many blocks there
//! are, and no single block is lost in it.

use std::ops::Range;

/// Cells of a row.
pub const COLUMNS: u64 = 128;

/// How many blocks of each of three kinds a cell holds.
pub type Cell = [u64; 3];

/// Cells that follow each other, a power of two of blocks each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    blocks: u64,
    cell_blocks: u64,
    cells: Vec<Cell>,
}

impl Grid {
    /// `blocks` blocks in no more than `most` cells, and in more than half of that if there are as many blocks; nothing counted yet.
    #[must_use]
    pub fn new(blocks: u64, most: u64) -> Grid {
        // As blocks are fewer than 2^63, there is such a power.
        let cell_blocks = blocks.div_ceil(most.max(1)).max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        let cells = blocks.div_ceil(cell_blocks);
        Grid { blocks, cell_blocks, cells: (0..cells).map(|_| Cell::default()).collect() }
    }

    /// Counts `blocks` as of this kind (0 to 2). What is not on the grid is not counted.
    pub fn add(&mut self, blocks: Range<u64>, kind: usize) {
        let mut at = blocks.start;
        let end = blocks.end.min(self.blocks);
        while at < end {
            let index = at / self.cell_blocks;
            let next = (index + 1).saturating_mul(self.cell_blocks).min(end);
            let cell = usize::try_from(index).ok().and_then(|index| self.cells.get_mut(index));
            if let Some(count) = cell.and_then(|cell| cell.get_mut(kind)) {
                *count += next - at;
            }
            at = next;
        }
    }

    /// All blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks a cell; the last may have fewer.
    #[must_use]
    pub fn cell_blocks(&self) -> u64 {
        self.cell_blocks
    }

    /// What each cell holds.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Rows that are not empty of cells.
    #[must_use]
    pub fn rows(&self) -> u64 {
        (self.cells.len() as u64).div_ceil(COLUMNS)
    }

    /// The blocks of cell `index`.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = (index as u64).saturating_mul(self.cell_blocks).min(self.blocks);
        start..start.saturating_add(self.cell_blocks).min(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cells_cover_everything_once_and_add_up_to_what_was_added(
            blocks in prop_oneof![0..2000_u64, 1..1_u64 << 48],
            most in 1..9000_u64,
            added in prop::collection::vec((any::<u64>(), 1..5000_u64, 0..3_usize), 0..60),
        ) {
            let mut grid = Grid::new(blocks, most);
            let mut expected = Cell::default();
            for (at, count, kind) in added {
                let start = at % blocks.max(1);
                grid.add(start..start + count, kind);
                expected[kind] += (start + count).min(blocks) - start.min(blocks);
            }
            let mut sums = Cell::default();
            grid.cells().iter().for_each(|cell| (0..3).for_each(|kind| sums[kind] += cell[kind]));
            prop_assert_eq!(sums, expected);
            prop_assert!(grid.cells().len() as u64 <= most && grid.cell_blocks().is_power_of_two());
            let mut next = 0;
            for index in 0..grid.cells().len() {
                let range = grid.range(index);
                prop_assert!(range.start == next && !range.is_empty());
                next = range.end;
            }
            prop_assert_eq!(next, blocks);
        }
    }

    #[test]
    fn one_block_is_counted_in_its_cell_and_no_other() {
        let mut grid = Grid::new(1 << 30, 8192);
        assert_eq!((grid.cell_blocks(), grid.cells().len()), (1 << 17, 8192));
        grid.add((1 << 17)..(1 << 17) + 1, 2);
        let found: Vec<_> = (0..8192).filter(|index| grid.cells()[*index] != Cell::default()).collect();
        assert_eq!((found, grid.cells()[1]), (vec![1], [0, 0, 1]));
    }
}
