//! SPDK threads: messages, a small executor for everything that is not the hot path, and values bound to one thread.

use std::{
    cell::UnsafeCell, ffi::c_void, future::Future, mem::ManuallyDrop, ptr::NonNull, sync::Arc, task::Poll,
    time::Duration,
};

use async_task::Runnable;
use futures_channel::oneshot;
use spdk_sys as sys;

use crate::Errno;

/// A handle to an SPDK thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread(NonNull<sys::spdk_thread>);

// SAFETY: the handle is only compared and passed to spdk_thread_send_msg, which may be called from any thread.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

impl Thread {
    /// The SPDK thread that runs now; None outside of SPDK threads.
    pub fn current() -> Option<Thread> {
        // SAFETY: no preconditions.
        NonNull::new(unsafe { sys::spdk_get_thread() }).map(Thread)
    }

    /// The app thread, on which SPDK's RPC and examine handlers run; None before SPDK has started.
    pub fn app() -> Option<Thread> {
        // SAFETY: no preconditions.
        NonNull::new(unsafe { sys::spdk_thread_get_app_thread() }).map(Thread)
    }

    /// Whether this is the thread that runs now.
    pub fn is_current(self) -> bool {
        Thread::current() == Some(self)
    }

    /// Runs `work` on this thread, later. When the message cannot be sent, `work` is dropped here.
    pub fn send(self, work: impl FnOnce() + Send + 'static) -> Result<(), Errno> {
        self.send_local(work)
    }

    /// As `send`, for work that is not `Send`: the caller sees to it that it may run and be dropped over there.
    pub(crate) fn send_local<F: FnOnce() + 'static>(self, work: F) -> Result<(), Errno> {
        /// # Safety
        /// SPDK calls it once, with the box that was leaked below.
        unsafe extern "C" fn run<F: FnOnce()>(arg: *mut c_void) {
            // SAFETY: the caller vouches for the box.
            let work = unsafe { Box::from_raw(arg.cast::<F>()) };
            work();
        }
        let work = Box::into_raw(Box::new(work));
        // SAFETY: the function matches the argument's type; on failure it is never called.
        let rc = unsafe { sys::spdk_thread_send_msg(self.0.as_ptr(), Some(run::<F>), work.cast()) };
        Errno::check(rc).map(|_| ()).inspect_err(|_| {
            // SAFETY: the message was not sent, so that the box is still ours.
            drop(unsafe { Box::from_raw(work) });
        })
    }

    /// Runs the future that `make` returns on this thread; resolves on the calling thread to what it returned,
    /// or to None when the thread has gone.
    pub async fn call<R, F>(self, make: impl FnOnce() -> F + Send + 'static) -> Option<R>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.send(move || {
            spawn(async move {
                // The caller may have gone: then nobody waits for the answer.
                let _ = answer.send(make().await);
            });
        })
        .ok()?;
        answered.await.ok()
    }
}

/// Runs `future` on the current SPDK thread, which polls it from messages. Must be called on an SPDK thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let Some(home) = Thread::current() else {
        log::error!("a task was started outside of SPDK's threads: it is dropped");
        return;
    };
    let schedule = move |runnable: Runnable| {
        /// # Safety
        /// SPDK calls it once, with the task that was leaked below.
        unsafe extern "C" fn run(arg: *mut c_void) {
            if let Some(raw) = NonNull::new(arg.cast()) {
                // SAFETY: the caller vouches for the task.
                unsafe { Runnable::<()>::from_raw(raw) }.run();
            }
        }
        let raw = runnable.into_raw();
        // SAFETY: sending is allowed from any thread. When it fails (the thread has exited) the task leaks: it cannot be
        // run any more, and may not be dropped on another thread.
        let rc = unsafe { sys::spdk_thread_send_msg(home.0.as_ptr(), Some(run), raw.as_ptr().cast()) };
        if rc != 0 {
            log::error!("a task could not be scheduled on its thread: {}", rc);
        }
    };
    // SAFETY: the future and the schedule function are 'static. The future is not Send, but it is polled and dropped
    // only inside `run`, on the thread `home`: async-task schedules a last run to drop a future whose wakers are gone.
    let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
    task.detach();
    runnable.schedule();
}

/// Lets the thread's other work run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// A value that lives on one SPDK thread; clones refer to the same value. The handle may be sent around, the value is
/// touched, and at the end dropped, on its own thread only.
pub struct Bound<T: 'static>(Arc<BoundInner<T>>);

struct BoundInner<T: 'static> {
    home: Thread,
    value: ManuallyDrop<T>,
}

// SAFETY: other threads can reach the value only through `get` and `call`, which check or change to the home thread, and
// Drop sends it home.
unsafe impl<T> Send for BoundInner<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for BoundInner<T> {}

impl<T> Clone for Bound<T> {
    fn clone(&self) -> Self {
        Bound(Arc::clone(&self.0))
    }
}

impl<T: 'static> Bound<T> {
    /// Binds `value` to the current SPDK thread; None outside of SPDK's threads.
    pub fn new(value: T) -> Option<Bound<T>> {
        let home = Thread::current()?;
        Some(Bound(Arc::new(BoundInner { home, value: ManuallyDrop::new(value) })))
    }

    /// The value, when this is its thread.
    pub fn get(&self) -> Option<&T> {
        self.0.home.is_current().then_some(&*self.0.value)
    }

    /// Runs the future that `make` makes of the value on the value's thread; None when that thread has gone. Here and now, if this is
    /// that thread.
    pub async fn call<R, F>(&self, make: impl FnOnce(&T) -> F + Send + 'static) -> Option<R>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        if let Some(value) = self.get() {
            return Some(make(value).await);
        }
        let this = self.clone();
        self.0.home.call(move || make(&this.0.value)).await
    }
}

impl<T> Drop for BoundInner<T> {
    fn drop(&mut self) {
        // SAFETY: taken once, as this is the drop; not touched afterwards.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if self.home.is_current() {
            drop(value);
        } else if self.home.send_local(move || drop(value)).is_err() {
            // send_local dropped it here: its thread has exited, so that nothing else can touch it any more.
            log::error!("a value was dropped after its thread had gone");
        }
    }
}

/// A static that only the app thread may touch.
pub struct AppCell<T>(UnsafeCell<T>);

// SAFETY: `with` lets only the app thread in.
unsafe impl<T> Sync for AppCell<T> {}

impl<T> AppCell<T> {
    /// A cell with `value`.
    pub const fn new(value: T) -> AppCell<T> {
        AppCell(UnsafeCell::new(value))
    }

    /// Shows the value to `f`, on the app thread; None elsewhere.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let here = Thread::current()?;
        // SAFETY: only shared references are given out, and only on this one thread.
        (Some(here) == Thread::app()).then(|| f(unsafe { &*self.0.get() }))
    }
}

/// Time since an arbitrary start, never going backwards.
pub fn now() -> Duration {
    // SAFETY: no preconditions once SPDK's environment is up, which it is before any module code runs.
    let (ticks, hz) = unsafe { (sys::spdk_get_ticks(), sys::spdk_get_ticks_hz()) };
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
