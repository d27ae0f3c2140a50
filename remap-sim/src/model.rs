//! What a host may expect of a disk: for each block, the values that a read may return now.
//!
//! Knows nothing of remapping. Every write has a value of its own. A value is gone for good once a write that began after
//! the value's own write had ended was acknowledged, or a read that began after that returned something else. A power cut
//! brings back what was not flushed: then only those acknowledgements count that a later flush, or the promise of a
//! relocation, made durable.

/// What a block holds: the number of the write that wrote it, or zeros.
pub type Value = u64;

/// The value of zeros, which many writes may have.
pub const ZEROS: Value = 0;

/// Has not ended.
const NEVER: u64 = u64::MAX;

/// A write of one block.
#[derive(Clone, Copy, Debug)]
struct Write {
    value: Value,
    begun: u64,
    ended: u64,
    acknowledged: bool,
    durable: bool,
    /// When its outcome was settled. Mostly when it ended; but if it failed, and nobody knows whether the log on the spare
    /// speaks of it, a crash may still bring it, unless another write was acknowledged meanwhile.
    settled: u64,
}

/// A read of one block: it proves that older values are gone.
#[derive(Clone, Copy, Debug)]
struct Seen {
    value: Value,
    begun: u64,
    ended: u64,
    durable: bool,
}

#[derive(Clone, Debug, Default)]
struct Block {
    writes: Vec<Write>,
    seen: Vec<Seen>,
    /// When the last of the acknowledged writes began and ended.
    last_acknowledged: (u64, u64),
}

impl Block {
    /// Forgets what even a power cut cannot bring back, for all that begins at `horizon` or later.
    fn prune(&mut self, horizon: u64) {
        if self.writes.len() + self.seen.len() < 16 {
            return;
        }
        let all = self.clone();
        self.writes.retain(|write| !write.is_gone(&all, horizon, true));
        let proof = self.writes.iter().filter(|write| write.durable && write.ended < horizon).map(|write| write.begun);
        let proof = proof.max().unwrap_or(0);
        self.seen.retain(|seen| seen.ended >= proof);
    }
}

impl Write {
    /// Whether the value cannot be read any more by whoever begins at `now`; after a power cut, if `durably`.
    fn is_gone(&self, block: &Block, now: u64, durably: bool) -> bool {
        block.writes.iter().any(|later| {
            later.acknowledged && later.begun > self.ended && later.ended < now && (later.durable || !durably)
        }) || block.seen.iter().any(|seen| {
            seen.value != self.value && seen.begun > self.settled && seen.ended < now && (seen.durable || !durably)
        })
    }
}

/// A write that is under way.
#[derive(Debug)]
pub struct WriteToken {
    lba: u64,
    blocks: u64,
    begun: u64,
}

impl WriteToken {
    /// When it began.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }
}

/// The disk as its host knows it.
#[derive(Clone, Debug)]
pub struct Model {
    blocks: Vec<Block>,
    clock: u64,
    /// When the reads that are under way began.
    reads: Vec<u64>,
    /// Whether every acknowledged write is durable at once, as no device has a volatile cache.
    write_through: bool,
    /// When a device last lost its power while the host lived on.
    power_lost: u64,
}

impl Model {
    /// A disk of `blocks` blocks of zeros.
    #[must_use]
    pub fn new(blocks: u64, write_through: bool) -> Model {
        let first = Write { value: ZEROS, begun: 0, ended: 0, acknowledged: true, durable: true, settled: 0 };
        let block = Block { writes: vec![first], ..Block::default() };
        Model { blocks: vec![block; blocks as usize], clock: 0, reads: Vec::new(), write_through, power_lost: 0 }
    }

    /// The moment now; every call is a later one.
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn range(&mut self, lba: u64, blocks: u64) -> &mut [Block] {
        &mut self.blocks[lba as usize..(lba + blocks) as usize]
    }

    /// The host writes `value` to the blocks.
    pub fn begin_write(&mut self, lba: u64, blocks: u64, value: Value) -> WriteToken {
        let begun = self.now();
        let write = Write { value, begun, ended: NEVER, acknowledged: false, durable: false, settled: NEVER };
        self.range(lba, blocks).iter_mut().for_each(|block| block.writes.push(write));
        WriteToken { lba, blocks, begun }
    }

