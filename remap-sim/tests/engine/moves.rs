//! Blocks that are relocated before they fail, and blocks that are given back to the base.

use std::cell::RefCell;

use remap_core::{AddReport, Job, JobKind, JobState, RemapOn, RemoveReport, Stopped};

use super::*;

/// Runs a job on the set to its end; what it reports.
pub(crate) fn run<R: 'static, F: Future<Output = Result<R, Stopped>> + 'static>(
    world: &World,
    host: &Vbdev,
    kind: JobKind,
    work: impl FnOnce(Rc<SimEngine>, Disk, Job) -> F + 'static,
) -> Result<R, Stopped> {
    let (engine, base) = (Rc::clone(&host.engine), world.base.clone());
    let report = Rc::new(RefCell::new(None));
    let told = Rc::clone(&report);
    let run = async move {
        let worker = Rc::clone(&engine);
        let job = engine.jobs().begin(kind, |job| async move {
            *told.borrow_mut() = Some(work(worker, base, job).await?);
            Ok(())
        });
        job?.join().await
    };
    world.executor.block_on(run).unwrap()?;
    Ok(report.take().unwrap())
}

fn add(world: &World, host: &Vbdev, range: Extent) -> Result<AddReport, Stopped> {
    let work =
        move |engine: Rc<SimEngine>, base, job| async move { engine.add(&base, range, RemapOn::Media, &job).await };
    run(world, host, JobKind::Add, work)
}

pub(crate) fn remove(world: &World, host: &Vbdev, range: Extent) -> Result<RemoveReport, Stopped> {
    let work =
        move |engine: Rc<SimEngine>, base, job| async move { engine.remove(&base, range, RemapOn::Media, &job).await };
    run(world, host, JobKind::Remove, work)
}

#[test]
fn blocks_are_relocated_with_their_data_and_those_that_cannot_be_read_become_pending() {
    let (world, host) = world();
    world.base.heal();
    world.write(&host, 5, filled_run(50, 5)).unwrap();
    world.write(&host, 11, filled_run(110, 9)).unwrap();
    world.bad_for_reads(12, 2);
    let report = add(&world, &host, Extent::new(lba(5), 15)).unwrap();
    assert_eq!(report, AddReport { added: 12, already: 1, pending: 2 });
    let expected: Vec<_> = [filled_run(50, 5), filled(1), filled(110)].concat();
    assert_eq!(world.read(&host, 5, 7), Ok(expected.clone()));
    assert_eq!(world.read(&host, 12, 1), Err(READ_ERROR));
    assert_eq!(host.engine.status().counters.log_pages, 2, "one commit for those that moved and for the pending");
    let again = world.after_kill();
    let host = again.open();
    assert_eq!((host.engine.status().remapped, host.engine.status().pending), (13, 2));
    assert_eq!(again.read(&host, 5, 7), Ok(expected));
}

#[test]
fn reads_that_a_reset_aborts_are_tried_again_and_no_block_becomes_pending() {
    let (world, host) = world();
    world.base.fail(Fault::new(Verb::Read, 300..302, IoStatus::Aborted).times(3));
    assert_eq!(add(&world, &host, Extent::new(lba(300), 5)), Ok(AddReport { added: 5, already: 0, pending: 0 }));
    // Not for ever, as hosts wait for these blocks.
    world.base.fail(Fault::new(Verb::Read, 400..401, IoStatus::Aborted));
    let failed = Error::BaseIo { what: "read", lba: lba(400), status: IoStatus::Aborted };
    assert_eq!(add(&world, &host, Extent::new(lba(400), 5)), Err(Stopped::Failed(failed)));
    assert_eq!((host.engine.status().remapped, host.engine.status().pending), (6, 0));
}

#[test]
fn a_flush_of_the_base_that_a_reset_aborts_is_tried_again_with_what_it_was_for() {
    let (world, host) = world();
    world.base.heal();
    world.base.fail(Fault::of_flush(IoStatus::Aborted).times(3));
    let before = world.base.writes();
    let report = remove(&world, &host, Extent::new(lba(0), 100)).unwrap();
    assert_eq!((report.removed, report.kept), (1, 0));
    assert_eq!(world.base.durable().block(10), filled(1));
    assert_eq!(world.base.writes() - before, 4, "written again each time");
}

#[test]
fn what_an_operator_names_is_no_storm_and_waits_while_there_is_one() {
    let world = World::new();
    let host = world.open_with(OpenParams { storm_limit: 4, ..params() }).unwrap();
    assert_eq!(add(&world, &host, Extent::new(lba(0), 64)).unwrap().added, 64);
    assert_eq!(host.engine.status().state, SetState::Online);
    world.bad_for_writes(100, 10);
    assert_eq!(world.write(&host, 100, filled_run(1, 10)), Err(WRITE_FAULT));
    assert_eq!(host.engine.status().state, SetState::Tripped);
    let refused = add(&world, &host, Extent::new(lba(200), 1));
    assert_eq!(refused, Err(Stopped::Failed(Error::Tripped)));
}

