//! The errno with which the RPC answers an [`Error`].

use crate::error::Error;

impl Error {
    /// The negative errno that belongs to the error for the RPC.
    #[must_use]
    pub fn errno(&self) -> i32 {
        -match self {
            Error::Partly { why, .. } => return why.errno(),
            Error::Io { .. }
            | Error::BaseIo { .. }
            | Error::MigrationIo { .. }
            | Error::CheckpointFailed
            | Error::LogFailed
            | Error::SizeNotNoted
            | Error::TooManyUnreadable { .. } => libc::EIO,
            Error::NoMemory { .. } | Error::NoChannel => libc::ENOMEM,
            Error::NewSpareRemoved => libc::ENODEV,
            Error::TooSmall { .. }
            | Error::CheckpointTooLarge { .. }
            | Error::NoSpare
            | Error::NewSpareFull
            | Error::SpareTooSmall { .. }
            | Error::NotEnoughSpare { .. } => libc::ENOSPC,
            Error::BaseTooLarge { .. }
            | Error::BlockSize { .. }
            | Error::NameLength { .. }
            | Error::BlockSizeDiffers { .. }
            | Error::MdSizeDiffers { .. }
            | Error::ForeignBase { .. }
            | Error::BaseShrunk { .. }
            | Error::BaseOutgrown { .. }
            | Error::SpareSizeDiffers { .. }
            | Error::NameDiffers { .. }
            | Error::SetDiffers { .. }
            | Error::NoSuchState { .. }
            | Error::NotRefused { .. } => libc::EINVAL,
            Error::Empty | Error::Closed => libc::ENODEV,
            Error::NoJob { .. } => libc::ENOENT,
            Error::Foreign { .. }
            | Error::SpareInUse { .. }
            | Error::MixedSuperblocks { .. }
            | Error::Erased { .. } => libc::EEXIST,
            Error::Version { .. } => libc::ENOTSUP,
            Error::NotActive { .. } | Error::NotGivenUp { .. } => libc::ESTALE,
            Error::NoSuperblock { .. }
            | Error::Superblock { .. }
            | Error::LogDamaged { .. }
            | Error::NotRepairable { .. }
            | Error::NotReachable { .. }
            | Error::NoCheckpoint
            | Error::EpochLost { .. }
            | Error::PagesLost { .. } => libc::EUCLEAN,
            Error::StillRemapped { .. } | Error::OtherHost { .. } | Error::JobRuns { .. } | Error::Tripped => {
                libc::EBUSY
            }
        }
    }
}
