"""What the crates measure by themselves: lookups and changes of the table (criterion), and its memory."""

import json
import os
import re
import subprocess

from bdevperf import Failed

# Rows, and the measurements of remap-core/benches/table.rs that they are of: the worst counts.
LOOKUPS = {
    "lookup_empty": ["lookup/empty"],
    "lookup_miss_1000": ["lookup/miss at 1,000"],
    "lookup_miss_million": ["lookup/miss at 1,000,000 in 1 Gi", "lookup/miss at 1,000,000 in 16 Mi"],
    "lookup_hit_million": ["lookup/hit at 1,000,000 in 1 Gi", "lookup/hit at 1,000,000 in 16 Mi",
                           "lookup/hit at 1,000,000 clustered"],
}
CHANGES = {
    "change_random": ["change of one block at 1,000,000/in 1 Gi"],
    "change_second": ["change of one block at 1,000,000/every second"],
    "change_sequential": ["change of one block at 1,000,000/sequential"],
}
MEMORY = re.compile(r"^(.*): ([0-9.]+) bytes a remap$", re.MULTILINE)


def run(bench):
    _criterion(bench)
    _memory(bench)


def _cargo(bench, what, args, **environment):
    bench.say(what)
    done = subprocess.run(["cargo", *args], cwd=bench.top, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed("cargo %s failed:\n%s" % (" ".join(args), done.stdout[-4000:]))
    return done.stdout


def _criterion(bench):
    home = bench.directory / "criterion"
    _cargo(bench, "lookups and changes of the table", [
        "bench", "--locked", "--quiet", "-p", "remap-core", "--bench", "table", "--", "--noplot",
        "--warm-up-time", "0.2", "--measurement-time", str(bench.plan.criterion_seconds), "--sample-size", "20",
    ], CRITERION_HOME=str(home))
    found = {}
    for description in home.glob("**/new/benchmark.json"):
        estimate = json.loads((description.parent / "estimates.json").read_text())["median"]
        interval = estimate["confidence_interval"]
        found[json.loads(description.read_text())["full_id"]] = {
            "value": estimate["point_estimate"], "low": interval["lower_bound"], "high": interval["upper_bound"]}
    for rows, divisor in ((LOOKUPS, 1), (CHANGES, 1000)):
        for key, names in rows.items():
            missing = [name for name in names if name not in found]
            if missing:
                raise Failed("criterion has not measured %s, but %s" % (missing, sorted(found)))
            worst = max((found[name] for name in names), key=lambda one: one["value"])
            bench.row(key, {field: value / divisor for field, value in worst.items()})


def _memory(bench):
    output = _cargo(bench, "memory of the table", [
        "test", "--locked", "--quiet", "--release", "-p", "remap-core", "--test", "table_memory", "--", "--nocapture"])
    bytes_each = {name: float(count) for name, count in MEMORY.findall(output)}
    if not bytes_each:
        raise Failed("table_memory printed no figures:\n%s" % output)
    bench.row("memory", {"value": max(bytes_each.values()), "low": min(bytes_each.values()), "high": max(bytes_each.values())})