#[test]
fn a_full_spare_is_an_error_and_what_fits_is_relocated() {
    let world = World::new();
    let host = world.open();
    let free = host.engine.status().spare.free;
    assert!(add(&world, &host, Extent::new(lba(0), free - 3)).is_ok());
    assert_eq!(add(&world, &host, Extent::new(lba(1000), 4)), Err(Stopped::Failed(Error::NoSpare)));
    assert_eq!(host.engine.status().spare.free, 3, "nothing is left reserved");
    assert_eq!(add(&world, &host, Extent::new(lba(1000), 3)).unwrap().added, 3);
    let job = host.engine.jobs().status().remove(0);
    assert_eq!((job.kind, job.state, job.blocks_done), (JobKind::Add, JobState::Done, 3));
}

#[test]
fn blocks_go_back_to_a_base_that_holds_them_and_others_stay() {
    let (world, host) = world();
    world.write(&host, 10, filled_run(100, 30)).unwrap();
    assert_eq!(host.engine.status().remapped, 30);
    world.base.heal();
    // One that cannot be written, one that can and is not there afterwards, one that the spare has lost.
    world.bad_for_writes(15, 1);
    world.bad_for_reads(20, 1);
    let Place::Spare(lost) = host.engine.table().lookup(lba(25)) else { panic!() };
    let at = host.engine.layout().data(lost).0;
    world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    let report = remove(&world, &host, Extent::new(lba(0), BASE_BLOCKS)).unwrap();
    let kept = [15, 20, 25].map(|at| Extent::new(lba(at), 1)).to_vec();
    assert_eq!(report, RemoveReport { removed: 27, kept: 3, kept_extents: kept });
    assert_eq!(mappings(&host.engine).iter().map(|(lba, _)| lba.0).collect::<Vec<_>>(), [15, 20, 25]);
    world.spare.heal();
    assert_eq!(world.read(&host, 10, 30), Ok(filled_run(100, 30)));
    world.quiet();
    assert_eq!(host.engine.status().spare.free, 138 - 3, "their spare blocks are free");
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(again.read(&host, 10, 30), Ok(filled_run(100, 30)));
}

/// The base holds zeros there, as memory does that nothing was read into.
#[test]
fn a_block_that_the_spare_fails_stays_whatever_the_base_fails_before_it() {
    let (world, host) = world();
    world.write(&host, 10, filled_run(100, 30)).unwrap();
    world.base.heal();
    world.base.rot(|medium| medium.clear(30, 1));
    world.bad_for_writes(11, 2);
    let Place::Spare(at) = host.engine.table().lookup(lba(30)) else { panic!() };
    let at = host.engine.layout().data(at).0;
    world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    let report = remove(&world, &host, Extent::new(lba(0), BASE_BLOCKS)).unwrap();
    let kept = [Extent::new(lba(11), 2), Extent::new(lba(30), 1)];
    assert_eq!((report.removed, report.kept_extents), (27, kept.to_vec()));
    world.spare.heal();
    assert_eq!(world.read(&host, 10, 30), Ok(filled_run(100, 30)));
}

#[test]
fn a_base_that_cannot_be_flushed_keeps_nothing_back() {
    let (world, host) = world();
    world.base.heal();
    world.base.fail(Fault::of_flush(WRITE_FAULT));
    let failed = remove(&world, &host, Extent::new(lba(0), 100));
    assert!(matches!(failed, Err(Stopped::Failed(Error::BaseIo { what: "flush", .. }))), "{failed:?}");
    assert_eq!(mappings(&host.engine).len(), 1);
    assert_eq!(world.read(&host, 10, 1), Ok(filled(1)));
    assert_eq!(host.engine.jobs().status()[0].state, JobState::Failed);
}

#[test]
fn a_move_that_is_cancelled_ends_between_windows_and_leaves_nothing_locked() {
    let (world, host) = world();
    let (engine, base) = (Rc::clone(&host.engine), world.base.clone());
    let worker = Rc::clone(&engine);
    let range = Extent::new(lba(1000), 100_000);
    let begun = engine
        .jobs()
        .begin(JobKind::Add, |job| async move { worker.add(&base, range, RemapOn::Media, &job).await.map(drop) });
    begun.unwrap().cancel();
    world.quiet();
    assert_eq!(host.engine.jobs().status()[0].state, JobState::Cancelled);
    assert_eq!(world.write(&host, 1000, filled(4)), Ok(()));
    world.close(&host);
}

#[test]
fn a_spare_that_cannot_be_written_is_named_with_its_block() {
    let (world, host) = world();
    let start = host.engine.layout().data_start.0;
    world.spare.fail(Fault::new(Verb::Write, start..SPARE_BLOCKS, IoStatus::Other(-19)));
    let Err(Stopped::Failed(Error::Io { what: "write", lba, .. })) = add(&world, &host, Extent::new(lba(1000), 2))
    else {
        panic!("it cannot be relocated")
    };
    let Place::Spare(first) = host.engine.table().lookup(BaseLba(10)) else { panic!() };
    assert_eq!(lba, host.engine.layout().data(first.plus(1).unwrap()));
    assert_eq!(host.engine.table().lookup(BaseLba(1000)), Place::Base(BaseLba(1000)));
}
