//! What the engine tells of what happens to the set: what, how often, and when.

use std::slice::from_ref;
use std::time::Duration;

use remap_core::{Job, JobKind, Stopped, What};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What was told so far of some kinds: count, and what.
fn told(host: &Vbdev, kinds: &[&str]) -> Vec<(u64, What)> {
    let told = host.threads.told().into_iter().map(|(_, event)| event);
    told.filter(|event| kinds.contains(&event.what.name())).map(|event| (event.count, event.what)).collect()
}

fn remapped(lowest: u64, total: u64, free: u64) -> What {
    What::Remapped { lowest: lba(lowest), total, free }
}

/// Runs a job that ends like that.
fn job(world: &World, host: &Vbdev, kind: JobKind, end: Result<(), Stopped>) {
    let engine = Rc::clone(&host.engine);
    let run = async move {
        let work = |job: Job| async move {
            job.advance(7);
            end
        };
        engine.jobs().begin(kind, work)?.join().await.map_err(|_| Error::Closed)
    };
    let _ = world.executor.block_on(run).unwrap();
}

#[test]
fn blocks_that_are_remapped_are_told_at_once_and_then_once_a_second_with_their_number() {
    let (world, host) = world();
    let free = host.engine.status().spare.free;
    assert_eq!(told(&host, &What::NAMES), [(1, remapped(10, 1, free))]);
    for at in [13, 11, 12] {
        world.write(&host, at, filled(at)).unwrap();
    }
    assert_eq!(told(&host, &What::NAMES).len(), 1, "not so soon");
    world.executor.run_for(SECOND);
    assert_eq!(told(&host, &What::NAMES)[1..], [(3, remapped(11, 4, free - 3))]);
    world.write(&host, 14, filled_run(14, 5)).unwrap();
    world.quiet();
    assert_eq!(told(&host, &What::NAMES)[2..], [(5, remapped(14, 9, free - 8))]);
    // Written again where they are: nothing happens.
    world.write(&host, 10, filled_run(14, 5)).unwrap();
    world.quiet();
    assert_eq!(told(&host, &What::NAMES).len(), 3);
}

#[test]
fn under_load_no_kind_is_told_twice_within_a_second_and_the_counts_are_complete() {
    let world = World::new();
    world.bad_for_writes(0, 200);
    world.bad_for_reads(200, 200);
    let host = world.open();
    // No more become pending on such a spare.
    let blocks = 64;
    for at in 0..blocks {
        world.write(&host, at, filled(at)).unwrap();
        assert_eq!(world.read(&host, 200 + at, 1), Err(READ_ERROR));
        world.executor.run_for(Duration::from_millis(57));
    }
    world.quiet();
    for kind in ["remapped", "pending"] {
        let events: Vec<_> = host.threads.told().into_iter().filter(|(_, event)| event.what.name() == kind).collect();
        assert_eq!(events.iter().map(|(_, event)| event.count).sum::<u64>(), blocks, "{kind}");
        assert!((4..=6).contains(&events.len()), "{kind}: {} events in 4 s", events.len());
        assert!(events.windows(2).all(|pair| pair[1].0 - pair[0].0 >= SECOND), "{kind}");
    }
}

#[test]
fn the_end_of_a_set_tells_what_still_waits() {
    let (world, host) = world();
    world.write(&host, 11, filled(11)).unwrap();
    assert_eq!(told(&host, &["remapped"]).len(), 1);
    let before = world.executor.now();
    world.close(&host);
    assert_eq!(told(&host, &["remapped"]).len(), 2);
    assert!(world.executor.now() - before < SECOND, "nobody waits for that");
}

#[test]
fn blocks_that_become_pending_or_go_back_to_the_base_are_told() {
    let (world, host) = world();
    world.bad_for_reads(500, 3);
    assert_eq!(world.read(&host, 498, 8), Err(READ_ERROR));
    assert_eq!(told(&host, &["pending"]), [(3, What::Pending { lowest: lba(500), total: 3 })]);
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.clear(vec![lba(10)]).await }).unwrap().unwrap();
    assert_eq!(told(&host, &["cleared"]), [(1, What::Cleared { lowest: lba(10) })]);
}

#[test]
fn bad_spare_blocks_are_told_also_those_that_held_nothing() {
    let (world, host) = world();
    let data = host.engine.layout().data_start.0;
    // That of block 10, and the one that block 11 would get.
    world.spare.fail(Fault::new(Verb::Write, data..data + 2, WRITE_FAULT));
    world.write(&host, 10, filled(2)).unwrap();
    world.write(&host, 11, filled(3)).unwrap();
    world.quiet();
    let bad = told(&host, &["spare_bad"]);
    assert_eq!(bad.iter().map(|(count, _)| count).sum::<u64>(), 2);
    assert_eq!(bad.last().unwrap().1, What::SpareBad { total: 2 });
    assert_eq!(host.engine.status().spare.bad, 2);
}

