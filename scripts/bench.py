#!/usr/bin/python3
"""Run bdevperf side by side on a raw null bdev, SPDK's passthru and Remap. Called by bench.sh, which explains the options."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

GIB = 1 << 30
CASES = ("raw", "passthru", "remap")
WORKLOADS = ("randread", "randwrite")


def call(method, **params):
    return {"method": method, "params": params}


def config(case, block_size):
    """The bdevs of a case, and the one to measure."""
    calls = [call("bdev_null_create", name="Null0", num_blocks=64 * GIB // block_size, block_size=block_size)]
    name = "Null0"
    if case == "passthru":
        name = "Passthru0"
        calls.append(call("bdev_passthru_create", name=name, base_bdev_name="Null0"))
    elif case == "remap":
        name = "Remap0"
        calls.append(call("bdev_malloc_create", name="Spare0", num_blocks=(64 << 20) // block_size, block_size=block_size))
        calls.append(call("bdev_remap_create", name=name, base_bdev="Null0", spare_bdev="Spare0"))
    return {"subsystems": [{"subsystem": "bdev", "config": calls}]}, name


def measure(args, case, workload, directory):
    """I/Os per second of one run."""
    document, bdev = config(case, args.block)
    path = os.path.join(directory, case + ".json")
    with open(path, "w") as file:
        json.dump(document, file)
    command = args.command + ["-r", os.path.join(directory, "rpc.sock"), "-c", path, "-T", bdev, "-w", workload,
                              "-q", str(args.depth), "-o", str(args.block), "-t", str(args.seconds)]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    total = re.search(r"^\s*Total\s*:\s*([0-9.]+)", run.stdout, re.MULTILINE)
    if run.returncode != 0 or not total:
        sys.exit("%s\nerror: bdevperf on %s failed (exit %d)" % (run.stdout, bdev, run.returncode))
    return float(total.group(1))


def ratio(runs, others):
    """Median of the ratios within each round: what slows the whole machine for a while cancels out."""
    return statistics.median(run / other for run, other in zip(runs, others))


def table(results):
    """Rows of text: title first."""
    rows = [("workload", "bdev", "median IOPS", "min", "max", "to raw", "to passthru")]
    for workload in WORKLOADS:
        for case in CASES:
            runs = results[workload, case]
            rows.append((workload, case, "%.0f" % statistics.median(runs), "%.0f" % min(runs), "%.0f" % max(runs),
                         "%.3f" % ratio(runs, results[workload, "raw"]),
                         "%.3f" % ratio(runs, results[workload, "passthru"])))
    return rows


def print_aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:])]
        print("  ".join(left + right))


def write_markdown(path, rows, args):
    with open(path, "w") as file:
        file.write("bdevperf, one core, null base, %d-byte I/O, queue depth %d, %d rounds of %d s, interleaved; "
                   "ratios are medians of the ratios within each round.\n\n"
                   % (args.block, args.depth, args.rounds, args.seconds))
        file.write("| " + " | ".join(rows[0]) + " |\n|---|---|" + "---:|" * (len(rows[0]) - 2) + "\n")
        for row in rows[1:]:
            file.write("| " + " | ".join(row) + " |\n")


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("%s is not positive" % text)
    return value


def main():
    p = argparse.ArgumentParser(prog="bench.sh")
    p.add_argument("--rounds", type=positive, default=7)
    p.add_argument("--seconds", type=positive, default=3)
    p.add_argument("--depth", type=positive, default=128)
    p.add_argument("--block", type=positive, default=4096)
    p.add_argument("--markdown")
    p.add_argument("command", nargs="+")
    args = p.parse_args()

    results = {(workload, case): [] for workload in WORKLOADS for case in CASES}
    with tempfile.TemporaryDirectory(prefix="bdev-remap-bench-") as directory:
        for number in range(args.rounds):
            # Another case goes first in every round, so that none gains by its place.
            turn = number % len(CASES)
            for workload in WORKLOADS:
                for case in CASES[turn:] + CASES[:turn]:
                    results[workload, case].append(measure(args, case, workload, directory))
            latest = "  ".join("%s %.2fM" % (case, results["randread", case][-1] / 1e6) for case in CASES)
            print("round %d of %d: randread %s" % (number + 1, args.rounds, latest), flush=True)
    rows = table(results)
    print()
    print_aligned(rows)
    spread = max((max(runs) - min(runs)) / statistics.median(runs) for runs in results.values())
    if spread > 0.1:
        print("\nThe runs of one case differ by up to %.0f %%: differences smaller than that mean nothing. Take more rounds, on a "
              "quieter machine." % (100 * spread))
    if args.markdown:
        write_markdown(args.markdown, rows, args)


if __name__ == "__main__":
    main()
