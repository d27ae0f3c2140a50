//! A simulated disk, as unkind as a disk may be: an operation takes effect at some moment between its beginning and its
//! end, one block before the other; a flush covers what had taken effect when it began; a power cut leaves of each block
//! any version since the last flush, and of an operation that was under way any part.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::block::{Block, block_of, copy_to, mixed};
use super::faults::{Effect, Faults, Struck, Verb};
use super::random::Random;
use crate::device::{Device, Geometry};
use crate::sim::Executor;
use crate::status::IoStatus;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// What.
    pub verb: Verb,
    /// Of which block on; a flush has none.
    pub lba: u64,
    /// How many.
    pub blocks: u64,
}

/// What a crash does to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Only the process died.
    Kill,
    /// The power failed, and nothing of the cache was written out.
    PowerNothing,
    /// The power failed, and of each block of the cache some version was written out, or none.
    PowerSome,
    /// The power failed when the whole cache was written out.
    PowerAll,
}

struct UnderWay {
    access: Access,
    /// What is to be written and has not taken effect yet.
    left: Vec<(u64, Block)>,
}

struct State {
    durable: Vec<Block>,
    /// The versions of a block since the last flush, oldest first, each with the moment when it came.
    cache: BTreeMap<u64, Vec<(u64, Block)>>,
    moment: u64,
    under_way: BTreeMap<u64, UnderWay>,
    begun: u64,
    writes: u64,
    faults: Faults,
}

struct Inner {
    geometry: Geometry,
    state: RefCell<State>,
    executor: RefCell<Executor>,
    random: Random,
    /// The longest that a third of an operation takes.
    slowness: Cell<u64>,
    /// Which blocks may be torn, into pieces of how many bytes.
    tears: RefCell<Box<dyn Fn(u64) -> Option<usize>>>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Rc<Inner>);

impl Disk {
    /// A disk of zeros.
    #[must_use]
    pub fn new(geometry: Geometry, random: &Random, slowness: u64) -> Disk {
        let state = State {
            durable: vec![None; geometry.blocks as usize],
            cache: BTreeMap::new(),
            moment: 0,
            under_way: BTreeMap::new(),
            begun: 0,
            writes: 0,
            faults: Faults::default(),
        };
        Disk(Rc::new(Inner {
            geometry,
            state: RefCell::new(state),
            executor: RefCell::default(),
            random: random.clone(),
            slowness: Cell::new(slowness),
            tears: RefCell::new(Box::new(|_| None)),
        }))
    }

    /// From now on it belongs to the process that `executor` runs.
    pub fn attach(&self, executor: &Executor) {
        *self.0.executor.borrow_mut() = executor.clone();
    }

    /// Says which blocks may be torn, and into pieces of how many bytes.
    pub fn set_tears(&self, tears: impl Fn(u64) -> Option<usize> + 'static) {
        *self.0.tears.borrow_mut() = Box::new(tears);
    }

    /// Its faults.
    pub fn faults<R>(&self, f: impl FnOnce(&mut Faults) -> R) -> R {
        f(&mut self.0.state.borrow_mut().faults)
    }

