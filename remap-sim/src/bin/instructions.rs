//! A fixed number of lookups, routes and rescues, for `scripts/instructions.sh`, which has valgrind count the instructions that they
//! take. Only what runs within a function called `counted_…` is counted, call by call. For each call there is a line on standard
//! output, in the same order: how many operations it was, and what they were.
//!
//! The scenarios of one kind share one function, as the compiler makes one of functions that do the same, whatever they are called. There
//! is no closure in them: what has such a name, as closures have, and is called within, would end the counting.

use std::cell::RefCell;
use std::error::Error;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use remap_core::format::Layout;
use remap_core::{
    Abilities, At, BaseLba, Change, Device, Engine, Extent, Geometry, HostIo, HostOp, IoStatus, Mapping, RemapOn,
    Request, Slot, SpareBlock, Table, TableWriter, rescue, route,
};
use remap_sim::{Executor, Random, Threads, open_params};

const BASE_BLOCKS: u64 = 1 << 30;
const LOOKUPS: usize = 10_000;
/// So many pages the log takes without a checkpoint.
const RESCUES: u64 = 60;
const BLOCK_SIZE: usize = 4096;
const SPARE_BLOCKS: u64 = 1024;

#[inline(never)]
fn counted_lookups(table: &Table, blocks: &[BaseLba]) {
    for lba in blocks {
        black_box(&table.lookup(*lba));
    }
}

#[inline(never)]
fn counted_routes(table: &Table, reads: &[Extent]) {
    for range in reads {
        black_box(&route(Request::Read, *range, table, &Abilities::ALL));
    }
}

#[inline(never)]
fn counted_rescues(set: &Set) -> Result<(), IoStatus> {
    for lba in 0..RESCUES {
        set.rescue(BaseLba(lba))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [none, thousand, million] = [0, 1_000, 1_000_000].map(Remapped::evenly);
    for (name, blocks) in [
        ("lookup of a block, nothing is remapped", none.others()),
        ("lookup of a block that is not among 1,000", thousand.others()),
        ("lookup of a block that is not among 1,000,000", million.others()),
        ("lookup of a block that is one of 1,000", thousand.remapped()),
        ("lookup of a block that is one of 1,000,000", million.remapped()),
    ] {
        counted_lookups(blocks.table, &blocks.lbas);
        println!("{}\t{name}", blocks.lbas.len());
    }
    for (name, blocks, length) in [
        ("route of a read, nothing is remapped", none.others(), 1),
        ("route of a read, 1,000 others are remapped", thousand.others(), 1),
        ("route of a read of a block that is remapped", thousand.remapped(), 1),
        ("route of a read of 32 blocks, one of which is remapped", thousand.remapped(), 32),
    ] {
        let before = length / 2;
        let read = |lba: &BaseLba| Extent::new(BaseLba(lba.0.saturating_sub(before)), length);
        let reads: Vec<_> = blocks.lbas.iter().map(read).collect();
        counted_routes(blocks.table, &reads);
        println!("{}\t{name}", reads.len());
    }

    let set = Set::open()?;
    counted_rescues(&set).map_err(|status| format!("a rescue has failed: {status:?}"))?;
    println!("{RESCUES}\trescue of a write of one block");
    let status = set.engine.status();
    if (status.remapped, status.counters.log_pages) != (RESCUES, RESCUES) {
        return Err(format!("a rescue is one commit, but this is what {RESCUES} have led to: {status:?}").into());
    }
    Ok(())
}

/// A table in which every `step`th block is remapped.
struct Remapped {
    table: Arc<Table>,
    count: u64,
    step: u64,
}

/// Blocks that are looked up.
struct Blocks<'a> {
    table: &'a Table,
    lbas: Vec<BaseLba>,
}

