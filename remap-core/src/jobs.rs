//! The jobs of a set: what operators have it do beside the I/O of hosts, each a task on the owner thread.
//!
//! A [`JobScope`] runs them. None is detached: whoever begins a job can wait for it, whether anybody does or not it is known
//! until it has ended, and closing the scope ends all. A job is never dropped in the middle of what it does: it is told that it
//! is cancelled, looks now and then, and ends by itself, so that nothing that it has sent or locked is left behind.
//!
//! One of a kind runs at a time. A *heavy* job goes over all of the set: one of them, of whatever kind. Others are about blocks
//! that somebody has named.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error as ThisError;

use crate::device::Env;
use crate::error::Error;
use crate::events::{Events, What};
use crate::tasks::{Tasks, Waiters};

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// All that is on the spare moves to another one.
    Migrate,
    /// Base and spare are read, to find what is bad before hosts do.
    Scrub,
    /// A known list of bad blocks is taken over.
    Import,
    /// Blocks go to the spare before they fail.
    Add,
    /// Blocks go back to the base.
    Remove,
}

impl JobKind {
    /// Its name, as operators see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            JobKind::Migrate => "migrate",
            JobKind::Scrub => "scrub",
            JobKind::Import => "import",
            JobKind::Add => "add",
            JobKind::Remove => "remove",
        }
    }

    /// Whether it goes over all of the set.
    fn is_heavy(self) -> bool {
        matches!(self, JobKind::Migrate | JobKind::Scrub)
    }

    /// Whether both may run at the same time.
    fn runs_beside(self, other: JobKind) -> bool {
        self != other && !(self.is_heavy() && other.is_heavy())
    }
}

/// Why a job did not do all that it was to do.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Stopped {
    /// Somebody has cancelled it, or it has ended with the thread that it ran on.
    #[error("it was cancelled")]
    Cancelled,
    /// It has failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What became of a job.
pub type JobOutcome = Result<(), Stopped>;

/// A job of which not all is done.
struct Running {
    kind: JobKind,
    /// By the clock of the environment.
    started: Duration,
    /// Seconds since 1970.
    started_at: u64,
    done: Cell<u64>,
    total: Cell<u64>,
    scrub: Cell<Option<ScrubCounts>>,
    /// Why it is to end.
    stop: OnceCell<Stopped>,
    on_stop: Waiters,
    outcome: OnceCell<JobOutcome>,
    on_end: Waiters,
}

impl Running {
    /// Has it end soon. The first reason counts.
    fn stop(&self, why: Stopped) {
        let _ = self.stop.set(why);
        self.on_stop.wake();
    }

    /// How it stands when it has run for `time`.
    fn status(&self, time: Duration, ended_at: Option<u64>) -> JobStatus {
        let (done, total) = (self.done.get(), self.total.get());
        let state = match self.outcome.get() {
            None if self.stop.get().is_some() => JobState::Cancelling,
            None => JobState::Running,
            Some(Ok(())) => JobState::Done,
            Some(Err(Stopped::Cancelled)) => JobState::Cancelled,
            Some(Err(Stopped::Failed(_))) => JobState::Failed,
        };
        let rate = u64::try_from(u128::from(done) * 1000 / time.as_millis().max(1)).unwrap_or(u64::MAX);
        let left = total.saturating_sub(done);
        JobStatus {
            kind: self.kind,
            state,
            error: match self.outcome.get() {
                Some(Err(Stopped::Failed(error))) => Some(error.to_string()),
                _ => None,
            },
            blocks_done: done,
            blocks_total: total,
            blocks_per_second: rate,
            started_at: self.started_at,
            ended_at,
            seconds: time.as_secs(),
            scrub: self.scrub.get(),
            remaining_seconds: (state == JobState::Running && rate > 0).then(|| left.div_ceil(rate)),
        }
    }
}

/// What a job is given to work with. It runs on when it drops this.
pub struct Job(Rc<Running>);

impl Job {
    /// There are so many blocks to be done.
    pub fn set_total(&self, blocks: u64) {
        self.0.total.set(blocks);
    }

    /// So many blocks more are done.
    pub fn advance(&self, blocks: u64) {
        self.0.done.set(self.0.done.get().saturating_add(blocks));
    }