    /// What is under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<Access> {
        self.0.state.borrow().under_way.values().map(|one| one.access).collect()
    }

    /// How many writes were begun.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.state.borrow().writes
    }

    /// What is on the medium under the cache.
    #[must_use]
    pub fn durable(&self, lba: u64) -> Block {
        self.0.state.borrow().durable[lba as usize].clone()
    }

    /// Which blocks from `first` to `end` have something on the medium.
    #[must_use]
    pub fn written(&self, first: u64, end: u64) -> Vec<u64> {
        let state = self.0.state.borrow();
        (first..end).filter(|lba| state.durable[*lba as usize].is_some()).collect()
    }

    /// Changes what is on the medium, as bit rot does.
    pub fn rot(&self, lba: u64, block: Block) {
        self.0.state.borrow_mut().durable[lba as usize] = block;
    }

    /// Does an operation for the host, who wants to know what a failure was.
    ///
    /// # Errors
    /// The fault that struck.
    pub async fn transfer(&self, access: Access, buffer: &mut [u8]) -> Result<(), Struck> {
        let id = self.begin(access, buffer);
        self.wait().await;
        // Some blocks take effect before the others do.
        if access.blocks > 1 && self.0.random.chance(1, 4) {
            self.take_effect(id, true);
            self.wait().await;
        }
        let result = self.strike(id, access, buffer);
        self.wait().await;
        self.0.state.borrow_mut().under_way.remove(&id);
        result
    }

    async fn wait(&self) {
        let time = Duration::from_micros(self.0.random.below(self.0.slowness.get()));
        let asleep = self.0.executor.borrow().sleep(time);
        asleep.await;
    }

    fn begin(&self, access: Access, buffer: &[u8]) -> u64 {
        let state = &mut *self.0.state.borrow_mut();
        state.begun += 1;
        let id = state.begun;
        let size = self.0.geometry.block_size as usize;
        let left = match access.verb {
            Verb::Write => {
                state.writes += 1;
                (access.lba..).zip(buffer.chunks(size).map(block_of)).collect()
            }
            Verb::Zero => {
                state.writes += 1;
                (access.lba..access.lba + access.blocks).map(|lba| (lba, None)).collect()
            }
            Verb::Read | Verb::Flush => Vec::new(),
        };
        let lba = if access.verb == Verb::Flush { state.moment } else { access.lba };
        state.under_way.insert(id, UnderWay { access: Access { lba, ..access }, left });
        id
    }

    /// Lets what is left of an operation take effect, or `some` of it.
    fn take_effect(&self, id: u64, some: bool) {
        let state = &mut *self.0.state.borrow_mut();
        let Some(mut one) = state.under_way.remove(&id) else { return };
        one.left.retain(|(lba, block)| {
            let wait = some && self.0.random.chance(1, 2);
            if !wait {
                state.put(*lba, block.clone(), self.0.geometry.volatile_cache);
            }
            wait
        });
        state.under_way.insert(id, one);
    }

    /// The moment of truth: whether the operation fails, and what it does all the same.
    fn strike(&self, id: u64, access: Access, buffer: &mut [u8]) -> Result<(), Struck> {
        let end = access.lba + access.blocks;
        if end > self.0.geometry.blocks {
            return Err(Struck::foreign(access.lba));
        }
        let struck = self.0.state.borrow_mut().faults.strike(access.verb, access.lba, end);
        match (access.verb, struck) {
            (Verb::Read, Some(struck)) | (Verb::Flush, Some(struck)) => Err(struck),
            (Verb::Read, None) => {
                self.get(access.lba, buffer);
                Ok(())
            }
            (Verb::Flush, None) => {
                let state = &mut *self.0.state.borrow_mut();
                // Where it was when it began.
                let moment = state.under_way.get(&id).map_or(0, |one| one.access.lba);
                state.flush(moment);
                Ok(())
            }
            (Verb::Write | Verb::Zero, None) => {
                self.take_effect(id, false);
                self.0.state.borrow_mut().faults.heal_by_write(access.lba, end);
                Ok(())
            }
            (Verb::Write | Verb::Zero, Some(struck)) => {
                let state = &mut *self.0.state.borrow_mut();
                let Some(one) = state.under_way.get_mut(&id) else { return Err(struck) };
                let left = std::mem::take(&mut one.left);
                for (lba, block) in left {
                    let written = match struck.effect {
                        Effect::Nothing => false,
                        Effect::Everything => true,
                        Effect::Some => lba != struck.lba && self.0.random.chance(1, 2),
                    };
                    if written {
                        state.put(lba, block, self.0.geometry.volatile_cache);
                    }
                }
                Err(struck)
            }
        }
    }

    fn get(&self, lba: u64, buffer: &mut [u8]) {
        let state = self.0.state.borrow();
        let size = self.0.geometry.block_size as usize;
        let blocks = (buffer.len() / size) as u64;
        let durable = &state.durable[lba as usize..(lba + blocks) as usize];
        for (block, bytes) in durable.iter().zip(buffer.chunks_mut(size)) {
            copy_to(block, bytes);
        }
        for (at, versions) in state.cache.range(lba..lba + blocks) {
            let start = (at - lba) as usize * size;
            if let Some((_, block)) = versions.last() {
                copy_to(block, &mut buffer[start..start + size]);
            }
        }
    }

    /// What a crash leaves. Returns whether a page was torn.
    pub fn crash(&self, cut: Cut) -> bool {
        let state = &mut *self.0.state.borrow_mut();
        let (random, volatile) = (&self.0.random, self.0.geometry.volatile_cache);
        let (tears, size) = (self.0.tears.borrow(), self.0.geometry.block_size as usize);
        let mut torn = false;
        for (_, one) in std::mem::take(&mut state.under_way) {
            let some = random.below(3);
            let total = one.left.len();
            let mut taken = 0;
            for (lba, block) in one.left {
                if some == 0 || (some == 1 && random.chance(1, 2)) {
                    continue;
                }
                let old = state.get(lba).clone();
                let piece = tears(lba).filter(|_| some == 1);
                torn |= piece.is_some();
                let block = piece.map_or_else(|| block.clone(), |piece| mixed(&old, &block, size, piece, random));
                taken += 1;
                state.put(lba, block, volatile);
            }
            torn |= taken > 0 && taken < total && tears(one.access.lba).is_some();
        }
        if cut == Cut::Kill {
            return torn;
        }
        // Each block by itself, or all before or behind some place on the disk.
        let (by_place, behind, place) =
            (random.chance(1, 2), random.chance(1, 2), random.below(self.0.geometry.blocks));
        for (lba, versions) in std::mem::take(&mut state.cache) {
            let all = versions.len() as u64;
            let count = match cut {
                Cut::PowerAll => all,
                Cut::PowerSome if by_place => {
                    if (lba >= place) == behind {
                        all
                    } else {
                        0
                    }
                }
                Cut::PowerSome => random.below(all + 1),
                Cut::PowerNothing | Cut::Kill => 0,
            };
            let Some((_, block)) = count.checked_sub(1).and_then(|index| versions.into_iter().nth(index as usize))
            else {
                continue;
            };
            let durable = &mut state.durable[lba as usize];
            let piece = tears(lba).filter(|_| cut == Cut::PowerSome && random.chance(1, 4));
            torn |= piece.is_some();
            *durable = piece.map_or_else(|| block.clone(), |piece| mixed(durable, &block, size, piece, random));
        }
        torn
    }
}

