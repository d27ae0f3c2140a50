//! Which area of the log is in force, and how far it goes: the rules, without any I/O.
//!
//! What a crash can leave behind is told from what only damage can: the first is repaired, the second refused.

use super::scan::{Area, Slot};
use crate::error::Error;
use crate::format::Copy;
use crate::format::page::PageInfo;
use crate::mutation::{Mutation, active};

/// The part of the log that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) area: usize,
    pub(super) epoch: u64,
    pub(super) first_sequence: u64,
    pub(super) checkpoint_pages: u64,
    /// The first page that no copy holds.
    pub(super) end: u64,
    /// By copy: whether it holds all that it should.
    pub(super) log_ok: [bool; 2],
    /// Whether something was left that a fresh checkpoint, in the other area, should put right.
    pub(super) unfinished: bool,
    /// The highest epoch and sequence number found anywhere.
    pub(super) top: (u64, u64),
    /// Whether the other area has pages that could hide a still higher epoch.
    pub(super) hidden: bool,
    /// By area: whether it has bad pages, which a later end of the log must not meet.
    pub(super) dirty: [bool; 2],
}

/// One area, as seen under one epoch.
struct View<'a> {
    slots: &'a Area,
    number: usize,
    epoch: u64,
    first_sequence: u64,
    checkpoint_pages: u64,
}

/// What a copy has where a page could be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Held,
    /// Nothing, or a page of an earlier epoch.
    Older,
    Bad,
}

/// The highest epoch that any page of `area` has.
fn top_epoch(area: &Area) -> Option<u64> {
    area.iter().flatten().filter_map(Slot::epoch).max()
}

/// Finds the part of the log that is in force. `known` is the highest epoch whose checkpoint is known to be complete,
/// `missed_by_a` the last one in which copy A missed a committed page.
///
/// # Errors
/// [`Error::NoCheckpoint`], [`Error::LogDamaged`], [`Error::EpochLost`].
pub(super) fn choose(areas: &[Area; 2], known: u64, missed_by_a: u64) -> Result<Chosen, Error> {
    let tops = [top_epoch(&areas[0]), top_epoch(&areas[1])];
    let newest = usize::from(tops[1] > tops[0] && !active(Mutation::IgnoreEpoch));
    let Some(epoch) = tops[newest] else { return Err(Error::NoCheckpoint) };
    let mut view = View::new(areas, newest, epoch)?;
    if tops[0] == tops[1] {
        return Err(view.damaged("both areas have the same epoch", 0));
    }
    let mut unfinished = false;
    if !view.complete() {
        view.check_unfinished(known)?;
        let other = 1 - newest;
        view = View::new(areas, other, tops[other].ok_or(Error::NoCheckpoint)?)?;
        if !view.complete() {
            return Err(Error::NoCheckpoint);
        }
        unfinished = true;
    }
    if view.epoch < known && !active(Mutation::IgnoreEpoch) {
        return Err(Error::EpochLost { known, found: view.epoch });
    }
    let sequences = areas.iter().flatten().flatten().filter_map(|slot| match slot {
        Slot::Valid(info, _) => Some(info.sequence),
        Slot::Zero | Slot::Bad => None,
    });
    let top = (epoch, sequences.max().unwrap_or(0));
    let dirty = [0, 1].map(|area: usize| areas[area].iter().flatten().any(|slot| *slot == Slot::Bad));
    let (end, torn) = view.end(missed_by_a == view.epoch)?;
    let ahead = (end..view.pages()).any(|page| Copy::BOTH.iter().any(|copy| view.kind(*copy, page) == Kind::Bad));
    let (log_ok, single) = view.health(end);
    Ok(Chosen {
        area: view.number,
        epoch: view.epoch,
        first_sequence: view.first_sequence,
        checkpoint_pages: view.checkpoint_pages,
        end,
        log_ok,
        unfinished: unfinished || torn || single || ahead,
        top,
        hidden: dirty[1 - view.number],
        dirty,
    })
}

