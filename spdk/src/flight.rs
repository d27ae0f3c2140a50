//! One I/O to another bdev that a future waits for. It owns all that SPDK needs of it until it has landed, also when the
//! future has been dropped.

use std::{ffi::c_void, marker::PhantomData, rc::Rc};

use futures_channel::oneshot;
use spdk_sys as sys;

use crate::{
    Bdev, Child, DmaBuf, Endpoint, Held, IoId, Status,
    io::wait_entry,
    kind::{Kind, sealed::Send},
    submit::{Iovecs, Slice, Submitted},
    thread::Thread,
};

/// What an I/O under way keeps: its buffers belong to it.
pub(crate) trait Keep: 'static {
    /// Whether it must not be sent any more.
    fn is_given_up(&self) -> bool {
        false
    }
    /// It is under way from now on.
    fn began(&self, _flight: IoId, _to: &Endpoint) {}
    /// It is not under way any more.
    fn ended(&self, _flight: IoId) {}
}

impl Keep for () {}
impl Keep for DmaBuf {}

impl<B: Bdev, K: Kind> Keep for Rc<Held<B, K>> {
    fn is_given_up(&self) -> bool {
        self.hold().is_given_up()
    }

    fn began(&self, flight: IoId, to: &Endpoint) {
        self.hold().began(flight, to.clone());
    }

    fn ended(&self, flight: IoId) {
        self.hold().ended(flight);
    }
}

/// The I/O for which something of ours is sent, such as a buffer, which is kept with it.
impl<T: Keep, M: 'static> Keep for (T, M) {
    fn is_given_up(&self) -> bool {
        self.0.is_given_up()
    }

    fn began(&self, flight: IoId, to: &Endpoint) {
        self.0.began(flight, to);
    }

    fn ended(&self, flight: IoId) {
        self.0.ended(flight);
    }
}

/// See above. `K` is what it asks for.
pub(crate) struct Flight<K, T: Keep> {
    to: Endpoint,
    wait: sys::spdk_bdev_io_wait_entry,
    iovecs: Iovecs,
    slice: Slice,
    keep: T,
    answer: oneshot::Sender<(T, Result<(), Status>)>,
    kind: PhantomData<K>,
}

impl<K: Kind + Send, T: Keep> Flight<K, T> {
    /// Runs one I/O to its end. `iovecs` are of memory that `keep` owns, as is the metadata of `slice`, whose vectors they become.
    ///
    /// # Safety
    /// What they point to lives as long as `keep`, and may be read, or written by a read, until the answer is there.
    pub(crate) async unsafe fn run(to: &Endpoint, iovecs: Iovecs, slice: Slice, keep: T) -> (T, Result<(), Status>) {
        let (answer, answered) = oneshot::channel();
        let wait = Default::default();
        Box::new(Flight { to: to.clone(), wait, iovecs, slice, keep, answer, kind: PhantomData::<K> }).launch();
        match answered.await {
            Ok(landed) => landed,
            // The flight, and the sender in it, goes only by landing: SPDK still has it, and for ever.
            Err(_) => std::future::pending().await,
        }
    }

    fn launch(mut self: Box<Self>) {
        if self.keep.is_given_up() {
            return self.land(Err(Status::Aborted));
        }
        self.slice.iovcnt = i32::try_from(self.iovecs.len()).unwrap_or(0);
        let raw = Box::into_raw(self);
        // SAFETY: the flight owns the vectors and, by `keep`, what they point to, and lives until `done` has it. It is not
        // touched here once it may have landed.
        unsafe {
            // Few of them are in the flight itself, which stays where it is from now on.
            (*raw).slice.iovs = (*raw).iovecs.as_mut_ptr();
            (*raw).keep.began(IoId(raw.cast()), &(*raw).to);
            match (*raw).to.submit::<K>(&(*raw).slice, Some(Self::done), raw.cast()) {
                Submitted::Queued => {}
                Submitted::NoMemory => Self::wait(raw),
                Submitted::Refused(errno) => {
                    let flight = Box::from_raw(raw);
                    flight.keep.ended(IoId(raw.cast()));
                    let Slice { lba, blocks, .. } = flight.slice;
                    log::error!("{:?} of {blocks} blocks at LBA {lba} could not be submitted: {errno}", K::KIND);
                    flight.land(Err(Status::Failed));
                }
            }
        }
    }

    /// Launches it as soon as there is an I/O structure, in the moment in which there is: later it would be somebody else's.
    ///
    /// # Safety
    /// `raw` is a leaked flight that is not under way.
    unsafe fn wait(raw: *mut Self) {
        // SAFETY: the caller vouches for the flight, which owns the entry and lives until `free` has it.
        let queued = unsafe {
            (*raw).keep.ended(IoId(raw.cast()));
            (*raw).wait = wait_entry(&(*raw).to, Self::free, raw.cast());
            Submitted::of(sys::spdk_bdev_queue_io_wait((*raw).to.bdev(), (*raw).to.channel(), &raw mut (*raw).wait))
        };
        if queued == Submitted::Queued {
            return;
        }
        // There are structures after all: it is tried again behind the thread's other work.
        // SAFETY: not queued, so that it is ours again.
        let flight = unsafe { Box::from_raw(raw) };
        if let Some(Err(errno)) = Thread::current().map(|here| here.send_local(move || flight.launch())) {
            log::error!("an I/O could not be tried again: {errno}");
        }
    }

    /// # Safety
    /// SPDK calls it once, with the flight that waited, whose entry it has taken out of its queue.
    unsafe extern "C" fn free(arg: *mut c_void) {
        // SAFETY: the caller vouches for the flight.
        unsafe { Box::from_raw(arg.cast::<Self>()) }.launch();
    }

    /// # Safety
    /// SPDK calls it once for each submitted I/O, completed, with the flight that was leaked for it.
    unsafe extern "C" fn done(child: *mut sys::spdk_bdev_io, _success: bool, arg: *mut c_void) {
        // SAFETY: the caller vouches for both.
        let (child, flight) = unsafe { (Child::from_raw(child), Box::from_raw(arg.cast::<Self>())) };
        flight.keep.ended(IoId(arg));
        let outcome = child.outcome();
        drop(child);
        flight.land(outcome);
    }

    fn land(self, outcome: Result<(), Status>) {
        let Flight { keep, answer, .. } = self;
        // The future may have been dropped: then nobody waits, and what was kept goes here.
        let _ = answer.send((keep, outcome));
    }
}
