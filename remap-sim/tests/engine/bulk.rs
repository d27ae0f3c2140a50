//! Large I/O that fails: what is good goes in bulk, what is bad is found by halving, and nothing grows with the size.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use remap_core::{
    At, Committed, Extent, HostIo, HostOp, Move, Owner, Refused, RemapOn, Run, SpareBlock, Target, Uncopied, rescue,
};

/// 1 GiB of 4 KiB blocks.
const GIB: u64 = 262_144;

/// A host's I/O without data: it knows which blocks are bad, and keeps what is issued.
#[derive(Clone)]
struct Io {
    op: HostOp,
    range: Range<u64>,
    bad: BTreeSet<u64>,
    bad_spare: BTreeSet<u32>,
    issued: Rc<RefCell<Vec<(u64, u64, At)>>>,
    /// Where each block was written or read last, by its place in the range.
    done: Rc<RefCell<BTreeMap<u64, At>>>,
    /// How many are under way, and how many at most were.
    under_way: Rc<Cell<(usize, usize)>>,
    /// It is given up when so many were issued.
    patience: usize,
}

impl Io {
    fn new(op: HostOp, range: Range<u64>, bad: impl IntoIterator<Item = u64>) -> Io {
        Io {
            op,
            range,
            bad: bad.into_iter().collect(),
            bad_spare: BTreeSet::new(),
            issued: Rc::default(),
            done: Rc::default(),
            under_way: Rc::default(),
            patience: usize::MAX,
        }
    }

    fn count(&self) -> usize {
        self.issued.borrow().len()
    }
}

impl HostIo for Io {
    fn op(&self) -> HostOp {
        self.op
    }

    fn range(&self) -> Extent {
        Extent::new(lba(self.range.start), self.range.end - self.range.start)
    }

    fn is_given_up(&self) -> bool {
        self.count() >= self.patience
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        self.issued.borrow_mut().push((offset, blocks, at));
        let (now, most) = self.under_way.get();
        self.under_way.set((now + 1, most.max(now + 1)));
        pause().await;
        let (now, most) = self.under_way.get();
        self.under_way.set((now - 1, most));
        let bad = match at {
            At::Base(lba) => self.bad.range(lba.0..lba.0 + blocks).next().is_some(),
            At::Spare(index) => self.bad_spare.range(index.index()..index.index() + blocks as u32).next().is_some(),
        };
        if bad {
            return Err(if self.op == HostOp::Read { READ_ERROR } else { WRITE_FAULT });
        }
        if blocks <= 1024 {
            let one = |i| match at {
                At::Base(lba) => At::Base(lba.plus(i)),
                At::Spare(index) => At::Spare(index.plus(i).unwrap()),
            };
            self.done.borrow_mut().extend((0..blocks).map(|i| (offset + i, one(i))));
        }
        Ok(())
    }
}

/// Lets the other tasks go on first.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// An engine that keeps how many blocks it was asked for at once.
#[derive(Clone)]
struct Asked {
    engine: Rc<SimEngine>,
    sizes: Rc<RefCell<Vec<usize>>>,
}

impl Asked {
    fn note<T, F: Future>(&self, blocks: Vec<T>, call: impl FnOnce(Vec<T>) -> F) -> F {
        self.sizes.borrow_mut().push(blocks.len());
        call(blocks)
    }
}

impl Owner for Asked {
    async fn reserve(&self, blocks: Vec<BaseLba>) -> Result<Vec<Target>, Refused> {
        self.note(blocks, |blocks| self.engine.reserve(blocks)).await
    }

    async fn commit(&self, moves: Vec<Move>) -> Result<Vec<Committed>, Refused> {
        self.note(moves, |moves| self.engine.commit(moves)).await
    }

    async fn replace(&self, lba: BaseLba, bad: SpareBlock) -> Result<Target, Refused> {
        self.engine.replace(lba, bad).await
    }

    async fn release(&self, reserved: Vec<SpareBlock>) {
        self.note(reserved, |reserved| self.engine.release(reserved)).await;
    }

    async fn condemn(&self, blocks: Vec<SpareBlock>) {
        self.note(blocks, |blocks| self.engine.condemn(blocks)).await;
    }

