//! What the log says that is not part of the state that an operator has chosen: what choosing it gives up.

mod later;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::later::Later;
use super::choose::{InForce, Known};
use super::mappings::Mappings;
use super::replay::{Bounds, Pieces};
use super::scan::{PageState, Pages, Reader};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, PageAt, PageContent, PageInfo, PerArea};
use crate::units::{Epoch, Sequence};

/// What a choice gives up, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// Pages of the log that are there, and not part of the chosen state.
    pub pages: u64,
    /// Pages that are not there any more, or cannot be read: what they said is not known.
    pub unknown_pages: u64,
    /// Blocks that these pages have on the spare, and the chosen state has not, or elsewhere: it shows older data of them.
    pub remapped: u64,
    /// Blocks that are pending by them, and not in the chosen state.
    pub pending: u64,
    /// Blocks that are lost by them, and not in the chosen state.
    pub lost: u64,
    /// Blocks that are simply on the base again by them, and not in the chosen state.
    pub cleared: u64,
    /// Blocks of the chosen state whose place on the spare was given to another block since: they show the data of that one. Where a block
    /// was cleared, or pages are not known, there may be more.
    pub overwritten: u64,
}

/// Pages in the order in which they were written, and a place where each can be read.
type Written = BTreeMap<(Epoch, Area, u32), (PageAt, PageInfo)>;

/// What the pages behind `chosen`, and those of other states, say otherwise than `mappings`, which are the chosen state.
///
/// # Errors
/// As [`Reader::scan`].
pub(crate) async fn given_up<D: Device, E: Env>(
    reader: &Reader<'_, D, E>,
    areas: &PerArea<Pages>,
    chosen: &InForce,
    mappings: &Mappings,
) -> Result<GivenUp, Error> {
    let superblock = reader.superblock;
    let known = Known::of(superblock);
    let written = written(areas, known, chosen);
    let unknown_pages = unknown(areas, known, chosen, &written);
    let mut given_up = GivenUp { unknown_pages, ..GivenUp::default() };
    let mut later = Later::new(Bounds::of(superblock), superblock.layout.pending_limit(), mappings);
    for (&(epoch, area, index), &(at, info)) in &written {
        let checkpoint = (epoch, area, 0)..(epoch, area, info.checkpoint_pages);
        if index == 0 && written.range(checkpoint).count() as u64 == u64::from(info.checkpoint_pages) {
            later.begins_anew();
        }
        let records = |_: &[u8], content: PageContent<'_>| match content {
            PageContent::Valid(found, records) if found == info => Some(records.to_vec()),
            _ => None,
        };
        let read = reader.read_pages(at, 1, records).await?;
        let records = read.and_then(|mut pages| pages.pop().flatten());
        let mut is_known = records.is_some();
        for record in Pieces::new(&records.unwrap_or_default(), superblock.slot) {
            match record {
                Ok(record) => later.apply(record),
                Err(_) => is_known = false,
            }
        }
        *if is_known { &mut given_up.pages } else { &mut given_up.unknown_pages } += 1;
    }
    later.count(&mut given_up);
    Ok(given_up)
}

fn written(areas: &PerArea<Pages>, known: Known, chosen: &InForce) -> Written {
    let mut written = Written::new();
    let InForce { state, pages: end, .. } = chosen;
    for area in Area::BOTH {
        for copy in Copy::BOTH {
            for (index, page) in (0..).zip(&areas[area][copy]) {
                let PageState::Valid(info, _) = page else { continue };
                let within = area == state.area && index < *end;
                if info.epoch >= state.epoch && !within && !known.is_void(index, info) {
                    let at = PageAt { copy, area, index };
                    written.entry((info.epoch, area, index)).or_insert((at, *info));
                }
            }
        }
    }
    written
}

/// How many pages were written that are neither in the chosen state nor among those that are there: each has a sequence number of its own.
fn unknown(areas: &PerArea<Pages>, known: Known, chosen: &InForce, written: &Written) -> u64 {
    let InForce { state, pages: end, .. } = *chosen;
    // The sequence number of its first page, and how many there are up to the last one, of each epoch in each area.
    let first = |last: Sequence, pages: u32| last.minus(u64::from(pages).saturating_sub(1)).unwrap_or_default();
    let mut logs = BTreeMap::from([((state.epoch, state.area), (first(state.sequence, end), end))]);
    for (&(epoch, area, index), (_, info)) in written {
        let pages = index + 1;
        logs.entry((epoch, area)).or_insert_with(|| (first(info.sequence, pages), 0)).1 = pages;
    }
    let there: BTreeSet<_> = written.values().map(|(_, info)| info.sequence).collect();
    let mut gone = BTreeSet::new();
    for ((epoch, area), (first, pages)) in logs {
        let pages = pages + bad_behind(&areas[area], known, epoch, first, pages);
        let all = (0..u64::from(pages)).map(|page| first.plus(page));
        gone.extend(all.filter(|number| *number > state.sequence && !there.contains(number)));
    }
    let last = gone.last().max(there.last()).copied().unwrap_or_default().max(state.sequence);
    gone.len() as u64 + known.committed.get().saturating_sub(last.get())
}

/// How many pages behind the last one of a log are bad in both copies, and may have been committed.
fn bad_behind(area: &Pages, known: Known, epoch: Epoch, first: Sequence, pages: u32) -> u32 {
    // Nothing is appended before a superblock knows the epoch, nor, where commits are noted, acknowledged before they are.
    let noted = known.noted_epoch == epoch && first.plus(u64::from(pages)) > known.committed;
    if epoch > known.epoch || noted {
        return 0;
    }
    let behind = area[Copy::A].iter().zip(&area[Copy::B]).skip(pages as usize);
    // An area has fewer than 2^32 pages.
    behind.take_while(|(a, b)| **a == PageState::Bad && **b == PageState::Bad).count() as u32
}
