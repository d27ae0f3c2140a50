//! The spare's file as docs/format.md describes it: where its structures are, and the means to damage or forge them.
//!
//! Written from the document, not from the code that it tests.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

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

/// The file of a spare that is formatted and not in use.
pub struct SpareFile {
    path: PathBuf,
    block_size: u64,
    page_bytes: u64,
    area_pages: u64,
    /// LBA of each log area, by area, then by copy.
    areas: [[u64; 2]; 2],
    /// LBA of superblock B.
    superblock_b: u64,
    /// LBA of the data area.
    pub data_start: u64,
    /// Blocks of the data area.
    pub data_blocks: u64,
    /// The highest epoch that the superblock knows.
    pub epoch: u64,
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

impl SpareFile {
    /// Parses the newer superblock of `path`.
    pub fn open(path: &Path) -> SpareFile {
        let all = std::fs::read(path).expect("the spare can be read");
        let (first, last) = (&all[..4096], &all[all.len() - 4096..]);
        let is_ours = |copy: &[u8]| &copy[..8] == b"BDRMSUP1";
        assert!(is_ours(first) && is_ours(last), "both superblocks are there");
        let s = if u64_at(first, 128) >= u64_at(last, 128) { first } else { last };
        SpareFile {
            path: path.to_owned(),
            block_size: u32_at(s, 96),
            page_bytes: u32_at(s, 144),
            area_pages: u32_at(s, 148),
            areas: [[u64_at(s, 152), u64_at(s, 168)], [u64_at(s, 160), u64_at(s, 176)]],
            superblock_b: u64_at(s, 192),
            data_start: u64_at(s, 184),
            data_blocks: u32_at(s, 200),
            epoch: u64_at(s, 136),
        }
    }

    /// Where a superblock is, in bytes.
    pub fn superblock(&self, copy: Copy) -> u64 {
        if copy == Copy::A { 0 } else { self.superblock_b * self.block_size }
    }

    /// Where a log page is, in bytes.
    pub fn page(&self, copy: Copy, area: usize, page: u64) -> u64 {
        assert!(page < self.area_pages);
        self.areas[area][copy as usize] * self.block_size + page * self.page_bytes
    }

    /// The blocks of the spare that hold one copy of everything: first block and number.
    pub fn metadata_blocks(&self, copy: Copy) -> (u64, u64) {
        let end = self.superblock_b + self.page_bytes / self.block_size;
        let behind = self.data_start + self.data_blocks;
        if copy == Copy::A { (0, self.data_start) } else { (behind, end - behind) }
    }

    /// The area in use, the pages of its checkpoint, and the pages in all.
    pub fn log(&self) -> (usize, u64, u64) {
        let header = |area: usize, page: u64| {
            let bytes = self.read(self.page(Copy::A, area, page), 64);
            (&bytes[..8] == b"BDRMLOG1").then(|| (u64_at(&bytes, 32), u32_at(&bytes, 52)))
        };
        let epoch = |area| header(area, 0).map_or(0, |(epoch, _)| epoch);
        let area = usize::from(epoch(1) > epoch(0));
        let (epoch, checkpoint) = header(area, 0).expect("a log page");
        let held = |page: &u64| header(area, *page).is_some_and(|(of, _)| of == epoch);
        (area, checkpoint, (0..self.area_pages).take_while(held).count() as u64)
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

    /// Changes a superblock or a log page (both have their CRC at 8), and makes its CRC right again.
    pub fn forge(&self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(offset, 4096);
        change(&mut bytes);
        bytes[8..12].fill(0);
        let crc = crc32c(&bytes);
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
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
