//! Blocks that are moved without a host's write: what hosts change in them is held back meanwhile, and only one mover has them.

use std::cell::RefCell;

use super::{Engine, Shared};
use crate::device::{Device, Env};
use crate::ranges::Ranges;
use crate::tasks::Waiters;

/// The blocks that are locked, and who waits for some.
#[derive(Default)]
pub(super) struct RangeLocks {
    held: RefCell<Vec<Ranges>>,
    given_back: Waiters,
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Does `work` while no I/O of hosts that changes any of `blocks` is under way: new ones wait, and reads go on, so that the
    /// blocks must stay where they are until the change of place is published. Other work on any of these blocks waits, too.
    ///
    /// To be run to its end: hosts wait for it. `work` may commit; a task of the committer must not call this.
    pub async fn with_range_locked<R>(&self, blocks: impl Into<Ranges>, work: impl Future<Output = R>) -> R {
        let Shared { env, range_locks, .. } = &*self.shared;
        let blocks = blocks.into();
        range_locks.take(&blocks).await;
        env.close(blocks.clone()).await;
        let result = work.await;
        env.open(blocks.clone()).await;
        range_locks.give_back(&blocks);
        result
    }
}

impl RangeLocks {
    pub(super) async fn take(&self, blocks: &Ranges) {
        self.given_back.until(|| !self.held.borrow().iter().any(|other| other.share(blocks))).await;
        self.held.borrow_mut().push(blocks.clone());
    }

    pub(super) fn give_back(&self, blocks: &Ranges) {
        // What is held does not overlap, so that nothing is there twice.
        self.held.borrow_mut().retain(|other| other != blocks);
        self.given_back.wake();
    }
}
