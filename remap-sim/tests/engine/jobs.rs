//! The job scope: one job of a kind at a time, progress, cancel, join; and that nothing touches a device once its set is closed.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::{join, join3, select};
use remap_core::{Begun, Device, Events, Job, JobKind, JobOutcome, JobScope, JobState, Owner, Stopped};

use super::*;

const STEP: Duration = Duration::from_millis(10);
/// Extents of a job in these tests.
const EXTENTS: u64 = 4;

/// A scope, and what its jobs have done.
struct Scene {
    executor: Executor,
    events: Events<Threads>,
    scope: Rc<JobScope<Threads>>,
    done: Rc<RefCell<Vec<u64>>>,
    locked: Rc<Cell<bool>>,
}

impl Scene {
    fn new() -> Scene {
        let executor = Executor::new();
        let threads = Rc::new(Threads::in_order(&executor));
        let events = Events::new(&threads, "Remap0");
        let scope = Rc::new(JobScope::new(&threads, &events));
        Scene { executor, events, scope, done: Rc::default(), locked: Rc::default() }
    }

    /// A job that copies extents, each under a lock, and ends between them.
    fn begin(&self, kind: JobKind) -> Result<Begun, Error> {
        let (executor, done, locked) = (self.executor.clone(), Rc::clone(&self.done), Rc::clone(&self.locked));
        self.scope.begin(kind, |job| copy(job, executor, done, locked))
    }

    /// What becomes of it.
    fn outcome(&self, job: &Begun) -> JobOutcome {
        let job = job.clone();
        self.executor.block_on(async move { job.join().await }).unwrap()
    }

    fn state(&self) -> Vec<(JobKind, JobState)> {
        self.scope.status().iter().map(|job| (job.kind, job.state)).collect()
    }
}

async fn copy(job: Job, executor: Executor, done: Rc<RefCell<Vec<u64>>>, locked: Rc<Cell<bool>>) -> JobOutcome {
    job.set_total(EXTENTS * 8);
    for extent in 0..EXTENTS {
        job.go_on()?;
        assert!(!locked.replace(true), "one job has it");
        // Read, write, flush.
        for _ in 0..3 {
            executor.sleep(STEP).await;
        }
        done.borrow_mut().push(extent);
        assert!(locked.replace(false));
        job.advance(8);
        // It gives way to hosts, but not once it is cancelled.
        let pause = std::pin::pin!(executor.sleep(STEP));
        select(pause, std::pin::pin!(job.cancelled())).await;
    }
    Ok(())
}

#[test]
fn a_job_tells_how_far_it_is_and_all_who_wait_for_it_are_told_its_end() {
    let scene = Scene::new();
    let job = scene.begin(JobKind::Scrub).unwrap();
    scene.executor.run_for(STEP * 8);
    let status = scene.scope.status().remove(0);
    assert_eq!((status.state, status.blocks_done, status.blocks_total), (JobState::Running, 16, 32));
    assert_eq!((status.blocks_per_second, status.remaining_seconds), (200, Some(1)), "16 blocks in 80 ms");
    assert_eq!((status.started_at, status.ended_at), (1_700_000_000, None));
    let waiters = join3(async { job.join().await }, async { job.clone().join().await }, async {
        Begun::clone(&job).join().await
    });
    let done = [Ok(()), Ok(()), Ok(())];
    let told = futures_util::FutureExt::now_or_never(waiters);
    assert_eq!(told, None, "it still runs");
    let [one, two, three] = [job.clone(), job.clone(), job.clone()];
    let told = scene.executor.block_on(async move { join3(one.join(), two.join(), three.join()).await }).unwrap();
    assert_eq!([told.0, told.1, told.2], done);
    assert_eq!(scene.outcome(&job), Ok(()), "also afterwards");
    let status = scene.scope.status().remove(0);
    assert_eq!((status.state, status.blocks_done, status.ended_at), (JobState::Done, 32, Some(1_700_000_000)));
    assert_eq!((status.error, status.remaining_seconds), (None, None));
}

#[test]
fn a_second_job_of_a_kind_is_refused_and_two_that_go_over_all_of_the_set() {
    let scene = Scene::new();
    let first = scene.begin(JobKind::Migrate).unwrap();
    let beside = [JobKind::Import, JobKind::Add, JobKind::Remove].map(|kind| {
        let done = |_| std::future::ready(Ok(()));
        let job = scene.scope.begin(kind, done).unwrap();
        let refused = scene.scope.begin(kind, done).map(drop).unwrap_err();
        assert_eq!(refused, Error::JobRuns { wanted: kind.name(), running: kind.name() });
        job
    });
    for kind in [JobKind::Migrate, JobKind::Scrub] {
        let refused = scene.begin(kind).map(drop).unwrap_err();
        assert_eq!(refused, Error::JobRuns { wanted: kind.name(), running: "migrate" });
        assert!(refused.to_string().starts_with("migrate runs already"), "{refused}");
    }
    beside.iter().for_each(|job| assert_eq!(scene.outcome(job), Ok(())));
    assert_eq!(scene.outcome(&first), Ok(()));
    let next = scene.begin(JobKind::Scrub).unwrap();
    assert_eq!(scene.outcome(&next), Ok(()));
}

