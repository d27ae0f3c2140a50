//! Checkpoints: the whole table, written to the log area that is not in use, under a new epoch.
//!
//! Copy A wholly, flush, copy B wholly, flush, then the superblocks one after the other. Only then is the new area
//! appended to. Until then the old area is in force: nothing was committed in between, so both say the same.

use super::records::Counted;
use super::{Log, Position, Records, Sealed};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, InUse, Layout, PageAt, PageInfo, PerArea, PerCopy, encode_page};
use crate::mutation::{Mutation, active};
use crate::units::Epoch;

/// Pages that are written at once.
const CHUNK_PAGES: usize = 32;

/// A page is encoded in the time of so many entries.
const ENCODED_AS: usize = 32;

/// A checkpoint that became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) epoch: Epoch,
    /// Size of one copy.
    pub(crate) bytes: u64,
    /// Whether all copies of log and superblock took it.
    pub(crate) all_copies: bool,
}

/// How writing one copy of a checkpoint failed.
struct CopyFailed {
    error: Error,
    /// Whether the last page may be on the medium.
    reached_end: bool,
}

impl<D: Device, E: Env> Log<D, E> {
    /// Writes `records` as a checkpoint under a new epoch, and goes on behind it.
    ///
    /// # Errors
    /// [`Error::CheckpointTooLarge`], [`Error::CheckpointFailed`]: the old area stays in force, if it was.
    pub(crate) async fn checkpoint(&mut self, records: &Records<'_>) -> Result<Saved, Error> {
        let layout = &self.superblock.layout;
        let capacity = self.page_capacity().max(1);
        let records = records.count(capacity * CHUNK_PAGES).await;
        let pages = records.len().div_ceil(capacity) as u64;
        let too_large = Error::CheckpointTooLarge { pages, room: u64::from(layout.area_pages) };
        // One page at least has to be left for what comes behind it.
        let pages = u32::try_from(pages).ok().filter(|pages| *pages < layout.area_pages).ok_or(too_large)?;
        if let Some(grown) = self.grown()
            && let Some((next, written)) = self.write_grown(grown, pages, &records).await?
        {
            return self.enter(next, written).await;
        }
        let next = self.next_position(pages)?;
        let written = self.write_copies(&next, &records).await.ok_or(Error::CheckpointFailed)?;
        self.enter(next, written).await
    }

    /// The layout that the next checkpoint is written in, if the device has grown.
    pub(crate) fn grown(&self) -> Option<Layout> {
        self.superblock.layout.grown(self.spare.geometry().blocks)
    }

    /// Writes a checkpoint as `grown` has it: nothing that is in force is written over. Says to which copies; `None` if copy B could
    /// not be written, which moves: then the layout is what it was.
    async fn write_grown(
        &mut self,
        grown: Layout,
        pages: u32,
        records: &Counted<'_>,
    ) -> Result<Option<(Position, PerCopy<bool>)>, Error> {
        let next = self.next_position(pages)?;
        let before = std::mem::replace(&mut self.superblock.layout, grown);
        let mut ready = true;
        if grown.log != before.log {
            // Anything may be there, as what an attempt has left that nothing tells of.
            self.dirty = PerArea::each(|_| true);
            ready = self.clean_copy(Copy::B, next.area.other()).await;
        }
        let written = if ready { self.write_copies(&next, records).await } else { None };
        let Some(written) = written.filter(|written| written[Copy::B]) else {
            // What is complete, in one copy, recovery prefers to the area in force.
            self.sealed = Some(Sealed::InDoubt);
            self.superblock.layout = before;
            log::warn!("{}: what the spare has grown by is not used yet", self.superblock.name);
            return Ok(None);
        };
        if grown.superblock_b != before.superblock_b {
            // There is none yet; it is written first. Until it is there, superblock A tells all.
            self.superblock_ok[Copy::B] = false;
            self.former_b.get_or_insert(before.superblock_b);
        }
        Ok(Some((next, written)))
    }

    /// Goes on behind a checkpoint that was written to these copies.
    async fn enter(&mut self, next: Position, written: PerCopy<bool>) -> Result<Saved, Error> {
        self.position = next;
        self.log_ok = written;
        self.superblock.epoch = next.epoch;
        self.superblock.committed = next.last();
        self.superblock.in_use = InUse::Yes;
        self.superblock.noted_epoch = if written.all() { Epoch::ZERO } else { next.epoch };
        (self.sealed, self.only_read) = (None, false);
        if !self.write_superblocks().await {
            self.sealed = Some(Sealed::InDoubt);
            return Err(Error::CheckpointFailed);
        }
        self.counters.checkpoints.add(1);
        let all_copies = self.log_ok.all() && self.superblock_ok.all();
        let bytes = u64::from(next.checkpoint_pages) * u64::from(self.superblock.layout.page_bytes);
        Ok(Saved { epoch: next.epoch, bytes, all_copies })
    }

