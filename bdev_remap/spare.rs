//! The spare as `remap-core` sees it: the device of its metadata, and the services of SPDK's threads.

use std::{
    cell::{OnceCell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use remap_core::{Device, Env, Geometry, IoStatus};
use spdk::{BdevInfo, Desc, DmaBuf, Endpoint, Errno, IoKind, Status, WeakBdev, thread};

use crate::{device::Remap, status::to_core};

/// The spare, on the owner thread. Clones share it.
#[derive(Clone)]
pub struct Spare(Rc<Inner>);

struct Inner {
    geometry: Geometry,
    /// Does it take FLUSH at all?
    flushes: bool,
    /// None when the spare was closed.
    endpoint: RefCell<Option<Rc<Endpoint>>>,
}

impl Spare {
    /// The spare behind `desc`, for the current thread.
    pub fn new(desc: &Desc, info: &BdevInfo) -> Result<Spare, Errno> {
        let geometry = Geometry { block_size: info.block_size, blocks: info.blocks, volatile_cache: info.write_cache };
        let endpoint = RefCell::new(Some(Rc::new(Endpoint::new(desc)?)));
        Ok(Spare(Rc::new(Inner { geometry, flushes: desc.supports(IoKind::Flush), endpoint })))
    }

    /// Gives the spare up: I/O fails from now on.
    pub fn close(&self) {
        self.0.endpoint.take();
    }

    fn endpoint(&self) -> Result<Rc<Endpoint>, IoStatus> {
        self.0.endpoint.borrow().clone().ok_or(IoStatus::Failed)
    }

    /// Aborts all I/O to the spare (SPDK: reset).
    pub async fn reset(&self) -> Result<(), IoStatus> {
        self.endpoint()?.command(IoKind::Reset, 0, 0).await.map_err(to_core)
    }

    async fn transfer(
        &self,
        lba: u64,
        mut buffer: DmaBuf,
        run: impl AsyncFn(&Endpoint, u64, DmaBuf) -> (DmaBuf, Result<(), Status>),
    ) -> (DmaBuf, Result<(), IoStatus>) {
        let mut patience = Patience::default();
        loop {
            let endpoint = match self.endpoint() {
                Ok(endpoint) => endpoint,
                Err(closed) => return (buffer, Err(closed)),
            };
            let outcome;
            (buffer, outcome) = run(&endpoint, lba, buffer).await;
            if !patience.again(outcome).await {
                return (buffer, outcome.map_err(to_core));
            }
        }
    }

    async fn command(&self, kind: IoKind, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        let mut patience = Patience::default();
        loop {
            let outcome = self.endpoint()?.command(kind, lba, blocks).await;
            if !patience.again(outcome).await {
                return outcome.map_err(to_core);
            }
        }
    }
}

/// Metadata I/O that is aborted is tried again: somebody resets the device, and its next moment may be fine. Giving up at
/// once would call a good copy of the metadata bad.
#[derive(Default)]
struct Patience {
    tried: u32,
}

impl Patience {
    const MOST: u32 = 8;

    /// Whether to try again; waits a while, 10 ms at first and 2.5 s in all.
    async fn again(&mut self, outcome: Result<(), Status>) -> bool {
        if outcome != Err(Status::Aborted) || self.tried >= Self::MOST {
            return false;
        }
        spdk::sleep(Duration::from_millis(10 << self.tried)).await;
        self.tried += 1;
        true
    }
}

impl Device for Spare {
    type Buffer = DmaBuf;

    fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    fn alloc(&self, blocks: usize) -> Result<DmaBuf, IoStatus> {
        let bytes = blocks.checked_mul(self.0.geometry.block_size as usize).ok_or(IoStatus::NoMemory)?;
        DmaBuf::zeroed(bytes).ok_or(IoStatus::NoMemory)
    }

    async fn read(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), IoStatus>) {
        self.transfer(lba, buffer, async |endpoint, lba, buffer| endpoint.read(lba, buffer).await).await
    }

    async fn write(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), IoStatus>) {
        self.transfer(lba, buffer, async |endpoint, lba, buffer| endpoint.write(lba, buffer).await).await
    }

    async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.command(IoKind::WriteZeroes, lba, blocks).await
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        if !self.0.flushes {
            return Ok(());
        }
        self.command(IoKind::Flush, 0, self.0.geometry.blocks).await
    }
}

/// SPDK's threads and clock.
#[derive(Clone, Default)]
pub struct Threads {
    /// The bdev whose channels are the readers of the table; set when it is registered. Before, there are none.
    bdev: Rc<OnceCell<WeakBdev<Remap>>>,
}

impl Threads {
    /// From now on `bdev` has readers.
    pub fn watch(&self, bdev: WeakBdev<Remap>) {
        // A second bdev for the same engine does not occur; if it did, the first would still be waited for.
        let _ = self.bdev.set(bdev);
    }
}

// SAFETY: the table's readers are `submit` and `rescue` on threads that have a channel of the bdev; none keeps a pointer
// into the table across a return to its reactor. `BdevHandle::grace` returns after SPDK has run a message on every such
// thread; a thread that gets its channel later sees what was published before. Before the bdev is registered, and after
// it was destructed, there are no readers.
#[allow(unsafe_code)]
unsafe impl Env for Threads {
    fn now(&self) -> Duration {
        thread::now()
    }

    async fn grace(&self) {
        if let Some(bdev) = self.bdev.get().and_then(WeakBdev::upgrade) {
            bdev.grace().await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        thread::spawn(task);
    }
}
