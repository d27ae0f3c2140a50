//! An I/O that is held while parts of it are done elsewhere, and that can be given up meanwhile.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    ops::Deref,
    rc::Rc,
};

use futures_util::future::join_all;
use smallvec::SmallVec;

use crate::{Bdev, Endpoint, Io, IoId, Status, io_ref::IoRef, kind::Kind};

/// Whether an I/O is still wanted, and what of it is under way.
#[derive(Default)]
pub struct Hold {
    given_up: Cell<bool>,
    /// By the argument of their callbacks; they keep their channels themselves.
    under_way: RefCell<SmallVec<[(IoId, Endpoint); 2]>>,
}

impl Hold {
    /// Whether it is to end as soon as nothing of it is under way.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// From now on nothing of it is sent.
    pub fn give_up(&self) {
        self.given_up.set(true);
    }

    /// Gives it up, and aborts what of it is under way; the answer is whether all of that could be aborted.
    pub fn abort(&self) -> impl Future<Output = bool> + use<> {
        self.give_up();
        // An abort may end children before it returns.
        let under_way = self.under_way.borrow().clone();
        let aborts: Vec<_> = under_way.iter().map(|(child, to)| to.abort(*child)).collect();
        async move { join_all(aborts).await.into_iter().all(|aborted| aborted) }
    }

    pub(crate) fn began(&self, child: IoId, to: Endpoint) {
        self.under_way.borrow_mut().push((child, to));
    }

    pub(crate) fn ended(&self, child: IoId) {
        self.under_way.borrow_mut().retain(|(other, _)| *other != child);
    }
}

/// A held I/O. Its children keep it.
pub struct Held<B: Bdev, K: Kind> {
    io: Io<B, K>,
    hold: Rc<Hold>,
}

impl<B: Bdev, K: Kind> Held<B, K> {
    /// Holds `io`; who has `hold` can give it up.
    pub fn new(io: Io<B, K>, hold: Rc<Hold>) -> Rc<Held<B, K>> {
        Rc::new(Held { io, hold })
    }

    /// Whether it is to end as soon as nothing of it is under way.
    pub fn is_given_up(&self) -> bool {
        self.hold.is_given_up()
    }

    /// Ends an I/O of which nothing is under way any more.
    pub fn end(self: Rc<Self>, outcome: Result<(), Status>) {
        match Rc::try_unwrap(self) {
            Ok(held) => held.io.complete(outcome),
            // The last child drops the I/O, which then fails: better than a buffer freed under it.
            Err(_) => log::error!("a held I/O was ended before its children: it is failed"),
        }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }
}

impl<B: Bdev, K: Kind> Deref for Held<B, K> {
    type Target = IoRef<B, K>;

    fn deref(&self) -> &IoRef<B, K> {
        &self.io
    }
}
