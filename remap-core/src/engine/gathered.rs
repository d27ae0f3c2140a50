//! Moves of blocks that are committed together, later: the owner as a relocation sees it, which gathers what it is asked to commit.
//!
//! Whoever uses it has the blocks locked until it has committed.

use std::cell::RefCell;

use futures_util::future::{FutureExt, join};

use super::Engine;
use super::batch::Asked;
use super::owner::Operator;
use crate::device::{Device, Env};
use crate::mutation::{Mutation, active};
use crate::owner::{Committed, Move, Owner, Refused, Target};
use crate::pace::Pace;
use crate::slot::SpareBlock;
use crate::table::Mapping;
use crate::units::BaseLba;

/// What is to be committed.
pub(super) struct Gathered<'a, D: Device, E: Env> {
    operator: Operator<'a, D, E>,
    moves: RefCell<Vec<Move>>,
    pending: RefCell<Vec<BaseLba>>,
}

impl<'a, D: Device, E: Env> Gathered<'a, D, E> {
    pub(super) fn new(engine: &'a Engine<D, E>) -> Gathered<'a, D, E> {
        Gathered { operator: Operator(engine), moves: RefCell::default(), pending: RefCell::default() }
    }

    /// These are to become pending.
    pub(super) fn add_pending(&self, blocks: impl Iterator<Item = BaseLba>) {
        self.pending.borrow_mut().extend(blocks);
    }

    /// Commits all of it: how many blocks were relocated, how many became pending as they could not be read, and whether that
    /// is all.
    pub(super) async fn commit(self) -> (u64, u64, Result<(), Refused>) {
        let (moves, pending) = (self.moves.take(), self.pending.take());
        let engine = self.operator.0;
        let change = async |asked: Asked| match asked.blocks() {
            0 => Ok(Vec::new()),
            _ => engine.change(asked).await,
        };
        // Both wait in the committer's queue before it looks, and share pages unless they are long.
        let both = join(change(Asked::Commit(moves.clone())), change(Asked::Pending(pending.clone())));
        let (moved, marked) = if active(Mutation::ListAnsweredBeforeCommit) {
            both.now_or_never().unwrap_or((Ok(Vec::new()), Ok(Vec::new())))
        } else {
            both.await
        };
        // Of several pages, the first ones may have become durable.
        let became = |lba, what| engine.shared.table.mapping(lba) == Some(what);
        let added = match moved {
            Ok(_) => moves.len(),
            Err(_) => count(&moves, |one| became(one.lba, Mapping::Spare(one.to))).await,
        };
        let left = match marked {
            Ok(_) => pending.len(),
            Err(_) => count(&pending, |lba| became(*lba, Mapping::Pending)).await,
        };
        (added as u64, left as u64, moved.and(marked).map(drop))
    }
}

/// How many of them are so. Others go on meanwhile.
async fn count<T>(all: &[T], is_so: impl Fn(&T) -> bool) -> usize {
    let (mut count, mut pace) = (0, Pace::default());
    for part in all.chunks(Pace::STRIDE) {
        count += part.iter().filter(|one| is_so(one)).count();
        pace.step(part.len()).await;
    }
    count
}

impl<D: Device, E: Env> Owner for Gathered<'_, D, E> {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.operator.reserve(blocks).await
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        let answers = vec![Committed::Done; moves.len()];
        self.moves.borrow_mut().extend(moves);
        Ok(answers)
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        self.operator.replace(lba, bad).await
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        self.operator.release(reserved).await;
    }

    async fn condemn(&self, blocks: Vec<SpareBlock>) {
        self.operator.condemn(blocks).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.add_pending(blocks.into_iter());
        Ok(())
    }
}
