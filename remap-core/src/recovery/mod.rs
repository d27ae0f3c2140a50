//! Recovery: what the remap log on the spare says, or why it must not be trusted.
//!
//! Called at open and by restore. It reads both copies of both log areas, finds the part that is in force
//! (`choose`), and replays its records. It never writes. The mirror of the log that wrote it.

mod choose;
mod replay;
mod scan;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::choose::{Chosen, choose};
use self::replay::Replay;
use self::scan::{Slot, scan_area};
use crate::device::Device;
use crate::error::Error;
use crate::format::record::RawRecord;
use crate::format::{Copy, PageContent, Superblock, decode_page};
use crate::remap_log::Position;
use crate::spare::Spare;
use crate::table::Mapping;
use crate::units::{BaseLba, SpareIndex};

/// What the log says.
pub(crate) struct Recovered {
    pub(crate) mappings: BTreeMap<BaseLba, Mapping>,
    pub(crate) bad: BTreeSet<SpareIndex>,
    pub(crate) position: Position,
    /// By copy: whether it holds all that it should.
    pub(crate) log_ok: [bool; 2],
    /// Whether a crash left something that a fresh checkpoint should put right before anything is appended.
    pub(crate) unfinished: bool,
    /// By area: whether it has bad pages.
    pub(crate) dirty: [bool; 2],
}

/// Reads the log of the set that `superblock` describes.
///
/// # Errors
/// [`Error::NoCheckpoint`], [`Error::LogDamaged`], [`Error::EpochLost`]; [`Error::Io`] if the flush fails that makes what
/// is read durable; [`Error::NoMemory`].
pub(crate) async fn recover<D: Device>(spare: &Spare<D>, superblock: &Superblock) -> Result<Recovered, Error> {
    let layout = &superblock.layout;
    // After a crash of the application the device may still have in its cache what is read now.
    spare.flush().await?;
    let areas = [
        scan_area(spare, layout, superblock.set_uuid, 0).await?,
        scan_area(spare, layout, superblock.set_uuid, 1).await?,
    ];
    let chosen = choose(&areas, superblock.epoch, superblock.missed_by_a)?;
    let slots = &areas[chosen.area];
    let mut replay = Replay::new(superblock.base_blocks, layout.data_blocks);
    for page in 0..chosen.end {
        let damaged = |what| Error::LogDamaged { what, epoch: chosen.epoch, area: chosen.area, page };
        let records = read_records(spare, superblock, slots, &chosen, page)
            .await?
            .ok_or_else(|| damaged("a page cannot be read again"))?;
        for record in &records {
            let result = if page < chosen.checkpoint_pages {
                replay.checkpoint_record(record)
            } else {
                replay.log_record(record)
            };
            result.map_err(damaged)?;
        }
        if page + 1 == chosen.checkpoint_pages && !replay.ended() {
            return Err(damaged("the checkpoint has no end"));
        }
    }
    let top_epoch = chosen.top.0.max(superblock.epoch);
    let position = Position {
        area: chosen.area,
        epoch: chosen.epoch,
        first_sequence: chosen.first_sequence,
        // It came from a u32.
        checkpoint_pages: chosen.checkpoint_pages as u32,
        next_page: chosen.end,
        // Bad pages may hide an attempt under the next epoch, which must not be used twice.
        next_epoch: top_epoch + 1 + u64::from(chosen.hidden),
        top_sequence: chosen.top.1,
    };
    Ok(Recovered {
        mappings: replay.mappings,
        bad: replay.bad,
        position,
        log_ok: chosen.log_ok,
        unfinished: chosen.unfinished,
        dirty: chosen.dirty,
    })
}

/// The records of a page that the scan found valid, from whichever copy still is; `None` if none is any more.
async fn read_records<D: Device>(
    spare: &Spare<D>,
    superblock: &Superblock,
    slots: &[Vec<Slot>; 2],
    chosen: &Chosen,
    page: u64,
) -> Result<Option<Vec<RawRecord>>, Error> {
    let layout = &superblock.layout;
    let index = usize::try_from(page).unwrap_or(usize::MAX);
    for copy in Copy::BOTH {
        let Some(Slot::Valid(seen, _)) = slots[copy.index()].get(index) else { continue };
        if seen.epoch != chosen.epoch {
            continue;
        }
        let buffer = match spare.read(layout.log_page(copy, chosen.area, page), layout.page_blocks()).await {
            Ok(buffer) => buffer,
            Err(error @ Error::NoMemory { .. }) => return Err(error),
            Err(_) => continue,
        };
        if let PageContent::Valid(info, records) = decode_page(buffer.as_ref(), superblock.set_uuid)
            && info == *seen
        {
            return Ok(Some(records.to_vec()));
        }
    }
    Ok(None)
}
