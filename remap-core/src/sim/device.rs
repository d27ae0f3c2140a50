//! A simulated device: blocks in memory, with a volatile cache, faults, and power cuts.
//!
//! Reads see the cache. A flush makes it durable; a power cut loses what the caller chooses of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::exec::pause;
use crate::device::{Device, Geometry};
use crate::status::IoStatus;

type Block = Rc<[u8]>;

/// The durable contents of a device. Cheap to clone; blocks that are not in it are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    block_size: u32,
    size: u64,
    blocks: BTreeMap<u64, Block>,
}

impl Medium {
    /// `size` blocks of zeros.
    #[must_use]
    pub fn new(block_size: u32, size: u64) -> Medium {
        Medium { block_size, size, blocks: BTreeMap::new() }
    }

    /// Bytes a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The contents of a block.
    #[must_use]
    pub fn block(&self, lba: u64) -> Vec<u8> {
        self.blocks.get(&lba).map_or_else(|| vec![0; self.block_size as usize], |block| block.to_vec())
    }

    /// Sets the contents of a block.
    pub fn set_block(&mut self, lba: u64, data: &[u8]) {
        // A block of zeros is as one that is not there, so that equal contents are equal.
        if data.iter().all(|byte| *byte == 0) {
            self.blocks.remove(&lba);
        } else {
            self.blocks.insert(lba, data.into());
        }
    }

    /// Flips a bit of a block.
    pub fn flip(&mut self, lba: u64, bit: usize) {
        let mut block = self.block(lba);
        if let Some(byte) = block.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        self.set_block(lba, &block);
    }

    /// Makes a range of blocks zeros.
    pub fn clear(&mut self, lba: u64, blocks: u64) {
        (lba..lba + blocks).for_each(|lba| {
            self.blocks.remove(&lba);
        });
    }
}

/// Which operation a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Reads.
    Read,
    /// Writes and write_zeroes; of a failed one, the blocks before the first that has the fault are written.
    Write,
    /// Writes and write_zeroes, which fail although all of their blocks are written.
    WriteLies,
    /// Flushes.
    Flush,
}

struct Fault {
    kind: FaultKind,
    first: u64,
    end: u64,
    status: IoStatus,
    /// How often it still strikes.
    left: u64,
}

/// What a power cut leaves of the cache.
pub enum PowerCut<'a> {
    /// All of it: only the application died.
    Keep,
    /// Nothing of it.
    Drop,
    /// Called for each block with the number of versions of it in the cache; the answer says how many of them reached the
    /// medium, oldest first.
    Choose(&'a mut dyn FnMut(u64, usize) -> usize),
}

struct State {
    durable: Medium,
    /// The contents that a block had since the last flush, oldest first.
    cache: BTreeMap<u64, Vec<Block>>,
    volatile_cache: bool,
    faults: Vec<Fault>,
    /// Writes, zeroes and flushes so far, one for each block written.
    steps: u64,
    /// The step at which power fails.
    dies_at: Option<u64>,
    dead: bool,
    delay: Box<dyn FnMut() -> u32>,
}

/// A simulated device. Clones are the same device.
#[derive(Clone)]
pub struct SimDevice {
    state: Rc<RefCell<State>>,
    geometry: Geometry,
    writes: Rc<Cell<u64>>,
}

impl SimDevice {
    /// A device that holds `medium`.
    #[must_use]
    pub fn new(medium: Medium, volatile_cache: bool) -> SimDevice {
        let geometry = Geometry { block_size: medium.block_size, blocks: medium.size, volatile_cache };
        let state = State {
            durable: medium,
            cache: BTreeMap::new(),
            volatile_cache,
            faults: Vec::new(),
            steps: 0,
            dies_at: None,
            dead: false,
            delay: Box::new(|| 1),
        };
        SimDevice { state: Rc::new(RefCell::new(state)), geometry, writes: Rc::default() }
    }

    /// How often other tasks go on before an operation is done, by a function that is called for each: it decides the
    /// order in which operations end.
    pub fn set_delay(&self, delay: impl FnMut() -> u32 + 'static) {
        self.state.borrow_mut().delay = Box::new(delay);
    }

    /// The next `times` operations of `kind` that touch blocks `first..end` fail with `status`.
    pub fn fail(&self, kind: FaultKind, first: u64, end: u64, status: IoStatus, times: u64) {
        self.state.borrow_mut().faults.push(Fault { kind, first, end, status, left: times });
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.state.borrow_mut().faults.clear();
    }