    async fn set_pending(&self, blocks: Vec<BaseLba>) -> Result<(), Refused> {
        self.note(blocks, |blocks| self.engine.set_pending(blocks)).await
    }

    async fn begin_mirrored(&self, range: Extent) -> Vec<Run> {
        self.engine.begin_mirrored(range).await
    }

    async fn end_mirrored(&self, range: Extent, uncopied: Vec<Uncopied>) {
        self.engine.end_mirrored(range, uncopied).await;
    }
}

/// A world with room for many blocks, and its engine.
fn world() -> (World, Asked) {
    let world = World::with(Medium::new(BLOCK, 40_000), true);
    let engine = world.open().engine;
    (world, Asked { engine, sizes: Rc::default() })
}

fn run(world: &World, owner: &Asked, io: &Io) -> Result<(), IoStatus> {
    let (owner, io) = (owner.clone(), io.clone());
    let rescued = async move {
        let engine = &owner.engine;
        rescue(&io, engine.table(), &owner, RemapOn::Media, engine.counters()).await
    };
    world.executor.block_on(rescued).unwrap()
}

/// Moves blocks to the spare, before anything fails.
fn relocate(world: &World, owner: &Asked, blocks: impl IntoIterator<Item = u64>) {
    let (engine, blocks) = (Rc::clone(&owner.engine), blocks.into_iter().map(lba).collect::<Vec<_>>());
    let moved = async move {
        let targets = engine.reserve(blocks.clone()).await.unwrap();
        let to = |target| if let Target::New(to) = target { to } else { panic!("{target:?}") };
        let moves = blocks.into_iter().zip(targets).map(|(lba, target)| Move { lba, to: to(target) });
        engine.commit(moves.collect()).await.unwrap();
    };
    world.executor.block_on(moved).unwrap();
}

fn pending(world: &World, owner: &Asked, blocks: impl IntoIterator<Item = u64>) {
    let (engine, blocks) = (Rc::clone(&owner.engine), blocks.into_iter().map(lba).collect());
    world.executor.block_on(async move { engine.set_pending(blocks).await }).unwrap().unwrap();
}

/// Makes remapped blocks lost, as a migration that could not read them records it.
fn lose(world: &World, owner: &Asked, blocks: &BTreeSet<u64>) {
    let engine = Rc::clone(&owner.engine);
    let saved = world.executor.block_on(async move { engine.save().await }).unwrap().unwrap();
    let area = if saved.epoch.get() % 2 == 1 { Area::Zero } else { Area::One };
    let lost = |record: &Record| match *record {
        Record::Remap { lba, spare, count } => (0..u64::from(count))
            .map(|i| (lba.plus(i), spare.plus(i).unwrap()))
            .map(|(lba, spare)| match blocks.contains(&lba.0) {
                true => Record::Lost { lba, spare, count: 1 },
                false => Record::Remap { lba, spare, count: 1 },
            })
            .collect(),
        other => vec![other],
    };
    world
        .spare
        .rot(|medium| change_page(medium, &owner.engine, area, 0, |records| records.iter().flat_map(lost).collect()));
    let engine = Rc::clone(&owner.engine);
    world.executor.block_on(async move { engine.restore(false).await }).unwrap().unwrap();
}

fn remapped(engine: &SimEngine) -> BTreeSet<u64> {
    mappings(engine).into_iter().filter(|(_, to)| matches!(to, Mapping::Spare(_))).map(|(lba, _)| lba.0).collect()
}

/// By a reset, or an abort, at whatever moment.
#[test]
fn what_is_given_up_issues_nothing_more_commits_nothing_more_and_gives_back_what_it_reserved() {
    let (world, owner) = world();
    let (mut patience, mut ended) = (0, 0);
    for first in (0..).step_by(64) {
        let bad = [3, 4, 20, 41].map(|block| first + block);
        let io = Io { patience, ..Io::new(HostOp::Write, first..first + 64, bad) };
        let before = owner.engine.status();
        let result = run(&world, &owner, &io);
        let after = owner.engine.status();
        let used = after.remapped - before.remapped;
        assert_eq!(before.spare.free - after.spare.free, used, "given up after {patience}");
        if io.count() < patience {
            assert_eq!((result, used), (Ok(()), 4));
            break;
        }
        assert!(io.count() == patience || patience == 0, "{} issued after {patience}", io.count());
        assert_eq!((result, used), (Err(IoStatus::Aborted), 0), "given up after {patience}");
        (patience, ended) = (patience + 1, ended + 1);
    }
    assert!(ended > 10, "{ended}");
    let read = Io { patience: 5, ..Io::new(HostOp::Read, 50_000..50_064, [50_001]) };
    assert_eq!(run(&world, &owner, &read), Err(IoStatus::Aborted));
    assert_eq!(owner.engine.status().pending, 0);
}

