//! Tests of the engine on simulated devices: a small world, and what the files share.

mod admin;
mod crash;
mod faults;
mod open;
mod random;
mod rescue;

use std::rc::Rc;

use uuid::Uuid;

use super::*;
use crate::sim::{Executor, FaultKind, Medium, PowerCut, SimDevice, SimEnv, SimHost};
use crate::status::{IoStatus, RemapOn};
use crate::table::{Mapping, Place};

pub(super) const BLOCK: u32 = 4096;
pub(super) const BASE_BLOCKS: u64 = 1 << 20;
/// Blocks of the spare: log areas of 65 pages, 138 blocks for data.
pub(super) const SPARE_BLOCKS: u64 = 400;
pub(super) const WRITE_FAULT: IoStatus = IoStatus::WRITE_FAULT;
pub(super) const READ_ERROR: IoStatus = IoStatus::UNRECOVERED_READ;

pub(super) type TestEngine = Engine<SimDevice, SimEnv>;

pub(super) fn params() -> OpenParams {
    OpenParams {
        name: "Remap0".into(),
        set_uuid: None,
        fresh_set_uuid: Uuid::from_u128(1),
        fresh_spare_id: Uuid::from_u128(2),
        base_uuid: Uuid::from_u128(3),
        base_blocks: BASE_BLOCKS,
        md_size: 0,
        format: FormatPolicy::Auto,
        storm_limit: 4096,
    }
}

pub(super) fn lba(lba: u64) -> BaseLba {
    BaseLba(lba)
}

/// A block full of `value`.
pub(super) fn filled(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK as usize / 8)
}

pub(super) fn filled_run(first: u64, blocks: u64) -> Vec<u8> {
    (first..first + blocks).flat_map(filled).collect()
}

/// The value that a block is full of.
pub(super) fn value(block: &[u8]) -> u64 {
    let value = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert!(block.chunks(8).all(|chunk| chunk == value.to_le_bytes()), "a block is of one piece");
    value
}

/// A base, a spare, and a process that may have an engine on them.
pub(super) struct World {
    pub(super) executor: Executor,
    pub(super) base: SimDevice,
    pub(super) spare: SimDevice,
}

impl World {
    pub(super) fn new() -> World {
        World::with(Medium::new(BLOCK, SPARE_BLOCKS), true)
    }

    pub(super) fn with(spare: Medium, volatile: bool) -> World {
        World {
            executor: Executor::new(),
            base: SimDevice::new(Medium::new(spare.block_size(), BASE_BLOCKS), false),
            spare: SimDevice::new(spare, volatile),
        }
    }

    /// The same base, and a spare with this on it, in a new process.
    pub(super) fn after_crash(&self, spare: Medium) -> World {
        self.executor.kill();
        World { executor: Executor::new(), base: self.base.clone(), spare: SimDevice::new(spare, true) }
    }

    /// The world after the process was killed: nothing is lost.
    pub(super) fn after_kill(&self) -> World {
        self.after_crash(self.spare.contents())
    }

    pub(super) fn open_with(&self, params: OpenParams) -> Result<Rc<TestEngine>, Error> {
        let opened = Engine::open(self.spare.clone(), SimEnv::new(&self.executor), params);
        self.executor.block_on(opened).unwrap()
    }

    pub(super) fn host(&self) -> SimHost {
        self.host_of(self.open_with(params()).unwrap())
    }

    pub(super) fn host_of(&self, engine: Rc<TestEngine>) -> SimHost {
        SimHost { engine, base: self.base.clone(), spare: self.spare.clone(), remap_on: RemapOn::Media }
    }

    pub(super) fn write(&self, host: &SimHost, lba: u64, data: Vec<u8>) -> Result<(), IoStatus> {
        let host = host.clone();
        self.executor.block_on(async move { host.write(lba, data).await }).unwrap()
    }

    pub(super) fn read(&self, host: &SimHost, lba: u64, blocks: u64) -> Result<Vec<u8>, IoStatus> {
        let host = host.clone();
        self.executor.block_on(async move { host.read(lba, blocks).await }).unwrap()
    }

    pub(super) fn save(&self, host: &SimHost) -> Result<SaveReport, Error> {
        let engine = Rc::clone(&host.engine);
        self.executor.block_on(async move { engine.save().await }).unwrap()
    }

    /// From now on writes of these blocks of the base fail, reads do not.
    pub(super) fn bad_for_writes(&self, first: u64, blocks: u64) {
        self.base.fail(FaultKind::Write, first, first + blocks, WRITE_FAULT, u64::MAX);
    }

    pub(super) fn bad_for_reads(&self, first: u64, blocks: u64) {
        self.base.fail(FaultKind::Read, first, first + blocks, READ_ERROR, u64::MAX);
    }
}

/// All that the table holds, checked to use each spare block once.
pub(super) fn mappings(engine: &TestEngine) -> Vec<(BaseLba, Mapping)> {
    let mut found = Vec::new();
    let _ = engine.table().visit(crate::Extent::new(BaseLba(0), BASE_BLOCKS), |lba, mapping| {
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
