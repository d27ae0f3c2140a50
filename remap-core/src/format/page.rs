//! A page of the remap log: a header, and records.
//!
//! ```text
//! | header, 64 bytes | record 0 | record 1 | … | zeros |        page_bytes in all
//! ```
//! Encoded by the log, decoded by recovery. Decoding takes any bytes and never panics. `docs/format.md` describes the fields.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::{crc_without, is_zero};
use super::record::{RECORD_SIZE, RawRecord, Record};
use crate::mutation::{Mutation, active};

/// The first bytes of a log page.
pub const PAGE_MAGIC: [u8; 8] = *b"BDRMLOG1";

/// [`PageHeader::flags`]: a page of a checkpoint on copy B, whose copy A could not be written.
pub const FLAG_SOLO: u32 = 1;

/// The header of a log page as it is on the spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PageHeader {
    /// [`PAGE_MAGIC`].
    pub magic: [u8; 8],
    /// CRC-32C of the whole page, this field taken as zero.
    pub crc: U32,
    /// [`FLAG_SOLO`], or nothing.
    pub flags: U32,
    /// The set that the page belongs to.
    pub set_uuid: [u8; 16],
    /// The checkpoint that the page belongs to or is behind of.
    pub epoch: U64,
    /// Counts the pages over the life of the set; page i of an area has that of its page 0, plus i.
    pub sequence: U64,
    /// Records in the page.
    pub record_count: U32,
    /// Pages of the checkpoint of this epoch.
    pub checkpoint_pages: U32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Bytes of a page header.
pub const PAGE_HEADER_SIZE: usize = size_of::<PageHeader>();

/// What the header of a page says, other than whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageInfo {
    /// The checkpoint that the page belongs to or is behind of.
    pub epoch: u64,
    /// The page's number over the life of the set.
    pub sequence: u64,
    /// Pages of the checkpoint of this epoch.
    pub checkpoint_pages: u32,
    /// Whether copy A of the checkpoint could not be written.
    pub solo: bool,
}

/// A page that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageContent<'a> {
    /// All zeros: never written.
    Zero,
    /// A valid page of the set, and its records.
    Valid(PageInfo, &'a [RawRecord]),
    /// Anything else.
    Bad,
}

/// How many records fit into a page of `page_bytes` bytes.
#[must_use]
pub fn records_per_page(page_bytes: usize) -> usize {
    page_bytes.saturating_sub(PAGE_HEADER_SIZE) / RECORD_SIZE
}

/// Fills `page` with `records`, of which as many are taken as fit; returns how many.
pub fn encode_page(page: &mut [u8], set_uuid: Uuid, info: PageInfo, records: &[Record]) -> usize {
    page.fill(0);
    let count = records.len().min(records_per_page(page.len()));
    let Some((head, body)) = page.split_at_mut_checked(PAGE_HEADER_SIZE) else { return 0 };
    for (slot, record) in body.chunks_exact_mut(RECORD_SIZE).zip(&records[..count]) {
        slot.copy_from_slice(record.encode().as_bytes());
    }
    let header = PageHeader {
        magic: PAGE_MAGIC,
        crc: U32::ZERO,
        flags: U32::new(if info.solo { FLAG_SOLO } else { 0 }),
        set_uuid: *set_uuid.as_bytes(),
        epoch: U64::new(info.epoch),
        sequence: U64::new(info.sequence),
        // At most what fits into a page.
        record_count: U32::new(count as u32),
        checkpoint_pages: U32::new(info.checkpoint_pages),
        reserved: [0; 8],
    };
    head.copy_from_slice(header.as_bytes());
    let field = offset_of!(PageHeader, crc);
    let crc = crc_without(page, field);
    page[field..field + 4].copy_from_slice(&crc.to_le_bytes());
    count
}

/// Looks at a page that was read.
#[must_use]
pub fn decode_page(page: &[u8], set_uuid: Uuid) -> PageContent<'_> {
    if is_zero(page) {
        return PageContent::Zero;
    }
    checked(page, set_uuid).unwrap_or(PageContent::Bad)
}

fn checked(page: &[u8], set_uuid: Uuid) -> Option<PageContent<'_>> {
    let (header, body) = PageHeader::ref_from_prefix(page).ok()?;
    let sound = header.crc.get() == crc_without(page, offset_of!(PageHeader, crc));
    let known = header.magic == PAGE_MAGIC
        && (sound || active(Mutation::TrustPageWithoutCrc))
        && header.set_uuid == *set_uuid.as_bytes()
        && header.flags.get() & !FLAG_SOLO == 0
        && header.checkpoint_pages.get() > 0;
    let count = usize::try_from(header.record_count.get()).ok()?;
    if !known || count > records_per_page(page.len()) {
        return None;
    }
    let records = <[RawRecord]>::ref_from_bytes(body.get(..count * RECORD_SIZE)?).ok()?;
    let info = PageInfo {
        epoch: header.epoch.get(),
        sequence: header.sequence.get(),
        checkpoint_pages: header.checkpoint_pages.get(),
        solo: header.flags.get() & FLAG_SOLO != 0,
    };
    Some(PageContent::Valid(info, records))
}
