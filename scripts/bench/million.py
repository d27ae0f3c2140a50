"""What takes long with a million remaps: writing all of them down, and loading them."""

import bdevs
from bdevperf import Bdevperf, Failed
from statistic import ratios, summary

# What is read as it is, beside the loading: requests as large as bdevs like them, several at a time.
READ_BYTES = 128 << 10
READ_DEPTH = 8


def checkpoint(bench, member):
    """I/O while the table is written down again and again, on the reactor that does both."""
    alone, beside, holds, holds_alone, saves = [], [], [], [], []
    for number in range(bench.plan.rounds):
        alone.append(member.perform("randread").iops)
        beside.append(_while_saving(member, saves, depth=128).iops)
        holds_alone.append(member.perform("randread", depth=1).max_us)
        holds.append(_while_saving(member, saves, depth=1).max_us)
        bench.say("checkpoint: round %d of %d" % (number + 1, bench.plan.rounds))
    bench.row("checkpoint_iops", summary(ratios(beside, alone)))
    # None may be longer, so that the longest counts.
    bench.row("checkpoint_hold", {**summary(holds), "value": max(holds), "rounds": list(zip(holds, holds_alone))})
    bench.series["save_ms"] = summary(save / 1000 for save in saves)


def _while_saving(member, saves, depth):
    with member.performing("randread", depth=depth) as load:
        while load.goes_on():
            saved = member.call("bdev_remap_save", name="Dut")
            if not saved["all_copies"]:
                raise Failed("a checkpoint did not reach all copies")
            saves.append(saved["duration_us"])
    return load.result


def load(bench, member):
    """The set is deleted and made again, by the same process, as often as there are rounds. What counts is how long its threads were busy
    meanwhile, as SPDK looks for calls, and answers them, every 4 ms."""
    remaps = member.call("bdev_remap_status", name="Dut")[0]["remapped"]
    times, sizes = [], []
    for number in range(bench.plan.rounds):
        member.call("bdev_remap_delete", name="Dut")
        read_before, busy_before = _read_bytes(member), _busy(member)
        member.call("bdev_remap_create", name="Dut", base_bdev="Null0", spare_bdev="Spare0")
        times.append(_busy(member) - busy_before)
        sizes.append(_read_bytes(member) - read_before)
        if member.call("bdev_remap_status", name="Dut")[0]["remapped"] != remaps:
            raise Failed("not all remaps were loaded")
        bench.say("load: round %d of %d" % (number + 1, bench.plan.rounds))
    member.pause()
    reader = Bdevperf(bench.start, bench.directory, "reader", [bdevs.malloc("Dut", sizes[0] // bdevs.BLOCK)], mib=384)
    try:
        rates = [reader.perform("read", depth=READ_DEPTH, size=READ_BYTES).mibps * (1 << 20) for _ in times]
    finally:
        reader.end()
        member.resume()
    plain = [size / rate for size, rate in zip(sizes, rates)]
    bench.row("load", summary(ratios(times, plain)))
    bench.series["load"] = {"ms": summary(took * 1000 for took in times), "plain_ms": summary(took * 1000 for took in plain),
                            "bytes": sizes[0]}


def _busy(member):
    """How long the threads of the application were busy so far, in seconds."""
    stats = member.call("thread_get_stats")
    return sum(thread["busy"] for thread in stats["threads"]) / stats["tick_rate"]


def _read_bytes(member):
    return member.call("bdev_get_iostat", name="Spare0")["bdevs"][0]["bytes_read"]
