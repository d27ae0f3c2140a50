//! A deterministic executor on one thread, with a clock of its own.
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

use cpu_time::ThreadTime;

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
    /// Whether somebody still waits.
    waits: Rc<Cell<bool>>,
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
    halted: Cell<bool>,
    /// The longest that a poll took, if somebody wants to know.
    longest: Cell<Option<Duration>>,
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

    /// From now on the time that polls take is measured: that of the processor, so that other work does not count.
    pub fn measure_polls(&self) {
        self.0.longest.set(Some(Duration::ZERO));
    }

    /// The longest that a poll took since they are measured.
    #[must_use]
    pub fn longest_poll(&self) -> Duration {
        self.0.longest.get().unwrap_or_default()
    }

    /// Runs until `enough`, or no task can go on, or as many polls of tasks were done. True in the second case.
    pub fn run_until(&self, polls: u64, enough: impl Fn() -> bool) -> bool {
        while self.0.polls.get() < polls && !enough() {
            if !self.step() {
                return true;
            }
        }
        false
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.0.tasks.borrow().iter().flatten().count()
    }

    /// Polls of tasks so far.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.0.polls.get()
    }

    /// Polls the next task, letting time go by if need be; false if there is nothing to do.
    fn step(&self) -> bool {
        if self.0.halted.get() {
            return false;
        }
        let next = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(id) = next else {
            let Some(Reverse(sleeper)) = self.0.sleepers.borrow_mut().pop() else { return false };
            if sleeper.waits.get() {
                self.0.now.set(self.0.now.get().max(sleeper.at.0));
                sleeper.waker.wake();
            }
            return true;
        };
        // Taken out meanwhile, so that the task can spawn others.
        let taken = self.0.tasks.borrow_mut().get_mut(id).and_then(Option::as_mut).and_then(|slot| {
            slot.state.woken.store(false, Ordering::Relaxed);
            Some((slot.task.take()?, slot.waker.clone()))
        });
        let Some((mut task, waker)) = taken else { return true };
        self.0.polls.set(self.0.polls.get() + 1);
        let began = self.0.longest.get().map(|longest| (ThreadTime::now(), longest));
        let pending = task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        if let Some((began, longest)) = began {
            self.0.longest.set(Some(began.elapsed().max(longest)));
        }
        if let Some(slot) = self.0.tasks.borrow_mut().get_mut(id) {
            match slot {
                Some(slot) if pending => slot.task = Some(task),
                _ => *slot = None,
            }
        }
        true
    }

    /// Runs until no task can go on, or so much time has passed.
    pub fn run_for(&self, time: Duration) {
        let until = self.now() + time;
        while self.next_moment().is_some_and(|at| at <= until) && self.step() {}
        self.0.now.set(self.now().max(until));
    }

    /// When the next task can go on, if one ever can.
    fn next_moment(&self) -> Option<Duration> {
        if !self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Some(self.now());
        }
        self.0.sleepers.borrow().peek().map(|Reverse(sleeper)| sleeper.at.0)
    }

    /// Runs `future` to its end, and all tasks meanwhile; `None` if it can never end, as after a power cut.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        while result.borrow().is_none() && self.step() {}
        result.borrow_mut().take()
    }

    /// Nothing goes on any more: the power has failed.
    pub fn halt(&self) {
        self.0.halted.set(true);
    }

    /// Drops all tasks, as the end of a process does.
    pub fn kill(&self) {
        // Taken out first: what a task drops may look at the executor, or add tasks.
        loop {
            let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
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
        let (inner, until) = (Rc::clone(&self.0), self.0.now.get() + time);
        let mut asleep: Option<Asleep> = None;
        std::future::poll_fn(move |context| {
            if asleep.is_some() && inner.now.get() >= until {
                return Poll::Ready(());
            }
            // Another task may have taken it over: then that one is woken.
            if !asleep.as_ref().is_some_and(|asleep| asleep.waker.will_wake(context.waker())) {
                inner.slept.set(inner.slept.get() + 1);
                let (at, waits, waker) = ((until, inner.slept.get()), Rc::new(Cell::new(true)), context.waker());
                let sleeper = Sleeper { at, waker: waker.clone(), waits: Rc::clone(&waits) };
                inner.sleepers.borrow_mut().push(Reverse(sleeper));
                asleep = Some(Asleep { waits, waker: waker.clone() });
            }
            Poll::Pending
        })
    }
}

/// Somebody who sleeps; when dropped, nobody needs to be woken.
struct Asleep {
    waits: Rc<Cell<bool>>,
    waker: Waker,
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.waits.set(false);
    }
}
