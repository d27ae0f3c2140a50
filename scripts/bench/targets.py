"""The rows of the table: what is measured, against what, and what it should be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    key: str
    what: str
    against: str
    # Nothing where a figure is only to be seen.
    limit: float | None
    at_least: bool = True
    unit: str = ""
    digits: int = 3

    def verdict(self, value):
        if self.limit is None:
            return ""
        reached = value >= self.limit if self.at_least else value <= self.limit
        return "reached" if reached else "**not reached**"

    def shown(self, value):
        return "%s%s" % (format(value, ",.%df" % self.digits), self.unit)

    def limit_shown(self):
        if self.limit is None:
            return ""
        return "%s %s%s" % ("≥" if self.at_least else "≤", format(self.limit, ",g"), self.unit)


def at_most(key, what, against, limit, unit="", digits=3):
    return Target(key, what, against, limit, False, unit, digits)


TARGETS = (
    Target("nothing_reads", "random reads, nothing remapped", "passthru", 1.0),
    Target("nothing_writes", "random writes, nothing remapped", "passthru", 1.0),
    Target("elsewhere_1000_reads", "random reads, 1,000 remaps elsewhere, base of 64 GiB", "passthru", 1.0),
    Target("elsewhere_1000_writes", "random writes, 1,000 remaps elsewhere, base of 64 GiB", "passthru", 1.0),
    Target("large_1000_reads", "random reads, 1,000 remaps elsewhere, base of 4 TiB", "passthru", 1.0),
    Target("large_1000_writes", "random writes, 1,000 remaps elsewhere, base of 4 TiB", "passthru", 1.0),
    Target("elsewhere_million_reads", "random reads, 1,000,000 remaps elsewhere, base of 4 TiB", "passthru", 0.9),
    Target("elsewhere_million_writes", "random writes, 1,000,000 remaps elsewhere, base of 4 TiB", "passthru", 0.9),
    Target("elsewhere_million_alone", "the same reads, one at a time", "passthru", None),
    Target("elsewhere_million_huge", "the same reads, what glibc allocates in hugepages", "in ordinary memory", None),
    Target("hits_1000_reads", "every read on one of 1,000 remapped blocks, null spare", "passthru", 0.95),
    Target("hits_1000_writes", "every write on one of 1,000 remapped blocks, null spare", "passthru", 0.95),
    Target("hits_million_reads", "every read on one of 1,000,000 remapped blocks, null spare", "passthru", 0.65),
    Target("hits_million_writes", "every write on one of 1,000,000 remapped blocks, null spare", "passthru", 0.65),
    Target("pieces_reads", "sequential reads of 128 KiB, one block of each remapped", "passthru", 0.6),
    Target("pieces_writes", "sequential writes of 128 KiB, one block of each remapped", "passthru", 0.6),
    Target("linked", "random reads, nothing remapped, bdev_remap and SPDK linked in", "preloaded", None),
    Target("two_reactors", "random reads on two reactors, each its own queue", "one reactor", 1.9),
    at_most("latency_reads", "p99.9 latency of reads at queue depth 1", "passthru", 1.05, " ×"),
    at_most("latency_writes", "p99.9 latency of writes at queue depth 1", "passthru", 1.05, " ×"),
    at_most("lookup_empty", "lookup, empty table", "", 1, " ns", 1),
    at_most("lookup_miss_1000", "lookup, miss at 1,000", "", 5, " ns", 1),
    at_most("lookup_miss_million", "lookup, miss at 1,000,000, spread evenly", "", 35, " ns", 1),
    at_most("lookup_hit_million", "lookup, hit at 1,000,000", "", 100, " ns", 1),
    at_most("far_load", "any load from 16 MiB at random, to compare the hits with", "", None, " ns", 1),
    at_most("memory", "memory for 1,000,000 remaps, with the directory, the worst of 22 patterns", "", 16, " B a remap", 1),
    at_most("commit_random", "commit of one record at 1,000,000, devices that take no time, random, median", "", 2, " µs", 1),
    at_most("commit_second", "the same, every second block", "", 4, " µs", 1),
    at_most("commit_sequential", "the same, one after the other", "", 4, " µs", 1),
    at_most("commit_tail", "the same, p99 of the worst of the three", "", 20, " µs", 1),
    at_most("change", "the table's part of that, median of the worst of the three", "", None, " µs", 1),
    at_most("load", "loading 1,000,000 remaps", "bdevperf reading as many bytes", 3, " ×"),
    Target("checkpoint_iops", "random reads while 1,000,000 remaps are saved again and again", "without saving", 0.9),
    at_most("checkpoint_hold", "longest I/O at queue depth 1 meanwhile, on the reactor that saves", "", 500, " µs", 0),
    Target("rescues", "every write fails on the base: rescued blocks", "", 100_000, True, " a second", 0),
    at_most("rescue_median", "rescue at queue depth 1, median", "", 40, " µs", 1),
    at_most("slowest_rescue", "slowest rescue, where 1 block in 25 is bad", "their median", 10, " ×", 1),
    Target("zeroes", "1 GiB of write_zeroes over one pending block", "without it", 0.9),
)
