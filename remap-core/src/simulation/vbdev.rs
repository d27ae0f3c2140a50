//! The Remap bdev of a simulation: what `bdev_remap/io.rs` and `bdev_remap/rescue.rs` do, on simulated disks. The fast path
//! looks the range up once, and its parts go where that said; the owner is another thread, to which calls take a while.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::disk::{Access, Disk};
use super::faults::{Struck, Verb};
use super::random::Random;
use crate::device::{Device, Env};
use crate::engine::{Engine, Status};
use crate::owner::{Committed, Move, Owner, Refused, Target};
use crate::rescue::{At, HostIo, HostOp, rescue};
use crate::sim::Executor;
use crate::status::{IoStatus, RemapOn};
use crate::table::Place;
use crate::units::{BaseLba, Extent, SpareIndex};

/// The engine of a simulation.
pub type SimEngine = Engine<Disk, Threads>;

/// The threads of a simulation: each call from one to another takes a while.
#[derive(Clone)]
pub struct Threads {
    /// What they all run on.
    pub executor: Executor,
    /// How long a call takes.
    pub random: Random,
    /// At most.
    pub slowness: u64,
}

impl Threads {
    async fn hop(&self) {
        self.executor.sleep(Duration::from_micros(self.random.below(self.slowness))).await;
    }
}

// SAFETY: a simulation has one OS thread, and no method of `Table` awaits, so none is under way when a task is polled.
unsafe impl Env for Threads {
    fn now(&self) -> Duration {
        self.executor.now()
    }

    async fn grace(&self) {
        self.hop().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }
}

/// Why an I/O may have failed, and what was promised of it.
#[derive(Default)]
pub struct Story {
    /// Which faults struck its parts: the block of the base, on which disk, and how.
    pub struck: Vec<(u64, Struck)>,
    /// What the owner refused, and whether it had to.
    pub refused: Vec<(Refused, bool)>,
    /// Which blocks were relocated, durably.
    pub relocated: Vec<u64>,
    /// Whether it was a read of a lost block.
    pub lost: bool,
}

/// An I/O of a host.
pub struct SimIo {
    op: HostOp,
    range: Extent,
    vbdev: Vbdev,
    data: RefCell<Vec<u8>>,
    story: RefCell<Story>,
}

impl HostIo for SimIo {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        self.range
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let (disk, lba) = match at {
            At::Base(lba) => (&self.vbdev.base, lba.0),
            At::Spare(index) => (&self.vbdev.spare, self.vbdev.engine.data_start() + u64::from(index.get())),
        };
        let size = u64::from(disk.geometry().block_size);
        let bytes = (offset * size) as usize..((offset + blocks) * size) as usize;
        let verb = match self.op {
            HostOp::Read => Verb::Read,
            HostOp::Write => Verb::Write,
            HostOp::WriteZeroes => Verb::Zero,
        };
        let mut buffer = if self.op == HostOp::Write { self.data.borrow()[bytes.clone()].to_vec() } else { Vec::new() };
        if self.op == HostOp::Read {
            buffer.resize(bytes.len(), 0);
        }
        let result = disk.transfer(Access { verb, lba, blocks }, &mut buffer).await;
        if let Err(struck) = result {
            let block = self.range.lba.0 + offset + (struck.lba.max(lba) - lba);
            self.story.borrow_mut().struck.push((block, struck));
            return Err(struck.status);
        }
        if self.op == HostOp::Read {
            self.data.borrow_mut()[bytes].copy_from_slice(&buffer);
        }
        Ok(())
    }
}

/// The Remap bdev as its hosts see it.
#[derive(Clone)]
pub struct Vbdev {
    /// The engine under it.
    pub engine: Rc<SimEngine>,
    /// The base.
    pub base: Disk,
    /// The spare.
    pub spare: Disk,
    /// Which errors start a rescue.
    pub remap_on: RemapOn,
    /// Between the threads.
    pub threads: Threads,
}

