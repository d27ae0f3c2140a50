//! Which area of the log is in force, and how far it goes: the rules, without any I/O.
//!
//! What a crash can leave behind is told from what only damage can: the first is repaired, the second refused. The rules
//! rest on the order in which the log is written:
//!
//! - Nothing is appended under an epoch before a superblock says that its checkpoint is complete.
//! - A page is written to copy A, made durable there, and only then written to copy B. While both copies hold everything,
//!   a page is acknowledged only when both have it: so a page that one of them never had was never acknowledged.
//! - From the moment on at which a copy missed a page, a superblock says how far the log is committed, before each commit is
//!   acknowledged: so behind that nothing was.
//! - Nothing is appended after an open before there is a new epoch. If there is none, a superblock says where the log ended: a page
//!   that is there later was not seen when the set was served.

use super::StatedEnd;
use super::scan::{PageState, Pages};
use crate::error::Error;
use crate::format::{Area, Copy, InUse, PageInfo, PerArea, PerCopy, Superblock};
use crate::mutation::{Mutation, active};
use crate::units::{Epoch, Sequence};

/// What the superblocks know of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The highest epoch whose checkpoint is complete.
    pub(super) epoch: Epoch,
    /// A page that is committed, with all before it.
    pub(super) committed: Sequence,
    /// The epoch in which nothing behind `committed` was acknowledged.
    pub(super) noted_epoch: Epoch,
    /// Whether nothing behind `committed` counts under this epoch.
    pub(super) ended: bool,
}

impl Known {
    pub(super) fn of(superblock: &Superblock) -> Known {
        let Superblock { epoch, committed, noted_epoch, in_use, .. } = *superblock;
        Known { epoch, committed, noted_epoch, ended: in_use == InUse::Ended }
    }

    /// Whether a page is of no state that may count.
    pub(super) fn is_void(self, page: u32, info: &PageInfo) -> bool {
        self.gave_up(page, info) || self.ended_before(info)
    }

    /// Whether a page is behind the end of its log: nobody was told of it, and the set was used without it.
    fn ended_before(self, info: &PageInfo) -> bool {
        self.ended && info.epoch == self.epoch && info.sequence > self.committed
    }

    /// Whether a page is of an attempt at a checkpoint that was given up, which no superblock knows. Its first page has a higher
    /// sequence number than all that was committed before; so what was committed since, under an epoch that is known, is not in it.
    fn gave_up(self, page: u32, info: &PageInfo) -> bool {
        let first = info.sequence.minus(u64::from(page));
        info.epoch > self.epoch
            && first.is_some_and(|first| first <= self.committed)
            && !active(Mutation::GivenUpCounts)
    }
}

/// The part of the log that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) area: Area,
    pub(super) epoch: Epoch,
    pub(super) first_sequence: Sequence,
    pub(super) checkpoint_pages: u32,
    /// The first page that no copy holds.
    pub(super) end: u32,
    /// Whether the copy holds all that it should.
    pub(super) log_ok: PerCopy<bool>,
    /// Whether something was left that a fresh checkpoint, in the other area, should put right.
    pub(super) unfinished: bool,
    /// Whether a page is bad at or behind the end, or where a newer checkpoint may be: one that cannot be read now may be read
    /// later, and count then.
    pub(super) unsettled: bool,
    /// The highest epoch found anywhere.
    pub(super) top_epoch: Epoch,
    /// The highest sequence number found anywhere.
    pub(super) top_sequence: Sequence,
    /// Whether the other area has pages that could hide a still higher epoch.
    pub(super) hidden: bool,
    /// Whether the area has bad pages, which a later end of the log must not meet.
    pub(super) dirty: PerArea<bool>,
}

/// A state of the log that an operator may choose when none is in force: a complete checkpoint, and the pages behind it that
/// follow without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The log area.
    pub area: Area,
    /// The epoch of its checkpoint.
    pub epoch: Epoch,
    /// The last page that follows without a gap.
    pub sequence: Sequence,
}

