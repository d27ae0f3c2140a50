//! What a batch of requests comes to: the one place where it is decided what becomes of a block.
//!
//! Each request is decided by the state at this moment, and by what was decided before in the same batch. The outcome is
//! records, packed into log pages, and what is true once a page is durable. Nothing here does I/O or changes anything.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Shared;
use crate::device::Env;
use crate::format::Record;
use crate::owner::{Committed, Move, Refused};
use crate::pace::Pace;
use crate::slot::SpareBlock;
use crate::table::Mapping;
use crate::units::BaseLba;

/// A change of the mapping that is asked for.
pub(super) enum Asked {
    Commit(Vec<Move>),
    Pending(Vec<BaseLba>),
    /// The spare blocks are bad, and hold nothing.
    Bad(Vec<SpareBlock>),
    /// The blocks are simply on the base again: it holds their data, durably, and they are not written meanwhile.
    Clear(Vec<BaseLba>),
}

impl Asked {
    /// How many blocks it is about.
    pub(super) fn blocks(&self) -> usize {
        match self {
            Asked::Commit(moves) => moves.len(),
            Asked::Pending(blocks) | Asked::Clear(blocks) => blocks.len(),
            Asked::Bad(blocks) => blocks.len(),
        }
    }
}

pub(super) type Answer = Result<Vec<Committed>, Refused>;

/// What there is one of for each block: most pages are of so few that it needs no memory of its own.
pub(super) type Few<T> = SmallVec<[T; 4]>;

/// A log page that is to be written, and what it means.
#[derive(Default)]
pub(super) struct Page {
    pub(super) records: Few<Record>,
    /// What blocks become with it.
    pub(super) changes: Few<(BaseLba, Option<Mapping>)>,
    /// Spare blocks that go out of use with it.
    pub(super) bad: Vec<SpareBlock>,
    /// Spare blocks that hold nothing any more with it.
    pub(super) freed: Vec<SpareBlock>,
}

/// What a batch of requests comes to.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) pages: Vec<Page>,
    /// By request: the answer if its pages become durable, and how many of the pages those are.
    pub(super) outcomes: Vec<(Answer, usize)>,
    /// What blocks become with the pages so far.
    decided: BTreeMap<BaseLba, Option<Mapping>>,
    /// How many blocks become pending.
    fresh_pending: u64,
    /// Records that fit into a page.
    capacity: usize,
}

impl Batch {
    /// Adds records that belong together, and the change that they make, to the last page or, if that is full, to a new one.
    fn add(&mut self, change: Option<(BaseLba, Option<Mapping>)>, records: &[Record]) -> &mut Page {
        if self.pages.last().is_none_or(|page| page.records.len() + records.len() > self.capacity) {
            self.pages.push(Page::default());
        }
        let last = self.pages.len() - 1;
        let page = &mut self.pages[last];
        for record in records {
            if !page.records.last_mut().is_some_and(|last| last.extend(*record)) {
                page.records.push(*record);
            }
        }
        if let Some(change) = change {
            page.changes.push(change);
            self.decided.insert(change.0, change.1);
        }
        page
    }
}

impl<E: Env> Shared<E> {
    /// Decides what becomes of each block; a log page takes `capacity` records. Others run now and then: nothing that is decided on
    /// changes meanwhile, as the committer alone changes it, and what is reserved for a request is left to it.
    pub(super) async fn decide<'a>(&self, asked: impl Iterator<Item = &'a Asked>, capacity: usize) -> Batch {
        let mut batch = Batch { capacity, ..Batch::default() };
        let mut pace = Pace::default();
        for one in asked {
            let answer = match one {
                Asked::Commit(moves) => self.decide_moves(moves, &mut batch, &mut pace).await,
                Asked::Pending(blocks) => {
                    for lba in blocks {
                        self.decide_pending(*lba, &mut batch);
                        pace.step(1).await;
                    }
                    Ok(Vec::new())
                }
                Asked::Bad(blocks) => {
                    for spare in blocks {
                        batch.add(None, &[Record::BadSpare { spare: *spare, count: 1 }]);
                    }
                    Ok(Vec::new())
                }
                Asked::Clear(blocks) => {
                    for lba in blocks {
                        self.decide_clear(*lba, &mut batch);
                        pace.step(1).await;
                    }
                    Ok(Vec::new())
                }
            };
            // Whatever the answer says rests on the pages so far, those of others included.
            let pages = batch.pages.len();
            batch.outcomes.push((answer, pages));
        }
        batch
    }

    fn now(&self, lba: BaseLba, batch: &Batch) -> Option<Mapping> {
        batch.decided.get(&lba).copied().unwrap_or_else(|| self.table.mapping(lba))
    }

    async fn decide_moves(&self, moves: &[Move], batch: &mut Batch, pace: &mut Pace) -> Answer {
        let mut answers = Vec::with_capacity(moves.len());
        for one in moves {
            answers.push(self.decide_move(*one, batch)?);
            pace.step(1).await;
        }
        Ok(answers)
    }

    fn decide_move(&self, Move { lba, to }: Move, batch: &mut Batch) -> Result<Committed, Refused> {
        let reservation = self.state.borrow().allocator.reservation(to);
        let replaces = |at| reservation.is_some_and(|reservation| reservation.replaces == Some(at));
        let remap = Record::Remap { lba, spare: to, count: 1 };
        let change = Some((lba, Some(Mapping::Spare(to))));
        match self.now(lba, batch) {
            Some(Mapping::Spare(at)) if at == to => {}
            // A lost block was written where it belongs.
            Some(Mapping::Lost(at)) if at == to => {
                batch.add(change, &[remap]);
            }
            // The old place is bad: it goes out of use with the record that moves the data away.
            Some(Mapping::Spare(at) | Mapping::Lost(at)) if replaces(at) => {
                let bad = Record::BadSpare { spare: at, count: 1 };
                batch.add(change, &[remap, bad]).bad.push(at);
            }
            Some(Mapping::Spare(at) | Mapping::Lost(at)) => return Ok(Committed::Elsewhere(at)),
            Some(Mapping::Pending) | None if reservation.is_none() => return Err(Refused::Closed),
            Some(Mapping::Pending) | None => {
                batch.add(change, &[remap]);
            }
        }
        Ok(Committed::Done)
    }

    fn decide_pending(&self, lba: BaseLba, batch: &mut Batch) {
        if self.now(lba, batch).is_some() {
            return;
        }
        let pending = self.state.borrow().writer.counts().pending + batch.fresh_pending;
        if pending >= self.layout.get().pending_limit() {
            self.counters.pending_skipped.add(1);
            return;
        }
        batch.fresh_pending += 1;
        batch.add(Some((lba, Some(Mapping::Pending))), &[Record::Pending { lba, count: 1 }]);
    }

    fn decide_clear(&self, lba: BaseLba, batch: &mut Batch) {
        let Some(mapping) = self.now(lba, batch) else { return };
        let page = batch.add(Some((lba, None)), &[Record::Clear { lba, count: 1 }]);
        page.freed.extend(mapping.spare());
    }
}
