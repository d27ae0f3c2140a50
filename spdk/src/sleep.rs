//! Waiting for time to pass on an SPDK thread, by a timed poller. For everything that is not the hot path.

use std::{
    ffi::{c_int, c_void},
    ptr::{self, NonNull},
    time::Duration,
};

use futures_channel::oneshot;
use spdk_sys as sys;

/// The poller did something.
const POLLER_BUSY: c_int = sys::SPDK_POLLER_BUSY as c_int;

/// What a poller has while it waits.
struct Waiter {
    /// NULL when it is not registered, or not any more.
    poller: *mut sys::spdk_poller,
    answer: Option<oneshot::Sender<()>>,
}

/// A waiter whose poller runs at most once, and not at all once this is dropped. It is not `Send`: pollers belong to the
/// thread that registers them.
struct Timer(NonNull<Waiter>);

impl Timer {
    /// A timer of `time` on the current thread, which sends to `answer`; None where there is no memory for a poller.
    fn start(time: Duration, answer: oneshot::Sender<()>) -> Option<Timer> {
        // A period of 0 would be a poller without a timer, which is as good as one of 1 us.
        let period = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let waiter = Box::leak(Box::new(Waiter { poller: ptr::null_mut(), answer: Some(answer) }));
        let timer = Timer(NonNull::from(waiter));
        let waiter = timer.0.as_ptr();
        // SAFETY: the waiter lives as long as the timer, which unregisters the poller first; the name is a 'static C string.
        // The poller does not run before its handle is stored, as it runs on this thread.
        unsafe {
            (*waiter).poller = sys::spdk_poller_register_named(Some(over), waiter.cast(), period, c"sleep".as_ptr());
            (!(*waiter).poller.is_null()).then_some(timer)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let waiter = self.0.as_ptr();
        // SAFETY: this is the thread of the poller, as the timer is not Send; a NULL handle is left alone. Once
        // unregistered the poller never runs again, so that nobody has the waiter any more: the box is taken back once.
        unsafe {
            sys::spdk_poller_unregister(&raw mut (*waiter).poller);
            drop(Box::from_raw(waiter));
        }
    }
}

/// # Safety
/// SPDK calls it with a waiter whose timer exists: the poller is unregistered with it.
unsafe extern "C" fn over(arg: *mut c_void) -> c_int {
    let waiter = arg.cast::<Waiter>();
    // SAFETY: the caller vouches for the waiter. Unregistering sets the handle to NULL.
    let answer = unsafe {
        sys::spdk_poller_unregister(&raw mut (*waiter).poller);
        (*waiter).answer.take()
    };
    // Last, and with nothing borrowed: whoever is woken may drop the timer.
    if let Some(answer) = answer {
        // An error means that nobody waits any more.
        let _ = answer.send(());
    }
    POLLER_BUSY
}

/// Resolves after `time` (rounded up to microseconds), counted from the first poll, on an SPDK thread. When the future is
/// dropped, its poller goes at once. Resolves at once where there is no memory for a poller.
pub async fn sleep(time: Duration) {
    let (answer, answered) = oneshot::channel();
    let Some(_timer) = Timer::start(time, answer) else {
        log::error!("no memory for a poller: {time:?} are not waited for");
        return;
    };
    // The timer, and the sender in it, goes after this.
    let _ = answered.await;
}
