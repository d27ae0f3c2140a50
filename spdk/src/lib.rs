//! What is needed to write an SPDK bdev module in safe Rust. Knows nothing of remapping.
//!
//! A module author implements [`BdevModule`] and [`Bdev`], declares one `static` [`Module`] and calls [`Module::register`]
//! from a constructor. I/O arrives as an [`Io`], a handle that is consumed by its completion. Everything off the hot
//! path is `async` and runs on the executor of the current SPDK thread ([`thread::spawn`]).
//!
//! Private trampolines translate between C callbacks and these traits. No callback unwinds: the release build aborts on
//! panic, and nothing here panics on input.

#![deny(missing_docs)]

pub mod abi;
mod aside;
mod bdev;
mod callback;
mod desc;
mod dma;
mod endpoint;
mod errno;
mod fan;
mod flight;
mod fn_table;
mod held;
mod hidden;
mod io;
mod io_ref;
mod json;
mod kind;
pub mod logger;
mod memory;
mod module;
mod next_round;
pub mod notify;
pub mod rpc;
mod sleep;
mod status;
mod submit;
pub mod thread;
mod visit;

pub use aside::{Aside, OnTurn};
pub use bdev::{Bdev, BdevHandle, Properties, WeakBdev};
pub use desc::{BdevInfo, Desc, Event, bdev_exists};
pub use dma::DmaBuf;
pub use endpoint::Endpoint;
pub use errno::Errno;
pub use fan::{OnFan, Part, Sent, Window};
pub use held::{Held, Hold};
pub use hidden::HiddenMemory;
pub use io::{Incoming, Io, OnChild, OnFree, Resubmit};
pub use io_ref::{IoId, IoRef};
pub use kind::{Abort, Flush, IoKind, Kind, Other, Ranged, Read, Reset, Transfer, Unmap, Write, WriteZeroes};
pub use memory::MemoryDomain;
pub use module::{BdevModule, Module, wait_for_examine};
pub use next_round::NextRound;
pub use sleep::sleep;
pub use status::Status;
pub use submit::Child;
