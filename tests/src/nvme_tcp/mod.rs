//! A minimal NVMe/TCP host: connects to one namespace and does block I/O, with the status of every command as it came.
//!
//! It exists because stock clients retry, merge and flatten errors; the tests must see which block failed, and how.
//! No digests, no authentication, no multipath, no retries.

mod pdu;
mod queue;

use std::{fmt, net::SocketAddr};

pub use pdu::Sqe;
pub use queue::{Completion, IN_CAPSULE, Queue};

/// Why a command could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke: the target died, or did not answer in time.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The target sent something that no target should.
    #[error("protocol: {0}")]
    Protocol(String),
    /// A command that sets up the connection failed.
    #[error("{0}: {1}")]
    Setup(&'static str, Status),
}

/// NVMe status of a completed command: status code type and status code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Status code type: 0 generic, 1 command specific, 2 media, 3 path.
    pub sct: u8,
    /// Status code.
    pub sc: u8,
}

impl Status {
    /// Success.
    pub const SUCCESS: Status = Status { sct: 0, sc: 0 };
    /// Aborted, by a reset or on request.
    pub const ABORTED: Status = Status { sct: 0, sc: 0x07 };
    /// Internal error (what SPDK makes of any error that has no NVMe status of its own).
    pub const INTERNAL: Status = Status { sct: 0, sc: 0x06 };
    /// Write fault.
    pub const WRITE_FAULT: Status = Status { sct: 2, sc: 0x80 };
    /// Unrecovered read error.
    pub const READ_ERROR: Status = Status { sct: 2, sc: 0x81 };

    fn from_cqe(field: u16) -> Status {
        Status { sct: (field >> 9 & 7) as u8, sc: (field >> 1) as u8 }
    }

