"""Rescues: how many, how fast, and how long the slowest takes; and zeroes over a block that needs one."""

import time

import bdevs
from bdevperf import Bdevperf, Failed
from statistic import summary

# Blocks of the base: as many as a load does not come round within.
BASE_BLOCKS = 1 << 24
# Blocks of the spare: 3.5 GiB, so that it does not become full while it is measured.
SPARE_BLOCKS = 896 << 10
# For one remapped block.
SMALL_SPARE_BLOCKS = 4 << 10
SECONDS = 2
STRIDE = 25
# Seconds between two looks at a load that goes on.
LOOK = 0.05
GIB = 1 << 30


def _faulty(base, spare_blocks):
    """Remap over a base that can fail, and a spare in memory."""
    return [*base, bdevs.call("bdev_fault_create", name="Fault0", base_bdev="Null0"),
            bdevs.malloc("Spare0", spare_blocks),
            bdevs.call("bdev_remap_create", name="Dut", base_bdev="Fault0", spare_bdev="Spare0", storm_limit=1 << 40)]


def _started(bench, name, stride):
    member = Bdevperf(bench.start, bench.directory, name, _faulty([bdevs.null("Null0", BASE_BLOCKS)], SPARE_BLOCKS), mib=4096)
    member.call("bdev_fault_inject", name="Fault0", lba=0, num_blocks=BASE_BLOCKS, stride=stride, op="write", error="write_fault")
    return member


def _counters(member):
    status = member.call("bdev_remap_status", name="Dut")[0]
    if status["spare"]["free"] == 0:
        raise Failed("the spare became full: SPARE_BLOCKS in rescues.py is too little for this machine")
    return status["counters"]


def all_fail(bench):
    """Every write fails on the base."""
    rates, medians, over_time = [], [], []
    for number in range(bench.plan.rescue_rounds):
        member = _started(bench, "rescues", 1)
        try:
            # The first one sets up what all need.
            one = member.perform("randwrite", depth=1)
            before = _counters(member)["rescued_blocks"]
            if before < 0.9 * one.completed:
                raise Failed("only %d of %d writes were rescued" % (before, one.completed))
            medians.append(one.percentile(50))
            samples = []
            with member.performing("randwrite", seconds=SECONDS) as load:
                while load.goes_on():
                    samples.append(member.call("bdev_get_iostat", name="Dut"))
                    time.sleep(LOOK)
            rates.append((_counters(member)["rescued_blocks"] - before) / load.result.seconds)
            over_time = _over_time(samples) or over_time
        finally:
            member.end()
        bench.say("rescues: round %d of %d" % (number + 1, bench.plan.rescue_rounds))
    bench.row("rescues", summary(rates))
    bench.row("rescue_median", summary(medians))
    bench.series["rescues"] = over_time


def _over_time(samples):
    """[seconds, rescues a second, mean microseconds of one] between each two looks."""
    points = []
    for before, after in zip(samples, samples[1:]):
        hz, (one, other) = after["tick_rate"], (sample["bdevs"][0] for sample in (before, after))
        writes = other["num_write_ops"] - one["num_write_ops"]
        if writes > 0:
            seconds = (after["ticks"] - before["ticks"]) / hz
            ticks = other["write_latency_ticks"] - one["write_latency_ticks"]
            points.append([(after["ticks"] - samples[0]["ticks"]) / hz, writes / seconds, ticks / writes / hz * 1e6])
    return points


def slowest(bench):
    """One block in 25 is bad. Those that hit one are the slowest 4 % of all writes, so that their median is the 98th percentile."""
    ratios = []
    for number in range(bench.plan.rescue_rounds):
        member = _started(bench, "stride", STRIDE)
        try:
            result = member.perform("write", seconds=SECONDS)
            rescued = _counters(member)["rescued_blocks"]
        finally:
            member.end()
        if not 0.9 < rescued * STRIDE / result.completed < 1.1:
            raise Failed("%d of %d writes were rescued where it should be one in %d" % (rescued, result.completed, STRIDE))
        ratios.append(result.max_us / result.percentile(98))
        bench.say("slowest rescue: round %d of %d" % (number + 1, bench.plan.rescue_rounds))
    bench.row("slowest_rescue", summary(ratios))


def zeroes(bench):
    """1 GiB of zeroes in one I/O, with one pending block in it, and without. As bdevperf goes on for a second, the slowest of a run
    counts: where there was a pending block, it is the first, and the block lives on the spare from then on."""
    base = [bdevs.malloc("Null0", GIB // bdevs.BLOCK)]
    member = Bdevperf(bench.start, bench.directory, "zeroes", _faulty(base, SMALL_SPARE_BLOCKS), mib=2048, options=["-H"])
    block = {"name": "Dut", "lba": GIB // bdevs.BLOCK // 2, "num_blocks": 1}
    ratios = []
    try:
        member.perform("write_zeroes", depth=1, size=GIB)
        for number in range(bench.plan.rounds):
            without = member.perform("write_zeroes", depth=1, size=GIB)
            member.call("bdev_fault_inject", **{**block, "name": "Fault0"}, op="read", error="read_error")
            member.call("bdev_remap_add", **block)
            member.call("bdev_fault_clear", name="Fault0")
            pending = member.call("bdev_remap_status", name="Dut")[0]["pending"]
            over = member.perform("write_zeroes", depth=1, size=GIB)
            removed = member.call("bdev_remap_remove", **block)["removed"]
            if (pending, removed) != (1, 1):
                raise Failed("the block was not pending (%d) and then remapped (%d)" % (pending, removed))
            ratios.append(without.max_us / over.max_us)
            bench.say("zeroes: round %d of %d" % (number + 1, bench.plan.rounds))
    finally:
        member.end()
    bench.row("zeroes", summary(ratios))
