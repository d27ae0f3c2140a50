//! A page of the remap log: a header, and records.
//!
//! ```text
//! | header, 80 bytes | record 0 | record 1 | … | zeros |        page_bytes in all
//! ```
//! Encoded by the log, decoded by recovery. Decoding takes any bytes and never panics. A page says where it belongs: one
//! that is found in another place is bad, not a page of that place. `docs/format.md` describes the fields.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::{crc_without, is_zero};
use super::place::{Area, Copy};
use super::record::{RECORD_SIZE, RawRecord};
use crate::mutation::{Mutation, active};
use crate::units::{Epoch, Sequence};

/// The first bytes of a log page.
pub const PAGE_MAGIC: [u8; 8] = *b"BDRMLOG1";

/// The header of a log page as it is on the spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PageHeader {
    /// [`PAGE_MAGIC`].
    pub magic: [u8; 8],
    /// CRC-32C of the whole page, this field taken as zero.
    pub crc: U32,
    /// Zero.
    pub flags: U32,
    /// The set that the page belongs to.
    pub set_uuid: [u8; 16],
    /// The spare that the page belongs to.
    pub spare_id: [u8; 16],
    /// The checkpoint that the page belongs to or is behind of.
    pub epoch: U64,
    /// Counts the pages over the life of the set; page i of an area has that of its page 0, plus i.
    pub sequence: U64,
    /// Records in the page.
    pub record_count: U32,
    /// Pages of the checkpoint of this epoch.
    pub checkpoint_pages: U32,
    /// The page's number in its area.
    pub index: U32,
    /// The copy: 0 for A, 1 for B.
    pub copy: u8,
    /// The area: 0 or 1.
    pub area: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Bytes of a page header.
pub const PAGE_HEADER_SIZE: usize = size_of::<PageHeader>();

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageOwner {
    /// The set.
    pub set_uuid: Uuid,
    /// The spare.
    pub spare_id: Uuid,
}

/// Where a page belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAt {
    /// The copy.
    pub copy: Copy,
    /// The area.
    pub area: Area,
    /// Its number in the area.
    pub index: u32,
}

/// What the header of a page says, other than whose it is and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageInfo {
    /// The checkpoint that the page belongs to or is behind of.
    pub epoch: Epoch,
    /// The page's number over the life of the set.
    pub sequence: Sequence,
    /// Pages of the checkpoint of this epoch.
    pub checkpoint_pages: u32,
}

/// A page that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageContent<'a> {
    /// All zeros: never written.
    Zero,
    /// A valid page of this place, and its records.
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
pub fn encode_page(page: &mut [u8], owner: PageOwner, at: PageAt, info: PageInfo, records: &[RawRecord]) -> usize {
    let count = records.len().min(records_per_page(page.len()));
    let records = records[..count].as_bytes();
    let Some((head, body)) = page.split_at_mut_checked(PAGE_HEADER_SIZE) else { return 0 };
    body[..records.len()].copy_from_slice(records);
    body[records.len()..].fill(0);
    let header = PageHeader {
        magic: PAGE_MAGIC,
        crc: U32::ZERO,
        flags: U32::ZERO,
        set_uuid: *owner.set_uuid.as_bytes(),
        spare_id: *owner.spare_id.as_bytes(),
        epoch: U64::new(info.epoch.get()),
        sequence: U64::new(info.sequence.get()),
        // At most what fits into a page.
        record_count: U32::new(count as u32),
        checkpoint_pages: U32::new(info.checkpoint_pages),
        index: U32::new(at.index),
        // 0 or 1.
        copy: at.copy.index() as u8,
        area: at.area.index() as u8,
        reserved: [0; 2],
    };
    head.copy_from_slice(header.as_bytes());
    let field = offset_of!(PageHeader, crc);
    let crc = crc_without(page, field);
    page[field..field + 4].copy_from_slice(&crc.to_le_bytes());
    count
}

/// What makes a page for copy B of the one for copy A: they differ in the number of the copy, and so in the checksum, by the same bits
/// whatever else is in them, as CRCs of equally many bytes are linear.
#[derive(Clone, Copy, Debug)]
pub struct CopyB {
    differs: u32,
}

