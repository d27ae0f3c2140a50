//! What somebody finds on the spare who reads it while the set is served, and what the log makes of it.

use super::{Log, Sealed};
use crate::device::{Device, Env};
use crate::format::{Area, Copy, ScrubPosition, Superblock};

impl<D: Device, E: Env> Log<D, E> {
    /// Whether a superblock that was found is of this spare, and not older than the last one that became durable.
    pub(crate) fn is_current(&self, found: &Superblock) -> bool {
        (found.set_uuid, found.spare_id) == (self.superblock.set_uuid, self.superblock.spare_id)
            && (found.committed, found.epoch) >= self.noted
    }

    /// This copy of the superblock is not what it should be: it is written anew, as one that could not be written.
    pub(crate) fn superblock_is_bad(&mut self, copy: Copy) {
        if std::mem::replace(&mut self.superblock_ok[copy], false) {
            log::warn!("{}: superblock {} is bad", self.superblock.name, copy.name());
        }
    }

    /// A page of this copy is not what it should be. In the area that is in force a checkpoint makes that good, as if it could not
    /// be written; either area is zeroed before it is used again.
    pub(crate) fn page_is_bad(&mut self, copy: Copy, area: Area, index: u32) {
        let was_clean = !std::mem::replace(&mut self.dirty[area], true);
        let was_ok = area == self.position.area && std::mem::replace(&mut self.log_ok[copy], false);
        // The first one: a copy that is gone has thousands.
        if was_clean || was_ok {
            let name = &self.superblock.name;
            log::warn!("{name}: page {index} of log area {}, copy {}, is bad", area.index(), copy.name());
        }
    }

    /// A page of the log is good in neither copy, and nobody could load what is behind it: nothing is appended before a
    /// checkpoint has succeeded.
    pub(crate) fn page_is_lost(&mut self) {
        if self.sealed != Some(Sealed::InDoubt) {
            self.sealed = Some(Sealed::Unfinished);
        }
    }

    /// What the next superblock says of a scrub.
    pub(crate) fn set_scrub(&mut self, at: Option<ScrubPosition>) {
        self.superblock.scrub = at;
    }
}
