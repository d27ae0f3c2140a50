//! A host on simulated devices: it does what the vbdev does with an I/O, in a few lines.

use std::rc::Rc;

use super::device::SimDevice;
use super::exec::SimEnv;
use crate::counters::Counters;
use crate::device::Device;
use crate::engine::Engine;
use crate::rescue::{At, HostIo, HostOp, rescue};
use crate::status::{IoStatus, RemapOn};
use crate::table::Place;
use crate::units::{BaseLba, Extent};
use std::cell::RefCell;

/// An I/O of the host.
pub struct SimIo {
    op: HostOp,
    range: Extent,
    base: SimDevice,
    spare: SimDevice,
    data_start: u64,
    /// What is written, or was read.
    data: RefCell<Vec<u8>>,
}

impl SimIo {
    fn device(&self, at: At) -> (&SimDevice, u64) {
        match at {
            At::Base(lba) => (&self.base, lba.0),
            At::Spare(index) => (&self.spare, self.data_start + u64::from(index.get())),
        }
    }
}

impl HostIo for SimIo {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        self.range
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let (device, lba) = self.device(at);
        let size = u64::from(device.geometry().block_size);
        let range = (offset * size) as usize..((offset + blocks) * size) as usize;
        match self.op {
            HostOp::Read => {
                let (bytes, result) = device.read(lba, vec![0; range.len()]).await;
                if result.is_ok() {
                    self.data.borrow_mut()[range].copy_from_slice(&bytes);
                }
                result
            }
            HostOp::Write => {
                let bytes = self.data.borrow()[range].to_vec();
                device.write(lba, bytes).await.1
            }
            HostOp::WriteZeroes => device.write_zeroes(lba, blocks).await,
        }
    }
}

/// The Remap bdev as its host sees it.
#[derive(Clone)]
pub struct SimHost {
    /// The engine under it.
    pub engine: Rc<Engine<SimDevice, SimEnv>>,
    /// The base.
    pub base: SimDevice,
    /// The spare.
    pub spare: SimDevice,
    /// Which errors start a rescue.
    pub remap_on: RemapOn,
}

impl SimHost {
    /// Writes `data` from block `lba` on.
    ///
    /// # Errors
    /// What the host would see.
    pub async fn write(&self, lba: u64, data: Vec<u8>) -> Result<(), IoStatus> {
        self.submit(HostOp::Write, lba, data).await.map(drop)
    }

    /// Writes `blocks` blocks of zeros from block `lba` on.
    ///
    /// # Errors
    /// What the host would see.
    pub async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        let len = self.bytes(blocks);
        self.submit(HostOp::WriteZeroes, lba, vec![0; len]).await.map(drop)
    }

    /// Reads `blocks` blocks from block `lba` on.
    ///
    /// # Errors
    /// What the host would see.
    pub async fn read(&self, lba: u64, blocks: u64) -> Result<Vec<u8>, IoStatus> {
        let len = self.bytes(blocks);
        self.submit(HostOp::Read, lba, vec![0; len]).await
    }

    /// Flushes both devices.
    ///
    /// # Errors
    /// What the host would see.
    pub async fn flush(&self) -> Result<(), IoStatus> {
        self.base.flush().await?;
        self.spare.flush().await
    }

    fn bytes(&self, blocks: u64) -> usize {
        (blocks * u64::from(self.base.geometry().block_size)) as usize
    }

    async fn submit(&self, op: HostOp, lba: u64, data: Vec<u8>) -> Result<Vec<u8>, IoStatus> {
        let blocks = data.len() as u64 / u64::from(self.base.geometry().block_size);
        let io = SimIo {
            op,
            range: Extent::new(BaseLba(lba), blocks),
            base: self.base.clone(),
            spare: self.spare.clone(),
            data_start: self.engine.data_start(),
            data: RefCell::new(data),
        };
        match self.first_try(&io).await {
            Ok(()) => {}
            Err(Some(status)) if !status.is_media_error(self.remap_on) => return Err(status),
            Err(_) => self.rescue(&io).await?,
        }
        Ok(io.data.into_inner())
    }

    /// The fast path: each segment at its place. `None` if it has to be rescued without a try.
    async fn first_try(&self, io: &SimIo) -> Result<(), Option<IoStatus>> {
        let mut segments = Vec::new();
        self.engine.table().for_each_segment(io.range, |segment| segments.push(segment));
        for segment in segments {
            let at = match segment.place {
                Place::Base(lba) => At::Base(lba),
                Place::Pending(lba) if io.op == HostOp::Read => At::Base(lba),
                Place::Spare(index) => At::Spare(index),
                Place::Pending(_) | Place::Lost(_) => return Err(None),
            };
            io.issue(segment.offset, segment.blocks, at).await.map_err(Some)?;
        }
        Ok(())
    }

    async fn rescue(&self, io: &SimIo) -> Result<(), IoStatus> {
        let counters: &Counters = self.engine.counters();
        rescue(io, self.engine.table(), &*self.engine, self.remap_on, counters).await
    }
}
