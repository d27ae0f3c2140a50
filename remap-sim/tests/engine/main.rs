//! Tests of remap-core's engine on simulated disks, with a `Vbdev` above: a small world, and what the files share.

#![allow(clippy::unwrap_used)]

mod admin;
mod bulk;
mod crash;
mod damage;
mod events;
mod faults;
mod golden;
mod growth;
mod import;
mod jobs;
mod migrate;
mod moves;
mod open;
mod pace;
mod random;
mod range_lock;
mod repair;
mod rescue;
mod reservations;
mod review;
mod scrub;
mod spare_growth;
mod spareless;

use std::rc::Rc;

use uuid::Uuid;

use remap_core::engine::*;
use remap_core::format::{
    Area, Copy, PageAt, PageContent, PageOwner, PerCopy, Record, Superblock, SuperblockContent, decode_page,
    encode_page,
};
use remap_core::{BaseLba, Epoch, Error, Extent, IoStatus, Mapping, Place, Sequence, Slot};
use remap_sim::{Disk, Effect, Executor, Fault, Medium, Random, SimEngine, Threads, Vbdev, Verb, open_params};

pub(crate) const BLOCK: u32 = 4096;
pub(crate) const BASE_BLOCKS: u64 = 1 << 20;
/// Blocks of the spare: log areas of 65 pages, 138 blocks for data.
pub(crate) const SPARE_BLOCKS: u64 = 400;
pub(crate) const WRITE_FAULT: IoStatus = IoStatus::WRITE_FAULT;
pub(crate) const READ_ERROR: IoStatus = IoStatus::UNRECOVERED_READ;

pub(crate) fn params() -> OpenParams {
    open_params(BASE_BLOCKS)
}

pub(crate) fn lba(lba: u64) -> BaseLba {
    BaseLba(lba)
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch::new(number).unwrap()
}

pub(crate) fn sequence(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

/// A block full of `value`.
pub(crate) fn filled(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK as usize / 8)
}

pub(crate) fn filled_run(first: u64, blocks: u64) -> Vec<u8> {
    (first..first + blocks).flat_map(filled).collect()
}

/// The value that a block is full of.
pub(crate) fn value(block: &[u8]) -> u64 {
    let value = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert!(block.chunks(8).all(|chunk| chunk == value.to_le_bytes()), "a block is of one piece");
    value
}

/// A base, a spare, and a process that may have an engine on them.
pub(crate) struct World {
    pub(crate) executor: Executor,
    pub(crate) base: Disk,
    pub(crate) spare: Disk,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Medium::new(BLOCK, SPARE_BLOCKS), true)
    }

    pub(crate) fn with(spare: Medium, volatile: bool) -> World {
        let executor = Executor::new();
        let base = Disk::new(&executor, Medium::new(spare.block_size(), BASE_BLOCKS), false);
        let spare = Disk::new(&executor, spare, volatile);
        World { executor, base, spare }
    }

    /// The same base, and a spare with this on it, in a new process.
    pub(crate) fn after_crash(&self, spare: Medium) -> World {
        let next = self.restarted();
        World { spare: Disk::new(&next.executor, spare, true), ..next }
    }

    /// The same base and spare in a new process.
    pub(crate) fn restarted(&self) -> World {
        self.executor.kill();
        let next = World { executor: Executor::new(), base: self.base.clone(), spare: self.spare.clone() };
        next.base.attach(&next.executor);
        next.spare.attach(&next.executor);
        next
    }

    /// The world after the process was killed: nothing is lost.
    pub(crate) fn after_kill(&self) -> World {
        self.after_crash(self.spare.contents())
    }

    /// Opening, to be run by the executor.
    pub(crate) fn opening(&self, params: OpenParams) -> impl Future<Output = Result<Vbdev, Error>> + use<> {
        let (base, spare, threads) = (self.base.clone(), self.spare.clone(), Threads::in_order(&self.executor));
        async move { Vbdev::open(&base, &spare, &threads, params).await }
    }

    pub(crate) fn open_with(&self, params: OpenParams) -> Result<Vbdev, Error> {
        self.executor.block_on(self.opening(params)).unwrap()
    }

    pub(crate) fn open(&self) -> Vbdev {
        self.open_with(params()).unwrap()
    }

    pub(crate) fn write(&self, host: &Vbdev, lba: u64, data: Vec<u8>) -> Result<(), IoStatus> {
        let host = host.clone();
        self.executor.block_on(async move { host.write(lba, data).await }).unwrap()
    }

    pub(crate) fn read(&self, host: &Vbdev, lba: u64, blocks: u64) -> Result<Vec<u8>, IoStatus> {
        let host = host.clone();
        self.executor.block_on(async move { host.read(lba, blocks).await }).unwrap()
    }

    pub(crate) fn save(&self, host: &Vbdev) -> Result<SaveReport, Error> {
        let engine = Rc::clone(&host.engine);
        self.executor.block_on(async move { engine.save().await }).unwrap()
    }

    pub(crate) fn restore(&self, host: &Vbdev, dry_run: bool) -> RestoreReport {
        let engine = Rc::clone(&host.engine);
        self.executor.block_on(async move { engine.restore(dry_run).await }).unwrap().unwrap()
    }

    pub(crate) fn close(&self, host: &Vbdev) {
        let engine = Rc::clone(&host.engine);
        self.executor.block_on(async move { engine.close().await }).unwrap();
    }

    /// Time goes by, with nothing to do for hosts.
    pub(crate) fn quiet(&self) {
        self.executor.run_for(std::time::Duration::from_secs(5));
    }

    /// From now on writes of these blocks of the base fail, reads do not.
    pub(crate) fn bad_for_writes(&self, first: u64, blocks: u64) {
        self.base.fail(Fault::new(Verb::Write, first..first + blocks, WRITE_FAULT).with_effect(Effect::Some));
    }

    pub(crate) fn bad_for_reads(&self, first: u64, blocks: u64) {
        self.base.fail(Fault::new(Verb::Read, first..first + blocks, READ_ERROR));
    }
}