    /// It was acknowledged; the blocks in `relocated` durably.
    pub fn acknowledge(&mut self, token: &WriteToken, relocated: &[u64]) {
        let ended = self.now();
        let write_through = self.write_through;
        let power_lost = self.power_lost;
        let horizon = self.reads.iter().copied().min().unwrap_or(ended);
        for (lba, block) in (token.lba..).zip(self.range(token.lba, token.blocks)) {
            let Some(write) = block.writes.iter_mut().find(|write| write.begun == token.begun) else { continue };
            write.durable = write_through || relocated.contains(&lba);
            // A part of it may have been done, and lost, before.
            (write.ended, write.settled) = (ended, ended);
            write.acknowledged = write.durable || power_lost < token.begun;
            if !write.acknowledged {
                continue;
            }
            if block.last_acknowledged.0 < token.begun {
                block.last_acknowledged = (token.begun, ended);
            }
            block.prune(horizon);
        }
    }

    /// It failed: the blocks may hold it or not.
    pub fn fail(&mut self, token: &WriteToken, in_doubt: bool) {
        let ended = self.now();
        for block in self.range(token.lba, token.blocks) {
            if let Some(write) = block.writes.iter_mut().find(|write| write.begun == token.begun) {
                (write.ended, write.settled) = (ended, if in_doubt { NEVER } else { ended });
            }
        }
    }

    /// A read begins: at this moment.
    pub fn begin_read(&mut self) -> u64 {
        let begun = self.now();
        self.reads.push(begun);
        begun
    }

    /// The read that began at `begun` has ended, and was looked at.
    pub fn end_read(&mut self, begun: u64) {
        self.reads.retain(|read| *read != begun);
    }

    /// A read of block `lba` that began at `begun` returned `value`.
    ///
    /// # Errors
    /// The values that it could have returned.
    pub fn read(&mut self, lba: u64, begun: u64, value: Value) -> Result<(), String> {
        let ended = self.now();
        let power_lost = self.power_lost;
        let block = &mut self.blocks[lba as usize];
        let holders = block.writes.iter().filter(|write| write.value == value && !write.is_gone(block, begun, false));
        // Several writes of zeros look alike: it proves something only if it does whichever of them it was.
        let Some(durable) = holders.map(|write| write.durable).reduce(|a, b| a && b) else {
            let allowed = block.writes.iter().filter(|write| !write.is_gone(block, begun, false));
            return Err(format!("block {lba} holds {value}, not {:?}", allowed.map(|w| w.value).collect::<Vec<_>>()));
        };
        // What was read from the cache of a device before it lost its power may be gone since.
        if durable || begun > power_lost {
            block.seen.push(Seen { value, begun, ended, durable });
        }
        Ok(())
    }

    /// Whether any write of block `lba` that began after `moment` was acknowledged before `before`, and none that began
    /// earlier can have come after it.
    #[must_use]
    pub fn written_since(&self, lba: u64, moment: u64, before: u64) -> bool {
        let block = &self.blocks[lba as usize];
        let (begun, ended) = block.last_acknowledged;
        let overlaps = |write: &Write| write.begun <= moment && write.ended > begun;
        begun > moment && ended < before && !block.writes.iter().any(overlaps)
    }

    /// A flush that began at `begun` was acknowledged: what was acknowledged before it began is durable.
    pub fn flushed(&mut self, begun: u64) {
        self.now();
        for block in &mut self.blocks {
            for write in &mut block.writes {
                write.durable |= write.acknowledged && write.ended < begun;
            }
            // That a value was seen proves that it is the newest only if it is durable itself.
            let writes = &block.writes;
            for seen in &mut block.seen {
                seen.durable |=
                    seen.ended < begun && writes.iter().all(|write| write.value != seen.value || write.durable);
            }
        }
    }

    /// A device lost its power while the host lives on: what it had acknowledged may be there or not.
    pub fn device_lost_power(&mut self) {
        self.power_lost = self.now();
        for block in &mut self.blocks {
            for write in &mut block.writes {
                write.acknowledged &= write.durable;
            }
            block.seen.retain(|seen| seen.durable);
            block.last_acknowledged = (0, 0);
        }
    }

