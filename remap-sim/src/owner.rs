//! The engine of a simulated vbdev, called from another thread, to which calls take a while.

use remap_core::{BaseLba, Committed, Device, Extent, Move, Owner, Refused, Run, SpareBlock, Status, Target, Uncopied};

use super::vbdev::{SimEngine, SimIo, Vbdev};

/// Calls the engine for an I/O.
pub(crate) struct OwnerThread<'a> {
    pub(crate) vbdev: &'a Vbdev,
    pub(crate) io: &'a SimIo,
}

impl OwnerThread<'_> {
    /// Notes what was refused, and whether there was a reason to, by the state before the owner decided.
    fn note<T>(&self, answer: Result<T, Refused>, before: &Status, wanted: u64) -> Result<T, Refused> {
        if let Err(refused) = &answer {
            let reason = match refused {
                Refused::NoSpare => before.spare.free < wanted,
                Refused::Tripped => before.storm_limit < self.vbdev.base.geometry().blocks,
                // Whoever looks at the story knows whether the metadata could not be written, or was wiped.
                Refused::LogFailed | Refused::Closed => true,
            };
            self.io.story.borrow_mut().refused.push((*refused, reason));
        }
        answer
    }

    /// What is given out must not have failed before.
    fn check_new(&self, target: &Target) {
        if let Target::New(at) = target
            && self.vbdev.failed.borrow().contains(at)
        {
            self.io.story.borrow_mut().given_again.push(*at);
        }
    }

    fn engine(&self) -> &SimEngine {
        &self.vbdev.engine
    }
}

impl Owner for OwnerThread<'_> {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let wanted = blocks.len() as u64;
        let before = self.engine().status();
        let answer = self.note(self.engine().reserve(blocks).await, &before, wanted);
        answer.iter().flatten().for_each(|target| self.check_new(target));
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let before = self.engine().status();
        let answer = self.note(self.engine().commit(moves.clone()).await, &before, 0);
        if let Ok(answers) = &answer {
            let done = moves.iter().zip(answers).filter(|(_, answer)| **answer == Committed::Done);
            let story = &mut *self.io.story.borrow_mut();
            story.relocated.extend(done.map(|(one, _)| one.lba.0));
            story.elsewhere += usize::from(answers.iter().any(|answer| matches!(answer, Committed::Elsewhere(_))));
        }
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let before = self.engine().status();
        let answer = self.note(self.engine().replace(lba, bad).await, &before, 1);
        answer.iter().for_each(|target| self.check_new(target));
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        self.engine().release(reserved).await;
        self.vbdev.threads.hop(self.vbdev.reactor).await;
    }

    async fn condemn(&self, blocks: Vec<SpareBlock>) {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        self.engine().condemn(blocks).await;
        self.vbdev.threads.hop(self.vbdev.reactor).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let before = self.engine().status();
        let answer = self.note(self.engine().set_pending(blocks).await, &before, 0);
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn begin_mirrored(&self, range: Extent) -> Vec<Run> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let copies = self.engine().begin_mirrored(range).await;
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        copies
    }

    async fn end_mirrored(&self, range: Extent, uncopied: Vec<Uncopied>) {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        self.engine().end_mirrored(range, uncopied).await;
        self.vbdev.threads.hop(self.vbdev.reactor).await;
    }
}
