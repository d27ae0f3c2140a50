//! The spare as `remap-core` sees it: the device of its metadata, and the services of SPDK's threads.

use std::{
    cell::{OnceCell, RefCell},
    future::Future,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use remap_core::{Device, Env, Geometry, IoStatus};
use spdk::{BdevInfo, Desc, DmaBuf, Endpoint, Errno, IoKind, WeakBdev, thread};

use crate::{device::Remap, status::to_core};

/// The pause after a drain that SPDK refused.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// The spare, on the owner thread. Clones share it.
#[derive(Clone)]
pub struct Spare(Rc<Inner>);

struct Inner {
    geometry: Geometry,
    /// Does it take FLUSH at all? What it says of its cache is not asked: a cache may be further below.
    flushes: bool,
    /// None when the spare was closed.
    endpoint: RefCell<Option<Rc<Endpoint>>>,
}

impl Spare {
    /// The spare behind `desc`, for the current thread.
    pub fn new(desc: &Desc, info: &BdevInfo) -> Result<Spare, Errno> {
        let geometry = Geometry { block_size: info.block_size, blocks: info.blocks };
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

    async fn command(&self, kind: IoKind, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.endpoint()?.command(kind, lba, blocks).await.map_err(to_core)
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
        let endpoint = match self.endpoint() {
            Ok(endpoint) => endpoint,
            Err(closed) => return (buffer, Err(closed)),
        };
        let (buffer, outcome) = endpoint.read(lba, buffer).await;
        (buffer, outcome.map_err(to_core))
    }

    async fn write(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), IoStatus>) {
        let endpoint = match self.endpoint() {
            Ok(endpoint) => endpoint,
            Err(closed) => return (buffer, Err(closed)),
        };
        let (buffer, outcome) = endpoint.write(lba, buffer).await;
        (buffer, outcome.map_err(to_core))
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

    fn unix_time(&self) -> Duration {
        // A clock that is set before 1970 tells nothing.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        spdk::sleep(time)
    }

    async fn grace(&self) {
        if let Some(bdev) = self.bdev.get().and_then(WeakBdev::upgrade) {
            bdev.grace().await;
        }
    }

    /// Quiesces the whole bdev for a moment: SPDK ends that only when no I/O that it let in is left.
    ///
    /// An I/O that is held for a rescue counts, too. It goes on by itself, as the owner's tasks commit while a drain waits;
    /// whoever calls this holds no I/O. While the bdev is quiesced SPDK lets reads of a new channel in: those look at the
    /// table as it is now, where the blocks that are waited for are no more.
    async fn drain(&self) {
        // Before it is registered, and from its destruct on, there is no I/O.
        while let Some(bdev) = self.bdev.get().and_then(WeakBdev::upgrade) {
            match bdev.quiesce().await {
                Ok(()) => {
                    if let Err(errno) = bdev.unquiesce().await {
                        log::error!("{}: I/O could not be let go on after a drain: {errno}", bdev.names.name);
                    }
                    return;
                }
                Err(Errno::NODEV) => return,
                Err(errno) => log::warn!("{}: not drained yet: {errno}", bdev.names.name),
            }
            drop(bdev);
            spdk::sleep(DRAIN_PAUSE).await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        thread::spawn(task);
    }
}
