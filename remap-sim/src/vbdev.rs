//! The Remap bdev of a simulation: what `bdev_remap/io.rs` and `bdev_remap/rescue.rs` do, on simulated disks. Where an
//! I/O goes is what `route` says, as there; the owner is another thread, to which calls take a while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use futures_util::future::join_all;
use remap_core::{
    Abilities, AfterError, At, BaseLba, Committed, Device, Engine, Error, Extent, FormatPolicy, HostIo, HostOp,
    IoStatus, Move, OpenParams, Owner, Part, Place, Refused, RemapOn, Request, Route, SpareIndex, Status, Target,
    after_error, rescue, route,
};

use uuid::Uuid;

use super::disk::{Access, Disk};
use super::faults::{Struck, Verb};
use super::threads::Threads;

/// The engine of a simulation.
pub type SimEngine = Engine<Disk, Threads>;

/// How a set is opened above a base of so many blocks, if nothing else is wanted.
#[must_use]
pub fn open_params(base_blocks: u64) -> OpenParams {
    OpenParams {
        name: "Remap0".into(),
        set_uuid: None,
        fresh_set_uuid: Uuid::from_u128(1),
        fresh_spare_id: Uuid::from_u128(2),
        base_uuid: Uuid::from_u128(3),
        base_blocks,
        md_size: 0,
        format: FormatPolicy::Auto,
        storm_limit: 4096,
        host_id: Uuid::nil(),
        take_over: false,
        stated_end: None,
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
    /// Whether it had to wait for a structure.
    pub waited: bool,
    /// Spare blocks that it was given although a write of them had failed before they were in use.
    pub given_again: Vec<SpareIndex>,
}

/// An I/O of a host.
struct SimIo {
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
            At::Spare(index) => (&self.vbdev.spare, self.vbdev.engine.layout().data(index).0),
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
        let _to_spare = matches!(at, At::Spare(_)).then(|| self.vbdev.threads.begin_spare_io());
        let result = disk.transfer(Access { verb, lba, blocks }, &mut buffer).await;
        if let Err(struck) = result {
            let block = self.range.lba.0 + offset + (struck.lba.max(lba) - lba);
            self.story.borrow_mut().struck.push((block, struck));
            // Of several, each is tried again.
            if let At::Spare(at) = at
                && blocks == 1
            {
                self.remember(at, BaseLba(block), struck.status);
            }
            return Err(struck.status);
        }
        if self.op == HostOp::Read {
            self.data.borrow_mut()[bytes].copy_from_slice(&buffer);
        }
        Ok(())
    }
}

impl SimIo {
    /// A spare block failed that was to take a block over: nobody may get it any more.
    fn remember(&self, at: SpareIndex, block: BaseLba, status: IoStatus) {
        let lives_there = matches!(self.vbdev.engine.table().lookup(block), Place::Spare(_) | Place::Lost(_));
        if self.op != HostOp::Read && !lives_there && status.is_media_error(self.vbdev.remap_on) {
            self.vbdev.failed.borrow_mut().insert(at);
        }
    }
}

/// The Remap bdev as its hosts see it. Clones are the same.
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
    /// What the devices take.
    pub abilities: Abilities,
    /// Between the threads.
    pub threads: Threads,
    /// The reactor that an I/O is on: 0 or 1.
    pub reactor: usize,
    /// Spare blocks whose writes failed before they were in use.
    pub(crate) failed: Rc<RefCell<BTreeSet<SpareIndex>>>,
}