#[test]
fn zeroes_over_one_pending_block_of_a_gibibyte_go_in_bulk() {
    let (world, owner) = world();
    pending(&world, &owner, [100_000]);
    let io = Io::new(HostOp::WriteZeroes, 0..GIB, [100_000]);
    run(&world, &owner, &io).unwrap();
    assert_eq!(io.count(), 3, "the two good parts, and the block on the spare");
    assert_eq!(remapped(&owner.engine), [100_000].into());
}

#[test]
fn a_bad_block_of_a_gibibyte_is_found_by_halving() {
    let (world, owner) = world();
    let io = Io::new(HostOp::WriteZeroes, 1000..1000 + GIB, [123_456]);
    run(&world, &owner, &io).unwrap();
    assert_eq!(io.count(), 2 * 18 + 1, "halves, 18 times, and the block on the spare");
    assert!(!io.issued.borrow().contains(&(0, GIB, At::Base(lba(1000)))), "the whole has just failed");
    assert_eq!(remapped(&owner.engine), [123_456].into());
}

#[test]
fn a_write_of_256_blocks_with_a_bad_one_is_less_than_30_ios() {
    for at in [0, 1, 127, 128, 200, 255] {
        let (world, owner) = world();
        let io = Io::new(HostOp::Write, 0..256, [at]);
        run(&world, &owner, &io).unwrap();
        assert!(io.count() < 29, "{} for block {at}, and the one that failed", io.count());
        assert_eq!(remapped(&owner.engine), [at].into());
        assert_eq!(owner.engine.counters().snapshot().media_errors_write, 1);
    }
}

#[test]
fn a_read_of_256_blocks_makes_only_the_bad_one_pending() {
    let (world, owner) = world();
    let io = Io::new(HostOp::Read, 0..256, [77]);
    assert_eq!(run(&world, &owner, &io), Err(READ_ERROR));
    assert!(io.count() < 29, "{}", io.count());
    assert_eq!(mappings(&owner.engine), [(lba(77), Mapping::Pending)]);
    assert_eq!(io.done.borrow().len(), 255, "all others were read");
}

#[test]
fn a_bad_spare_block_under_a_run_is_found_by_halving() {
    let (world, owner) = world();
    relocate(&world, &owner, 0..256);
    let Place::Spare(index) = owner.engine.table().lookup(lba(99)) else { panic!() };
    let mut io = Io::new(HostOp::Write, 0..256, 0..256);
    io.bad_spare.insert(index.index());
    run(&world, &owner, &io).unwrap();
    assert!(io.count() < 29, "{}", io.count());
    let status = owner.engine.status();
    assert_eq!((status.remapped, status.spare.bad), (256, 1));
    assert!(io.issued.borrow().iter().all(|(_, _, at)| matches!(at, At::Spare(_))));
}

#[test]
fn a_bad_spare_block_under_fresh_reservations_is_found_by_halving() {
    let (world, owner) = world();
    let mut io = Io::new(HostOp::Write, 0..256, 0..256);
    io.bad_spare.insert(50);
    pending(&world, &owner, 0..256);
    run(&world, &owner, &io).unwrap();
    assert!(io.count() < 29, "{}", io.count());
    let status = owner.engine.status();
    assert_eq!((status.remapped, status.spare.bad), (256, 1));
}

