//! The committer: the task that has the log, and alone makes changes of the mapping durable and publishes them.
//!
//! Requests wait in a queue, first come first served; whatever waits is decided together and written in as few pages as it
//! fits (group commit). Each is answered as soon as its last page is durable.
//!
//! ```text
//! decide ─> flush data ─> log, copy A ─> flush ─> copy B ─> flush ─> publish ─> answer
//! ```
//!
//! **In doubt.** If no copy took a page, it may be on the medium or not, and a crash now would decide it. So the blocks in
//! it are put in memory into a state in which no write of them can be acknowledged without a commit, and no commit is made
//! before a checkpoint under a new epoch has made the page void. What was on the base becomes pending, and so does what was
//! to be on the base again (its data is in both places); what was on the spare and was to move there becomes lost (its
//! reads fail until then). That checkpoint says what was true before, and so does the table then.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::mpsc::UnboundedReceiver;
use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use smallvec::smallvec;

use super::batch::{Answer, Asked, Few, Page};
use super::check::{Checked, Part};
use super::report::{RestoreReport, SaveReport};
use super::switch::{SwitchTo, Switched};
use super::upkeep::Upkeep;
use super::{Shared, Times};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::record::RawRecord;
use crate::format::{ScrubPosition, Superblock};
use crate::mutation::{Mutation, active};
use crate::owner::Refused;
use crate::pace::Pace;
use crate::remap_log::{AppendError, Log, Records, Saved};
use crate::table::{Change, Mapping};
use crate::units::BaseLba;

/// Blocks that are decided on together, at most, unless one request is about more.
const BATCH_BLOCKS: usize = 4096;