/// The state of the log that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Where it is, and its last page.
    pub state: Candidate,
    /// Pages of its checkpoint.
    pub checkpoint_pages: u32,
    /// Pages of the checkpoint, and behind it.
    pub pages: u32,
    /// Which copies hold all of these pages.
    pub whole: PerCopy<bool>,
}

impl InForce {
    pub(super) fn of(chosen: &Chosen) -> InForce {
        let Chosen { area, epoch, first_sequence, checkpoint_pages, end: pages, log_ok: whole, .. } = *chosen;
        let sequence = sequence_before(first_sequence, pages);
        InForce { state: Candidate { area, epoch, sequence }, checkpoint_pages, pages, whole }
    }
}

/// The sequence number of the page before `page`, which is not 0, where page 0 has `first`.
fn sequence_before(first: Sequence, page: u32) -> Sequence {
    first.plus(u64::from(page).saturating_sub(1))
}

/// One area, as seen under one epoch.
struct View<'a> {
    pages: &'a Pages,
    known: Known,
    area: Area,
    epoch: Epoch,
    first_sequence: Sequence,
    checkpoint_pages: u32,
}

/// What a copy has where a page could be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Held,
    /// Nothing, or a page of an earlier epoch, or behind the end of this one.
    Older,
    Bad,
}

/// The pages that are valid, each with its number in the area.
fn infos(pages: &Pages) -> impl Iterator<Item = (u32, &PageInfo)> {
    pages.iter().flat_map(|copy| (0..).zip(copy)).filter_map(|(page, state)| Some((page, state.info()?)))
}

/// The pages that may count.
fn counting(pages: &Pages, known: Known) -> impl Iterator<Item = &PageInfo> {
    infos(pages).filter(move |(page, info)| !known.is_void(*page, info)).map(|(_, info)| info)
}

/// The highest epoch of the pages of an area that may count.
fn top_epoch(pages: &Pages, known: Known) -> Option<Epoch> {
    counting(pages, known).map(|info| info.epoch).max()
}

/// Finds the part of the log that is in force.
///
/// # Errors
/// [`Error::NoCheckpoint`], [`Error::LogDamaged`], [`Error::EpochLost`], [`Error::PagesLost`].
pub(super) fn choose(areas: &PerArea<Pages>, known: Known) -> Result<Chosen, Error> {
    let tops = PerArea::each(|area| top_epoch(&areas[area], known));
    let newest =
        if tops[Area::One] > tops[Area::Zero] && !active(Mutation::IgnoreEpoch) { Area::One } else { Area::Zero };
    let Some(epoch) = tops[newest] else { return Err(Error::NoCheckpoint) };
    let mut view = View::new(areas, newest, epoch, known)?;
    if tops[Area::Zero] == tops[Area::One] {
        return Err(view.damaged("both areas have the same epoch", 0));
    }
    let mut unfinished = epoch > known.epoch;
    if !view.complete() {
        view.check_unfinished()?;
        let other = newest.other();
        view = View::new(areas, other, tops[other].ok_or(Error::NoCheckpoint)?, known)?;
        if !view.complete() {
            return Err(Error::NoCheckpoint);
        }
        unfinished = true;
    }
    let off_by_one = active(Mutation::EpochOffByOne) && view.epoch.plus(1) == known.epoch;
    if view.epoch < known.epoch && !active(Mutation::IgnoreEpoch) && !off_by_one {
        return Err(Error::EpochLost { known: known.epoch, found: view.epoch });
    }
    if off_by_one {
        // What is noted of the lost epoch would tell as well.
        view.known.committed = Sequence::ZERO;
    }
    let end = view.end()?;
    let mut chosen = view.chosen(areas, end);
    chosen.unsettled |= may_come_back(&areas[view.area.other()], view.epoch, known);
    // What is replayed behind a note is relied upon from now on, so that the note must not hold any longer.
    chosen.unfinished = unfinished || chosen.unsettled || view.is_noted() || !chosen.log_ok.all();
    Ok(chosen)
}

