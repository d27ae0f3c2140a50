//! A set whose spare has gone while nothing was on it: it goes on without. Bad blocks are not rescued then. The spare may come back, or
//! all moves to another one.

use super::Engine;
use super::committer::{Committer, Request};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{SpareState, Superblock};

impl<D: Device, E: Env> Engine<D, E> {
    /// The spare has gone, and all I/O to it fails from now on. Whether the set can do without, as nothing is on it: then nothing is
    /// committed before it is back, or another one is in force.
    pub async fn do_without_spare(&self) -> bool {
        self.ask(Request::SpareGone).await.unwrap_or(false)
    }

    /// Whether the set does without its spare.
    pub fn is_without_spare(&self) -> bool {
        self.shared.spare_gone.get()
    }

    /// Whether a spare that says this is the one that has gone, as it was left.
    pub async fn knows(&self, found: &Superblock) -> bool {
        let Some(ours) = self.superblock().await else { return false };
        let who = |of: &Superblock| (of.set_uuid, of.spare_id, of.host_id, of.generation, of.state);
        // What was written since, nobody can have written but this engine, in vain.
        who(found) == who(&ours) && found.state == SpareState::Active && found.sequence <= ours.sequence
    }

    /// What the superblocks of the spare in force say. None once the set is closed.
    pub async fn superblock(&self) -> Option<Superblock> {
        self.ask(Request::Superblock).await
    }

    /// The spare is back ([`Engine::knows`]), and I/O to it works again.
    ///
    /// # Errors
    /// [`Error::CheckpointFailed`] if it cannot be written, and that is tried again; [`Error::Closed`].
    pub async fn take_spare_back(&self) -> Result<(), Error> {
        self.ask(Request::SpareBack).await.unwrap_or(Err(Error::Closed))
    }
}

impl<D: Device, E: Env> Committer<D, E> {
    pub(super) fn do_without(&mut self) -> bool {
        let counts = self.shared.state.borrow().writer.counts();
        if counts.remapped + counts.lost > 0 || self.in_doubt() || self.shared.mirror.borrow().is_some() {
            return false;
        }
        self.log.lose_all_copies();
        self.shared.spare_gone.set(true);
        true
    }

    pub(super) async fn take_back(&mut self) -> Result<(), Error> {
        self.shared.spare_gone.set(false);
        self.checkpoint().await.map(drop)
    }
}
