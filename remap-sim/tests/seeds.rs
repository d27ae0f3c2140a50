//! Seeds of the simulation, the same in every run of the tests; `scripts/sim.sh` runs as many as one likes. Here and not in the library, so
//! that it is compiled but once.

#![allow(clippy::unwrap_used)]

use remap_sim::{Coverage, Plan, run, run_migrations, run_seed};

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
    use remap_core::mutation::{Mutation, activate};
    use remap_sim::{Plan, catch, catch_all, run, shrink};

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
        Mutation::EndNotNoted,
        Mutation::GivenUpCounts,
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
