//! Group commit: the one place where the mapping changes.
//!
//! Requests queue up; whoever gets the committer takes the whole queue, decides each request by the state at this moment,
//! writes the records in as few pages as they fit, publishes, and answers all.
//!
//! ```text
//! decide ─> flush data ─> log, copy A ─> flush ─> copy B ─> flush ─> publish ─> answer
//! ```
//!
//! **In doubt.** If no copy took a page, it may be on the medium or not, and a crash now would decide it. So the blocks in
//! it are put in memory into a state in which no write of them can be acknowledged without a commit, and no commit is made
//! before a checkpoint under a new epoch has made the page void: what was on the base becomes pending, what was on the
//! spare becomes lost (its reads fail until then). That checkpoint says what was true before, and so does the table then.

use std::collections::{BTreeMap, HashMap};

use futures_channel::oneshot;

use super::Engine;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::Record;
use crate::mutation::{Mutation, active};
use crate::owner::{Committed, Move, Refused};
use crate::remap_log::{AppendError, Log, Saved, checkpoint_records};
use crate::table::{Change, Mapping};
use crate::units::{BaseLba, SpareIndex};

/// What is asked of the committer.
pub(super) enum Request {
    Commit(Vec<Move>),
    Pending(Vec<BaseLba>),
    /// The spare block is bad, and holds nothing.
    Bad(SpareIndex),
}

type Answer = Result<Vec<Committed>, Refused>;

/// A request that waits.
pub(super) struct Queued {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// The right to write to the log and to publish.
pub(super) struct Committer<D: Device> {
    pub(super) log: Log<D>,
    /// What is true of the blocks whose mapping is in doubt; the table holds something safer.
    in_doubt: BTreeMap<BaseLba, Option<Mapping>>,
}

impl<D: Device> Committer<D> {
    pub(super) fn new(log: Log<D>) -> Committer<D> {
        Committer { log, in_doubt: BTreeMap::new() }
    }

