//! Pseudo-random numbers from a seed, and the seed of a run.

use std::{
    env,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator that gives the same for the same seed, on every machine.
#[derive(Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(..limit)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Another sequence.
    pub fn fork(&mut self) -> Random {
        Random::new(self.bits())
    }
}

/// The number in environment variable `name`, or `default`. Panics on anything else, as a wrong run is worse than none.
pub fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// The seed of this run: `E2E_SEED`, or the time.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    number("E2E_SEED", now)
}

/// Prints a line that is seen also when the test passes: past the test harness, which captures what the macros print.
pub fn announce(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
