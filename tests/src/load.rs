//! A writer: writes and reads blocks of its own at random, several at a time, flushes now and then, and keeps a model of what
//! the disk must hold. Ends when the device dies.

use std::{
    collections::HashMap,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    model::{BadBlocks, Flag, FlushMark, Model},
    nvme_tcp::{Completion, Queue, Status, flush_command, read_command, write_command},
    random::Random,
};

/// What all writers of a round share.
#[derive(Default)]
pub struct Shared {
    /// Which blocks go bad.
    pub bad: BadBlocks,
    /// From now on I/O may fail.
    pub dying: Flag,
    /// Acknowledged writes.
    pub acked: AtomicU64,
    /// Acknowledged flushes.
    pub flushes: AtomicU64,
}

/// How a writer behaves.
#[derive(Clone)]
pub struct Habits {
    /// The blocks that it uses.
    pub window: Range<u64>,
    /// Bytes of a block.
    pub block_size: usize,
    /// Commands under way at most.
    pub depth: usize,
    /// Blocks in one write at most.
    pub max_blocks: u64,
    /// One command in so many is a flush; 0 for none.
    pub flush_one_in: u64,
}

enum Command {
    Write { lba: u64, round: u64, rescues: Vec<bool> },
    Read { lba: u64 },
    Flush(FlushMark),
}

/// Runs until the connection breaks, or something fails after `shared.dying` is set. Panics on what must not be. `round` is
/// that of the first write; yields that of the next.
pub fn run(
    queue: &mut Queue,
    habits: &Habits,
    model: &mut Model,
    shared: &Shared,
    random: &mut Random,
    round: u64,
) -> u64 {
    let mut round = round;
    let mut under_way = HashMap::new();
    let Habits { window, block_size, .. } = habits;
    loop {
        while queue.outstanding() >= habits.depth {
            let Ok(done) = queue.complete() else { return round };
            let Some(command) = under_way.remove(&done.cid) else { panic!("completion of unknown {}", done.cid) };
            if !settle(command, &done, model, shared) {
                return round;
            }
        }
        let blocks = if random.one_in(4) { 1 + random.below(habits.max_blocks) } else { 1 };
        let lba = window.start + random.below(window.end - window.start - blocks + 1);
        let sent = if habits.flush_one_in > 0 && random.one_in(habits.flush_one_in) {
            let mark = model.flush();
            queue.submit(flush_command(), &[], 0).map(|cid| (cid, Command::Flush(mark)))
        } else if model.busy(lba, blocks) {
            // All may be busy: room must be made.
            if queue.outstanding() > 0 {
                let Ok(done) = queue.complete() else { return round };
                let Some(command) = under_way.remove(&done.cid) else { panic!("completion of unknown {}", done.cid) };
                if !settle(command, &done, model, shared) {
                    return round;
                }
            }
            continue;
        } else if random.one_in(8) {
            model.read(lba);
            queue.submit(read_command(lba, 1), &[], *block_size).map(|cid| (cid, Command::Read { lba }))
        } else {
            // In the model before it is sent: it may arrive although sending fails.
            let rescues = model.write(lba, blocks, round, &shared.bad);
            let data = crate::model::stamp(lba, blocks, round, *block_size);
            let command = Command::Write { lba, round, rescues };
            round += 1;
            queue.submit(write_command(lba, blocks as u16), &data, 0).map(|cid| (cid, command))
        };
        match sent {
            Ok((cid, command)) => under_way.insert(cid, command),
            Err(_) => return round,
        };
    }
}

/// Takes a completion into the model. False if the device is dying.
fn settle(command: Command, done: &Completion, model: &mut Model, shared: &Shared) -> bool {
    if !done.status.ok() && shared.dying.is_set() {
        return false;
    }
    match command {
        Command::Write { lba, round, rescues } => {
            assert!(done.status.ok(), "write at LBA {lba}: {}", done.status);
            model.written(lba, round, &rescues);
            shared.acked.fetch_add(1, Ordering::Relaxed);
        }
        Command::Read { lba } => {
            assert!(done.status.ok() || done.status == Status::READ_ERROR, "read at LBA {lba}: {}", done.status);
            let data = done.status.ok().then_some(done.data.as_slice());
            model.was_read(lba, data, &shared.bad).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        Command::Flush(mark) => {
            assert!(done.status.ok(), "flush: {}", done.status);
            model.flushed(mark);
            shared.flushes.fetch_add(1, Ordering::Relaxed);
        }
    }
    true
}
