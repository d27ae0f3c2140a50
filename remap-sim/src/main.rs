//! Runs the simulation of the durability promise on all cores: see `scripts/sim.sh --help`.

mod campaign;
mod mutants;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use remap_sim::{Outcome, Plan, run, run_migrations, shrink};

use crate::campaign::{Campaign, End};

/// Runs that the search for the least plan may take.
const SHRINK_RUNS: u64 = 60_000;

/// Simulates the durability promise of bdev_remap: the code of production on simulated disks that fail, lie, rot, and lose power.
///
/// Runs one seed after the other on all cores, and prints how often each kind of fault and of crash point was met. Fails if
/// anything acknowledged was lost, and shows the shortest trace found that still fails; or if after 20,000 seeds some kind was
/// never met. SIGINT ends it with the figures so far.
///
/// RUST_LOG=info shows what the engine logs, best with --seed.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Options {
    /// Run for so long
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "crashes")]
    seconds: u64,
    /// Run until so many crashes were survived
    #[arg(long, value_name = "N")]
    crashes: Option<u64>,
    /// Run only this seed; if it fails, show its shortest trace
    #[arg(long, value_name = "S", conflicts_with_all = ["seconds", "crashes", "first"])]
    seed: Option<u64>,
    /// Begin with this seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    first: u64,
    /// Run on so many threads, not on all cores
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Damage one copy of the metadata after a random history, and load it, so often
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "crashes"])]
    damage: Option<u64>,
    /// With --damage: both copies
    #[arg(long, requires = "damage")]
    both: bool,
    /// Run migrations with crashes in them instead; what survived is counted only where it was inside of one
    #[arg(long, conflicts_with = "damage")]
    migrate: bool,
    /// Show instead that each bug on purpose is found, as a table (needs the feature `mutations`)
    #[arg(long, conflicts_with_all = ["seconds", "crashes", "seed", "first", "damage"])]
    mutations: bool,
    /// With --mutations: only those with this in their name
    #[arg(long, value_name = "NAME", requires = "mutations")]
    only: Option<String>,
    /// With --seed: with this bug on purpose (needs the feature `mutations`)
    #[arg(long, value_name = "NAME", requires = "seed")]
    bug: Option<String>,
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        if self.damage.is_some() { Plan::with_damage(seed, self.both) } else { Plan::new(seed) }
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }
}

/// A run whose panic is a failure like any other.
fn attempt(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Outcome { failure: Some("a panic".into()), ..Outcome::default() })
}

fn main() -> ExitCode {
    // The simulated engines complain all the time: their log is shown only to who asks for it.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let options = Options::parse();
    if options.mutations {
        return mutants::show(options.threads(), options.only.as_deref().unwrap_or_default());
    }
    if let Some(bug) = &options.bug
        && let Err(code) = mutants::activate(bug)
    {
        return code;
    }
    let replay = |seed| if options.migrate { replay_migrations(seed) } else { replay(&options.plan(seed)) };
    if let Some(seed) = options.seed {
        return replay(seed);
    }
    let end = match (options.damage, options.crashes) {
        (Some(rounds), _) => End::Seeds(rounds),
        (None, Some(crashes)) => End::Crashes(crashes),
        (None, None) => End::After(Duration::from_secs(options.seconds)),
    };
    let all_kinds = options.damage.is_none() && !options.migrate;
    let campaign = Campaign { first: options.first, end, threads: options.threads(), all_kinds };
    let one = |seed| match options.migrate {
        true => attempt(|| run_migrations(seed, false)),
        false => attempt(|| run(&options.plan(seed), false)),
    };
    match campaign.run(&one) {
        Ok(code) => code,
        Err(seed) => {
            println!("seed {seed}:");
            replay(seed)
        }
    }
}

/// Runs one plan, and if it fails, shows the least one that still does, and what happens in it.
fn replay(plan: &Plan) -> ExitCode {
    let outcome = attempt(|| run(plan, false));
    let Some(failure) = outcome.failure else {
        println!("{} crashes survived", outcome.survived);
        return ExitCode::SUCCESS;
    };
    println!("it fails: {failure}");
    let least = catch_unwind(AssertUnwindSafe(|| shrink(plan, SHRINK_RUNS))).unwrap_or_else(|_| plan.clone());
    println!("the least plan found that still fails, {} lives and operations:", least.size());
    println!("  schedule {:#x}, {:?}", least.schedule, least.config);
    for (index, life) in least.lives.iter().enumerate() {
        let (damage, verify, close) = (&life.damage, life.verify, life.close);
        println!("  life {index}: damage {damage:?}, verify {verify}, close {close}, crash {:?}", life.crash);
        for op in &life.ops {
            println!("    host {} after {} us: {:?}", op.host, op.wait, op.what);
        }
    }
    println!("what happens:");
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&least, true))).unwrap_or_default();
    for line in outcome.trace {
        println!("  {line}");
    }
    ExitCode::FAILURE
}

/// Runs migrations, and if they fail, shows what happens in them.
fn replay_migrations(seed: u64) -> ExitCode {
    let outcome = attempt(|| run_migrations(seed, true));
    outcome.trace.iter().for_each(|line| println!("  {line}"));
    match outcome.failure {
        Some(failure) => {
            println!("it fails: {failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("{} crashes inside of migrations survived", outcome.survived);
            ExitCode::SUCCESS
        }
    }
}
