//! What the committer does unasked: it makes bad copies of the metadata whole again, and notes in the superblocks how far the
//! log is committed when the set has gone quiet.

use std::time::Duration;

use super::committer::Committer;
use crate::device::{Device, Env};
use crate::error::Error;

/// So long nothing may be committed before the superblocks note what is.
const QUIET: Duration = Duration::from_secs(1);
/// The first pause after an attempt to make the copies whole that failed; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When what is due.
#[derive(Default)]
pub(super) struct Upkeep {
    /// When the copies are tried again, after an attempt that did not make all of them whole.
    retry_at: Option<Duration>,
    /// Until when no checkpoint is tried because a commit needs one, after one that no copy took.
    blocked_until: Option<Duration>,
    pause: Duration,
    /// Whether some copy is bad, so that `retry_at` is waited for.
    unsound: bool,
    /// When the superblocks are to note what is committed.
    note_at: Option<Duration>,
    /// Whether something was committed since that was set.
    fresh: bool,
}

impl Upkeep {
    /// When something is due, if anything will be.
    pub(super) fn due(&self) -> Option<Duration> {
        let retry = if self.unsound { self.retry_at } else { None };
        [retry, self.note_at].into_iter().flatten().min()
    }

    /// Whether a commit may have its checkpoint now.
    pub(super) fn may_commit(&self, now: Duration) -> bool {
        self.blocked_until.is_none_or(|at| at <= now)
    }

    /// Whether it is time to make the copies whole.
    fn may_heal(&self, now: Duration) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// A checkpoint, or superblocks, were written at `now`: to any copy, and to all.
    pub(super) fn tried(&mut self, now: Duration, any: bool, all: bool) {
        if all {
            (self.retry_at, self.blocked_until, self.pause) = (None, None, Duration::ZERO);
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.retry_at = Some(now + self.pause);
        self.blocked_until = if any { None } else { self.retry_at };
    }

    /// Something was committed.
    pub(super) fn committed(&mut self) {
        self.fresh = true;
    }
}

impl<D: Device, E: Env> Committer<D, E> {
    /// What loading found is put right before anything rests on it. If that fails it is tried again later, and the
    /// superblocks note how far the log goes, so that a page that only one copy has is missed if it is lost later, and that it ends there,
    /// so that one that was not seen now does not count if it is there later.
    ///
    /// # Errors
    /// Neither could be done; or something that was found must not be served as it is (`unsettled`).
    pub(super) async fn heal_what_was_found(&mut self, unsettled: bool) -> Result<(), Error> {
        let healed = self.checkpoint().await;
        if let Err(error) = healed {
            log::warn!("{}: not saved after loading: {error}", self.shared.name);
            self.log.still_unfinished();
            if unsettled || !self.log.note_end().await {
                return Err(error);
            }
        }
        self.observe();
        self.upkeep.unsound = !self.log.view().sound();
        Ok(())
    }

    /// After each request, and when it is time.
    pub(super) async fn see_to_the_copies(&mut self) {
        if self.shared.closed.get() {
            self.upkeep = Upkeep::default();
            return;
        }
        let now = self.shared.env.now();
        if std::mem::take(&mut self.upkeep.fresh) {
            self.upkeep.note_at = Some(now + QUIET);
        } else if self.upkeep.note_at.is_some_and(|at| at <= now) {
            self.upkeep.note_at = None;
            self.log.note_if_due().await;
        }
        // The note may have found a superblock bad.
        self.observe();
        self.heal().await;
        self.observe();
        self.upkeep.unsound = !self.log.view().sound();
    }

    /// Makes bad copies whole: a bad superblock is written again, for anything else there is a checkpoint.
    async fn heal(&mut self) {
        let view = self.log.view();
        if view.sound() || !self.upkeep.may_heal(self.shared.env.now()) {
            return;
        }
        // Where superblock A is bad, that the other one has moved to the new end of a device that has grown finds the set.
        if view.log_ok.all() && !view.unfinished && self.log.grown().is_none() {
            let any = self.log.note_committed().await;
            self.upkeep.tried(self.shared.env.now(), any, self.log.view().sound());
        } else if let Err(error) = self.checkpoint().await {
            log::debug!("{}: the copies of the metadata are still bad: {error}", self.shared.name);
            let _ = self.log.note_end().await;
        }
    }
}
