//! The owner thread: it alone has the engine, and changes the remap state. Other threads ask it.

use std::{cell::RefCell, future::Future, rc::Rc};

use remap_core::{
    BaseLba, Committed, Engine, Extent, Move, Owner, PerSlot, Refused, Run, SpareBlock, Target, Uncopied,
};
use spdk::thread::Bound;

use crate::{disk::Disk, runtime::Threads};

/// The engine of a Remap bdev: its table, log and allocator on the real spare.
pub type RemapEngine = Engine<Disk, Threads>;

/// What lives on the owner thread.
pub struct Owned {
    /// The engine.
    pub engine: Rc<RemapEngine>,
    /// The base, for what is moved.
    pub base: Disk,
    /// The spare in each slot where there is one.
    pub spares: RefCell<PerSlot<Option<Disk>>>,
}

/// The engine, called from any thread.
pub struct OwnerThread(Bound<Owned>);

impl OwnerThread {
    /// The owner thread is the one that `owned` is bound to.
    pub fn new(owned: Bound<Owned>) -> OwnerThread {
        OwnerThread(owned)
    }

    async fn call<R, F>(&self, request: impl FnOnce(Rc<RemapEngine>) -> F + Send + 'static) -> Option<R>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        self.0.call(move |owned| request(Rc::clone(&owned.engine))).await
    }
}

impl Owner for OwnerThread {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.call(|engine| async move { engine.reserve(blocks).await }).await.unwrap_or(Err(Refused::Closed))
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.call(|engine| async move { engine.commit(moves).await }).await.unwrap_or(Err(Refused::Closed))
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        self.call(move |engine| async move { engine.replace(lba, bad).await }).await.unwrap_or(Err(Refused::Closed))
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        // Nobody there to give them back to: then they are free anyway.
        let _ = self.call(|engine| async move { engine.release(reserved).await }).await;
    }

    async fn condemn(&self, blocks: Vec<SpareBlock>) {
        // Nobody there to record them: then the next open finds out anew.
        let _ = self.call(|engine| async move { engine.condemn(blocks).await }).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.call(|engine| async move { engine.set_pending(blocks).await }).await.unwrap_or(Err(Refused::Closed))
    }

    async fn begin_mirrored(&self, range: Extent) -> Vec<Run> {
        // Nobody there: then nothing is on another spare.
        self.call(move |engine| async move { engine.begin_mirrored(range).await }).await.unwrap_or_default()
    }

    async fn end_mirrored(&self, range: Extent, uncopied: Vec<Uncopied>) {
        let _ = self.call(move |engine| async move { engine.end_mirrored(range, uncopied).await }).await;
    }
}
