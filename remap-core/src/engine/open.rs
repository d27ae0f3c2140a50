//! Opening a spare: what its superblocks say, whether they may be used, and formatting an empty one.
//!
//! Only [`super::Engine::open`] calls it. A refusal has written nothing.

use std::rc::Rc;
use std::sync::Arc;

use super::report::{FormatPolicy, OpenParams};
use crate::counters::Counters;
use crate::device::Device;
use crate::error::Error;
use crate::format::layout::{page_geometry, superblock_b};
use crate::format::superblock::{NAME_MAX, VERSION};
use crate::format::{Copy, Layout, Record, SpareState, Superblock, SuperblockContent};
use crate::recovery::{Recovered, recover};
use crate::remap_log::{Log, Position};
use crate::spare::Spare;
use crate::units::MAX_BASE_BLOCKS;

/// A superblock area as it was found.
enum Found {
    Unreadable,
    Read(SuperblockContent),
}

impl Found {
    fn name(&self) -> &'static str {
        match self {
            Found::Unreadable => "unreadable",
            Found::Read(SuperblockContent::Valid(_)) => "valid",
            Found::Read(SuperblockContent::Newer { .. }) => "of a newer version",
            Found::Read(SuperblockContent::Impossible(_)) => "contradictory",
            Found::Read(SuperblockContent::Zero) => "zero",
            Found::Read(SuperblockContent::Corrupt) => "corrupt",
            Found::Read(SuperblockContent::Foreign) => "foreign",
        }
    }

    fn is_foreign(&self) -> bool {
        matches!(self, Found::Read(SuperblockContent::Foreign))
    }

    fn is_zero(&self) -> bool {
        matches!(self, Found::Read(SuperblockContent::Zero))
    }

    fn valid(&self) -> Option<&Superblock> {
        match self {
            Found::Read(SuperblockContent::Valid(superblock)) => Some(superblock),
            _ => None,
        }
    }
}

/// What is to be done with the spare.
enum Plan {
    Format,
    Load {
        superblock: Box<Superblock>,
        ok: [bool; 2],
        /// Whether the other copy is an older superblock, or was given up by the user.
        rewrite: bool,
    },
}

/// Reads or makes what the engine starts from. The log still has to write a checkpoint where [`Recovered::unfinished`].
pub(super) async fn open<D: Device>(
    spare: Rc<Spare<D>>,
    counters: Arc<Counters>,
    params: &OpenParams,
) -> Result<(Log<D>, Recovered), Error> {
    let len = params.name.len();
    if len == 0 || len > NAME_MAX {
        return Err(Error::NameLength { len });
    }
    if params.base_blocks > MAX_BASE_BLOCKS {
        return Err(Error::BaseTooLarge { blocks: params.base_blocks });
    }
    let geometry = spare.device.geometry();
    let (_, page_blocks) =
        page_geometry(geometry.block_size).ok_or(Error::BlockSize { block_size: geometry.block_size })?;
    let Some(superblock_b) = superblock_b(geometry.block_size, geometry.blocks) else {
        // Not even two pages: this says how many there should be.
        Layout::for_spare(geometry.block_size, geometry.blocks)?;
        return Err(Error::Superblock { what: "size of the device" });
    };
    let a = read_superblock(&spare, 0, page_blocks as u64).await?;
    let b = read_superblock(&spare, superblock_b, page_blocks as u64).await?;
    match plan(a, b, params, &spare)? {
        Plan::Format => format(spare, counters, params).await,
        Plan::Load { superblock, ok, rewrite } => {
            let mut recovered = recover(&spare, &superblock).await?;
            recovered.unfinished |= rewrite;
            let mut log = Log::new(spare, counters, *superblock, recovered.position, recovered.log_ok, ok);
            log.found_dirty(recovered.dirty);
            Ok((log, recovered))
        }
    }
}

async fn read_superblock<D: Device>(spare: &Spare<D>, lba: u64, page_blocks: u64) -> Result<Found, Error> {
    match spare.read(lba, page_blocks).await {
        Ok(buffer) => Ok(Found::Read(Superblock::decode(buffer.as_ref()))),
        Err(error @ Error::NoMemory { .. }) => Err(error),
        Err(_) => Ok(Found::Unreadable),
    }
}

