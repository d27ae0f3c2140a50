//! Opening a spare: whether what its superblocks say may be used, and formatting an empty one. A refusal has written nothing.

use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::report::{FormatPolicy, OpenParams};
use super::superblocks::{Found, newest, read_superblocks};
use crate::counters::Counters;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::page::{TELLING_PAGES, used_by};
use crate::format::superblock::{Kept, NAME_MAX, VERSION};
use crate::format::{
    Area, Copy, InUse, Layout, OtherSpare, PerArea, PerCopy, SpareState, Superblock, SuperblockContent,
};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::recovery::{CHUNK_PAGES, Recovered, recover};
use crate::remap_log::{Health, Log, Position, Records, hidden};
use crate::slot::Slot;
use crate::spare::Spare;
use crate::units::{Epoch, MAX_BASE_BLOCKS, Sequence, SpareLba};

/// What is to be done with the spare.
enum Plan {
    Format,
    Load {
        superblock: Box<Superblock>,
        ok: PerCopy<bool>,
        /// Whether the superblocks have to be written again at once.
        rewrite: bool,
        /// Whether the set belongs to another host as long as they are not.
        taken_over: bool,
    },
}

/// What a set starts from that is on a spare already; nothing was written to get it.
pub(super) struct Loaded {
    /// As it is to be from now on.
    pub(super) superblock: Superblock,
    /// Which copies say just that already.
    pub(super) superblock_ok: PerCopy<bool>,
    pub(super) recovered: Recovered,
}

/// Reads or makes what the engine starts from, and says which layout both superblocks know: what the spare has grown by beyond that
/// is not used yet. A checkpoint has to be written where [`Recovered::unfinished`].
pub(super) async fn open<D: Device, E: Env>(
    spare: Rc<Spare<D, E>>,
    counters: Arc<Counters>,
    params: &OpenParams,
) -> Result<(Log<D, E>, Recovered, Layout), Error> {
    let (found, loaded) = load(&spare, params).await?;
    let Some(Loaded { superblock, superblock_ok, recovered }) = loaded else {
        let (log, recovered) = format(spare, counters, params, &found).await?;
        let layout = log.superblock().layout;
        return Ok((log, recovered, layout));
    };
    let health = recovered.health(superblock_ok);
    let layout = superblock.layout;
    let valid = found.iter().filter_map(Found::valid).map(|found| found.layout);
    let smaller = valid.min_by_key(|one| one.data_blocks).filter(|one| one.data_blocks < layout.data_blocks);
    // More is in use already if a superblock gives an older state than was written.
    let known = smaller.filter(|smaller| recovered.fits(smaller.data_blocks)).unwrap_or(layout);
    // Superblock A may be as it was before the spare had grown.
    let of_a = found[Copy::A].valid().map(|a| a.layout);
    let former_b = of_a.filter(|a| a.superblock_b != layout.superblock_b && recovered.fits(a.data_blocks));
    let former_b = former_b.map(|a| a.superblock_b);
    let log = Log::new(spare, counters, superblock, recovered.position, health, former_b);
    Ok((log, recovered, known))
}

/// Reads all that opening starts from: the superblocks as they were found, and the set, or nothing if the spare is to be formatted.
/// Writes nothing.
pub(super) async fn load<D: Device, E: Env>(
    spare: &Spare<D, E>,
    params: &OpenParams,
) -> Result<(PerCopy<Found>, Option<Loaded>), Error> {
    let len = params.name.len();
    if len == 0 || len > NAME_MAX {
        return Err(Error::NameLength { len });
    }
    if params.base_blocks > MAX_BASE_BLOCKS {
        return Err(Error::BaseTooLarge { blocks: params.base_blocks });
    }
    let found = read_superblocks(spare).await?;
    let Plan::Load { mut superblock, ok, rewrite, taken_over } = plan(&found, params, spare).await? else {
        return Ok((found, None));
    };
    // Its records are those of the base as it was.
    let mut recovered = recover(spare, &superblock, params.stated_end, Pace::while_hosts_wait()).await?;
    let resized = match resize(&mut superblock, &recovered, params.base_blocks) {
        Ok(resized) => resized,
        Err(error) => {
            recovered.mappings.give_up(Pace::while_hosts_wait()).await;
            return Err(error);
        }
    };
    // What the last process had under way may be there or not, and be seen now or only the next time.
    let died = !superblock.was_closed() && !active(Mutation::DeathForgotten) && !active(Mutation::GoOnInTheSameEpoch);
    // The checkpoint takes into use what the spare has grown by.
    let grown = superblock.layout.spare_blocks < spare.geometry().blocks;
    recovered.unfinished |= rewrite || died || resized || grown;
    recovered.unsettled |= taken_over || resized;
    Ok((found, Some(Loaded { superblock: *superblock, superblock_ok: ok, recovered })))
}

