//! I/O that is put aside for a moment, for what it needs to come near meanwhile. Its turn comes when a few others have been put
//! aside after it, or in a round of its own, a message of the thread.
//!
//! The former is within the submission of another I/O, where nothing else may end: whoever submits does not expect it. So there it can only be
//! sent on; all else is for the round. A bdev may fail at once what is sent to it: whoever hears of that asks [`Aside::takes_turns`] before anything
//! ends.

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    future::Future,
    ptr::NonNull,
    rc::Rc,
};

use spdk_sys as sys;

use crate::{Bdev, Io, IoId, Kind, Status};

/// How many are aside at a time, beside those for the round: enough for what they need to come near, and so few that what is known of them stays
/// there.
const ROOM: usize = 4;

/// What happens when the turn of an I/O comes. Implemented by a type without data: nothing is stored for it.
pub trait OnTurn<B: Bdev, K: Kind>: 'static {
    /// Sends `io` on, or gives it back for the round. It must not end here.
    fn pass(io: Io<B, K>) -> Option<Io<B, K>>;

    /// Does with `io` whatever there is to do.
    fn turn(io: Io<B, K>);
}

/// The I/O that is aside on a channel. It is not `Send`: all of it is I/O of the thread that made it.
#[derive(Default)]
pub struct Aside(Rc<Shelf>);

#[derive(Default)]
struct Shelf {
    /// A ring: the oldest is behind the newest.
    places: [Cell<Option<Entry>>; ROOM],
    oldest: Cell<usize>,
    for_the_round: RefCell<Vec<Entry>>,
    /// Turns are being taken.
    busy: Cell<bool>,
    /// The message for a round is under way.
    called: Cell<bool>,
    /// That something is put aside was said in the log.
    said: Cell<bool>,
}

/// An I/O that was given up by its handle.
struct Entry {
    raw: NonNull<sys::spdk_bdev_io>,
    take: unsafe fn(NonNull<sys::spdk_bdev_io>, Turn) -> Option<NonNull<sys::spdk_bdev_io>>,
}

enum Turn {
    Pass,
    Round,
    Abort,
}

/// # Safety
/// `raw` was given up by a handle for a `K` of a bdev `B`, on this thread. It is given back, given up again, or not ours any more.
unsafe fn take<B: Bdev, K: Kind, H: OnTurn<B, K>>(
    raw: NonNull<sys::spdk_bdev_io>,
    turn: Turn,
) -> Option<NonNull<sys::spdk_bdev_io>> {
    // SAFETY: the caller vouches for it.
    let io = unsafe { Io::<B, K>::from_raw(raw) };
    match turn {
        Turn::Pass => return H::pass(io).map(Io::into_raw),
        Turn::Round => H::turn(io),
        Turn::Abort => io.complete(Err(Status::Aborted)),
    }
    None
}

impl Aside {
    /// Puts `io` aside, whose channel this is. Gives it back while turns are taken: what one brings with it must not be stacked on top of it.
    #[inline]
    pub fn put<B: Bdev, K: Kind, H: OnTurn<B, K>>(&self, io: Io<B, K>) -> Result<(), Io<B, K>> {
        let shelf = &self.0;
        if shelf.busy.get() || !(shelf.called.get() || self.call()) {
            return Err(io);
        }
        let entry = Entry { raw: io.into_raw(), take: take::<B, K, H> };
        if let Some(oldest) = shelf.next().replace(Some(entry)) {
            shelf.pass(oldest);
        }
        Ok(())
    }

    /// Whether anything may be aside, for which the message is under way.
    #[inline]
    pub fn is_in_use(&self) -> bool {
        self.0.called.get()
    }

    /// Whether turns are being taken: then what comes back at once may be within the submission of another I/O.
    pub fn takes_turns(&self) -> bool {
        self.0.busy.get()
    }

    /// Has all turns taken now, which nothing but a message may ask for.
    pub fn take_all_turns(&self) {
        self.0.round();
    }

    /// Takes `io` out, if it is aside. It ends as aborted when this is awaited, and then the answer is true.
    pub fn abort(&self, io: IoId) -> Option<impl Future<Output = bool> + use<>> {
        let entry = self.0.remove(io)?;
        Some(async move {
            entry.take(Turn::Abort);
            true
        })
    }

    /// Calls for a round; whether that could be done.
    #[inline(never)]
    fn call(&self) -> bool {
        /// # Safety
        /// SPDK calls it once, with the reference that was leaked below, on the thread that leaked it.
        unsafe extern "C" fn round(arg: *mut c_void) {
            // SAFETY: the caller vouches for the reference.
            let shelf = unsafe { Rc::from_raw(arg.cast::<Shelf>()) };
            shelf.called.set(false);
            shelf.round();
        }
        let shelf = Rc::into_raw(Rc::clone(&self.0));
        // SAFETY: this is an SPDK thread, as it has I/O; the function matches the argument's type, and is never called on failure.
        let rc = unsafe { sys::spdk_thread_send_msg(sys::spdk_get_thread(), Some(round), shelf.cast_mut().cast()) };
        if rc != 0 {
            // SAFETY: the message was not sent, so that the reference is still ours.
            drop(unsafe { Rc::from_raw(shelf) });
        }
        self.0.called.set(rc == 0);
        if rc == 0 && log::log_enabled!(log::Level::Debug) && !self.0.said.replace(true) {
            log::debug!("I/O is put aside, so that what it needs comes near meanwhile");
        }
        rc == 0
    }
}

impl Shelf {
    /// The place of the oldest, which is that of the newest from now on.
    #[inline]
    fn next(&self) -> &Cell<Option<Entry>> {
        let place = self.oldest.get();
        self.oldest.set((place + 1) % ROOM);
        &self.places[place]
    }

    #[inline]
    fn pass(&self, entry: Entry) {
        self.busy.set(true);
        if let Some(entry) = entry.take(Turn::Pass) {
            self.for_the_round.borrow_mut().push(entry);
        }
        self.busy.set(false);
    }

    fn round(&self) {
        self.busy.set(true);
        let mut all = self.for_the_round.take();
        all.extend((0..ROOM).filter_map(|_| self.next().take()));
        all.drain(..).for_each(|entry| _ = entry.take(Turn::Round));
        // Nothing came meanwhile: its memory is kept.
        self.for_the_round.replace(all);
        self.busy.set(false);
    }

    fn remove(&self, io: IoId) -> Option<Entry> {
        let is = |entry: &Entry| IoId(entry.raw.as_ptr().cast()) == io;
        let mut for_the_round = self.for_the_round.borrow_mut();
        if let Some(at) = for_the_round.iter().position(is) {
            return Some(for_the_round.remove(at));
        }
        self.places.iter().find_map(|place| {
            let entry = place.take()?;
            // What is not it goes back.
            if is(&entry) { Some(entry) } else { place.replace(Some(entry)) }
        })
    }
}

impl Entry {
    /// Gives what is to have another turn.
    #[inline]
    fn take(self, turn: Turn) -> Option<Entry> {
        // SAFETY: the entry was made of an I/O that was given up for this function, or given back by it, and is used up here.
        let again = unsafe { (self.take)(self.raw, turn) };
        again.map(|raw| Entry { raw, ..self })
    }
}
