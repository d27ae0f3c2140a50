//! The outcome of a bdev I/O, with the status bytes of the device that failed it.

use spdk_sys as sys;

/// Why a bdev I/O failed (SPDK: `enum spdk_bdev_io_status` and the error union beside it, bdev_module.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// An NVMe status: completion dword 0, status code type, status code.
    Nvme {
        /// Completion queue entry dword 0.
        cdw0: u32,
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
    },
    /// A SCSI status: status code, sense key, additional sense code and qualifier.
    Scsi {
        /// Status code.
        sc: u8,
        /// Sense key.
        sk: u8,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
    /// A negative errno of the kernel's AIO.
    Aio(i32),
    /// No resources for the moment.
    NoMemory,
    /// Aborted on request, or by a reset.
    Aborted,
    /// Failed, nothing more is known.
    Failed,
    /// Any other `spdk_bdev_io_status`.
    Other(i32),
}

impl Status {
    /// The outcome of a bdev I/O that has completed.
    ///
    /// # Safety
    /// `io` points to a bdev I/O that has completed and is not yet freed.
    pub(crate) unsafe fn of(io: *const sys::spdk_bdev_io) -> Result<(), Status> {
        // SAFETY: the caller vouches for the pointer; the status says which member of the error union was set.
        unsafe {
            let internal = &(*io).internal;
            let status = i32::from(internal.status);
            Err(match status {
                sys::SPDK_BDEV_IO_STATUS_SUCCESS => return Ok(()),
                sys::SPDK_BDEV_IO_STATUS_NVME_ERROR => {
                    let nvme = internal.error.nvme;
                    Status::Nvme { cdw0: nvme.cdw0, sct: nvme.sct, sc: nvme.sc }
                }
                sys::SPDK_BDEV_IO_STATUS_SCSI_ERROR => {
                    let scsi = internal.error.scsi;
                    Status::Scsi { sc: scsi.sc, sk: scsi.sk, asc: scsi.asc, ascq: scsi.ascq }
                }
                sys::SPDK_BDEV_IO_STATUS_AIO_ERROR => Status::Aio(internal.error.aio_result),
                sys::SPDK_BDEV_IO_STATUS_NOMEM => Status::NoMemory,
                sys::SPDK_BDEV_IO_STATUS_ABORTED => Status::Aborted,
                sys::SPDK_BDEV_IO_STATUS_FAILED => Status::Failed,
                other => Status::Other(other),
            })
        }
    }

    /// Completes `io` with this outcome.
    ///
    /// # Safety
    /// `io` points to a bdev I/O that was submitted to this module and is not completed, on its own thread.
    pub(crate) unsafe fn complete(outcome: Result<(), Status>, io: *mut sys::spdk_bdev_io) {
        // SAFETY: the caller vouches for the pointer and the thread.
        unsafe {
            match outcome {
                // Not plain success: the error bytes of an earlier failed attempt would go up as completion dword 0.
                Ok(()) => sys::spdk_bdev_io_complete_nvme_status(io, 0, 0, 0),
                Err(Status::Nvme { cdw0, sct, sc }) => {
                    sys::spdk_bdev_io_complete_nvme_status(io, cdw0, sct.into(), sc.into())
                }
                Err(Status::Scsi { sc, sk, asc, ascq }) => {
                    sys::spdk_bdev_io_complete_scsi_status(io, sc.into(), sk.into(), asc, ascq)
                }
                Err(Status::Aio(errno)) => sys::spdk_bdev_io_complete_aio_status(io, errno),
                Err(Status::NoMemory) => sys::spdk_bdev_io_complete(io, sys::SPDK_BDEV_IO_STATUS_NOMEM),
                Err(Status::Aborted) => sys::spdk_bdev_io_complete(io, sys::SPDK_BDEV_IO_STATUS_ABORTED),
                Err(Status::Failed) => sys::spdk_bdev_io_complete(io, sys::SPDK_BDEV_IO_STATUS_FAILED),
                Err(Status::Other(status)) => sys::spdk_bdev_io_complete(io, status),
            }
        }
    }
}