#[test]
fn the_last_outcome_of_each_kind_is_kept() {
    let scene = Scene::new();
    let failed = scene.scope.begin(JobKind::Add, |_| std::future::ready(Err(Error::CheckpointFailed.into()))).unwrap();
    assert_eq!(scene.outcome(&failed), Err(Stopped::Failed(Error::CheckpointFailed)));
    let scrub = scene.begin(JobKind::Scrub).unwrap();
    scene.scope.cancel(JobKind::Scrub).unwrap();
    assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Cancelling), (JobKind::Add, JobState::Failed)]);
    assert_eq!(scene.outcome(&scrub), Err(Stopped::Cancelled));
    assert_eq!(scene.state(), [(JobKind::Add, JobState::Failed), (JobKind::Scrub, JobState::Cancelled)]);
    assert_eq!(scene.scope.status()[0].error, Some(Error::CheckpointFailed.to_string()));
    let again = scene.scope.begin(JobKind::Add, |_| std::future::ready(Ok(()))).unwrap();
    assert_eq!(scene.outcome(&again), Ok(()));
    assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Cancelled), (JobKind::Add, JobState::Done)]);
}

#[test]
fn only_jobs_that_run_are_cancelled() {
    let scene = Scene::new();
    let none = Err(Error::NoJob { kind: "scrub" });
    assert_eq!(scene.scope.cancel(JobKind::Scrub), none);
    let job = scene.begin(JobKind::Migrate).unwrap();
    assert_eq!(scene.scope.cancel(JobKind::Scrub), none);
    assert_eq!(scene.outcome(&job), Ok(()));
    assert_eq!(scene.scope.cancel(JobKind::Migrate), Err(Error::NoJob { kind: "migrate" }));
}

#[test]
fn cancelling_twice_is_as_once() {
    let scene = Scene::new();
    let job = scene.begin(JobKind::Scrub).unwrap();
    scene.executor.run_for(STEP);
    for _ in 0..2 {
        assert_eq!(scene.scope.cancel(JobKind::Scrub), Ok(()));
        job.cancel();
        assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Cancelling)]);
    }
    assert_eq!(scene.outcome(&job), Err(Stopped::Cancelled));
    assert_eq!(*scene.done.borrow(), [0]);
    job.cancel();
    assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Cancelled)], "it has ended before");
}

/// Has something happen after each number of polls in the life of a job, until it comes too late.
fn at_every_await(act: impl Fn(&Scene, &Begun)) {
    let mut cancelled = 0;
    for polls in 0.. {
        let scene = Scene::new();
        let job = scene.begin(JobKind::Migrate).unwrap();
        scene.executor.run_to(polls);
        if !scene.scope.status().iter().any(|job| job.state == JobState::Running) {
            assert!(cancelled > 3 * EXTENTS, "it was cancelled in {cancelled} places");
            return;
        }
        act(&scene, &job);
        let outcome = scene.outcome(&job);
        let done = scene.done.borrow().clone();
        assert!(!scene.locked.get(), "nothing is left locked");
        assert_eq!(done, (0..done.len() as u64).collect::<Vec<_>>(), "what is begun is done");
        // In its last step it may come too late.
        assert_eq!(outcome, if done.len() as u64 == EXTENTS { Ok(()) } else { Err(Stopped::Cancelled) });
        cancelled += u64::from(outcome.is_err());
        let events = scene.events.clone();
        scene.executor.block_on(async move { events.close().await }).unwrap();
        assert_eq!(scene.executor.tasks(), 0);
    }
}

#[test]
fn a_job_that_is_cancelled_at_any_await_ends_between_two_extents() {
    at_every_await(|scene, job| {
        job.cancel();
        let before = scene.done.borrow().len();
        let _ = scene.outcome(job);
        assert!(scene.done.borrow().len() - before <= 1, "it ends soon");
        let next = scene.scope.begin(JobKind::Scrub, |_| std::future::ready(Ok(())));
        assert_eq!(next.map(|job| scene.outcome(&job)), Ok(Ok(())), "the next one may begin");
    });
}

