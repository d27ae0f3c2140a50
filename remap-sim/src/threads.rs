//! The threads of a simulated process. They are all on one executor; a call from one to another takes a while.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;
use remap_core::{Env, Event, Extent, Gate, Passed, Ranges, Side};

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
    /// The gates of the two reactors of hosts.
    gates: Rc<[Gate; 2]>,
    /// What was told, and when.
    told: Rc<RefCell<Vec<(Duration, Event)>>>,
}

/// An I/O of a host that has come in through the gate, until it is dropped.
pub(crate) struct Inside {
    gates: Rc<[Gate; 2]>,
    reactor: usize,
    side: Side,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.gates[self.reactor].leave(self.side);
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
            gates: Rc::new([Gate::new(Vec::new()), Gate::new(Vec::new())]),
            told: Rc::default(),
        }
    }

    /// Threads whose calls arrive in the order in which they were made.
    #[must_use]
    pub fn in_order(executor: &Executor) -> Threads {
        Threads::new(executor, &Random::new(0), [1; 2])
    }

    /// What the sets have told so far, and when.
    #[must_use]
    pub fn told(&self) -> Vec<(Duration, Event)> {
        self.told.borrow().clone()
    }

    /// An I/O of a host comes in; None if that was given up while it had to wait.
    pub(crate) async fn come_in(
        &self,
        reactor: usize,
        changes: Option<Extent>,
        given_up: impl Fn() -> bool,
    ) -> Option<Inside> {
        let (gates, reactor) = (Rc::clone(&self.gates), reactor % 2);
        let gate = &self.gates[reactor];
        let side = match changes {
            None => gate.enter(),
            Some(range) => loop {
                if let Some(side) = gate.enter_to_change(range) {
                    break side;
                }
                gate.wait_outside(range, &given_up).await;
                if given_up() {
                    return None;
                }
            },
        };
        Some(Inside { gates, reactor, side })
    }

    /// Lets all that wait outside look again.
    pub(crate) fn stir(&self) {
        self.gates.iter().for_each(Gate::stir);
    }

    /// A call between the owner and this reactor.
    pub(crate) async fn hop(&self, reactor: usize) {
        self.executor.sleep(Duration::from_micros(self.random.below(self.slowness[reactor % 2]))).await;
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
        for (reactor, gate) in self.gates.iter().enumerate() {
            self.hop(reactor).await;
            gate.drain().await;
        }
    }

    async fn close(&self, blocks: Ranges) {
        for (reactor, gate) in self.gates.iter().enumerate() {
            self.hop(reactor).await;
            gate.close(blocks.clone());
            gate.drain().await;
        }
    }

    async fn open(&self, blocks: Ranges) {
        for (reactor, gate) in self.gates.iter().enumerate() {
            self.hop(reactor).await;
            gate.open(&blocks);
        }
    }

    async fn passed(&self) -> Passed {
        join(self.hop(0), self.hop(1)).await;
        self.gates.iter().map(Gate::passed).fold(Passed::default(), Passed::and)
    }

    fn tell(&self, event: &Event) {
        self.told.borrow_mut().push((self.now(), event.clone()));
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }
}
