//! The remap table: where each block of the base lives.
//!
//! One [`Table`] per set, read by every reactor on every I/O, changed by its [`TableWriter`] on the owner thread. It is the
//! only place that holds the mapping. Readers are wait-free: they load pointers, take no reference, and write nothing.
//! What the writer replaces is freed after a grace period ([`crate::Env::grace`]).
//!
//! ```text
//! root ──> Directory: an outline, and nodes of pointers ──> Region: 16,384 blocks of the base, immutable: Keys, or chunks of Keys or Bits
//! (null: nothing is remapped)
//! ```

mod bits;
mod directory;
mod fetch;
mod filter;
mod keys;
mod lowest;
mod outline;
mod reclaim;
mod region;
mod unpublished;
mod writer;

#[cfg(all(test, not(loom)))]
mod directory_tests;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, AtomicU64};

use self::directory::{Directory, Top};
pub(crate) use self::region::REGION_BLOCKS;
use self::region::{COPIED_AT_MOST, LAST_KEY};
use crate::pace::Pace;
use crate::slot::{Slot, SpareBlock};
use crate::sync::{AtomicBool, Ordering};
use crate::units::{BaseLba, Extent};

pub use self::reclaim::Retired;
pub(crate) use self::reclaim::{reclaim, reclaim_table};
pub(crate) use self::unpublished::{Gathering, Unpublished};
pub(crate) use self::writer::by_region;
pub use self::writer::{Change, Counts, TableWriter};

/// What the table holds for a block that is not simply on the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The block lives on this spare block.
    Spare(SpareBlock),
    /// Known unreadable on the base, not rewritten yet.
    Pending,
    /// Remapped to this spare block, which does not hold its data: reads fail until the block is written.
    Lost(SpareBlock),
}

/// In a visit of many regions the one so far ahead is fetched: what is done with these takes about as long as far memory.
const FETCHED_AHEAD: u64 = 2;

const PENDING: u32 = u32::MAX;
const LOST: u32 = 1 << 31;

impl Mapping {
    /// In four bytes.
    #[inline]
    pub(crate) fn encode(self) -> u32 {
        match self {
            Mapping::Spare(block) => block.to_bits(),
            Mapping::Pending => PENDING,
            Mapping::Lost(block) => block.to_bits() | LOST,
        }
    }

    /// What [`Mapping::encode`] gave.
    #[inline]
    pub(crate) fn decode(value: u32) -> Mapping {
        if value == PENDING {
            Mapping::Pending
        } else if value & LOST != 0 {
            Mapping::Lost(SpareBlock::of_bits(value))
        } else {
            Mapping::Spare(SpareBlock::of_bits(value))
        }
    }

    /// That of a block `blocks` behind one with this, in the same run.
    #[inline]
    pub(crate) fn plus(self, blocks: u64) -> Option<Mapping> {
        match self {
            Mapping::Spare(block) => block.plus(blocks).map(Mapping::Spare),
            Mapping::Pending => Some(Mapping::Pending),
            Mapping::Lost(block) => block.plus(blocks).map(Mapping::Lost),
        }
    }

    /// The spare block that belongs to the mapping, if one does.
    #[must_use]
    pub fn spare(self) -> Option<SpareBlock> {
        match self {
            Mapping::Spare(block) | Mapping::Lost(block) => Some(block),
            Mapping::Pending => None,
        }
    }
}

/// Where a block lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the base, in its own place.
    Base(BaseLba),
    /// On the spare.
    Spare(SpareBlock),
    /// On the base, but known unreadable there: reads still ask the base, writes are relocated.
    Pending(BaseLba),
    /// On the spare, but its data is lost: reads fail, a write heals it.
    Lost(SpareBlock),
}

impl Place {
    /// Where `lba` lives, for which the table holds `mapping`.
    #[inline]
    #[must_use]
    pub fn new(lba: BaseLba, mapping: Mapping) -> Place {
        match mapping {
            Mapping::Spare(block) => Place::Spare(block),
            Mapping::Pending => Place::Pending(lba),
            Mapping::Lost(block) => Place::Lost(block),
        }
    }

    /// The place of the block `blocks` blocks behind a block that lives here, in the same run.
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> Option<Place> {
        match self {
            Place::Base(lba) => Some(Place::Base(lba.plus(blocks))),
            Place::Pending(lba) => Some(Place::Pending(lba.plus(blocks))),
            Place::Spare(block) => block.plus(blocks).map(Place::Spare),
            Place::Lost(block) => block.plus(blocks).map(Place::Lost),
        }
    }
}

/// A part of a range whose blocks live in consecutive places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the first block lives; the others follow one by one.
    pub place: Place,
    /// Its length in blocks.
    pub blocks: u64,
}

/// The remap table, as readers see it. Shared between all threads. All that every I/O looks at is in one cache line.
#[repr(C, align(64))]
pub struct Table {
    directory: Directory,
    /// Set before the first region is published, never cleared.
    used: AtomicBool,
    mirrored: AtomicBool,
    /// The slot of the spare in force.
    slot: AtomicU8,
    /// Never less than before.
    base_blocks: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Table>() == 64, "one cache line");

