//! Checkpoints: the whole table, written to the log area that is not in use, under a new epoch.
//!
//! Copy A wholly, flush, copy B wholly, flush, then the superblocks one after the other. Only then is the new area
//! appended to. Until then the old area is in force: nothing was committed in between, so both say the same.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Log, Position};
use crate::device::Device;
use crate::error::Error;
use crate::format::{Copy, PageInfo, Record, encode_page};
use crate::table::{Mapping, Table};
use crate::units::{BaseLba, Extent, SpareIndex};

/// Pages that are written at once.
const CHUNK_PAGES: usize = 32;

/// A checkpoint that became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) epoch: u64,
    /// Size of one copy.
    pub(crate) bytes: u64,
    /// Whether all copies of log and superblock took it.
    pub(crate) all_copies: bool,
}

/// The records of a checkpoint of `table`, with `instead` of what it holds for some blocks.
pub(crate) fn checkpoint_records(
    table: &Table,
    instead: &BTreeMap<BaseLba, Option<Mapping>>,
    bad: impl Iterator<Item = SpareIndex>,
) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut add = |record: Record| {
        if !records.last_mut().is_some_and(|last| last.extend(record)) {
            records.push(record);
        }
    };
    let _ = table.visit(Extent::new(BaseLba(0), table.base_blocks()), |lba, held| {
        match instead.get(&lba).copied().unwrap_or(Some(held)) {
            Some(Mapping::Spare(spare)) => add(Record::Remap { lba, spare, count: 1 }),
            Some(Mapping::Lost(spare)) => add(Record::Lost { lba, spare, count: 1 }),
            Some(Mapping::Pending) => add(Record::Pending { lba, count: 1 }),
            None => {}
        }
        ControlFlow::Continue(())
    });
    bad.for_each(|spare| add(Record::BadSpare { spare, count: 1 }));
    records.push(Record::EndOfCheckpoint);
    records
}

/// How writing one copy of a checkpoint failed.
struct CopyFailed {
    error: Error,
    /// Whether the last page may be on the medium.
    reached_end: bool,
}

impl<D: Device> Log<D> {
    /// Writes `records` as a checkpoint under a new epoch, and goes on behind it.
    ///
    /// # Errors
    /// [`Error::CheckpointTooLarge`], [`Error::CheckpointFailed`]: the old area stays in force, if it was.
    pub(crate) async fn checkpoint(&mut self, records: &[Record]) -> Result<Saved, Error> {
        let layout = self.superblock.layout;
        let pages = records.len().div_ceil(self.page_capacity().max(1)) as u64;
        // One page at least has to be left for what comes behind it.
        if pages >= u64::from(layout.area_pages) {
            return Err(Error::CheckpointTooLarge { pages, room: u64::from(layout.area_pages) });
        }
        let next = Position {
            area: 1 - self.position.area,
            epoch: self.position.next_epoch,
            first_sequence: self.position.top_sequence + 1,
            // Below `area_pages`, a u32.
            checkpoint_pages: pages as u32,
            next_page: pages,
            next_epoch: self.position.next_epoch + 1,
            top_sequence: self.position.top_sequence + pages,
        };
        // Neither the epoch nor the sequence numbers are ever used again, however this ends.
        self.position.next_epoch = next.next_epoch;
        self.position.top_sequence = next.top_sequence;

        if self.dirty[next.area] {
            self.clean(next.area).await;
        }
        let mut written = [false; 2];
        let mut may_be_complete = false;
        for copy in Copy::BOTH {
            let solo = copy == Copy::B && !written[0];
            match self.write_copy(copy, &next, solo, records).await {
                Ok(()) => written[copy.index()] = true,
                Err(failed) => {
                    may_be_complete |= failed.reached_end;
                    self.dirty[next.area] = true;
                    self.counters.log_copy_errors.add(1);
                    log::warn!(
                        "{}: checkpoint {} not written to log copy {}: {}",
                        self.superblock.name,
                        next.epoch,
                        copy.name(),
                        failed.error
                    );
                }
            }
        }
        if written == [false; 2] {
            // If it may be complete on the medium after all, recovery may prefer it: what would be appended to the old
            // area now would be lost.
            self.must_checkpoint |= may_be_complete;
            return Err(Error::CheckpointFailed);
        }
        self.position = next;
        self.log_ok = written;
        self.superblock.epoch = next.epoch;
        if !self.write_superblocks().await {
            self.must_checkpoint = true;
            return Err(Error::CheckpointFailed);
        }
        self.must_checkpoint = false;
        self.counters.checkpoints.add(1);
        let all_copies = self.log_ok == [true; 2] && self.superblock_ok == [true; 2];
        Ok(Saved { epoch: next.epoch, bytes: pages * u64::from(layout.page_bytes), all_copies })
    }

