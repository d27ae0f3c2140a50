//! Which metrics there are of a set that is online, and what each is. Names are as Prometheus has them: base units, `_total` for what
//! only grows (from 0 on when the set is opened).

use crate::rpc::answers::{Job, Online};
use crate::rpc::look::Seen;

/// What a metric is.
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, but for a set that is opened anew.
    Counter,
}

/// Takes a number, and the value of the label if there is one.
pub(super) type Put<'a> = &'a mut dyn FnMut(&str, f64);

/// A metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// What tells its numbers apart within a set.
    pub(super) label: Option<&'static str>,
    /// Its numbers.
    pub(super) of: fn(&Seen, &Online, Put),
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&Seen, &Online, Put)) -> Family {
    Family { name, help, kind: Kind::Gauge, label: None, of }
}

const fn counter(name: &'static str, help: &'static str, of: fn(&Seen, &Online, Put)) -> Family {
    Family { name, help, kind: Kind::Counter, label: None, of }
}

impl Family {
    const fn by(self, label: &'static str) -> Family {
        Family { label: Some(label), ..self }
    }
}

/// A count as Prometheus has numbers: exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

/// Puts the only number of a set.
fn one(put: Put, count: u64) {
    put("", number(count));
}

/// Puts the only number of a set, if there is one.
fn maybe(put: Put, count: Option<u64>) {
    if let Some(count) = count {
        one(put, count);
    }
}

/// Puts several numbers of a set.
fn each<const N: usize>(put: Put, counts: [(&str, u64); N]) {
    counts.into_iter().for_each(|(value, count)| put(value, number(count)));
}

/// The last job of each kind: the one that runs, which the target tells before the last one that has ended.
fn last_jobs(set: &Online) -> impl Iterator<Item = &Job> {
    let before = |at: usize| set.jobs.iter().take(at);
    let first = move |(at, job): &(usize, &Job)| before(*at).all(|earlier| earlier.kind != job.kind);
    set.jobs.iter().enumerate().filter(first).map(|(_, job)| job)
}

/// Puts a number of the last job of each kind.
fn jobs(put: Put, set: &Online, of: fn(&Job) -> Option<u64>) {
    last_jobs(set).filter_map(|job| Some((job, of(job)?))).for_each(|(job, count)| put(&job.kind, number(count)));
}

