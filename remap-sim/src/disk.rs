//! A simulated disk, as unkind as a disk may be: an operation takes effect at some moment between its beginning and its
//! end, one block before the other; a flush covers what had taken effect when it began; a power cut leaves of each block
//! any version since the last flush, and of an operation that was under way any part.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use remap_core::{Device, Geometry, IoStatus};

use super::block::{Block, block_of};
use super::executor::Executor;
use super::faults::{Effect, Fault, Faults, Struck, Verb};
use super::medium::Medium;
use super::random::Random;
use super::store::{Cut, Store, Tears};

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

impl Access {
    /// A flush.
    pub const FLUSH: Access = Access { verb: Verb::Flush, lba: 0, blocks: 0 };
}

struct Inner {
    geometry: Cell<Geometry>,
    store: RefCell<Store>,
    faults: RefCell<Faults>,
    executor: RefCell<Executor>,
    random: RefCell<Random>,
    slowness: Cell<u64>,
    tears: RefCell<Box<Tears>>,
    writes: Cell<u64>,
    commands: Cell<u64>,
    hangs_until: Cell<Duration>,
    /// How everything fails, while it has no power.
    gone: Cell<Option<IoStatus>>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Rc<Inner>);

impl Disk {
    /// A disk with `medium` in it, of the process that `executor` runs. Its operations end in the order in which they
    /// began, and it has no faults.
    #[must_use]
    pub fn new(executor: &Executor, medium: Medium, volatile_cache: bool) -> Disk {
        Disk::with(executor, Store::new(medium, volatile_cache), Random::new(0))
    }

    /// A disk without faults as this one is now, with all that is in its cache and under way.
    #[must_use]
    pub fn forked(&self, seed: u64) -> Disk {
        Disk::with(&self.0.executor.borrow(), self.0.store.borrow().clone(), Random::new(seed))
    }

    fn with(executor: &Executor, store: Store, random: Random) -> Disk {
        Disk(Rc::new(Inner {
            geometry: Cell::new(store.medium.geometry()),
            store: RefCell::new(store),
            faults: RefCell::default(),
            executor: RefCell::new(executor.clone()),
            random: RefCell::new(random),
            slowness: Cell::new(1),
            tears: RefCell::new(Box::new(|_| None)),
            writes: Cell::new(0),
            commands: Cell::new(0),
            hangs_until: Cell::default(),
            gone: Cell::new(None),
        }))
    }

    /// From now on it belongs to the process that `executor` runs.
    pub fn attach(&self, executor: &Executor) {
        *self.0.executor.borrow_mut() = executor.clone();
        self.0.gone.set(None);
    }

    /// From now on `random` decides when its operations take effect, and all else that is open. `slowness` is the longest
    /// that a third of an operation takes, in microseconds; with 1, operations end in the order in which they began.
    pub fn set_timing(&self, random: &Random, slowness: u64) {
        *self.0.random.borrow_mut() = random.clone();
        self.0.slowness.set(slowness);
    }

    /// No operation ends before that time on its clock.
    pub fn hang_until(&self, time: Duration) {
        self.0.hangs_until.set(time);
    }

    /// Says which blocks a crash, or a write that fails, may tear, and into pieces of how many bytes.
    pub fn set_tears(&self, tears: impl Fn(u64) -> Option<usize> + 'static) {
        *self.0.tears.borrow_mut() = Box::new(tears);
    }

    /// From now on it has this fault.
    pub fn fail(&self, fault: Fault) {
        self.faults(|faults| faults.add(fault));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.faults(|faults| faults.heal(|_| true));
    }

    /// Its faults.
    pub fn faults<R>(&self, f: impl FnOnce(&mut Faults) -> R) -> R {
        f(&mut self.0.faults.borrow_mut())
    }

