//! Seeds of the simulation, the same in every run of the tests; `scripts/sim.sh` runs as many as one likes. And the model,
//! which has to know what a disk may do.

use super::model::{Model, ZEROS};
use super::{Coverage, Plan, run, run_migrations, run_seed};

/// What a read of block 0 may return now, out of `values`.
fn possible(model: &mut Model, values: std::ops::Range<u64>) -> Vec<u64> {
    let begun = model.now();
    // A read narrows what may be read next, so each is tried on a model of its own.
    values.filter(|value| model.clone().read(0, begun, *value).is_ok()).collect()
}

#[test]
fn only_the_last_of_two_acknowledged_writes_may_be_read() {
    let mut model = Model::new(1, false);
    for value in 1..3 {
        let write = model.begin_write(0, 1, value);
        model.acknowledge(&write, &[]);
    }
    assert_eq!(possible(&mut model, 0..3), [2]);
}

#[test]
fn of_writes_that_overlap_any_may_be_read_until_one_was() {
    let mut model = Model::new(1, false);
    let (one, two) = (model.begin_write(0, 1, 1), model.begin_write(0, 1, 2));
    assert_eq!(possible(&mut model, 0..3), [ZEROS, 1, 2]);
    model.acknowledge(&one, &[]);
    model.acknowledge(&two, &[]);
    assert_eq!(possible(&mut model, 0..3), [1, 2]);
    let begun = model.now();
    model.read(0, begun, 1).unwrap();
    assert_eq!(possible(&mut model, 0..3), [1]);
}

#[test]
fn a_power_cut_takes_what_was_not_flushed_and_nothing_else() {
    let mut model = Model::new(1, false);
    let write = |model: &mut Model, value, relocated: &[u64]| {
        let write = model.begin_write(0, 1, value);
        model.acknowledge(&write, relocated);
    };
    write(&mut model, 1, &[]);
    let flush = model.now();
    write(&mut model, 2, &[]);
    model.flushed(flush);
    let mut cut = model.clone();
    cut.kill();
    assert_eq!(possible(&mut cut, 0..4), [2], "a kill takes nothing");
    cut.power_cut();
    assert_eq!(possible(&mut cut, 0..4), [1, 2], "2 came while the flush was under way");
    write(&mut model, 3, &[0]);
    model.power_cut();
    assert_eq!(possible(&mut model, 0..4), [3], "a relocation is durable");
}

#[test]
fn what_a_read_saw_before_its_device_lost_its_power_may_be_gone() {
    let mut model = Model::new(1, false);
    let write = model.begin_write(0, 1, 1);
    let begun = model.begin_read();
    model.acknowledge(&write, &[]);
    model.device_lost_power();
    model.read(0, begun, 1).unwrap();
    model.end_read(begun);
    assert_eq!(possible(&mut model, 0..2), [ZEROS, 1]);
    let begun = model.now();
    model.read(0, begun, 1).unwrap();
    assert_eq!(possible(&mut model, 0..2), [1], "it was read after that");
}

#[test]
fn a_failed_write_may_be_there_or_not() {
    let mut model = Model::new(1, false);
    let failed = model.begin_write(0, 1, 1);
    model.fail(&failed, false);
    assert_eq!(possible(&mut model, 0..2), [ZEROS, 1]);
    let begun = model.now();
    model.read(0, begun, ZEROS).unwrap();
    assert_eq!(possible(&mut model, 0..2), [ZEROS], "it was not");
    let doubtful = model.begin_write(0, 1, 2);
    model.fail(&doubtful, true);
    let begun = model.now();
    model.read(0, begun, ZEROS).unwrap();
    model.kill();
    assert_eq!(possible(&mut model, 0..3), [ZEROS, 2], "the log may speak of it");
}

fn run_all(seeds: std::ops::Range<u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let outcome = run_seed(seed);
        assert_eq!(outcome.failure, None, "seed {seed}: see scripts/sim.sh --seed {seed}");
        coverage.merge(&outcome.coverage);
    }
    coverage
}

#[test]
fn nothing_acknowledged_is_ever_lost() {
    let coverage = run_all(0..300);
    assert!(coverage.missing().len() < 6, "hardly anything was met: {:?} was not", coverage.missing());
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let plan = Plan::new(seed);
        assert_eq!(run(&plan, true).trace, run(&plan, true).trace, "seed {seed}");
    }
}

#[test]
fn damage_of_one_copy_loses_nothing() {
    for seed in 0..300 {
        let outcome = run(&Plan::with_damage(seed, false), false);
        assert_eq!(outcome.failure, None, "seed {seed}: see scripts/sim.sh --damage 1 --seed {seed}");
    }
}

#[test]
fn damage_of_both_copies_is_refused_or_does_no_harm() {
    for seed in 0..200 {
        let outcome = run(&Plan::with_damage(seed, true), false);
        assert_eq!(outcome.failure, None, "seed {seed}: see scripts/sim.sh --damage 1 --both --seed {seed}");
    }
}

#[test]
fn after_a_crash_in_a_migration_one_spare_is_in_force_and_has_everything() {
    let mut survived = 0;
    for seed in 0..60 {
        let outcome = run_migrations(seed, false);
        assert_eq!(outcome.failure, None, "seed {seed}: see scripts/sim.sh --migrate --seed {seed}");
        survived += outcome.survived;
    }
    assert!(survived > 100, "{survived} crashes were inside of one");
    assert_eq!(run_migrations(7, true).trace, run_migrations(7, true).trace, "a seed replays exactly");
}

#[cfg(feature = "mutations")]
mod mutations {
    use super::super::{Plan, catch, catch_all, run, shrink};
    use remap_core::mutation::{Mutation, activate};

    /// Seeds in which a bug is looked for here: enough for nearly all, in minutes.
    const SEEDS: u64 = 4000;

    /// Those that may take more seeds than these; `scripts/sim.sh --mutations` looks for them, too. For what it cannot find either, or
    /// seldom does, the engine has tests, in its modules `mutations`.
    const RARE: &[Mutation] = &[
        Mutation::GoOnInTheSameEpoch,
        Mutation::ScrubWithoutLock,
        Mutation::SkipFlushBeforeRecord,
        Mutation::CompleteWithFirstPage,
        Mutation::BadReservationReleased,
        Mutation::ChangedWhileCopied,
        Mutation::FreedSpareNotDrained,
        Mutation::GrownOverLateWrites,
    ];

    #[test]
    fn every_bug_on_purpose_that_is_not_rare_is_found() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut missed = Vec::new();
        let common: Vec<_> = Mutation::ALL.iter().copied().filter(|mutation| !RARE.contains(mutation)).collect();
        catch_all(threads, &common, SEEDS, |mutation, caught| {
            println!("{mutation:?}: {caught:?}");
            if caught.is_none() {
                missed.push(mutation);
            }
        });
        assert_eq!(missed, [], "not found");
    }

    #[test]
    fn a_failing_seed_becomes_a_short_one_that_still_fails() {
        let (seed, _) = catch(Mutation::CompleteBeforeCommit, 5000).unwrap();
        activate(Some(Mutation::CompleteBeforeCommit));
        let plan = Plan::new(seed);
        let least = shrink(&plan, 4000);
        assert!(run(&least, false).failure.is_some());
        assert!(least.size() * 4 < plan.size(), "{} of {}", least.size(), plan.size());
        activate(None);
    }
}