/// What a glance at the table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// The blocks are plain.
    Plain,
    /// They may not be, and what [`Table::is_plain_near`] needs is on its way.
    Fetched,
    /// That takes a look at the whole table, as they are not in one region, or nothing is remapped.
    Unknown,
}

impl Table {
    /// Whether every block is in its own place on the base. One atomic load.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.top().is_none()
    }

    /// Whether all of `range` is known to be simply on the base, without a look far into the table. What it has is found
    /// otherwise; often, so is that it has nothing.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self, range: Extent) -> bool {
        match self.directory.top() {
            None => true,
            Some(top) => range.blocks > 0 && !top.may_hold(range.lba.0, range.end().0 - 1),
        }
    }

    /// Whether the table has ever held anything: then data may have gone to the spare, even if all of it is back on the
    /// base by now. Who sees a mapping, or hears of one, sees this.
    #[must_use]
    pub fn was_used(&self) -> bool {
        // Relaxed: it is set before a region is published with Release, and before anybody is told.
        self.used.load(Ordering::Relaxed)
    }

    /// Whether what is written to the spare goes to another one, too, as all that is on it moves there.
    #[inline]
    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        // Relaxed: who sets it waits for all I/O that may not have seen it.
        self.mirrored.load(Ordering::Relaxed)
    }

    /// The slot of the spare in force: the other one, if there is one, is only being filled.
    #[inline]
    #[must_use]
    pub fn slot(&self) -> Slot {
        // Relaxed: it changes before what is on the other spare is found here, and 0 and 1 are all that there is.
        Slot::new(self.slot.load(Ordering::Relaxed).into()).unwrap_or(Slot::FIRST)
    }

    /// The first block of `range` that is not simply on the base, and what the table holds for it.
    #[inline]
    #[must_use]
    pub fn first_in(&self, range: Extent) -> Option<(BaseLba, Mapping)> {
        if range.blocks == 1 {
            return self.mapping(range.lba).map(|mapping| (range.lba, mapping));
        }
        let mut found = None;
        let _ = self.visit(range, |lba, mapping| {
            found = Some((lba, mapping));
            ControlFlow::Break(())
        });
        found
    }

    /// Where the block `lba` lives.
    #[inline]
    #[must_use]
    pub fn lookup(&self, lba: BaseLba) -> Place {
        match self.mapping(lba) {
            Some(mapping) => Place::new(lba, mapping),
            None => Place::Base(lba),
        }
    }

    /// What the table holds for the block `lba`.
    #[inline]
    #[must_use]
    pub fn mapping(&self, lba: BaseLba) -> Option<Mapping> {
        let top = self.directory.top().filter(|top| top.may_hold(lba.0, lba.0))?;
        self.find(top, lba)
    }

    /// Where the block `lba` lives, without a look at the outline: who asks has mostly been told by [`Table::is_plain`] that this does not
    /// know it.
    #[inline]
    pub(crate) fn look_up_more(&self, lba: BaseLba) -> Place {
        let found = self.directory.top().and_then(|top| self.find(top, lba));
        found.map_or(Place::Base(lba), |mapping| Place::new(lba, mapping))
    }

    #[inline]
    fn find(&self, top: &Top, lba: BaseLba) -> Option<Mapping> {
        if lba.0 >= self.base_blocks() {
            return None;
        }
        let (number, key) = place_of(lba.0);
        top.get(number, key).map(Mapping::decode)
    }

    /// The first segment of `range`, for whoever goes on from its end. It has at most `longest` blocks, unless it is on the
    /// base and not pending. `None` if the range is empty.
    #[must_use]
    pub fn first_segment(&self, range: Extent, longest: u64) -> Option<Segment> {
        let base = |blocks| Segment { place: Place::Base(range.lba), blocks };
        let mut first: Option<Segment> = None;
        let _ = self.visit(range, |lba, mapping| {
            let (offset, place) = (lba.0 - range.lba.0, Place::new(lba, mapping));
            match &mut first {
                None if offset == 0 => first = Some(Segment { place, blocks: 1 }),
                None => {
                    first = Some(base(offset));
                    return ControlFlow::Break(());
                }
                Some(segment)
                    if offset == segment.blocks && offset < longest && segment.place.plus(offset) == Some(place) =>
                {
                    segment.blocks += 1;
                }
                Some(_) => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        });
        first.or_else(|| (range.blocks > 0).then(|| base(range.blocks)))
    }

    /// Calls `f` for each block of `range` that the table holds, in ascending order, until it breaks.
    #[inline]
    pub fn visit(&self, range: Extent, mut f: impl FnMut(BaseLba, Mapping) -> ControlFlow<()>) -> ControlFlow<()> {
        let (first, end) = (range.lba.0, range.end().0.min(self.base_blocks()));
        let Some(top) = self.directory.top().filter(|top| first < end && top.may_hold(first, end - 1)) else {
            return ControlFlow::Continue(());
        };
        let ((first, low), (last, high)) = (place_of(first), place_of(end - 1));
        let mut f =
            |number: u64, key: u16, value| f(BaseLba(number * REGION_BLOCKS + u64::from(key)), Mapping::decode(value));
        if first == last {
            // Nearly every I/O.
            return match top.look(first, low, high) {
                Some(region) => region.visit(low, high, |key, value| f(first, key, value)),
                None => ControlFlow::Continue(()),
            };
        }
        let mut next = first;
        while let Some((number, region)) = top.first_region(next, last) {
            if number + FETCHED_AHEAD <= last {
                top.fetch_region(number + FETCHED_AHEAD);
            }
            let low = if number == first { low } else { 0 };
            let high = if number == last { high } else { LAST_KEY };
            region.visit(low, high, |key, value| f(number, key, value))?;
            next = number + 1;
        }
        ControlFlow::Continue(())
    }

    /// Calls `f` for each block that the table holds, in ascending order; the thread's other tasks go on now and then. Nobody
    /// changes the table meanwhile.
    pub(crate) async fn visit_in_steps(&self, mut f: impl FnMut(BaseLba, Mapping)) {
        let all = Extent::new(BaseLba(0), self.base_blocks());
        self.visit_range_in_steps(all, &mut Pace::default(), &mut f).await;
    }

    /// As [`Table::visit_in_steps`], of `range`.
    pub(crate) async fn visit_range_in_steps(
        &self,
        range: Extent,
        pace: &mut Pace,
        mut f: impl FnMut(BaseLba, Mapping),
    ) {
        let (mut from, end) = (range.lba, range.end());
        while from < end {
            let (mut seen, mut next) = (0, end);
            let _ = self.visit(Extent::new(from, end.0 - from.0), |lba, mapping| {
                if seen == Pace::STRIDE {
                    next = lba;
                    return ControlFlow::Break(());
                }
                seen += 1;
                f(lba, mapping);
                ControlFlow::Continue(())
            });
            from = next;
            pace.step(seen).await;
        }
    }

    /// Whether the table is so large that looks wait for far memory.
    #[inline(always)]
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.directory.top().is_some_and(Top::is_far)
    }

    /// What is nearest of a far table tells of `range`.
    #[inline]
    #[must_use]
    pub fn glance(&self, range: Extent) -> Glance {
        let Some((top, number, low, high)) = self.region_of(range) else { return Glance::Unknown };
        match top.node(number) {
            Some(node) if node.places_may_hold(number, low, high) => {
                node.fetch_entry(number);
                Glance::Fetched
            }
            _ => Glance::Plain,
        }
    }

    /// Whether `range` is plain, as [`Table::is_plain`], by a look at what [`Table::glance`] has fetched. Where a region may hold any of it, that is
    /// fetched.
    #[inline]
    #[must_use]
    pub fn is_plain_near(&self, range: Extent) -> bool {
        let Some((top, number, low, high)) = self.region_of(range) else { return false };
        let may_hold = top.node(number).filter(|node| node.entry_may_hold(number, low, high));
        may_hold.is_none_or(|node| {
            node.fetch_region(number);
            false
        })
    }

    /// The region that `range` is in, and from which key to which, if it is in one.
    #[inline]
    fn region_of(&self, range: Extent) -> Option<(&Top, u64, u16, u16)> {
        let top = self.directory.top()?;
        let (first, end) = (range.lba.0, range.end().0);
        if first >= end || end > self.base_blocks() {
            return None;
        }
        let ((number, low), (last, high)) = (place_of(first), place_of(end - 1));
        (number == last).then_some((top, number, low, high))
    }

    /// Has what says where the region of this block is fetched, while other work goes on.
    pub(crate) fn fetch_entry_of(&self, lba: BaseLba) {
        self.directory.top().into_iter().for_each(|top| top.fetch_entry(place_of(lba.0).0));
    }

    /// Has the region of this block fetched, while other work goes on.
    pub(crate) fn fetch_region_of(&self, lba: BaseLba) {
        self.directory.top().into_iter().for_each(|top| top.fetch_region(place_of(lba.0).0));
    }

    /// How many entries are copied when `changes` blocks change in the region of this block, at most.
    pub(crate) fn copied_for(&self, lba: BaseLba, changes: usize) -> usize {
        let held = self.directory.region(place_of(lba.0).0).map_or(0, |region| region.len());
        held.min(changes.saturating_mul(COPIED_AT_MOST))
    }

    /// The size of the base that the table is for, in blocks.
    #[inline]
    #[must_use]
    pub fn base_blocks(&self) -> u64 {
        // Relaxed: nobody asks for blocks behind the end that it was not told of, which is later.
        self.base_blocks.load(Ordering::Relaxed)
    }

    /// How large the base can become while the table is in use, in blocks.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.directory.room()
    }
}

/// The number of the region of this block, and its key there.
#[inline]
fn place_of(lba: u64) -> (u64, u16) {
    // The remainder is below 16,384.
    (lba / REGION_BLOCKS, (lba % REGION_BLOCKS) as u16)
}