#[test]
fn a_spare_of_which_a_tenth_is_left_is_told_once_and_so_is_one_that_is_full() {
    let world = World::new();
    world.bad_for_writes(0, 300);
    let host = world.open();
    let total = host.engine.status().spare.total;
    let little = total / 10;
    world.write(&host, 0, filled_run(0, total - little - 1)).unwrap();
    assert_eq!(told(&host, &["spare_low"]), []);
    world.write(&host, 200, filled(1)).unwrap();
    let first = (1, What::SpareLow { free: little, total });
    assert_eq!(told(&host, &["spare_low"]), from_ref(&first));
    world.quiet();
    for at in 0..little {
        world.write(&host, 201 + at, filled(1)).unwrap();
    }
    assert_eq!(told(&host, &["spare_low"]), [first, (1, What::SpareLow { free: 0, total })]);
    assert_eq!(world.write(&host, 299, filled(1)), Err(WRITE_FAULT));
    world.quiet();
    assert_eq!(told(&host, &["spare_low"]).len(), 2);
    // Whoever opens it is told.
    world.close(&host);
    let again = world.after_kill().open();
    assert_eq!(told(&again, &["spare_low"]), [(1, What::SpareLow { free: 0, total })]);
}

#[test]
fn a_storm_is_told_when_it_begins() {
    let world = World::new();
    world.bad_for_writes(0, 100);
    let host = world.open_with(OpenParams { storm_limit: 4, ..params() }).unwrap();
    for at in 0..10 {
        assert_eq!(world.write(&host, at, filled(at)).is_ok(), at < 4);
    }
    world.quiet();
    assert_eq!(told(&host, &["tripped"]), [(1, What::Tripped { limit: 4 })]);
    host.engine.rearm();
    assert_eq!(world.write(&host, 20, filled_run(20, 5)), Err(WRITE_FAULT));
    assert_eq!(told(&host, &["tripped"]).len(), 2);
}

#[test]
fn copies_that_go_bad_are_told_and_that_they_are_whole_again() {
    let (world, host) = world();
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    world.write(&host, 11, filled(2)).unwrap();
    let log_a = (1, What::Degraded { bad: "log_a".into() });
    assert_eq!(told(&host, &["degraded", "healed"]), from_ref(&log_a));
    world.quiet();
    assert_eq!(told(&host, &["degraded", "healed"]), from_ref(&log_a), "they are tried again, and nothing is new");
    // The other one, too.
    world.spare.fail(log_fault(&host, Copy::B, Verb::Write));
    assert_eq!(world.write(&host, 12, filled(2)), Err(WRITE_FAULT));
    let both = (1, What::Degraded { bad: "log_a,log_b".into() });
    assert_eq!(told(&host, &["degraded", "healed"]), [log_a.clone(), both.clone()]);
    world.spare.heal();
    world.executor.run_for(SECOND * 61);
    assert_eq!(told(&host, &["degraded", "healed"]), [log_a, both, (1, What::Healed)]);
    assert_eq!(host.engine.status().state, SetState::Online);
}

#[test]
fn copies_that_are_found_bad_are_told_and_a_process_that_died_is_no_damage() {
    let (world, host) = world();
    let again = world.after_kill();
    assert_eq!(told(&again.open(), &["degraded", "healed"]), []);
    let mut medium = world.spare.contents();
    medium.clear(host.engine.layout().log_page(Copy::B, Area::Zero, 1).0, 1);
    let again = world.after_crash(medium).open();
    assert_eq!(told(&again, &["degraded", "healed"]), [(1, What::Degraded { bad: "log_b".into() }), (1, What::Healed)]);
}

/// Its new place is not known to be in the log, and its old one is bad.
#[test]
fn a_block_that_is_lost_while_its_commit_is_in_doubt_is_told() {
    let (world, host) = world();
    let data = host.engine.layout().data_start.0;
    world.spare.fail(Fault::new(Verb::Write, data..data + 1, WRITE_FAULT));
    log_cannot_be_written(&world, &host, Effect::Some);
    assert_eq!(world.write(&host, 10, filled(2)), Err(WRITE_FAULT));
    assert_eq!(host.engine.status().lost, 1);
    assert_eq!(told(&host, &["lost"]), [(1, What::Lost { lowest: lba(10), total: 1 })]);
}

#[test]
fn how_jobs_end_is_told_unless_somebody_wanted_it() {
    let world = World::new();
    let host = world.open();
    job(&world, &host, JobKind::Add, Ok(()));
    job(&world, &host, JobKind::Scrub, Err(Stopped::Failed(Error::NoSpare)));
    job(&world, &host, JobKind::Remove, Err(Stopped::Cancelled));
    let error = Error::NoSpare.to_string();
    let expected = [
        (1, What::JobDone { job: JobKind::Add, blocks: 7 }),
        (1, What::JobFailed { job: JobKind::Scrub, blocks: 7, error }),
    ];
    assert_eq!(told(&host, &What::NAMES), expected);
    // Two within the second: how many, and the last one.
    job(&world, &host, JobKind::Add, Ok(()));
    job(&world, &host, JobKind::Import, Ok(()));
    world.quiet();
    assert_eq!(told(&host, &What::NAMES)[2..], [(2, What::JobDone { job: JobKind::Import, blocks: 7 })]);
}
