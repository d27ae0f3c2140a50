"""What the crates measure by themselves: lookups in the table (criterion), changes of it, and its memory."""

import json
import os
import re
import subprocess

from bdevperf import Failed
from statistic import summary

# Rows, and the measurements of remap-core/benches/table.rs that they are of: the worst counts.
LOOKUPS = {
    "lookup_empty": ["lookup/empty"],
    "lookup_miss_1000": ["lookup/miss at 1,000"],
    "lookup_miss_million": ["lookup/miss at 1,000,000 in 1 Gi", "lookup/miss at 1,000,000 in 16 Mi"],
    "lookup_hit_million": ["lookup/hit at 1,000,000 in 1 Gi", "lookup/hit at 1,000,000 in 16 Mi",
                           "lookup/hit at 1,000,000 clustered"],
}
# What is measured with each of them, and is no part of it.
LOOP = "lookup/the loop alone"
FAR_LOAD = "lookup/one load"
COMMITS = {"commit_random": "random", "commit_second": "every second block", "commit_sequential": "one after the other"}
PACE = re.compile(r"^(commit|change), (.*): median ([0-9]+) ns, p99 ([0-9]+) ns$", re.MULTILINE)
MEMORY = re.compile(r"^(.*): ([0-9.]+) bytes a remap$", re.MULTILINE)


def run(bench):
    _lookups(bench)
    _commits(bench)
    _memory(bench)


def _cargo(bench, what, args, **environment):
    bench.say(what)
    done = subprocess.run(["cargo", *args], cwd=bench.top, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed("cargo %s failed:\n%s" % (" ".join(args), done.stdout[-4000:]))
    return done.stdout


def _test(bench, what, name, *options):
    return _cargo(bench, what, ["test", "--locked", "--quiet", "--release", "-p", "remap-core", "--test", name, "--", "--nocapture",
                                *options])


def _lookups(bench):
    home = bench.directory / "criterion"
    _cargo(bench, "lookups in the table", [
        "bench", "--locked", "--quiet", "-p", "remap-core", "--bench", "table", "--", "--noplot",
        "--warm-up-time", "0.2", "--measurement-time", str(bench.plan.criterion_seconds), "--sample-size", "20", "lookup",
    ], CRITERION_HOME=str(home))
    found = {}
    for description in home.glob("**/new/benchmark.json"):
        estimate = json.loads((description.parent / "estimates.json").read_text())["median"]
        interval = estimate["confidence_interval"]
        found[json.loads(description.read_text())["full_id"]] = {
            "value": estimate["point_estimate"], "low": interval["lower_bound"], "high": interval["upper_bound"]}
    missing = [name for name in (LOOP, FAR_LOAD, *sum(LOOKUPS.values(), [])) if name not in found]
    if missing:
        raise Failed("criterion has not measured %s, but %s" % (missing, sorted(found)))
    bench.series["loop_ns"] = loop = found[LOOP]["value"]
    bench.row("far_load", found[FAR_LOAD])
    for key, names in LOOKUPS.items():
        worst = max((found[name] for name in names), key=lambda one: one["value"])
        bench.row(key, {of: max(time - loop, 0.0) for of, time in worst.items()})


def _commits(bench):
    medians, tails = {}, {}
    for _ in range(bench.plan.rounds):
        for what, name, median, tail in PACE.findall(_test(bench, "commits", "commit_pace", "--ignored")):
            medians.setdefault((what, name), []).append(int(median) / 1000)
            tails.setdefault((what, name), []).append(int(tail) / 1000)
    missing = [name for name in COMMITS.values() if not {("commit", name), ("change", name)} <= medians.keys()]
    if missing:
        raise Failed("commit_pace printed no figures of %s" % missing)
    for key, name in COMMITS.items():
        bench.row(key, summary(medians["commit", name]))
    bench.row("commit_tail", _worst(tails, "commit"))
    bench.row("change", _worst(medians, "change"))


def _worst(found, what):
    return max((summary(times) for (kind, _), times in found.items() if kind == what), key=lambda one: one["value"])


def _memory(bench):
    output = _test(bench, "memory of the table", "table_memory")
    bytes_each = {name: float(count) for name, count in MEMORY.findall(output)}
    if not bytes_each:
        raise Failed("table_memory printed no figures:\n%s" % output)
    bench.row("memory", {"value": max(bytes_each.values()), "low": min(bytes_each.values()), "high": max(bytes_each.values())})
