"""The hot path: I/Os a second and latency, of Remap, and of what else SPDK has."""

import statistics

import bdevs
import million
from bdevperf import Fleet
from rounds import compared
from statistic import summary

READS, WRITES = "randread", "randwrite"
MILLION = 1_000_000
COUNTS = (0, 1_000, 10_000, 100_000, MILLION)
# Of these only reads are measured, for the plot.
PLOT_ONLY = (10_000, 100_000)
# A base of 64 GiB, besides that of 4 TiB: the smaller, the more of its table is in the caches.
SMALL_BLOCKS = 1 << 24
# One block of each I/O of 128 KiB, over 1 GiB.
SEQUENTIAL = 128 << 10
EVERY = SEQUENTIAL // bdevs.BLOCK
SEQUENTIAL_IOS = (1 << 30) // SEQUENTIAL


def iops(workload, **how):
    return lambda member: member.perform(workload, **how).iops


def main(bench):
    """Remap with nothing remapped against passthru, in runs of new processes."""
    found = {READS: [], WRITES: []}
    for run in range(bench.plan.runs):
        with Fleet(bench.start, bench.directory) as fleet:
            fleet.add("passthru", bdevs.passthru())
            fleet.add("remap", bdevs.remap(bdevs.small_spare()))
            for workload, runs in found.items():
                what = "nothing remapped, run %d of %d, %s" % (run + 1, bench.plan.runs, workload)
                runs.append(compared(bench, fleet, "passthru", ["remap"], iops(workload), bench.plan.main_rounds, what).ratios["remap"])
    for workload, key in ((READS, "reads"), (WRITES, "writes")):
        of_runs = [statistics.median(run) for run in found[workload]]
        every = summary(value for run in found[workload] for value in run)
        # The target is for each run, so that the least counts.
        bench.row("nothing_" + key, {**every, "value": min(of_runs), "runs": of_runs})


def others(bench):
    """Everything else that needs no errors, in one run."""
    with Fleet(bench.start, bench.directory) as fleet:
        _start(bench, fleet)
        rounds = bench.plan.rounds
        _throughput(bench, fleet, rounds)
        _sequential(bench, fleet, rounds)
        _linked(bench, fleet, rounds)
        if bench.start.two_cores:
            _two_reactors(bench, fleet, rounds)
        _latency(bench, fleet, rounds)
        with fleet.turn("remap %d" % MILLION) as member:
            million.checkpoint(bench, member)
            million.load(bench, member)


