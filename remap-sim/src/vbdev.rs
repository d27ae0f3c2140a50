//! The Remap bdev of a simulation: what `bdev_remap/{io,control,rescue}.rs` do, on simulated disks. Where an
//! I/O goes is what `route` says, as there; the owner is another thread, to which calls take a while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use futures_util::future::join_all;
use remap_core::format::Layout;
use remap_core::{
    Abilities, AfterError, At, BaseLba, Device, Engine, Error, Extent, FormatPolicy, Glance, HostIo, HostOp, IoStatus,
    Job, MigrateParams, OpenParams, Part, PerSlot, Place, Refused, RemapOn, Request, Route, SpareBlock, Stopped, Takes,
    after_error, glance, is_plain_near, rescue, route,
};

use uuid::Uuid;

use super::disk::{Access, Disk};
use super::faults::{Struck, Verb};
use super::owner::OwnerThread;
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
        given_up: None,
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
    /// Commits of which some block turned out to live elsewhere by then.
    pub elsewhere: usize,
    /// Whether it had to wait for a structure.
    pub waited: bool,
    /// Spare blocks that it was given although a write of them had failed before they were in use.
    pub given_again: Vec<SpareBlock>,
}

/// An I/O of a host.
pub(crate) struct SimIo {
    op: HostOp,
    range: Extent,
    vbdev: Vbdev,
    data: RefCell<Vec<u8>>,
    pub(crate) story: RefCell<Story>,
    /// Resets when it was submitted: the next one gives it up.
    resets: u64,
}

impl HostIo for SimIo {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        self.range
    }

    fn is_given_up(&self) -> bool {
        let given_up = self.vbdev.resets.get() != self.resets;
        if given_up {
            let struck = Struck { status: IoStatus::Aborted, ..Struck::foreign(self.range.lba.0) };
            self.story.borrow_mut().struck.push((self.range.lba.0, struck));
        }
        given_up
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let Some((disk, lba)) = self.vbdev.reach(at) else { return Err(IoStatus::Failed) };
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
    fn remember(&self, at: SpareBlock, block: BaseLba, status: IoStatus) {
        let lives_there = matches!(self.vbdev.engine.table().lookup(block), Place::Spare(_) | Place::Lost(_));
        if self.op != HostOp::Read && !lives_there && status.is_media_error(self.vbdev.remap_on) {
            self.vbdev.failed.borrow_mut().insert(at);
        }
    }
}

/// A spare as the I/O of hosts reaches it.
#[derive(Clone)]
pub struct SimSpare {
    /// The disk.
    pub disk: Disk,
    /// What is where on it.
    pub layout: Layout,
    /// What it takes.
    pub takes: Takes,
}

/// The spare in each slot where there is one. Clones are the same.
pub type SimSpares = Rc<RefCell<PerSlot<Option<SimSpare>>>>;

/// The Remap bdev as its hosts see it. Clones are the same.
#[derive(Clone)]
pub struct Vbdev {
    /// The engine under it.
    pub engine: Rc<SimEngine>,
    /// The base.
    pub base: Disk,
    /// The spare in each slot where there is one.
    pub spares: SimSpares,
    /// Which errors start a rescue.
    pub remap_on: RemapOn,
    /// What the base takes, and whether it admits its cache.
    pub base_takes: (Takes, bool),
    /// Between the threads.
    pub threads: Threads,
    /// The reactor that an I/O is on: 0 or 1.
    pub reactor: usize,
    /// How often the bdev was reset.
    pub(crate) resets: Rc<Cell<u64>>,
    /// Spare blocks whose writes failed before they were in use.
    pub(crate) failed: Rc<RefCell<BTreeSet<SpareBlock>>>,
}

