//! The numbers that decide a simulation: a small generator, the same for the same seed. Clones go on together.

use std::cell::Cell;
use std::rc::Rc;

/// A generator of numbers (splitmix64, public domain).
#[derive(Clone, Debug)]
pub struct Random(Rc<Cell<u64>>);

impl Random {
    /// The generator that `seed` begins.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(Rc::new(Cell::new(seed)))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True `times` times out of `of`.
    pub fn chance(&self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
