//! The rescue of a host's I/O: after a media error, or of a write that touches pending or lost blocks.
//!
//! Runs on the thread of the I/O, which is held meanwhile. It does the whole I/O again, what is good in bulk (`parts`), so
//! that only blocks that fail become pending (`read`) or are relocated (`write`, `relocate`). What may change the mapping it
//! asks of the [`Owner`], and it looks a part up again whenever that may have changed. It holds no lock, and waits for no
//! other I/O. The memory that it takes is bounded, however large the I/O is.

mod mirrored;
pub(crate) mod moves;
mod parts;
mod read;
mod relocate;
mod write;

use std::future::Future;

use self::parts::Part;

pub use self::moves::Run;
use crate::counters::Counters;
use crate::owner::{Owner, Refused};
use crate::route::At;
use crate::status::{IoStatus, RemapOn};
use crate::table::Table;
use crate::units::{BaseLba, Extent};

/// I/Os that are under way at one time, of one rescue.
const IN_FLIGHT: usize = 8;
/// Blocks with which a rescue goes to the owner at one time, at most.
const BATCH: usize = 1024;

/// What the host asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOp {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A write of zeroes, without data.
    WriteZeroes,
}

/// A host's I/O that is held while it is rescued.
pub trait HostIo {
    /// What the host asked for.
    fn op(&self) -> HostOp;

    /// The blocks that it asked for.
    fn range(&self) -> Extent;

    /// The block `offset` blocks into the I/O.
    fn block(&self, offset: u64) -> BaseLba {
        self.range().lba.plus(offset)
    }

    /// Whether the host does not wait for it any more, because of a reset or an abort. Then it ends with [`IoStatus::Aborted`]
    /// as soon as nothing of it is under way: nothing is issued, and nothing committed.
    fn is_given_up(&self) -> bool;

    /// Does the host's operation for `blocks` blocks, those `offset` blocks into the I/O, at `at` and on. Several may be
    /// under way at one time, for different blocks.
    fn issue(&self, offset: u64, blocks: u64, at: At) -> impl Future<Output = Result<(), IoStatus>>;
}

/// Does the whole of `io` again, relocating what has to be; the result is the host's.
///
/// # Errors
/// Of the blocks that were found to fail for good, the error of the first one. What comes behind the first 1,024 blocks that
/// failed is left as it is, if the I/O has failed for good by then.
pub async fn rescue<H: HostIo, O: Owner>(
    io: &H,
    table: &Table,
    owner: &O,
    on: RemapOn,
    counters: &Counters,
) -> Result<(), IoStatus> {
    let rescue = Rescue::new(io, table, owner, on, counters);
    match io.op() {
        HostOp::Read => rescue.read().await,
        HostOp::Write | HostOp::WriteZeroes if table.is_mirrored() => rescue.write_mirrored().await,
        HostOp::Write | HostOp::WriteZeroes => rescue.write().await,
    }
}

/// A part of the I/O that failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    /// Which, and where it was tried; nowhere, if it is pending or lost.
    part: Part,
    status: IoStatus,
}

/// The errors of an I/O: what the host gets is that of the first block.
#[derive(Default)]
struct Errors {
    first: Option<Failed>,
    /// Why the owner did not do something.
    refused: Option<Refused>,
}

impl Errors {
    fn add(&mut self, failed: Failed) {
        if self.first.is_none_or(|first| failed.part.offset < first.part.offset) {
            self.first = Some(failed);
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn into_result(self) -> Result<(), IoStatus> {
        self.first.map_or(Ok(()), |failed| Err(failed.status))
    }
}

pub(crate) struct Rescue<'a, H, O> {
    io: &'a H,
    table: &'a Table,
    owner: &'a O,
    on: RemapOn,
    counters: &'a Counters,
    /// I/Os that are under way at one time.
    in_flight: usize,
}

impl<'a, H: HostIo, O: Owner> Rescue<'a, H, O> {
    pub(crate) fn new(
        io: &'a H,
        table: &'a Table,
        owner: &'a O,
        on: RemapOn,
        counters: &'a Counters,
    ) -> Rescue<'a, H, O> {
        Rescue { io, table, owner, on, counters, in_flight: IN_FLIGHT }
    }

    /// The same, with so many I/Os under way at one time.
    pub(crate) fn with_in_flight(self, in_flight: usize) -> Rescue<'a, H, O> {
        Rescue { in_flight, ..self }
    }

    fn count_media_error(&self, at: At) {
        match self.io.op() {
            HostOp::Read => &self.counters.media_errors_read,
            HostOp::Write => &self.counters.media_errors_write,
            HostOp::WriteZeroes => &self.counters.media_errors_write_zeroes,
        }
        .add(1);
        if matches!(at, At::Spare(_)) {
            self.counters.media_errors_spare.add(1);
        }
    }

    fn refuse(&self, refused: Refused, failed: Failed, errors: &mut Errors) {
        self.counters.refused(refused);
        errors.refused = Some(refused);
        errors.add(failed);
    }

    fn is_media(&self, status: IoStatus) -> bool {
        status.is_media_error(self.on)
    }

    fn block(&self, offset: u64) -> BaseLba {
        self.io.block(offset)
    }
}
