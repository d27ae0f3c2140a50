//! What the engine tells of what it does ([`Events`]): blocks that change, spare blocks that go bad or run out, copies of the
//! metadata.

use super::Shared;
use super::batch::Page;
use crate::device::Env;
#[cfg(doc)]
use crate::events::Events;
use crate::events::What;
use crate::format::{Copy, Record};
use crate::remap_log::LogView;
use crate::table::{Counts, Mapping};
use crate::units::BaseLba;

/// How much of the spare is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    #[default]
    Enough,
    /// One block in ten.
    Little,
    Nothing,
}

/// Blocks of which the same is told.
#[derive(Default)]
struct Run {
    lowest: Option<BaseLba>,
    blocks: u64,
}

impl Run {
    fn add(&mut self, lba: BaseLba) {
        self.lowest = Some(self.lowest.map_or(lba, |lowest| lowest.min(lba)));
        self.blocks += 1;
    }
}

impl<E: Env> Shared<E> {
    /// The page has taken effect.
    pub(super) fn tell_page(&self, page: &Page) {
        self.tell_changes(&page.changes);
        let bad = page.records.iter().map(|record| match record {
            Record::BadSpare { count, .. } => u64::from(*count),
            _ => 0,
        });
        let bad = bad.sum();
        if bad > 0 {
            let total = self.state.borrow().allocator.bad_count().into();
            self.events.raise(What::SpareBad { total }, bad);
        }
        self.look_at_what_is_left();
    }

    /// These changes are in the table.
    pub(super) fn tell_changes(&self, changes: &[(BaseLba, Option<Mapping>)]) {
        let [mut remapped, mut pending, mut lost, mut cleared] = [const { Run { lowest: None, blocks: 0 } }; 4];
        for (lba, to) in changes {
            match to {
                Some(Mapping::Spare(_)) => &mut remapped,
                Some(Mapping::Pending) => &mut pending,
                Some(Mapping::Lost(_)) => &mut lost,
                None => &mut cleared,
            }
            .add(*lba);
        }
        let (counts, free) = {
            let state = self.state.borrow();
            (state.writer.counts(), state.allocator.free_count().into())
        };
        let Counts { remapped: total, pending: total_pending, lost: total_lost } = counts;
        let raise = |Run { lowest, blocks }, what: &dyn Fn(BaseLba) -> What| {
            if let Some(lowest) = lowest {
                self.events.raise(what(lowest), blocks);
            }
        };
        raise(remapped, &|lowest| What::Remapped { lowest, total, free });
        raise(pending, &|lowest| What::Pending { lowest, total: total_pending });
        raise(lost, &|lowest| What::Lost { lowest, total: total_lost });
        raise(cleared, &|lowest| What::Cleared { lowest });
    }

    /// How much of the spare is free may have changed: when it gets little, or nothing, that is told.
    pub(super) fn look_at_what_is_left(&self) {
        let (free, total) = {
            let allocator = &self.state.borrow().allocator;
            (u64::from(allocator.free_count()), u64::from(allocator.total()))
        };
        let left = match free {
            0 => Left::Nothing,
            _ if free * 10 <= total => Left::Little,
            _ => Left::Enough,
        };
        if self.left.replace(left) < left {
            self.events.raise(What::SpareLow { free, total }, 1);
        }
    }

    /// How the copies of the metadata are may have changed.
    pub(super) fn tell_copies(&self, log: LogView) {
        let copies = [
            ("superblock_a", log.superblock_ok[Copy::A]),
            ("superblock_b", log.superblock_ok[Copy::B]),
            ("log_a", log.log_ok[Copy::A]),
            ("log_b", log.log_ok[Copy::B]),
        ];
        let bad: Vec<_> = copies.into_iter().filter(|(_, ok)| !ok).map(|(name, _)| name).collect();
        let mut told = self.bad_copies.borrow_mut();
        if bad.iter().any(|copy| !told.contains(copy)) {
            self.events.raise(What::Degraded { bad: bad.join(",") }, 1);
        }
        if !bad.is_empty() {
            *told = bad;
        } else if log.sound() && !told.is_empty() {
            told.clear();
            self.events.raise(What::Healed, 1);
        }
    }
}