impl<'a> View<'a> {
    fn new(areas: &'a [Area; 2], number: usize, epoch: u64) -> Result<View<'a>, Error> {
        let slots = &areas[number];
        let mut view = View { slots, number, epoch, first_sequence: 0, checkpoint_pages: 0 };
        let mut known: Option<(Option<u64>, u32)> = None;
        for copy in slots {
            for (page, slot) in (0_u64..).zip(copy) {
                let Slot::Valid(info, _) = slot else { continue };
                if info.epoch != epoch {
                    continue;
                }
                let says = (info.sequence.checked_sub(page), info.checkpoint_pages);
                if *known.get_or_insert(says) != says || says.0.is_none() {
                    return Err(view.damaged("pages contradict each other", page));
                }
            }
        }
        if let Some((first, pages)) = known {
            view.first_sequence = first.unwrap_or(0);
            view.checkpoint_pages = u64::from(pages);
        }
        for page in 0..view.pages() {
            if let [Some((_, a)), Some((_, b))] = Copy::BOTH.map(|copy| view.held(copy, page))
                && a != b
            {
                return Err(view.damaged("the copies of a page differ", page));
            }
        }
        Ok(view)
    }

    fn damaged(&self, what: &'static str, page: u64) -> Error {
        Error::LogDamaged { what, epoch: self.epoch, area: self.number, page }
    }

    fn pages(&self) -> u64 {
        self.slots[0].len().min(self.slots[1].len()) as u64
    }

    fn slot(&self, copy: Copy, page: u64) -> Slot {
        let index = usize::try_from(page).unwrap_or(usize::MAX);
        self.slots[copy.index()].get(index).copied().unwrap_or(Slot::Zero)
    }

    fn held(&self, copy: Copy, page: u64) -> Option<(PageInfo, u32)> {
        match self.slot(copy, page) {
            Slot::Valid(info, records) if info.epoch == self.epoch => Some((info, records)),
            _ => None,
        }
    }

    fn kind(&self, copy: Copy, page: u64) -> Kind {
        match self.slot(copy, page) {
            Slot::Zero => Kind::Older,
            Slot::Valid(info, _) if info.epoch == self.epoch => Kind::Held,
            Slot::Valid(info, _) if info.epoch < self.epoch => Kind::Older,
            Slot::Valid(..) | Slot::Bad => Kind::Bad,
        }
    }

    fn any(&self, page: u64) -> bool {
        Copy::BOTH.iter().any(|copy| self.kind(*copy, page) == Kind::Held)
    }

    /// Whether all pages of the checkpoint are there.
    fn complete(&self) -> bool {
        self.checkpoint_pages <= self.pages() && (0..self.checkpoint_pages).all(|page| self.any(page))
    }

    /// Checks that the checkpoint, which is not complete, never was: that a crash stopped it.
    fn check_unfinished(&self, known: u64) -> Result<(), Error> {
        if known >= self.epoch {
            return Err(self.damaged("the checkpoint, which the superblock knows, is not complete any more", 0));
        }
        if let Some(page) = (self.checkpoint_pages..self.pages()).find(|page| self.any(*page)) {
            return Err(self.damaged("pages of the checkpoint are lost, others behind it are not", page));
        }
        // Copy B is begun only when copy A is whole, or was given up.
        let whole = |page: &u64| self.held(Copy::B, *page).is_some_and(|(info, _)| !info.solo);
        if let Some(page) = (0..self.pages()).find(whole) {
            return Err(self.damaged("pages of the checkpoint are lost", page));
        }
        if Copy::BOTH.iter().all(|copy| self.kind(*copy, 0) == Kind::Bad) {
            return Err(self.damaged("page 0 of the checkpoint is bad in both copies", 0));
        }
        Ok(())
    }

    /// The first page that no copy holds, and whether a crash tore it. `a_missed`: copy A may lack committed pages.
    fn end(&self, a_missed: bool) -> Result<(u64, bool), Error> {
        let end = (self.checkpoint_pages..self.pages()).find(|page| !self.any(*page)).unwrap_or(self.pages());
        if end == self.pages() {
            return Ok((end, false));
        }
        let torn = match Copy::BOTH.map(|copy| self.kind(copy, end)) {
            [Kind::Older, Kind::Older] => false,
            // Copy A is written first: the page was never durable.
            [Kind::Bad, Kind::Older] => true,
            // Copy B is written only when copy A is done, which has nothing here: it was never begun. If copy A is known to
            // have failed, it may have been.
            [Kind::Older, Kind::Bad] if !a_missed => false,
            _ => return Err(self.damaged("a page is bad that may hold records", end)),
        };
        match (end..self.pages()).find(|page| self.any(*page)) {
            Some(page) => Err(self.damaged("a page is there, those before it are lost", page)),
            None => Ok((end, torn)),
        }
    }

    /// By copy, whether it has all pages up to `end`; and whether a crash kept the newest from being on both.
    fn health(&self, end: u64) -> ([bool; 2], bool) {
        // What the last commit wrote: one page, or the checkpoint.
        let last = if end > self.checkpoint_pages { end - 1 } else { 0 };
        let holds = |copy, from: u64, to: u64| (from..to).all(|page| self.kind(copy, page) == Kind::Held);
        let mut ok = Copy::BOTH.map(|copy| holds(copy, 0, last));
        let [a, b] = Copy::BOTH.map(|copy| holds(copy, last, end));
        match (a, b) {
            // As a crash before or while copy B was written leaves it.
            (true, false) => (ok, true),
            (a, b) => {
                ok = [ok[0] && a, ok[1] && b];
                (ok, false)
            }
        }
    }
}
