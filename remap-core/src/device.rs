//! What the engine needs of the world: a spare to keep its metadata on, and a few services of the runtime.
//!
//! The vbdev implements both over SPDK, `remap-sim` over memory. The engine calls them on the owner thread only.

use std::future::Future;
use std::time::Duration;

#[cfg(doc)]
use crate::Gate;
use crate::events::Event;
use crate::gate::Passed;
use crate::ranges::Ranges;
use crate::status::IoStatus;

/// Size and nature of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes a block, as they are transferred (with interleaved metadata, where there is some).
    pub block_size: u32,
    /// Size in blocks.
    pub blocks: u64,
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

    /// Makes all completed writes survive power loss, whatever the device says of its cache. Succeeds at once on a device
    /// that takes no FLUSH at all.
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

    /// The time of day, since 1970 in UTC; for people only.
    fn unix_time(&self) -> Duration;

    /// Waits for `time` to pass.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static;

    /// Waits for all readers of the remap table that may have begun before the call.
    fn grace(&self) -> impl Future<Output = ()>;

    /// Waits for all I/O of hosts that may have begun before the call, as the table then said ([`Gate::drain`] on every
    /// channel): afterwards nothing is under way to a spare block that was taken out of the table before. Who waits for this
    /// must not keep the owner from what rescues ask it for.
    fn drain(&self) -> impl Future<Output = ()>;

    /// Lets no I/O come in that changes any of `blocks` ([`Gate::close`] on every channel, also on those that are made
    /// meanwhile), and waits as [`Env::drain`] does.
    fn close(&self, blocks: Ranges) -> impl Future<Output = ()>;

    /// Ends a [`Env::close`] of the same blocks.
    fn open(&self, blocks: Ranges) -> impl Future<Output = ()>;

    /// How much I/O of hosts has passed so far ([`Gate::passed`], of all channels that there are).
    fn passed(&self) -> impl Future<Output = Passed>;

    /// Tells whoever watches the set what has happened to it. Must not call back into the engine.
    fn tell(&self, event: &Event);

    /// Runs `task` on the owner thread, at some later time.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}
