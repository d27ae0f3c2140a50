//! The gate that all I/O of hosts to blocks goes through, one on each channel: who is behind it, and which blocks it is closed
//! for.
//!
//! A gate belongs to one thread, so that it costs two plain additions an I/O. The owner reaches the gates of all channels one
//! by one ([`crate::Env::drain`], [`crate::Env::close`], [`crate::Env::open`]), and each tells it when it is done. An I/O
//! that has come in stays inside until it is completed, whatever becomes of it meanwhile: rescues, and several rounds of parts.

use std::cell::{Cell, RefCell};

use crate::mutation::{Mutation, active};
use crate::ranges::Ranges;
use crate::tasks::Waiters;
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

/// How much I/O has passed through gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// So many have come in.
    pub came: u64,
    /// So many of those have left.
    pub left: u64,
}

impl Passed {
    /// Through either.
    #[must_use]
    pub fn and(self, other: Passed) -> Passed {
        Passed { came: self.came + other.came, left: self.left + other.left }
    }

    /// Whether any was inside at some time since it was as `before`.
    #[must_use]
    pub fn any_since(self, before: Passed) -> bool {
        self.came != before.came || self.came != self.left
    }
}

/// The gate of one channel.
pub struct Gate {
    /// Where newcomers are counted.
    side: Cell<Side>,
    /// Whether `closed` holds anything.
    is_closed: Cell<bool>,
    /// How many came in by each side, and how many have left.
    came: [Cell<u64>; 2],
    left: [Cell<u64>; 2],
    /// As many as there are movers: few, each of which may have very many runs.
    closed: RefCell<Vec<Ranges>>,
    /// How often a side by which nobody comes in was emptied.
    rounds: [Cell<u64>; 2],
    /// Who waits for that.
    emptied: Waiters,
    /// Who waits to come in.
    outside: Waiters,
}

impl Gate {
    /// A gate with nobody behind it, closed for these blocks.
    #[must_use]
    pub fn new(closed: Vec<Ranges>) -> Gate {
        Gate {
            side: Cell::new(Side::Even),
            is_closed: Cell::new(!closed.is_empty()),
            came: Default::default(),
            left: Default::default(),
            closed: RefCell::new(closed),
            rounds: Default::default(),
            emptied: Waiters::default(),
            outside: Waiters::default(),
        }
    }

    /// An I/O that changes nothing, or no blocks, comes in. It has to [`Gate::leave`] by the side that it is given.
    #[inline(always)]
    #[must_use]
    pub fn enter(&self) -> Side {
        let side = self.side.get();
        let came = &self.came[side as usize];
        came.set(came.get() + 1);
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
        let left = &self.left[side as usize];
        debug_assert!(!self.is_empty(side), "who leaves has come in, once");
        left.set(left.get() + 1);
        if self.is_empty(side) && side != self.side.get() {
            self.empty(side);
        }
    }

    /// How many are inside.
    #[inline]
    #[must_use]
    pub fn inside(&self) -> u64 {
        let passed = self.passed();
        passed.came - passed.left
    }

