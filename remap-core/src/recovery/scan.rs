//! Reading the log areas: what is in each page of each copy.
//!
//! Looks at every page, keeps what its header says, and judges nothing.

use std::cell::RefCell;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{
    Area, Copy, CopyB, PageAt, PageContent, PageInfo, PageOwner, PerArea, PerCopy, Superblock, decode_page,
};
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
    /// A valid page of this set, and its checksum as it is in copy A.
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
}

/// Whose the pages of a spare are.
pub(crate) fn owner(superblock: &Superblock) -> PageOwner {
    PageOwner { set_uuid: superblock.set_uuid, spare_id: superblock.spare_id }
}

/// Pages 0 to `pages`, cut into pieces: the first page of each, and how many.
pub(super) fn chunks(pages: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..pages).step_by(CHUNK_PAGES as usize).map(move |first| (first, CHUNK_PAGES.min(pages - first)))
}

/// Reads the log of the set that a superblock describes.
pub(crate) struct Reader<'a, D: Device, E: Env> {
    spare: &'a Spare<D, E>,
    pub(super) superblock: &'a Superblock,
    copy_b: CopyB,
    /// Buffers for [`CHUNK_PAGES`] pages that were read into before, as a fresh one costs as much as reading does.
    used: RefCell<Vec<D::Buffer>>,
}

impl<'a, D: Device, E: Env> Reader<'a, D, E> {
    pub(crate) fn new(spare: &'a Spare<D, E>, superblock: &'a Superblock) -> Reader<'a, D, E> {
        let copy_b = CopyB::new(superblock.layout.page_bytes as usize);
        Reader { spare, superblock, copy_b, used: RefCell::default() }
    }

    /// What is in every page of the log.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::Io`] for errors that say nothing about the medium. What the medium does not yield is bad.
    pub(crate) async fn scan(&self) -> Result<PerArea<Pages>, Error> {
        Ok(PerArea([self.scan_area(Area::Zero).await?, self.scan_area(Area::One).await?]))
    }

    async fn scan_area(&self, area: Area) -> Result<Pages, Error> {
        let mut found = PerCopy([Vec::new(), Vec::new()]);
        for copy in Copy::BOTH {
            let chunks = chunks(self.superblock.layout.area_pages)
                .map(|(index, count)| self.scan_pages(PageAt { copy, area, index }, count));
            let mut chunks = stream::iter(chunks).buffered(IN_FLIGHT);
            while let Some(states) = chunks.try_next().await? {
                found[copy].extend(states);
            }
        }
        Ok(found)
    }

    /// Looks at `count` pages from `first` on: reads them together if that works, else one by one.
    pub(crate) async fn scan_pages(&self, first: PageAt, count: u32) -> Result<Vec<PageState>, Error> {
        let state = |page: &[u8], content: PageContent<'_>| self.state(first.copy, page, content);
        if let Some(states) = self.read_pages(first, count, state).await? {
            return Ok(states);
        }
        let mut states = Vec::new();
        for index in first.index..first.index + count {
            match self.read_pages(PageAt { index, ..first }, 1, state).await? {
                Some(one) => states.extend(one),
                None => states.push(PageState::Bad),
            }
        }
        Ok(states)
    }

    /// What is in a page of this copy.
    pub(super) fn state(&self, copy: Copy, page: &[u8], content: PageContent<'_>) -> PageState {
        match content {
            PageContent::Zero => PageState::Zero,
            PageContent::Valid(info, _) => PageState::Valid(info, self.copy_b.checksum_in_a(copy, page)),
            PageContent::Bad => PageState::Bad,
        }
    }

    /// What `look` makes of each of `count` pages from `first` on, of its bytes and of what is in there; `None` if the medium does not
    /// yield them.
    pub(super) async fn read_pages<T>(
        &self,
        first: PageAt,
        count: u32,
        mut look: impl FnMut(&[u8], PageContent<'_>) -> T,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some(chunk) = self.read_chunk(first, count).await? else { return Ok(None) };
        let seen = chunk.pages().map(|(bytes, content)| look(bytes, content)).collect();
        self.use_again(chunk);
        Ok(Some(seen))
    }

    /// `count` pages from `first` on; `None` if the medium does not yield them. For [`Reader::use_again`].
    pub(super) async fn read_chunk(&self, first: PageAt, count: u32) -> Result<Option<Chunk<D::Buffer>>, Error> {
        let layout = &self.superblock.layout;
        let at = layout.log_page(first.copy, first.area, u64::from(first.index));
        let used = if count == CHUNK_PAGES { self.used.borrow_mut().pop() } else { None };
        let buffer = self.spare.read_into(at, u64::from(count) * layout.page_blocks(), used).await?;
        let (owner, page_bytes) = (owner(self.superblock), layout.page_bytes as usize);
        Ok(buffer.map(|buffer| Chunk { first, owner, page_bytes, buffer }))
    }

    /// Has its buffer used again.
    pub(super) fn use_again(&self, chunk: Chunk<D::Buffer>) {
        if chunk.buffer.as_ref().len() == CHUNK_PAGES as usize * chunk.page_bytes {
            self.used.borrow_mut().push(chunk.buffer);
        }
    }
}

/// Pages that were read together.
pub(super) struct Chunk<B> {
    pub(super) first: PageAt,
    owner: PageOwner,
    page_bytes: usize,
    buffer: B,
}

impl<B: AsRef<[u8]>> Chunk<B> {
    /// Each page, and what is in there, which is found out as it is asked for.
    pub(super) fn pages(&self) -> impl Iterator<Item = (&[u8], PageContent<'_>)> {
        let pages = (self.first.index..).zip(self.buffer.as_ref().chunks(self.page_bytes));
        pages.map(|(index, page)| (page, decode_page(page, self.owner, PageAt { index, ..self.first })))
    }
}
