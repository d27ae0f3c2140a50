//! A device below as `remap-core` sees it, on the owner thread: the spare for its metadata, and both for what is moved.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use remap_core::{Device, Geometry, IoStatus};
use spdk::{BdevInfo, Desc, DmaBuf, Endpoint, Errno, IoKind};

use crate::status::to_core;

/// The device, on the owner thread. Clones share it.
#[derive(Clone)]
pub struct Disk(Rc<Inner>);

struct Inner {
    block_size: u32,
    /// Size in blocks, which may grow.
    blocks: Cell<u64>,
    /// Does it take FLUSH at all? What it says of its cache is not asked: a cache may be further below.
    flushes: bool,
    /// None while it is closed.
    endpoint: RefCell<Option<Endpoint>>,
}

impl Disk {
    /// The device behind `desc`, for the current thread.
    pub fn new(desc: &Desc, info: &BdevInfo) -> Result<Disk, Errno> {
        let (block_size, blocks) = (info.block_size, Cell::new(info.blocks));
        let endpoint = RefCell::new(Some(Endpoint::new(desc)?));
        Ok(Disk(Rc::new(Inner { block_size, blocks, flushes: desc.supports(IoKind::Flush), endpoint })))
    }

    /// It has so many blocks now.
    pub fn grow(&self, blocks: u64) {
        self.0.blocks.set(blocks);
    }

    /// It is there again, as `desc`.
    pub fn reopen(&self, desc: &Desc) -> Result<(), Errno> {
        self.0.endpoint.replace(Some(Endpoint::new(desc)?));
        Ok(())
    }

    /// Gives it up: I/O fails from now on.
    pub fn close(&self) {
        self.0.endpoint.take();
    }

    fn endpoint(&self) -> Result<Endpoint, IoStatus> {
        self.0.endpoint.borrow().clone().ok_or(IoStatus::Failed)
    }
}

impl Device for Disk {
    type Buffer = DmaBuf;

    fn geometry(&self) -> Geometry {
        Geometry { block_size: self.0.block_size, blocks: self.0.blocks.get() }
    }

    fn alloc(&self, blocks: usize) -> Result<DmaBuf, IoStatus> {
        let bytes = blocks.checked_mul(self.0.block_size as usize).ok_or(IoStatus::NoMemory)?;
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
        self.endpoint()?.write_zeroes(lba, blocks).await.map_err(to_core)
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        if !self.0.flushes {
            return Ok(());
        }
        self.endpoint()?.flush(0, self.0.blocks.get()).await.map_err(to_core)
    }
}
