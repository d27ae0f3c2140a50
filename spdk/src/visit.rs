//! Visiting the channels of a bdev, each on its own thread.

use std::{
    ffi::{c_int, c_void},
    future::Future,
    pin::Pin,
};

use spdk_sys as sys;

use crate::{Bdev, bdev::channel_of, callback, thread};

/// What [`visit_channels`] does on each thread.
type Visit<B> = dyn Fn(&<B as Bdev>::Channel) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync;

/// Calls `visit` on every thread that has a channel of the bdev, with that channel, one thread after the other, and waits for
/// the future that it returns there.
///
/// # Safety
/// `io_device` is a bdev `B`'s, is registered, and stays so until all have been visited.
pub(crate) unsafe fn visit_channels<B: Bdev, F: Future<Output = ()> + 'static>(
    io_device: *mut c_void,
    visit: impl Fn(&B::Channel) -> F + Send + Sync + 'static,
) -> impl Future<Output = ()> + 'static {
    struct Round<B: Bdev> {
        visit: Box<Visit<B>>,
        over: *mut c_void,
    }
    /// # Safety
    /// SPDK passes an iterator with the round made below, which lives until `over`, on the channel's thread.
    unsafe extern "C" fn next<B: Bdev>(iter: *mut sys::spdk_io_channel_iter) {
        // SAFETY: the caller vouches for the iterator, and `over` has not been called.
        let visited = unsafe {
            let round = sys::spdk_io_channel_iter_get_ctx(iter).cast::<Round<B>>();
            ((*round).visit)(channel_of::<B>(sys::spdk_io_channel_iter_get_channel(iter)))
        };
        thread::spawn(async move {
            visited.await;
            // SAFETY: continued once, on the channel's thread.
            unsafe { sys::spdk_for_each_channel_continue(iter, 0) };
        });
    }
    /// # Safety
    /// SPDK calls it once, after the last visit, with the round made below.
    unsafe extern "C" fn over<B: Bdev>(iter: *mut sys::spdk_io_channel_iter, _status: c_int) {
        // SAFETY: the caller vouches for the round.
        unsafe {
            let round = Box::from_raw(sys::spdk_io_channel_iter_get_ctx(iter).cast::<Round<B>>());
            callback::answer(round.over, ());
        }
    }
    let (arg, answered) = callback::argument::<()>();
    let round = Round::<B> { visit: Box::new(move |channel| Box::pin(visit(channel))), over: arg };
    // SAFETY: the caller vouches for the io_device.
    unsafe {
        let round = Box::into_raw(Box::new(round)).cast();
        sys::spdk_for_each_channel(io_device, Some(next::<B>), round, Some(over::<B>));
    }
    // An error means that the sender has gone, as it does with SPDK itself.
    async move { _ = answered.await }
}
