//! The proof of the durability promise: the very code of production on simulated disks, with everything that can go wrong
//! going wrong, and a model of a disk that knows what a host may expect.
//!
//! ```text
//! seed ──> Plan ──> run: life after life on the same disks, each ended by a crash ──> Outcome
//!   plan     what happens                        disk, faults, fate   the devices, and what befalls them
//!   vbdev    the hot path of production          model                what a read may return
//!   hosts    what is done, and the checks        shrink               the least of a plan that still fails
//! ```
//! The same plan always gives the same outcome. Behind the feature `sim`, and never part of a product.

mod block;
mod coverage;
mod disk;
mod fate;
mod faults;
mod gate;
mod hosts;
mod life;
mod model;
mod plan;
mod random;
mod shrink;
mod vbdev;
mod world;

#[cfg(test)]
mod tests;

pub use coverage::{Coverage, KINDS};
pub use life::{Outcome, run};
pub use plan::Plan;
pub use shrink::shrink;

/// The first seed below `limit` that finds the bug, and what is wrong then.
#[cfg(feature = "mutations")]
#[must_use]
pub fn catch(mutation: crate::mutation::Mutation, limit: u64) -> Option<(u64, String)> {
    crate::mutation::activate(Some(mutation));
    let caught = (0..limit).find_map(|seed| {
        // A mutated engine may also trip over itself.
        let outcome = std::panic::catch_unwind(|| run_seed(seed));
        let failure = outcome.map_or_else(|_| Some("a panic".into()), |outcome| outcome.failure)?;
        Some((seed, failure))
    });
    crate::mutation::activate(None);
    caught
}

/// Runs the simulation that `seed` stands for.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run(&Plan::new(seed), false)
}
