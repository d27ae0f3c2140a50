//! Writing the superblocks: one copy, a flush, the other, a flush.

use super::Log;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Copy, InUse, OtherSpare, PerCopy, SpareState};
use crate::mutation::{Mutation, active};
use crate::units::SpareLba;

impl<D: Device, E: Env> Log<D, E> {
    /// Whether the superblocks know less than is committed, or not that nothing comes behind that. A log that was closed had no page
    /// under way.
    fn note_is_due(&self) -> bool {
        let ended = self.sealed.is_some() && self.only_read;
        (ended && self.marked == InUse::Yes) || self.noted < (self.superblock.committed, self.superblock.epoch)
    }

    /// Has the superblocks know it, if that is due.
    pub(crate) async fn note_if_due(&mut self) {
        if self.note_is_due() {
            self.write_superblocks().await;
        }
    }

    /// Notes in the superblocks what is committed, and makes a bad one whole. Whether at least one is durable.
    pub(crate) async fn note_committed(&mut self) -> bool {
        self.write_superblocks().await
    }

    /// Has the superblocks say what this spare is to the set, and what the other one is; which of the two copies say so, durably.
    pub(crate) async fn write_state(
        &mut self,
        state: SpareState,
        other: Option<OtherSpare>,
        generation: Option<u64>,
    ) -> PerCopy<bool> {
        (self.superblock.state, self.superblock.other) = (state, other);
        self.superblock.generation = generation.unwrap_or(self.superblock.generation);
        self.write_superblocks().await;
        self.superblock_ok
    }

    /// Notes that the base has so many blocks now, more than before. Whether at least one superblock says so durably; otherwise
    /// nothing may rest on it.
    pub(crate) async fn note_base_blocks(&mut self, blocks: u64) -> bool {
        let before = std::mem::replace(&mut self.superblock.base_blocks, blocks);
        let noted = self.write_superblocks().await;
        if !noted {
            self.superblock.base_blocks = before;
        }
        noted
    }

    /// The base has so many blocks, which the next superblocks are to say.
    pub(crate) fn follow_base(&mut self, blocks: u64) {
        self.superblock.base_blocks = blocks;
    }

    /// Nothing is appended any more: notes that, if nothing is in doubt.
    pub(crate) async fn close(&mut self) {
        if self.view().sound() {
            self.superblock.in_use = InUse::No;
        }
        if self.note_is_due() || self.marked != self.superblock.in_use {
            self.write_superblocks().await;
        }
    }

    /// Writes both superblocks, one after the other; whether at least one is durable now.
    pub(super) async fn write_superblocks(&mut self) -> bool {
        if self.sealed.is_some() {
            // Nothing that was committed is behind this, and nothing will be under this epoch.
            self.superblock.noted_epoch = self.position.epoch;
            if self.only_read && self.superblock.in_use == InUse::Yes && !active(Mutation::EndNotNoted) {
                self.superblock.in_use = InUse::Ended;
            }
        }
        self.superblock.sequence = self.superblock.sequence.plus(1);
        // Below 2^64 until the year 586524.
        self.superblock.written_at = self.spare.env().unix_time().as_micros() as u64;
        // A bad copy first: the good one is not touched before there is another.
        let order = if self.superblock_ok[Copy::B] { Copy::BOTH } else { [Copy::B, Copy::A] };
        for copy in order {
            let result = self.write_superblock(copy, self.superblock.layout.superblock(copy)).await;
            if let Err(error) = &result
                && std::mem::replace(&mut self.superblock_ok[copy], false)
            {
                log::warn!("{}: superblock {} is bad: {error}", self.superblock.name, copy.name());
            }
            self.superblock_ok[copy] = result.is_ok();
            if result.is_err() {
                // What is there now may have this number, of an earlier process as well.
                self.superblock.sequence = self.superblock.sequence.plus(1);
            }
        }
        let durable = self.show_the_way().await && self.superblock_ok.any();
        if durable {
            self.noted = (self.superblock.committed, self.superblock.epoch);
            self.marked = self.superblock.in_use;
        } else {
            log::warn!("{}: no superblock can be written", self.superblock.name);
        }
        durable
    }

    /// Where superblock A, which is bad, says that superblock B is, there is one that knows where the spare has grown to: the device
    /// may grow again before A can be written. No data is there before. Whether superblock B is found then.
    async fn show_the_way(&mut self) -> bool {
        if self.superblock_ok[Copy::A] {
            self.former_b = None;
        }
        let Some(at) = self.former_b else { return true };
        let shown = self.write_superblock(Copy::B, at).await;
        if let Err(error) = &shown {
            log::warn!("{}: where superblock B was: {error}", self.superblock.name);
        }
        shown.is_ok()
    }

    async fn write_superblock(&self, copy: Copy, at: SpareLba) -> Result<(), Error> {
        let mut page = self.spare.alloc(self.superblock.layout.page_blocks())?;
        self.superblock.encode(page.as_mut());
        if active(Mutation::SuperblocksTogether) && copy == Copy::A {
            return self.spare.write(at, page).await.1;
        }
        self.spare.write(at, page).await.1?;
        self.spare.flush().await
    }
}
