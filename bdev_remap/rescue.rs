//! What follows a media error, on the thread of the I/O: `remap-core`'s rescue with SPDK's I/O under it and the owner thread
//! behind it.

use std::{future::Future, rc::Rc};

use futures_util::future::join;
use remap_core::{
    At, BaseLba, Committed, Devices, Extent, HostIo, HostOp, IoStatus, Move, Owner, Refused, SpareIndex, Target, rescue,
};
use spdk::{
    Endpoint, Io, IoKind, Status,
    thread::{self, Bound},
};

use crate::{
    device::{Owned, Remap, RemapEngine},
    status::{to_core, to_spdk},
};

/// Rescues `io`, which asks for `op`, and completes it with the outcome.
#[cold]
pub fn start(op: HostOp, io: Io<Remap>) {
    thread::spawn(async move {
        let held = Held { op, io: Rc::new(io) };
        let device = held.io.bdev();
        let outcome = rescue(&held, &device.table, &device.owner, device.remap_on(), &device.counters).await;
        complete(held.io, outcome.map_err(to_spdk));
    });
}

/// Resets these devices, both at one time. Metadata I/O to the spare is aborted with the rest; `remap-core` tries it again.
#[cold]
pub fn reset(io: Io<Remap>, devices: Devices) {
    thread::spawn(async move {
        let io = Rc::new(io);
        let reset = async |wanted: bool, endpoint: &Endpoint| match wanted {
            true => endpoint.command(IoKind::Reset, 0, 0).await,
            false => Ok(()),
        };
        let channel = io.channel();
        let (base, spare) = join(reset(devices.base, &channel.base), reset(devices.spare, &channel.spare)).await;
        complete(io, base.and(spare));
    });
}

/// Completes an I/O that nothing under way refers to any more.
fn complete(io: Rc<Io<Remap>>, outcome: Result<(), Status>) {
    match Rc::try_unwrap(io) {
        Ok(io) => io.complete(outcome),
        // The last child that is still under way drops the I/O, which then fails: better than a buffer freed under it.
        Err(_) => log::error!("a rescue ended before its I/O did: the I/O is failed"),
    }
}

/// A host I/O that is held until it is rescued.
struct Held {
    op: HostOp,
    io: Rc<Io<Remap>>,
}

impl HostIo for Held {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        Extent::new(BaseLba(self.io.lba()), self.io.blocks())
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let channel = self.io.channel();
        let (to, lba) = match at {
            At::Base(lba) => (&channel.base, lba.0),
            At::Spare(index) => (&channel.spare, self.io.bdev().spare_lba(index)),
        };
        to.part_of(&self.io, offset, blocks, lba).await.map_err(to_core)
    }
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

    async fn replace(&self, lba: BaseLba, bad: SpareIndex) -> Result<Target, Refused> {
        self.call(move |engine| async move { engine.replace(lba, bad).await }).await.unwrap_or(Err(Refused::Closed))
    }

    async fn release(&self, reserved: Vec<SpareIndex>) {
        // Nobody there to give them back to: then they are free anyway.
        let _ = self.call(|engine| async move { engine.release(reserved).await }).await;
    }

    async fn condemn(&self, blocks: Vec<SpareIndex>) {
        // Nobody there to record them: then the next open finds out anew.
        let _ = self.call(|engine| async move { engine.condemn(blocks).await }).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.call(|engine| async move { engine.set_pending(blocks).await }).await.unwrap_or(Err(Refused::Closed))
    }
}
