//! The I/O that a channel holds: rescues, and what waits for an I/O structure. A RESET or an ABORT can give it up.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    mem::take,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_channel::oneshot;
use spdk::{Hold, IoId};

/// The I/O that one channel holds. Clones are the same.
#[derive(Clone)]
pub struct Holder(Rc<Inner>);

struct Inner {
    /// The bdev is being reset: all that is under way is to end.
    resetting: Arc<AtomicBool>,
    held: RefCell<HashMap<IoId, Rc<Hold>>>,
    /// Who waits until nothing is held.
    emptied: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Holder {
    /// A holder of nothing, of a bdev that is being reset or not.
    pub fn new(resetting: &Arc<AtomicBool>) -> Holder {
        Holder(Rc::new(Inner {
            resetting: Arc::clone(resetting),
            held: RefCell::default(),
            emptied: RefCell::default(),
        }))
    }

    /// From now on `io` is held. It is given up from the start if the bdev is being reset, as it was submitted before that.
    pub fn hold(&self, io: IoId) -> Rc<Hold> {
        let hold = Rc::new(Hold::default());
        if self.0.resetting.load(Ordering::Acquire) {
            hold.give_up();
        }
        self.0.held.borrow_mut().insert(io, Rc::clone(&hold));
        hold
    }

    /// `io` is not held any more. Whether it was given up meanwhile.
    pub fn let_go(&self, io: IoId) -> bool {
        let hold = self.0.held.borrow_mut().remove(&io);
        if self.0.held.borrow().is_empty() {
            // An error means that nobody waits any more.
            take(&mut *self.0.emptied.borrow_mut()).into_iter().for_each(|waiter| _ = waiter.send(()));
        }
        hold.is_some_and(|hold| hold.is_given_up())
    }

    /// Gives `io` up; the answer is whether it will not be sent any more. None if it is not held.
    pub fn abort(&self, io: IoId) -> Option<impl Future<Output = bool> + use<>> {
        let hold = self.0.held.borrow().get(&io).cloned();
        hold.map(|hold| hold.abort())
    }

    /// Gives up all that is held.
    pub fn give_all_up(&self) {
        self.0.held.borrow().values().for_each(|hold| hold.give_up());
    }

    /// Resolves when nothing is held.
    pub async fn emptied(&self) {
        while !self.0.held.borrow().is_empty() {
            let (waiter, emptied) = oneshot::channel();
            self.0.emptied.borrow_mut().push(waiter);
            // An error does not occur: the holder lives, and has the sender.
            let _ = emptied.await;
        }
    }
}
