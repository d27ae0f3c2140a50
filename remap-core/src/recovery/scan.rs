//! Reading the log areas: what is in each page of each copy.
//!
//! Looks at every page, keeps what its header says, and judges nothing.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use zerocopy::IntoBytes;

use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, PageAt, PageContent, PageInfo, PageOwner, PerCopy, Superblock, decode_page};
use crate::spare::Spare;

/// Pages that are read at once.
pub(crate) const CHUNK_PAGES: u32 = 32;
/// Reads that are under way at one time.
pub(super) const IN_FLIGHT: usize = 8;

/// What is in a page of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never written.
    Zero,
    /// A valid page of this set, and the checksum of its records.
    Valid(PageInfo, u32),
    /// Anything else, or unreadable.
    Bad,
}

/// The pages of one area, by copy.
pub(crate) type Pages = PerCopy<Vec<PageState>>;

impl PageState {
    pub(super) fn info(&self) -> Option<&PageInfo> {
        match self {
            PageState::Valid(info, _) => Some(info),
            PageState::Zero | PageState::Bad => None,
        }
    }

    fn of(page: &[u8], owner: PageOwner, at: PageAt) -> PageState {
        match decode_page(page, owner, at) {
            PageContent::Zero => PageState::Zero,
            PageContent::Valid(info, records) => PageState::Valid(info, crc32c::crc32c(records.as_bytes())),
            PageContent::Bad => PageState::Bad,
        }
    }
}

/// Whose the pages of a spare are.
pub(crate) fn owner(superblock: &Superblock) -> PageOwner {
    PageOwner { set_uuid: superblock.set_uuid, spare_id: superblock.spare_id }
}

/// Reads both copies of log area `area`.
///
/// # Errors
/// [`Error::NoMemory`]; [`Error::Io`] for errors that say nothing about the medium. What the medium does not yield is bad.
pub(super) async fn scan_area<D: Device, E: Env>(
    spare: &Spare<D, E>,
    superblock: &Superblock,
    area: Area,
) -> Result<Pages, Error> {
    let mut found = PerCopy([Vec::new(), Vec::new()]);
    for copy in Copy::BOTH {
        let chunks = chunks(superblock.layout.area_pages).map(|(index, count)| {
            let first = PageAt { copy, area, index };
            scan_pages(spare, superblock, first, count)
        });
        let mut chunks = stream::iter(chunks).buffered(IN_FLIGHT);
        while let Some(states) = chunks.try_next().await? {
            found[copy].extend(states);
        }
    }
    Ok(found)
}

/// Pages 0 to `pages`, cut into pieces: the first page of each, and how many.
pub(super) fn chunks(pages: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..pages).step_by(CHUNK_PAGES as usize).map(move |first| (first, CHUNK_PAGES.min(pages - first)))
}

/// Looks at `count` pages from `first` on: reads them together if that works, else one by one.
pub(crate) async fn scan_pages<D: Device, E: Env>(
    spare: &Spare<D, E>,
    superblock: &Superblock,
    first: PageAt,
    count: u32,
) -> Result<Vec<PageState>, Error> {
    let page_bytes = superblock.layout.page_bytes as usize;
    let at = |number: u32| PageAt { index: first.index + number, ..first };
    let state = |bytes: &[u8], number| PageState::of(bytes, owner(superblock), at(number));
    if let Some(buffer) = read_pages(spare, superblock, first, count).await? {
        return Ok((0..).zip(buffer.as_ref().chunks(page_bytes)).map(|(number, bytes)| state(bytes, number)).collect());
    }
    let mut states = Vec::new();
    for number in 0..count {
        let page = read_pages(spare, superblock, at(number), 1).await?;
        states.push(page.map_or(PageState::Bad, |page| state(page.as_ref(), number)));
    }
    Ok(states)
}

/// Reads `count` pages from `first` on; `None` if the medium does not yield them.
pub(super) async fn read_pages<D: Device, E: Env>(
    spare: &Spare<D, E>,
    superblock: &Superblock,
    first: PageAt,
    count: u32,
) -> Result<Option<D::Buffer>, Error> {
    let layout = &superblock.layout;
    let at = layout.log_page(first.copy, first.area, u64::from(first.index));
    spare.read(at, u64::from(count) * layout.page_blocks()).await
}