    /// What is under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<Access> {
        self.0.store.borrow().under_way.values().map(|one| one.access).collect()
    }

    /// How many writes, of data or zeroes, were begun.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.writes.get()
    }

    /// Steps so far: each block written and each flush is one.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.store.borrow().steps
    }

    /// Power fails when `step` steps are done, in the middle of a write if need be; no operation ends after that.
    pub fn die_at(&self, step: u64) {
        self.0.store.borrow_mut().dies_at = Some(step);
    }

    /// What is on the medium under the cache: all that a power cut must leave.
    #[must_use]
    pub fn durable(&self) -> Medium {
        self.0.store.borrow().medium.clone()
    }

    /// What reads see: what the death of the process leaves.
    #[must_use]
    pub fn contents(&self) -> Medium {
        self.left_by(|_, versions| versions)
    }

    /// What a power cut leaves, if of each block of the cache that many versions reach the medium, oldest first, as `choose`
    /// says to its LBA and the number of versions. Nothing of what is under way.
    #[must_use]
    pub fn left_by(&self, choose: impl FnMut(u64, usize) -> usize) -> Medium {
        self.0.store.borrow().left_by(choose)
    }

    /// What is on the medium of block `lba`, under the cache.
    #[must_use]
    pub fn block(&self, lba: u64) -> Block {
        self.0.store.borrow().medium.get(lba)
    }

    /// Which blocks of `range` have something on the medium.
    #[must_use]
    pub fn written(&self, range: Range<u64>) -> Vec<u64> {
        self.0.store.borrow().medium.written(range).map(|(lba, _)| lba).collect()
    }

    /// Changes what is on the medium under its feet, as bit rot does.
    pub fn rot(&self, change: impl FnOnce(&mut Medium)) {
        change(&mut self.0.store.borrow_mut().medium);
    }

    /// The block has rotted; whether it had already, and was not written since.
    pub(crate) fn note_rotten(&self, lba: u64) -> bool {
        !self.0.store.borrow_mut().rotten.insert(lba)
    }

    /// Whether the block has rotted, and was not written since.
    pub(crate) fn is_rotten(&self, lba: u64) -> bool {
        self.0.store.borrow().rotten.contains(&lba)
    }

    /// It has `blocks` blocks now, not fewer than before; the new ones are zeros.
    pub fn grow(&self, blocks: u64) {
        let medium = &mut self.0.store.borrow_mut().medium;
        medium.grow(blocks);
        self.0.geometry.set(medium.geometry());
    }

    /// A crash happens to it. Returns whether a page was torn.
    pub fn crash(&self, cut: Cut) -> bool {
        self.0.store.borrow_mut().crash(cut, &self.random(), &**self.0.tears.borrow())
    }

    /// Does an operation for the host, who wants to know what a failure was.
    ///
    /// # Errors
    /// The fault that struck.
    pub async fn transfer(&self, access: Access, buffer: &mut [u8]) -> Result<(), Struck> {
        let id = self.begin(access, buffer);
        self.wait().await;
        let random = self.random();
        // Some blocks take effect before the others do.
        if access.blocks > 1 && access.verb != Verb::Unmap && !self.is_gone() && random.chance(1, 4) {
            self.0.store.borrow_mut().take_effect(id, |_| random.chance(1, 2));
            self.wait().await;
        }
        let mut result = self.strike(id, access, buffer);
        self.wait().await;
        // Nobody can tell any more that it was done.
        if let (Some(status), Ok(())) = (self.0.gone.get(), result) {
            result = Err(Struck { status, ..Struck::foreign(access.lba) });
        }
        self.0.store.borrow_mut().under_way.remove(&id);
        result
    }

    fn random(&self) -> Random {
        self.0.random.borrow().clone()
    }

    /// Waits as long as a part of an operation takes: for ever on a dead disk.
    async fn wait(&self) {
        let (random, slowness) = (self.random(), self.0.slowness.get());
        // Now and then something takes very long.
        let longest = if slowness > 1 && random.chance(1, 64) { slowness * 40 } else { slowness };
        let time = Duration::from_micros(random.below(longest));
        let hangs = self.0.hangs_until.get().saturating_sub(self.0.executor.borrow().now());
        let asleep = self.0.executor.borrow().sleep(time.max(hangs));
        asleep.await;
        if self.0.store.borrow().dead {
            self.0.executor.borrow().halt();
            pending::<()>().await;
        }
    }

    fn begin(&self, access: Access, buffer: &[u8]) -> u64 {
        let size = self.0.geometry.get().block_size as usize;
        let left: Vec<_> = match access.verb {
            Verb::Write => (access.lba..).zip(buffer.chunks(size).map(block_of)).collect(),
            Verb::Zero | Verb::Unmap => (access.lba..access.lba + access.blocks).map(|lba| (lba, None)).collect(),
            Verb::Read | Verb::Flush => Vec::new(),
        };
        let writes = matches!(access.verb, Verb::Write | Verb::Zero);
        self.0.writes.set(self.0.writes.get() + u64::from(writes));
        self.0.commands.set(self.0.commands.get() + u64::from(writes || access.verb == Verb::Flush));
        self.0.store.borrow_mut().begin(access, left)
    }

    /// The moment of truth: whether the operation fails, and what it does all the same.
    fn strike(&self, id: u64, access: Access, buffer: &mut [u8]) -> Result<(), Struck> {
        let end = access.lba + access.blocks;
        if end > self.0.geometry.get().blocks {
            return Err(Struck::foreign(access.lba));
        }
        let struck =
            self.faults(|faults| faults.strike(access.verb, access.lba, end)).or_else(|| self.broken(id, access));
        let store = &mut *self.0.store.borrow_mut();
        match (access.verb, struck.map(|struck| struck.effect)) {
            (Verb::Read, None) => store.read(access.lba, buffer),
            (Verb::Read, Some(Effect::Stale)) => {
                store.read_stale(access.lba, buffer, struck.map_or((0, 0), |struck| struck.within));
            }
            (Verb::Flush, None) => store.flush(id),
            (Verb::Write | Verb::Zero, None) => {
                store.take_effect(id, |_| true);
                self.faults(|faults| faults.heal_by_write(access.lba, end));
            }
            (Verb::Unmap, _) => {
                let random = self.random();
                store.take_effect(id, |_| random.chance(1, 2));
                store.give_up(id);
            }
            (Verb::Write | Verb::Zero, Some(Effect::Misdirected { by, instead })) => {
                store.misdirect(id, by, struck.map_or((0, 0), |struck| struck.within));
                if instead { store.give_up(id) } else { store.take_effect(id, |_| true) }
            }
            (Verb::Write | Verb::Zero, Some(effect)) => {
                let random = self.random();
                let bad = struck.map_or(access.lba, |struck| struck.lba);
                store.take_effect(id, |lba| match effect {
                    Effect::Everything => true,
                    Effect::Some => lba != bad && random.chance(1, 2),
                    _ => false,
                });
                if effect == Effect::Some {
                    store.tear(id, &random, &**self.0.tears.borrow());
                }
                store.give_up(id);
            }
            (Verb::Flush, Some(Effect::Dropped)) => store.drop_cache(),
            (Verb::Read | Verb::Flush, Some(_)) => {}
        }
        struck.filter(|struck| !struck.effect.lies()).map_or(Ok(()), Err)
    }

    /// Why an operation fails that no fault strikes: the disk is gone, or was told to abort it. It may have been done all
    /// the same.
    fn broken(&self, id: u64, access: Access) -> Option<Struck> {
        if let Some(status) = self.0.gone.get() {
            return Some(Struck { status, ..Struck::foreign(access.lba) });
        }
        let aborted = self.0.store.borrow().under_way.get(&id).is_some_and(|one| one.aborted);
        let effect = self.random().pick(&[Effect::Nothing, Effect::Some, Effect::Everything]);
        aborted.then(|| Struck { status: IoStatus::Aborted, effect, ..Struck::foreign(access.lba) })
    }

    /// Aborts all that is under way, or one of it; whether there was any.
    pub fn abort(&self, all: bool) -> bool {
        let random = self.random();
        let under_way = &mut self.0.store.borrow_mut().under_way;
        let chosen = random.below(under_way.len().max(1) as u64) as usize;
        let one = |(number, _): &(usize, _)| all || *number == chosen;
        under_way.values_mut().enumerate().filter(one).map(|(_, one)| one.aborted = true).count() > 0
    }

    /// Loses its power, without its host: what is under way and what comes fails until [`Disk::attach`].
    pub fn lose_power(&self, cut: Cut) {
        self.0.gone.set(Some(IoStatus::Other(-19)));
        let under_way = std::mem::take(&mut self.0.store.borrow_mut().under_way);
        self.crash(cut);
        let mut store = self.0.store.borrow_mut();
        // They will be told.
        store.under_way = under_way;
        store.under_way.values_mut().for_each(|one| one.left.clear());
    }

    /// Whether it has lost its power.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.gone.get().is_some()
    }

    /// What stale reads find from now on.
    pub fn set_past(&self, past: Option<Medium>) {
        self.0.store.borrow_mut().past = past;
    }

    /// Whether a block can be read, as zeros, and has never held anything that could come back.
    #[must_use]
    pub fn is_zero(&self, lba: u64) -> bool {
        let sound = self.faults(|faults| !faults.any(|fault| (fault.first..fault.end).contains(&lba)));
        sound && self.block(lba).is_none() && self.cached(lba..lba + 1).is_empty()
    }

    /// Which of these blocks are written, but only in the cache.
    #[must_use]
    pub fn cached(&self, range: Range<u64>) -> Vec<u64> {
        self.0.store.borrow().cached(range)
    }

    /// Writes, of data or zeroes, and flushes that were begun.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.0.commands.get()
    }
}

impl Device for Disk {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        self.0.geometry.get()
    }

    fn alloc(&self, blocks: usize) -> Result<Vec<u8>, IoStatus> {
        Ok(vec![0; blocks * self.0.geometry.get().block_size as usize])
    }

    async fn read(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        let blocks = buffer.len() as u64 / u64::from(self.0.geometry.get().block_size);
        let result = self.transfer(Access { verb: Verb::Read, lba, blocks }, &mut buffer).await;
        (buffer, result.map_err(|struck| struck.status))
    }

    async fn write(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        let blocks = buffer.len() as u64 / u64::from(self.0.geometry.get().block_size);
        let result = self.transfer(Access { verb: Verb::Write, lba, blocks }, &mut buffer).await;
        (buffer, result.map_err(|struck| struck.status))
    }

    async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.transfer(Access { verb: Verb::Zero, lba, blocks }, &mut []).await.map_err(|struck| struck.status)
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        self.transfer(Access::FLUSH, &mut []).await.map_err(|struck| struck.status)
    }
}