    /// The process died, the devices did not: what was under way has ended, somehow.
    pub fn kill(&mut self) {
        self.reads.clear();
        let now = self.now();
        for write in self.blocks.iter_mut().flat_map(|block| &mut block.writes) {
            write.ended = write.ended.min(now);
            write.settled = write.settled.min(now);
        }
    }

    /// The power failed: what may be left now is durable, whichever it is.
    pub fn power_cut(&mut self) {
        self.reads.clear();
        let now = self.now();
        for block in &mut self.blocks {
            let mut left: Vec<Value> =
                block.writes.iter().filter(|write| !write.is_gone(block, now, true)).map(|write| write.value).collect();
            left.sort_unstable();
            left.dedup();
            let settled =
                |value| Write { value, begun: now, ended: now, acknowledged: true, durable: true, settled: now };
            block.writes = left.into_iter().map(settled).collect();
            block.seen.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a read of block 0 may return now, out of `values`.
    fn possible(model: &mut Model, values: std::ops::Range<u64>) -> Vec<u64> {
        let begun = model.now();
        // A read narrows what may be read next, so each is tried on a model of its own.
        values.filter(|value| model.clone().read(0, begun, *value).is_ok()).collect()
    }

    #[test]
    fn only_the_last_of_two_acknowledged_writes_may_be_read() {
        let mut model = Model::new(1, false);
        for value in 1..3 {
            let write = model.begin_write(0, 1, value);
            model.acknowledge(&write, &[]);
        }
        assert_eq!(possible(&mut model, 0..3), [2]);
    }

    #[test]
    fn of_writes_that_overlap_any_may_be_read_until_one_was() {
        let mut model = Model::new(1, false);
        let (one, two) = (model.begin_write(0, 1, 1), model.begin_write(0, 1, 2));
        assert_eq!(possible(&mut model, 0..3), [ZEROS, 1, 2]);
        model.acknowledge(&one, &[]);
        model.acknowledge(&two, &[]);
        assert_eq!(possible(&mut model, 0..3), [1, 2]);
        let begun = model.now();
        model.read(0, begun, 1).unwrap();
        assert_eq!(possible(&mut model, 0..3), [1]);
    }

    #[test]
    fn a_power_cut_takes_what_was_not_flushed_and_nothing_else() {
        let mut model = Model::new(1, false);
        let write = |model: &mut Model, value, relocated: &[u64]| {
            let write = model.begin_write(0, 1, value);
            model.acknowledge(&write, relocated);
        };
        write(&mut model, 1, &[]);
        let flush = model.now();
        write(&mut model, 2, &[]);
        model.flushed(flush);
        let mut cut = model.clone();
        cut.kill();
        assert_eq!(possible(&mut cut, 0..4), [2], "a kill takes nothing");
        cut.power_cut();
        assert_eq!(possible(&mut cut, 0..4), [1, 2], "2 came while the flush was under way");
        write(&mut model, 3, &[0]);
        model.power_cut();
        assert_eq!(possible(&mut model, 0..4), [3], "a relocation is durable");
    }

    #[test]
    fn what_a_read_saw_before_its_device_lost_its_power_may_be_gone() {
        let mut model = Model::new(1, false);
        let write = model.begin_write(0, 1, 1);
        let begun = model.begin_read();
        model.acknowledge(&write, &[]);
        model.device_lost_power();
        model.read(0, begun, 1).unwrap();
        model.end_read(begun);
        assert_eq!(possible(&mut model, 0..2), [ZEROS, 1]);
        let begun = model.now();
        model.read(0, begun, 1).unwrap();
        assert_eq!(possible(&mut model, 0..2), [1], "it was read after that");
    }

    #[test]
    fn a_failed_write_may_be_there_or_not() {
        let mut model = Model::new(1, false);
        let failed = model.begin_write(0, 1, 1);
        model.fail(&failed, false);
        assert_eq!(possible(&mut model, 0..2), [ZEROS, 1]);
        let begun = model.now();
        model.read(0, begun, ZEROS).unwrap();
        assert_eq!(possible(&mut model, 0..2), [ZEROS], "it was not");
        let doubtful = model.begin_write(0, 1, 2);
        model.fail(&doubtful, true);
        let begun = model.now();
        model.read(0, begun, ZEROS).unwrap();
        model.kill();
        assert_eq!(possible(&mut model, 0..3), [ZEROS, 2], "the log may speak of it");
    }
}
