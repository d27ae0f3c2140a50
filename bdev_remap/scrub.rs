//! `bdev_remap_scrub`: a job that goes on by itself, also in the next process. App thread.

use remap_core::{BaseLba, JobKind, format::ScrubPosition};
use spdk::{BdevHandle, Errno, rpc::Error};

use crate::{device::Remap, registry, status::to_rpc};

/// 10^6 bytes a second, unless told otherwise: a TB in six hours. It is a few per cent of what an SSD reads; a disk, of which it
/// is a third, gets its rests while hosts are at work.
const DEFAULT_MBPS: u32 = 50;

/// What is to be scrubbed.
pub struct Range {
    /// The first block; 0 unless told otherwise.
    pub lba: Option<u64>,
    /// How many; all that follow unless told otherwise.
    pub blocks: Option<u64>,
}

/// Begins a scrub.
pub fn start(name: &str, range: &Range, max_mbps: Option<u32>) -> Result<(), Error> {
    let (_, device) = registry::find(name)?;
    let total = device.table.base_blocks();
    let first = range.lba.unwrap_or(0);
    let blocks = range.blocks.unwrap_or(total.saturating_sub(first));
    let end = first.checked_add(blocks).filter(|end| blocks > 0 && *end <= total);
    let Some(end) = end else {
        let parameter = if range.blocks.is_some() { "num_blocks" } else { "lba" };
        let why =
            format!("{blocks} blocks from {first} on are not all on {name}, which has {total}; nothing was begun");
        return Err(Error::invalid(parameter, why));
    };
    let max_mbps = max_mbps.unwrap_or(DEFAULT_MBPS);
    begin(&device, ScrubPosition { next: BaseLba(first), end: BaseLba(end), max_mbps })
}

/// Has the scrub end soon.
pub fn cancel(name: &str) -> Result<(), Error> {
    let (_, device) = registry::find(name)?;
    let (engine, _) = device.for_moves().ok_or_else(not_here)?;
    engine.jobs().cancel(JobKind::Scrub).map_err(|error| to_rpc(name, &error))
}

/// Goes on with a scrub that the last process that had the set did not end.
pub fn resume(device: &BdevHandle<Remap>) {
    let Some(left) = device.for_moves().and_then(|(engine, _)| engine.unfinished_scrub()) else { return };
    if let Err(error) = begin(device, left) {
        log::warn!("the scrub is not gone on with: {}", error.message);
    }
}

fn begin(device: &BdevHandle<Remap>, plan: ScrubPosition) -> Result<(), Error> {
    let (engine, base) = device.for_moves().ok_or_else(not_here)?;
    let begun = engine.begin_scrub(base, plan, device.remap_on());
    begun.map(drop).map_err(|error| to_rpc(&device.name, &error))
}

fn not_here() -> Error {
    Error::new(Errno::NODEV, "not the owner thread")
}
