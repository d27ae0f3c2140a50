//! A device of the set grows while it is open.
//!
//! The base: records about blocks beyond the old end are made only when the superblocks have the new size, so that no later start
//! finds them out of range.
//!
//! The spare: the next checkpoint is written where the metadata has its place then ([`crate::format::Layout::grown`]). New blocks
//! are used only when all copies know of them, as the old copy B is under them, and when no write of it can come true any more.

use super::Engine;
use super::committer::{Committer, Request};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::mutation::{Mutation, active};

impl<D: Device, E: Env> Engine<D, E> {
    /// Follows the base, which has `blocks` blocks now: that is made durable on the spare, and blocks beyond the old end can be
    /// remapped then. Hosts are to be told afterwards. Nothing is done for a size that is not larger.
    ///
    /// # Errors
    /// [`Error::BaseOutgrown`]; [`Error::SizeNotNoted`]; [`Error::Closed`]. The old size is in force.
    pub async fn base_has_grown(&self, blocks: u64) -> Result<(), Error> {
        self.ask(|answer| Request::Grow { blocks, answer }).await.unwrap_or(Err(Error::Closed))
    }
}

impl<D: Device, E: Env> Committer<D, E> {
    pub(super) async fn grow(&mut self, blocks: u64) -> Result<(), Error> {
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        let table = &self.shared.table;
        let (before, room) = (table.base_blocks(), table.room());
        if blocks <= before {
            return Ok(());
        }
        if blocks > room {
            return Err(Error::BaseOutgrown { blocks, room });
        }
        if !self.log.note_base_blocks(blocks).await {
            return Err(Error::SizeNotNoted);
        }
        self.shared.state.borrow_mut().writer.grow(blocks);
        if let Some(mirror) = &*self.shared.mirror.borrow() {
            mirror.writer.borrow_mut().grow(blocks);
        }
        log::info!("{}: the base had {before} blocks and has {blocks} now", self.shared.name);
        Ok(())
    }

    /// The blocks by which the spare has grown are free, once all copies of the metadata know of them.
    pub(super) fn take_what_has_grown(&self) {
        let (before, spare) = (self.shared.layout.get(), self.log.spare());
        let layout = if active(Mutation::GrowthNotWaitedFor) {
            before.grown(spare.geometry().blocks).unwrap_or(before)
        } else {
            self.log.superblock().layout
        };
        let saved = self.log.view().sound() || active(Mutation::GrowthNotWaitedFor);
        let late = spare.hangs(&(before.data_end().0..layout.data_end().0)) && !active(Mutation::GrownOverLateWrites);
        if layout == before || !saved || late {
            return;
        }
        self.shared.layout.set(layout);
        self.shared.state.borrow_mut().allocator.grow(layout.data_blocks);
        self.shared.look_at_what_is_left();
        let (name, new) = (&self.shared.name, layout.data_blocks - before.data_blocks);
        log::info!("{name}: the spare has grown to {} blocks, {new} more for data", layout.spare_blocks);
    }
}
