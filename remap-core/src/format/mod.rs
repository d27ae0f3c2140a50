//! The format of the spare, little-endian, every structure with a CRC-32C over all of it. See `docs/format.md`.
//!
//! Used by the engine, its log, and recovery. Nothing here does I/O; decoding takes any bytes and never panics.

mod crc;
pub mod layout;
pub mod page;
pub mod place;
pub mod record;
pub mod superblock;

#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use page::{CopyB, PageAt, PageContent, PageInfo, PageOwner, decode_page, encode_page, records_per_page};
pub use place::{Area, Copy, PerArea, PerCopy};
pub use record::Record;
pub use superblock::{InUse, OtherSpare, ScrubPosition, SpareState, Superblock, SuperblockContent};
