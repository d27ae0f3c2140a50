//! A simulated world for tests: a device in memory that fails as it is told, a runtime that is one thread, and a host's
//! I/O on them. Everything is deterministic. Behind the feature `sim`, and never part of a product.

mod device;
mod exec;
mod host;

pub use device::{FaultKind, Medium, PowerCut, SimDevice};
pub use exec::{Executor, SimEnv, pause};
pub use host::{SimHost, SimIo};