impl Vbdev {
    /// Does an I/O; `data` is what is written, or room for what is read.
    pub async fn submit(&self, op: HostOp, lba: u64, data: Vec<u8>) -> (Result<Vec<u8>, IoStatus>, Story) {
        let blocks = data.len() as u64 / u64::from(self.base.geometry().block_size);
        let io = SimIo {
            op,
            range: Extent::new(BaseLba(lba), blocks),
            vbdev: self.clone(),
            data: RefCell::new(data),
            story: RefCell::default(),
        };
        let result = match self.route(&io).await {
            Ok(()) => Ok(()),
            Err(Some(status)) if !status.is_media_error(self.remap_on) => Err(status),
            Err(Some(_)) | Err(None) if io.story.borrow().lost => Err(IoStatus::UNRECOVERED_READ),
            Err(_) => {
                let owner = OwnerThread { vbdev: self, io: &io };
                rescue(&io, self.engine.table(), &owner, self.remap_on, self.engine.counters()).await
            }
        };
        (result.map(|()| io.data.into_inner()), io.story.into_inner())
    }

    /// The fast path. `None` if the I/O has to be rescued at once, or is a read of a lost block.
    async fn route(&self, io: &SimIo) -> Result<(), Option<IoStatus>> {
        let table = self.engine.table();
        if table.is_empty() || !table.touches(io.range) {
            return io.issue(0, io.range.blocks, At::Base(io.range.lba)).await.map_err(Some);
        }
        let (mut parts, mut lost, mut unsettled) = (Vec::new(), false, false);
        table.for_each_segment(io.range, |segment| {
            let at = match segment.place {
                Place::Base(lba) => At::Base(lba),
                Place::Spare(index) => At::Spare(index),
                Place::Pending(lba) => {
                    unsettled = true;
                    At::Base(lba)
                }
                Place::Lost(index) => {
                    (lost, unsettled) = (true, true);
                    At::Spare(index)
                }
            };
            parts.push((segment.offset, segment.blocks, at));
        });
        if io.op == HostOp::Read && lost {
            io.story.borrow_mut().lost = true;
            return Err(None);
        }
        if io.op != HostOp::Read && unsettled {
            return Err(None);
        }
        // All at once; what counts is the first error, when all have come back.
        let first = RefCell::new(None);
        join_all(parts.into_iter().map(|(offset, blocks, at)| {
            let first = &first;
            async move {
                if let Err(status) = io.issue(offset, blocks, at).await {
                    first.borrow_mut().get_or_insert(status);
                }
            }
        }))
        .await;
        first.into_inner().map_or(Ok(()), |status| Err(Some(status)))
    }

    /// Flushes the devices that may hold something.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn flush(&self) -> Result<(), IoStatus> {
        let spare = !self.engine.table().is_empty();
        let flushes = [(true, &self.base), (spare, &self.spare)];
        let results = join_all(flushes.map(|(wanted, disk)| async move {
            let all = Access { verb: Verb::Flush, lba: 0, blocks: 0 };
            if wanted { disk.transfer(all, &mut []).await.map_err(|struck| struck.status) } else { Ok(()) }
        }));
        results.await.into_iter().collect()
    }
}

/// The engine, called from another thread.
struct OwnerThread<'a> {
    vbdev: &'a Vbdev,
    io: &'a SimIo,
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

    fn engine(&self) -> &SimEngine {
        &self.vbdev.engine
    }
}

impl Owner for OwnerThread<'_> {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.vbdev.threads.hop().await;
        let wanted = blocks.len() as u64;
        let before = self.engine().status();
        let answer = self.note(self.engine().reserve(blocks).await, &before, wanted);
        self.vbdev.threads.hop().await;
        answer
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.vbdev.threads.hop().await;
        let before = self.engine().status();
        let answer = self.note(self.engine().commit(moves.clone()).await, &before, 0);
        if let Ok(answers) = &answer {
            let done = moves.iter().zip(answers).filter(|(_, answer)| **answer == Committed::Done);
            self.io.story.borrow_mut().relocated.extend(done.map(|(one, _)| one.lba.0));
        }
        self.vbdev.threads.hop().await;
        answer
    }

    async fn replace(&self, lba: BaseLba, bad: SpareIndex) -> Result<Target, Refused> {
        self.vbdev.threads.hop().await;
        let before = self.engine().status();
        let answer = self.note(self.engine().replace(lba, bad).await, &before, 1);
        self.vbdev.threads.hop().await;
        answer
    }

    async fn release(&self, reserved: Vec<SpareIndex>) {
        self.vbdev.threads.hop().await;
        self.engine().release(reserved).await;
        self.vbdev.threads.hop().await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.vbdev.threads.hop().await;
        let before = self.engine().status();
        let answer = self.note(self.engine().set_pending(blocks).await, &before, 0);
        self.vbdev.threads.hop().await;
        answer
    }
}