    /// Is this a success?
    pub fn ok(self) -> bool {
        self == Status::SUCCESS
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status sct {:#x} sc {:#04x}", self.sct, self.sc)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const FABRICS: u8 = 0x7f;
/// Entries of a queue, unless told otherwise.
const ENTRIES: u16 = 32;
const HOST_NQN: &str = "nqn.2026-01.io.bdev-remap:host";

/// A command for [`Queue::submit`]: write `data` blocks at `lba`; `blocks` blocks of the namespace.
pub fn write_command(lba: u64, blocks: u16) -> Sqe {
    range(WRITE, lba, blocks)
}

/// A command for [`Queue::submit`]: read `blocks` blocks at `lba`.
pub fn read_command(lba: u64, blocks: u16) -> Sqe {
    range(READ, lba, blocks)
}

/// A command for [`Queue::submit`]: flush the namespace.
pub fn flush_command() -> Sqe {
    Sqe::new(FLUSH).u32(4, 1)
}

fn range(opcode: u8, lba: u64, blocks: u16) -> Sqe {
    Sqe::new(opcode).u32(4, 1).u64(40, lba).u16(48, blocks - 1)
}

/// A connected controller with its admin queue and one I/O queue, on namespace 1 of a subsystem.
pub struct Host {
    address: SocketAddr,
    nqn: String,
    controller: u16,
    block_size: usize,
    blocks: u64,
    admin: Queue,
    io: Queue,
}

impl Host {
    /// Connects to subsystem `nqn` at `address`, and learns the size of its namespace 1.
    pub fn connect(address: SocketAddr, nqn: &str) -> Result<Host, Error> {
        let mut admin = Queue::open(address, true)?;
        let controller = connect(&mut admin, nqn, 0, 0xffff, "connect, admin queue")?;
        property(&mut admin, 0x14, Some(4 << 20 | 6 << 16 | 1), "enable")?;
        while property(&mut admin, 0x1c, None, "ready")? & 1 == 0 {}

        let identify = Sqe::new(IDENTIFY).u32(4, 1);
        let identified = admin.run(identify, &[], 4096)?;
        check(identified.status, "identify namespace 1")?;
        let data = identified.data;
        let format = usize::from(data[26] & 0xf);
        let block_size = 1 << data[128 + 4 * format + 2];
        let blocks = u64::from_le_bytes([data[0], data[1], data[2], data[3], data[4], data[5], data[6], data[7]]);

        let io = io_queue(address, nqn, controller, 1, ENTRIES)?;
        Ok(Host { address, nqn: nqn.to_owned(), controller, block_size, blocks, admin, io })
    }

    /// One more I/O queue of this controller; `qid` from 2 on.
    pub fn queue(&self, qid: u16) -> Result<Queue, Error> {
        self.queue_of(qid, ENTRIES)
    }

    /// As [`Host::queue`], with so many entries: one command fewer may be under way. The target takes at most 128.
    pub fn queue_of(&self, qid: u16, entries: u16) -> Result<Queue, Error> {
        io_queue(self.address, &self.nqn, self.controller, qid, entries)
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks of the namespace.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Writes `data`, a whole number of blocks, at `lba` in one command (the target takes at most 128 KiB unless told otherwise).
    pub fn write(&mut self, lba: u64, data: &[u8]) -> Result<Status, Error> {
        assert!(!data.is_empty() && data.len().is_multiple_of(self.block_size), "a whole number of blocks");
        let blocks = (data.len() / self.block_size) as u16;
        Ok(self.io.run(write_command(lba, blocks), data, 0)?.status)
    }

    /// Reads `blocks` blocks at `lba` in one command: the data, or the status of the failure.
    pub fn read(&mut self, lba: u64, blocks: u16) -> Result<Result<Vec<u8>, Status>, Error> {
        let done = self.io.run(read_command(lba, blocks), &[], usize::from(blocks) * self.block_size)?;
        Ok(if done.status.ok() { Ok(done.data) } else { Err(done.status) })
    }

    /// Reads `blocks` blocks at `lba`, however many, by as many commands as it takes; ends at the first failure.
    pub fn read_all(&mut self, lba: u64, blocks: u64) -> Result<Result<Vec<u8>, Status>, Error> {
        let mut data = Vec::with_capacity(blocks as usize * self.block_size);
        let mut at = 0;
        while at < blocks {
            let part = (blocks - at).min((128 << 10) / self.block_size as u64);
            match self.read(lba + at, part as u16)? {
                Ok(bytes) => data.extend(bytes),
                Err(status) => return Ok(Err(status)),
            }
            at += part;
        }
        Ok(Ok(data))
    }

    /// Aborts command `cid` of I/O queue `qid`; whether the target says that it did.
    pub fn abort(&mut self, qid: u16, cid: u16) -> Result<bool, Error> {
        self.submit_abort(qid, cid)?;
        self.aborted()
    }

    /// The first half of [`Host::abort`].
    pub fn submit_abort(&mut self, qid: u16, cid: u16) -> Result<(), Error> {
        self.admin.submit(Sqe::new(ABORT).u16(40, qid).u16(42, cid), &[], 0).map(drop)
    }

    /// The second half of [`Host::abort`].
    pub fn aborted(&mut self) -> Result<bool, Error> {
        let done = self.admin.complete()?;
        check(done.status, "abort")?;
        Ok(done.result & 1 == 0)
    }

    /// Flushes the namespace.
    pub fn flush(&mut self) -> Result<Status, Error> {
        Ok(self.io.run(flush_command(), &[], 0)?.status)
    }

    /// Zeroes `blocks` blocks at `lba`.
    pub fn write_zeroes(&mut self, lba: u64, blocks: u16) -> Result<Status, Error> {
        Ok(self.io.run(range(WRITE_ZEROES, lba, blocks), &[], 0)?.status)
    }

    /// Deallocates `blocks` blocks at `lba`.
    pub fn unmap(&mut self, lba: u64, blocks: u32) -> Result<Status, Error> {
        let mut descriptor = [0; 16];
        descriptor[4..8].copy_from_slice(&blocks.to_le_bytes());
        descriptor[8..].copy_from_slice(&lba.to_le_bytes());
        let command = Sqe::new(DATASET_MANAGEMENT).u32(4, 1).u32(40, 0).u32(44, 4);
        Ok(self.io.run(command, &descriptor, 0)?.status)
    }
}

fn check(status: Status, what: &'static str) -> Result<(), Error> {
    if status.ok() { Ok(()) } else { Err(Error::Setup(what, status)) }
}

fn io_queue(address: SocketAddr, nqn: &str, controller: u16, qid: u16, entries: u16) -> Result<Queue, Error> {
    let mut queue = Queue::open(address, false)?;
    connect_with(&mut queue, nqn, qid, controller, entries, "connect, I/O queue")?;
    Ok(queue)
}

fn connect(queue: &mut Queue, nqn: &str, qid: u16, controller: u16, what: &'static str) -> Result<u16, Error> {
    Ok(connect_with(queue, nqn, qid, controller, ENTRIES, what)? as u16)
}

/// The fabrics connect command; yields dword 0 of its completion, the controller's id.
fn connect_with(
    queue: &mut Queue,
    nqn: &str,
    qid: u16,
    controller: u16,
    entries: u16,
    what: &'static str,
) -> Result<u64, Error> {
    let mut data = vec![0; 1024];
    data[..16].copy_from_slice(b"bdev-remap tests");
    data[16..18].copy_from_slice(&controller.to_le_bytes());
    data[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
    data[512..512 + HOST_NQN.len()].copy_from_slice(HOST_NQN.as_bytes());
    let sqe = Sqe::new(FABRICS).byte(4, 0x01).u16(42, qid).u16(44, entries - 1);
    let done = queue.run(sqe, &data, 0)?;
    check(done.status, what)?;
    Ok(done.result)
}

/// Sets (4 bytes) or gets a controller property.
fn property(queue: &mut Queue, offset: u32, value: Option<u64>, what: &'static str) -> Result<u64, Error> {
    let kind = if value.is_some() { 0x00 } else { 0x04 };
    let sqe = Sqe::new(FABRICS).byte(4, kind).u32(44, offset).u64(48, value.unwrap_or(0));
    let done = queue.run(sqe, &[], 0)?;
    check(done.status, what)?;
    Ok(done.result)
}
