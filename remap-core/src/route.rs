//! Where each I/O of a host goes, decided once, as a value.
//!
//! The vbdev asks [`route`] for every I/O, on the hot path by its parts ([`is_plain`]; where the table is far [`glance`] and
//! [`is_plain_near`]; then [`route_further`]), and [`after_error`] when one has failed, and carries the answer out; the simulator
//! asks the same, and carries out the same answer. Nothing here does I/O, waits, or changes anything.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::mutation::{self, Mutation};
use crate::rescue::HostOp;
use crate::slot::{PerSlot, SpareBlock};
use crate::status::{IoStatus, RemapOn};
use crate::table::{Glance, Place, Table};
use crate::units::{BaseLba, Extent};

#[cfg(test)]
mod tests;

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A write of zeroes, without data.
    WriteZeroes,
    /// The advice that blocks are no longer needed.
    Unmap,
    /// What was written is to become durable.
    Flush,
    /// All I/O under way is to be aborted.
    Reset,
    /// One I/O under way is to be aborted.
    Abort,
}

impl Request {
    /// Whether it changes what blocks hold.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(self, Request::Write | Request::WriteZeroes | Request::Unmap)
    }

    /// Whether it goes to the base as it is where nothing is remapped, whatever the base takes.
    #[must_use]
    pub const fn asks_of_base(self) -> bool {
        matches!(self, Request::Read | Request::Write | Request::WriteZeroes)
    }
}

/// What a device takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// FLUSH.
    pub flush: bool,
    /// UNMAP.
    pub unmap: bool,
    /// write_zeroes.
    pub zeroes: bool,
    /// RESET.
    pub reset: bool,
    /// ABORT.
    pub abort: bool,
}

impl Takes {
    /// All of it.
    pub const ALL: Takes = Takes { flush: true, unmap: true, zeroes: true, reset: true, abort: true };
    /// Nothing of it, as where there is no device.
    pub const NONE: Takes = Takes { flush: false, unmap: false, zeroes: false, reset: false, abort: false };
}

/// What the base and the spares take, and whether the base has to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The base holds written data in a volatile cache.
    pub base_cache: bool,
    /// The base. If it takes no write_zeroes, the vbdev takes none either, and gets writes.
    pub base: Takes,
    /// The spare in each slot; nothing where there is none.
    pub spares: PerSlot<Takes>,
}

impl Abilities {
    /// A base, and a spare in the first slot, that take everything, with volatile caches.
    pub const ALL: Abilities =
        Abilities { base_cache: true, base: Takes::ALL, spares: PerSlot([Takes::ALL, Takes::NONE]) };

    /// Whether what is written to the base may stay in a cache that nobody can have written out: nothing there is ever durable.
    #[must_use]
    pub fn base_is_never_durable(&self) -> bool {
        self.base_cache && !self.base.flush
    }

    /// The slots whose spare takes this.
    fn spares_that(&self, take: impl Fn(&Takes) -> bool) -> PerSlot<bool> {
        PerSlot::each(|slot| take(&self.spares[slot]))
    }
}

/// Where a run of blocks of a host's I/O goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// To the base, from this block on.
    Base(BaseLba),
    /// To the spare, from this block on.
    Spare(SpareBlock),
}

impl At {
    /// The place of the block `blocks` blocks behind this one, in the same run.
    #[inline]
    #[must_use]
    pub fn plus(self, blocks: u64) -> Option<At> {
        match self {
            At::Base(lba) => Some(At::Base(lba.plus(blocks))),
            At::Spare(block) => block.plus(blocks).map(At::Spare),
        }
    }
}

/// A part of an I/O that goes to one run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where its first block goes; the others follow one by one.
    pub at: At,
    /// Where the part starts, in blocks from the start of the I/O.
    pub offset: u64,
    /// Its length in blocks.
    pub blocks: u64,
}

/// The parts of an I/O, by offset, without overlap. Four need no allocation, and little is moved with them.
pub type Parts = SmallVec<[Part; 4]>;

/// Parts that an I/O has under way at one time, at most: it must not take every I/O structure that there is.
pub const WINDOW: usize = 64;

/// The first blocks of an I/O, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// At least one, at most [`WINDOW`], all at once. Blocks that are in no part are done.
    pub parts: Parts,
    /// How many blocks these are. Where the others go is asked when these are done, as that may have changed by then.
    pub blocks: u64,
}

/// Devices that an I/O goes to as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// To the base.
    pub base: bool,
    /// To the spare in each slot: all of its data area.
    pub spares: PerSlot<bool>,
}

impl Devices {
    /// These, if there are any.
    fn some(base: bool, spares: PerSlot<bool>) -> Option<Devices> {
        (base || spares != PerSlot::NONE).then_some(Devices { base, spares })
    }
}