/// Whether an area may have a checkpoint of a later epoch than this one, complete once its bad pages can be read.
fn may_come_back(pages: &Pages, epoch: Epoch, known: Known) -> bool {
    let bad = |page: usize| pages.iter().any(|copy| copy.get(page) == Some(&PageState::Bad));
    let newest = counting(pages, known).filter(|info| info.epoch > epoch).max_by_key(|info| info.epoch);
    newest.map_or(bad(0), |newest| {
        let held = |state: &PageState| state.info().is_some_and(|info| info.epoch == newest.epoch);
        let there = |page: usize| pages.iter().any(|copy| copy.get(page).is_some_and(held));
        (0..newest.checkpoint_pages as usize).all(|page| there(page) || bad(page))
    })
}

/// The states that an operator may choose from.
pub(super) fn candidates(areas: &PerArea<Pages>, known: Known) -> Vec<Candidate> {
    Area::BOTH.into_iter().filter_map(|area| candidate(areas, area, known).map(|found| found.0)).collect()
}

/// What is in force if an operator has chosen this state.
pub(super) fn choose_stated(areas: &PerArea<Pages>, known: Known, stated: StatedEnd) -> Result<Chosen, Error> {
    let StatedEnd { epoch, sequence } = stated;
    let found = Area::BOTH.into_iter().filter_map(|area| candidate(areas, area, known));
    let stated = found.into_iter().find(|(candidate, _)| candidate.epoch == epoch && candidate.sequence == sequence);
    let (_, chosen) = stated.ok_or(Error::NoSuchState { epoch, sequence })?;
    // What was not chosen may be in force again the next time, so the choice has to be durable first.
    Ok(Chosen { unfinished: true, unsettled: true, hidden: true, ..chosen })
}

fn candidate(areas: &PerArea<Pages>, area: Area, known: Known) -> Option<(Candidate, Chosen)> {
    let view = View::new(areas, area, top_epoch(&areas[area], known)?, known).ok()?;
    if !view.complete() {
        return None;
    }
    let chosen = view.chosen(areas, view.first_gap());
    Some((Candidate { area, epoch: view.epoch, sequence: view.sequence_before(chosen.end) }, chosen))
}