/// What to do with a spare that has these superblocks.
async fn plan<D: Device, E: Env>(
    found: &PerCopy<Found>,
    params: &OpenParams,
    spare: &Spare<D, E>,
) -> Result<Plan, Error> {
    refuse_unknown(found)?;
    // One valid superblock that fits is enough, whatever became of the other.
    if let Some(mut superblock) = newest(found)? {
        check(&superblock, params, spare)?;
        let ok = PerCopy::each(|copy| found[copy].valid() == Some(&superblock));
        let unread = found.iter().any(|found| found.valid().is_none());
        let has_grown = superblock.layout.spare_blocks < spare.geometry().blocks;
        if (unread || has_grown) && !active(Mutation::SuperblockSequenceUsedTwice) {
            // The one that cannot be read may be newer, as may one at the new end of a device that has grown.
            superblock.sequence = superblock.sequence.plus(hidden(spare.env().unix_time()));
        }
        let claimed = !params.host_id.is_nil() && superblock.host_id != params.host_id;
        let taken_over = claimed && !superblock.host_id.is_nil();
        if claimed {
            // It comes from the spare, which may say anything.
            superblock.generation = superblock.generation.saturating_add(u64::from(taken_over));
            superblock.host_id = params.host_id;
        }
        // It was filled, and the other one given up for it.
        let comes_into_force = superblock.state != SpareState::Active;
        if comes_into_force {
            superblock.state = SpareState::Active;
            superblock.generation = superblock.generation.saturating_add(1);
        }
        let taken_over = taken_over || comes_into_force;
        let rewrite = claimed || comes_into_force || !ok.all();
        return Ok(Plan::Load { superblock: Box::new(superblock), ok, rewrite, taken_over });
    }
    if params.format == FormatPolicy::Force {
        return Ok(Plan::Format);
    }
    refuse_used(spare, found).await?;
    if params.format == FormatPolicy::Never { Err(Error::Empty) } else { Ok(Plan::Format) }
}

/// What another version has written is not touched.
fn refuse_unknown(found: &PerCopy<Found>) -> Result<(), Error> {
    for found in found.iter() {
        match found {
            Found::Read(SuperblockContent::Newer { version, features }) => {
                return Err(Error::Version { version: *version, features: *features, known: VERSION });
            }
            Found::Read(SuperblockContent::Impossible(what)) => return Err(Error::Superblock { what }),
            _ => {}
        }
    }
    Ok(())
}

/// A spare without a valid superblock is formatted only if it is empty.
async fn refuse_used<D: Device, E: Env>(spare: &Spare<D, E>, found: &PerCopy<Found>) -> Result<(), Error> {
    for copy in Copy::BOTH {
        if found[copy] == Found::Read(SuperblockContent::Foreign) {
            return Err(Error::Foreign { copy: copy.name() });
        }
    }
    if !found.iter().all(Found::is_zero) {
        return Err(Error::NoSuperblock { a: found[Copy::A].name(), b: found[Copy::B].name() });
    }
    log_of_erased(spare).await?.map_or(Ok(()), |set| Err(Error::Erased { set }))
}

