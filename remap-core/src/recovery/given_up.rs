//! What the log says that is not part of the state that an operator has chosen: what choosing it gives up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::choose::{InForce, Known};
use super::mappings::Mappings;
use super::replay::pieces;
use super::scan::{PageState, Pages, Reader};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, PageAt, PageContent, PageInfo, PerArea, Record};
use crate::table::Mapping;
use crate::units::{BaseLba, Epoch, Sequence};

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
    let mut given_up = GivenUp {
        pages: written.len() as u64,
        unknown_pages: unknown(areas, known, chosen, &written),
        ..GivenUp::default()
    };
    let mut later = Later { mappings, differs: BTreeMap::new(), pending_left: superblock.layout.pending_limit() };
    for (at, info) in written.into_values() {
        let records = |content: PageContent<'_>| match content {
            PageContent::Valid(found, records) if found == info => Some(records.to_vec()),
            _ => None,
        };
        let read = reader.read_pages(at, 1, records).await?;
        let Some(records) = read.and_then(|mut pages| pages.pop().flatten()) else {
            given_up.unknown_pages += 1;
            continue;
        };
        for record in pieces(&records, superblock.slot).map_while(Result::ok) {
            later.apply(record, superblock.base_blocks, superblock.layout.data_blocks);
        }
    }
    for to in later.differs.values() {
        *match to {
            Some(Mapping::Spare(_)) => &mut given_up.remapped,
            Some(Mapping::Pending) => &mut given_up.pending,
            Some(Mapping::Lost(_)) => &mut given_up.lost,
            None => &mut given_up.cleared,
        } += 1;
    }
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
                if info.epoch >= state.epoch && !within && !known.gave_up(index, info) {
                    let at = PageAt { copy, area, index };
                    written.entry((info.epoch, area, index)).or_insert((at, *info));
                }
            }
        }
    }
    written
}

/// How many pages were written that are neither in the chosen state nor among those that are there.
fn unknown(areas: &PerArea<Pages>, known: Known, chosen: &InForce, written: &Written) -> u64 {
    let InForce { state, pages: end, .. } = *chosen;
    let mut lengths = BTreeMap::new();
    for (epoch, area, index) in written.keys() {
        let length = lengths.entry((*epoch, *area)).or_insert(0);
        *length = index + 1;
    }
    if Copy::BOTH.iter().all(|copy| areas[state.area][*copy].get(end as usize) == Some(&PageState::Bad)) {
        lengths.entry((state.epoch, state.area)).or_insert(end + 1);
    }
    let all = lengths.iter().map(|((epoch, area), length)| {
        let first = if (*epoch, *area) == (state.epoch, state.area) { end } else { 0 };
        u64::from(length - first)
    });
    let last = written.values().map(|(_, info)| info.sequence).max().unwrap_or(Sequence::ZERO).max(state.sequence);
    all.sum::<u64>() - written.len() as u64 + known.committed.get().saturating_sub(last.get())
}

/// What later pages say otherwise than the chosen state.
struct Later<'a> {
    mappings: &'a Mappings,
    /// `None` for a block that is simply on the base.
    differs: BTreeMap<BaseLba, Option<Mapping>>,
    /// So many pending blocks may still be named: one record may name more than there is memory for.
    pending_left: u64,
}

impl Later<'_> {
    fn apply(&mut self, record: Record, base_blocks: u64, data_blocks: u32) {
        let on_base = |lba: BaseLba, count: u32| lba.plus(u64::from(count)).0 <= base_blocks;
        match record {
            Record::Remap { lba, spare, count } | Record::Lost { lba, spare, count } => {
                if !on_base(lba, count) || u64::from(spare.index()) + u64::from(count) > data_blocks.into() {
                    return;
                }
                let is_lost = matches!(record, Record::Lost { .. });
                for (i, spare) in (0..u64::from(count)).filter_map(|i| Some((i, spare.plus(i)?))) {
                    self.says(lba.plus(i), Some(if is_lost { Mapping::Lost(spare) } else { Mapping::Spare(spare) }));
                }
            }
            Record::Pending { lba, count } if on_base(lba, count) && u64::from(count) <= self.pending_left => {
                self.pending_left -= u64::from(count);
                (0..u64::from(count)).for_each(|i| self.says(lba.plus(i), Some(Mapping::Pending)));
            }
            Record::Clear { lba, count } if on_base(lba, count) => {
                let end = lba.plus(count.into());
                let mapped: Vec<_> = self.mappings.range(lba..end).map(|(lba, _)| lba).collect();
                let said: Vec<_> = self.differs.range(lba..end).map(|(lba, _)| *lba).collect();
                mapped.into_iter().chain(said).for_each(|lba| self.says(lba, None));
            }
            Record::Pending { .. } | Record::Clear { .. } | Record::BadSpare { .. } | Record::EndOfCheckpoint => {}
        }
    }

    fn says(&mut self, lba: BaseLba, to: Option<Mapping>) {
        if self.mappings.get(lba) == to {
            self.differs.remove(&lba);
        } else {
            self.differs.insert(lba, to);
        }
    }
}