/// Where an I/O goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// All of it to one run of blocks.
    Whole(At),
    /// Its first blocks, or all of them, each part to another run.
    Split(Split),
    /// To each of these devices, at least one, at once.
    AllOf(Devices),
    /// To each of these devices, at least one, at once: it succeeds if one of them succeeds.
    AnyOf(Devices),
    /// Nowhere: it has succeeded.
    Done,
    /// Nowhere: it has failed.
    Fail(IoStatus),
    /// To [`crate::rescue()`], before anything else is tried.
    Rescue(HostOp),
}

/// What follows the error of an I/O that went where [`route`] said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterError {
    /// The host gets this error.
    Complete(IoStatus),
    /// [`crate::rescue()`] does the I/O again.
    Rescue(HostOp),
}

/// Where `request` for the blocks of `range` goes; FLUSH, RESET and ABORT have no use for the range.
#[inline(always)]
#[must_use]
pub fn route(request: Request, range: Extent, table: &Table, abilities: &Abilities) -> Route {
    match is_plain(request, range, table) {
        true => Route::Whole(At::Base(range.lba)),
        false => route_further(request, range, table, abilities),
    }
}

/// Whether `request` is known at once to go to the base as it is, as nearly all do. While nothing is remapped, it costs one atomic load; of
/// blocks that are not, mostly three. Of a far table it is never known at once.
#[inline(always)]
#[must_use]
pub fn is_plain(request: Request, range: Extent, table: &Table) -> bool {
    request.asks_of_base() && table.is_plain(range)
}

/// As [`is_plain`], by what is nearest of a far table.
#[inline(always)]
#[must_use]
pub fn glance(request: Request, range: Extent, table: &Table) -> Glance {
    if request.asks_of_base() { table.glance(range) } else { Glance::Unknown }
}

/// As [`is_plain`], of a request for which [`glance`] has fetched what this needs. Where it does not say so, what a look needs further is fetched.
#[inline(always)]
#[must_use]
pub fn is_plain_near(request: Request, range: Extent, table: &Table) -> bool {
    request.asks_of_base() && table.is_plain_near(range)
}

/// As [`route`], of what is not plain.
#[inline(always)]
#[must_use]
pub fn route_further(request: Request, range: Extent, table: &Table, abilities: &Abilities) -> Route {
    match request {
        Request::Read | Request::Write | Request::WriteZeroes | Request::Unmap => {
            look_up(request, range, table, abilities)
        }
        Request::Flush => flush(table, abilities),
        Request::Reset => reset(abilities),
        Request::Abort => abort(table, abilities),
    }
}

/// What follows when `request` failed with `status` on a device, or, of several parts, first on one of them. Only media
/// errors of reads and writes can be cured. UNMAP is advice, and nobody knows which block a FLUSH failed for.
#[cold]
#[must_use]
pub fn after_error(request: Request, status: IoStatus, on: RemapOn) -> AfterError {
    match request.rescued_as() {
        Some(op) if status.is_media_error(on) => AfterError::Rescue(op),
        _ => AfterError::Complete(status),
    }
}

impl Request {
    /// What it is to a rescue, if it can be rescued.
    #[must_use]
    pub fn rescued_as(self) -> Option<HostOp> {
        match self {
            Request::Read => Some(HostOp::Read),
            Request::Write => Some(HostOp::Write),
            Request::WriteZeroes => Some(HostOp::WriteZeroes),
            Request::Unmap | Request::Flush | Request::Reset | Request::Abort => None,
        }
    }
}

impl From<HostOp> for Request {
    fn from(op: HostOp) -> Request {
        match op {
            HostOp::Read => Request::Read,
            HostOp::Write => Request::Write,
            HostOp::WriteZeroes => Request::WriteZeroes,
        }
    }
}

#[inline]
fn look_up(request: Request, range: Extent, table: &Table, abilities: &Abilities) -> Route {
    if range.blocks != 1 && !mutation::active(Mutation::LookUpFirstBlockOnly) {
        return by_part(request, range, table, abilities);
    }
    to_place(request, table.look_up_more(range.lba), abilities, table.is_mirrored()).into()
}

/// Where blocks go that live in one run.
#[derive(Clone, Copy)]
enum Goes {
    To(At),
    /// They are left out.
    Nowhere,
    Fail(IoStatus),
    Rescue(HostOp),
}

impl From<Goes> for Route {
    #[inline]
    fn from(goes: Goes) -> Route {
        match goes {
            Goes::To(at) => Route::Whole(at),
            Goes::Nowhere => Route::Done,
            Goes::Fail(status) => Route::Fail(status),
            Goes::Rescue(op) => Route::Rescue(op),
        }
    }
}

