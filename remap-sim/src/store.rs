//! What a disk holds: the medium, the volatile cache above it, and what is under way; and what a crash leaves of all that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::block::{Block, copy_to, mixed};
use super::disk::Access;
use super::medium::Medium;
use super::random::Random;

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

/// An operation that is under way.
#[derive(Clone)]
pub(crate) struct UnderWay {
    pub(crate) access: Access,
    /// What is to be written and has not taken effect yet.
    pub(crate) left: Vec<(u64, Block)>,
    /// When it began, by the count of blocks that had been written.
    pub(crate) moment: u64,
    /// Whether it will be told that it was aborted.
    pub(crate) aborted: bool,
}

/// Which blocks may be torn, into pieces of how many bytes.
pub(crate) type Tears = dyn Fn(u64) -> Option<usize>;

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) medium: Medium,
    volatile: bool,
    /// The versions of a block since the last flush, oldest first, each with the moment when it came.
    cache: BTreeMap<u64, Vec<(u64, Block)>>,
    /// Counts the blocks that were written.
    moment: u64,
    pub(crate) under_way: BTreeMap<u64, UnderWay>,
    begun: u64,
    /// Blocks written and flushes done.
    pub(crate) steps: u64,
    /// The step at which power fails.
    pub(crate) dies_at: Option<u64>,
    pub(crate) dead: bool,
    /// What was on the medium some time ago.
    pub(crate) past: Option<Medium>,
    /// Blocks of the medium that rotted, and were not written since.
    pub(crate) rotten: BTreeSet<u64>,
}

impl Store {
    pub(crate) fn new(medium: Medium, volatile: bool) -> Store {
        Store {
            medium,
            volatile,
            cache: BTreeMap::new(),
            moment: 0,
            under_way: BTreeMap::new(),
            begun: 0,
            steps: 0,
            dies_at: None,
            dead: false,
            past: None,
            rotten: BTreeSet::new(),
        }
    }

    /// An operation begins, which is to write `left`. Returns its number.
    pub(crate) fn begin(&mut self, access: Access, left: Vec<(u64, Block)>) -> u64 {
        self.begun += 1;
        self.under_way.insert(self.begun, UnderWay { access, left, moment: self.moment, aborted: false });
        self.begun
    }

    /// Lets those blocks of operation `id` take effect that `now` picks. What power fails before stays under way.
    pub(crate) fn take_effect(&mut self, id: u64, mut now: impl FnMut(u64) -> bool) {
        let Some(mut one) = self.under_way.remove(&id) else { return };
        one.left.retain(|(lba, block)| !(now(*lba) && self.put(*lba, block)));
        self.under_way.insert(id, one);
    }

    /// What has not taken effect of operation `id` never will.
    pub(crate) fn give_up(&mut self, id: u64) {
        if let Some(one) = self.under_way.get_mut(&id) {
            one.left.clear();
        }
    }

    /// What reads see: the bytes of the blocks from `lba` on.
    pub(crate) fn read(&self, lba: u64, bytes: &mut [u8]) {
        let size = self.medium.block_size() as usize;
        let end = lba + (bytes.len() / size) as u64;
        bytes.fill(0);
        let mut copy = |at: u64, block: &[u8]| {
            let start = (at - lba) as usize * size;
            bytes[start..start + size].copy_from_slice(block);
        };
        self.medium.written(lba..end).for_each(|(at, block)| copy(at, block));
        for (at, versions) in self.cache.range(lba..end) {
            if let Some((_, block)) = versions.last() {
                let start = (at - lba) as usize * size;
                copy_to(block, &mut bytes[start..start + size]);
            }
        }
    }

    /// What is there, and in the blocks from `stale.0` to `stale.1` what was there some time ago.
    pub(crate) fn read_stale(&self, lba: u64, bytes: &mut [u8], stale: (u64, u64)) {
        self.read(lba, bytes);
        let Some(past) = &self.past else { return };
        let size = self.medium.block_size() as usize;
        for (at, bytes) in (lba..).zip(bytes.chunks_mut(size)).filter(|(at, _)| (stale.0..stale.1).contains(at)) {
            copy_to(&past.get(at), bytes);
        }
    }

    /// Of what operation `id` has not written yet, some blocks are torn that may be, in small pieces.
    pub(crate) fn tear(&mut self, id: u64, random: &Random, tears: &Tears) {
        let left = self.under_way.get(&id).map(|one| one.left.clone()).unwrap_or_default();
        let size = self.medium.block_size() as usize;
        for (lba, block) in left {
            if let Some(piece) = tears(lba).filter(|piece| *piece < 512 && random.chance(1, 2)) {
                let torn = mixed(&self.get(lba), &block, size, piece, random);
                self.put(lba, &torn);
            }
        }
    }

    /// What operation `id` is to write is written so many blocks further on, where that is still `within`.
    pub(crate) fn misdirect(&mut self, id: u64, by: i64, within: (u64, u64)) {
        let left = self.under_way.get(&id).map(|one| one.left.clone()).unwrap_or_default();
        for (lba, block) in left {
            if let Some(lba) = lba.checked_add_signed(by).filter(|lba| (within.0..within.1).contains(lba)) {
                self.put(lba, &block);
            }
        }
    }