impl State {
    fn get(&self, lba: u64) -> &Block {
        match self.cache.get(&lba).and_then(|versions| versions.last()) {
            Some((_, block)) => block,
            None => &self.durable[lba as usize],
        }
    }

    fn put(&mut self, lba: u64, block: Block, volatile: bool) {
        if lba >= self.durable.len() as u64 {
            return;
        }
        self.moment += 1;
        if volatile {
            self.cache.entry(lba).or_default().push((self.moment, block));
        } else {
            self.durable[lba as usize] = block;
        }
    }

    /// Writes out what had come by `moment`.
    fn flush(&mut self, moment: u64) {
        let durable = &mut self.durable;
        self.cache.retain(|lba, versions| {
            let old = versions.iter().take_while(|(came, _)| *came <= moment).count();
            if let Some((_, block)) = versions.drain(..old).next_back() {
                durable[*lba as usize] = block;
            }
            !versions.is_empty()
        });
    }
}

impl Device for Disk {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    fn alloc(&self, blocks: usize) -> Result<Vec<u8>, IoStatus> {
        Ok(vec![0; blocks * self.0.geometry.block_size as usize])
    }

    async fn read(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        let blocks = buffer.len() as u64 / u64::from(self.0.geometry.block_size);
        let result = self.transfer(Access { verb: Verb::Read, lba, blocks }, &mut buffer).await;
        (buffer, result.map_err(|struck| struck.status))
    }

    async fn write(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        let blocks = buffer.len() as u64 / u64::from(self.0.geometry.block_size);
        let result = self.transfer(Access { verb: Verb::Write, lba, blocks }, &mut buffer).await;
        (buffer, result.map_err(|struck| struck.status))
    }

    async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.transfer(Access { verb: Verb::Zero, lba, blocks }, &mut []).await.map_err(|struck| struck.status)
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        let all = Access { verb: Verb::Flush, lba: 0, blocks: 0 };
        self.transfer(all, &mut []).await.map_err(|struck| struck.status)
    }
}
