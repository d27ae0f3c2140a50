//! Runs the simulation of the durability promise on all cores: see `scripts/sim.sh --help`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use remap_core::simulation::{Coverage, Outcome, Plan, run, shrink};

/// Runs that the search for the least plan may take.
const SHRINK_RUNS: u64 = 60_000;
/// Seeds within which each bug on purpose has to be caught.
#[cfg(feature = "mutations")]
const MUTATION_SEEDS: u64 = 5000;
/// Fewer seeds than this prove nothing about coverage.
const ENOUGH_SEEDS: u64 = 5_000;

struct Options {
    first: u64,
    seconds: u64,
    crashes: u64,
    seed: Option<u64>,
    /// Whether to run the bugs on purpose instead.
    #[cfg_attr(not(feature = "mutations"), allow(dead_code))]
    mutations: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { first: 0, seconds: 60, crashes: u64::MAX, seed: None, mutations: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if cfg!(feature = "mutations") && arg == "--mutations" {
            options.mutations = true;
            continue;
        }
        let value = args.next().and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{arg} needs a number"))?;
        match arg.as_str() {
            "--seconds" => options.seconds = value,
            "--crashes" => (options.crashes, options.seconds) = (value, u64::MAX),
            "--seed" => options.seed = Some(value),
            "--first" => options.first = value,
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    Ok(options)
}

/// A run whose panic is a failure like any other.
fn attempt(plan: &Plan) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(plan, false)))
        .unwrap_or_else(|_| Outcome { failure: Some("a panic".into()), ..Outcome::default() })
}

#[derive(Default)]
struct Totals {
    coverage: Coverage,
    survived: u64,
    failed: BTreeMap<u64, String>,
}

fn main() -> ExitCode {
    // The simulated engines complain all the time: their log is shown only to who asks for it.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    #[cfg(feature = "mutations")]
    if options.mutations {
        return mutations();
    }
    if let Some(seed) = options.seed {
        return replay(seed);
    }
    let begin = Instant::now();
    let end = begin.checked_add(Duration::from_secs(options.seconds));
    let (next, stop) = (AtomicU64::new(options.first), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = attempt(&Plan::new(seed));
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.coverage.merge(&outcome.coverage);
                    totals.survived += outcome.survived;
                    if let Some(failure) = outcome.failure {
                        totals.failed.insert(seed, failure);
                        stop.store(true, Ordering::Relaxed);
                    }
                    if totals.survived >= options.crashes {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (seconds, seeds) = (begin.elapsed().as_secs_f64(), next.into_inner() - options.first);
    for (kind, times) in totals.coverage.all() {
        println!("{times:>12}  {kind}");
    }
    println!("seeds {} to {}", options.first, options.first + seeds - 1);
    println!("{seeds} seeds in {seconds:.0} s on {threads} cores: {:.0} a second", seeds as f64 / seconds);
    println!("{} crashes survived: {:.0} a second", totals.survived, totals.survived as f64 / seconds);
    if let Some((seed, failure)) = totals.failed.first_key_value() {
        println!("seed {seed} FAILED: {failure}");
        return replay(*seed);
    }
    let missing = totals.coverage.missing();
    if !missing.is_empty() && seeds >= ENOUGH_SEEDS {
        println!("NEVER MET: {missing:?}");
        return ExitCode::FAILURE;
    }
    println!("nothing acknowledged was lost");
    ExitCode::SUCCESS
}

/// Shows that each bug on purpose is caught, and after how many seeds.
#[cfg(feature = "mutations")]
fn mutations() -> ExitCode {
    use remap_core::{mutation::Mutation, simulation::catch};
    let mut missed = false;
    for mutation in Mutation::ALL {
        match catch(mutation, MUTATION_SEEDS) {
            Some((seed, failure)) => println!("{mutation:?}: caught by seed {seed}: {failure}"),
            None => {
                missed = true;
                println!("{mutation:?}: NOT CAUGHT by {MUTATION_SEEDS} seeds");
            }
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs one seed, and if it fails, shows the least plan that still does, and what happens in it.
fn replay(seed: u64) -> ExitCode {
    let plan = Plan::new(seed);
    let outcome = attempt(&plan);
    let Some(failure) = outcome.failure else {
        println!("seed {seed}: {} crashes survived", outcome.survived);
        return ExitCode::SUCCESS;
    };
    println!("seed {seed} fails: {failure}");
    let least = catch_unwind(AssertUnwindSafe(|| shrink(&plan, SHRINK_RUNS))).unwrap_or(plan);
    println!("the least plan found that still fails, {} lives and operations:", least.size());
    println!("  schedule {:#x}, {:?}", least.schedule, least.config);
    for (index, life) in least.lives.iter().enumerate() {
        println!("  life {index}: verify {}, crash {:?}", life.verify, life.crash);
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