/// Where blocks go that live in this place. `mirrored`: what goes to the spare goes to another one, too.
#[inline]
fn to_place(request: Request, place: Place, abilities: &Abilities, mirrored: bool) -> Goes {
    match (request, place) {
        (Request::Read, Place::Lost(_)) => Goes::Fail(IoStatus::UNRECOVERED_READ),
        (Request::Write | Request::WriteZeroes, Place::Pending(lba))
            if mutation::active(Mutation::WritePendingToBase) =>
        {
            Goes::To(At::Base(lba))
        }
        // A write settles pending and lost blocks, durably.
        (Request::Write, Place::Pending(_) | Place::Lost(_)) => Goes::Rescue(HostOp::Write),
        (Request::WriteZeroes, Place::Pending(_) | Place::Lost(_)) => Goes::Rescue(HostOp::WriteZeroes),
        // A rescue knows what is on both.
        (Request::Write, Place::Spare(_)) if mirrored => Goes::Rescue(HostOp::Write),
        (Request::WriteZeroes, Place::Spare(_)) if mirrored => Goes::Rescue(HostOp::WriteZeroes),
        // It could become zeros on the one only.
        (Request::Unmap, Place::Spare(_) | Place::Lost(_)) if mirrored => Goes::Nowhere,
        // The bdev layer would write zeros instead, and hide why that fails.
        (Request::WriteZeroes, Place::Spare(block)) if !abilities.spares[block.slot()].zeroes => {
            Goes::Rescue(HostOp::WriteZeroes)
        }
        // A device that takes no advice just keeps its data.
        (Request::Unmap, Place::Base(_) | Place::Pending(_)) if !abilities.base.unmap => Goes::Nowhere,
        (Request::Unmap, Place::Spare(block) | Place::Lost(block)) if !abilities.spares[block.slot()].unmap => {
            Goes::Nowhere
        }
        (_, Place::Base(lba) | Place::Pending(lba)) => Goes::To(At::Base(lba)),
        (_, Place::Spare(block) | Place::Lost(block)) => Goes::To(At::Spare(block)),
    }
}

/// Some of several blocks may be in the table.
#[inline(never)]
fn by_part(request: Request, range: Extent, table: &Table, abilities: &Abilities) -> Route {
    let (mut parts, mut decided, mut blocks) = (Parts::new(), None, range.blocks);
    let mirrored = table.is_mirrored();
    let mut go_to = |place, offset, count| {
        match to_place(request, place, abilities, mirrored) {
            Goes::To(at) => {
                if !add(&mut parts, Part { at, offset, blocks: count }) {
                    blocks = offset;
                    return ControlFlow::Break(());
                }
            }
            Goes::Nowhere => {}
            // One such block decides it for all.
            other => {
                decided = Some(other);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let base = |offset| Place::Base(range.lba.plus(offset));
    let mut next = 0;
    let looked = table.visit(range, |lba, mapping| {
        let offset = lba.0 - range.lba.0;
        if offset > next {
            go_to(base(next), next, offset - next)?;
        }
        next = offset + 1;
        go_to(Place::new(lba, mapping), offset, 1)
    });
    if looked.is_continue() && range.blocks > next {
        let _ = go_to(base(next), next, range.blocks - next);
    }
    match (decided, parts.as_slice()) {
        (Some(decided), _) => decided.into(),
        (None, []) => Route::Done,
        (None, [only]) if only.blocks == range.blocks => Route::Whole(only.at),
        (None, _) => Route::Split(Split { parts, blocks }),
    }
}

/// Adds a part, to the last one if it goes on there: a pending block among others of the base is no reason to split. False if
/// there is no room.
fn add(parts: &mut Parts, part: Part) -> bool {
    let full = parts.len() == WINDOW;
    match parts.last_mut() {
        Some(last) if last.offset + last.blocks == part.offset && last.at.plus(last.blocks) == Some(part.at) => {
            last.blocks += part.blocks;
        }
        _ if full => return false,
        _ => parts.push(part),
    }
    true
}

/// To every device that may hold written data in a cache, and is in force: on a spare that is only being filled nothing rests,
/// so that its failure is no business of hosts. What the base cannot be made to write out is not durable, and
/// success would be a lie.
fn flush(table: &Table, abilities: &Abilities) -> Route {
    if abilities.base_is_never_durable() {
        return Route::Fail(IoStatus::Failed);
    }
    let used = table.was_used() && !mutation::active(Mutation::FlushLeavesSpareOut);
    let spares = PerSlot::each(|slot| used && slot == table.slot() && abilities.spares[slot].flush);
    Devices::some(abilities.base.flush, spares).map_or(Route::Done, Route::AllOf)
}

/// To every device: on the spare, the metadata's I/O is under way also while nothing is remapped. A base that takes none leaves
/// its I/O under way: that is no reset.
fn reset(abilities: &Abilities) -> Route {
    if !abilities.base.reset {
        return Route::Fail(IoStatus::Failed);
    }
    Route::AllOf(Devices { base: true, spares: abilities.spares_that(|takes| takes.reset) })
}

/// To all devices, as nobody has written down which of them has the I/O. At once: what the I/O is called may by the time at which
/// the first has answered be the name of another. That none can abort it is a normal outcome.
fn abort(table: &Table, abilities: &Abilities) -> Route {
    let used = table.was_used();
    let spares = abilities.spares_that(|takes| takes.abort && used);
    Devices::some(abilities.base.abort, spares).map_or(Route::Fail(IoStatus::Failed), Route::AnyOf)
}
