//! What happens to a set, told to whoever watches it, and to the log: at most once a second for each kind of thing.
//!
//! Who decides something raises it ([`Events::raise`]), on the owner thread, and is not held up. The first event of a kind is
//! told at once ([`Env::tell`]); what follows within a second is added up, and told when that is over.

mod limiter;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::select;
use uuid::Uuid;

use self::limiter::Limiter;
use crate::device::Env;
use crate::jobs::JobKind;
use crate::tasks::{Tasks, Waiters};
use crate::units::BaseLba;

/// What can happen to a set, and what there is to say of it. Of blocks, `lowest` is the first one, and `total` says how many
/// there are now.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Blocks moved to the spare, or on it from a bad block to another, or were lost and have data again. `free` spare blocks
    /// are left.
    Remapped { lowest: BaseLba, total: u64, free: u64 },
    /// Blocks became pending.
    Pending { lowest: BaseLba, total: u64 },
    /// Blocks became lost.
    Lost { lowest: BaseLba, total: u64 },
    /// Blocks live on the base again.
    Cleared { lowest: BaseLba },
    /// Spare blocks went bad.
    SpareBad { total: u64 },
    /// One spare block in ten is left, or none.
    SpareLow { free: u64, total: u64 },
    /// Copies of the metadata are bad: their names.
    Degraded { bad: String },
    /// All copies of the metadata are whole again.
    Healed,
    /// The storm brake is on: more than `limit` blocks were to be relocated within its time.
    Tripped { limit: u64 },
    /// A job has done all that it was to do.
    JobDone { job: JobKind, blocks: u64 },
    /// A job has failed.
    JobFailed { job: JobKind, blocks: u64, error: String },
    /// The set does not come online, as there are several, or several spares of it, for one base.
    Conflict { set: Uuid, base: Uuid, claims: u64 },
}

impl What {
    /// The names of all kinds.
    pub const NAMES: [&str; 12] = [
        "remapped",
        "pending",
        "lost",
        "cleared",
        "spare_bad",
        "spare_low",
        "degraded",
        "healed",
        "tripped",
        "job_done",
        "job_failed",
        "conflict",
    ];

    /// The name of its kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().0
    }

    /// Name, what the log says of it, and whether somebody should do something.
    fn kind(&self) -> (&'static str, &'static str, log::Level) {
        use log::Level::{Debug, Info, Warn};
        match self {
            What::Remapped { .. } => ("remapped", "remapped", Info),
            What::Pending { .. } => ("pending", "unreadable, and pending now", Info),
            What::Lost { .. } => ("lost", "lost, and cannot be read until they are written", Warn),
            What::Cleared { .. } => ("cleared", "back on the base", Info),
            What::SpareBad { .. } => ("spare_bad", "bad spare blocks", Info),
            What::SpareLow { .. } => ("spare_low", "few spare blocks are left", Warn),
            What::Degraded { .. } => ("degraded", "copies of the metadata are bad", Warn),
            What::Healed => ("healed", "all copies of the metadata are whole again", Info),
            What::Tripped { .. } => ("tripped", "storm brake: nothing is relocated any more", Warn),
            What::JobDone { .. } => ("job_done", "done", Info),
            What::JobFailed { .. } => ("job_failed", "failed", Warn),
            // Who finds it says all about it.
            What::Conflict { .. } => ("conflict", "its base is claimed more than once", Debug),
        }
    }

    /// What is said of both, of which `later` is as things are now.
    fn followed_by(self, later: What) -> What {
        match (self, later) {
            (What::Remapped { lowest, .. }, What::Remapped { lowest: other, total, free }) => {
                What::Remapped { lowest: lowest.min(other), total, free }
            }
            (What::Pending { lowest, .. }, What::Pending { lowest: other, total }) => {
                What::Pending { lowest: lowest.min(other), total }
            }
            (What::Lost { lowest, .. }, What::Lost { lowest: other, total }) => {
                What::Lost { lowest: lowest.min(other), total }
            }
            (What::Cleared { lowest }, What::Cleared { lowest: other }) => What::Cleared { lowest: lowest.min(other) },
            (_, later) => later,
        }
    }
}

/// Something that happened to a set, once or several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the set.
    pub set: String,
    /// What, as it was the last time.
    pub what: What,
    /// How many blocks it was about, or how often it was, since the last event of the kind.
    pub count: u64,
}

impl fmt::Display for Event {
    /// The name of the set, and the facts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.set, Facts(self))
    }
}

struct Facts<'a>(&'a Event);

