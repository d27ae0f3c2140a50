//! What a rescue asks for, decided by the state at this moment. The [`Owner`] of production.

use super::batch::Asked;
use super::{Engine, Shared};
use crate::device::{Device, Env};
use crate::events::What;
use crate::mutation::{Mutation, active};
use crate::owner::{Committed, Move, Owner, Refused, Target, Uncopied};
use crate::rescue::Run;
use crate::slot::SpareBlock;
use crate::table::Mapping;
use crate::units::{BaseLba, Extent};

impl<D: Device, E: Env> Owner for Engine<D, E> {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.shared.reserve_now(&blocks, true)
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.change(Asked::Commit(moves)).await
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        let (target, held_nothing) = self.shared.replace_now(lba, bad);
        if held_nothing {
            self.record_bad(vec![bad]).await;
        }
        target
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        let allocator = &mut self.shared.state.borrow_mut().allocator;
        reserved.into_iter().for_each(|index| allocator.release(index));
    }

    async fn condemn(&self, mut blocks: Vec<SpareBlock>) {
        {
            let allocator = &mut self.shared.state.borrow_mut().allocator;
            if active(Mutation::BadReservationReleased) {
                return blocks.into_iter().for_each(|index| allocator.release(index));
            }
            blocks.retain(|index| allocator.reservation(*index).is_some());
            blocks.iter().for_each(|index| allocator.set_bad(*index));
        }
        self.record_bad(blocks).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        let blocks: Vec<_> = blocks.into_iter().filter(|lba| self.shared.on_base(*lba)).collect();
        self.change(Asked::Pending(blocks)).await.map(drop)
    }

    async fn begin_mirrored(&self, range: Extent) -> Vec<Run> {
        self.copies_for(range).await
    }

    async fn end_mirrored(&self, range: Extent, uncopied: Vec<Uncopied>) {
        self.write_is_over(range, uncopied);
    }
}

/// The owner of what an operator asks for.
pub(super) struct Operator<'a, D: Device, E: Env>(pub(super) &'a Engine<D, E>);

impl<D: Device, E: Env> Owner for Operator<'_, D, E> {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.0.shared.reserve_now(&blocks, false)
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.0.commit(moves).await
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        self.0.replace(lba, bad).await
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        self.0.release(reserved).await;
    }

    async fn condemn(&self, blocks: Vec<SpareBlock>) {
        self.0.condemn(blocks).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.0.set_pending(blocks).await
    }
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Has it recorded that these spare blocks, which hold nothing, are bad. If that fails they are still bad in memory, and
    /// the next checkpoint says so.
    async fn record_bad(&self, blocks: Vec<SpareBlock>) {
        if !blocks.is_empty() {
            log::debug!("{}: {} spare blocks are bad, from {} on", self.shared.name, blocks.len(), blocks[0].index());
            let _ = self.change(Asked::Bad(blocks)).await;
        }
    }
}

impl<E: Env> Shared<E> {
    /// What [`Owner::reserve`] answers. Blocks that an operator names are no storm, but wait while there is one.
    fn reserve_now(&self, blocks: &[BaseLba], of_hosts: bool) -> Result<Vec<Target>, Refused> {
        if self.closed.get() || !blocks.iter().all(|lba| self.on_base(*lba)) {
            return Err(Refused::Closed);
        }
        if self.spare_gone.get() {
            return Err(Refused::LogFailed);
        }
        blocks.iter().for_each(|lba| self.table.fetch_entry_of(*lba));
        let mappings: Vec<_> = blocks.iter().map(|lba| self.table.mapping(*lba)).collect();
        let new = mappings.iter().filter(|mapping| mapping.and_then(Mapping::spare).is_none()).count();
        let state = &mut *self.state.borrow_mut();
        if new > state.allocator.free_count() as usize {
            return Err(Refused::NoSpare);
        }
        let tripped = state.storm.tripped();
        let admitted = match of_hosts {
            _ if new == 0 => true,
            true => state.storm.admit(self.env.now(), new as u64),
            false => !state.storm.tripped(),
        };
        if !admitted && !tripped {
            self.events.raise(What::Tripped { limit: state.storm.limit() }, 1);
        }
        if !admitted {
            return Err(Refused::Tripped);
        }
        let mut fresh = state.allocator.reserve(new).ok_or(Refused::NoSpare)?.into_iter();
        let target = |mapping: Option<Mapping>| match mapping {
            Some(Mapping::Spare(at)) => Ok(Target::Existing(at)),
            Some(Mapping::Lost(at)) => Ok(Target::Fill(at)),
            Some(Mapping::Pending) | None => fresh.next().map(Target::New).ok_or(Refused::NoSpare),
        };
        mappings.into_iter().map(target).collect()
    }

    /// What [`Owner::replace`] answers, and whether `bad` is bad but held nothing, so that this has to be recorded.
    fn replace_now(&self, lba: BaseLba, bad: SpareBlock) -> (Result<Target, Refused>, bool) {
        if self.closed.get() || !self.on_base(lba) {
            return (Err(Refused::Closed), false);
        }
        let state = &mut *self.state.borrow_mut();
        let reservation = state.allocator.reservation(bad);
        if reservation.is_some() {
            state.allocator.set_bad(bad);
        }
        let replaced = reservation.and_then(|reservation| reservation.replaces);
        let target = match self.table.mapping(lba) {
            // The data is on a bad block: that stays so until a commit moves it away.
            Some(Mapping::Spare(at) | Mapping::Lost(at)) if at == bad || replaced == Some(at) => {
                if state.storm.tripped() {
                    Err(Refused::Tripped)
                } else {
                    let instead = state.allocator.reserve_instead(at);
                    if active(Mutation::ReplacedSpareFreedTooEarly) {
                        state.allocator.hold(at);
                        state.allocator.set_drained(at);
                    }
                    instead.map(Target::New).ok_or(Refused::NoSpare)
                }
            }
            Some(Mapping::Spare(at)) => Ok(Target::Existing(at)),
            Some(Mapping::Lost(at)) => Ok(Target::Fill(at)),
            Some(Mapping::Pending) | None if state.storm.tripped() => Err(Refused::Tripped),
            Some(Mapping::Pending) | None => {
                let fresh = state.allocator.reserve(1).and_then(|mut fresh| fresh.pop());
                fresh.map(Target::New).ok_or(Refused::NoSpare)
            }
        };
        (target, reservation.is_some())
    }
}
