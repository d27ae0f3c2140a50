//! What a disk may hold after a crash: for each block the value that must have survived, and those that may have.
//!
//! A value is the number of the write (a *round*, growing); 0 is a block of zeroes, which all are at first. Knows nothing of I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The data of `blocks` blocks from `lba` on, written in `round`: every 16 bytes of a block say which it is.
pub fn stamp(lba: u64, blocks: u64, round: u64, block_size: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(blocks as usize * block_size);
    for at in lba..lba + blocks {
        let mut word = [0; 16];
        word[..8].copy_from_slice(&(at | 1 << 63).to_le_bytes());
        word[8..].copy_from_slice(&round.to_le_bytes());
        data.extend(word.repeat(block_size / 16));
    }
    data
}

/// Which round the data of block `lba` is of; an error if it is of none.
pub fn round_of(lba: u64, data: &[u8]) -> Result<u64, String> {
    if data.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let round = u64::from_le_bytes(data[8..16].try_into().unwrap_or_default());
    if data == stamp(lba, 1, round, data.len()) { Ok(round) } else { Err(format!("strange data {:02x?}", &data[..32])) }
}

/// Blocks that go bad while the test runs. Shared by all writers.
#[derive(Default)]
pub struct BadBlocks(Mutex<BTreeMap<u64, Bad>>);

/// What is known of a bad block.
#[derive(Clone, Copy, Debug, Default)]
struct Bad {
    /// It cannot be read either.
    unreadable: bool,
    /// The fault is certainly there.
    certain: bool,
}

impl BadBlocks {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<u64, Bad>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on `lba` may be bad.
    pub fn doom(&self, lba: u64, unreadable: bool) {
        self.with(|bad| bad.entry(lba).or_default().unreadable |= unreadable);
    }

    /// From now on all that were doomed are certainly bad.
    pub fn confirm(&self) {
        self.with(|bad| bad.values_mut().for_each(|bad| bad.certain = true));
    }

    /// All of them, and whether they cannot be read either.
    pub fn list(&self) -> Vec<(u64, bool)> {
        self.with(|bad| bad.iter().map(|(lba, bad)| (*lba, bad.unreadable)).collect())
    }

    fn unreadable(&self, lba: u64) -> bool {
        self.with(|bad| bad.get(&lba).is_some_and(|bad| bad.unreadable))
    }

    fn certainly_unreadable(&self, lba: u64) -> bool {
        self.with(|bad| bad.get(&lba).is_some_and(|bad| bad.unreadable && bad.certain))
    }
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Survives a crash, unless something newer does.
    floor: u64,
    /// Newer: acknowledged, or under way.
    later: Vec<u64>,
    /// The last that was acknowledged: what a read must yield while nothing is under way.
    acked: u64,
    /// A write or a read is under way.
    busy: bool,
    /// It went bad for reading, but was written, and acknowledged, since: no read may fail any more.
    rescued: bool,
}

/// Some blocks of a disk.
pub struct Model {
    /// Acknowledged is durable: there is no volatile cache.
    write_through: bool,
    blocks: BTreeMap<u64, Block>,
    /// Acknowledged since the last flush.
    dirty: BTreeSet<u64>,
}

/// What a flush, if it succeeds, makes durable.
pub struct FlushMark(Vec<(u64, u64)>);

