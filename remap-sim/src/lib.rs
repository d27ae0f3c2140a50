//! The simulator of bdev_remap: the very code of production (`remap-core`) on simulated disks, with everything that can go
//! wrong going wrong.
//!
//! **By hand**, in unit tests and fuzzing: a [`Medium`] in a [`Disk`], which fails as its [`Fault`]s say and dies at a given
//! step; a [`Vbdev`] on two of them, on [`Threads`] that an [`Executor`] runs. By default all of it goes on in order.
//!
//! **By seed**, as the proof of the durability promise, against a model of a disk that knows what a host may expect:
//!
//! ```text
//! seed ──> Plan ──> run: life after life on the same disks, each ended by a crash ──> Outcome
//!   plan     what happens                        disk, store, faults, fate   the devices, and what befalls them
//!   vbdev    the hot path of production          model                       what a read may return
//!   hosts    what is done, and the checks        shrink                      the least of a plan that still fails
//! ```
//! The same plan always gives the same outcome.

mod block;
mod coverage;
pub mod damage;
mod disk;
mod executor;
mod fate;
mod faults;
mod growing;
mod hosts;
mod life;
mod medium;
mod migrations;
mod model;
mod moves;
mod opening;
mod owner;
pub mod plan;
mod quiesce;
mod random;
mod shrink;
mod stamp;
mod store;
mod taste;
mod threads;
mod vbdev;
mod world;

pub use block::Block;
pub use coverage::{Coverage, KINDS};
pub use disk::{Access, Disk};
pub use executor::Executor;
pub use faults::{Effect, Fault, Faults, Struck, Verb};
pub use life::{Outcome, run};
pub use medium::Medium;
pub use migrations::run_migrations;
pub use plan::Plan;
pub use random::Random;
pub use shrink::shrink;
pub use store::Cut;
pub use threads::Threads;
pub use vbdev::{SimEngine, Story, Vbdev, open_params};

/// Seeds within which each bug on purpose has to be found.
#[cfg(feature = "mutations")]
pub const MUTATION_SEEDS: u64 = 20_000;

/// The first seed below `limit` that finds the bug, and what is wrong then.
#[cfg(feature = "mutations")]
#[must_use]
pub fn catch(mutation: remap_core::mutation::Mutation, limit: u64) -> Option<(u64, String)> {
    remap_core::mutation::activate(Some(mutation));
    let caught = (0..limit).find_map(|seed| {
        // A mutated engine may also trip over itself.
        let outcome = std::panic::catch_unwind(|| match mutation.is_of_migration() {
            true => run_migrations(seed, false),
            false => run_seed(seed),
        });
        let failure = outcome.map_or_else(|_| Some("a panic".into()), |outcome| outcome.failure)?;
        Some((seed, failure))
    });
    remap_core::mutation::activate(None);
    caught
}

/// Looks for these bugs on purpose, on so many threads and in so many seeds each, and tells of each what was found, in their order. Whether all were.
#[cfg(feature = "mutations")]
pub fn catch_all(
    threads: usize,
    mutations: &[remap_core::mutation::Mutation],
    seeds: u64,
    mut tell: impl FnMut(remap_core::mutation::Mutation, Option<&(u64, String)>),
) -> bool {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let (found, results) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (next, found) = (&next, found.clone());
            scope.spawn(move || {
                while let Some(mutation) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Whoever asked has gone if that fails.
                    let _ = found.send((*mutation, catch(*mutation, seeds)));
                }
            });
        }
        drop(found);
        let mut all = true;
        let mut early = Vec::new();
        for mutation in mutations {
            let caught = loop {
                if let Some(at) = early.iter().position(|(other, _)| other == mutation) {
                    break early.swap_remove(at).1;
                }
                let Ok(result) = results.recv() else { return false };
                early.push(result);
            };
            all &= caught.is_some();
            tell(*mutation, caught.as_ref());
        }
        all
    })
}

/// Runs the simulation that `seed` stands for.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run(&Plan::new(seed), false)
}