    /// How many are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.done.get()
    }

    /// What a scrub has found so far.
    pub fn set_scrub(&self, counts: ScrubCounts) {
        self.0.scrub.set(Some(counts));
    }

    /// Whether it is to go on. To be asked wherever it can end without leaving anything undone or locked.
    ///
    /// # Errors
    /// [`Stopped::Cancelled`], or what it fails with: it is to end with this.
    pub fn go_on(&self) -> JobOutcome {
        self.0.stop.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Resolves when it is to end: for a job that waits for something which it can let go.
    pub async fn cancelled(&self) {
        self.0.on_stop.until(|| self.0.stop.get().is_some()).await;
    }
}

/// A job that was begun, for whoever wants to know what becomes of it. It runs on when this is dropped.
#[derive(Clone)]
pub struct Begun(Rc<Running>);

impl Begun {
    /// Waits for its end.
    pub async fn join(&self) -> JobOutcome {
        self.0.on_end.until(|| self.0.outcome.get().is_some()).await;
        self.0.outcome.get().cloned().unwrap_or(Err(Stopped::Cancelled))
    }

    /// Has it end soon.
    pub fn cancel(&self) {
        self.0.stop(Stopped::Cancelled);
    }
}

/// The jobs of one set, on its owner thread. What still runs when it is dropped is cancelled.
pub struct JobScope<E: Env> {
    tasks: Tasks<E>,
    jobs: Rc<Jobs<E>>,
}

struct Jobs<E: Env> {
    env: Rc<E>,
    events: Events<E>,
    closed: Cell<bool>,
    running: RefCell<Vec<Rc<Running>>>,
    /// The last one of each kind that has ended, and how it looked then, in the order of their ends.
    last: RefCell<Vec<JobStatus>>,
}

impl<E: Env> JobScope<E> {
    /// A scope without jobs; their ends are `events` of the set.
    #[must_use]
    pub fn new(env: &Rc<E>, events: &Events<E>) -> JobScope<E> {
        let jobs = Jobs {
            env: Rc::clone(env),
            events: events.clone(),
            closed: Cell::new(false),
            running: RefCell::default(),
            last: RefCell::default(),
        };
        JobScope { tasks: Tasks::new(env), jobs: Rc::new(jobs) }
    }

    /// Whether a job of this kind may begin now.
    ///
    /// # Errors
    /// [`Error::JobRuns`] if one runs that this one may not run beside; [`Error::Closed`].
    pub fn may_begin(&self, kind: JobKind) -> Result<(), Error> {
        if self.jobs.closed.get() {
            return Err(Error::Closed);
        }
        match self.jobs.running.borrow().iter().find(|other| !kind.runs_beside(other.kind)) {
            Some(other) => Err(Error::JobRuns { wanted: kind.name(), running: other.kind.name() }),
            None => Ok(()),
        }
    }

    /// Begins a job: `work`, at some later time.
    ///
    /// # Errors
    /// Those of [`JobScope::may_begin`].
    pub fn begin<F>(&self, kind: JobKind, work: impl FnOnce(Job) -> F) -> Result<Begun, Error>
    where
        F: Future<Output = JobOutcome> + 'static,
    {
        self.may_begin(kind)?;
        let running = Rc::new(Running {
            kind,
            started: self.jobs.env.now(),
            started_at: self.jobs.env.unix_time().as_secs(),
            done: Cell::new(0),
            total: Cell::new(0),
            scrub: Cell::new(None),
            stop: OnceCell::new(),
            on_stop: Waiters::default(),
            outcome: OnceCell::new(),
            on_end: Waiters::default(),
        });
        self.jobs.running.borrow_mut().push(Rc::clone(&running));
        let ending = Ending { jobs: Rc::clone(&self.jobs), job: Rc::clone(&running) };
        let work = work(Job(Rc::clone(&running)));
        self.tasks.spawn(async move { ending.end(work.await) });
        Ok(Begun(running))
    }

    /// Has the job of this kind end soon; twice is as once.
    ///
    /// # Errors
    /// [`Error::NoJob`] if none runs.
    pub fn cancel(&self, kind: JobKind) -> Result<(), Error> {
        self.stop(kind, Stopped::Cancelled)
    }

    /// Has the job of this kind end soon, as failed with `why`.
    ///
    /// # Errors
    /// [`Error::NoJob`] if none runs.
    pub fn fail(&self, kind: JobKind, why: Error) -> Result<(), Error> {
        self.stop(kind, Stopped::Failed(why))
    }

