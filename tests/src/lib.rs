//! The harness of the end-to-end tests. It starts the real `spdk_tgt` with the built libraries, drives it by JSON-RPC and does
//! I/O over NVMe/TCP, one block at a time if need be, with the exact status that a host would see.
//!
//! Used by `tests/*.rs` only, which are one program. It never mocks anything and knows nothing of how bdev_remap works inside. Every
//! target lives in a temporary directory of its own, on ports of its own, and dies with the value that stands for it, also on a panic.

#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod crash;
pub mod far;
pub mod guest;
pub mod load;
pub mod model;
pub mod nvme_tcp;
pub mod random;
pub mod remapctl;
pub mod rpc;
pub mod scene;
pub mod set;
pub mod spare_format;
pub mod target;
pub mod wait;

use std::path::PathBuf;

/// The top of the project.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// A path below the project's `scripts/`.
pub fn script(name: &str) -> PathBuf {
    project().join("scripts").join(name)
}
