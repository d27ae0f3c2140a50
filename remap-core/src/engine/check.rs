//! Checking the copies of the metadata while the set is served: each page is read, and compared with what recovery would take
//! for valid. What is bad is healed as a copy that could not be written is (`upkeep`).
//!
//! The committer does it, a few pages at a time, as it alone knows how far the log goes, and does not write meanwhile.

use super::committer::Committer;
use super::superblocks::{newest, read_superblocks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, Layout, PageAt, PageInfo, PerCopy};
use crate::recovery::{CHUNK_PAGES, PageState, Reader};
use crate::remap_log::Position;

/// What of the metadata is checked at one time, in all copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Superblocks,
    /// A few pages of a log area, from this one on.
    Pages(Area, u32),
}

impl Part {
    /// The parts of the log.
    pub(super) fn log(layout: &Layout) -> impl Iterator<Item = Part> + use<> {
        let pages = layout.area_pages;
        let area = move |area| (0..pages).step_by(CHUNK_PAGES as usize).map(move |first| Part::Pages(area, first));
        Area::BOTH.into_iter().flat_map(area)
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// Pages that were read, in all copies.
    pub(super) pages: u64,
    /// Those that are not what they should be.
    pub(super) bad: u64,
}

impl<D: Device, E: Env> Committer<D, E> {
    /// Checks a part, and marks what is bad, so that it is healed.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Io`] for errors that say nothing about the medium; [`Error::NoMemory`].
    pub(super) async fn check(&mut self, part: Part) -> Result<Checked, Error> {
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        match part {
            Part::Superblocks => self.check_superblocks().await,
            Part::Pages(area, first) => self.check_pages(area, first).await,
        }
    }

    async fn check_superblocks(&mut self) -> Result<Checked, Error> {
        let found = read_superblocks(self.log.spare()).await?;
        // Superblocks that contradict each other are both bad: the right one is in memory.
        let good = newest(&found).ok().flatten().filter(|newest| self.log.is_current(newest));
        let mut checked = Checked { pages: 2, bad: 0 };
        for copy in Copy::BOTH {
            if good.is_none() || found[copy].valid() != good.as_ref() {
                checked.bad += 1;
                self.log.superblock_is_bad(copy);
            }
        }
        Ok(checked)
    }

    async fn check_pages(&mut self, area: Area, first: u32) -> Result<Checked, Error> {
        let superblock = self.log.superblock();
        let count = CHUNK_PAGES.min(superblock.layout.area_pages.saturating_sub(first));
        let reader = Reader::new(self.log.spare(), superblock);
        let read = async |copy| reader.scan_pages(PageAt { copy, area, index: first }, count).await;
        let pages = PerCopy([read(Copy::A).await?, read(Copy::B).await?]);
        let position = *self.log.position();
        let mut checked = Checked { pages: 2 * u64::from(count), bad: 0 };
        for (index, (a, b)) in (first..).zip(pages[Copy::A].iter().zip(&pages[Copy::B])) {
            let sound = |state| is_sound(&position, area, index, state);
            let held = is_held(&position, area, index);
            // Two copies that differ may both be wrong.
            let differ = held && sound(a) && sound(b) && a != b;
            let bad = PerCopy([a, b].map(|state| differ || !sound(state)));
            for copy in Copy::BOTH.into_iter().filter(|copy| bad[*copy]) {
                checked.bad += 1;
                self.log.page_is_bad(copy, area, index);
            }
            if held && bad.all() {
                self.log.page_is_lost();
            }
        }
        Ok(checked)
    }
}

/// Whether the log has a page there.
fn is_held(position: &Position, area: Area, index: u32) -> bool {
    area == position.area && index < position.next_page
}

/// Whether a page of one copy is what it should be: in the log, the page that was written; behind its end, an older one or none.
/// The other area may have anything that can be read.
fn is_sound(position: &Position, area: Area, index: u32, state: &PageState) -> bool {
    let expected = PageInfo {
        epoch: position.epoch,
        sequence: position.first_sequence.plus(u64::from(index)),
        checkpoint_pages: position.checkpoint_pages,
    };
    match state {
        PageState::Bad => false,
        PageState::Valid(info, _) if is_held(position, area, index) => *info == expected,
        PageState::Zero => !is_held(position, area, index),
        PageState::Valid(info, _) => area != position.area || info.epoch < position.epoch,
    }
}
