//! The moment of a migration at which the other spare comes into force. The committer does it, so that nothing is committed
//! meanwhile; hosts' changes are held back.
//!
//! ```text
//! checkpoint over there, on all copies ─> old: migrating-out, on both ─> new: active ─> old: retired
//! ```
//! Every arrow is a flush; the first makes the data that was copied durable as well.
//!
//! Until both superblocks of the old spare say that it was given up, it is in force. From then on it never is again, and the new
//! one may be opened: by itself, once it says that it is active; with the help of the old one ([`super::give_up_for`]) before
//! that. In between there is no way back and nothing to be served, so that is tried until it succeeds.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::committer::Committer;
use super::mirror::Mirror;
use super::upkeep::Upkeep;
use crate::allocator::Allocator;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{OtherSpare, SpareState};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::remap_log::{Log, Records};
use crate::table::{TableWriter, reclaim_table};

/// Pause between two attempts to write superblocks of which it is not known what they say.
const PAUSE: Duration = Duration::from_millis(500);

/// Where all moves to.
pub(super) struct SwitchTo<D: Device, E: Env> {
    pub(super) log: Box<Log<D, E>>,
    pub(super) mirror: Rc<Mirror>,
}

/// What came of it.
pub(super) enum Switched<D: Device, E: Env> {
    /// The other spare is in force; the log of the old one, which is to be told so.
    Done(Box<Log<D, E>>),
    /// Something is still to be copied.
    NotYet(Box<Log<D, E>>),
}

impl<D: Device, E: Env> Committer<D, E> {
    pub(super) async fn switch(&mut self, to: SwitchTo<D, E>) -> Result<Switched<D, E>, Error> {
        let SwitchTo { log: mut new, mirror } = to;
        if self.shared.closed.get() {
            return Err(Error::Closed);
        }
        // Then nothing is on the old one, and nothing can be said there.
        let without = self.shared.spare_gone.get();
        if self.in_doubt() && !without {
            self.checkpoint().await?;
        }
        if self.shared.state.borrow().writer.counts().total() != mirror.count() {
            return Ok(Switched::NotYet(new));
        }
        if mirror.writer.borrow().counts().pending > mirror.layout.pending_limit() {
            return Err(Error::NewSpareFull);
        }
        // It may have grown meanwhile.
        new.follow_base(self.log.superblock().base_blocks);
        let bad = mirror.allocator.borrow().bad().collect();
        let table = Arc::clone(mirror.writer.borrow().table());
        if !new.checkpoint(&Records::of(&table, bad).at(Pace::while_hosts_wait)).await?.all_copies {
            return Err(Error::CheckpointFailed);
        }
        if !without && !active(Mutation::OldSpareNotGivenUp) {
            self.give_up_old(&mut new).await?;
        }
        self.come_into_force(&mut new).await?;
        let old = std::mem::replace(&mut self.log, *new);
        self.take_over(&mirror);
        Ok(Switched::Done(Box::new(old)))
    }

    /// Nobody knows which spare is in force, and the set is being closed: nothing is committed any more. The next start says it.
    fn give_in(&self) -> Error {
        self.shared.closed.set(true);
        Error::Closed
    }

    /// The old spare says, on both copies, that it was given up for the new one; or that it was not, and then it stays in force.
    async fn give_up_old(&mut self, new: &mut Log<D, E>) -> Result<(), Error> {
        let other = OtherSpare { id: new.superblock().spare_id, state: SpareState::Active };
        loop {
            let told = self.log.write_state(SpareState::MigratingOut, Some(other), None).await;
            if told.all() || (active(Mutation::GivenUpOnOneCopy) && told.any()) {
                return Ok(());
            }
            if self.log.write_state(SpareState::Active, None, None).await.any() {
                // What one copy of the old one said may be all that can be read of it some day.
                let other = OtherSpare { id: self.log.superblock().spare_id, state: SpareState::Active };
                new.write_state(SpareState::Retired, Some(other), None).await;
                return Err(Error::CheckpointFailed);
            }
            if self.shared.closing.get() {
                return Err(self.give_in());
            }
            let name = &self.shared.name;
            log::error!(
                "{name}: it cannot be told whether the old spare was given up: writes wait until its superblocks can be written"
            );
            self.shared.env.sleep(PAUSE).await;
        }
    }

    async fn come_into_force(&mut self, new: &mut Log<D, E>) -> Result<(), Error> {
        let ours = self.log.superblock();
        let other = OtherSpare { id: ours.spare_id, state: SpareState::MigratingOut };
        let generation = ours.generation.saturating_add(1);
        loop {
            let told = new.write_state(SpareState::Active, Some(other), Some(generation)).await;
            // An old spare that could not be given up does not help where one copy is lost later: then both have to say so.
            if told.all() || (told.any() && !self.shared.spare_gone.get()) {
                return Ok(());
            }
            if self.shared.closing.get() {
                return Err(self.give_in());
            }
            let name = &self.shared.name;
            log::error!(
                "{name}: the new spare cannot be made active: writes wait until its superblocks can be written"
            );
            self.shared.env.sleep(PAUSE).await;
        }
    }

    /// From now on the table, and all else, is about the new spare.
    fn take_over(&mut self, mirror: &Rc<Mirror>) {
        let shared = &self.shared;
        shared.mirror.take();
        let old = {
            let state = &mut *shared.state.borrow_mut();
            let base_blocks = shared.table.base_blocks();
            let mut other = mirror.writer.replace(TableWriter::new(base_blocks));
            state.writer.set_slot(mirror.slot);
            state.writer.exchange(&mut other);
            state.allocator = mirror.allocator.replace(Allocator::new(mirror.slot, 0));
            // What was to be freed when it is drained is so: no write is under way.
            state.allocator.settle_held();
            other
        };
        shared.tasks.spawn(reclaim_table(Rc::clone(&shared.env), old));
        shared.slot.set(mirror.slot);
        shared.layout.set(mirror.layout);
        shared.spare_gone.set(false);
        self.upkeep = Upkeep::default();
        self.observe();
        shared.look_at_what_is_left();
        log::info!("{}: the spare in slot {} is in force", shared.name, mirror.slot.get());
    }
}

/// The old spare says that another one is in force. It says enough already if it cannot.
pub(super) async fn retire<D: Device, E: Env>(mut old: Box<Log<D, E>>) {
    let other = old.superblock().other.map(|other| OtherSpare { state: SpareState::Active, ..other });
    if !old.write_state(SpareState::Retired, other, None).await.all() {
        log::warn!("{}: the old spare was given up, but cannot be marked as retired", old.superblock().name);
    }
}
