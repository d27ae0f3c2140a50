//! Moves of blocks that are committed together, later: the owner as a relocation sees it, which gathers what it is asked to commit.
//!
//! Whoever uses it has the blocks locked until it has committed.

use std::cell::RefCell;

use futures_util::future::join;

use super::Engine;
use super::batch::Asked;
use super::owner::Operator;
use crate::device::{Device, Env};
use crate::owner::{Committed, Move, Owner, Refused, Target};
use crate::slot::SpareBlock;
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

    /// Commits all of it: how many blocks were relocated, and how many could not be read.
    pub(super) async fn commit(self) -> Result<(u64, u64), Refused> {
        let (moves, pending) = (self.moves.take(), self.pending.take());
        let counts = (moves.len() as u64, pending.len() as u64);
        let change = async |asked: Asked| match asked.blocks() {
            0 => Ok(Vec::new()),
            _ => self.operator.0.change(asked).await,
        };
        // Both wait in the committer's queue before it looks, and share pages.
        let (moved, marked) = join(change(Asked::Commit(moves)), change(Asked::Pending(pending))).await;
        moved.and(marked).map(|_| counts)
    }
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