impl Vbdev {
    /// Opens the set, or formats the spare, as `params` say; media errors in the strict sense start a rescue.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn open(base: &Disk, spare: &Disk, threads: &Threads, params: OpenParams) -> Result<Vbdev, Error> {
        let engine = Engine::open(spare.clone(), threads.clone(), params).await?;
        let (base, spare, threads) = (base.clone(), spare.clone(), threads.clone());
        let (remap_on, abilities) = (RemapOn::Media, Abilities::ALL);
        Ok(Vbdev { engine, base, spare, remap_on, abilities, threads, reactor: 0, failed: Rc::default() })
    }

    /// Reads `blocks` blocks from block `lba` on.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn read(&self, lba: u64, blocks: u64) -> Result<Vec<u8>, IoStatus> {
        let room = self.zeros(blocks);
        self.submit(HostOp::Read, lba, room).await.0
    }

    /// Writes `data`, whole blocks, from block `lba` on.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn write(&self, lba: u64, data: Vec<u8>) -> Result<(), IoStatus> {
        self.submit(HostOp::Write, lba, data).await.0.map(drop)
    }

    /// Makes `blocks` blocks from block `lba` on zeros.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        let zeros = self.zeros(blocks);
        self.submit(HostOp::WriteZeroes, lba, zeros).await.0.map(drop)
    }

    fn zeros(&self, blocks: u64) -> Vec<u8> {
        vec![0; (blocks * u64::from(self.base.geometry().block_size)) as usize]
    }

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
        let result = self.carry_out(&io).await;
        (result.map(|()| io.data.into_inner()), io.story.into_inner())
    }

    async fn carry_out(&self, io: &SimIo) -> Result<(), IoStatus> {
        let tried = match self.route(io.op.into(), io.range) {
            Route::Whole(at) => self.child(io, Part { at, offset: 0, blocks: io.range.blocks }).await,
            Route::Split(parts) => first_error(parts.iter().map(|part| self.child(io, *part))).await,
            Route::Done => Ok(()),
            Route::Fail(status) => return Err(status),
            Route::Rescue(_) => return self.rescue(io).await,
            Route::AllOf(_) | Route::OneOf(_) => return Err(IoStatus::Failed),
        };
        match tried.map_err(|status| after_error(io.op.into(), status, self.remap_on)) {
            Ok(()) => Ok(()),
            Err(AfterError::Complete(status)) => Err(status),
            Err(AfterError::Rescue(_)) => self.rescue(io).await,
        }
    }

    /// Does a part of an I/O; who has to wait for a structure looks up again where it goes.
    async fn child(&self, io: &SimIo, part: Part) -> Result<(), IoStatus> {
        if !self.threads.wanted().await {
            return io.issue(part.offset, part.blocks, part.at).await;
        }
        io.story.borrow_mut().waited = true;
        let inner = |inner: Part| self.child(io, Part { offset: part.offset + inner.offset, ..inner });
        match self.route(io.op.into(), Extent::new(io.range.lba.plus(part.offset), part.blocks)) {
            Route::Whole(at) => Box::pin(inner(Part { at, offset: 0, blocks: part.blocks })).await,
            Route::Split(parts) => Box::pin(first_error(parts.iter().map(|part| inner(*part)))).await,
            Route::Done => Ok(()),
            Route::Fail(status) => Err(status),
            // All of the I/O is.
            Route::Rescue(_) => Err(IoStatus::WRITE_FAULT),
            Route::AllOf(_) | Route::OneOf(_) => Err(IoStatus::Failed),
        }
    }

    async fn rescue(&self, io: &SimIo) -> Result<(), IoStatus> {
        let owner = OwnerThread { vbdev: self, io };
        rescue(io, self.engine.table(), &owner, self.remap_on, self.engine.counters()).await
    }

    fn route(&self, request: Request, range: Extent) -> Route {
        route(request, range, self.engine.table(), &self.abilities)
    }

    /// The advice that blocks are not needed.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn unmap(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        let range = Extent::new(BaseLba(lba), blocks);
        match self.route(Request::Unmap, range) {
            Route::Whole(at) => self.advise(at, blocks).await,
            Route::Split(parts) => first_error(parts.iter().map(|part| self.advise(part.at, part.blocks))).await,
            Route::Done => Ok(()),
            Route::Fail(status) => Err(status),
            Route::AllOf(_) | Route::OneOf(_) | Route::Rescue(_) => Err(IoStatus::Failed),
        }
    }

    async fn advise(&self, at: At, blocks: u64) -> Result<(), IoStatus> {
        let (disk, lba) = match at {
            At::Base(lba) => (&self.base, lba.0),
            At::Spare(index) => (&self.spare, self.engine.layout().data(index).0),
        };
        let _to_spare = matches!(at, At::Spare(_)).then(|| self.threads.begin_spare_io());
        let access = Access { verb: Verb::Unmap, lba, blocks };
        disk.transfer(access, &mut []).await.map_err(|struck| struck.status)
    }

    /// Aborts what is under way: all of it, or one I/O. Whether there was any.
    ///
    /// # Errors
    /// What the host sees.
    pub fn abort(&self, all: bool) -> Result<bool, IoStatus> {
        let request = if all { Request::Reset } else { Request::Abort };
        match self.route(request, Extent::new(BaseLba(0), 1)) {
            Route::AllOf(devices) => {
                let base = devices.base && self.base.abort(true);
                Ok((devices.spare && self.spare.abort(true)) | base)
            }
            Route::OneOf(devices) => {
                let base = devices.base && self.base.abort(false);
                Ok(base || devices.spare && self.spare.abort(false))
            }
            Route::Fail(status) => Err(status),
            Route::Whole(_) | Route::Split(_) | Route::Done | Route::Rescue(_) => Err(IoStatus::Failed),
        }
    }

    /// A FLUSH of the host.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn flush(&self) -> Result<(), IoStatus> {
        match self.route(Request::Flush, Extent::new(BaseLba(0), self.base.geometry().blocks)) {
            Route::AllOf(devices) => {
                let disks = [(devices.base, &self.base), (devices.spare, &self.spare)];
                first_error(disks.into_iter().filter(|(wanted, _)| *wanted).map(|(_, disk)| Device::flush(disk))).await
            }
            Route::Done => Ok(()),
            Route::Fail(status) => Err(status),
            Route::Whole(_) | Route::Split(_) | Route::OneOf(_) | Route::Rescue(_) => Err(IoStatus::Failed),
        }
    }
}

/// All at once; what counts is the error that came first, when all have come back.
async fn first_error(all: impl Iterator<Item = impl Future<Output = Result<(), IoStatus>>>) -> Result<(), IoStatus> {
    let first = Cell::new(Ok(()));
    join_all(all.map(|one| async {
        let result = one.await;
        first.set(first.get().and(result));
    }))
    .await;
    first.get()
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
            self.io.story.borrow_mut().relocated.extend(done.map(|(one, _)| one.lba.0));
        }
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn replace(&self, lba: BaseLba, bad: SpareIndex) -> Result<Target, Refused> {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        let before = self.engine().status();
        let answer = self.note(self.engine().replace(lba, bad).await, &before, 1);
        answer.iter().for_each(|target| self.check_new(target));
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        answer
    }

    async fn release(&self, reserved: Vec<SpareIndex>) {
        self.vbdev.threads.hop(self.vbdev.reactor).await;
        self.engine().release(reserved).await;
        self.vbdev.threads.hop(self.vbdev.reactor).await;
    }

    async fn condemn(&self, blocks: Vec<SpareIndex>) {
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
}
