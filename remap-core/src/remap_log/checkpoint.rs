//! Checkpoints: the whole table, written to the log area that is not in use, under a new epoch.
//!
//! Copy A wholly, flush, copy B wholly, flush, then the superblocks one after the other. Only then is the new area
//! appended to. Until then the old area is in force: nothing was committed in between, so both say the same.

use std::collections::BTreeMap;

use super::{Log, Position, Sealed};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::record::RawRecord;
use crate::format::{Area, Copy, Layout, PageAt, PageInfo, PerArea, PerCopy, Record, encode_page};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::slot::SpareBlock;
use crate::table::{Mapping, Table};
use crate::units::{BaseLba, Epoch, Extent};

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

/// The records of a checkpoint: as many together as are written at once, so that nothing large is copied or freed at once.
pub(crate) struct Records {
    /// Records that are written at once.
    chunk: usize,
    chunks: Vec<Vec<RawRecord>>,
    /// The last one, which may yet grow.
    last: Option<Record>,
    /// At which pace it is made and written.
    pace: fn() -> Pace,
}

impl Records {
    /// None yet, with `capacity` in a page.
    pub(crate) fn new(capacity: usize) -> Records {
        Records { chunk: capacity.max(1) * CHUNK_PAGES, chunks: Vec::new(), last: None, pace: Pace::default }
    }

    /// The same, of a checkpoint that all writes of hosts wait for.
    pub(crate) fn while_hosts_wait(self) -> Records {
        Records { pace: Pace::while_hosts_wait, ..self }
    }

    fn add(&mut self, record: Record) {
        if self.last.as_mut().is_some_and(|last| last.extend(record)) {
            return;
        }
        if let Some(last) = self.last.replace(record) {
            self.push(last);
        }
    }

    fn push(&mut self, record: Record) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < self.chunk => chunk.push(record.encode()),
            _ => {
                let mut chunk = Vec::with_capacity(self.chunk);
                chunk.push(record.encode());
                self.chunks.push(chunk);
            }
        }
    }

    /// No more come.
    pub(crate) fn finish(mut self) -> Records {
        self.add(Record::EndOfCheckpoint);
        if let Some(last) = self.last.take() {
            self.push(last);
        }
        self
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Frees them, in steps, the last first: an allocator that gives memory back to the system where it ends then does so in steps,
    /// too, and not with the last of them at once, which takes milliseconds.
    pub(crate) async fn free(self) {
        let mut pace = Pace::default();
        for chunk in self.chunks.into_iter().rev() {
            pace.step(chunk.len()).await;
        }
    }
}

/// Adds to `records` those of a checkpoint of `table`, with `instead` of what it holds for some blocks, and of the `bad`
/// spare blocks. Nobody changes the table meanwhile; others run now and then.
pub(crate) async fn checkpoint_records(
    mut records: Records,
    table: &Table,
    instead: &BTreeMap<BaseLba, Option<Mapping>>,
    bad: Vec<SpareBlock>,
) -> Records {
    let (all, mut pace) = (Extent::new(BaseLba(0), table.base_blocks()), (records.pace)());
    let visited = table.visit_range_in_steps(all, &mut pace, |lba, held| {
        match instead.get(&lba).copied().unwrap_or(Some(held)) {
            Some(Mapping::Spare(spare)) => records.add(Record::Remap { lba, spare, count: 1 }),
            Some(Mapping::Lost(spare)) => records.add(Record::Lost { lba, spare, count: 1 }),
            Some(Mapping::Pending) => records.add(Record::Pending { lba, count: 1 }),
            None => {}
        }
    });
    visited.await;
    if !active(Mutation::BadSpareBlocksNotSaved) {
        bad.into_iter().for_each(|spare| records.add(Record::BadSpare { spare, count: 1 }));
    }
    records.finish()
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
    pub(crate) async fn checkpoint(&mut self, records: &Records) -> Result<Saved, Error> {
        let layout = &self.superblock.layout;
        let pages = records.len().div_ceil(self.page_capacity().max(1)) as u64;
        let too_large = Error::CheckpointTooLarge { pages, room: u64::from(layout.area_pages) };
        // One page at least has to be left for what comes behind it.
        let pages = u32::try_from(pages).ok().filter(|pages| *pages < layout.area_pages).ok_or(too_large)?;
        if let Some(grown) = self.grown()
            && let Some((next, written)) = self.write_grown(grown, pages, records).await?
        {
            return self.enter(next, written).await;
        }
        let next = self.next_position(pages)?;
        let written = self.write_copies(&next, records).await.ok_or(Error::CheckpointFailed)?;
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
        records: &Records,
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
        self.superblock.noted_epoch = if written.all() { Epoch::ZERO } else { next.epoch };
        self.sealed = None;
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
    async fn write_copies(&mut self, next: &Position, records: &Records) -> Option<PerCopy<bool>> {
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
    async fn write_copy(&self, copy: Copy, position: &Position, records: &Records) -> Result<(), CopyFailed> {
        let layout = &self.superblock.layout;
        let capacity = self.page_capacity().max(1);
        let (mut pace, mut index, mut used) = ((records.pace)(), 0, None::<D::Buffer>);
        for chunk in &records.chunks {
            // At most `CHUNK_PAGES`.
            let pages = chunk.len().div_ceil(capacity) as u32;
            let reached_end = index + pages == position.checkpoint_pages;
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
