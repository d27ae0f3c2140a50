//! What happened since the set was opened. Counted on the slow path only, by any thread.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::owner::Refused;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of a set, shared between all threads.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All counters, each read by itself.
            #[must_use]
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Writes that succeeded after at least one of their blocks was relocated.
    rescued_writes,
    /// Blocks that were relocated, or moved from a bad spare block to another.
    rescued_blocks,
    /// Reads that succeeded when they were retried.
    retried_reads,
    /// Reads that failed for good, with a media error.
    failed_reads,
    /// Writes that failed for good, after a rescue.
    failed_writes,
    /// Media errors of single blocks, on reads.
    media_errors_read,
    /// Media errors of single blocks, on writes.
    media_errors_write,
    /// Media errors of single blocks, on write_zeroes.
    media_errors_write_zeroes,
    /// Of the media errors, those of spare blocks.
    media_errors_spare,
    /// Refused: no spare block was left.
    refused_no_spare,
    /// Refused: the remap log could not be written.
    refused_log_failed,
    /// Refused: the storm brake was on.
    refused_tripped,
    /// Refused: the set was wiped.
    refused_closed,
    /// Blocks that were not made pending, as there are too many already.
    pending_skipped,
    /// Log pages that became durable, each with the records of one or many requests.
    log_pages,
    /// Log pages and checkpoints that one copy could not take.
    log_copy_errors,
    /// Checkpoints that became durable.
    checkpoints,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        // Relaxed: it is only a number, nothing is ordered by it.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts a refusal under its reason.
    pub fn refused(&self, reason: Refused) {
        match reason {
            Refused::NoSpare => &self.refused_no_spare,
            Refused::LogFailed => &self.refused_log_failed,
            Refused::Tripped => &self.refused_tripped,
            Refused::Closed => &self.refused_closed,
        }
        .add(1);
    }
}