impl CopyB {
    /// For pages of so many bytes.
    #[must_use]
    pub fn new(page_bytes: usize) -> CopyB {
        let mut page = vec![0; page_bytes];
        let field = offset_of!(PageHeader, crc);
        let of_zeros = crc_without(&page, field);
        CopyB::number(&mut page).into_iter().for_each(|copy| *copy = Copy::B.index() as u8);
        CopyB { differs: of_zeros ^ crc_without(&page, field) }
    }

    /// Turns `page`, as [`encode_page`] has made it for copy A, into that for copy B.
    pub fn make_of(self, page: &mut [u8]) {
        CopyB::number(page).into_iter().for_each(|copy| *copy = Copy::B.index() as u8);
        let field = offset_of!(PageHeader, crc);
        let Some(crc) = page.get_mut(field..).and_then(|rest| U32::mut_from_prefix(rest).ok()) else { return };
        crc.0.set(crc.0.get() ^ self.differs);
    }

    /// The checksum that a page of this copy has, if it was made for copy A: the same for both copies of a page.
    pub(crate) fn checksum_in_a(self, copy: Copy, page: &[u8]) -> u32 {
        let crc = PageHeader::ref_from_prefix(page).map_or(0, |(header, _)| header.crc.get());
        if copy == Copy::A { crc } else { crc ^ self.differs }
    }

    /// Where the page says of which copy it is.
    fn number(page: &mut [u8]) -> Option<&mut u8> {
        page.get_mut(offset_of!(PageHeader, copy))
    }
}

/// Pages at the beginning of a log area that show whether it was used: the first checkpoint, and what follows it.
pub const TELLING_PAGES: u32 = 2;

/// The set, whichever it is, that `page`, which is in that copy, shows to have been in use, as one of the first of an area: what a spare
/// that seems empty must not have. The first checkpoint, which is empty, shows nothing: formatting that was cut short leaves it. Nor do
/// other pages, which wiping leaves.
#[must_use]
pub fn used_by(page: &[u8], copy: Copy) -> Option<Uuid> {
    let (header, _) = PageHeader::ref_from_prefix(page).ok()?;
    let telling = usize::from(header.copy) == copy.index() && header.index.get() < TELLING_PAGES;
    let used = header.epoch.get() > 1 || header.index.get() > 0 || header.record_count.get() > 1;
    let known = header.magic == PAGE_MAGIC && telling && used;
    let sound = known && header.crc.get() == crc_without(page, offset_of!(PageHeader, crc));
    sound.then(|| Uuid::from_bytes(header.set_uuid))
}

/// Looks at a page that was read from the place `at`.
#[must_use]
pub fn decode_page(page: &[u8], owner: PageOwner, at: PageAt) -> PageContent<'_> {
    if is_zero(page) {
        return PageContent::Zero;
    }
    checked(page, owner, at).unwrap_or(PageContent::Bad)
}

fn checked(page: &[u8], owner: PageOwner, at: PageAt) -> Option<PageContent<'_>> {
    let (header, body) = PageHeader::ref_from_prefix(page).ok()?;
    let sound = header.crc.get() == crc_without(page, offset_of!(PageHeader, crc));
    let here = header.index.get() == at.index
        && usize::from(header.copy) == at.copy.index()
        && usize::from(header.area) == at.area.index();
    let known = header.magic == PAGE_MAGIC
        && (sound || active(Mutation::TrustPageWithoutCrc))
        && header.set_uuid == *owner.set_uuid.as_bytes()
        && header.spare_id == *owner.spare_id.as_bytes()
        && (here || active(Mutation::IgnorePlaceOfPage))
        && header.flags.get() == 0
        && header.checkpoint_pages.get() > 0;
    let count = usize::try_from(header.record_count.get()).ok()?;
    if !known || count > records_per_page(page.len()) {
        return None;
    }
    let records = <[RawRecord]>::ref_from_bytes(body.get(..count * RECORD_SIZE)?).ok()?;
    let info = PageInfo {
        epoch: Epoch::new(header.epoch.get())?,
        sequence: Sequence::new(header.sequence.get())?,
        checkpoint_pages: header.checkpoint_pages.get(),
    };
    Some(PageContent::Valid(info, records))
}
