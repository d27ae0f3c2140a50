//! What a rescue asks of the owner thread, the only one that changes a device's remap state.
//!
//! [`crate::Engine`] implements [`Owner`]; the vbdev wraps that in a call across threads, so arguments and results are
//! `Send + 'static`. Each answer is decided by the state when the owner gets to it, not by what the I/O saw.

use std::future::Future;

use thiserror::Error;

use crate::rescue::Run;
use crate::slot::SpareBlock;
use crate::status::IoStatus;
use crate::units::{BaseLba, Extent};

/// Where the data of a block that is to be relocated has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this spare block, newly reserved; then commit, or release it.
    New(SpareBlock),
    /// The block lives on this spare block already: write it there, nothing to commit.
    Existing(SpareBlock),
    /// The block is lost, and this is its spare block: write it there, then commit. Nothing to release.
    Fill(SpareBlock),
}

impl Target {
    /// The spare block.
    #[must_use]
    pub fn spare(self) -> SpareBlock {
        match self {
            Target::New(at) | Target::Existing(at) | Target::Fill(at) => at,
        }
    }
}

/// A mapping that is to become durable: the data is on the spare block already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The block of the base.
    pub lba: BaseLba,
    /// Where its data is now.
    pub to: SpareBlock,
}

/// What became of a [`Move`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable, and published.
    Done,
    /// The block got another spare block meanwhile; the reservation is given back. Ask [`Owner::reserve`] anew, and write
    /// the data where the block lives now.
    Elsewhere(SpareBlock),
}

/// A block of a write that is not on the other spare as it was written, so that it has to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncopied {
    /// The block of the base.
    pub lba: BaseLba,
    /// How the other spare failed.
    pub status: IoStatus,
    /// Whether that means that its spare block is bad.
    pub media: bool,
}

/// Why the owner thread did not do it. The mapping of the blocks is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No free spare block is left.
    #[error("no spare block is left")]
    NoSpare,
    /// The remap log cannot be written on any copy.
    #[error("the remap log cannot be written")]
    LogFailed,
    /// The storm brake is on.
    #[error("the storm brake is on")]
    Tripped,
    /// The set was wiped, or the reservation is not known (any more).
    #[error("the set is closed")]
    Closed,
}

/// The owner of a device's remap state.
pub trait Owner {
    /// Reserves a place on the spare for each of `blocks`; the answer has the same order. All or nothing.
    ///
    /// # Errors
    /// [`Refused::NoSpare`], [`Refused::Tripped`], [`Refused::Closed`].
    fn reserve(&self, blocks: Vec<BaseLba>) -> impl Future<Output = Result<Vec<Target>, Refused>>;

    /// Makes `moves` durable and publishes them; the answer has the same order. Their reservations are the owner's again,
    /// however it ends: the caller must not release them.
    ///
    /// # Errors
    /// [`Refused::LogFailed`], [`Refused::Closed`].
    fn commit(&self, moves: Vec<Move>) -> impl Future<Output = Result<Vec<Committed>, Refused>>;

    /// A write of `lba` to the spare block `bad` failed with a media error: takes `bad` out of use (recorded by the
    /// commit that moves the data away, or at once if it held nothing) and reserves another.
    ///
    /// # Errors
    /// As [`Owner::reserve`]. If `bad` was a reservation, it is used up in any case.
    fn replace(&self, lba: BaseLba, bad: SpareBlock) -> impl Future<Output = Result<Target, Refused>>;

    /// Gives reservations back that were not passed to [`Owner::commit`] or [`Owner::replace`]: their blocks are good.
    fn release(&self, reserved: Vec<SpareBlock>) -> impl Future<Output = ()>;

    /// Takes reservations out of use that turned out to be bad and are not replaced, and records that. Of `blocks`, those
    /// that are not reserved are left as they are.
    fn condemn(&self, blocks: Vec<SpareBlock>) -> impl Future<Output = ()>;

    /// Makes those of `blocks` pending, durably, that are neither remapped nor pending.
    ///
    /// # Errors
    /// [`Refused::LogFailed`], [`Refused::Closed`].
    fn set_pending(&self, blocks: Vec<BaseLba>) -> impl Future<Output = Result<(), Refused>>;

    /// Before a write of `range` while what is written goes to both spares: waits for other such writes of these blocks. The answer
    /// is what of the range is on the other spare. To be ended by [`Owner::end_mirrored`] in any case. Nothing, for those that only
    /// give blocks new places: these are copied later.
    fn begin_mirrored(&self, range: Extent) -> impl Future<Output = Vec<Run>> {
        let _ = range;
        std::future::ready(Vec::new())
    }

    /// The write is over, and was also done over there, other than for these blocks.
    fn end_mirrored(&self, range: Extent, uncopied: Vec<Uncopied>) -> impl Future<Output = ()> {
        let _ = (range, uncopied);
        std::future::ready(())
    }
}
