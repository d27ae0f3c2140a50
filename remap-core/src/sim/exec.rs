//! A deterministic executor on one thread, and the [`Env`] that runs on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::device::Env;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Which tasks can go on, in the order in which they were woken.
type Ready = Arc<Mutex<VecDeque<u64>>>;

struct TaskWaker {
    id: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.id) {
            ready.push_back(self.id);
        }
    }
}

#[derive(Default)]
struct Inner {
    tasks: RefCell<BTreeMap<u64, Task>>,
    next: Cell<u64>,
    ready: Ready,
    now: Cell<Duration>,
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
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        self.0.tasks.borrow_mut().insert(id, Box::pin(task));
        Arc::new(TaskWaker { id, ready: Arc::clone(&self.0.ready) }).wake();
    }

    /// Runs until no task can go on.
    pub fn run(&self) {
        while let Some(id) = self.next_ready() {
            // Taken out meanwhile, so that the task can spawn others.
            let Some(mut task) = self.0.tasks.borrow_mut().remove(&id) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.0.ready) }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.0.tasks.borrow_mut().insert(id, task);
            }
        }
    }

    fn next_ready(&self) -> Option<u64> {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
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
    }

    /// Lets time go by.
    pub fn advance(&self, by: Duration) {
        self.0.now.set(self.0.now.get() + by);
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
