//! What later pages say otherwise than the chosen state, as far as they are there. Takes any records: it only counts.

use fixedbitset::FixedBitSet;

use super::GivenUp;
use crate::format::Record;
use crate::recovery::mappings::Mappings;
use crate::recovery::replay::Bounds;
use crate::table::Mapping;

pub(super) struct Later<'a> {
    bounds: Bounds,
    chosen: &'a Mappings,
    /// What is said last.
    said: Mappings,
    /// Spare blocks that have data in the chosen state.
    used: FixedBitSet,
    /// Those of them that were given to another block since.
    overwritten: FixedBitSet,
    pending_limit: u64,
    /// So many pending blocks may still be named: one record may name more than there is memory for.
    pending_left: u64,
}

impl<'a> Later<'a> {
    pub(super) fn new(bounds: Bounds, pending_limit: u64, chosen: &'a Mappings) -> Later<'a> {
        let mut used = FixedBitSet::with_capacity(bounds.data_blocks as usize);
        for (_, mapping) in chosen.iter() {
            if let Mapping::Spare(spare) = mapping {
                used.insert(spare.index() as usize);
            }
        }
        let overwritten = FixedBitSet::with_capacity(used.len());
        Later { bounds, chosen, said: chosen.clone(), used, overwritten, pending_limit, pending_left: pending_limit }
    }

    /// A checkpoint follows that is complete: what it does not mention is simply on the base.
    pub(super) fn begins_anew(&mut self) {
        self.said = Mappings::default();
        self.pending_left = self.pending_limit;
    }

    pub(super) fn apply(&mut self, record: Record) {
        if self.bounds.check(record).is_err() {
            return;
        }
        match record {
            Record::Remap { lba, spare, count } | Record::Lost { lba, spare, count } => {
                let is_lost = matches!(record, Record::Lost { .. });
                for (i, spare) in (0..u64::from(count)).filter_map(|i| Some((i, spare.plus(i)?))) {
                    let (lba, index) = (lba.plus(i), spare.index() as usize);
                    let to = if is_lost { Mapping::Lost(spare) } else { Mapping::Spare(spare) };
                    self.said.insert(lba, to);
                    // What is lost was not written there.
                    let other = !is_lost && self.chosen.get(lba) != Some(to);
                    if other && self.used.contains(index) {
                        self.overwritten.insert(index);
                    }
                }
            }
            Record::Pending { lba, count } if u64::from(count) <= self.pending_left => {
                self.pending_left -= u64::from(count);
                (0..u64::from(count)).for_each(|i| _ = self.said.insert(lba.plus(i), Mapping::Pending));
            }
            Record::Clear { lba, count } => {
                let cleared: Vec<_> = self.said.range(lba..lba.plus(count.into())).map(|(lba, _)| lba).collect();
                cleared.into_iter().for_each(|lba| _ = self.said.remove(lba));
            }
            Record::Pending { .. } | Record::BadSpare { .. } | Record::EndOfCheckpoint => {}
        }
    }

    pub(super) fn count(&self, given_up: &mut GivenUp) {
        for (_, to) in self.said.iter().filter(|(lba, to)| self.chosen.get(*lba) != Some(*to)) {
            *match to {
                Mapping::Spare(_) => &mut given_up.remapped,
                Mapping::Pending => &mut given_up.pending,
                Mapping::Lost(_) => &mut given_up.lost,
            } += 1;
        }
        given_up.cleared += self.chosen.iter().filter(|(lba, _)| self.said.get(*lba).is_none()).count() as u64;
        given_up.overwritten += self.overwritten.count_ones(..) as u64;
    }
}