def huge(bench):
    """A million again, with what glibc allocates in hugepages, against ordinary memory; if both are to be had."""
    if not bench.start.huge:
        return
    with Fleet(bench.start, bench.directory) as fleet:
        _add_spread(bench, fleet, "ordinary", MILLION)
        member = _add_spread(bench, fleet, "huge", MILLION, environment={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"})
        if not member.has_mapped("anon_hugepage"):
            bench.say("glibc takes no hugepages here")
            return
        found = compared(bench, fleet, "ordinary", ["huge"], iops(READS), bench.plan.rounds, "a million in hugepages")
        bench.row("elsewhere_million_huge", summary(found.ratios["huge"]))


def _start(bench, fleet):
    fleet.add("passthru", bdevs.passthru())
    fleet.add("raw", bdevs.raw())
    fleet.add("split", bdevs.split(), dut="Null0p0")
    fleet.add("raid1", bdevs.raid1())
    fleet.add("remap 0", bdevs.remap(bdevs.small_spare()))
    fleet.add("linked", bdevs.remap(bdevs.small_spare()), flavour="static")
    fleet.add("small 1000", bdevs.remap(bdevs.hollow_spare(1000), [bdevs.null("Null0", SMALL_BLOCKS, uuid=bdevs.BASE_UUID)]),
              bdevs.remapped(bdevs.spread(1000, SMALL_BLOCKS), bdevs.Spare(1000)))
    for count in COUNTS[1:]:
        _add_spread(bench, fleet, "remap %d" % count, count)
    for count in (1_000, MILLION):
        base = [bdevs.null("Null0", count, uuid=bdevs.BASE_UUID)]
        fleet.add("hits %d" % count, bdevs.remap(bdevs.null_spare(count), base),
                  bdevs.remapped([(0, count)], bdevs.Spare(count)))
    pieces = [(index * EVERY + 5, index * EVERY + 6) for index in range(SEQUENTIAL_IOS)]
    base = [bdevs.null("Null0", SEQUENTIAL_IOS * EVERY, uuid=bdevs.BASE_UUID)]
    fleet.add("pieces", bdevs.remap(bdevs.null_spare(len(pieces)), base), bdevs.remapped(pieces, bdevs.Spare(len(pieces))))
    if fleet.start.two_cores:
        fleet.add("passthru on two", bdevs.passthru(), cores="two", options=["-C"])
        fleet.add("remap on two", bdevs.remap(bdevs.small_spare()), cores="two", options=["-C"])


def _add_spread(bench, fleet, name, count, **how):
    """A set with so many blocks remapped, evenly over a large base."""
    bench.say("importing %d remaps" % count)
    prepare = bdevs.remapped(bdevs.spread(count), bdevs.Spare(count))
    return fleet.add(name, bdevs.remap(bdevs.hollow_spare(count)), prepare, mib=_mib(count), **how)


def _mib(spare):
    """Memory for an application whose spare has room for so many remaps: its own, and that of the metadata."""
    return 256 + 3 * bdevs.Spare(spare).head * bdevs.BLOCK // bdevs.MIB


def _throughput(bench, fleet, rounds):
    reads = ["raw", "split", "raid1", "small 1000", *("remap %d" % count for count in COUNTS), "hits 1000",
             "hits %d" % MILLION]
    writes = [name for name in reads if name not in ["remap %d" % count for count in PLOT_ONLY]]
    found = {workload: compared(bench, fleet, "passthru", names, iops(workload), rounds, "4 KiB, " + workload)
             for workload, names in ((READS, reads), (WRITES, writes))}
    for key, name in (("elsewhere_1000", "small 1000"), ("large_1000", "remap 1000"), ("elsewhere_million", "remap %d" % MILLION),
                      ("hits_1000", "hits 1000"), ("hits_million", "hits %d" % MILLION)):
        bench.row(key + "_reads", summary(found[READS].ratios[name]))
        bench.row(key + "_writes", summary(found[WRITES].ratios[name]))
    name = "remap %d" % MILLION
    alone = compared(bench, fleet, "passthru", [name], iops(READS, depth=1), rounds, "a million, one I/O at a time")
    bench.row("elsewhere_million_alone", summary(alone.ratios[name]))
    bench.series["peers"] = [
        {"name": name, "workload": workload, "iops": summary(of.values[name]), "to_passthru": summary(of.ratios.get(name, [1]))}
        for workload, of in found.items() for name in ("raw", "split", "passthru", "raid1", "remap 0")]
    values = found[READS].values
    bench.series["iops"] = {
        "passthru": summary(values["passthru"]),
        "misses": [{"remaps": count, **summary(values["remap %d" % count])} for count in COUNTS],
        "hits": [{"remaps": count, **summary(values["hits %d" % count])} for count in (1_000, MILLION)],
    }


def _sequential(bench, fleet, rounds):
    for workload in ("read", "write"):
        measure = iops(workload, size=SEQUENTIAL)
        found = compared(bench, fleet, "passthru", ["pieces"], measure, rounds, "sequential 128 KiB, " + workload)
        bench.row("pieces_%ss" % workload, summary(found.ratios["pieces"]))


def _linked(bench, fleet, rounds):
    bench.row("linked", summary(compared(bench, fleet, "remap 0", ["linked"], iops(READS), rounds, "linked in").ratios["linked"]))


def _two_reactors(bench, fleet, rounds):
    for key, one, two in (("two_reactors", "remap 0", "remap on two"), ("two_reactors_passthru", "passthru", "passthru on two")):
        found = compared(bench, fleet, one, [two], iops(READS), rounds, two)
        bench.row(key, summary(found.ratios[two]))


def _latency(bench, fleet, rounds):
    for workload, key in ((READS, "reads"), (WRITES, "writes")):
        results = {"passthru": [], "remap 0": []}

        def measure(member, workload=workload, results=results):
            result = member.perform(workload, depth=1)
            results[member.name].append(result)
            return result.percentile(99.9)

        found = compared(bench, fleet, "passthru", ["remap 0"], measure, rounds, "queue depth 1, " + workload)
        bench.row("latency_" + key, summary(found.ratios["remap 0"]))
        if workload == READS:
            bench.series["latency"] = {name: _percentiles(of) for name, of in results.items()}


def _percentiles(results):
    """Medians over the rounds, of the percentiles that all of them have."""
    common = set.intersection(*({at for at, _ in result.percentiles} for result in results))
    return [[at, statistics.median(result.percentile(at) for result in results)] for at in sorted(common)]
