//! SPDK's threads and clock, as `remap-core` sees them.

use std::{
    cell::OnceCell,
    future::Future,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::LocalBoxFuture;
use remap_core::{Env, Event, Passed, Ranges};
use spdk::thread;

use crate::events;

/// The threads that read a table: those that have a channel of its bdev.
///
/// # Safety
/// `grace`, `drain` and `close` wait for all of them, as [`Env`] says.
#[allow(unsafe_code)]
pub unsafe trait Readers {
    /// See [`Env::grace`].
    fn grace(&self) -> LocalBoxFuture<'_, ()>;
    /// See [`Env::drain`].
    fn drain(&self) -> LocalBoxFuture<'_, ()>;
    /// See [`Env::close`].
    fn close(&self, blocks: Ranges) -> LocalBoxFuture<'_, ()>;
    /// See [`Env::open`].
    fn open(&self, blocks: Ranges) -> LocalBoxFuture<'_, ()>;
    /// See [`Env::passed`].
    fn passed(&self) -> LocalBoxFuture<'_, Passed>;
}

/// The services of SPDK's threads for one engine. Clones are the same.
#[derive(Clone, Default)]
pub struct Threads {
    /// Who reads the table: nobody before the bdev is registered.
    readers: Rc<OnceCell<Box<dyn Readers>>>,
}

impl Threads {
    /// From now on the table has readers.
    pub fn watch(&self, readers: impl Readers + 'static) {
        // A second bdev for the same engine does not occur; if it did, the first would still be waited for.
        let _ = self.readers.set(Box::new(readers));
    }
}

// SAFETY: the readers vouch for themselves; before they are known, the bdev is not registered, and there are none.
#[allow(unsafe_code)]
unsafe impl Env for Threads {
    fn now(&self) -> Duration {
        thread::now()
    }

    fn unix_time(&self) -> Duration {
        // A clock that is set before 1970 tells nothing.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        spdk::sleep(time)
    }

    async fn grace(&self) {
        if let Some(readers) = self.readers.get() {
            readers.grace().await;
        }
    }

    async fn drain(&self) {
        if let Some(readers) = self.readers.get() {
            readers.drain().await;
        }
    }

    async fn close(&self, blocks: Ranges) {
        if let Some(readers) = self.readers.get() {
            readers.close(blocks).await;
        }
    }

    async fn open(&self, blocks: Ranges) {
        if let Some(readers) = self.readers.get() {
            readers.open(blocks).await;
        }
    }

    async fn passed(&self) -> Passed {
        match self.readers.get() {
            Some(readers) => readers.passed().await,
            None => Passed::default(),
        }
    }

    fn tell(&self, event: &Event) {
        events::send(event);
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        thread::spawn(task);
    }
}
