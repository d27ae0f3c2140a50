//! Success in the thread's next round, for devices that have nothing to do for an I/O. SPDK's null bdev does the same with all of
//! its I/O. What ends within its own submission costs more: the bdev layer makes a message of each.

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    mem,
    ptr::{self, NonNull},
};

use spdk_sys as sys;

use crate::{Bdev, Errno, Io, Kind};

/// Ends an I/O that was given up by its handle.
type End = unsafe fn(NonNull<sys::spdk_bdev_io>);

/// I/O of the current thread that ends in its next round. It is not `Send`: its poller belongs to the thread that made it.
pub struct NextRound(NonNull<Round>);

struct Round {
    poller: *mut sys::spdk_poller,
    /// Each with what ends it.
    waiting: RefCell<Vec<(NonNull<sys::spdk_bdev_io>, End)>>,
    /// Empty between two rounds: kept for its memory.
    ending: RefCell<Vec<(NonNull<sys::spdk_bdev_io>, End)>>,
}

impl NextRound {
    /// Rounds of the current thread.
    pub fn new() -> Result<NextRound, Errno> {
        let round = Round { poller: ptr::null_mut(), waiting: RefCell::default(), ending: RefCell::default() };
        let this = NextRound(NonNull::from(Box::leak(Box::new(round))));
        let round = this.0.as_ptr();
        // SAFETY: the round lives as long as `this`, which unregisters the poller first; the name is a 'static C string. The
        // poller does not run before its handle is stored, as it runs on this thread.
        let registered = unsafe {
            (*round).poller = sys::spdk_poller_register_named(Some(over), round.cast(), 0, c"next_round".as_ptr());
            !(*round).poller.is_null()
        };
        if registered { Ok(this) } else { Err(Errno::NOMEM) }
    }

    /// Ends `io` with success in the next round.
    pub fn succeed<B: Bdev, K: Kind>(&self, io: Io<B, K>) {
        /// # Safety
        /// It is called once, with an I/O that was given up below.
        unsafe fn end<B: Bdev, K: Kind>(raw: NonNull<sys::spdk_bdev_io>) {
            // SAFETY: the caller vouches for it. This is its thread, as neither handle is Send.
            unsafe { Io::<B, K>::from_raw(raw) }.complete(Ok(()));
        }
        // SAFETY: it lives as long as `self`.
        let round = unsafe { self.0.as_ref() };
        round.waiting.borrow_mut().push((io.into_raw(), end::<B, K>));
    }
}

impl Round {
    /// Whether there was anything to end. What comes meanwhile is for the next round.
    fn over(&self) -> bool {
        let mut ending = self.ending.borrow_mut();
        mem::swap(&mut *ending, &mut *self.waiting.borrow_mut());
        let any = !ending.is_empty();
        for (raw, end) in ending.drain(..) {
            // SAFETY: it was given up when it was put here, and is taken out once.
            unsafe { end(raw) }
        }
        any
    }
}

impl Drop for NextRound {
    fn drop(&mut self) {
        // SAFETY: this is the thread of the poller, as `self` is not Send; a NULL handle is left alone. Once unregistered the
        // poller never runs again, so that nobody has the round any more: the box is taken back once.
        let round = unsafe {
            sys::spdk_poller_unregister(&raw mut (*self.0.as_ptr()).poller);
            Box::from_raw(self.0.as_ptr())
        };
        round.over();
    }
}

/// # Safety
/// SPDK calls it with a round whose `NextRound` exists: the poller is unregistered with it.
unsafe extern "C" fn over(arg: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for the round, which is not dropped by the end of an I/O: a channel goes by a message.
    let busy = unsafe { &*arg.cast::<Round>() }.over();
    (if busy { sys::SPDK_POLLER_BUSY } else { sys::SPDK_POLLER_IDLE }) as c_int
}
