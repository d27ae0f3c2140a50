//! Tasks that are not detached: whoever begins them can wait until all of them have ended.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use futures_channel::oneshot;

use crate::device::Env;

/// Who waits until something is so.
#[derive(Default)]
pub(crate) struct Waiters(RefCell<Vec<oneshot::Sender<()>>>);

impl Waiters {
    /// Has all of them look again.
    pub(crate) fn wake(&self) {
        // An error means that it is not there any more.
        self.0.take().into_iter().for_each(|waiter| _ = waiter.send(()));
    }

    /// Resolves when it is `so`; it is looked at first, and at each [`Waiters::wake`].
    pub(crate) async fn until(&self, so: impl Fn() -> bool) {
        while !so() {
            let (waiter, woken) = oneshot::channel();
            {
                let waiters = &mut *self.0.borrow_mut();
                waiters.retain(|waiter| !waiter.is_canceled());
                waiters.push(waiter);
            }
            // An error does not occur: this has the senders.
            let _ = woken.await;
        }
    }
}

/// The tasks that somebody has begun. Clones are about the same ones.
pub(crate) struct Tasks<E> {
    env: Rc<E>,
    running: Rc<Running>,
}

#[derive(Default)]
struct Running {
    count: Cell<usize>,
    ended: Waiters,
}

/// A task that has begun, until this is dropped.
struct Task(Rc<Running>);

impl Task {
    fn begin(running: &Rc<Running>) -> Task {
        running.count.set(running.count.get() + 1);
        Task(Rc::clone(running))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.ended.wake();
    }
}

impl<E> Clone for Tasks<E> {
    fn clone(&self) -> Tasks<E> {
        Tasks { env: Rc::clone(&self.env), running: Rc::clone(&self.running) }
    }
}

impl<E: Env> Tasks<E> {
    pub(crate) fn new(env: &Rc<E>) -> Tasks<E> {
        Tasks { env: Rc::clone(env), running: Rc::default() }
    }

    /// Runs `task`, at some later time.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let running = Task::begin(&self.running);
        self.env.spawn(async move {
            task.await;
            // Also where the thread drops it before its end.
            drop(running);
        });
    }

    /// Waits until none of them runs any more.
    pub(crate) async fn join(&self) {
        self.running.ended.until(|| self.running.count.get() == 0).await;
    }
}