#[test]
fn a_dead_region_is_relocated_in_batches() {
    let (world, owner) = world();
    let io = Io::new(HostOp::WriteZeroes, 0..GIB, 50_000..53_000);
    run(&world, &owner, &io).unwrap();
    assert_eq!(remapped(&owner.engine), (50_000..53_000).collect());
    assert!(owner.sizes.borrow().iter().all(|size| *size <= 1024), "{:?}", owner.sizes.borrow());
    assert_eq!(owner.sizes.borrow().len(), 6, "three times: reserve, and commit");
    assert_eq!(io.under_way.get().1, 8, "a few at a time");
}

#[test]
fn a_pending_region_is_relocated_in_batches() {
    let (world, owner) = world();
    pending(&world, &owner, 10..3010);
    let io = Io::new(HostOp::WriteZeroes, 0..GIB, 0..0);
    run(&world, &owner, &io).unwrap();
    assert_eq!(remapped(&owner.engine), (10..3010).collect());
    assert!(owner.sizes.borrow().iter().all(|size| *size <= 1024), "{:?}", owner.sizes.borrow());
    assert!(io.count() < 10, "{}", io.count());
}

#[test]
fn what_has_failed_for_good_is_not_gone_on_with() {
    let (world, owner) = world();
    let io = Io::new(HostOp::WriteZeroes, 0..GIB, 0..GIB);
    assert_eq!(run(&world, &owner, &io), Err(WRITE_FAULT));
    assert!(io.count() < 20_000, "{}: the storm brake came after 4096 blocks", io.count());
}

/// What is the matter with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matter {
    Nothing,
    Bad,
    Remapped,
    Pending,
    Lost,
}

fn matter() -> impl Strategy<Value = Matter> {
    use Matter::{Bad, Lost, Nothing, Pending, Remapped};
    prop_oneof![20 => Just(Nothing), 1 => Just(Bad), 1 => Just(Remapped), 1 => Just(Pending), 1 => Just(Lost)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_the_bad_blocks_are_moved(
        matters in prop::collection::vec(matter(), 1..300),
        op in prop::sample::select(vec![HostOp::Read, HostOp::Write, HostOp::WriteZeroes]),
        bad_spare in prop::collection::btree_set(0..200_u32, 0..6),
    ) {
        let (world, owner) = world();
        let first = 65_536 - 100;
        let which = |wanted: &[Matter]| -> BTreeSet<u64> {
            (first..).zip(&matters).filter(|(_, matter)| wanted.contains(matter)).map(|(lba, _)| lba).collect()
        };
        relocate(&world, &owner, which(&[Matter::Remapped, Matter::Lost]));
        lose(&world, &owner, &which(&[Matter::Lost]));
        pending(&world, &owner, which(&[Matter::Pending]));
        let bad = which(&[Matter::Bad, Matter::Pending]);
        let mut io = Io::new(op, first..first + matters.len() as u64, bad.iter().copied());
        io.bad_spare = bad_spare;
        let bad_below = |at: u64| {
            owner.engine.table().mapping(lba(at)).and_then(Mapping::spare).is_some_and(|index| io.bad_spare.contains(&index.index()))
        };
        let unreadable = !bad.is_empty() || !which(&[Matter::Lost]).is_empty()
            || which(&[Matter::Remapped]).into_iter().any(bad_below);
        let result = run(&world, &owner, &io);
        if op == HostOp::Read {
            prop_assert_eq!(result.is_err(), unreadable);
            prop_assert_eq!(remapped(&owner.engine), which(&[Matter::Remapped]));
            let status = owner.engine.status();
            prop_assert_eq!((status.pending, status.lost), (bad.len() as u64, which(&[Matter::Lost]).len() as u64));
        } else {
            prop_assert_eq!(result, Ok(()));
            let moved = which(&[Matter::Bad, Matter::Pending, Matter::Remapped, Matter::Lost]);
            prop_assert_eq!(remapped(&owner.engine), moved);
            for (offset, at) in (io.range.clone()).enumerate() {
                let now = match owner.engine.table().lookup(lba(at)) {
                    Place::Base(lba) => At::Base(lba),
                    Place::Spare(index) => At::Spare(index),
                    place => panic!("{place:?}"),
                };
                prop_assert_eq!(io.done.borrow().get(&(offset as u64)).copied(), Some(now));
            }
        }
        prop_assert!(io.under_way.get().1 <= 8);
        prop_assert_eq!(io.under_way.get().0, 0);
    }
}