#[test]
fn closing_at_any_await_of_a_job_ends_it_and_lets_none_begin() {
    at_every_await(|scene, _| {
        let scope = Rc::clone(&scene.scope);
        let refused = scene.executor.block_on(async move {
            let (other, third) = (Rc::clone(&scope), Rc::clone(&scope));
            let begin = async move { third.begin(JobKind::Add, |_| std::future::ready(Ok(()))).map(drop) };
            let (.., refused) = join3(scope.close(), other.close(), begin).await;
            refused
        });
        assert_eq!(refused, Some(Err(Error::Closed)));
        assert_eq!(scene.executor.tasks(), 0, "close waits for all");
    });
}

#[test]
fn a_job_runs_to_its_end_when_nobody_waits_for_it() {
    let scene = Scene::new();
    drop(scene.begin(JobKind::Scrub).unwrap());
    scene.executor.run();
    assert_eq!(scene.done.borrow().len() as u64, EXTENTS);
    assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Done)]);
}

#[test]
fn a_job_that_forgets_its_handle_is_waited_for_all_the_same() {
    let scene = Scene::new();
    let executor = scene.executor.clone();
    let deaf = |job: Job| {
        drop(job);
        async move {
            executor.sleep(STEP).await;
            Ok(())
        }
    };
    let job = scene.scope.begin(JobKind::Scrub, deaf).unwrap();
    let scope = Rc::clone(&scene.scope);
    scene.executor.block_on(async move { scope.close().await }).unwrap();
    assert_eq!(scene.executor.now(), STEP);
    assert_eq!(scene.outcome(&job), Ok(()), "all was done, whatever was asked of it");
}

#[test]
fn jobs_of_a_scope_that_is_forgotten_are_cancelled() {
    let scene = Scene::new();
    let job = scene.begin(JobKind::Scrub).unwrap();
    scene.executor.run_for(STEP);
    let Scene { executor, scope, done, .. } = scene;
    drop(scope);
    assert_eq!(executor.block_on(async move { job.join().await }), Some(Err(Stopped::Cancelled)));
    assert_eq!(*done.borrow(), [0]);
}

#[test]
fn who_waits_for_a_job_whose_thread_goes_is_told() {
    let scene = Scene::new();
    let job = scene.begin(JobKind::Scrub).unwrap();
    scene.executor.run_for(STEP);
    scene.executor.kill();
    assert_eq!(scene.outcome(&job), Err(Stopped::Cancelled));
    assert_eq!(scene.state(), [(JobKind::Scrub, JobState::Cancelled)]);
}

/// A job of a set that takes a second, or until it is cancelled.
fn begin_long(world: &World, host: &Vbdev) -> Begun {
    let executor = world.executor.clone();
    let long = |job: Job| async move {
        let pause = std::pin::pin!(executor.sleep(Duration::from_secs(1)));
        select(pause, std::pin::pin!(job.cancelled())).await;
        job.go_on()
    };
    host.engine.jobs().begin(JobKind::Scrub, long).unwrap()
}

#[test]
fn a_closed_engine_leaves_no_task_behind() {
    let (world, host) = world();
    let job = begin_long(&world, &host);
    // Spare blocks that are to be freed, parts of the table to be reclaimed, and commits that wait.
    let engine = Rc::clone(&host.engine);
    world.executor.spawn(async move { engine.clear(vec![lba(10)]).await.unwrap() });
    let engine = Rc::clone(&host.engine);
    world.executor.spawn(async move { engine.set_pending(vec![lba(7)]).await.unwrap() });
    world.close(&host);
    world.executor.run_for(Duration::ZERO);
    assert_eq!(world.executor.tasks(), 0);
    let engine = Rc::clone(&host.engine);
    let told = world.executor.block_on(async move { job.join().await });
    assert_eq!(told, Some(Err(Stopped::Cancelled)));
    assert_eq!(engine.status().spare.free, 138, "what was given back is free");
    assert_eq!(world.executor.block_on(async move { engine.save().await }), Some(Err(Error::Closed)));
    assert_eq!(mappings(&world.after_kill().open().engine), [(lba(7), Mapping::Pending)]);
}

#[test]
fn closing_twice_waits_twice_for_the_same_end() {
    let (world, host) = world();
    let [one, two] = [Rc::clone(&host.engine), Rc::clone(&host.engine)];
    world.executor.block_on(async move { join(one.close(), two.close()).await }).unwrap();
    world.executor.run_for(Duration::ZERO);
    assert_eq!(world.executor.tasks(), 0);
}

#[test]
fn what_waits_behind_a_close_is_refused() {
    let (world, host) = world();
    let (engine, closing) = (Rc::clone(&host.engine), Rc::clone(&host.engine));
    let answers = world.executor.block_on(async move {
        let late = async { (engine.set_pending(vec![lba(7)]).await, engine.save().await) };
        join(closing.close(), late).await.1
    });
    assert_eq!(answers, Some((Err(remap_core::Refused::Closed), Err(Error::Closed))));
}

