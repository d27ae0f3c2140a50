//! A deterministic executor on one thread, with a clock of its own, and the [`Env`] that runs on it.
//!
//! Tasks run in the order in which they were woken; when none can go on, the clock jumps to the next sleeper. So what the
//! tasks sleep decides the order of everything. It can stop after a number of polls, which is how a process dies.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::device::Env;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Which tasks can go on, in the order in which they were woken.
type Ready = Arc<Mutex<VecDeque<usize>>>;

struct TaskWaker {
    id: usize,
    /// Whether it is in `ready`.
    woken: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.id);
        }
    }
}

struct Slot {
    /// `None` while it is polled.
    task: Option<Task>,
    state: Arc<TaskWaker>,
    waker: Waker,
}

/// Who waits for the clock: by time, then in the order of going to sleep.
struct Sleeper {
    at: (Duration, u64),
    waker: Waker,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Sleeper) -> bool {
        self.at == other.at
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Sleeper) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Sleeper) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[derive(Default)]
struct Inner {
    /// By id; `None` for those that have ended.
    tasks: RefCell<Vec<Option<Slot>>>,
    ready: Ready,
    sleepers: RefCell<BinaryHeap<Reverse<Sleeper>>>,
    slept: Cell<u64>,
    now: Cell<Duration>,
    polls: Cell<u64>,
}

/// Runs tasks, one step at a time, on the thread that it is on. Clones are the same executor.
#[derive(Clone, Default)]
pub struct Executor(Rc<Inner>);

impl Executor {
    /// An executor without tasks, at time zero.
    #[must_use]
    pub fn new() -> Executor {
        Executor::default()
    }

    /// Adds a task; it runs when the executor does.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.tasks.borrow_mut();
        let ready = Arc::clone(&self.0.ready);
        let state = Arc::new(TaskWaker { id: tasks.len(), woken: AtomicBool::new(false), ready });
        let waker = Waker::from(Arc::clone(&state));
        state.wake_by_ref();
        tasks.push(Some(Slot { task: Some(Box::pin(task)), state, waker }));
    }

    /// Runs until no task can go on.
    pub fn run(&self) {
        while self.step() {}
    }

    /// Runs until no task can go on, or `polls` polls of tasks were done since the executor was made. True in the first case.
    pub fn run_to(&self, polls: u64) -> bool {
        while self.0.polls.get() < polls {
            if !self.step() {
                return true;
            }
        }
        false
    }

    /// Polls of tasks so far.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.0.polls.get()
    }

    /// Polls the next task, letting time go by if need be; false if there is nothing to do.
    fn step(&self) -> bool {
        let next = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(id) = next else {
            let Some(Reverse(sleeper)) = self.0.sleepers.borrow_mut().pop() else { return false };
            self.0.now.set(self.0.now.get().max(sleeper.at.0));
            sleeper.waker.wake();
            return true;
        };
        // Taken out meanwhile, so that the task can spawn others.
        let taken = self.0.tasks.borrow_mut().get_mut(id).and_then(Option::as_mut).and_then(|slot| {
            slot.state.woken.store(false, Ordering::Relaxed);
            Some((slot.task.take()?, slot.waker.clone()))
        });
        let Some((mut task, waker)) = taken else { return true };
        self.0.polls.set(self.0.polls.get() + 1);
        let pending = task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        if let Some(slot) = self.0.tasks.borrow_mut().get_mut(id) {
            match slot {
                Some(slot) if pending => slot.task = Some(task),
                _ => *slot = None,
            }
        }
        true
    }

    /// Runs `future`, and all tasks; `None` if it can never end, as after a power cut.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        self.run();
        result.borrow_mut().take()
    }

    /// Drops all tasks, as the end of a process does.
    pub fn kill(&self) {
        // Taken out first: what a task drops may look at the executor.
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        let sleepers = std::mem::take(&mut *self.0.sleepers.borrow_mut());
        drop(sleepers);
    }

    /// The time on its clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.now.get()
    }

    /// Lets time go by.
    pub fn advance(&self, by: Duration) {
        self.0.now.set(self.0.now.get() + by);
    }

    /// Waits until that much time has gone by.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let inner = Rc::clone(&self.0);
        let until = inner.now.get() + time;
        let mut asleep = false;
        std::future::poll_fn(move |context| {
            if asleep && inner.now.get() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asleep, true) {
                inner.slept.set(inner.slept.get() + 1);
                let at = (until, inner.slept.get());
                inner.sleepers.borrow_mut().push(Reverse(Sleeper { at, waker: context.waker().clone() }));
            }
            Poll::Pending
        })
    }
}

/// Lets the other tasks go on first, `times` times.
pub async fn pause(times: u32) {
    for _ in 0..times {
        let mut polled = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// The runtime of a simulated engine.
pub struct SimEnv(Executor);

impl SimEnv {
    /// The runtime that `executor` is.
    #[must_use]
    pub fn new(executor: &Executor) -> SimEnv {
        SimEnv(executor.clone())
    }
}

// SAFETY: a simulation has one thread: `Executor` and all its tasks are on it, and the table of a simulated engine is not
// given to others. No method of `Table` awaits, so none is under way when a task is polled.
unsafe impl Env for SimEnv {
    fn now(&self) -> Duration {
        self.0.0.now.get()
    }

    async fn grace(&self) {
        pause(1).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(task);
    }
}