    /// How many have come in, and how many of those have left.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let sum = |sides: &[Cell<u64>; 2]| sides.iter().map(Cell::get).sum();
        Passed { came: sum(&self.came), left: sum(&self.left) }
    }

    /// A side is empty by which nobody comes in.
    #[cold]
    fn empty(&self, side: Side) {
        self.rounds[side as usize].set(self.rounds[side as usize].get() + 1);
        self.emptied.wake();
    }

    /// Waits until all I/O is over that is inside now; what comes in meanwhile is not waited for.
    pub async fn drain(&self) {
        if active(Mutation::GateNotDrained) {
            return;
        }
        // An earlier drain has this side for newcomers until its own one is empty.
        self.emptied.until(|| self.is_empty(self.side.get().other())).await;
        let before = self.side.get();
        self.side.set(before.other());
        // Once it was empty, it may be the side for newcomers again before this has looked.
        let (rounds, round) = (&self.rounds[before as usize], self.rounds[before as usize].get());
        self.emptied.until(|| self.is_empty(before) || rounds.get() != round).await;
    }

    #[inline(always)]
    fn is_empty(&self, side: Side) -> bool {
        self.left[side as usize].get() >= self.came[side as usize].get()
    }

    /// Nobody comes in any more to change these blocks; who is inside goes on: see [`Gate::drain`].
    pub fn close(&self, blocks: Ranges) {
        let closed = &mut *self.closed.borrow_mut();
        // A gate may have been made closed for them.
        if !closed.contains(&blocks) {
            closed.push(blocks);
        }
        self.is_closed.set(true);
    }

    /// Ends a [`Gate::close`] of the same blocks.
    pub fn open(&self, blocks: &Ranges) {
        let closed = &mut *self.closed.borrow_mut();
        closed.retain(|other| other != blocks);
        self.is_closed.set(!closed.is_empty());
        self.stir();
    }

    /// Whether it is closed for any of these blocks.
    #[cold]
    #[must_use]
    pub fn is_closed_for(&self, range: Extent) -> bool {
        !active(Mutation::GateLeftOpen) && self.closed.borrow().iter().any(|closed| closed.overlaps(range))
    }

    /// Waits until it is open for these blocks, or the I/O is given up, which is looked at when the gate is stirred.
    pub async fn wait_outside(&self, range: Extent, given_up: impl Fn() -> bool) {
        self.outside.until(|| !self.is_closed_for(range) || given_up()).await;
    }

    /// Lets all that wait look again, as some of them may be given up.
    pub fn stir(&self) {
        self.outside.wake();
    }
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
        assert_eq!(gate.inside(), 3, "by whichever side");
        gate.leave(two);
        assert_eq!(gate.inside(), 2);
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
    fn a_drain_that_is_over_does_not_wait_for_those_that_come_before_it_looks() {
        let gate = Gate::new(Vec::new());
        let first = gate.enter();
        let (mut one, mut two) = (pin!(gate.drain()), pin!(gate.drain()));
        assert!(!is_over(&mut one) && !is_over(&mut two));
        gate.leave(first);
        assert!(is_over(&mut two), "nobody is inside");
        let later = gate.enter();
        assert!(is_over(&mut one));
        gate.leave(later);
    }

    #[test]
    fn a_gate_that_is_closed_for_blocks_lets_in_what_does_not_change_them() {
        let gate = Gate::new(vec![blocks(10, 10).into()]);
        gate.close(blocks(30, 1).into());
        gate.close(blocks(10, 10).into());
        for (range, enters) in
            [(blocks(0, 10), true), (blocks(9, 2), false), (blocks(19, 1), false), (blocks(20, 10), true)]
        {
            assert_eq!(gate.enter_to_change(range).is_some(), enters, "{range:?}");
        }
        assert_eq!(gate.enter_to_change(blocks(0, 100)), None);
        _ = gate.enter();
        let mut waiting = pin!(gate.wait_outside(blocks(9, 2), || false));
        assert!(!is_over(&mut waiting));
        gate.open(&blocks(30, 1).into());
        assert!(!is_over(&mut waiting), "that was of others");
        gate.close(blocks(30, 1).into());
        gate.open(&blocks(10, 10).into());
        assert!(is_over(&mut waiting));
        assert!(gate.enter_to_change(blocks(9, 2)).is_some());
        assert_eq!(gate.enter_to_change(blocks(29, 2)), None, "others are still closed");
    }

    #[test]
    fn a_gate_that_is_closed_for_scattered_blocks_is_open_between_them() {
        let gate = Gate::new(Vec::new());
        let scattered = Ranges::new((0..1000).map(|index| blocks(index * 10, 2)).collect());
        gate.close(scattered.clone());
        for (range, enters) in [(blocks(5000, 1), false), (blocks(5001, 9), false), (blocks(5002, 8), true)] {
            assert_eq!(gate.enter_to_change(range).is_some(), enters, "{range:?}");
        }
        gate.open(&scattered);
        assert!(gate.enter_to_change(blocks(5000, 1)).is_some());
    }

    #[test]
    fn who_is_given_up_outside_waits_no_longer() {
        let gate = Gate::new(vec![blocks(0, 1).into()]);
        let given_up = Cell::new(false);
        let mut waiting = pin!(gate.wait_outside(blocks(0, 1), || given_up.get()));
        assert!(!is_over(&mut waiting));
        gate.stir();
        assert!(!is_over(&mut waiting), "not yet");
        given_up.set(true);
        gate.stir();
        assert!(is_over(&mut waiting));
    }
}