impl<'a> View<'a> {
    fn new(areas: &'a PerArea<Pages>, area: Area, epoch: Epoch, known: Known) -> Result<View<'a>, Error> {
        let pages = &areas[area];
        let mut view = View { pages, known, area, epoch, first_sequence: Sequence::ZERO, checkpoint_pages: 0 };
        let mut first: Option<(Option<Sequence>, u32)> = None;
        for copy in pages.iter() {
            for (page, state) in (0_u32..).zip(copy) {
                let Some(info) = state.info().filter(|info| info.epoch == epoch) else { continue };
                let says = (info.sequence.minus(u64::from(page)), info.checkpoint_pages);
                if *first.get_or_insert(says) != says || says.0.is_none() {
                    return Err(view.damaged("pages contradict each other", page));
                }
            }
        }
        if let Some((first, pages)) = first {
            view.first_sequence = first.unwrap_or(Sequence::ZERO);
            view.checkpoint_pages = pages;
        }
        for page in 0..view.len() {
            if let [Some(a), Some(b)] = Copy::BOTH.map(|copy| view.held(copy, page))
                && a != b
            {
                return Err(view.damaged("the copies of a page differ", page));
            }
        }
        Ok(view)
    }

    fn damaged(&self, what: &'static str, page: u32) -> Error {
        Error::LogDamaged { what, epoch: self.epoch, area: self.area.index(), page: u64::from(page) }
    }

    fn len(&self) -> u32 {
        // An area has fewer than 2^32 pages.
        self.pages.iter().map(Vec::len).min().unwrap_or(0) as u32
    }

    fn state(&self, copy: Copy, page: u32) -> PageState {
        self.pages[copy].get(page as usize).copied().unwrap_or(PageState::Zero)
    }

    /// Whether a page is of this log.
    fn holds(&self, info: &PageInfo) -> bool {
        info.epoch == self.epoch && !self.known.ended_before(info)
    }

    /// The checksum of a page that this copy holds, the same for both copies.
    fn held(&self, copy: Copy, page: u32) -> Option<u32> {
        match self.state(copy, page) {
            PageState::Valid(info, checksum) if self.holds(&info) => Some(checksum),
            _ => None,
        }
    }

    fn kind(&self, copy: Copy, page: u32) -> Kind {
        match self.state(copy, page) {
            PageState::Zero => Kind::Older,
            PageState::Valid(info, _) if self.holds(&info) => Kind::Held,
            PageState::Valid(info, _) if info.epoch <= self.epoch => Kind::Older,
            PageState::Valid(..) | PageState::Bad => Kind::Bad,
        }
    }

    fn kinds(&self, page: u32) -> PerCopy<Kind> {
        PerCopy::each(|copy| self.kind(copy, page))
    }

    fn any(&self, page: u32) -> bool {
        self.kinds(page).0.contains(&Kind::Held)
    }

    /// Whether all pages of the checkpoint are there.
    fn complete(&self) -> bool {
        let enough = if active(Mutation::CompleteWithFirstPage) { 1 } else { self.checkpoint_pages };
        self.checkpoint_pages <= self.len() && (0..enough).all(|page| self.any(page))
    }

    /// Checks that the checkpoint, which is not complete, was never in force: that a crash, or a failing device, stopped it.
    fn check_unfinished(&self) -> Result<(), Error> {
        if self.known.epoch >= self.epoch {
            return Err(self.damaged("the checkpoint, which the superblock knows, is not complete any more", 0));
        }
        match (self.checkpoint_pages..self.len()).find(|page| self.any(*page)) {
            Some(page) => Err(self.damaged("pages of the checkpoint are lost, others behind it are not", page)),
            None => Ok(()),
        }
    }

    /// The first page behind the checkpoint that no copy holds.
    fn first_gap(&self) -> u32 {
        (self.checkpoint_pages..self.len()).find(|page| !self.any(*page)).unwrap_or(self.len())
    }

    /// The sequence number of the page before `page`, which is not 0.
    fn sequence_before(&self, page: u32) -> Sequence {
        sequence_before(self.first_sequence, page)
    }

    /// The first page that no copy holds.
    fn end(&self) -> Result<u32, Error> {
        let end = self.first_gap();
        if let Some(page) = (end..self.len()).find(|page| self.any(*page)) {
            return Err(self.damaged("a page is there, those before it are lost", page));
        }
        let last = self.sequence_before(end);
        let committed = self.known.committed;
        if last < committed && !active(Mutation::NoteIgnored) {
            return Err(Error::PagesLost { known: committed, found: last });
        }
        if end == self.len() {
            return Ok(end);
        }
        // Nothing is appended before a superblock knows the checkpoint.
        let unknown = self.epoch > self.known.epoch;
        match self.kinds(end).0 {
            // Copy A is written first: the page was never durable.
            [_, Kind::Older] => Ok(end),
            // Copy B is written only when copy A is done, which has nothing here.
            [Kind::Older, _] => Ok(end),
            // All that is committed is there.
            _ if self.is_noted() || unknown || active(Mutation::BadPageTakenForEnd) => Ok(end),
            _ => Err(self.damaged("a page is bad that may hold records", end)),
        }
    }

    /// Whether commits of this epoch are noted before they are acknowledged.
    fn is_noted(&self) -> bool {
        self.known.noted_epoch == self.epoch && !active(Mutation::NoteIgnored)
    }

    fn chosen(&self, areas: &PerArea<Pages>, end: u32) -> Chosen {
        let all = || areas.iter().flat_map(infos).map(|(_, info)| info);
        let dirty = PerArea::each(|area| areas[area].iter().flatten().any(|state| *state == PageState::Bad));
        Chosen {
            area: self.area,
            epoch: self.epoch,
            first_sequence: self.first_sequence,
            checkpoint_pages: self.checkpoint_pages,
            end,
            log_ok: PerCopy::each(|copy| (0..end).all(|page| self.kind(copy, page) == Kind::Held)),
            unfinished: false,
            unsettled: (end..self.len()).any(|page| self.kinds(page).0.contains(&Kind::Bad)),
            top_epoch: all().map(|info| info.epoch).max().unwrap_or_default(),
            top_sequence: all().map(|info| info.sequence).max().unwrap_or_default(),
            hidden: dirty[self.area.other()],
            dirty,
        }
    }
}
