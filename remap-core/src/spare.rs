//! The spare as the engine uses it: a device with a layout, whose errors say what was tried.
//!
//! Used by log, recovery and opening. Never decides anything.

use crate::device::Device;
use crate::error::Error;

/// The spare device.
pub(crate) struct Spare<D: Device> {
    pub(crate) device: D,
}

impl<D: Device> Spare<D> {
    pub(crate) fn new(device: D) -> Spare<D> {
        Spare { device }
    }

    /// A zeroed buffer of `blocks` blocks.
    pub(crate) fn alloc(&self, blocks: u64) -> Result<D::Buffer, Error> {
        let no_memory = Error::NoMemory { blocks };
        let Ok(count) = usize::try_from(blocks) else { return Err(no_memory) };
        self.device.alloc(count).map_err(|_| no_memory)
    }

    pub(crate) async fn read(&self, lba: u64, blocks: u64) -> Result<D::Buffer, Error> {
        let (buffer, result) = self.device.read(lba, self.alloc(blocks)?).await;
        result.map_err(|status| Error::Io { what: "read", lba, status })?;
        Ok(buffer)
    }

    /// Writes `buffer`, and gives it back in any case.
    pub(crate) async fn write(&self, lba: u64, buffer: D::Buffer) -> (D::Buffer, Result<(), Error>) {
        let (buffer, result) = self.device.write(lba, buffer).await;
        (buffer, result.map_err(|status| Error::Io { what: "write", lba, status }))
    }

    pub(crate) async fn zero(&self, lba: u64, blocks: u64) -> Result<(), Error> {
        self.device.write_zeroes(lba, blocks).await.map_err(|status| Error::Io { what: "zero", lba, status })
    }

    /// Makes what was written survive power loss; does nothing on a device without a volatile cache.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        if !self.device.geometry().volatile_cache {
            return Ok(());
        }
        self.device.flush().await.map_err(|status| Error::Io { what: "flush", lba: 0, status })
    }
}