    /// Which of these blocks are written, but only in the cache.
    pub(crate) fn cached(&self, range: Range<u64>) -> Vec<u64> {
        self.cache.range(range).map(|(lba, _)| *lba).collect()
    }

    /// Writes out what had come when operation `id` began, unless power fails.
    pub(crate) fn flush(&mut self, id: u64) {
        let Some(moment) = self.under_way.get(&id).map(|one| one.moment) else { return };
        if !self.step() {
            return;
        }
        let (medium, rotten) = (&mut self.medium, &mut self.rotten);
        self.cache.retain(|lba, versions| {
            let old = versions.iter().take_while(|(came, _)| *came <= moment).count();
            if let Some((_, block)) = versions.drain(..old).next_back() {
                medium.set(*lba, block);
                rotten.remove(lba);
            }
            !versions.is_empty()
        });
    }

    /// What was written and not flushed is gone.
    pub(crate) fn drop_cache(&mut self) {
        self.cache.clear();
    }

    /// The medium after a power cut that leaves of each block of the cache as many versions as `choose` says.
    pub(crate) fn left_by(&self, mut choose: impl FnMut(u64, usize) -> usize) -> Medium {
        let mut medium = self.medium.clone();
        for (lba, versions) in &self.cache {
            let count = choose(*lba, versions.len()).min(versions.len());
            if let Some((_, block)) = count.checked_sub(1).and_then(|index| versions.get(index)) {
                medium.set(*lba, block.clone());
            }
        }
        medium
    }

    /// A crash, of which `random` decides what it leaves. Returns whether a page was torn.
    pub(crate) fn crash(&mut self, cut: Cut, random: &Random, tears: &Tears) -> bool {
        (self.dies_at, self.dead) = (None, false);
        let mut torn = false;
        for (_, one) in std::mem::take(&mut self.under_way) {
            torn |= self.leave(one, random, tears);
        }
        if cut != Cut::Kill {
            torn |= self.write_out(cut, random, tears);
        }
        torn
    }

    /// Lets any part of an operation take effect that was under way. Returns whether a page was torn.
    fn leave(&mut self, one: UnderWay, random: &Random, tears: &Tears) -> bool {
        let some = random.below(3);
        let total = one.left.len();
        let (mut taken, mut torn) = (0, false);
        for (lba, block) in one.left {
            if some == 0 || (some == 1 && random.chance(1, 2)) {
                continue;
            }
            let piece = tears(lba).filter(|_| some == 1);
            torn |= piece.is_some();
            let block = match piece {
                Some(piece) => mixed(&self.get(lba), &block, self.medium.block_size() as usize, piece, random),
                None => block,
            };
            taken += 1;
            self.set(lba, block);
        }
        torn | (taken > 0 && taken < total && tears(one.access.lba).is_some())
    }

    /// Ends the cache: what of it reaches the medium, the cut decides. Returns whether a page was torn.
    fn write_out(&mut self, cut: Cut, random: &Random, tears: &Tears) -> bool {
        let size = self.medium.block_size() as usize;
        let blocks = self.medium.geometry().blocks;
        // Each block by itself, or all before or behind some place on the disk.
        let (by_place, behind, place) = (random.chance(1, 2), random.chance(1, 2), random.below(blocks));
        let mut torn = false;
        for (lba, versions) in std::mem::take(&mut self.cache) {
            let all = versions.len() as u64;
            let count = match cut {
                Cut::PowerAll => all,
                Cut::PowerSome if by_place && (lba >= place) == behind => all,
                Cut::PowerSome if by_place => 0,
                Cut::PowerSome => random.below(all + 1),
                Cut::PowerNothing | Cut::Kill => 0,
            };
            let last = count.checked_sub(1).and_then(|index| versions.into_iter().nth(index as usize));
            let Some((_, mut block)) = last else { continue };
            if let Some(piece) = tears(lba).filter(|_| cut == Cut::PowerSome && random.chance(1, 4)) {
                torn = true;
                block = mixed(&self.medium.get(lba), &block, size, piece, random);
            }
            self.medium.set(lba, block);
            self.rotten.remove(&lba);
        }
        torn
    }

    fn get(&self, lba: u64) -> Block {
        match self.cache.get(&lba).and_then(|versions| versions.last()) {
            Some((_, block)) => block.clone(),
            None => self.medium.get(lba),
        }
    }

    /// Writes a block, unless power fails.
    fn put(&mut self, lba: u64, block: &Block) -> bool {
        let powered = self.step();
        if powered {
            self.set(lba, block.clone());
        }
        powered
    }

    fn set(&mut self, lba: u64, block: Block) {
        self.moment += 1;
        if !self.volatile {
            self.medium.set(lba, block);
            self.rotten.remove(&lba);
        } else if lba < self.medium.geometry().blocks {
            self.cache.entry(lba).or_default().push((self.moment, block));
        }
    }

    /// Counts a step; false if power fails before it.
    fn step(&mut self) -> bool {
        self.dead |= self.dies_at.is_some_and(|step| self.steps >= step);
        self.steps += u64::from(!self.dead);
        !self.dead
    }
}
