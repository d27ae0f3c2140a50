//! The end of a bdev in a simulation, as when SPDK unregisters it: new I/O waits, what is under way is waited for.

use async_lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What all I/O of hosts takes part in.
#[derive(Default)]
pub(crate) struct Quiesce {
    /// Whose turn it is to get in, first come, first served. Without it, readers that wait for one writer after the other
    /// wake each other for ever, and the clock of the simulation stands still.
    turn: Mutex<()>,
    running: RwLock<()>,
}

impl Quiesce {
    /// Waits until I/O may run; it runs until the answer is dropped.
    pub(crate) async fn enter(&self) -> RwLockReadGuard<'_, ()> {
        let _turn = self.turn.lock().await;
        self.running.read().await
    }

    /// Holds new I/O back until the answer is dropped, and waits for all that is under way.
    pub(crate) async fn hold(&self) -> (MutexGuard<'_, ()>, RwLockWriteGuard<'_, ()>) {
        (self.turn.lock().await, self.running.write().await)
    }
}
