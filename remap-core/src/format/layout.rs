//! Where everything is on the spare.
//!
//! ```text
//! | superblock A | area 0 A | area 1 A |  data area …  | area 0 B | area 1 B | superblock B | (less than a page) |
//!   page 0                                                                    the last whole page of the device
//! ```
//! Computed once, when a spare is formatted; later it is what the superblock says, checked again.

use super::page::records_per_page;
use super::place::{Area, Copy, PerCopy};
use crate::error::Error;
use crate::slot::SpareBlock;
use crate::units::{MAX_SPARE_BLOCKS, SpareLba};

/// The least size of a page in bytes.
const MIN_PAGE_BYTES: u32 = 4096;
/// Block sizes in bytes that are supported.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;
/// The fewest blocks that a data area may have.
const MIN_DATA_BLOCKS: u64 = 64;
/// Pages that a log area of a spare that has grown has at least behind its checkpoint.
const MIN_ROOM: u64 = 32;
/// At least so many blocks may be pending.
const MIN_PENDING: u64 = 64;

/// The places on the spare, in blocks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes a block.
    pub block_size: u32,
    /// Size of the device in blocks.
    pub spare_blocks: u64,
    /// Bytes of a superblock or log page: whole blocks, at least 4096.
    pub page_bytes: u32,
    /// Pages of a log area.
    pub area_pages: u32,
    /// First block of log area 0, by copy; area 1 follows it.
    pub log: PerCopy<SpareLba>,
    /// First block of the data area.
    pub data_start: SpareLba,
    /// Size of the data area in blocks.
    pub data_blocks: u32,
    /// Block of superblock B.
    pub superblock_b: SpareLba,
}

/// Bytes of a page on a device with this block size.
fn page_bytes(block_size: u32) -> u32 {
    MIN_PAGE_BYTES.div_ceil(block_size) * block_size
}

/// How many blocks may be pending, with `data_blocks` spare blocks: what a log area has room for.
fn pending_limit(data_blocks: u64) -> u64 {
    (data_blocks / 8).max(MIN_PENDING)
}

impl Layout {
    /// Lays out a spare of `blocks` blocks of `block_size` bytes.
    ///
    /// # Errors
    /// [`Error::BlockSize`]; [`Error::TooSmall`], with the least size.
    pub fn for_spare(block_size: u32, blocks: u64) -> Result<Layout, Error> {
        if !BLOCK_SIZES.contains(&block_size) {
            return Err(Error::BlockSize { block_size });
        }
        let mib = |blocks: u64| blocks.saturating_mul(u64::from(block_size)) >> 20;
        Self::fit(block_size, blocks).ok_or_else(|| {
            // The least size is a few MiB with any block size that is supported.
            let least = (1..4096_u64).find(|mib| Self::fit(block_size, (mib << 20) / u64::from(block_size)).is_some());
            Error::TooSmall { have_mib: mib(blocks), least_mib: least.unwrap_or(4096) }
        })
    }

    fn fit(block_size: u32, blocks: u64) -> Option<Layout> {
        let page_bytes = page_bytes(block_size);
        let page_blocks = u64::from(page_bytes / block_size);
        let total = blocks / page_blocks;
        let per_page = records_per_page(page_bytes as usize) as u64;
        let room = (total / 64).clamp(64, 4096);
        let data_for = |area: u64| -> u64 {
            let pages = total.saturating_sub(2 + 4 * area);
            (pages * page_blocks).min(u64::from(MAX_SPARE_BLOCKS))
        };
        // The smallest area that has room for all that its data area can need: the larger the one, the smaller the other.
        let (mut low, mut high) = (room, room + (u64::from(MAX_SPARE_BLOCKS) * 2).div_ceil(per_page));
        while low < high {
            let area = low.midpoint(high);
            let data = data_for(area);
            if (data + pending_limit(data)).div_ceil(per_page) + room <= area {
                high = area;
            } else {
                low = area + 1;
            }
        }
        let data = data_for(low);
        if data < MIN_DATA_BLOCKS {
            return None;
        }
        let area = low * page_blocks;
        let superblock_b = (total - 1) * page_blocks;
        Some(Layout {
            block_size,
            spare_blocks: blocks,
            page_bytes,
            area_pages: u32::try_from(low).ok()?,
            log: PerCopy([SpareLba(page_blocks), SpareLba(superblock_b - 2 * area)]),
            data_start: SpareLba(page_blocks + 2 * area),
            data_blocks: u32::try_from(data).ok()?,
            superblock_b: SpareLba(superblock_b),
        })
    }

