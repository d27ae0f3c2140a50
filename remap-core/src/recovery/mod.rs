//! Recovery: what the remap log on the spare says, or why it must not be trusted.
//!
//! Called at open and by restore. It reads both copies of both log areas, finds the part that is in force
//! (`choose`), and replays its records. It never writes. The mirror of the log that wrote it.

mod choose;
mod faults;
mod given_up;
mod mappings;
mod replay;
mod reread;
mod scan;

#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use fixedbitset::FixedBitSet;
use futures_util::stream::{self, StreamExt, TryStreamExt};

pub use self::choose::{Candidate, InForce};
use self::choose::{Chosen, Known, candidates, choose, choose_stated};
use self::faults::faults;
pub use self::given_up::GivenUp;
pub use self::mappings::Mappings;
use self::replay::{Bounds, Pieces, Replay};
use self::reread::Reread;
use self::scan::{IN_FLIGHT, chunks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{PerArea, PerCopy, Superblock};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::remap_log::{Health, Position, hidden};
use crate::slot::SpareBlock;
use crate::spare::Spare;
use crate::units::{Epoch, Sequence};

pub(crate) use self::faults::PageFault;
pub(crate) use self::given_up::given_up;
pub(crate) use self::scan::{CHUNK_PAGES, PageState, Pages, Reader, owner};

/// A state of the log that an operator accepts although something is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedEnd {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last page.
    pub sequence: Sequence,
}

/// What the log says.
pub(crate) struct Recovered {
    pub(crate) mappings: Mappings,
    /// The spare blocks that these name, by index.
    pub(crate) used: FixedBitSet,
    pub(crate) bad: BTreeSet<SpareBlock>,
    pub(crate) position: Position,
    /// Of the log; nothing is said of the superblocks.
    pub(crate) log_ok: PerCopy<bool>,
    pub(crate) dirty: PerArea<bool>,
    /// Whether something was left that a fresh checkpoint should put right.
    pub(crate) unfinished: bool,
    /// Whether that has to be before any I/O is served: what cannot be read now, or was not chosen, may come back, and undo
    /// a write of a host.
    pub(crate) unsettled: bool,
}

impl Recovered {
    /// What a spare says that was just formatted.
    pub(crate) fn empty() -> Recovered {
        Recovered {
            mappings: Mappings::default(),
            used: FixedBitSet::new(),
            bad: BTreeSet::new(),
            position: Position::START,
            log_ok: PerCopy::BOTH,
            dirty: PerArea::default(),
            unfinished: false,
            unsettled: false,
        }
    }

    /// Whether all that is said is about the first `blocks` spare blocks.
    pub(crate) fn fits(&self, blocks: u32) -> bool {
        let used = self.used.maximum().is_none_or(|last| last < blocks as usize);
        used && self.bad.iter().all(|spare| spare.index() < blocks)
    }

    /// The health of the copies, with that of the superblocks.
    pub(crate) fn health(&self, superblock: PerCopy<bool>) -> Health {
        Health { log: self.log_ok, superblock, dirty: self.dirty }
    }
}

/// Which states an operator may choose from, and which of them is in force by itself, or why none is.
pub(crate) fn judge(areas: &PerArea<Pages>, superblock: &Superblock) -> (Vec<Candidate>, Result<InForce, Error>) {
    let known = Known::of(superblock);
    (candidates(areas, known), choose(areas, known).map(|chosen| InForce::of(&chosen)))
}

/// What is in force, or was chosen by an operator, and which pages are not what they should be.
///
/// # Errors
/// As [`recover`], where that refuses what the pages say.
pub(crate) fn find_faults(
    areas: &PerArea<Pages>,
    superblock: &Superblock,
    stated: Option<StatedEnd>,
) -> Result<(InForce, Vec<PageFault>), Error> {
    let chosen = choose_for(areas, superblock, stated)?;
    Ok((InForce::of(&chosen), faults(areas, &chosen, stated.is_some())))
}

fn choose_for(areas: &PerArea<Pages>, superblock: &Superblock, stated: Option<StatedEnd>) -> Result<Chosen, Error> {
    let known = Known::of(superblock);
    match stated {
        None => choose(areas, known),
        Some(stated) => choose_stated(areas, known, stated),
    }
}