#[test]
fn a_refused_wipe_leaves_jobs_alone_and_a_wipe_ends_them() {
    let (world, host) = world();
    let job = begin_long(&world, &host);
    let wipe = |force| {
        let engine = Rc::clone(&host.engine);
        world.executor.block_on(async move { engine.wipe(force).await }).unwrap()
    };
    assert_eq!(wipe(false), Err(Error::StillRemapped { blocks: 1 }));
    assert_eq!(host.engine.status().jobs[0].state, JobState::Running);
    assert_eq!(wipe(true), Ok(()));
    assert_eq!(world.executor.block_on(async move { job.join().await }), Some(Err(Stopped::Cancelled)));
    assert_eq!(host.engine.jobs().begin(JobKind::Add, |_| std::future::ready(Ok(()))).map(drop), Err(Error::Closed));
}

#[test]
fn status_shows_jobs_once_there_are_any() {
    let (world, host) = world();
    let shown = || serde_json::to_value(host.engine.status()).unwrap();
    assert_eq!(shown().get("jobs"), None);
    let scrub = begin_long(&world, &host);
    let job = &shown()["jobs"][0];
    assert_eq!((&job["kind"], &job["state"]), (&"scrub".into(), &"running".into()));
    assert_eq!(job.get("error"), None);
    let full = Error::NoMemory { blocks: 8 };
    let why = full.to_string();
    let add = host.engine.jobs().begin(JobKind::Add, |_| std::future::ready(Err(full.into()))).unwrap();
    let ended = async move { join(scrub.join(), add.join()).await };
    assert!(world.executor.block_on(ended).is_some());
    let jobs = &shown()["jobs"];
    let told = |job: usize| (&jobs[job]["kind"], &jobs[job]["state"], jobs[job].get("error"));
    assert_eq!(told(0), (&"add".into(), &"failed".into(), Some(&why.into())));
    assert_eq!(told(1), (&"scrub".into(), &"done".into(), None));
}

/// A job that reads the base, block by block.
fn begin_reading(world: &World, host: &Vbdev) -> Begun {
    let base = world.base.clone();
    let scrub = |job: Job| async move {
        for block in 0.. {
            job.go_on()?;
            base.read(block, vec![0; BLOCK as usize]).await.1.unwrap();
            job.advance(1);
        }
        Ok(())
    };
    host.engine.jobs().begin(JobKind::Scrub, scrub).unwrap()
}

/// Closes at second 1, while a device hangs until second 60, and checks that this waits for it, and that nothing comes later.
fn close_while_a_device_hangs(world: &World, host: &Vbdev) {
    let second = |second| Duration::from_secs(second) - world.executor.now();
    world.executor.run_for(second(1));
    let closed = Rc::new(Cell::new(false));
    let (engine, told) = (Rc::clone(&host.engine), Rc::clone(&closed));
    world.executor.spawn(async move {
        engine.close().await;
        told.set(true);
    });
    world.executor.run_for(second(59));
    assert!(!closed.get(), "what the device has can still come true");
    while !closed.get() {
        world.executor.run_for(Duration::from_micros(1));
    }
    assert!(world.executor.now() < Duration::from_secs(61));
    let at_work = || (world.base.under_way(), world.spare.under_way(), world.base.commands(), world.spare.commands());
    let at_the_end = at_work();
    assert_eq!((&at_the_end.0, &at_the_end.1), (&vec![], &vec![]), "nothing is under way");
    world.executor.run_for(Duration::from_secs(600));
    assert_eq!(at_work(), at_the_end, "nothing comes later");
    assert_eq!(world.executor.tasks(), 0);
}

#[test]
fn closing_waits_for_a_job_that_waits_for_a_hung_device() {
    let (world, host) = world();
    let job = begin_reading(&world, &host);
    world.base.hang_until(Duration::from_secs(60));
    world.executor.run_for(STEP);
    assert_eq!(world.base.under_way().len(), 1);
    close_while_a_device_hangs(&world, &host);
    assert_eq!(world.executor.block_on(async move { job.join().await }), Some(Err(Stopped::Cancelled)));
    assert_eq!(host.engine.status().jobs[0].blocks_done, 1, "what had begun is done, and no more");
}

#[test]
fn closing_waits_for_what_hangs_in_the_spare() {
    let (world, host) = world();
    world.spare.hang_until(Duration::from_secs(60));
    let engine = Rc::clone(&host.engine);
    world.executor.spawn(async move {
        let _ = engine.set_pending(vec![lba(7)]).await;
    });
    close_while_a_device_hangs(&world, &host);
    world.after_kill().open();
}
