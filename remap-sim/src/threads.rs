//! The threads of a simulated process. They are all on one executor; a call from one to another takes a while.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;
use remap_core::Env;

use super::executor::Executor;
use super::random::Random;

/// The first moment of a simulated process, since 1970.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// The threads of a process.
#[derive(Clone)]
pub struct Threads {
    /// What they all run on.
    pub executor: Executor,
    /// Decides how long a call takes.
    pub random: Random,
    /// The longest that it takes to and from each of the two reactors of hosts, in microseconds; with 1, calls arrive in the
    /// order in which they were made.
    pub slowness: [u64; 2],
    /// Of a hundred I/Os, how many find no structure at first, and have to wait for one.
    pub want: u64,
    /// When the process was started, since 1970.
    pub born: Duration,
    /// The I/O of hosts that is under way to the spare, by number.
    spare_io: Rc<RefCell<SpareIo>>,
}

#[derive(Default)]
struct SpareIo {
    begun: u64,
    under_way: BTreeSet<u64>,
}

/// An I/O of a host that is under way to the spare, until it is dropped.
pub(crate) struct UnderWay {
    threads: Threads,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.threads.spare_io.borrow_mut().under_way.remove(&self.number);
    }
}

impl Threads {
    /// Threads whose calls take up to `slowness` microseconds.
    #[must_use]
    pub fn new(executor: &Executor, random: &Random, slowness: [u64; 2]) -> Threads {
        Threads {
            executor: executor.clone(),
            random: random.clone(),
            slowness,
            want: 0,
            born: EPOCH,
            spare_io: Rc::default(),
        }
    }

    /// Threads whose calls arrive in the order in which they were made.
    #[must_use]
    pub fn in_order(executor: &Executor) -> Threads {
        Threads::new(executor, &Random::new(0), [1; 2])
    }

    /// An I/O of a host to the spare begins.
    pub(crate) fn begin_spare_io(&self) -> UnderWay {
        let io = &mut *self.spare_io.borrow_mut();
        io.begun += 1;
        io.under_way.insert(io.begun);
        UnderWay { threads: self.clone(), number: io.begun }
    }

    /// A call between the owner and this reactor.
    pub(crate) async fn hop(&self, reactor: usize) {
        self.executor.sleep(Duration::from_micros(self.random.below(self.slowness[reactor % 2]))).await;
    }

    /// Looks now and then, and waits until it is so.
    pub(crate) async fn until(&self, so: impl Fn() -> bool) {
        let mut pause = Duration::from_micros(5);
        while !so() {
            self.executor.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Whether an I/O finds no structure now; it has waited for one then.
    pub(crate) async fn wanted(&self) -> bool {
        let want = self.want > 0 && self.random.chance(self.want, 100);
        if want {
            self.executor.sleep(Duration::from_micros(1 + self.random.below(self.slowness[0]))).await;
        }
        want
    }
}

// SAFETY: a simulation has one OS thread, and no method of `Table` awaits, so none is under way when a task is polled.
unsafe impl Env for Threads {
    fn now(&self) -> Duration {
        self.executor.now()
    }

    fn unix_time(&self) -> Duration {
        self.born + self.executor.now()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        self.executor.sleep(time)
    }

    async fn grace(&self) {
        join(self.hop(0), self.hop(1)).await;
    }

    async fn drain(&self) {
        let last = self.spare_io.borrow().begun;
        self.until(|| self.spare_io.borrow().under_way.first().is_none_or(|first| *first > last)).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }
}