/// What to do with a spare that has these superblocks.
fn plan<D: Device>(a: Found, b: Found, params: &OpenParams, spare: &Spare<D>) -> Result<Plan, Error> {
    let force = params.format == FormatPolicy::Force;
    for found in [&a, &b] {
        match found {
            Found::Read(SuperblockContent::Newer { version, features }) => {
                return Err(Error::Version { version: *version, features: *features, known: VERSION });
            }
            Found::Read(SuperblockContent::Impossible(what)) => return Err(Error::Superblock { what }),
            _ => {}
        }
    }
    // What a valid superblock says comes before what the other area holds: it may explain that.
    let newest = match (a.valid(), b.valid()) {
        (Some(a), Some(b)) if a.set_uuid != b.set_uuid || a.spare_id != b.spare_id => {
            return Err(Error::MixedSuperblocks { a: a.set_uuid, b: b.set_uuid });
        }
        (Some(a), Some(b)) if a.sequence == b.sequence && a != b => {
            return Err(Error::Superblock { what: "the copies differ" });
        }
        (Some(a), Some(b)) => Some(if b.sequence > a.sequence { b } else { a }),
        (a, b) => a.or(b),
    };
    if let Some(newest) = newest {
        check(newest, params, spare)?;
    }
    for (found, copy) in [(&a, Copy::A), (&b, Copy::B)] {
        if found.is_foreign() && !force {
            return Err(Error::Foreign { copy: copy.name() });
        }
    }
    match newest {
        Some(newest) => {
            let stale = [&a, &b].iter().any(|found| found.valid().is_some_and(|copy| copy != newest));
            let ok = [&a, &b].map(|found| found.valid() == Some(newest));
            let rewrite = stale || a.is_foreign() || b.is_foreign();
            Ok(Plan::Load { superblock: Box::new(newest.clone()), ok, rewrite })
        }
        None if a.is_zero() && b.is_zero() && params.format == FormatPolicy::Never => Err(Error::Empty),
        None if (a.is_zero() && b.is_zero()) || force => Ok(Plan::Format),
        None => Err(Error::NoSuperblock { a: a.name(), b: b.name() }),
    }
}

/// Whether the superblock fits the devices and what the user asked for.
fn check<D: Device>(found: &Superblock, params: &OpenParams, spare: &Spare<D>) -> Result<(), Error> {
    let geometry = spare.device.geometry();
    let layout = &found.layout;
    if layout.block_size != geometry.block_size {
        return Err(Error::BlockSizeDiffers { found: layout.block_size, expected: geometry.block_size });
    }
    if found.base_uuid != params.base_uuid {
        return Err(Error::ForeignBase { found: found.base_uuid, expected: params.base_uuid });
    }
    if let Some(set) = params.set_uuid
        && set != found.set_uuid
    {
        return Err(Error::SetDiffers { found: found.set_uuid, expected: set });
    }
    if found.base_blocks != params.base_blocks {
        return Err(Error::BaseSizeDiffers { found: found.base_blocks, expected: params.base_blocks });
    }
    if found.md_size != params.md_size {
        return Err(Error::MdSizeDiffers { found: found.md_size, expected: params.md_size });
    }
    if layout.spare_blocks != geometry.blocks {
        return Err(Error::SpareSizeDiffers { found: layout.spare_blocks, expected: geometry.blocks });
    }
    if found.name != params.name {
        return Err(Error::NameDiffers { found: found.name.clone(), expected: params.name.clone() });
    }
    if found.state != SpareState::Active {
        return Err(Error::NotActive { state: found.state.name(), other: found.state.other() });
    }
    Ok(())
}

/// Formats the spare: the log areas zero, an empty checkpoint, superblock B, superblock A. Before superblock B is there,
/// the spare is as empty as it was.
async fn format<D: Device>(
    spare: Rc<Spare<D>>,
    counters: Arc<Counters>,
    params: &OpenParams,
) -> Result<(Log<D>, Recovered), Error> {
    let geometry = spare.device.geometry();
    let layout = Layout::for_spare(geometry.block_size, geometry.blocks)?;
    let superblock = Superblock {
        set_uuid: params.set_uuid.unwrap_or(params.fresh_set_uuid),
        spare_id: params.fresh_spare_id,
        base_uuid: params.base_uuid,
        base_blocks: params.base_blocks,
        md_size: params.md_size,
        name: params.name.clone(),
        state: SpareState::Active,
        sequence: 0,
        epoch: 0,
        missed_by_a: 0,
        layout,
    };
    // Slots that were never written have to read as zeros.
    for copy in Copy::BOTH {
        for area in 0..2 {
            let blocks = u64::from(layout.area_pages) * layout.page_blocks();
            spare.zero(layout.log_page(copy, area, 0), blocks).await?;
        }
    }
    spare.flush().await?;
    let before = Position {
        area: 1,
        epoch: 0,
        first_sequence: 0,
        checkpoint_pages: 0,
        next_page: 0,
        next_epoch: 1,
        top_sequence: 0,
    };
    // No copy of anything is good yet, so superblock B is written first.
    let mut log = Log::new(spare, counters, superblock, before, [false; 2], [false; 2]);
    log.checkpoint(&[Record::EndOfCheckpoint]).await?;
    log::info!("{}: spare formatted, {} blocks for data", params.name, layout.data_blocks);
    let empty = Recovered {
        mappings: std::collections::BTreeMap::new(),
        bad: std::collections::BTreeSet::new(),
        position: before,
        log_ok: [true; 2],
        unfinished: false,
        dirty: [false; 2],
    };
    Ok((log, empty))
}
