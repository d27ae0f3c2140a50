//! What there is of a set on another spare, while all of it moves there.
//!
//! The mapping as it will be is a table of its own, which only the owner thread looks at: what it holds for a block is true of the
//! other spare, and what it does not hold is still to be copied. Whatever changes the mapping in force takes the block out of it.
//! Hosts' writes of blocks that it holds go to both spares; those of one block one after the other, so that both end with the
//! same data.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Engine, Shared};
use crate::allocator::Allocator;
use crate::device::{Device, Env};
use crate::format::Layout;
use crate::mutation::{Mutation, active};
use crate::owner::Uncopied;
use crate::rescue::moves::{Run, add_block};
use crate::route::At;
use crate::slot::{Slot, SpareBlock};
use crate::status::IoStatus;
use crate::table::{Change, Mapping, TableWriter, reclaim};
use crate::units::{BaseLba, Extent};

/// The other spare.
pub(super) struct Mirror {
    pub(super) slot: Slot,
    pub(super) layout: Layout,
    /// The mapping as it will be.
    pub(super) writer: RefCell<TableWriter>,
    pub(super) allocator: RefCell<Allocator>,
    /// Why the spare is of no use, if it is not.
    pub(super) failure: Cell<Option<IoStatus>>,
}

/// Why a block is not on the other spare any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Forget {
    /// It was changed, or may have been, in one place only.
    Changed,
    /// The spare block over there is bad.
    Bad,
}

impl Mirror {
    pub(super) fn new(slot: Slot, layout: Layout, base_blocks: u64) -> Mirror {
        Mirror {
            slot,
            layout,
            writer: RefCell::new(TableWriter::new(base_blocks)),
            allocator: RefCell::new(Allocator::new(slot, layout.data_blocks)),
            failure: Cell::new(None),
        }
    }

    /// Whether the block is as it should be over there.
    pub(super) fn holds(&self, lba: BaseLba) -> bool {
        self.writer.borrow().table().mapping(lba).is_some()
    }

    /// How many blocks are over there.
    pub(super) fn count(&self) -> u64 {
        self.writer.borrow().counts().total()
    }

    /// Where data of `range` is over there, and which blocks are lost there.
    fn copies(&self, range: Extent) -> (Vec<Run>, Vec<BaseLba>) {
        let (mut runs, mut lost) = (Vec::new(), Vec::new());
        let _ = self.writer.borrow().table().visit(range, |lba, mapping| {
            match mapping {
                Mapping::Spare(block) => add_block(&mut runs, lba.0 - range.lba.0, At::Spare(block)),
                Mapping::Lost(_) => lost.push(lba),
                Mapping::Pending => {}
            }
            ControlFlow::Continue(())
        });
        (runs, lost)
    }
}

impl<E: Env> Shared<E> {
    /// From now on the other spare is said to hold these blocks so.
    pub(super) fn add_copies(&self, mirror: &Mirror, copies: Vec<Change>) {
        {
            let allocator = &mut mirror.allocator.borrow_mut();
            let used = copies.iter().filter_map(|change| change.to.and_then(Mapping::spare));
            used.for_each(|block| allocator.set_used(block));
        }
        self.change_copies(mirror, copies);
    }

    /// The other spare is not said to hold these blocks any more.
    pub(super) fn forget_copies(&self, blocks: impl Iterator<Item = BaseLba>, why: Forget) {
        let Some(mirror) = self.mirror.borrow().clone() else { return };
        let held = |lba| Some((lba, mirror.writer.borrow().table().mapping(lba)?));
        let forgotten: Vec<_> = blocks.filter_map(held).collect();
        if forgotten.is_empty() || active(Mutation::ChangeNotForgotten) {
            return;
        }
        self.change_copies(&mirror, forgotten.iter().map(|(lba, _)| Change { lba: *lba, to: None }).collect());
        let freed: Vec<_> = forgotten.iter().filter_map(|(_, mapping)| mapping.spare()).collect();
        let allocator = &mut mirror.allocator.borrow_mut();
        match why {
            Forget::Bad => freed.iter().for_each(|block| allocator.set_bad(*block)),
            // A write to it may be under way.
            Forget::Changed => {
                freed.iter().for_each(|block| allocator.hold(*block));
                self.free_copies_when_drained(&mirror, freed);
            }
        }
    }

    fn free_copies_when_drained(&self, mirror: &Rc<Mirror>, freed: Vec<SpareBlock>) {
        let (mirror, env) = (Rc::clone(mirror), Rc::clone(&self.env));
        self.tasks.spawn(async move {
            env.drain().await;
            let allocator = &mut mirror.allocator.borrow_mut();
            freed.into_iter().for_each(|block| allocator.set_drained(block));
        });
    }

    fn change_copies(&self, mirror: &Mirror, changes: Vec<Change>) {
        let retired = mirror.writer.borrow_mut().publish(changes);
        if !retired.is_empty() {
            self.tasks.spawn(reclaim(Rc::clone(&self.env), retired));
        }
    }
}

impl<D: Device, E: Env> Engine<D, E> {
    /// What [`crate::Owner::begin_mirrored`] answers.
    pub(super) async fn copies_for(&self, range: Extent) -> Vec<Run> {
        if !active(Mutation::MirroredWritesTogether) {
            self.shared.mirror_locks.take(&range.into()).await;
        }
        let mirror = self.shared.mirror.borrow().clone();
        let (runs, lost) = mirror.map(|mirror| mirror.copies(range)).unwrap_or_default();
        // What is written now is there again, on the one.
        self.shared.forget_copies(lost.into_iter(), Forget::Changed);
        runs
    }

    /// What [`crate::Owner::end_mirrored`] does.
    pub(super) fn write_is_over(&self, range: Extent, uncopied: Vec<Uncopied>) {
        let shared = &self.shared;
        let (bad, others): (Vec<_>, Vec<_>) = uncopied.into_iter().partition(|one| one.media);
        shared.forget_copies(bad.iter().map(|one| one.lba), Forget::Bad);
        shared.forget_copies(others.iter().map(|one| one.lba), Forget::Changed);
        let fatal = others.iter().map(|one| one.status).find(|status| !status.is_given_up());
        if let (Some(status), Some(mirror)) = (fatal, &*shared.mirror.borrow()) {
            mirror.failure.set(Some(status));
        }
        if !active(Mutation::MirroredWritesTogether) {
            shared.mirror_locks.give_back(&range.into());
        }
    }
}