impl Model {
    /// A disk of zeroes, with or without a volatile cache.
    pub fn new(volatile: bool) -> Model {
        Model { write_through: !volatile, blocks: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    /// Is anything under way to one of these blocks?
    pub fn busy(&self, lba: u64, blocks: u64) -> bool {
        self.blocks.range(lba..lba + blocks).any(|(_, block)| block.busy)
    }

    /// A write is about to be sent. Yields, for its acknowledgement, whether it rescues each block from being unreadable.
    pub fn write(&mut self, lba: u64, blocks: u64, round: u64, bad: &BadBlocks) -> Vec<bool> {
        for at in lba..lba + blocks {
            let block = self.blocks.entry(at).or_default();
            block.later.push(round);
            block.busy = true;
        }
        (lba..lba + blocks).map(|at| bad.certainly_unreadable(at)).collect()
    }

    /// The write was acknowledged.
    pub fn written(&mut self, lba: u64, round: u64, rescues: &[bool]) {
        for (at, rescues) in (lba..).zip(rescues) {
            let block = self.blocks.entry(at).or_default();
            block.acked = round;
            block.busy = false;
            block.rescued |= rescues;
            if self.write_through {
                block.floor = round;
                block.later.clear();
            } else {
                self.dirty.insert(at);
            }
        }
    }

    /// A read is about to be sent.
    pub fn read(&mut self, lba: u64) {
        self.blocks.entry(lba).or_default().busy = true;
    }

    /// The read, of a block that nothing else was under way to, has ended: with data, or with a media error (None).
    pub fn was_read(&mut self, lba: u64, data: Option<&[u8]>, bad: &BadBlocks) -> Result<(), String> {
        let block = self.blocks.entry(lba).or_default();
        block.busy = false;
        match data.map(|data| round_of(lba, data)).transpose()? {
            Some(round) if round == block.acked => Ok(()),
            None if bad.unreadable(lba) && !block.rescued => Ok(()),
            found => Err(format!("LBA {lba}: read {found:?}, expected {block:?}")),
        }
    }

    /// A flush is about to be sent.
    pub fn flush(&mut self) -> FlushMark {
        FlushMark(std::mem::take(&mut self.dirty).into_iter().map(|lba| (lba, self.blocks[&lba].acked)).collect())
    }

    /// The flush was acknowledged.
    pub fn flushed(&mut self, FlushMark(mark): FlushMark) {
        for (lba, round) in mark {
            let block = self.blocks.entry(lba).or_default();
            block.floor = block.floor.max(round);
            block.later.retain(|later| *later > round);
        }
    }

    /// After a crash `lba` was read: data, or a media error (None). What was found is true from now on; what can be read although
    /// its block certainly cannot be read on the base is on the spare, and stays readable.
    pub fn recovered(&mut self, lba: u64, data: Option<&[u8]>, bad: &BadBlocks) -> Result<(), String> {
        let block = self.blocks.entry(lba).or_default();
        match data.map(|data| round_of(lba, data)).transpose()? {
            Some(round) if round == block.floor || block.later.contains(&round) => {
                let rescued = bad.certainly_unreadable(lba);
                *block = Block { floor: round, acked: round, rescued, ..Block::default() };
            }
            None if bad.unreadable(lba) && !block.rescued => {
                // Whatever it was, it cannot be read before it is written again.
                block.busy = false;
            }
            found => return Err(format!("LBA {lba}: found {found:?}, expected {block:?}")),
        }
        self.dirty.remove(&lba);
        Ok(())
    }

    /// The blocks that were ever written, as runs of at most `max` neighbours.
    pub fn runs(&self, max: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &lba in self.blocks.keys() {
            match runs.last_mut() {
                Some((first, len)) if *first + *len == lba && *len < max => *len += 1,
                _ => runs.push((lba, 1)),
            }
        }
        runs
    }
}

/// A flag that is set once, for all threads.
#[derive(Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Sets it.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Is it set?
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 512;

    fn found(model: &mut Model, lba: u64, round: u64) -> Result<(), String> {
        model.recovered(lba, Some(&stamp(lba, 1, round, BLOCK)), &BadBlocks::default())
    }

    #[test]
    fn without_a_cache_only_the_acknowledged_or_the_write_under_way_is_right() {
        let bad = BadBlocks::default();
        for (round, right) in [(1, false), (2, true), (3, true), (4, false)] {
            let mut model = Model::new(false);
            for round in [1, 2] {
                let rescues = model.write(7, 1, round, &bad);
                model.written(7, round, &rescues);
            }
            model.write(7, 1, 3, &bad);
            assert_eq!(found(&mut model, 7, round).is_ok(), right, "{round}");
        }
    }

    #[test]
    fn with_a_cache_all_from_the_last_flush_on_is_right() {
        let bad = BadBlocks::default();
        for (round, right) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
            let mut model = Model::new(true);
            for round in [1, 2, 3] {
                let rescues = model.write(7, 1, round, &bad);
                model.written(7, round, &rescues);
                if round == 2 {
                    let mark = model.flush();
                    model.flushed(mark);
                }
            }
            model.write(7, 1, 4, &bad);
            assert_eq!(found(&mut model, 7, round).is_ok(), right, "{round}");
        }
    }

    #[test]
    fn media_errors_are_right_only_until_a_rescue() {
        let bad = BadBlocks::default();
        let mut model = Model::new(false);
        assert!(model.recovered(7, None, &bad).is_err());
        bad.doom(7, true);
        bad.confirm();
        assert!(model.recovered(7, None, &bad).is_ok());
        let rescues = model.write(7, 1, 1, &bad);
        model.written(7, 1, &rescues);
        assert!(model.recovered(7, None, &bad).is_err());
        assert!(found(&mut model, 7, 1).is_ok());
    }

    #[test]
    fn data_of_another_block_is_never_right() {
        let mut model = Model::new(false);
        let other = stamp(8, 1, 0, BLOCK);
        assert!(model.recovered(7, Some(&other), &BadBlocks::default()).is_err());
    }
}
