//! The spare's file as docs/format.md describes it: where its structures are, what they say, and the means to damage or forge
//! them.
//!
//! Written from the document, not from the code that it tests.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes of a superblock, and of a log page with blocks of at most 4096 bytes.
const PAGE: usize = 4096;
/// Bytes of a page header; records follow.
const PAGE_HEADER: usize = 80;
/// Bytes of a record.
const RECORD: usize = 16;
/// Offset of `copy` in a page header.
const PAGE_COPY: usize = 76;

/// A copy of the metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copy {
    /// At the beginning of the spare.
    A,
    /// At its end.
    B,
}

/// Both copies.
pub const BOTH: [Copy; 2] = [Copy::A, Copy::B];

impl Copy {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Copy {
        if self == Copy::A { Copy::B } else { Copy::A }
    }

    /// What status calls the two things of this copy: superblock and log.
    pub fn names(self) -> (&'static str, &'static str) {
        if self == Copy::A { ("superblock_a", "log_a") } else { ("superblock_b", "log_b") }
    }
}

/// Offsets of fields of the superblock, in bytes.
#[allow(missing_docs)]
pub mod field {
    pub const VERSION: usize = 12;
    pub const INCOMPAT: usize = 16;
    pub const RO_COMPAT: usize = 24;
    pub const COMPAT: usize = 32;
    pub const SET_UUID: usize = 40;
    pub const SEQUENCE: usize = 96;
    pub const EPOCH: usize = 112;
    pub const COMMITTED: usize = 120;
    pub const NOTED_EPOCH: usize = 128;
    pub const BASE_BLOCKS: usize = 136;
    pub const SPARE_BLOCKS: usize = 144;
    pub const SPARE_0_ID: usize = 152;
    pub const SPARE_1_ID: usize = 168;
    pub const SPARE_0_STATE: usize = 184;
    pub const SPARE_1_STATE: usize = 188;
    pub const SLOT: usize = 192;
    pub const BLOCK_SIZE: usize = 196;
    pub const MD_SIZE: usize = 200;
    pub const PAGE_BYTES: usize = 204;
    pub const AREA_PAGES: usize = 208;
    pub const DATA_BLOCKS: usize = 212;
    pub const LOG_A: usize = 216;
    pub const LOG_B: usize = 224;
    pub const DATA_START: usize = 232;
    pub const SUPERBLOCK_B: usize = 240;
    pub const IN_USE: usize = 252;
    pub const NAME: usize = 256;
    pub const RESERVED: usize = 468;
    pub const TAIL: usize = 512;
}

/// Offsets of fields of a log page, in bytes.
#[allow(missing_docs)]
pub mod page_field {
    pub const SPARE_ID: usize = 32;
    pub const EPOCH: usize = 48;
    pub const SEQUENCE: usize = 56;
    pub const RECORD_COUNT: usize = 64;
    pub const CHECKPOINT_PAGES: usize = 68;
    pub const INDEX: usize = 72;
    pub const AREA: usize = 77;
}