impl fmt::Display for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { what, count, .. } = self.0;
        match what {
            What::Remapped { lowest: BaseLba(lba), total, free } => {
                write!(f, "blocks={count} lba={lba} total={total} spare_free={free}")
            }
            What::Pending { lowest: BaseLba(lba), total } | What::Lost { lowest: BaseLba(lba), total } => {
                write!(f, "blocks={count} lba={lba} total={total}")
            }
            What::Cleared { lowest: BaseLba(lba) } => write!(f, "blocks={count} lba={lba}"),
            What::SpareBad { total } => write!(f, "blocks={count} total={total}"),
            What::SpareLow { free, total } => write!(f, "times={count} free={free} total={total}"),
            What::Degraded { bad } => write!(f, "times={count} bad={bad}"),
            What::Healed => write!(f, "times={count}"),
            What::Tripped { limit } => write!(f, "times={count} limit={limit}"),
            What::JobDone { job, blocks } => write!(f, "times={count} job={} blocks={blocks}", job.name()),
            What::JobFailed { job, blocks, error } => {
                write!(f, "times={count} job={} blocks={blocks} error={error}", job.name())
            }
            What::Conflict { set, base, claims } => {
                write!(f, "times={count} uuid={set} base_uuid={base} claims={claims}")
            }
        }
    }
}

/// The events of one set, on its owner thread. Clones are about the same set.
pub struct Events<E: Env>(Rc<Inner<E>>);

struct Inner<E: Env> {
    set: String,
    env: Rc<E>,
    limiter: RefCell<Limiter>,
    /// What tells those that wait, one at a time.
    timer: Tasks<E>,
    timed: Cell<bool>,
    closed: Cell<bool>,
    on_close: Waiters,
}

impl<E: Env> Clone for Events<E> {
    fn clone(&self) -> Events<E> {
        Events(Rc::clone(&self.0))
    }
}

impl<E: Env> Events<E> {
    /// The events of the set with this name; nothing has happened yet.
    #[must_use]
    pub fn new(env: &Rc<E>, set: &str) -> Events<E> {
        Events(Rc::new(Inner {
            set: set.to_owned(),
            env: Rc::clone(env),
            limiter: RefCell::default(),
            timer: Tasks::new(env),
            timed: Cell::new(false),
            closed: Cell::new(false),
            on_close: Waiters::default(),
        }))
    }

    /// This has happened, to `count` blocks or so often.
    pub fn raise(&self, what: What, count: u64) {
        let inner = &self.0;
        let passed = inner.limiter.borrow_mut().pass(inner.env.now(), what, count);
        match passed {
            Some(event) => inner.tell(event),
            None if inner.timed.replace(true) => {}
            None => inner.timer.spawn(Rc::clone(inner).tell_in_time()),
        }
    }

    /// Tells what waits, now. Nothing of this is left to do then.
    pub async fn close(&self) {
        self.0.closed.set(true);
        self.0.on_close.wake();
        self.0.timer.join().await;
    }
}

impl<E: Env> Inner<E> {
    fn tell(&self, (what, count): (What, u64)) {
        let event = Event { set: self.set.clone(), what, count };
        let (_, says, level) = event.what.kind();
        log::log!(level, "{}: {says}: {}", event.set, Facts(&event));
        self.env.tell(&event);
    }

    async fn tell_in_time(self: Rc<Self>) {
        loop {
            let Some(due) = self.limiter.borrow().due() else { break };
            let pause = pin!(self.env.sleep(due.saturating_sub(self.env.now())));
            select(pause, pin!(self.on_close.until(|| self.closed.get()))).await;
            let now = self.env.now();
            let taken = match self.closed.get() {
                true => self.limiter.borrow_mut().take_all(now),
                false => self.limiter.borrow_mut().take_due(now),
            };
            taken.into_iter().for_each(|event| self.tell(event));
        }
        self.timed.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(What, &'static str)> {
        let (lowest, job, error) = (BaseLba(5), JobKind::Add, "no spare block is left".to_owned());
        let (set, base) = (Uuid::from_u128(1), Uuid::from_u128(2));
        vec![
            (What::Remapped { lowest, total: 340, free: 14746 }, "blocks=12 lba=5 total=340 spare_free=14746"),
            (What::Pending { lowest, total: 13 }, "blocks=12 lba=5 total=13"),
            (What::Lost { lowest, total: 13 }, "blocks=12 lba=5 total=13"),
            (What::Cleared { lowest }, "blocks=12 lba=5"),
            (What::SpareBad { total: 14 }, "blocks=12 total=14"),
            (What::SpareLow { free: 10, total: 138 }, "times=12 free=10 total=138"),
            (What::Degraded { bad: "log_a,log_b".into() }, "times=12 bad=log_a,log_b"),
            (What::Healed, "times=12"),
            (What::Tripped { limit: 4096 }, "times=12 limit=4096"),
            (What::JobDone { job, blocks: 16 }, "times=12 job=add blocks=16"),
            (What::JobFailed { job, blocks: 3, error }, "times=12 job=add blocks=3 error=no spare block is left"),
            (
                What::Conflict { set, base, claims: 2 },
                "times=12 uuid=00000000-0000-0000-0000-000000000001 base_uuid=00000000-0000-0000-0000-000000000002 claims=2",
            ),
        ]
    }

    #[test]
    fn every_kind_has_its_name_and_says_its_facts() {
        assert_eq!(all().iter().map(|(what, _)| what.name()).collect::<Vec<_>>(), What::NAMES);
        for (what, facts) in all() {
            let event = Event { set: "Remap0".into(), what, count: 12 };
            assert_eq!(event.to_string(), format!("Remap0 {facts}"));
        }
    }
}
