//! The same error in the words of `spdk` and of `remap-core`, which know nothing of each other.

use std::fmt::Display;

use remap_core::IoStatus;
use spdk::{Status, rpc};

/// SPDK's status for `remap-core`.
pub fn to_core(status: Status) -> IoStatus {
    match status {
        Status::Nvme { cdw0, sct, sc } => IoStatus::Nvme { cdw0, sct, sc },
        Status::Scsi { sc, sk, asc, ascq } => IoStatus::Scsi { sc, sk, asc, ascq },
        Status::Aio(errno) => IoStatus::Aio(errno),
        Status::NoMemory => IoStatus::NoMemory,
        Status::Aborted => IoStatus::Aborted,
        Status::Failed => IoStatus::Failed,
        Status::Other(status) => IoStatus::Other(status),
    }
}

/// `remap-core`'s status for SPDK.
pub fn to_spdk(status: IoStatus) -> Status {
    match status {
        IoStatus::Nvme { cdw0, sct, sc } => Status::Nvme { cdw0, sct, sc },
        IoStatus::Scsi { sc, sk, asc, ascq } => Status::Scsi { sc, sk, asc, ascq },
        IoStatus::Aio(errno) => Status::Aio(errno),
        IoStatus::NoMemory => Status::NoMemory,
        IoStatus::Aborted => Status::Aborted,
        IoStatus::Failed => Status::Failed,
        IoStatus::Other(status) => Status::Other(status),
    }
}

/// `remap-core`'s error for the caller of an RPC; `what` it is about comes first.
pub fn to_rpc(what: impl Display, error: &remap_core::Error) -> rpc::Error {
    rpc::Error { code: error.errno(), message: format!("{what}: {error}") }
}