/// Where record `n` of a page begins.
pub const fn record(n: usize) -> usize {
    PAGE_HEADER + RECORD * n
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

/// CRC-32C (Castagnoli), bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// The CRC that a superblock or a log page has to have: of all of it, with the CRC, at 8, taken as zero.
fn crc_of(bytes: &[u8]) -> u32 {
    let mut bytes = bytes.to_vec();
    bytes[8..12].fill(0);
    crc32c(&bytes)
}

fn is_sealed(bytes: &[u8], magic: &[u8; 8]) -> bool {
    bytes[..8] == *magic && u32_at(bytes, 8) == u64::from(crc_of(bytes))
}

/// What both superblocks in the file hold; `None` for one that is not valid. May be asked while the spare is in use.
pub fn superblocks(path: &Path) -> [Option<Superblock>; 2] {
    let file = File::open(path).expect("the spare can be opened");
    // The last whole page: files are a whole number of pages long.
    let last = file.metadata().expect("the spare has a size").len() - PAGE as u64;
    [0, last].map(|offset| {
        let mut bytes = vec![0; PAGE];
        file.read_exact_at(&mut bytes, offset).expect("the spare can be read");
        is_sealed(&bytes, b"BDRMSUP1").then_some(Superblock(bytes))
    })
}

/// A valid superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock(Vec<u8>);

impl Superblock {
    /// The number of 8 bytes at this offset.
    pub fn number(&self, at: usize) -> u64 {
        u64_at(&self.0, at)
    }

    /// A log page that is known to be committed, with all before it.
    pub fn committed(&self) -> u64 {
        self.number(field::COMMITTED)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The log that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogInForce {
    /// Its area.
    pub area: usize,
    /// Its epoch.
    pub epoch: u64,
    /// Pages of its checkpoint.
    pub checkpoint: u64,
    /// Pages in all.
    pub pages: u64,
    /// Sequence number of the last one.
    pub last: u64,
}

/// The file of a spare that is formatted.
pub struct SpareFile {
    path: PathBuf,
    block_size: u64,
    page_bytes: u64,
    area_pages: u64,
    /// LBA of log area 0, by copy; area 1 follows.
    log: [u64; 2],
    /// LBA of superblock B.
    superblock_b: u64,
    /// LBA of the data area.
    pub data_start: u64,
    /// Blocks of the data area.
    pub data_blocks: u64,
    /// The highest epoch that the superblock knows.
    pub epoch: u64,
}

impl SpareFile {
    /// Parses the newer superblock of `path`.
    #[track_caller]
    pub fn open(path: &Path) -> SpareFile {
        let newest = superblocks(path).into_iter().flatten().max_by_key(|copy| copy.number(field::SEQUENCE));
        let Superblock(s) = newest.expect("a valid superblock");
        SpareFile {
            path: path.to_owned(),
            block_size: u32_at(&s, field::BLOCK_SIZE),
            page_bytes: u32_at(&s, field::PAGE_BYTES),
            area_pages: u32_at(&s, field::AREA_PAGES),
            log: [u64_at(&s, field::LOG_A), u64_at(&s, field::LOG_B)],
            superblock_b: u64_at(&s, field::SUPERBLOCK_B),
            data_start: u64_at(&s, field::DATA_START),
            data_blocks: u32_at(&s, field::DATA_BLOCKS),
            epoch: u64_at(&s, field::EPOCH),
        }
    }

    /// Where a superblock is, in bytes.
    pub fn superblock(&self, copy: Copy) -> u64 {
        if copy == Copy::A { 0 } else { self.superblock_b * self.block_size }
    }

    /// Where a log page is, in bytes.
    pub fn page(&self, copy: Copy, area: usize, page: u64) -> u64 {
        assert!(page < self.area_pages);
        self.log[copy as usize] * self.block_size + (area as u64 * self.area_pages + page) * self.page_bytes
    }

    /// Where both log areas of a copy are, and how long they are, in bytes.
    pub fn log_bytes(&self, copy: Copy) -> (u64, usize) {
        (self.page(copy, 0, 0), (2 * self.area_pages * self.page_bytes) as usize)
    }

    /// The blocks of the spare that hold one copy of everything: first block and number.
    pub fn metadata_blocks(&self, copy: Copy) -> (u64, u64) {
        let end = self.superblock_b + self.page_bytes / self.block_size;
        let behind = self.data_start + self.data_blocks;
        if copy == Copy::A { (0, self.data_start) } else { (behind, end - behind) }
    }

    /// A log page, if it is valid in its place.
    fn valid_page(&self, copy: Copy, area: usize, index: u64) -> Option<Vec<u8>> {
        let bytes = self.read(self.page(copy, area, index), PAGE);
        let here = u32_at(&bytes, page_field::INDEX) == index
            && usize::from(bytes[PAGE_COPY]) == copy as usize
            && usize::from(bytes[page_field::AREA]) == area;
        (here && is_sealed(&bytes, b"BDRMLOG1")).then_some(bytes)
    }

    /// The log that is in force, as copy A has it.
    #[track_caller]
    pub fn log(&self) -> LogInForce {
        let epoch_of = |bytes: &Vec<u8>| u64_at(bytes, page_field::EPOCH);
        let first = |area| self.valid_page(Copy::A, area, 0).map(|bytes| (epoch_of(&bytes), area, bytes));
        let (epoch, area, bytes) = [first(0), first(1)].into_iter().flatten().max().expect("a log page");
        let held = |page: &u64| self.valid_page(Copy::A, area, *page).is_some_and(|bytes| epoch_of(&bytes) == epoch);
        let pages = (0..self.area_pages).take_while(held).count() as u64;
        let checkpoint = u32_at(&bytes, page_field::CHECKPOINT_PAGES);
        LogInForce { area, epoch, checkpoint, pages, last: u64_at(&bytes, page_field::SEQUENCE) + pages - 1 }
    }

    /// Checks that both copies of everything are whole and say the same, that the superblocks know the epoch in force, and that
    /// no bad page lies behind the end of the log.
    #[track_caller]
    pub fn assert_whole(&self, what: &str) {
        let [a, b] = superblocks(&self.path);
        assert!(a.is_some() && a == b, "{what}: the superblocks are {:?} and {:?}", a.is_some(), b.is_some());
        let LogInForce { area, epoch, pages, .. } = self.log();
        assert_eq!(a.map(|a| a.number(field::EPOCH)), Some(epoch), "{what}: the epoch that the superblocks know");
        for page in 0..self.area_pages {
            let [a, b] = BOTH.map(|copy| {
                let bytes = self.valid_page(copy, area, page);
                let zero = || self.read(self.page(copy, area, page), PAGE).iter().all(|byte| *byte == 0);
                assert!(bytes.is_some() || zero(), "{what}: page {page} of area {area}, copy {copy:?}, is bad");
                // Which copy it is in is all in which the two may differ.
                bytes.map(|mut bytes| {
                    bytes[8..12].fill(0);
                    bytes[PAGE_COPY] = 0;
                    bytes
                })
            });
            assert!(
                page >= pages || (a.is_some() && a == b),
                "{what}: the copies of page {page} of area {area} differ"
            );
            let of_epoch = |page: Option<Vec<u8>>| page.is_some_and(|page| u64_at(&page, page_field::EPOCH) == epoch);
            assert!(
                page < pages || !(of_epoch(a) || of_epoch(b)),
                "{what}: page {page} of area {area} is behind a gap"
            );
        }
    }

    /// Bytes of the file.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        File::open(&self.path).and_then(|file| file.read_exact_at(&mut bytes, offset)).expect("the spare can be read");
        bytes
    }

    /// Overwrites bytes of the file.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path);
        file.and_then(|file| file.write_all_at(bytes, offset)).expect("the spare can be written");
    }

    /// Changes a superblock or a log page, and makes its CRC right again.
    pub fn forge(&self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(offset, PAGE);
        change(&mut bytes);
        let crc = crc_of(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        self.write(offset, &bytes);
    }

    /// Does the same to both copies of the superblock.
    pub fn forge_superblocks(&self, change: impl Fn(&mut [u8])) {
        BOTH.iter().for_each(|copy| self.forge(self.superblock(*copy), &change));
    }

    /// Does the same to both copies of a log page.
    pub fn forge_pages(&self, area: usize, page: u64, change: impl Fn(&mut [u8])) {
        BOTH.iter().for_each(|copy| self.forge(self.page(*copy, area, page), &change));
    }

    /// Zeroes both superblocks.
    pub fn zero_superblocks(&self) {
        BOTH.iter().for_each(|copy| self.write(self.superblock(*copy), &[0; PAGE]));
    }

    /// Whether nothing of a set can be found: both superblocks, and pages 0 and 1 of each area in each copy, are zero.
    pub fn is_wiped(&self) -> bool {
        let zero = |offset| self.read(offset, PAGE).iter().all(|byte| *byte == 0);
        let first_pages = |copy| [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(area, page)| self.page(copy, area, page));
        BOTH.iter().all(|copy| zero(self.superblock(*copy)) && first_pages(*copy).into_iter().all(zero))
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the spare can be read")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
