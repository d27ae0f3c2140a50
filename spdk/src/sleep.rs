//! Waiting for time to pass on an SPDK thread, by a timed poller. For everything that is not the hot path.

use std::{
    ffi::{c_int, c_void},
    time::Duration,
};

use futures_channel::oneshot;
use spdk_sys as sys;

/// `SPDK_POLLER_BUSY` (thread.h): the poller did something.
const POLLER_BUSY: c_int = 1;

/// What a poller has while it waits.
struct Waiter {
    poller: *mut sys::spdk_poller,
    answer: Option<oneshot::Sender<()>>,
}

/// Resolves after `time` (rounded up to microseconds), on an SPDK thread. Resolves at once where there is no memory for a poller.
pub async fn sleep(time: Duration) {
    unsafe extern "C" fn over(arg: *mut c_void) -> c_int {
        let waiter = arg.cast::<Waiter>();
        // SAFETY: the waiter leaked below. The poller runs on the thread that registered it, so not before its handle is
        // stored, and, being unregistered here, never again: the box is taken back once.
        unsafe {
            sys::spdk_poller_unregister(&raw mut (*waiter).poller);
            if let Some(answer) = Box::from_raw(waiter).answer.take() {
                // The future may have been dropped: then nobody waits.
                let _ = answer.send(());
            }
        }
        POLLER_BUSY
    }
    // A period of 0 would be a poller without a timer, which is as good as one of 1 us.
    let period = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
    let (answer, answered) = oneshot::channel();
    let waiter = Box::into_raw(Box::new(Waiter { poller: std::ptr::null_mut(), answer: Some(answer) }));
    // SAFETY: the waiter lives until `over` takes it, or until it is taken back below; the name is a 'static C string.
    unsafe {
        (*waiter).poller = sys::spdk_poller_register_named(Some(over), waiter.cast(), period, c"sleep".as_ptr());
        if (*waiter).poller.is_null() {
            log::error!("no memory for a poller: {time:?} are not waited for");
            drop(Box::from_raw(waiter));
            return;
        }
    }
    // An error means that the waiter has gone, as it does with SPDK itself.
    let _ = answered.await;
}