    /// Write operations so far, flushes not counted.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Steps so far: each block written and each flush is one.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state.borrow().steps
    }

    /// Power fails when `step` steps are done, in the middle of a write if need be; no operation ends after that.
    pub fn die_at(&self, step: u64) {
        self.state.borrow_mut().dies_at = Some(step);
    }

    /// What is on the medium after a power cut now.
    #[must_use]
    pub fn after(&self, mut cut: PowerCut<'_>) -> Medium {
        let state = self.state.borrow();
        let mut medium = state.durable.clone();
        for (lba, versions) in &state.cache {
            let survives = match &mut cut {
                PowerCut::Keep => versions.len(),
                PowerCut::Drop => 0,
                PowerCut::Choose(choose) => choose(*lba, versions.len()).min(versions.len()),
            };
            if let Some(block) = survives.checked_sub(1).and_then(|index| versions.get(index)) {
                medium.set_block(*lba, block);
            }
        }
        medium
    }

    /// What reads see, with no power cut.
    #[must_use]
    pub fn contents(&self) -> Medium {
        self.after(PowerCut::Keep)
    }

    /// Changes the durable contents under the device's feet, as bit rot does.
    pub fn rot(&self, change: impl FnOnce(&mut Medium)) {
        change(&mut self.state.borrow_mut().durable);
    }

    /// Waits as long as an operation takes, for ever on a dead device.
    async fn wait(&self) {
        let times = (self.state.borrow_mut().delay)();
        pause(times).await;
        if self.state.borrow().dead {
            std::future::pending::<()>().await;
        }
    }

    /// Reads blocks, without waiting.
    fn get(&self, lba: u64, into: &mut [u8]) -> Result<(), IoStatus> {
        let state = &mut *self.state.borrow_mut();
        let size = self.geometry.block_size as usize;
        let end = lba + (into.len() / size) as u64;
        if end > self.geometry.blocks {
            return Err(IoStatus::Failed);
        }
        if let Some(fault) = state.strike(FaultKind::Read, lba, end) {
            return Err(fault.1);
        }
        for (lba, bytes) in (lba..end).zip(into.chunks_mut(size)) {
            let block = state.cache.get(&lba).and_then(|versions| versions.last()).or(state.durable.blocks.get(&lba));
            match block {
                Some(block) => bytes.copy_from_slice(block),
                None => bytes.fill(0),
            }
        }
        Ok(())
    }

    /// Writes blocks, without waiting. Power may fail in the middle: then it never returns to the caller.
    fn put(&self, lba: u64, blocks: u64, data: impl Fn(u64) -> Block) -> Result<(), IoStatus> {
        let state = &mut *self.state.borrow_mut();
        self.writes.set(self.writes.get() + 1);
        if lba + blocks > self.geometry.blocks {
            return Err(IoStatus::Failed);
        }
        let lie = state.strike(FaultKind::WriteLies, lba, lba + blocks).map(|(_, status)| status);
        let fault = state.strike(FaultKind::Write, lba, lba + blocks);
        for index in 0..blocks {
            if let Some((bad, status)) = fault
                && lba + index >= bad
            {
                return Err(status);
            }
            if !state.step() {
                return Ok(());
            }
            let block = data(index);
            if state.volatile_cache {
                state.cache.entry(lba + index).or_default().push(block);
            } else {
                state.durable.set_block(lba + index, &block);
            }
        }
        lie.map_or(Ok(()), Err)
    }
}

impl State {
    /// Counts a step; false if power fails before it.
    fn step(&mut self) -> bool {
        if self.dies_at.is_some_and(|step| self.steps >= step) {
            self.dead = true;
            return false;
        }
        self.steps += 1;
        true
    }

    /// The first block in `first..end` that has a fault of this kind, and its status; the fault is used up by one.
    fn strike(&mut self, kind: FaultKind, first: u64, end: u64) -> Option<(u64, IoStatus)> {
        let hits = |fault: &&mut Fault| fault.kind == kind && fault.left > 0 && fault.first < end && first < fault.end;
        let fault = self.faults.iter_mut().find(hits)?;
        fault.left -= 1;
        Some((fault.first.max(first), fault.status))
    }
}

impl Device for SimDevice {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn alloc(&self, blocks: usize) -> Result<Vec<u8>, IoStatus> {
        Ok(vec![0; blocks * self.geometry.block_size as usize])
    }

    async fn read(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        self.wait().await;
        let result = self.get(lba, &mut buffer);
        (buffer, result)
    }

    async fn write(&self, lba: u64, buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        self.wait().await;
        let size = self.geometry.block_size as usize;
        let block = |index: u64| {
            let start = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(size);
            Block::from(buffer.get(start..start + size).unwrap_or_default())
        };
        let result = self.put(lba, (buffer.len() / size) as u64, block);
        self.wait().await;
        (buffer, result)
    }

    async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.wait().await;
        let zeros: Block = vec![0; self.geometry.block_size as usize].into();
        let result = self.put(lba, blocks, |_| Rc::clone(&zeros));
        self.wait().await;
        result
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        self.wait().await;
        {
            let state = &mut *self.state.borrow_mut();
            if let Some((_, status)) = state.strike(FaultKind::Flush, 0, u64::MAX) {
                return Err(status);
            }
            if state.step() {
                for (lba, versions) in std::mem::take(&mut state.cache) {
                    if let Some(block) = versions.last() {
                        state.durable.set_block(lba, block);
                    }
                }
            }
        }
        self.wait().await;
        Ok(())
    }
}
