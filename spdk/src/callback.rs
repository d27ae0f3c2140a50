//! Answers that C code gives once, by a callback with an argument.

use std::ffi::c_void;

use futures_channel::oneshot::{self, Receiver, Sender};

/// An argument for a C callback that will [`answer`] it, and where the answer arrives.
pub(crate) fn argument<T>() -> (*mut c_void, Receiver<T>) {
    let (answer, answered) = oneshot::channel::<T>();
    (Box::into_raw(Box::new(answer)).cast(), answered)
}

/// Gives the answer. Nobody may wait for it any more: then it is dropped.
///
/// # Safety
/// `arg` came from [`argument`] with the same `T`, and is used once, here or in [`take_back`].
pub(crate) unsafe fn answer<T>(arg: *mut c_void, value: T) {
    // SAFETY: the sender that `argument` leaked, taken back once.
    let answer = unsafe { Box::from_raw(arg.cast::<Sender<T>>()) };
    let _ = answer.send(value);
}

/// Frees an argument whose callback will not be called.
///
/// # Safety
/// As for [`answer`].
pub(crate) unsafe fn take_back<T>(arg: *mut c_void) {
    // SAFETY: as in `answer`.
    drop(unsafe { Box::from_raw(arg.cast::<Sender<T>>()) });
}
