"""The benchmarks of bdev_remap. Called by bench.sh, which explains the options and says where SPDK is."""

import argparse
import os
import pathlib
import signal
import sys
import tempfile
import time
from dataclasses import dataclass

import machine
import report
from bdevperf import Failed, Start


@dataclass(frozen=True)
class Plan:
    """How often each is measured, for a second if nothing else is said."""

    runs: int
    main_rounds: int
    rounds: int
    rescue_rounds: int
    criterion_seconds: float


FULL = Plan(runs=3, main_rounds=15, rounds=5, rescue_rounds=3, criterion_seconds=0.5)
QUICK = Plan(runs=1, main_rounds=4, rounds=1, rescue_rounds=1, criterion_seconds=0.2)


class Bench:
    """What all measurements need, and what they have found."""

    def __init__(self, args, directory):
        self.plan = QUICK if args.quick else FULL
        self.start = Start(args.spdk, args.huge, os.cpu_count())
        self.top = args.top
        self.directory = pathlib.Path(directory)
        self.rows = {}
        self.series = {}
        self._began = time.monotonic()

    def seconds(self):
        return time.monotonic() - self._began

    def say(self, text):
        print("[%3d s] %s" % (self.seconds(), text), flush=True)

    def row(self, key, measured):
        """`measured` has at least value, low and high."""
        self.rows[key] = measured
        self.say("  %s: %.4g (%.4g to %.4g)" % (key, measured["value"], measured["low"], measured["high"]))


def measure(args):
    # Only here, so that a report needs nothing of SPDK's.
    import crates
    import hot
    import rescues

    parts = {"main": hot.main, "others": hot.others, "huge": hot.huge, "rescues": rescues.all_fail, "slowest": rescues.slowest,
             "zeroes": rescues.zeroes, "crates": crates.run}
    wanted = args.only.split(",") if args.only else list(parts)
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        raise Failed("there is no part %s; there are %s" % (", ".join(unknown), ", ".join(parts)))
    with tempfile.TemporaryDirectory(prefix="bdev-remap-bench-") as directory:
        bench = Bench(args, directory)
        for name in wanted:
            parts[name](bench)
    return {
        "command": "scripts/bench.sh" + " --quick" * args.quick,
        "machine": machine.describe(args.spdk_version, args.huge),
        "plan": vars(bench.plan),
        "seconds": round(bench.seconds()),
        "rows": bench.rows,
        "series": bench.series,
    }


def arguments():
    parser = argparse.ArgumentParser(prog="bench.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", metavar="PARTS")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--output", type=pathlib.Path)
    # From bench.sh.
    parser.add_argument("--top", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--spdk", help=argparse.SUPPRESS)
    parser.add_argument("--spdk-version", help=argparse.SUPPRESS)
    parser.add_argument("--huge", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    # As SIGINT: what was started is ended, and the temporary directory goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    docs = args.top / "docs"
    output = args.output or docs
    if not args.only:
        report.begin(output, docs)
    try:
        if args.report:
            found = report.read(output)
        else:
            found = report.rounded(measure(args))
            if not args.only:
                report.keep(output, found)
        if not args.only:
            report.write(output, found)
        report.show(found)
    except Failed as error:
        sys.exit("error: %s" % error)
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")


if __name__ == "__main__":
    main()
