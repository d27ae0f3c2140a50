//! How an I/O failed, and whether that failure is the medium's.
//!
//! The vbdev translates SPDK's completion into an [`IoStatus`] and asks it; nothing here knows SPDK.

use serde::{Deserialize, Serialize};

/// NVMe status code type "media and data integrity errors" (NVMe base specification, status field).
const SCT_MEDIA: u8 = 0x2;
/// NVMe "write fault", under [`SCT_MEDIA`].
const SC_WRITE_FAULT: u8 = 0x80;
/// NVMe "unrecovered read error", under [`SCT_MEDIA`].
const SC_UNRECOVERED_READ: u8 = 0x81;
/// NVMe status code type "generic command status".
const SCT_GENERIC: u8 = 0x0;
/// NVMe "command abort requested" and "aborted due to submission queue deletion", under [`SCT_GENERIC`].
const SC_ABORTED: std::ops::RangeInclusive<u8> = 0x7..=0x8;
/// NVMe status code type "path related status".
const SCT_PATH: u8 = 0x3;
/// SCSI sense key "medium error" (SPC-4, table of sense keys).
const SENSE_MEDIUM_ERROR: u8 = 0x3;

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStatus {
    /// An NVMe completion.
    Nvme {
        /// Command specific result.
        cdw0: u32,
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
    },
    /// A SCSI completion.
    Scsi {
        /// SCSI status code.
        sc: u8,
        /// Sense key.
        sk: u8,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
    /// A negative errno, as the AIO bdev reports it.
    Aio(i32),
    /// The unspecific FAILED status.
    Failed,
    /// Aborted, by a reset or by request.
    Aborted,
    /// No memory for it now.
    NoMemory,
    /// Any other `spdk_bdev_io_status`.
    Other(i32),
}

/// Which errors start a rescue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemapOn {
    /// Only what the device itself calls a media error.
    #[default]
    Media,
    /// Also the unspecific errors (AIO `-EIO`, FAILED) of devices that know no better.
    Any,
}

impl IoStatus {
    /// What a write of a block is answered with that cannot be relocated and was not tried on the base: NVMe write fault.
    pub const WRITE_FAULT: IoStatus = IoStatus::Nvme { cdw0: 0, sct: SCT_MEDIA, sc: SC_WRITE_FAULT };

    /// What a read of a lost block is answered with: NVMe unrecovered read error.
    pub const UNRECOVERED_READ: IoStatus = IoStatus::Nvme { cdw0: 0, sct: SCT_MEDIA, sc: SC_UNRECOVERED_READ };

    /// Whether this is a media error, one that moving the block to the spare can cure.
    #[must_use]
    pub fn is_media_error(self, on: RemapOn) -> bool {
        match self {
            IoStatus::Nvme { sct, sc, .. } => sct == SCT_MEDIA && (sc == SC_WRITE_FAULT || sc == SC_UNRECOVERED_READ),
            IoStatus::Scsi { sk, .. } => sk == SENSE_MEDIUM_ERROR,
            // ENODATA is what Linux makes of BLK_STS_MEDIUM.
            IoStatus::Aio(errno) => errno == -libc::ENODATA || (on == RemapOn::Any && errno == -libc::EIO),
            IoStatus::Failed => on == RemapOn::Any,
            IoStatus::Aborted | IoStatus::NoMemory | IoStatus::Other(_) => false,
        }
    }

    /// Whether the command was given up by somebody before the device itself had failed it.
    #[must_use]
    pub fn is_given_up(self) -> bool {
        match self {
            IoStatus::Aborted | IoStatus::NoMemory => true,
            IoStatus::Nvme { sct, sc, .. } => sct == SCT_PATH || (sct == SCT_GENERIC && SC_ABORTED.contains(&sc)),
            IoStatus::Scsi { .. } | IoStatus::Aio(_) | IoStatus::Failed | IoStatus::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvme(sct: u8, sc: u8) -> IoStatus {
        IoStatus::Nvme { cdw0: 7, sct, sc }
    }

    #[test]
    fn only_write_fault_and_unrecovered_read_are_nvme_media_errors() {
        for sct in 0..8 {
            for sc in 0..=255 {
                let expected = sct == 2 && (sc == 0x80 || sc == 0x81);
                assert_eq!(nvme(sct, sc).is_media_error(RemapOn::Media), expected, "{sct:#x}/{sc:#x}");
                assert_eq!(nvme(sct, sc).is_media_error(RemapOn::Any), expected, "{sct:#x}/{sc:#x}");
            }
        }
    }

    #[test]
    fn only_sense_key_3_is_a_scsi_media_error() {
        for sk in 0..16 {
            let status = IoStatus::Scsi { sc: 2, sk, asc: 0x11, ascq: 0 };
            assert_eq!(status.is_media_error(RemapOn::Any), sk == 3);
        }
    }

    #[test]
    fn unspecific_errors_count_only_with_remap_on_any() {
        for status in [IoStatus::Aio(-5), IoStatus::Failed] {
            assert!(!status.is_media_error(RemapOn::Media));
            assert!(status.is_media_error(RemapOn::Any));
        }
        assert!(IoStatus::Aio(-61).is_media_error(RemapOn::Media));
        for status in [IoStatus::Aio(-12), IoStatus::Aborted, IoStatus::NoMemory, IoStatus::Other(-1)] {
            assert!(!status.is_media_error(RemapOn::Any));
        }
    }

    #[test]
    fn only_aborts_and_lost_paths_say_nothing_of_the_device() {
        for sct in 0..8 {
            for sc in 0..=255 {
                let expected = sct == 3 || (sct == 0 && (sc == 7 || sc == 8));
                assert_eq!(nvme(sct, sc).is_given_up(), expected, "{sct:#x}/{sc:#x}");
            }
        }
        assert!(IoStatus::Aborted.is_given_up() && IoStatus::NoMemory.is_given_up());
        for status in [IoStatus::Aio(-libc::ENOSPC), IoStatus::Failed, IoStatus::Other(-1)] {
            assert!(!status.is_given_up());
        }
    }

    #[test]
    fn own_statuses_are_media_errors() {
        assert!(IoStatus::WRITE_FAULT.is_media_error(RemapOn::Media));
        assert!(IoStatus::UNRECOVERED_READ.is_media_error(RemapOn::Media));
    }
}
