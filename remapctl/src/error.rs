//! How a command ends: what was found, or why it could not be done. Every sentence names the thing and says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error as ThisError;

use crate::rpc::Failure;

/// What a command has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Sound,
    /// It can be used, but a copy of something is damaged, or something cannot be read.
    Degraded,
    /// It would be refused.
    Refused,
}

impl Verdict {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Verdict::Sound => 0,
            Verdict::Degraded => 1,
            Verdict::Refused => 2,
        }
    }

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Degraded => "degraded",
            Verdict::Refused => "refused",
        }
    }
}

/// The exit code for a command line that cannot be understood.
pub const USAGE: u8 = 16;

/// Why a command did not do what it was to do.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A file or device that cannot be opened.
    #[error("{}: cannot be opened ({source}); nothing was done; check the path, and whether you may read it", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that has no blocks.
    #[error(
        "{}: this is neither a file nor a block device; nothing was done; give the device itself, or an image of it",
        path.display()
    )]
    NoBlocks {
        /// Which.
        path: PathBuf,
    },
    /// The set is not one that can be used.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The spare.
        path: PathBuf,
        /// The sentence that `bdev_remap_create` would answer.
        why: remap_core::Error,
    },
    /// No set is there.
    #[error("{}: the spare is empty, no set was ever on it; nothing was done; check that it is the right device", path.display())]
    Empty {
        /// The spare.
        path: PathBuf,
    },
    /// The spare could not be looked at.
    #[error("{}: {why}", path.display())]
    Spare {
        /// The spare.
        path: PathBuf,
        /// Why.
        why: remap_core::Error,
    },
    /// A folder that cannot be filled.
    #[error("{}: cannot be written ({source}); give a folder that you may write to", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An output that is there already.
    #[error("{}: it is there already; nothing was done; give another output, or --force to replace it if it is a file", path.display())]
    There {
        /// The output.
        path: PathBuf,
    },
    /// Extents that cannot all be of one set.
    #[error("the list of the set's blocks is not in order at block {lba}; nothing was drawn; run the command again")]
    Disorder {
        /// Where.
        lba: u64,
    },
    /// The blocks of the set have metadata beside the data.
    #[error(
        "{}: its blocks carry {bytes} bytes of metadata, which a file or block device does not show; nothing was done; copy the data through a running target",
        path.display()
    )]
    Metadata {
        /// The spare.
        path: PathBuf,
        /// How much.
        bytes: u32,
    },
    /// The output is there, and nobody knows what is in it.
    #[error(
        "{}: it is there already, and no map says what is in it; nothing was done; give another output, or remove it",
        path.display()
    )]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output is the base or the spare.
    #[error("{}: this is the base or the spare itself; nothing was done; give another output", path.display())]
    Input {
        /// The output.
        path: PathBuf,
    },
    /// The output is a block device.
    #[error(
        "{}: this is a block device; nothing was done; --force overwrites all that is on it", path.display()
    )]
    DeviceOutput {
        /// The output.
        path: PathBuf,
    },
    /// The output has no room for everything.
    #[error("{}: it has {has} bytes, {bytes} are needed; nothing was done; give a larger one", path.display())]
    OutputTooSmall {
        /// The output.
        path: PathBuf,
        /// Its size.
        has: u64,
        /// That of the base.
        bytes: u64,
    },
    /// An output that was begun is gone.
    #[error("{}: it is not there, although its map is; nothing was done; bring it back, or remove the map to begin again", path.display())]
    OutputGone {
        /// The output.
        path: PathBuf,
    },
    /// The output, or its map, cannot be written.
    #[error("{}: cannot be written ({source}); make room or give another output; the same command goes on", path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A map that is not of this recovery.
    #[error(
        "{}: the map is of {was}, this is {is}; nothing was done; what comes of both would be neither: remove map and output to begin again",
        path.display()
    )]
    Changed {
        /// The map.
        path: PathBuf,
        /// What it is of.
        was: String,
        /// What was given.
        is: String,
    },
    /// A map that was not written by this.
    #[error(
        "{}, line {number}: the map is not one of this recovery; nothing was done; remove map and output to begin again",
        path.display()
    )]
    Map {
        /// The map.
        path: PathBuf,
        /// Where.
        number: usize,
    },
    /// A base or spare that is not there any more.
    #[error(
        "{}: it cannot be read any more from block {lba} on ({source}); what was recovered is noted in the map; bring it back, and the same command goes on",
        path.display()
    )]
    Gone {
        /// Which.
        path: PathBuf,
        /// The block of it.
        lba: u64,
        /// Why.
        source: io::Error,
    },
    /// A spare that is to be written to is in use.
    #[error("{}: {who}; nothing was written; end that first, then give the same command", path.display())]
    InUse {
        /// The spare.
        path: PathBuf,
        /// Who, and how.
        who: String,
    },
    /// Nobody knows whether a spare that is to be written to is in use.
    #[error(
        "{}: some process may have it open that cannot be looked at from here; nothing was written; give the same command {advice}",
        path.display()
    )]
    Unseen {
        /// The spare.
        path: PathBuf,
        /// Where everybody can be seen.
        advice: String,
    },
    /// The undo file is there already.
    #[error(
        "{}: it is there already; nothing was written to the spare; keep it, as it may undo an earlier repair, and give another name by --undo",
        path.display()
    )]
    UndoExists {
        /// The file.
        path: PathBuf,
    },
    /// The undo file cannot be written.
    #[error("{}: the undo file cannot be written ({source}); nothing was written to the spare; make room, or give another name by --undo", path.display())]
    Undo {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that does not undo anything.
    #[error("{}: this is not an undo file of remapctl, or not all of one; nothing was written; give the file that the repair kept", path.display())]
    NoUndo {
        /// The file.
        path: PathBuf,
    },
    /// A spare that an undo file does not fit.
    #[error(
        "{}: it is not as the repair of {} has left it ({what}); nothing was written; what was there then does not belong here any more",
        path.display(), undo.display()
    )]
    OtherState {
        /// The spare.
        path: PathBuf,
        /// The file.
        undo: PathBuf,
        /// What is different.
        what: &'static str,
    },
    /// A spare that cannot be written to.
    #[error(
        "{}: cannot be written at block {lba} ({source}); the set is as before, or as it was to be; what was there is in the undo file; check the device, or copy it to another one and repair that",
        path.display()
    )]
    Write {
        /// The spare.
        path: PathBuf,
        /// Where.
        lba: u64,
        /// Why.
        source: io::Error,
    },
    /// What is there already may not be durable.
    #[error(
        "{}: what is there already cannot be made durable ({source}); nothing was written; check the device, or copy it to another one and repair that",
        path.display()
    )]
    NotFlushed {
        /// The spare.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written may not be durable.
    #[error(
        "{}: what is written cannot be made durable ({source}); the set is as before, or as it was to be; what was there is in the undo file; check the device, or copy it to another one and repair that",
        path.display()
    )]
    Sync {
        /// The spare.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A page that cannot be made any more, in a repair.
    #[error(
        "{}: what is to be at block {lba} cannot be made any more ({why}); the set is as before, or as it was to be; check the device, and give the same command with another --undo to go on, or --undo-from {} to go back",
        path.display(), undo.display()
    )]
    RepairStopped {
        /// The spare.
        path: PathBuf,
        /// Where.
        lba: u64,
        /// Why not, as [`Error::clause`].
        why: String,
        /// What was there.
        undo: PathBuf,
    },
    /// A repair of which nobody knows whether it did what it should.
    #[error(
        "{}: all was written and is durable, and cannot be read to see that it is there ({why}); what was there is in {}; check the device, then `remapctl check` it",
        path.display(), undo.display()
    )]
    NotVerified {
        /// The spare.
        path: PathBuf,
        /// Why not, as [`Error::clause`].
        why: String,
        /// What was there.
        undo: PathBuf,
    },
    /// A repair that did not do what it should.
    #[error(
        "{}: all was written, and is not there as it should be: the device does not keep what it is given; what was there is in {}; copy the spare to another device and repair that",
        path.display(), undo.display()
    )]
    NotWhole {
        /// The spare.
        path: PathBuf,
        /// What was there.
        undo: PathBuf,
    },
    /// A spare that was written to while its repair was planned.
    #[error("{}: it has changed meanwhile; nothing was written; make sure that nobody uses it, and give the same command again", path.display())]
    ChangedMeanwhile {
        /// The spare.
        path: PathBuf,
    },
    /// A signal, before the first write of a repair.
    #[error("{}: interrupted; nothing was written; give the same command again", path.display())]
    NotBegun {
        /// The spare.
        path: PathBuf,
    },
    /// A signal, in a repair.
    #[error(
        "{}: interrupted; the set is as before, or as it was to be; give the same command with another --undo to go on, or --undo-from {} to go back",
        path.display(), undo.display()
    )]
    RepairInterrupted {
        /// The spare.
        path: PathBuf,
        /// What was there.
        undo: PathBuf,
    },
    /// A signal, while a repair was undone.
    #[error("{}: interrupted; the same command goes on, from {}", path.display(), undo.display())]
    UndoInterrupted {
        /// The spare.
        path: PathBuf,
        /// What was there.
        undo: PathBuf,
    },
    /// A signal.
    #[error("interrupted; what was recovered is noted in the map, and the same command goes on")]
    Interrupted,
    /// There is no memory.
    #[error("there is no memory for a buffer; nothing more was done; end other programs, and the same command goes on")]
    Memory,
    /// A name that is neither that of a file nor that of a Remap bdev.
    #[error("{}: there is no such file or device, nor can it be a Remap bdev: {why}", path.display())]
    NeitherSpareNorSet {
        /// What was given.
        path: PathBuf,
        /// Why it is no Remap bdev.
        why: Failure,
    },
    /// What is asked of a Remap bdev, and only a spare can be asked.
    #[error(
        "{}: there is no such file or device; nothing was done; --at and --block-size are for spares: leave them out for a Remap bdev",
        path.display()
    )]
    NoSpare {
        /// What was given.
        path: PathBuf,
    },
    /// A set that has no bdev now.
    #[error(
        "{name}: the set is not online; nothing was done; bdev_remap_status says what it waits for; its spare can be listed"
    )]
    Offline {
        /// Its name.
        name: String,
    },
    /// An address that others can reach.
    #[error(
        "{address}: others can reach this address, and there is no password; nothing was done; listen at 127.0.0.1, or give --insecure-listen"
    )]
    NotLoopback {
        /// Which.
        address: SocketAddr,
    },
    /// An address at which nothing can be served.
    #[error("{address}: cannot be listened at ({source}); give a free one by --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is nobody who could watch.
    #[error("watch needs a terminal; nothing was done; serve tells the same to programs")]
    NoTerminal,
    /// The terminal cannot be used.
    #[error("the terminal cannot be used ({0}); try another one, or serve")]
    Terminal(io::Error),
    /// A target did not do what it was asked.
    #[error(transparent)]
    Target(#[from] Failure),
    /// What was found cannot be told.
    #[error("the output cannot be written ({0}); nothing else was changed; make room, or write it somewhere else")]
    Stdout(#[from] io::Error),
}

impl Error {
    /// Why the set on a spare is not used: refused, or not known.
    #[must_use]
    pub fn of_spare(path: PathBuf, why: remap_core::Error) -> Error {
        match why {
            remap_core::Error::Io { .. } | remap_core::Error::NoMemory { .. } => Error::Spare { path, why },
            why => Error::Refused { path, why },
        }
    }

    /// What has happened, without what is said of the spare and to be done: both are different where something was written before.
    #[must_use]
    pub fn clause(why: &remap_core::Error) -> String {
        why.to_string().split(';').next().unwrap_or_default().to_owned()
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Error::Refused { .. } | Error::Empty { .. } => Verdict::Refused.code(),
            Error::Interrupted
            | Error::NotBegun { .. }
            | Error::RepairInterrupted { .. }
            | Error::UndoInterrupted { .. } => 130,
            Error::NotLoopback { .. } | Error::NoSpare { .. } | Error::NoTerminal => USAGE,
            _ => 8,
        }
    }

    /// Whether nobody reads the output any more, as behind `| head`.
    #[must_use]
    pub fn nobody_reads(&self) -> bool {
        matches!(self, Error::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
