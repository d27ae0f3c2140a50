//! Many seeds, on several threads, and what came of them.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use remap_sim::{Coverage, Outcome};

/// Fewer seeds than this prove nothing about coverage.
const ENOUGH_SEEDS: u64 = 20_000;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// When it is over.
pub(crate) enum End {
    After(Duration),
    Crashes(u64),
    Seeds(u64),
}

/// What is run.
pub(crate) struct Campaign {
    pub(crate) first: u64,
    pub(crate) end: End,
    pub(crate) threads: usize,
    /// Whether every kind has to be met.
    pub(crate) all_kinds: bool,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    coverage: Coverage,
    survived: u64,
    failed: BTreeMap<u64, String>,
}

impl Campaign {
    /// Runs it, and prints the figures; or the seed that failed.
    pub(crate) fn run(&self, attempt: &(impl Fn(u64) -> Outcome + Sync)) -> Result<ExitCode, u64> {
        let begin = Instant::now();
        let (next, stop) = (AtomicU64::new(self.first), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        // Where there is no handler, SIGINT ends the program without figures.
        let _ = ctrlc::set_handler(move || stopped.store(true, Ordering::Relaxed));
        let totals = Mutex::new(Totals::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if self.is_over(begin, seed) {
                            break;
                        }
                        let outcome = attempt(seed);
                        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                        totals.seeds += 1;
                        totals.coverage.merge(&outcome.coverage);
                        totals.survived += outcome.survived;
                        if let Some(failure) = outcome.failure {
                            totals.failed.insert(seed, failure);
                            stop.store(true, Ordering::Relaxed);
                        }
                        if matches!(self.end, End::Crashes(crashes) if totals.survived >= crashes) {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            while std::io::stdout().is_terminal() && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(PROGRESS);
                let totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                print!("\r{} seeds, {} crashes survived ", totals.seeds, totals.survived);
                let _ = std::io::stdout().flush();
                if self.is_over(begin, self.first + totals.seeds) {
                    break;
                }
            }
        });
        let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.report(&totals, begin.elapsed())
    }

    fn is_over(&self, begin: Instant, seed: u64) -> bool {
        match self.end {
            End::After(time) => begin.elapsed() >= time,
            End::Seeds(seeds) => seed >= self.first + seeds,
            End::Crashes(_) => false,
        }
    }

    fn report(&self, totals: &Totals, elapsed: Duration) -> Result<ExitCode, u64> {
        let (seconds, seeds) = (elapsed.as_secs_f64(), totals.seeds);
        println!();
        for (kind, times) in totals.coverage.all() {
            if times > 0 || self.all_kinds {
                println!("{times:>12}  {kind}");
            }
        }
        println!("{seeds} seeds from {} on", self.first);
        println!("{seconds:.0} s on {} threads: {:.0} seeds a second", self.threads, seeds as f64 / seconds);
        println!("{} crashes survived: {:.0} a second", totals.survived, totals.survived as f64 / seconds);
        if let Some((seed, failure)) = totals.failed.first_key_value() {
            println!("seed {seed} FAILED: {failure}");
            return Err(*seed);
        }
        let missing = totals.coverage.missing();
        if self.all_kinds && !missing.is_empty() && seeds >= ENOUGH_SEEDS {
            println!("NEVER MET: {missing:?}");
            return Ok(ExitCode::FAILURE);
        }
        println!("nothing acknowledged was lost");
        Ok(ExitCode::SUCCESS)
    }
}
