//! The numbers that decide a simulation: a generator that gives the same for the same seed, on every machine. Clones go
//! on together.

use std::cell::RefCell;
use std::rc::Rc;

use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator of numbers.
#[derive(Clone, Debug)]
pub struct Random(Rc<RefCell<ChaCha8Rng>>);

impl Random {
    /// The generator that `seed` begins.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(Rc::new(RefCell::new(ChaCha8Rng::seed_from_u64(seed))))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// A number below `limit`, which must not be zero.
    pub fn below(&self, limit: u64) -> u64 {
        self.0.borrow_mut().random_range(..limit)
    }

    /// True `times` times out of `of`.
    pub fn chance(&self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices.choose(&mut *self.0.borrow_mut()).copied().unwrap_or(choices[0])
    }
}
