//! Reading the log areas: what is in each page of each copy.
//!
//! Looks at every page, keeps what its header says, and judges nothing.

use crate::device::Device;
use crate::error::Error;
use crate::format::page::PageInfo;
use crate::format::{Copy, Layout, PageContent, decode_page};
use crate::spare::Spare;
use uuid::Uuid;
use zerocopy::IntoBytes;

/// Pages that are read at once.
const CHUNK_PAGES: u64 = 32;

/// What is in a page of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Never written.
    Zero,
    /// A valid page of this set, and the checksum of its records.
    Valid(PageInfo, u32),
    /// Anything else, or unreadable.
    Bad,
}

/// The pages of one area, by copy.
pub(super) type Area = [Vec<Slot>; 2];

impl Slot {
    pub(super) fn epoch(&self) -> Option<u64> {
        match self {
            Slot::Valid(info, _) => Some(info.epoch),
            Slot::Zero | Slot::Bad => None,
        }
    }

    fn of(page: &[u8], set: Uuid) -> Slot {
        match decode_page(page, set) {
            PageContent::Zero => Slot::Zero,
            PageContent::Valid(info, records) => Slot::Valid(info, crc32c::crc32c(records.as_bytes())),
            PageContent::Bad => Slot::Bad,
        }
    }
}

/// Reads both copies of log area `area`.
///
/// # Errors
/// [`Error::NoMemory`]. What cannot be read is [`Slot::Bad`].
pub(super) async fn scan_area<D: Device>(
    spare: &Spare<D>,
    layout: &Layout,
    set: Uuid,
    area: usize,
) -> Result<Area, Error> {
    let mut found = [Vec::new(), Vec::new()];
    for copy in Copy::BOTH {
        let pages = u64::from(layout.area_pages);
        let mut page = 0;
        while page < pages {
            let count = CHUNK_PAGES.min(pages - page);
            scan_pages(spare, layout, set, (copy, area), page, count, &mut found[copy.index()]).await?;
            page += count;
        }
    }
    Ok(found)
}

/// Reads `count` pages from `page` on, together if that works, else one by one.
async fn scan_pages<D: Device>(
    spare: &Spare<D>,
    layout: &Layout,
    set: Uuid,
    (copy, area): (Copy, usize),
    page: u64,
    count: u64,
    into: &mut Vec<Slot>,
) -> Result<(), Error> {
    let page_bytes = layout.page_bytes as usize;
    let step = match spare.read(layout.log_page(copy, area, page), count * layout.page_blocks()).await {
        Ok(buffer) => {
            into.extend(buffer.as_ref().chunks(page_bytes).map(|bytes| Slot::of(bytes, set)));
            return Ok(());
        }
        Err(error @ Error::NoMemory { .. }) => return Err(error),
        Err(_) => 1,
    };
    for page in (page..page + count).step_by(step) {
        into.push(match spare.read(layout.log_page(copy, area, page), layout.page_blocks()).await {
            Ok(buffer) => Slot::of(buffer.as_ref(), set),
            Err(error @ Error::NoMemory { .. }) => return Err(error),
            Err(_) => Slot::Bad,
        });
    }
    Ok(())
}