    /// Nothing is in doubt any more: the table was made anew.
    pub(super) fn forget_doubts(&mut self) {
        self.in_doubt.clear();
    }
}

/// A log page that is to be written, and what it means.
#[derive(Default)]
struct Page {
    records: Vec<Record>,
    /// What blocks become with it.
    changes: Vec<(BaseLba, Mapping)>,
    /// Spare blocks that go out of use with it.
    bad: Vec<SpareIndex>,
}

/// What a batch of requests comes to.
#[derive(Default)]
struct Batch {
    pages: Vec<Page>,
    /// What blocks become with the pages so far.
    decided: HashMap<BaseLba, Mapping>,
    /// How many blocks become pending.
    fresh_pending: u64,
    /// By request: the answer if its pages become durable, and how many of the pages those are.
    outcomes: Vec<(Answer, usize)>,
}

impl Batch {
    /// Adds records that belong together, and the change that they make, to the last page or, if that is full with
    /// `capacity` records, to a new one.
    fn add(&mut self, capacity: usize, change: Option<(BaseLba, Mapping)>, records: &[Record]) -> &mut Page {
        if self.pages.last().is_none_or(|page| page.records.len() + records.len() > capacity) {
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

impl<D: Device, E: Env> Engine<D, E> {
    /// Has `request` decided and made durable, together with whatever else waits.
    pub(super) async fn submit(&self, request: Request) -> Answer {
        let (answer, outcome) = oneshot::channel();
        self.state.borrow_mut().queue.push(Queued { request, answer });
        let mut committer = self.committer.lock().await;
        let batch = std::mem::take(&mut self.state.borrow_mut().queue);
        // Empty if another one, that had the committer before, took ours along.
        if !batch.is_empty() {
            self.run(&mut committer, batch).await;
            self.log.set(committer.log.view());
        }
        drop(committer);
        outcome.await.unwrap_or(Err(Refused::Closed))
    }

    async fn run(&self, committer: &mut Committer<D>, queued: Vec<Queued>) {
        if self.closed.get() {
            return self.refuse(queued, Refused::Closed);
        }
        // Before anything is decided: it settles what is in doubt.
        if committer.log.needs_checkpoint() && self.checkpoint(committer).await.is_err() {
            return self.refuse(queued, Refused::LogFailed);
        }
        let batch = self.decide(&queued, committer.log.page_capacity());
        let mut durable = 0;
        for page in &batch.pages {
            if committer.log.needs_checkpoint() && self.checkpoint(committer).await.is_err() {
                break;
            }
            if active(Mutation::PublishBeforeCommit) {
                self.take_effect(page);
            }
            match committer.log.append(&page.records).await {
                Ok(()) => self.take_effect(page),
                Err(AppendError::NotWritten) => break,
                Err(AppendError::InDoubt) => {
                    self.doubt(committer, page);
                    break;
                }
            }
            durable += 1;
        }
        let mut failed = Vec::new();
        for (queued, (answer, pages)) in queued.into_iter().zip(batch.outcomes) {
            if pages > durable {
                failed.push(queued);
                continue;
            }
            self.give_back(&queued.request);
            // Nobody listens any more if the caller is gone; the mapping holds all the same.
            let _ = queued.answer.send(answer);
        }
        self.refuse(failed, Refused::LogFailed);
    }

    /// Answers all with `why`, and takes their reservations back.
    fn refuse(&self, queued: Vec<Queued>, why: Refused) {
        for queued in queued {
            self.give_back(&queued.request);
            let _ = queued.answer.send(Err(why));
        }
    }

    /// Takes those reservations of the request back that were not used.
    fn give_back(&self, request: &Request) {
        if let Request::Commit(moves) = request {
            let allocator = &mut self.state.borrow_mut().allocator;
            moves.iter().for_each(|one| allocator.release(one.to));
        }
    }

    /// Decides what becomes of each block, by the table and by what was decided before in the same batch.
    fn decide(&self, queued: &[Queued], capacity: usize) -> Batch {
        let mut batch = Batch::default();
        for one in queued {
            let answer = match &one.request {
                Request::Commit(moves) => {
                    moves.iter().map(|one| self.decide_move(*one, capacity, &mut batch)).collect()
                }
                Request::Pending(blocks) => {
                    blocks.iter().for_each(|lba| self.decide_pending(*lba, capacity, &mut batch));
                    Ok(Vec::new())
                }
                Request::Bad(spare) => {
                    batch.add(capacity, None, &[Record::BadSpare { spare: *spare, count: 1 }]);
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
        batch.decided.get(&lba).copied().or_else(|| self.table.mapping(lba))
    }

    fn decide_move(&self, Move { lba, to }: Move, capacity: usize, batch: &mut Batch) -> Result<Committed, Refused> {
        let reservation = self.state.borrow().allocator.reservation(to);
        let replaces = |at| reservation.is_some_and(|reservation| reservation.replaces == Some(at));
        let remap = Record::Remap { lba, spare: to, count: 1 };
        let change = Some((lba, Mapping::Spare(to)));
        match self.now(lba, batch) {
            Some(Mapping::Spare(at)) if at == to => {}
            // A lost block was written where it belongs.
            Some(Mapping::Lost(at)) if at == to => {
                batch.add(capacity, change, &[remap]);
            }
            // The old place is bad: it goes out of use with the record that moves the data away.
            Some(Mapping::Spare(at) | Mapping::Lost(at)) if replaces(at) => {
                let bad = Record::BadSpare { spare: at, count: 1 };
                batch.add(capacity, change, &[remap, bad]).bad.push(at);
            }
            Some(Mapping::Spare(at) | Mapping::Lost(at)) => return Ok(Committed::Elsewhere(at)),
            Some(Mapping::Pending) | None if reservation.is_none() => return Err(Refused::Closed),
            Some(Mapping::Pending) | None => {
                batch.add(capacity, change, &[remap]);
            }
        }
        Ok(Committed::Done)
    }

    fn decide_pending(&self, lba: BaseLba, capacity: usize, batch: &mut Batch) {
        if self.now(lba, batch).is_some() {
            return;
        }
        let pending = self.state.borrow().writer.counts().pending + batch.fresh_pending;
        if pending >= self.layout.pending_limit() {
            self.counters.pending_skipped.add(1);
            return;
        }
        batch.fresh_pending += 1;
        batch.add(capacity, Some((lba, Mapping::Pending)), &[Record::Pending { lba, count: 1 }]);
    }

    /// The page is durable: what it says is so from now on.
    fn take_effect(&self, page: &Page) {
        {
            let allocator = &mut self.state.borrow_mut().allocator;
            page.changes.iter().filter_map(|change| change.1.spare()).for_each(|spare| allocator.set_used(spare));
            page.bad.iter().for_each(|spare| allocator.set_bad(*spare));
        }
        self.publish(page.changes.iter().map(|(lba, to)| Change { lba: *lba, to: Some(*to) }).collect());
        let first = page.changes.iter().map(|(lba, _)| lba.0).min();
        let pending = page.changes.iter().filter(|(_, to)| *to == Mapping::Pending).count();
        if let Some(first) = first {
            let (remapped, bad) = (page.changes.len() - pending, page.bad.len());
            let counts = self.state.borrow().writer.counts();
            log::info!(
                "{}: from LBA {first} on: {remapped} blocks remapped, {pending} pending, {bad} spare blocks bad; now {} remapped, {} pending",
                self.name,
                counts.remapped,
                counts.pending
            );
        }
    }

    /// Nobody knows whether the page is durable: see the head of the module.
    fn doubt(&self, committer: &mut Committer<D>, page: &Page) {
        log::warn!("{}: log page with {} blocks is in doubt", self.name, page.changes.len());
        let mut changes = Vec::new();
        for (lba, to) in &page.changes {
            let Some(spare) = to.spare() else { continue };
            self.state.borrow_mut().allocator.set_in_doubt(spare);
            // Nothing of the page is in the table yet.
            let before = self.table.mapping(*lba);
            let safe = match before {
                None => Mapping::Pending,
                Some(Mapping::Spare(at)) => Mapping::Lost(at),
                Some(Mapping::Pending | Mapping::Lost(_)) => continue,
            };
            committer.in_doubt.insert(*lba, before);
            changes.push(Change { lba: *lba, to: Some(safe) });
        }
        self.publish(changes);
    }

    /// Writes a checkpoint of what is true, and settles what was in doubt.
    pub(super) async fn checkpoint(&self, committer: &mut Committer<D>) -> Result<Saved, Error> {
        let records = checkpoint_records(&self.table, &committer.in_doubt, self.state.borrow().allocator.bad());
        let saved = committer.log.checkpoint(&records).await?;
        let truth = std::mem::take(&mut committer.in_doubt);
        self.publish(truth.into_iter().map(|(lba, to)| Change { lba, to }).collect());
        self.state.borrow_mut().allocator.settle_in_doubt();
        Ok(saved)
    }
}