/// All of them.
pub(super) const FAMILIES: &[Family] = &[
    gauge("block_size_bytes", "Size of a block.", |seen, _, put| {
        maybe(put, seen.bdev.as_ref().map(|bdev| bdev.block_size.into()));
    }),
    gauge("size_bytes", "Size of the Remap bdev.", |seen, _, put| {
        maybe(put, seen.bdev.as_ref().and_then(|bdev| bdev.num_blocks.checked_mul(bdev.block_size.into())));
    }),
    gauge("remapped_blocks", "Blocks that live on the spare.", |_, set, put| one(put, set.remapped)),
    gauge("pending_blocks", "Blocks that are known unreadable, and were not written since.", |_, set, put| {
        one(put, set.pending);
    }),
    gauge("lost_blocks", "Blocks whose data could not be read when it was copied.", |_, set, put| one(put, set.lost)),
    gauge("spare_blocks", "Blocks for data on the spare.", |_, set, put| one(put, set.spare.total)),
    gauge("spare_used_blocks", "Blocks of the spare that are taken.", |_, set, put| one(put, set.spare.used)),
    gauge("spare_free_blocks", "Blocks of the spare that are free.", |_, set, put| one(put, set.spare.free)),
    gauge("spare_bad_blocks", "Blocks of the spare that are bad.", |_, set, put| one(put, set.spare.bad)),
    gauge("metadata_copy_ok", "Whether a copy of the metadata on the spare is whole: 1 if it is.", |_, set, put| {
        set.metadata.copies().into_iter().for_each(|(copy, ok)| put(copy, number(ok.into())));
    })
    .by("copy"),
    gauge("storm_limit_blocks", "Blocks relocated within 60 s beyond which the storm brake trips.", |_, set, put| {
        one(put, set.storm_limit);
    }),
    gauge("log_epoch", "Number of the checkpoint in force.", |_, set, put| one(put, set.epoch.get())),
    gauge("log_sequence", "Number of the last page of the remap log.", |_, set, put| one(put, set.sequence.get())),
    gauge("last_save_timestamp_seconds", "When a checkpoint last became durable.", |_, set, put| {
        maybe(put, set.last_save_at);
    }),
    counter("reads_total", "Reads of the Remap bdev.", |seen, _, put| {
        maybe(put, seen.io.as_ref().map(|io| io.num_read_ops));
    }),
    counter("writes_total", "Writes of the Remap bdev.", |seen, _, put| {
        maybe(put, seen.io.as_ref().map(|io| io.num_write_ops));
    }),
    counter("read_bytes_total", "Bytes read from the Remap bdev.", |seen, _, put| {
        maybe(put, seen.io.as_ref().map(|io| io.bytes_read));
    }),
    counter("written_bytes_total", "Bytes written to the Remap bdev.", |seen, _, put| {
        maybe(put, seen.io.as_ref().map(|io| io.bytes_written));
    }),
    counter("rescued_writes_total", "Writes that succeeded after a block was relocated.", |_, set, put| {
        one(put, set.counters.rescued_writes);
    }),
    counter("rescued_blocks_total", "Blocks that were relocated for a write.", |_, set, put| {
        one(put, set.counters.rescued_blocks);
    }),
    counter("retried_reads_total", "Reads that succeeded when they were retried.", |_, set, put| {
        one(put, set.counters.retried_reads);
    }),
    counter("failed_requests_total", "Requests that failed with a media error, or after a rescue.", |_, set, put| {
        each(put, [("read", set.counters.failed_reads), ("write", set.counters.failed_writes)]);
    })
    .by("operation"),
    counter("media_errors_total", "Media errors of single blocks, of base and spare.", |_, set, put| {
        let counters = &set.counters;
        let (read, write) = (counters.media_errors_read, counters.media_errors_write);
        each(put, [("read", read), ("write", write), ("write_zeroes", counters.media_errors_write_zeroes)]);
    })
    .by("operation"),
    counter("spare_media_errors_total", "Media errors of single blocks of the spare.", |_, set, put| {
        one(put, set.counters.media_errors_spare);
    }),
    counter("refused_requests_total", "Relocations that were refused.", |_, set, put| {
        let counters = &set.counters;
        let full = ("no_spare", counters.refused_no_spare);
        let (log, tripped) = (("log_failed", counters.refused_log_failed), ("tripped", counters.refused_tripped));
        each(put, [full, log, tripped, ("closed", counters.refused_closed)]);
    })
    .by("reason"),
    counter(
        "pending_skipped_blocks_total",
        "Unreadable blocks that are not pending, as too many are.",
        |_, set, put| {
            one(put, set.counters.pending_skipped);
        },
    ),
    counter("log_pages_total", "Pages of the remap log that became durable.", |_, set, put| {
        one(put, set.counters.log_pages);
    }),
    counter("log_copy_errors_total", "Pages and checkpoints that one copy could not take.", |_, set, put| {
        one(put, set.counters.log_copy_errors);
    }),
    counter("checkpoints_total", "Checkpoints that became durable.", |_, set, put| one(put, set.counters.checkpoints)),
    gauge("job_running", "Whether the last job of its kind still runs: 1 if it does.", |_, set, put| {
        jobs(put, set, |job| Some(job.runs().into()));
    })
    .by("job"),
    gauge("job_failed", "Whether the last job of its kind has failed: 1 if it has.", |_, set, put| {
        jobs(put, set, |job| Some((job.state == "failed").into()));
    })
    .by("job"),
    gauge("job_done_blocks", "Blocks that the last job of its kind has done.", |_, set, put| {
        jobs(put, set, |job| Some(job.blocks_done));
    })
    .by("job"),
    gauge("job_planned_blocks", "Blocks that the last job of its kind is to do, once that is known.", |_, set, put| {
        jobs(put, set, |job| (job.blocks_total > 0).then_some(job.blocks_total));
    })
    .by("job"),
    gauge("job_end_timestamp_seconds", "When the last job of its kind ended.", |_, set, put| {
        jobs(put, set, |job| job.ended_at);
    })
    .by("job"),
    gauge("scrub_found", "What the last scrub has found: blocks, and pages of metadata.", |_, set, put| {
        for scrub in last_jobs(set).filter_map(|job| job.scrub) {
            let (unreadable, rescued) = (("unreadable_blocks", scrub.unreadable), ("rescued_blocks", scrub.rescued));
            let spare = ("spare_unreadable_blocks", scrub.spare_unreadable);
            each(put, [unreadable, rescued, spare, ("metadata_bad_pages", scrub.metadata_bad)]);
        }
    })
    .by("what"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_job_that_runs_is_the_one_that_counts() {
        let job = |kind: &str, state: &str, done: u64, ended: Option<u64>| {
            json!({
                "kind": kind, "state": state, "blocks_done": done, "blocks_total": 100, "blocks_per_second": 1,
                "ended_at": ended, "scrub": (kind == "scrub").then(|| json!({ "unreadable": done }))
            })
        };
        let ended = job("scrub", "failed", 100, Some(7));
        let jobs = [job("scrub", "running", 3, None), job("import", "done", 9, Some(5)), ended];
        let set = serde_json::from_value(json!({
            "name": "Remap0", "uuid": "00000000-0000-0000-0000-000000000001", "state": "online", "base_bdev": "Base0",
            "storm_limit": 1, "spare": { "total": 1, "used": 0, "free": 1, "bad": 0 }, "remapped": 0, "pending": 0,
            "lost": 0, "epoch": 1, "sequence": 1, "jobs": jobs,
            "metadata": { "superblock_a": "ok", "superblock_b": "ok", "log_a": "ok", "log_b": "ok" }
        }));
        let seen = Seen { set: set.unwrap(), bdev: None, io: None };
        let numbers = |name: &str| {
            let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
            let mut numbers = HashMap::new();
            (family.of)(&seen, seen.set.online().unwrap(), &mut |label, number| {
                assert!(numbers.insert(label.to_owned(), number).is_none(), "{name}: {label} twice");
            });
            numbers
        };
        let of = |kind: &str, number: f64| (kind.to_owned(), number);
        assert_eq!(numbers("job_running"), HashMap::from([of("scrub", 1.0), of("import", 0.0)]));
        assert_eq!(numbers("job_failed"), HashMap::from([of("scrub", 0.0), of("import", 0.0)]));
        assert_eq!(numbers("job_done_blocks"), HashMap::from([of("scrub", 3.0), of("import", 9.0)]));
        assert_eq!(numbers("job_end_timestamp_seconds"), HashMap::from([of("import", 5.0)]));
        assert_eq!(numbers("scrub_found")["unreadable_blocks"], 3.0);
    }
}
