//! What the engine needs of the world: a spare to keep its metadata on, and a few services of the runtime.
//!
//! The vbdev implements both over SPDK, [`crate::sim`] over memory. The engine calls them on the owner thread only.

use std::future::Future;
use std::time::Duration;

use crate::status::IoStatus;

/// Size and nature of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes a block, as they are transferred (with interleaved metadata, where there is some).
    pub block_size: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Whether completed writes need a flush to survive power loss.
    pub volatile_cache: bool,
}

/// A block device, as the owner thread uses it for metadata. A future is always run to its end.
pub trait Device: 'static {
    /// Memory that the device can transfer to and from.
    type Buffer: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// Size and nature of the device; constant while the engine lives.
    fn geometry(&self) -> Geometry;

    /// A zeroed buffer of `blocks` blocks.
    ///
    /// # Errors
    /// [`IoStatus::NoMemory`].
    fn alloc(&self, blocks: usize) -> Result<Self::Buffer, IoStatus>;

    /// Reads the whole `buffer` from block `lba` on, and gives it back.
    fn read(&self, lba: u64, buffer: Self::Buffer) -> impl Future<Output = (Self::Buffer, Result<(), IoStatus>)>;

    /// Writes the whole `buffer` to block `lba` and on, and gives it back.
    fn write(&self, lba: u64, buffer: Self::Buffer) -> impl Future<Output = (Self::Buffer, Result<(), IoStatus>)>;

    /// Makes `blocks` blocks from `lba` on read as zeros.
    fn write_zeroes(&self, lba: u64, blocks: u64) -> impl Future<Output = Result<(), IoStatus>>;

    /// Makes all completed writes survive power loss. Called only where [`Geometry::volatile_cache`] is set.
    fn flush(&self) -> impl Future<Output = Result<(), IoStatus>>;
}

/// The services of the runtime.
///
/// # Safety
/// [`Env::grace`] must resolve only after every reader that could have begun before the call has left the methods of
/// [`crate::Table`]: what a reader may still look at is freed then.
pub unsafe trait Env: 'static {
    /// Monotonic time since some fixed point.
    fn now(&self) -> Duration;

    /// Waits for all readers of the remap table that may have begun before the call.
    fn grace(&self) -> impl Future<Output = ()>;

    /// Runs `task` on the owner thread, at some later time.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}