impl Vbdev {
    /// Opens the set, or formats the spare, as `params` say; media errors in the strict sense start a rescue.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn open(base: &Disk, spare: &Disk, threads: &Threads, params: OpenParams) -> Result<Vbdev, Error> {
        let engine = Engine::open(spare.clone(), threads.clone(), params).await?;
        let only = SimSpare { disk: spare.clone(), layout: engine.layout(), takes: Takes::ALL };
        let spares = Rc::new(RefCell::new(PerSlot::only(engine.slot(), Some(only))));
        let (base, threads) = (base.clone(), threads.clone());
        let (remap_on, base_takes) = (RemapOn::Media, (Takes::ALL, true));
        let (resets, failed) = (Rc::default(), Rc::default());
        Ok(Vbdev { engine, base, spares, remap_on, base_takes, threads, reactor: 0, resets, failed })
    }

    /// The spare in force takes this.
    pub(crate) fn set_spare_takes(&self, takes: Takes) {
        if let Some(spare) = &mut self.spares.borrow_mut()[self.engine.slot()] {
            spare.takes = takes;
        }
    }

    /// The spare in force.
    ///
    /// # Panics
    /// If its slot is empty.
    #[must_use]
    pub fn spare(&self) -> Disk {
        match &self.spares.borrow()[self.engine.slot()] {
            Some(spare) => spare.disk.clone(),
            None => panic!("the spare in force is there"),
        }
    }

    /// Moves all to another spare, which gets this identity; `force`: whatever is on it.
    ///
    /// # Errors
    /// Those of [`Engine::prepare`] and [`Engine::migrate`].
    pub async fn migrate(
        &self,
        to: &Disk,
        id: Uuid,
        params: MigrateParams,
        force: bool,
        job: &Job,
    ) -> Result<(), Stopped> {
        let new = self.engine.prepare(to.clone(), id, force).await?;
        let (slot, takes) = (new.slot(), Takes::ALL);
        self.spares.borrow_mut()[slot] = Some(SimSpare { disk: to.clone(), layout: new.layout(), takes });
        let result = self.engine.migrate(new, params, job).await;
        self.spares.borrow_mut()[self.engine.slot().other()] = None;
        result
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
            resets: self.resets.get(),
        };
        let result = self.carry_out(&io).await;
        (result.map(|()| io.data.into_inner()), io.story.into_inner())
    }

    async fn carry_out(&self, io: &SimIo) -> Result<(), IoStatus> {
        let changes = Request::from(io.op).changes().then_some(io.range);
        let Some(_inside) = self.threads.come_in(self.reactor, changes, || io.is_given_up()).await else {
            return Err(IoStatus::Aborted);
        };
        match self.by_windows(io, 0, io.range.blocks).await {
            Ok(()) => Ok(()),
            Err(Stop::Final(status)) => Err(status),
            Err(Stop::Rescue) => self.rescue(io).await,
            Err(Stop::Failed(status)) => match after_error(io.op.into(), status, self.remap_on) {
                AfterError::Complete(status) => Err(status),
                AfterError::Rescue(_) => self.rescue(io).await,
            },
        }
    }

    /// Does the blocks of an I/O from `from` to `end`, window by window: for each it looks up again where they go.
    async fn by_windows(&self, io: &SimIo, mut from: u64, end: u64) -> Result<(), Stop> {
        while from < end {
            let rest = Extent::new(io.range.lba.plus(from), end - from);
            let child = |part: Part| self.child(io, Part { offset: from + part.offset, ..part });
            from = match self.route(io.op.into(), rest) {
                Route::Whole(at) => {
                    child(Part { at, offset: 0, blocks: rest.blocks }).await?;
                    end
                }
                Route::Split(split) => {
                    first_error(split.parts.iter().map(|part| child(*part))).await?;
                    from + split.blocks
                }
                Route::Done => end,
                Route::Fail(status) => return Err(Stop::Final(status)),
                Route::Rescue(_) => return Err(Stop::Rescue),
                Route::AllOf(_) | Route::AnyOf(_) => return Err(Stop::Final(IoStatus::Failed)),
            };
        }
        Ok(())
    }

    /// Does a part of an I/O; who has to wait for a structure looks up again where it goes.
    async fn child(&self, io: &SimIo, part: Part) -> Result<(), Stop> {
        if !self.threads.wanted().await {
            return io.issue(part.offset, part.blocks, part.at).await.map_err(Stop::Failed);
        }
        io.story.borrow_mut().waited = true;
        Box::pin(self.by_windows(io, part.offset, part.offset + part.blocks)).await
    }

    async fn rescue(&self, io: &SimIo) -> Result<(), IoStatus> {
        let owner = OwnerThread { vbdev: self, io };
        rescue(io, self.engine.table(), &owner, self.remap_on, self.engine.counters()).await
    }

    /// The disk behind a place, and the LBA there. None if it is in a slot without a spare.
    pub(crate) fn reach(&self, at: At) -> Option<(Disk, u64)> {
        match at {
            At::Base(lba) => Some((self.base.clone(), lba.0)),
            At::Spare(block) => {
                let spares = self.spares.borrow();
                let spare = spares[block.slot()].as_ref()?;
                Some((spare.disk.clone(), spare.layout.data(block).0))
            }
        }
    }

    /// The spares in these slots.
    fn spares_in(&self, slots: PerSlot<bool>) -> Vec<Disk> {
        let spares = self.spares.borrow();
        let chosen = spares.iter().filter(|(slot, _)| slots[*slot]);
        chosen.filter_map(|(_, spare)| Some(spare.as_ref()?.disk.clone())).collect()
    }

    fn route(&self, request: Request, range: Extent) -> Route {
        let spares = self.spares.borrow();
        let takes = |slot| spares[slot].as_ref().map_or(Takes::NONE, |spare| spare.takes);
        let (base, base_cache) = self.base_takes;
        let abilities = Abilities { base_cache, base, spares: PerSlot::each(takes) };
        let table = self.engine.table();
        // The vbdev begins so where the table is far, which none is here.
        let plain = match glance(request, range, table) {
            Glance::Plain => true,
            Glance::Fetched => is_plain_near(request, range, table),
            Glance::Unknown => false,
        };
        if plain { Route::Whole(At::Base(range.lba)) } else { route(request, range, table, &abilities) }
    }

    /// The advice that blocks are not needed.
    ///
    /// # Errors
    /// What the host sees.
    pub async fn unmap(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        let range = Extent::new(BaseLba(lba), blocks);
        let resets = self.resets.get();
        let Some(_inside) = self.threads.come_in(self.reactor, Some(range), || self.resets.get() != resets).await
        else {
            return Err(IoStatus::Aborted);
        };
        self.unmap_inside(lba, blocks).await
    }

    async fn unmap_inside(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        if blocks == 0 {
            return Ok(());
        }
        let range = Extent::new(BaseLba(lba), blocks);
        match self.route(Request::Unmap, range) {
            Route::Whole(at) => self.advise(at, blocks).await,
            Route::Split(split) => {
                first_error(split.parts.iter().map(|part| self.advise(part.at, part.blocks))).await?;
                Box::pin(self.unmap_inside(lba + split.blocks, blocks - split.blocks)).await
            }
            Route::Done => Ok(()),
            Route::Fail(status) => Err(status),
            Route::AllOf(_) | Route::AnyOf(_) | Route::Rescue(_) => Err(IoStatus::Failed),
        }
    }

    async fn advise(&self, at: At, blocks: u64) -> Result<(), IoStatus> {
        let Some((disk, lba)) = self.reach(at) else { return Err(IoStatus::Failed) };
        let access = Access { verb: Verb::Unmap, lba, blocks };
        disk.transfer(access, &mut []).await.map_err(|struck| struck.status)
    }

    /// Aborts what is under way: all of it, with what is held, or one I/O. Whether there was any.
    ///
    /// # Errors
    /// What the host sees.
    pub fn abort(&self, all: bool) -> Result<bool, IoStatus> {
        let request = if all { Request::Reset } else { Request::Abort };
        match self.route(request, Extent::new(BaseLba(0), 1)) {
            Route::AllOf(devices) => {
                self.resets.set(self.resets.get() + 1);
                self.threads.stir();
                let base = devices.base && self.base.abort(true);
                Ok(self.spares_in(devices.spares).iter().fold(base, |any, spare| spare.abort(true) | any))
            }
            Route::AnyOf(devices) => {
                let base = devices.base && self.base.abort(false);
                Ok(self.spares_in(devices.spares).iter().fold(base, |any, spare| spare.abort(false) | any))
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
                let base = devices.base.then(|| self.base.clone());
                let all: Vec<_> = base.into_iter().chain(self.spares_in(devices.spares)).collect();
                first_error(all.iter().map(Device::flush)).await
            }
            Route::Done => Ok(()),
            Route::Fail(status) => Err(status),
            Route::Whole(_) | Route::Split(_) | Route::AnyOf(_) | Route::Rescue(_) => Err(IoStatus::Failed),
        }
    }
}

/// Why an I/O did not just succeed.
#[derive(Clone, Copy)]
enum Stop {
    /// A device failed it: what follows is to be asked.
    Failed(IoStatus),
    /// It has failed.
    Final(IoStatus),
    /// It is to be rescued.
    Rescue,
}

/// All at once; what counts is the error that came first, when all have come back.
async fn first_error<E: Copy>(all: impl Iterator<Item = impl Future<Output = Result<(), E>>>) -> Result<(), E> {
    let first = Cell::new(Ok(()));
    join_all(all.map(|one| async {
        let result = one.await;
        first.set(first.get().and(result));
    }))
    .await;
    first.get()
}