    /// Where a checkpoint of `pages` pages goes. Neither its epoch nor its sequence numbers are ever used again, however
    /// it ends.
    fn next_position(&mut self, pages: u32) -> Result<Position, Error> {
        let Position { area, next_epoch: epoch, top_sequence, .. } = self.position;
        let next_epoch = Epoch::new(epoch.get() + 1).ok_or(Error::CheckpointFailed)?;
        let first_sequence = top_sequence.plus(1);
        let top_sequence = top_sequence.plus(u64::from(pages));
        if !active(Mutation::EpochUsedTwice) {
            self.position.next_epoch = next_epoch;
        }
        self.position.top_sequence = top_sequence;
        let area = area.other();
        let checkpoint_pages = pages;
        Ok(Position { area, epoch, first_sequence, checkpoint_pages, next_page: pages, next_epoch, top_sequence })
    }

    /// Writes one copy after the other, and says which were; `None` if none was.
    async fn write_copies(&mut self, next: &Position, records: &Counted<'_>) -> Option<PerCopy<bool>> {
        let clean = if self.dirty[next.area] && !active(Mutation::AreaNotZeroed) {
            self.clean(next.area).await
        } else {
            PerCopy::BOTH
        };
        let mut written = PerCopy::NONE;
        for copy in Copy::BOTH {
            // A bad page that is left where the log will end could not be told from a lost one.
            if !clean[copy] {
                continue;
            }
            match self.write_copy(copy, next, records).await {
                Ok(()) => written[copy] = true,
                Err(CopyFailed { error, reached_end }) => {
                    // If it may be complete on the medium after all, recovery may prefer it: what would be appended to the
                    // old area now would be lost.
                    if reached_end {
                        self.sealed = Some(Sealed::InDoubt);
                    }
                    self.dirty[next.area] = true;
                    self.counters.log_copy_errors.add(1);
                    let name = &self.superblock.name;
                    log::warn!("{name}: checkpoint {} not written to log copy {}: {error}", next.epoch, copy.name());
                }
            }
        }
        written.any().then_some(written)
    }

    /// Zeroes an area that is not in force, one copy after the other, so that a crash tears at most one. Says which copies
    /// are zero now; what cannot be zeroed is tried again the next time.
    async fn clean(&mut self, area: Area) -> PerCopy<bool> {
        let mut cleaned = PerCopy::NONE;
        for copy in Copy::BOTH {
            cleaned[copy] = self.clean_copy(copy, area).await;
        }
        self.dirty[area] = !cleaned.all();
        cleaned
    }

    /// Zeroes one copy of an area that is not in force; whether that is durable.
    async fn clean_copy(&self, copy: Copy, area: Area) -> bool {
        let layout = &self.superblock.layout;
        let mut result = self.spare.zero(layout.log_page(copy, area, 0), layout.area_blocks()).await;
        if result.is_ok() {
            result = self.spare.flush().await;
        }
        if let Err(error) = &result {
            let (name, number) = (&self.superblock.name, area.index());
            log::warn!("{name}: log area {number}, copy {}, not zeroed: {error}", copy.name());
        }
        result.is_ok()
    }

    /// Writes one copy of a checkpoint, up to the first error, and flushes it.
    async fn write_copy(&self, copy: Copy, position: &Position, records: &Counted<'_>) -> Result<(), CopyFailed> {
        let layout = &self.superblock.layout;
        let capacity = self.page_capacity().max(1);
        let (mut chunks, mut pace) = (records.chunks(), records.pace());
        let (mut index, mut used) = (0, None::<D::Buffer>);
        while index < position.checkpoint_pages {
            let (chunk, more) = chunks.next().await;
            // At most `CHUNK_PAGES`.
            let pages = chunk.len().div_ceil(capacity) as u32;
            let reached_end = index + pages == position.checkpoint_pages;
            if pages == 0 || pages > position.checkpoint_pages - index || reached_end == more {
                // They are not those that were counted: no last page may make this a checkpoint.
                return Err(CopyFailed { error: Error::CheckpointFailed, reached_end: false });
            }
            let no_memory = |error| CopyFailed { error, reached_end: false };
            let bytes = pages as usize * layout.page_bytes as usize;
            let mut buffer = match used.filter(|used| used.as_ref().len() == bytes) {
                Some(used) => used,
                None => self.spare.alloc(u64::from(pages) * layout.page_blocks()).map_err(no_memory)?,
            };
            let bodies = chunk.chunks(capacity);
            for (number, (bytes, body)) in
                (index..).zip(buffer.as_mut().chunks_mut(layout.page_bytes as usize).zip(bodies))
            {
                let info = PageInfo {
                    epoch: position.epoch,
                    sequence: position.first_sequence.plus(u64::from(number)),
                    checkpoint_pages: position.checkpoint_pages,
                };
                encode_page(bytes, self.owner(), PageAt { copy, area: position.area, index: number }, info, body);
                pace.step(ENCODED_AS).await;
            }
            let at = if active(Mutation::ChunkOverTheFirst) { 0 } else { u64::from(index) };
            let (written, result) = self.spare.write(layout.log_page(copy, position.area, at), buffer).await;
            result.map_err(|error| CopyFailed { error, reached_end })?;
            used = written;
            index += pages;
        }
        self.spare.flush().await.map_err(|error| CopyFailed { error, reached_end: true })
    }
}