/// A world with a block 10 that is remapped and holds 1, and blocks up to 99 that are bad for writes.
pub(crate) fn world() -> (World, Vbdev) {
    let world = World::new();
    world.bad_for_writes(10, 90);
    let host = world.open();
    world.write(&host, 10, filled(1)).unwrap();
    (world, host)
}

/// The spare under it.
pub(crate) fn spare_of(host: &Vbdev) -> Disk {
    host.spare()
}

/// All pages of this copy of the log fail.
pub(crate) fn log_fault(host: &Vbdev, copy: Copy, verb: Verb) -> Fault {
    let layout = host.engine.layout();
    let first = layout.log_page(copy, Area::Zero, 0).0;
    Fault::new(verb, first..first + 2 * u64::from(layout.area_pages), IoStatus::Failed)
}

/// No page of either copy of the log can be written any more.
pub(crate) fn log_cannot_be_written(world: &World, host: &Vbdev, effect: Effect) {
    Copy::BOTH.iter().for_each(|copy| world.spare.fail(log_fault(host, *copy, Verb::Write).with_effect(effect)));
}

/// Changes the superblock in both copies, with a valid checksum.
pub(crate) fn patched(mut medium: Medium, change: impl Fn(&mut Superblock)) -> Medium {
    for at in [0, SPARE_BLOCKS - 1] {
        let SuperblockContent::Valid(mut superblock) = Superblock::decode(&medium.block(at)) else { panic!("valid") };
        change(&mut superblock);
        let mut block = vec![0; BLOCK as usize];
        superblock.encode(&mut block);
        medium.set_block(at, &block);
    }
    medium
}

/// Changes the records of a log page, on both copies.
pub(crate) fn change_page(
    medium: &mut Medium,
    engine: &SimEngine,
    area: Area,
    page: u32,
    change: impl Fn(&[Record]) -> Vec<Record>,
) {
    let owner = PageOwner { set_uuid: engine.set_uuid(), spare_id: params().fresh_spare_id };
    for copy in Copy::BOTH {
        let lba = engine.layout().log_page(copy, area, u64::from(page)).0;
        let mut block = medium.block(lba);
        let at = PageAt { copy, area, index: page };
        let PageContent::Valid(info, raw) = decode_page(&block, owner, at) else { panic!("page {page} is valid") };
        let records: Vec<_> = raw.iter().map(|raw| Record::decode(raw, Slot::FIRST).unwrap()).collect();
        let records: Vec<_> = change(&records).iter().map(|record| record.encode()).collect();
        assert_eq!(encode_page(&mut block, owner, at, info, &records), records.len());
        medium.set_block(lba, &block);
    }
}

/// All that the table holds, checked to use each spare block once.
pub(crate) fn mappings(engine: &SimEngine) -> Vec<(BaseLba, Mapping)> {
    let mut found = Vec::new();
    let _ = engine.table().visit(remap_core::Extent::new(BaseLba(0), BASE_BLOCKS), |lba, mapping| {
        found.push((lba, mapping));
        std::ops::ControlFlow::Continue(())
    });
    let mut spares: Vec<_> = found.iter().filter_map(|(_, mapping)| mapping.spare()).collect();
    let all = spares.len();
    spares.sort_unstable();
    spares.dedup();
    assert_eq!(spares.len(), all, "two blocks share a spare block");
    found
}

/// What `work` comes to with a bug on purpose in it: that the test of the same can fail.
#[cfg(feature = "mutations")]
pub(crate) fn with_bug<R>(bug: remap_core::mutation::Mutation, work: impl FnOnce() -> R) -> R {
    remap_core::mutation::activate(Some(bug));
    let outcome = work();
    remap_core::mutation::activate(None);
    outcome
}

/// Opens what is on `medium`, which has to be refused, and checks that not a byte of it was changed.
pub(crate) fn refused(medium: Medium, params: OpenParams) -> Error {
    let world = World::with(medium.clone(), true);
    let Err(error) = world.open_with(params) else { panic!("it was opened") };
    assert_eq!(world.spare.contents(), medium, "a refusal has written something");
    assert_eq!(world.spare.writes(), 0);
    assert!(error.errno() < 0);
    error
}
