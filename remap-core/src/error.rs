//! What can go wrong in an administrative operation: one sentence for the operator. The errno for the RPC is in [`mod@crate::errno`].
//!
//! The errors of I/O are [`crate::IoStatus`], those of a relocation [`crate::Refused`].

use thiserror::Error;
use uuid::Uuid;

use crate::format::superblock::NAME_MAX;
use crate::status::IoStatus;
use crate::units::{BaseLba, Epoch, MAX_BASE_BLOCKS, Sequence, SpareLba};

/// Why an administrative operation was refused or failed. Where opening fails, nothing was written to the spare, other
/// than where the sentence says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Metadata on the spare could not be read, written or flushed.
    #[error("cannot {what} the spare at block {lba}: {status:?}; check the spare bdev, then try again")]
    Io {
        /// "read", "write", "zero" or "flush".
        what: &'static str,
        /// First block of the failed access.
        lba: SpareLba,
        /// How it failed.
        status: IoStatus,
    },
    /// No buffer.
    #[error(
        "no memory for {blocks} blocks of metadata; nothing was changed; try again or give the application more memory"
    )]
    NoMemory {
        /// The size asked for, in blocks.
        blocks: u64,
    },
    /// The spare has no room for the metadata.
    #[error(
        "the spare of {have_mib} MiB is too small, at least {least_mib} MiB are needed with this block size; nothing was written; give a larger spare"
    )]
    TooSmall {
        /// Its size in MiB, rounded down.
        have_mib: u64,
        /// The least size in MiB.
        least_mib: u64,
    },
    /// The base is larger than records can say.
    #[error("the base of {blocks} blocks is too large, at most {MAX_BASE_BLOCKS} are supported; nothing was written")]
    BaseTooLarge {
        /// Its size in blocks.
        blocks: u64,
    },
    /// A block size that is not supported.
    #[error("block size {block_size} is not supported (512 to 65536 bytes are); nothing was written")]
    BlockSize {
        /// The size in bytes.
        block_size: u32,
    },
    /// The name does not fit into the superblock.
    #[error("the name has {len} bytes, 1 to {NAME_MAX} are allowed; nothing was written")]
    NameLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The spare is empty, and formatting was forbidden.
    #[error(
        "the spare is empty and format is \"never\"; nothing was written; create it with format \"auto\" to format the spare"
    )]
    Empty,
    /// A superblock area holds something else.
    #[error(
        "superblock {copy} of the spare holds data that is not ours; nothing was written; check that it is the right bdev, wipe it, or create with format \"force\" to overwrite it"
    )]
    Foreign {
        /// "A" or "B".
        copy: char,
    },
    /// The superblocks are gone, the log is not.
    #[error(
        "the superblocks of the spare are zero, but its remap log holds pages of set {set}: it was erased, or belongs to a set that lost them; nothing was written; restore its superblocks from a copy, or create with format \"force\" to give up what was remapped"
    )]
    Erased {
        /// The set that the pages belong to.
        set: Uuid,
    },
    /// There is no valid superblock, and the spare is not empty.
    #[error(
        "the spare has no valid superblock (copy A is {a}, copy B is {b}); nothing was written; format \"force\" starts afresh and gives up what was remapped"
    )]
    NoSuperblock {
        /// What copy A is.
        a: &'static str,
        /// What copy B is.
        b: &'static str,
    },
    /// The two superblocks belong to different sets.
    #[error(
        "the superblocks of the spare belong to different sets ({a} and {b}); nothing was written; wipe the one that is wrong"
    )]
    MixedSuperblocks {
        /// The set UUID in copy A.
        a: Uuid,
        /// The set UUID in copy B.
        b: Uuid,
    },
    /// The set belongs to another host.
    #[error(
        "the set belongs to host {found}, this is {expected}; nothing was written; create it by name to take it over, when the other host has let it go"
    )]
    OtherHost {
        /// In the superblock.
        found: Uuid,
        /// Of this host.
        expected: Uuid,
    },
    /// Written by a newer version.
    #[error(
        "the spare has format version {version} with incompatible features {features:#x}, this version knows {known}; nothing was written; use a newer bdev_remap"
    )]
    Version {
        /// The version found.
        version: u32,
        /// The unknown feature bits found.
        features: u64,
        /// The version that this code writes.
        known: u32,
    },
    /// Another block size than the spare was formatted with.
    #[error(
        "the spare was formatted with blocks of {found} bytes, the device has {expected}; nothing was written; use the devices that belong together"
    )]
    BlockSizeDiffers {
        /// In the superblock.
        found: u32,
        /// Of the device.
        expected: u32,
    },
    /// Another metadata size than the spare was formatted with.
    #[error(
        "the spare was formatted with {found} bytes of metadata a block, the base has {expected}; nothing was written; use the devices that belong together"
    )]
    MdSizeDiffers {
        /// In the superblock.
        found: u32,
        /// Of the base.
        expected: u32,
    },
    /// The spare belongs to another base.
    #[error(
        "the spare belongs to base {found}, not to {expected}; nothing was written; use the devices that belong together, or wipe the spare"
    )]
    ForeignBase {
        /// In the superblock.
        found: Uuid,
        /// Of the base.
        expected: Uuid,
    },
    /// The base has shrunk below a block that is remapped or pending.
    #[error(
        "the base had {found} blocks and has {expected} now, but block {used} of it is remapped or pending; nothing was written; bring the base back to its size",
        used = used.0
    )]
    BaseShrunk {
        /// In the superblock.
        found: u64,
        /// Of the base.
        expected: u64,
        /// The last block that the set has something to say of.
        used: BaseLba,
    },
    /// The set has another name.
    #[error(
        "the spare belongs to the Remap bdev \"{found}\", not \"{expected}\"; nothing was written; create it under its own name"
    )]
    NameDiffers {
        /// In the superblock.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// The set has another UUID than the user gave.
    #[error(
        "the spare belongs to the set {found}, not {expected}; nothing was written; leave the uuid away or give the right one"
    )]
    SetDiffers {
        /// In the superblock.
        found: Uuid,
        /// Asked for.
        expected: Uuid,
    },
    /// The spare is smaller than it was.
    #[error("the spare had {found} blocks and has {expected} now; nothing was written; bring it back to its size")]
    SpareSizeDiffers {
        /// In the superblock.
        found: u64,
        /// Of the device.
        expected: u64,
    },
    /// The base has grown more than can be followed while the set is open.
    #[error("the base has {blocks} blocks now, and {room} can be used until the set is opened again")]
    BaseOutgrown {
        /// Of the base.
        blocks: u64,
        /// That the table has room for.
        room: u64,
    },
    /// No superblock takes the new size of the base.
    #[error("the new size of the base cannot be noted on any copy of the superblock; the old one stays in use")]
    SizeNotNoted,
    /// The superblock is valid, but what it says cannot be.
    #[error(
        "the superblock contradicts itself ({what}); nothing was written; it was not written by this software, or is damaged"
    )]
    Superblock {
        /// What is wrong.
        what: &'static str,
    },
    /// The spare is not the active one of its set.
    #[error("the spare is {state}: its set is on the spare with UUID {other}; nothing was written; give that one")]
    NotActive {
        /// The state in the superblock.
        state: &'static str,
        /// The id of the spare that takes or took part in the migration.
        other: Uuid,
    },
    /// The spare to which all is to move belongs to a set.
    #[error(
        "the spare belongs to set {set} already; nothing was written; give an empty one, or wipe it if that set is not needed any more"
    )]
    SpareInUse {
        /// In its superblock.
        set: Uuid,
    },
    /// The spare to which all is to move is too small.
    #[error(
        "the spare has room for {room} blocks, {needed} are remapped; nothing was written; give a larger one, or remove blocks that the base takes back"
    )]
    SpareTooSmall {
        /// Blocks of its data area.
        room: u64,
        /// Remapped and lost blocks.
        needed: u64,
    },
    /// The spare to which all moves has become full.
    #[error("the new spare has no room left; the old one is in force, and has everything; give a larger one")]
    NewSpareFull,
    /// The bdev of the spare to which all moves has gone.
    #[error("the bdev of the new spare is being removed; the old one is in force, and has everything")]
    NewSpareRemoved,
    /// A thread has no way to a device.
    #[error("a thread has no memory for a channel to it; the old one is in force; try again")]
    NoChannel,
    /// A spare failed while all moved to another.
    #[error(
        "cannot {what} a spare: {status:?}; nothing was given up, the old spare is in force; check both spare bdevs, then try again"
    )]
    MigrationIo {
        /// "read" the old one, or "write" the new one.
        what: &'static str,
        /// How it failed.
        status: IoStatus,
    },
    /// The old spare of a migration may still be in force.
    #[error(
        "the other spare does not say that it was given up for this one ({successor}); nothing was written; use the active spare of the set"
    )]
    NotGivenUp {
        /// The spare that was to be opened.
        successor: Uuid,
    },
    /// The remap log does not hold all that it should.
    #[error(
        "the remap log on the spare is damaged ({what}, epoch {epoch}, area {area}, page {page}); nothing was written; do not write to the base without it; restore the spare from a copy if there is one"
    )]
    LogDamaged {
        /// What was found.
        what: &'static str,
        /// Of the checkpoint that was looked at.
        epoch: Epoch,
        /// The log area, 0 or 1.
        area: usize,
        /// The page of the area.
        page: u64,
    },
    /// The copies of the metadata cannot be made whole page by page.
    #[error(
        "the metadata cannot be repaired in place ({why}); nothing was written; let bdev_remap_create load the set, which writes it anew"
    )]
    NotRepairable {
        /// What would be wrong afterwards.
        why: &'static str,
    },
    /// The set cannot be brought to the state that was chosen.
    #[error(
        "the set cannot be brought to epoch {epoch}, sequence {sequence} in place ({why}); nothing was written; recover the data with this state, or restore the spare from a copy if there is one"
    )]
    NotReachable {
        /// As chosen.
        epoch: Epoch,
        /// As chosen.
        sequence: Sequence,
        /// What would be wrong afterwards, or meanwhile.
        why: &'static str,
    },
    /// Another state was chosen of a set that is in one.
    #[error(
        "the set is not refused, epoch {epoch}, sequence {sequence} of its remap log is in force; nothing was written; no other state can be chosen"
    )]
    NotRefused {
        /// In force.
        epoch: Epoch,
        /// In force.
        sequence: Sequence,
    },
    /// No checkpoint is complete on the spare.
    #[error(
        "the remap log on the spare has no complete checkpoint; nothing was written; restore the spare from a copy if there is one"
    )]
    NoCheckpoint,
    /// The superblock knows of a newer checkpoint than is found.
    #[error(
        "the superblock knows epoch {known} of the remap log, only {found} is found; nothing was written; restore the spare from a copy if there is one"
    )]
    EpochLost {
        /// In the superblock.
        known: Epoch,
        /// The newest complete checkpoint.
        found: Epoch,
    },
    /// The superblock knows of more log pages than are found.
    #[error(
        "the superblock knows that log page {known} was committed, the log ends at {found}; nothing was written; restore the spare from a copy if there is one"
    )]
    PagesLost {
        /// The sequence number in the superblock.
        known: Sequence,
        /// That of the last page found.
        found: Sequence,
    },
    /// What the operator was ready to accept is not what is there.
    #[error(
        "there is no log that ends at epoch {epoch}, sequence {sequence}; nothing was written; inspect the spare and choose one of the states that it lists"
    )]
    NoSuchState {
        /// As stated.
        epoch: Epoch,
        /// As stated.
        sequence: Sequence,
    },
    /// A checkpoint could not be written on any copy.
    #[error(
        "the checkpoint could not be written on any copy of the remap log; the mapping in memory is unchanged; check the spare bdev, or migrate to another spare"
    )]
    CheckpointFailed,
    /// The checkpoint does not fit.
    #[error(
        "the checkpoint needs {pages} pages, a log area has {room}; nothing was written; migrate to a larger spare"
    )]
    CheckpointTooLarge {
        /// Pages needed.
        pages: u64,
        /// Pages of an area.
        room: u64,
    },
    /// Wiping would lose data.
    #[error(
        "{blocks} blocks are remapped, their data would be lost; nothing was erased; remove them first, or wipe with force"
    )]
    StillRemapped {
        /// Remapped and lost blocks.
        blocks: u64,
    },
    /// The base failed while blocks were moved.
    #[error(
        "cannot {what} the base at block {lba}: {status:?}; what was not moved yet stays where it is; check the base bdev, then try again",
        lba = lba.0
    )]
    BaseIo {
        /// "read", "write" or "flush".
        what: &'static str,
        /// Where.
        lba: BaseLba,
        /// How it failed.
        status: IoStatus,
    },
    /// The spare is full.
    #[error(
        "no spare block is left; what was not relocated yet stays where it is; give a larger spare, or remove blocks that the base takes back"
    )]
    NoSpare,
    /// The spare has fewer free blocks than a list needs.
    #[error(
        "the list needs {needed} spare blocks, {free} are free; nothing was relocated; give a larger spare, or a shorter list"
    )]
    NotEnoughSpare {
        /// Blocks of the list that are on the base.
        needed: u64,
        /// Free spare blocks.
        free: u64,
    },
    /// A job did a part of what it was to do.
    #[error(
        "{why}; {added} blocks were relocated before that and stay so, {pending} could not be read and are pending"
    )]
    Partly {
        /// Why not all.
        why: Box<Error>,
        /// Blocks that were relocated.
        added: u64,
        /// Blocks that could not be read.
        pending: u64,
    },
    /// The storm brake is on.
    #[error(
        "the storm brake is on; what was not relocated yet stays where it is; find out why so many blocks failed, then re-arm it"
    )]
    Tripped,
    /// The base fails as a whole.
    #[error(
        "more than {limit} blocks could not be read within 60 s; those found before are pending, nothing else was changed; find out what the base suffers from, then scrub again"
    )]
    TooManyUnreadable {
        /// The storm limit.
        limit: u64,
    },
    /// The log cannot be written.
    #[error(
        "the remap log cannot be written on any copy; what was not moved yet stays where it is; check the spare bdev, or migrate to another spare"
    )]
    LogFailed,
    /// A job that this one cannot run beside.
    #[error(
        "{running} runs already; {wanted} was not begun, nothing was changed; wait until {running} has ended, or cancel it"
    )]
    JobRuns {
        /// What was asked for.
        wanted: &'static str,
        /// What runs.
        running: &'static str,
    },
    /// There is nothing to be cancelled.
    #[error("{kind} does not run; nothing was cancelled")]
    NoJob {
        /// What was to be cancelled.
        kind: &'static str,
    },
    /// The set is being closed, or was wiped.
    #[error("the set is being closed, or was wiped; nothing was begun, as nothing can be done with it any more")]
    Closed,
}
