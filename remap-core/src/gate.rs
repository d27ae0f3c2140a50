//! The gate that all I/O of hosts to blocks goes through, one on each channel: who is behind it, and which blocks it is closed
//! for.
//!
//! A gate belongs to one thread, so that it costs two plain additions an I/O. The owner reaches the gates of all channels one
//! by one ([`crate::Env::drain`], [`crate::Env::close`], [`crate::Env::open`]), and each tells it when it is done. An I/O
//! that has come in stays inside until it is completed, whatever becomes of it meanwhile: rescues, and several rounds of parts.

use std::cell::{Cell, RefCell};
use std::mem::take;

use futures_channel::oneshot;

use crate::mutation::{Mutation, active};
use crate::units::Extent;

/// One of two sets of I/O behind a gate: those that came in before the last drain began, and those after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Side {
    Even,
    Odd,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Even => Side::Odd,
            Side::Odd => Side::Even,
        }
    }
}

/// The gate of one channel.
#[derive(Debug)]
pub struct Gate {
    /// Where newcomers are counted.
    side: Cell<Side>,
    /// Whether `closed` holds anything.
    is_closed: Cell<bool>,
    inside: [Cell<u64>; 2],
    closed: RefCell<Vec<Extent>>,
    /// Who waits until a side is empty.
    emptied: [RefCell<Vec<oneshot::Sender<()>>>; 2],
    /// Who waits to come in.
    outside: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Gate {
    /// A gate with nobody behind it, closed for these blocks.
    #[must_use]
    pub fn new(closed: Vec<Extent>) -> Gate {
        Gate {
            side: Cell::new(Side::Even),
            is_closed: Cell::new(!closed.is_empty()),
            inside: Default::default(),
            closed: RefCell::new(closed),
            emptied: Default::default(),
            outside: RefCell::default(),
        }
    }

    /// An I/O that changes nothing, or no blocks, comes in. It has to [`Gate::leave`] by the side that it is given.
    #[inline(always)]
    #[must_use]
    pub fn enter(&self) -> Side {
        let side = self.side.get();
        let inside = &self.inside[side as usize];
        inside.set(inside.get() + 1);
        side
    }

    /// As [`Gate::enter`], for an I/O that changes blocks of `range`; None if the gate is closed for it.
    #[inline(always)]
    #[must_use]
    pub fn enter_to_change(&self, range: Extent) -> Option<Side> {
        if self.is_closed.get() && self.is_closed_for(range) {
            return None;
        }
        Some(self.enter())
    }

    /// An I/O is over.
    #[inline(always)]
    pub fn leave(&self, side: Side) {
        let inside = &self.inside[side as usize];
        let left = inside.get().saturating_sub(1);
        inside.set(left);
        if left == 0 && side != self.side.get() {
            self.empty(side);
        }
    }

    /// A side is empty by which nobody comes in.
    #[cold]
    fn empty(&self, side: Side) {
        wake(&self.emptied[side as usize]);
    }

    /// Waits until all I/O is over that is inside now; what comes in meanwhile is not waited for.
    pub async fn drain(&self) {
        if active(Mutation::GateNotDrained) {
            return;
        }
        // An earlier drain has this side for newcomers until its own one is empty.
        while self.inside[self.side.get().other() as usize].get() > 0 {
            self.until_empty(self.side.get().other()).await;
        }
        let before = self.side.get();
        self.side.set(before.other());
        if self.inside[before as usize].get() > 0 {
            self.until_empty(before).await;
        }
    }

    async fn until_empty(&self, side: Side) {
        let (sender, emptied) = oneshot::channel();
        self.emptied[side as usize].borrow_mut().push(sender);
        // An error means that the gate has gone, and with it all that was inside.
        let _ = emptied.await;
    }

    /// Nobody comes in any more to change these blocks; who is inside goes on: see [`Gate::drain`].
    pub fn close(&self, range: Extent) {
        let closed = &mut *self.closed.borrow_mut();
        // A gate may have been made closed for them.
        if !closed.contains(&range) {
            closed.push(range);
        }
        self.is_closed.set(true);
    }

    /// Ends a [`Gate::close`] of the same blocks.
    pub fn open(&self, range: Extent) {
        let closed = &mut *self.closed.borrow_mut();
        closed.retain(|other| *other != range);
        self.is_closed.set(!closed.is_empty());
        self.stir();
    }

    /// Whether it is closed for any of these blocks.
    #[cold]
    #[must_use]
    pub fn is_closed_for(&self, range: Extent) -> bool {
        !active(Mutation::GateLeftOpen) && self.closed.borrow().iter().any(|closed| closed.overlaps(range))
    }

    /// Waits until it was opened for some blocks, or stirred: then the I/O tries again.
    pub async fn wait(&self) {
        let (sender, stirred) = oneshot::channel();
        self.outside.borrow_mut().push(sender);
        // An error means that the gate has gone.
        let _ = stirred.await;
    }

    /// Lets all that wait look again, as some of them may be given up.
    pub fn stir(&self) {
        wake(&self.outside);
    }
}

fn wake(waiting: &RefCell<Vec<oneshot::Sender<()>>>) {
    // An error means that nobody waits any more.
    take(&mut *waiting.borrow_mut()).into_iter().for_each(|waiter| _ = waiter.send(()));
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use futures_util::FutureExt;

    use super::*;
    use crate::units::BaseLba;

    fn blocks(lba: u64, blocks: u64) -> Extent {
        Extent::new(BaseLba(lba), blocks)
    }

    fn is_over(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        future.poll_unpin(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_drain_waits_for_all_that_is_inside_and_for_nothing_that_comes_later() {
        let gate = Gate::new(Vec::new());
        let (one, two) = (gate.enter(), gate.enter_to_change(blocks(0, 1)).unwrap());
        let mut drain = pin!(gate.drain());
        assert!(!is_over(&mut drain));
        let later = gate.enter();
        gate.leave(two);
        assert!(!is_over(&mut drain));
        gate.leave(one);
        assert!(is_over(&mut drain), "what came later is still inside");
        gate.leave(later);
        assert!(is_over(&mut pin!(gate.drain())), "nothing is inside");
    }

    #[test]
    fn drains_that_overlap_in_time_each_wait_for_what_was_inside_when_they_began() {
        let gate = Gate::new(Vec::new());
        let first = gate.enter();
        let mut one = pin!(gate.drain());
        assert!(!is_over(&mut one));
        let second = gate.enter();
        let (mut two, mut three) = (pin!(gate.drain()), pin!(gate.drain()));
        assert!(!is_over(&mut two) && !is_over(&mut three));
        gate.leave(first);
        assert!(is_over(&mut one));
        assert!(!is_over(&mut two) && !is_over(&mut three));
        let third = gate.enter();
        gate.leave(second);
        assert!(is_over(&mut two), "the third came later");
        // Who comes third may have to wait for more than it needs, as there are two sides only.
        gate.leave(third);
        assert!(is_over(&mut three));
    }

    #[test]
    fn a_gate_that_is_closed_for_blocks_lets_in_what_does_not_change_them() {
        let gate = Gate::new(vec![blocks(10, 10)]);
        gate.close(blocks(30, 1));
        gate.close(blocks(10, 10));
        for (range, enters) in
            [(blocks(0, 10), true), (blocks(9, 2), false), (blocks(19, 1), false), (blocks(20, 10), true)]
        {
            assert_eq!(gate.enter_to_change(range).is_some(), enters, "{range:?}");
        }
        assert_eq!(gate.enter_to_change(blocks(0, 100)), None);
        _ = gate.enter();
        let mut waiting = pin!(gate.wait());
        assert!(!is_over(&mut waiting));
        gate.open(blocks(10, 10));
        assert!(is_over(&mut waiting));
        assert!(gate.enter_to_change(blocks(9, 2)).is_some());
        assert_eq!(gate.enter_to_change(blocks(29, 2)), None, "others are still closed");
    }

    #[test]
    fn who_waits_outside_is_stirred() {
        let gate = Gate::new(vec![blocks(0, 1)]);
        let mut waiting = pin!(gate.wait());
        assert!(!is_over(&mut waiting));
        gate.stir();
        assert!(is_over(&mut waiting));
    }
}