/// The set of which a spare without superblocks still has a log, where that would be.
async fn log_of_erased<D: Device, E: Env>(spare: &Spare<D, E>) -> Result<Option<Uuid>, Error> {
    let geometry = spare.geometry();
    let layout = Layout::for_spare(geometry.block_size, geometry.blocks)?;
    let beginning = |copy, area| (layout.log_page(copy, area, 0), copy, TELLING_PAGES);
    let looked_at = [
        // All of the first area: before a device had grown, the other one began in there.
        (layout.log[Copy::A], Copy::A, layout.area_pages),
        beginning(Copy::A, Area::One),
        beginning(Copy::B, Area::Zero),
        beginning(Copy::B, Area::One),
    ];
    for (start, copy, pages) in looked_at {
        for first in (0..pages).step_by(CHUNK_PAGES as usize) {
            let at = start.plus(u64::from(first) * layout.page_blocks());
            if let Some(set) = used_in(spare, &layout, at, CHUNK_PAGES.min(pages - first), copy).await? {
                return Ok(Some(set));
            }
        }
    }
    Ok(None)
}

/// The set that any of `pages` pages from `at` on shows to have been in use. They are read together if that works, else one by one; what the
/// medium does not yield shows nothing.
async fn used_in<D: Device, E: Env>(
    spare: &Spare<D, E>,
    layout: &Layout,
    at: SpareLba,
    pages: u32,
    copy: Copy,
) -> Result<Option<Uuid>, Error> {
    let in_all = |bytes: &[u8]| bytes.chunks(layout.page_bytes as usize).find_map(|page| used_by(page, copy));
    if let Some(all) = spare.read(at, u64::from(pages) * layout.page_blocks()).await? {
        return Ok(in_all(all.as_ref()));
    }
    for page in 0..u64::from(pages) {
        let page = spare.read(at.plus(page * layout.page_blocks()), layout.page_blocks()).await?;
        if let Some(set) = page.and_then(|page| in_all(page.as_ref())) {
            return Ok(Some(set));
        }
    }
    Ok(None)
}

/// Whether the superblock fits the devices and what the user asked for.
fn check<D: Device, E: Env>(found: &Superblock, params: &OpenParams, spare: &Spare<D, E>) -> Result<(), Error> {
    let geometry = spare.geometry();
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
    if found.md_size != params.md_size {
        return Err(Error::MdSizeDiffers { found: found.md_size, expected: params.md_size });
    }
    if layout.spare_blocks > geometry.blocks {
        return Err(Error::SpareSizeDiffers { found: layout.spare_blocks, expected: geometry.blocks });
    }
    if found.name != params.name {
        return Err(Error::NameDiffers { found: found.name.clone(), expected: params.name.clone() });
    }
    let other = found.other.map(|other| other.id);
    let takes_over = found.state == SpareState::MigratingIn && other.is_some() && other == params.given_up;
    if found.state != SpareState::Active && !takes_over {
        let other = found.other.map(|other| other.id).unwrap_or_default();
        return Err(Error::NotActive { state: found.state.name(), other });
    }
    let known_host = found.host_id.is_nil() || params.host_id.is_nil() || found.host_id == params.host_id;
    if !known_host && !params.take_over {
        return Err(Error::OtherHost { found: found.host_id, expected: params.host_id });
    }
    Ok(())
}

/// Follows the size of the base; whether that has changed. Records beyond the old size can be made only when the superblocks
/// have the new one, and records beyond the new size have to be out of force before they do: by the checkpoint that follows.
fn resize(superblock: &mut Superblock, recovered: &Recovered, blocks: u64) -> Result<bool, Error> {
    let found = std::mem::replace(&mut superblock.base_blocks, blocks);
    if found == blocks {
        return Ok(false);
    }
    // No record is beyond the size that was found.
    if blocks < found
        && let Some(used) = recovered.mappings.last().filter(|used| used.0 >= blocks)
    {
        return Err(Error::BaseShrunk { found, expected: blocks, used });
    }
    log::warn!("{}: the base had {found} blocks and has {blocks} now", superblock.name);
    Ok(true)
}

