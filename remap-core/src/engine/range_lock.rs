//! Blocks that are moved without a host's write: what hosts change in them is held back meanwhile, and only one mover has them.

use std::cell::RefCell;

use super::{Engine, Shared};
use crate::device::{Device, Env};
use crate::tasks::Waiters;
use crate::units::Extent;

/// The ranges that are locked, and who waits for one.
#[derive(Default)]
pub(super) struct RangeLocks {
    held: RefCell<Vec<Extent>>,
    given_back: Waiters,
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Does `work` while no I/O of hosts that changes blocks of `range` is under way: new ones wait, and reads go on, so that the
    /// blocks must stay where they are until the change of place is published. Other work on any of these blocks waits, too.
    ///
    /// To be run to its end: hosts wait for it. `work` may commit; a task of the committer must not call this.
    pub async fn with_range_locked<R>(&self, range: Extent, work: impl Future<Output = R>) -> R {
        let Shared { env, range_locks, .. } = &*self.shared;
        range_locks.take(range).await;
        env.close(range).await;
        let result = work.await;
        env.open(range).await;
        range_locks.give_back(range);
        result
    }
}

impl RangeLocks {
    pub(super) async fn take(&self, range: Extent) {
        self.given_back.until(|| !self.held.borrow().iter().any(|other| other.overlaps(range))).await;
        self.held.borrow_mut().push(range);
    }

    pub(super) fn give_back(&self, range: Extent) {
        // Ranges that are held do not overlap, so that none is there twice.
        self.held.borrow_mut().retain(|other| *other != range);
        self.given_back.wake();
    }
}
