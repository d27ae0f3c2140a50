//! The way from the cache down to the base: on flush, on power cut, at the end. App thread.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use spdk::{Desc, DmaBuf, Endpoint, Errno, IoKind, Status, thread};

use crate::cache::{Block, Cache};

/// What every I/O to a device without power gets: NVMe 3/00h, internal path error. Nothing takes that for a bad block.
pub const NO_POWER: Status = Status::Nvme { cdw0: 0, sct: 3, sc: 0 };

/// Blocks in one write to the base, at most.
const RUN: usize = 32;

/// What of the cache reaches the base when the power goes.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Nothing.
    #[default]
    None,
    /// Each block, or not, as the seed decides.
    Random,
}

/// The base and what is on the way to it.
pub struct Store {
    pub cache: Arc<Cache>,
    /// The power is off.
    pub off: Arc<AtomicBool>,
    /// None when the base was given up.
    base: RefCell<Option<Endpoint>>,
    /// Someone writes down: one at a time, as two writes of the same block must not overtake each other.
    busy: Cell<bool>,
}

impl Store {
    /// A store on `base`, for the current thread.
    pub fn new(base: &Desc, cache: Arc<Cache>, off: Arc<AtomicBool>) -> Result<Store, Errno> {
        let base = RefCell::new(Some(Endpoint::new(base)?));
        Ok(Store { cache, off, base, busy: Cell::new(false) })
    }

    /// Makes what was written in `range` before this call durable. Fails when the power goes meanwhile.
    pub async fn flush(&self, range: Range<u64>) -> Result<(), Status> {
        let _turn = self.turn().await;
        let base = self.base()?;
        self.write_down(&base, self.cache.get(range.clone()), true).await?;
        if base.descriptor().supports(IoKind::Flush) {
            base.flush(range.start, range.end - range.start).await?;
        }
        if self.off.load(Ordering::Acquire) { Err(NO_POWER) } else { Ok(()) }
    }

    /// The power goes: from now on all I/O fails, and of the cache only what `keep` says reaches the base.
    pub async fn cut(&self, keep: Keep, seed: u64) -> Result<(), Status> {
        self.off.store(true, Ordering::Release);
        // A flush under way ends at its next write.
        let _turn = self.turn().await;
        let base = self.base()?;
        let kept = match keep {
            Keep::None => Vec::new(),
            Keep::Random => {
                let mut blocks = self.cache.get(0..u64::MAX);
                blocks.retain(|(lba, _)| is_kept(*lba, seed));
                blocks
            }
        };
        let written = self.write_down(&base, kept, false).await;
        self.cache.lose();
        written
    }

    /// The end: what has power has the time to write everything down. The base is given up.
    pub async fn close(&self) {
        let _turn = self.turn().await;
        if let (false, Ok(base)) = (self.off.load(Ordering::Acquire), self.base())
            && let Err(status) = self.write_down(&base, self.cache.get(0..u64::MAX), true).await
        {
            log::warn!("{} cached blocks are lost: {status:?}", self.cache.len());
        }
        self.base.take();
    }

    fn base(&self) -> Result<Endpoint, Status> {
        self.base.borrow().clone().ok_or(Status::Failed)
    }

    async fn turn(&self) -> Turn<'_> {
        while self.busy.replace(true) {
            thread::yield_now().await;
        }
        Turn(&self.busy)
    }

    /// Writes `blocks`, in the order of their LBAs; with `powered` only as long as there is power.
    async fn write_down(&self, base: &Endpoint, blocks: Vec<Block>, powered: bool) -> Result<(), Status> {
        let adjacent = |a: &Block, b: &Block| a.0 + 1 == b.0;
        for run in blocks.chunk_by(adjacent).flat_map(|run| run.chunks(RUN)) {
            if powered && self.off.load(Ordering::Acquire) {
                return Err(NO_POWER);
            }
            let bytes = run.iter().map(|(_, data)| data.len()).sum();
            let mut buffer = DmaBuf::zeroed(bytes).ok_or(Status::NoMemory)?;
            let mut rest = buffer.as_mut();
            for (_, data) in run {
                let (block, behind) = rest.split_at_mut(data.len());
                block.copy_from_slice(data);
                rest = behind;
            }
            base.write(run[0].0, buffer).await.1?;
            self.cache.written(run);
        }
        Ok(())
    }
}

/// The right to write to the base, given back when dropped.
struct Turn<'a>(&'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// One half of all blocks, by seed: each block has a stream of its own, so that its answer does not depend on the others.
fn is_kept(lba: u64, seed: u64) -> bool {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(lba);
    random.next_u32() & 1 == 0
}