    /// Zeroes an area that is not in force, one copy after the other, so that a crash tears at most one. What cannot be
    /// zeroed is tried again the next time.
    async fn clean(&mut self, area: usize) {
        let layout = self.superblock.layout;
        let blocks = u64::from(layout.area_pages) * layout.page_blocks();
        let mut cleaned = true;
        for copy in Copy::BOTH {
            let mut result = self.spare.zero(layout.log_page(copy, area, 0), blocks).await;
            if result.is_ok() {
                result = self.spare.flush().await;
            }
            if let Err(error) = result {
                log::warn!("{}: log area {area}, copy {}, not zeroed: {error}", self.superblock.name, copy.name());
                cleaned = false;
            }
        }
        self.dirty[area] = !cleaned;
    }

    /// Writes one copy of a checkpoint, up to the first error, and flushes it.
    async fn write_copy(
        &self,
        copy: Copy,
        position: &Position,
        solo: bool,
        records: &[Record],
    ) -> Result<(), CopyFailed> {
        let layout = self.superblock.layout;
        let page_bytes = layout.page_bytes as usize;
        let mut page = 0;
        for chunk in records.chunks(self.page_capacity().max(1) * CHUNK_PAGES) {
            let pages = chunk.len().div_ceil(self.page_capacity().max(1)) as u64;
            let reached_end = page + pages == position.next_page;
            let failed = |error| CopyFailed { error, reached_end };
            let mut buffer = self
                .spare
                .alloc(pages * layout.page_blocks())
                .map_err(|error| CopyFailed { error, reached_end: false })?;
            let bodies = chunk.chunks(self.page_capacity().max(1));
            for (index, (bytes, body)) in (0_u64..).zip(buffer.as_mut().chunks_mut(page_bytes).zip(bodies)) {
                let info = PageInfo {
                    epoch: position.epoch,
                    sequence: position.first_sequence + page + index,
                    checkpoint_pages: position.checkpoint_pages,
                    solo,
                };
                encode_page(bytes, self.superblock.set_uuid, info, body);
            }
            let lba = layout.log_page(copy, position.area, page);
            let (_, result) = self.spare.write(lba, buffer).await;
            result.map_err(failed)?;
            page += pages;
        }
        self.spare.flush().await.map_err(|error| CopyFailed { error, reached_end: true })
    }

    /// Writes both superblocks, one after the other; whether at least one is durable now.
    pub(super) async fn write_superblocks(&mut self) -> bool {
        self.superblock.sequence += 1;
        // A bad copy first: the good one is not touched before there is another.
        let order = if self.superblock_ok[1] { Copy::BOTH } else { [Copy::B, Copy::A] };
        for copy in order {
            let result = self.write_superblock(copy).await;
            if let Err(error) = &result {
                log::warn!("{}: superblock {} not written: {error}", self.superblock.name, copy.name());
            }
            self.superblock_ok[copy.index()] = result.is_ok();
        }
        self.superblock_ok != [false; 2]
    }

    async fn write_superblock(&self, copy: Copy) -> Result<(), Error> {
        let layout = self.superblock.layout;
        let mut page = self.spare.alloc(layout.page_blocks())?;
        self.superblock.encode(page.as_mut());
        self.write_durably(layout.superblock(copy), page).await.1
    }
}