/// Reads the log of the set that `superblock` describes; as far as `stated`, if an operator has chosen so.
///
/// # Errors
/// [`Error::NoCheckpoint`], [`Error::LogDamaged`], [`Error::EpochLost`], [`Error::PagesLost`], [`Error::NoSuchState`];
/// [`Error::Io`] for errors that say nothing about the medium, or if the flush fails that makes what is read durable;
/// [`Error::NoMemory`].
pub(crate) async fn recover<D: Device, E: Env>(
    spare: &Spare<D, E>,
    superblock: &Superblock,
    stated: Option<StatedEnd>,
    pace: Pace,
) -> Result<Recovered, Error> {
    // After a crash of the application the device may still have in its cache what is read now.
    if !active(Mutation::NoFlushBeforeReading) {
        spare.flush().await?;
    }
    let reader = Reader::new(spare, superblock);
    let areas = reader.scan().await?;
    let chosen = choose_for(&areas, superblock, stated)?;
    if !(chosen.top_epoch.has_room() && chosen.top_sequence.has_room() && superblock.has_room()) {
        return Err(damaged(&chosen, "numbers that cannot have been reached", chosen.end));
    }
    let replay = replay(&reader, &areas[chosen.area], &chosen, pace).await?;
    // Bad pages may hide attempts under higher epochs, which must not be used again; so may pages that were erased, until a checkpoint is above
    // them.
    let erased = superblock.hides_epochs();
    let hidden = if chosen.hidden || erased { hidden(spare.env().unix_time()) } else { 0 };
    let next_epoch = chosen.top_epoch.max(superblock.epoch).plus(1 + hidden);
    Ok(Recovered {
        mappings: replay.mappings,
        used: replay.used,
        bad: replay.bad,
        position: Position {
            area: chosen.area,
            epoch: chosen.epoch,
            first_sequence: chosen.first_sequence,
            checkpoint_pages: chosen.checkpoint_pages,
            next_page: chosen.end,
            next_epoch: Epoch::new(next_epoch.get()).ok_or(Error::NoCheckpoint)?,
            top_sequence: chosen.top_sequence.max(superblock.committed),
        },
        log_ok: chosen.log_ok,
        dirty: chosen.dirty,
        unfinished: chosen.unfinished || erased,
        unsettled: chosen.unsettled || erased,
    })
}

async fn replay<D: Device, E: Env>(
    reader: &Reader<'_, D, E>,
    pages: &Pages,
    chosen: &Chosen,
    pace: Pace,
) -> Result<Replay, Error> {
    let superblock = reader.superblock;
    let mut replay = Replay::new(Bounds::of(superblock), superblock.layout.pending_limit());
    match replay_pages(reader, pages, chosen, &mut replay, pace.clone()).await {
        Ok(()) => Ok(replay),
        Err(error) => {
            replay.mappings.give_up(pace).await;
            Err(error)
        }
    }
}

async fn replay_pages<D: Device, E: Env>(
    reader: &Reader<'_, D, E>,
    pages: &Pages,
    chosen: &Chosen,
    replay: &mut Replay,
    mut pace: Pace,
) -> Result<(), Error> {
    let superblock = reader.superblock;
    let again = Reread { reader, pages, chosen };
    let chunks = chunks(chosen.end).map(|(first, count)| again.together(first, count));
    let mut chunks = stream::iter(chunks).buffered(IN_FLIGHT);
    let mut left = 0..chosen.end;
    while let Some((chunk, count)) = chunks.try_next().await? {
        let mut together = chunk.iter().flat_map(|chunk| chunk.pages().map(|page| (chunk.first.copy, page)));
        for page in left.by_ref().take(count as usize) {
            let alone;
            let read = together.next();
            let as_seen = read.and_then(|(copy, (bytes, content))| again.as_seen(copy, page, bytes, content));
            let records = match as_seen {
                Some(records) => records,
                None => {
                    alone = again.alone(page).await?;
                    &alone
                }
            };
            let mut pieces = Pieces::new(records, superblock.slot);
            loop {
                let entries = replay.some(&mut pieces, page < chosen.checkpoint_pages);
                let entries = entries.map_err(|what| damaged(chosen, what, page))?;
                if entries == 0 {
                    break;
                }
                pace.step(entries).await;
            }
            if page + 1 == chosen.checkpoint_pages && !replay.ended() {
                return Err(damaged(chosen, "the checkpoint has no end", page));
            }
        }
        drop(together);
        chunk.into_iter().for_each(|chunk| reader.use_again(chunk));
    }
    Ok(())
}

fn damaged(chosen: &Chosen, what: &'static str, page: u32) -> Error {
    Error::LogDamaged { what, epoch: chosen.epoch, area: chosen.area.index(), page: u64::from(page) }
}