/// What is asked of the committer, and where the answer goes.
pub(super) enum Request<D: Device, E: Env> {
    Change(Asked, oneshot::Sender<Answer>),
    Save(oneshot::Sender<Result<SaveReport, Error>>),
    /// Some copies of the metadata are to be read, and healed.
    Check(Part, oneshot::Sender<Result<Checked, Error>>),
    /// Where a scrub goes on; whether that is to be durable now, or with the next superblock.
    Scrub {
        at: Option<ScrubPosition>,
        durable: bool,
        answer: oneshot::Sender<()>,
    },
    Restore {
        dry_run: bool,
        answer: oneshot::Sender<Result<RestoreReport, Error>>,
    },
    Wipe {
        force: bool,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    /// What the superblocks of the spare in force say.
    Superblock(oneshot::Sender<Superblock>),
    Switch(SwitchTo<D, E>, oneshot::Sender<Result<Switched<D, E>, Error>>),
    Grow {
        blocks: u64,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    SpareGone(oneshot::Sender<bool>),
    SpareBack(oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

/// A change that was decided on: it is answered when its pages are durable.
struct Decided {
    asked: Asked,
    to: oneshot::Sender<Answer>,
    answer: Answer,
    /// How many pages of the batch that takes.
    pages: usize,
}

/// Why the committer goes on.
enum Wake<D: Device, E: Env> {
    Asked(Request<D, E>),
    /// Something may be due.
    Time,
}

type Timer = (Duration, Pin<Box<dyn Future<Output = ()>>>);

pub(super) struct Committer<D: Device, E: Env> {
    pub(super) shared: Rc<Shared<E>>,
    pub(super) log: Log<D, E>,
    pub(super) upkeep: Upkeep,
    /// What is true of the blocks whose mapping is in doubt; the table holds something safer.
    in_doubt: BTreeMap<BaseLba, Option<Mapping>>,
    requests: UnboundedReceiver<Request<D, E>>,
    /// The next request, if it was looked at already.
    ahead: Option<Request<D, E>>,
    timer: Option<Timer>,
}

impl<D: Device, E: Env> Committer<D, E> {
    pub(super) fn new(
        shared: Rc<Shared<E>>,
        log: Log<D, E>,
        requests: UnboundedReceiver<Request<D, E>>,
    ) -> Committer<D, E> {
        Committer {
            shared,
            log,
            upkeep: Upkeep::default(),
            in_doubt: BTreeMap::new(),
            requests,
            ahead: None,
            timer: None,
        }
    }

    /// Serves until the engine is closed, or gone.
    pub(super) async fn run(mut self) {
        while let Some(wake) = self.wake().await {
            match wake {
                Wake::Asked(request) => self.serve(request).await,
                Wake::Time => {}
            }
            self.see_to_the_copies().await;
        }
    }

    /// The next request, or that something may be due; `None` when no request can come any more.
    async fn wake(&mut self) -> Option<Wake<D, E>> {
        if let Some(request) = self.ahead.take() {
            return Some(Wake::Asked(request));
        }
        let Some(due) = self.upkeep.due() else { return self.requests.next().await.map(Wake::Asked) };
        // An earlier timer does as well: nothing is due then, and another is set.
        let timer = match &mut self.timer {
            Some((at, timer)) if *at <= due => timer,
            timer => {
                let pause = due.saturating_sub(self.shared.env.now());
                &mut timer.insert((due, Box::pin(self.shared.env.sleep(pause)))).1
            }
        };
        match select(self.requests.next(), timer).await {
            Either::Left((request, _)) => request.map(Wake::Asked),
            Either::Right(_) => {
                self.timer = None;
                Some(Wake::Time)
            }
        }
    }

    async fn serve(&mut self, request: Request<D, E>) {
        // Nobody listens any more if the caller is gone; what was done holds all the same.
        match request {
            Request::Change(asked, answer) => self.serve_changes(asked, answer).await,
            Request::Save(answer) => drop(answer.send(self.save().await)),
            Request::Check(part, answer) => drop(answer.send(self.check(part).await)),
            Request::Scrub { at, durable, answer } => {
                self.note_scrub(at, durable).await;
                let _ = answer.send(());
            }
            Request::Restore { dry_run, answer } => drop(answer.send(self.restore(dry_run).await)),
            Request::Wipe { force, answer } => drop(answer.send(self.wipe(force).await)),
            Request::Superblock(answer) => drop(answer.send(self.log.superblock().clone())),
            Request::Switch(to, answer) => drop(answer.send(self.switch(to).await)),
            Request::Grow { blocks, answer } => drop(answer.send(self.grow(blocks).await)),
            Request::SpareGone(answer) => drop(answer.send(self.do_without())),
            Request::SpareBack(answer) => drop(answer.send(self.take_back().await)),
            Request::Close(answer) => {
                self.close().await;
                // What waits behind this is still answered: by a refusal.
                self.requests.close();
                let _ = answer.send(());
            }
        }
        self.observe();
    }

    /// Tells all others how the log stands.
    pub(super) fn observe(&self) {
        let (before, now) = (self.shared.log.get(), self.log.view());
        self.shared.log.set(now);
        let seconds = || Some(self.shared.env.unix_time().as_secs());
        let times = self.shared.times.get();
        match (before.sound(), now.sound()) {
            (true, false) => self.shared.times.set(Times { degraded: seconds(), ..times }),
            (false, true) => self.shared.times.set(Times { healed: seconds(), ..times }),
            _ => {}
        }
        self.shared.tell_copies(now);
        self.take_what_has_grown();
    }

    /// Serves this request and those behind it that are of the same kind.
    async fn serve_changes(&mut self, asked: Asked, answer: oneshot::Sender<Answer>) {
        let mut blocks = asked.blocks();
        let mut queued: Few<_> = smallvec![(asked, answer)];
        while blocks < BATCH_BLOCKS {
            match self.requests.try_recv() {
                Ok(Request::Change(asked, answer)) => {
                    blocks += asked.blocks();
                    queued.push((asked, answer));
                }
                Ok(other) => {
                    self.ahead = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        if self.shared.closed.get() {
            return self.refuse(queued, Refused::Closed).await;
        }
        // Before anything is decided: it settles what is in doubt.
        if !self.ready().await {
            return self.refuse(queued, Refused::LogFailed).await;
        }
        let batch = self.shared.decide(queued.iter().map(|one| &one.0), self.log.page_capacity()).await;
        let decided = queued.into_iter().zip(batch.outcomes);
        let decided = decided.map(|((asked, to), (answer, pages))| Decided { asked, to, answer, pages });
        let mut waiting = decided.peekable();
        let mut durable = 0;
        self.answer_those_done(&mut waiting, durable).await;
        for page in &batch.pages {
            if !self.write_page(page, durable).await {
                break;
            }
            durable += 1;
            self.answer_those_done(&mut waiting, durable).await;
        }
        self.refuse(waiting.map(|one| (one.asked, one.to)), Refused::LogFailed).await;
    }

    /// Answers those whose pages are durable.
    async fn answer_those_done(&self, waiting: &mut Peekable<impl Iterator<Item = Decided>>, durable: usize) {
        let enough = if active(Mutation::AnswerOnePageEarly) && durable > 0 { durable + 1 } else { durable };
        while let Some(Decided { asked, to, answer, .. }) = waiting.next_if(|one| one.pages <= enough) {
            self.give_back(&asked).await;
            // Nobody listens any more if the caller is gone; the mapping holds all the same.
            let _ = to.send(answer);
        }
    }

    /// Makes a page durable, and what it says true. False if it is not durable, as far as anybody knows.
    async fn write_page(&mut self, page: &Page, number: usize) -> bool {
        if !self.ready().await {
            return false;
        }
        if active(Mutation::PublishBeforeCommit) {
            self.take_effect(page).await;
        }
        // While the page is made and written.
        page.changes.iter().for_each(|(lba, _)| self.shared.table.fetch_region_of(*lba));
        let records: Few<RawRecord> = page.records.iter().map(|record| record.encode()).collect();
        let appended = if active(Mutation::SecondPageNotWritten) && number == 1 {
            Ok(())
        } else {
            self.log.append(&records).await
        };
        match appended {
            Ok(()) => self.take_effect(page).await,
            Err(AppendError::NotWritten) => {}
            Err(AppendError::InDoubt) => self.doubt(page),
        }
        appended.is_ok()
    }

    /// Whether a page can be appended now, after a checkpoint if one is needed first.
    async fn ready(&mut self) -> bool {
        if !self.log.needs_checkpoint() {
            return true;
        }
        self.upkeep.may_commit(self.shared.env.now()) && self.checkpoint_at(Pace::while_hosts_wait).await.is_ok()
    }

    /// Answers all with `why`, and takes their reservations back.
    async fn refuse(&self, queued: impl IntoIterator<Item = (Asked, oneshot::Sender<Answer>)>, why: Refused) {
        for (asked, answer) in queued {
            self.give_back(&asked).await;
            let _ = answer.send(Err(why));
        }
    }

    /// Takes those reservations of the request back that were not used.
    async fn give_back(&self, asked: &Asked) {
        let Asked::Commit(moves) = asked else { return };
        let mut pace = Pace::default();
        for part in moves.chunks(Pace::STRIDE) {
            {
                let allocator = &mut self.shared.state.borrow_mut().allocator;
                part.iter().for_each(|one| allocator.release(one.to));
            }
            pace.step(part.len()).await;
        }
    }

    /// The page is durable: what it says is so from now on.
    async fn take_effect(&mut self, page: &Page) {
        let mut pace = Pace::default();
        for part in page.changes.chunks(Pace::STRIDE) {
            {
                let allocator = &mut self.shared.state.borrow_mut().allocator;
                let used = part.iter().filter_map(|(_, to)| to.and_then(Mapping::spare));
                used.for_each(|spare| allocator.set_used(spare));
            }
            pace.step(part.len()).await;
        }
        page.bad.iter().for_each(|spare| self.shared.state.borrow_mut().allocator.set_bad(*spare));
        let changes = page.changes.iter().map(|(lba, to)| Change { lba: *lba, to: *to });
        self.shared.publish_page(changes.collect()).await;
        self.shared.free_when_drained(page.freed.clone());
        self.upkeep.committed();
        self.shared.tell_page(page);
    }

    /// Nobody knows whether the page is durable: see the head of the module.
    fn doubt(&mut self, page: &Page) {
        log::warn!("{}: log page with {} blocks is in doubt", self.shared.name, page.changes.len());
        let mut changes = Vec::new();
        for (lba, to) in &page.changes {
            if let Some(spare) = to.and_then(Mapping::spare) {
                self.shared.state.borrow_mut().allocator.set_in_doubt(spare);
            } else if to.is_some() {
                // To be pending is safe either way.
                continue;
            }
            // Nothing of the page is in the table yet.
            let before = self.shared.table.mapping(*lba);
            let safe = match (before, to) {
                (None, _) | (Some(Mapping::Spare(_)), None) => Mapping::Pending,
                (Some(Mapping::Spare(at)), Some(_)) => Mapping::Lost(at),
                // No write of it is acknowledged without a commit as it is.
                (Some(Mapping::Pending | Mapping::Lost(_)), _) => continue,
            };
            if active(Mutation::DoubtForgotten) {
                continue;
            }
            self.in_doubt.insert(*lba, before);
            changes.push(Change { lba: *lba, to: Some(safe) });
        }
        let told: Vec<_> = changes.iter().map(|change| (change.lba, change.to)).collect();
        self.shared.publish(changes);
        self.shared.tell_changes(&told);
    }

    /// Writes a checkpoint of what is true, and settles what was in doubt.
    pub(super) async fn checkpoint(&mut self) -> Result<Saved, Error> {
        self.checkpoint_at(Pace::default).await
    }

    async fn checkpoint_at(&mut self, pace: fn() -> Pace) -> Result<Saved, Error> {
        let bad = self.shared.state.borrow().allocator.bad().collect();
        let records = Records::of(&self.shared.table, bad).with(&self.in_doubt).at(pace);
        let saved = self.log.checkpoint(&records).await;
        let now = self.shared.env.now();
        self.upkeep.tried(now, saved.is_ok(), saved.as_ref().is_ok_and(|saved| saved.all_copies));
        let saved = saved?;
        let truth = std::mem::take(&mut self.in_doubt);
        self.shared.publish(truth.into_iter().map(|(lba, to)| Change { lba, to }).collect());
        self.shared.state.borrow_mut().allocator.settle_in_doubt();
        let times = self.shared.times.get();
        self.shared.times.set(Times { saved: Some(self.shared.env.unix_time().as_secs()), ..times });
        Ok(saved)
    }

    /// Whether the mapping of some block is in doubt.
    pub(super) fn in_doubt(&self) -> bool {
        !self.in_doubt.is_empty()
    }
}