    /// The layout of the same spare when its device has grown to `blocks` blocks. Superblock B is at the new end. The data area goes
    /// on as far as the log areas have room for what can be in it, if copy B of them finds a place behind all that is in force
    /// now. Nothing else moves.
    #[must_use]
    pub fn grown(&self, blocks: u64) -> Option<Layout> {
        let superblock_b = superblock_b(self.block_size, blocks).filter(|_| blocks > self.spare_blocks)?;
        let moved = Layout { spare_blocks: blocks, superblock_b, ..*self };
        let log_b = superblock_b.0.saturating_sub(2 * self.area_blocks());
        if log_b < self.superblock_b.0 + self.page_blocks() {
            return Some(moved);
        }
        let records =
            u64::from(self.area_pages).saturating_sub(MIN_ROOM) * records_per_page(self.page_bytes as usize) as u64;
        let room = (log_b - self.data_start.0).min(u64::from(MAX_SPARE_BLOCKS));
        // Of N blocks, and N/8 that may be pending, each may have its record.
        let data = room.min(records / 9 * 8);
        match u32::try_from(data) {
            Ok(data_blocks) if data_blocks > self.data_blocks => {
                let log = PerCopy([self.log[Copy::A], SpareLba(log_b)]);
                Some(Layout { log, data_blocks, ..moved })
            }
            _ => Some(moved),
        }
    }

    /// Blocks of a page.
    #[must_use]
    pub fn page_blocks(&self) -> u64 {
        u64::from(self.page_bytes / self.block_size.max(1))
    }

    /// Blocks of a log area.
    #[must_use]
    pub fn area_blocks(&self) -> u64 {
        u64::from(self.area_pages).saturating_mul(self.page_blocks())
    }

    /// The block where page `page` of log area `area` starts, in that copy.
    #[must_use]
    pub fn log_page(&self, copy: Copy, area: Area, page: u64) -> SpareLba {
        let area = self.area_blocks().saturating_mul(area.index() as u64);
        self.log[copy].plus(area).plus(page.saturating_mul(self.page_blocks()))
    }

    /// The blocks where the log areas start, in each copy.
    pub(crate) fn log_areas(&self) -> impl Iterator<Item = SpareLba> + '_ {
        Copy::BOTH.into_iter().flat_map(|copy| Area::BOTH.map(|area| self.log_page(copy, area, 0)))
    }

    /// The block where the superblock starts, in that copy.
    #[must_use]
    pub fn superblock(&self, copy: Copy) -> SpareLba {
        match copy {
            Copy::A => SpareLba(0),
            Copy::B => self.superblock_b,
        }
    }

    /// Where the metadata is: the first block of each part, and how many.
    #[must_use]
    pub fn metadata(&self) -> [(SpareLba, u64); 4] {
        let [log_a, log_b] = self.log.0.map(|first| (first, 2 * self.area_blocks()));
        let [a, b] = Copy::BOTH.map(|copy| (self.superblock(copy), self.page_blocks()));
        [a, log_a, log_b, b]
    }

    /// The block of the spare where the data of `block` is.
    #[must_use]
    pub fn data(&self, block: SpareBlock) -> SpareLba {
        self.data_start.plus(u64::from(block.index()))
    }

    /// The block behind the data area.
    #[must_use]
    pub fn data_end(&self) -> SpareLba {
        self.data_start.plus(u64::from(self.data_blocks))
    }

    /// How many blocks may be pending at one time.
    #[must_use]
    pub fn pending_limit(&self) -> u64 {
        pending_limit(u64::from(self.data_blocks))
    }

    /// Checks a layout that came from a superblock: on the device, and nothing over something else.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if !BLOCK_SIZES.contains(&self.block_size) || self.page_bytes != page_bytes(self.block_size) {
            return Err("page size");
        }
        if self.area_pages < 2 || self.data_blocks == 0 || self.data_blocks > MAX_SPARE_BLOCKS {
            return Err("size of a log area or of the data area");
        }
        let last = superblock_b(self.block_size, self.spare_blocks).ok_or("size of the device")?;
        if self.superblock_b != last {
            return Err("place of superblock B");
        }
        let page = self.page_blocks();
        let area = self.area_blocks();
        let mut parts = [
            (0, page),
            (self.log[Copy::A].0, 2 * area),
            (self.data_start.0, u64::from(self.data_blocks)),
            (self.log[Copy::B].0, 2 * area),
            (last.0, page),
        ];
        parts.sort_unstable();
        let ends = parts.map(|(start, len)| start.checked_add(len));
        let starts = parts.iter().skip(1).map(|part| part.0).chain([self.spare_blocks]);
        let apart = ends.iter().zip(starts).all(|(end, next)| end.is_some_and(|end| end <= next));
        if apart { Ok(()) } else { Err("parts of the spare overlap") }
    }
}

/// The block of superblock B on a device: the start of its last whole page, if it has more than one.
#[must_use]
pub fn superblock_b(block_size: u32, blocks: u64) -> Option<SpareLba> {
    if !BLOCK_SIZES.contains(&block_size) {
        return None;
    }
    let page_blocks = u64::from(page_bytes(block_size) / block_size);
    let page = (blocks / page_blocks).checked_sub(1).filter(|page| *page > 0)?;
    Some(SpareLba(page * page_blocks))
}

/// The blocks of a page on a device with this block size, if it is supported.
#[must_use]
pub fn page_geometry(block_size: u32) -> Option<(u32, usize)> {
    BLOCK_SIZES.contains(&block_size).then(|| (page_bytes(block_size), (page_bytes(block_size) / block_size) as usize))
}
