//! Reading the pages in force again, for their records: many together where one copy has all of them. Where none has, which is rare, one
//! after the other, from either copy. What is not as the scan saw it any more is not taken.

use super::choose::Chosen;
use super::damaged;
use super::scan::{Chunk, PageState, Pages, Reader};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::record::RawRecord;
use crate::format::{Copy, PageAt, PageContent};
use crate::mutation::{Mutation, active};

/// The pages in force, of which the scan found each valid in some copy.
pub(super) struct Reread<'a, D: Device, E: Env> {
    pub(super) reader: &'a Reader<'a, D, E>,
    pub(super) pages: &'a Pages,
    pub(super) chosen: &'a Chosen,
}

impl<D: Device, E: Env> Reread<'_, D, E> {
    /// What the scan saw of a page in this copy, if it is one of those in force.
    fn seen(&self, copy: Copy, page: u32) -> Option<&PageState> {
        let is_in_force = |state: &&PageState| state.info().is_some_and(|info| info.epoch == self.chosen.epoch);
        self.pages[copy].get(page as usize).filter(is_in_force)
    }

    /// The records of a page that was read again from this copy, if it is still as the scan saw it.
    pub(super) fn as_seen<'p>(
        &self,
        copy: Copy,
        page: u32,
        bytes: &[u8],
        content: PageContent<'p>,
    ) -> Option<&'p [RawRecord]> {
        let same = self.seen(copy, page) == Some(&self.reader.state(copy, bytes, content))
            || active(Mutation::ReadAgainTrusted);
        match content {
            PageContent::Valid(_, records) if same => Some(records),
            _ => None,
        }
    }

    fn at(&self, copy: Copy, index: u32) -> PageAt {
        PageAt { copy, area: self.chosen.area, index }
    }

    /// `count` pages from one copy, if one holds, and yields, all of them; and how many these are.
    pub(super) async fn together(&self, first: u32, count: u32) -> Result<(Option<Chunk<D::Buffer>>, u32), Error> {
        for copy in Copy::BOTH {
            if (first..first + count).all(|page| self.seen(copy, page).is_some())
                && let Some(chunk) = self.reader.read_chunk(self.at(copy, first), count).await?
            {
                return Ok((Some(chunk), count));
            }
        }
        Ok((None, count))
    }

    /// The records of one page, from the first copy that still holds it.
    pub(super) async fn alone(&self, page: u32) -> Result<Vec<RawRecord>, Error> {
        for copy in Copy::BOTH {
            if self.seen(copy, page).is_none() {
                continue;
            }
            let records =
                |bytes: &[u8], content: PageContent<'_>| Some(self.as_seen(copy, page, bytes, content)?.to_vec());
            let read = self.reader.read_pages(self.at(copy, page), 1, records).await?;
            if let Some(records) = read.and_then(|mut pages| pages.pop().flatten()) {
                return Ok(records);
            }
        }
        Err(damaged(self.chosen, "a page cannot be read again", page))
    }
}
