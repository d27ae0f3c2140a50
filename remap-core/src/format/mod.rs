//! The format of the spare, little-endian, every structure with a CRC-32C over all of it. See `docs/format.md`.
//!
//! Used by the engine, its log, and recovery. Nothing here does I/O; decoding takes any bytes and never panics.

mod crc;
pub mod layout;
pub mod page;
pub mod record;
pub mod superblock;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "sim"))]
pub(crate) use crc::is_zero;
pub use layout::{Copy, Layout};
pub use page::{PageContent, PageInfo, decode_page, encode_page, records_per_page};
pub use record::Record;
pub use superblock::{SpareState, Superblock, SuperblockContent};