impl Remapped {
    fn evenly(count: u32) -> Remapped {
        let step = BASE_BLOCKS / u64::from(count.max(1));
        let mut writer = TableWriter::new(BASE_BLOCKS);
        let remapped = |index| Change {
            lba: BaseLba(u64::from(index) * step),
            to: SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare),
        };
        drop(writer.publish((0..count).map(remapped).collect()));
        Remapped { table: Arc::clone(writer.table()), count: count.into(), step }
    }

    fn remapped(&self) -> Blocks<'_> {
        self.blocks(|random| random.below(self.count) * self.step)
    }

    fn others(&self) -> Blocks<'_> {
        self.blocks(|random| random.below(self.count.max(1)) * self.step + 1 + random.below(self.step - 1))
    }

    fn blocks(&self, draw: impl Fn(&Random) -> u64) -> Blocks<'_> {
        let random = Random::new(1);
        Blocks { table: &self.table, lbas: (0..LOOKUPS).map(|_| BaseLba(draw(&random))).collect() }
    }
}

/// A set of which each block of the base is bad. Its devices cost next to nothing, unlike those of the simulation.
struct Set {
    executor: Executor,
    spare: Memory,
    engine: Rc<Engine<Memory, Threads>>,
}

impl Set {
    fn open() -> Result<Set, Box<dyn Error>> {
        let (executor, spare) = (Executor::new(), Memory::new());
        let opening = Engine::open(spare.clone(), Threads::in_order(&executor), open_params(BASE_BLOCKS));
        let engine = executor.block_on(opening).ok_or("opening the set has no end")??;
        Ok(Set { executor, spare, engine })
    }

    /// Rescues a write of this block, which the base has failed.
    fn rescue(&self, lba: BaseLba) -> Result<(), IoStatus> {
        let engine = Rc::clone(&self.engine);
        let io = FailedWrite { lba, spare: self.spare.clone(), layout: engine.layout() };
        let rescued = self
            .executor
            .block_on(async move { rescue(&io, engine.table(), &*engine, RemapOn::Media, engine.counters()).await });
        rescued.unwrap_or(Err(IoStatus::Failed))
    }
}

struct FailedWrite {
    lba: BaseLba,
    spare: Memory,
    layout: Layout,
}

impl HostIo for FailedWrite {
    fn op(&self) -> HostOp {
        HostOp::Write
    }

    fn range(&self) -> Extent {
        Extent::new(self.lba, 1)
    }

    fn is_given_up(&self) -> bool {
        false
    }

    async fn issue(&self, _offset: u64, _blocks: u64, at: At) -> Result<(), IoStatus> {
        let At::Spare(block) = at else { return Err(IoStatus::WRITE_FAULT) };
        self.spare.put(self.layout.data(block).0, &[1; BLOCK_SIZE]);
        Ok(())
    }
}

/// A device in memory, which does everything at once. Clones are the same.
#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn new() -> Memory {
        Memory(Rc::new(RefCell::new(vec![0; SPARE_BLOCKS as usize * BLOCK_SIZE])))
    }

    fn put(&self, lba: u64, bytes: &[u8]) {
        let start = lba as usize * BLOCK_SIZE;
        self.0.borrow_mut()[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

impl Device for Memory {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        Geometry { block_size: BLOCK_SIZE as u32, blocks: SPARE_BLOCKS }
    }

    fn alloc(&self, blocks: usize) -> Result<Vec<u8>, IoStatus> {
        Ok(vec![0; blocks * BLOCK_SIZE])
    }

    async fn read(&self, lba: u64, mut buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        let (start, size) = (lba as usize * BLOCK_SIZE, buffer.len());
        buffer.copy_from_slice(&self.0.borrow()[start..start + size]);
        (buffer, Ok(()))
    }

    async fn write(&self, lba: u64, buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        self.put(lba, &buffer);
        (buffer, Ok(()))
    }

    async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), IoStatus> {
        self.put(lba, &vec![0; blocks as usize * BLOCK_SIZE]);
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        Ok(())
    }
}