/// Formats the spare: the log areas zero, an empty checkpoint, superblock B, superblock A. Before superblock B is there,
/// the spare is as empty as it was. What was `found` in the place of a superblock goes first.
async fn format<D: Device, E: Env>(
    spare: Rc<Spare<D, E>>,
    counters: Arc<Counters>,
    params: &OpenParams,
    found: &PerCopy<Found>,
) -> Result<(Log<D, E>, Recovered), Error> {
    let geometry = spare.geometry();
    let layout = Layout::for_spare(geometry.block_size, geometry.blocks)?;
    let superblock = Superblock {
        set_uuid: params.set_uuid.unwrap_or(params.fresh_set_uuid),
        base_uuid: params.base_uuid,
        host_id: params.host_id,
        generation: 1,
        sequence: Sequence::ZERO,
        written_at: 0,
        epoch: Epoch::ZERO,
        committed: Sequence::ZERO,
        noted_epoch: Epoch::ZERO,
        in_use: InUse::No,
        base_blocks: params.base_blocks,
        md_size: params.md_size,
        name: params.name.clone(),
        slot: Slot::FIRST,
        spare_id: params.fresh_spare_id,
        state: SpareState::Active,
        other: None,
        layout,
        scrub: None,
        compat: 0,
        kept: Kept::default(),
    };
    let log = format_as(spare, counters, superblock, found).await?;
    log::info!("{}: spare formatted, {} blocks for data", params.name, layout.data_blocks);
    Ok((log, Recovered::empty()))
}

/// Formats a spare of a set that is on another one, to which it is to move: see [`super::Engine::prepare`].
pub(super) async fn format_beside<D: Device, E: Env>(
    spare: Rc<Spare<D, E>>,
    counters: Arc<Counters>,
    in_force: &Superblock,
    id: Uuid,
    force: bool,
    needed: u64,
) -> Result<Log<D, E>, Error> {
    let geometry = spare.geometry();
    if geometry.block_size != in_force.layout.block_size {
        return Err(Error::BlockSizeDiffers { found: in_force.layout.block_size, expected: geometry.block_size });
    }
    let layout = Layout::for_spare(geometry.block_size, geometry.blocks)?;
    if u64::from(layout.data_blocks) < needed {
        return Err(Error::SpareTooSmall { room: layout.data_blocks.into(), needed });
    }
    let found = read_superblocks(&spare).await?;
    refuse_unknown(&found)?;
    // What an earlier migration of this set has left is not in force, as the other one is.
    let is_left = |found: &Superblock| {
        found.set_uuid == in_force.set_uuid && found.spare_id != in_force.spare_id && found.state != SpareState::Active
    };
    let mut valid = found.iter().filter_map(Found::valid);
    match valid.find(|found| !is_left(found)) {
        Some(other) => return Err(Error::SpareInUse { set: other.set_uuid }),
        None if force || found.iter().any(|found| found.valid().is_some()) => {}
        None => refuse_used(&spare, &found).await?,
    }
    let superblock = Superblock {
        slot: in_force.slot.other(),
        spare_id: id,
        state: SpareState::MigratingIn,
        other: Some(OtherSpare { id: in_force.spare_id, state: SpareState::Active }),
        epoch: Epoch::ZERO,
        committed: Sequence::ZERO,
        noted_epoch: Epoch::ZERO,
        in_use: InUse::No,
        layout,
        ..in_force.clone()
    };
    format_as(spare, counters, superblock, &found).await
}

/// Formats a spare with this superblock.
async fn format_as<D: Device, E: Env>(
    spare: Rc<Spare<D, E>>,
    counters: Arc<Counters>,
    superblock: Superblock,
    found: &PerCopy<Found>,
) -> Result<Log<D, E>, Error> {
    let layout = superblock.layout;
    // Slots that were never written have to read as zeros.
    for start in layout.log_areas() {
        spare.zero(start, layout.area_blocks()).await?;
    }
    // One that cannot be read now may be that of another set, and come back beside the new one.
    for copy in Copy::BOTH {
        if !found[copy].is_zero() {
            spare.zero(layout.superblock(copy), layout.page_blocks()).await?;
        }
    }
    spare.flush().await?;
    // No copy of anything is good yet, so superblock B is written first.
    let health = Health { log: PerCopy::NONE, superblock: PerCopy::NONE, dirty: PerArea::default() };
    let mut log = Log::new(spare, counters, superblock, Position::START, health, None);
    log.checkpoint(&Records::none()).await?;
    Ok(log)
}