    fn stop(&self, kind: JobKind, why: Stopped) -> Result<(), Error> {
        let running = self.jobs.running.borrow();
        let job = running.iter().find(|job| job.kind == kind).ok_or(Error::NoJob { kind: kind.name() })?;
        job.stop(why);
        Ok(())
    }

    /// Whether jobs end because the set does.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.jobs.closed.get()
    }

    /// Resolves when jobs end because the set does: for a job that may let go of nothing before.
    pub async fn closing(&self, job: &Job) {
        job.0.on_stop.until(|| self.jobs.closed.get()).await;
    }

    /// Cancels all jobs, begins none any more, and waits until all have ended.
    pub async fn close(&self) {
        self.jobs.closed.set(true);
        self.jobs.cancel_all();
        self.tasks.join().await;
    }

    /// The jobs that run, in the order of their beginnings, and the last one of each kind that has ended.
    #[must_use]
    pub fn status(&self) -> Vec<JobStatus> {
        let now = self.jobs.env.now();
        let running = self.jobs.running.borrow();
        let running = running.iter().map(|job| job.status(now.saturating_sub(job.started), None));
        running.chain(self.jobs.last.borrow().iter().cloned()).collect()
    }
}

impl<E: Env> Drop for JobScope<E> {
    fn drop(&mut self) {
        self.jobs.cancel_all();
    }
}

impl<E: Env> Jobs<E> {
    fn cancel_all(&self) {
        self.running.borrow().iter().for_each(|job| job.stop(Stopped::Cancelled));
    }
}

/// A job ends, at the latest when this is dropped.
struct Ending<E: Env> {
    jobs: Rc<Jobs<E>>,
    job: Rc<Running>,
}

impl<E: Env> Ending<E> {
    fn end(self, outcome: JobOutcome) {
        // It is the first: the other is what the drop of this says.
        let _ = self.job.outcome.set(outcome);
    }
}

impl<E: Env> Drop for Ending<E> {
    fn drop(&mut self) {
        let (jobs, job) = (&self.jobs, &self.job);
        let _ = job.outcome.get_or_init(|| Err(Stopped::Cancelled));
        jobs.running.borrow_mut().retain(|other| !Rc::ptr_eq(other, job));
        let took = jobs.env.now().saturating_sub(job.started);
        let status = job.status(took, Some(jobs.env.unix_time().as_secs()));
        let (kind, blocks) = (status.kind, status.blocks_done);
        match (status.state, &status.error) {
            (JobState::Done, _) => jobs.events.raise(What::JobDone { job: kind, blocks }, 1),
            (JobState::Failed, Some(error)) => {
                jobs.events.raise(What::JobFailed { job: kind, blocks, error: error.clone() }, 1);
            }
            // Somebody wanted that.
            _ => {}
        }
        {
            let last = &mut *jobs.last.borrow_mut();
            last.retain(|other| other.kind != kind);
            last.push(status);
        }
        job.on_end.wake();
    }
}

/// What a job does, or what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It runs.
    Running,
    /// It was cancelled, and has not ended yet.
    Cancelling,
    /// All is done.
    Done,
    /// It was cancelled, and has ended.
    Cancelled,
    /// It has failed.
    Failed,
}

/// How a job stands, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// What it is for.
    pub kind: JobKind,
    /// How it stands.
    pub state: JobState,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Blocks that are done.
    pub blocks_done: u64,
    /// Blocks that there are to be done; 0 if that is not known yet.
    pub blocks_total: u64,
    /// Blocks done a second since it was started.
    pub blocks_per_second: u64,
    /// When it was started, in seconds since 1970 UTC.
    pub started_at: u64,
    /// When it ended, in seconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// How long it has run, or ran.
    pub seconds: u64,
    /// How long it will still run at this rate, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
    /// Of a scrub: what it has found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubCounts>,
}

/// What a scrub has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScrubCounts {
    /// 10^6 bytes a second at most.
    pub max_mbps: u32,
    /// Blocks that could be read where they live.
    pub blocks_read: u64,
    /// Blocks of the base that cannot be read, and were not known to be so.
    pub unreadable: u64,
    /// Pending blocks that could be read again, and were copied to the spare.
    pub rescued: u64,
    /// Remapped blocks that cannot be read on the spare.
    pub spare_unreadable: u64,
    /// Pages of superblocks and log that were checked, in all copies.
    pub metadata_pages: u64,
    /// Those that were not what they should be.
    pub metadata_bad: u64,
}
