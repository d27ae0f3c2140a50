"""What was measured, as JSON, as the tables and plots of docs/benchmarks.md, and on the terminal.

The text of the document is written by people; what stands between two markers is replaced.
"""

import json
import re
import shutil

import plots
from targets import TARGETS

JSON = "benchmarks.json"
DOCUMENT = "benchmarks.md"
NOT_MEASURED = "not measured"
MARKED = r"(<!-- %s -->\n).*?(<!-- end -->)"


def begin(directory, docs):
    """Sees to it that the document is in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / DOCUMENT).exists():
        shutil.copy(docs / DOCUMENT, directory)


def keep(directory, found):
    (directory / JSON).write_text(json.dumps(found, indent=1) + "\n")


def read(directory):
    return json.loads((directory / JSON).read_text())


def rounded(value):
    """Five digits are more than a machine tells twice."""
    if isinstance(value, float):
        return float("%.5g" % value)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def write(directory, found):
    """Replaces the parts of the document, and the plots."""
    document = directory / DOCUMENT
    text = document.read_text()
    for name, part in (("run", _run(found)), ("table", _markdown(_table(found))), ("peers", _markdown(_peers(found))),
                       ("remarks", _remarks(found))):
        text, count = re.subn(MARKED % name, lambda match, part=part: match[1] + part + match[2], text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit("error: %s has %d times the marker %s where there should be one" % (document, count, name))
    document.write_text(text)
    plots.write(directory, found["series"])


def show(found):
    header, *rows = _table(found)
    rows = [header, *(row for row in rows if row[3] != NOT_MEASURED)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _markdown(rows):
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    return "".join([lines[0], "|---|---|" + "---:|" * (len(rows[0]) - 2) + "\n", *lines[1:]])


def _table(found):
    rows = [("what", "against", "target", "measured", "spread", "verdict")]
    for target in TARGETS:
        measured = found["rows"].get(target.key)
        if measured is None:
            rows.append((target.what, target.against, target.limit_shown(), NOT_MEASURED, "", ""))
            continue
        spread = "%s to %s" % (target.shown(measured["low"]), target.shown(measured["high"]))
        value = measured["value"]
        rows.append((target.what, target.against, target.limit_shown(), target.shown(value), spread, target.verdict(value)))
    return rows


def _peers(found):
    rows = [("load", "bdev", "million IOPS", "to passthru", "spread")]
    names = {"remap 0": "Remap, nothing remapped", "raw": "null bdev, as it is"}
    for peer in found["series"].get("peers", []):
        ratio = peer["to_passthru"]
        spread = "" if peer["name"] == "passthru" else "%.3f to %.3f" % (ratio["low"], ratio["high"])
        rows.append((peer["workload"], names.get(peer["name"], peer["name"]), "%.2f" % (peer["iops"]["value"] / 1e6),
                     "%.3f" % ratio["value"], spread))
    return rows


def _run(found):
    plan = found["plan"]
    return ("`%s`, %d s, on: %s.\n\nReads and writes with nothing remapped: %d runs of %d rounds. Everything else: %d rounds, rescues %d.\n"
            % (found["command"], found["seconds"], found["machine"], plan["runs"], plan["main_rounds"], plan["rounds"],
               plan["rescue_rounds"]))


def _remarks(found):
    """Figures that the rows rest on."""
    rows, series = found["rows"], found["series"]
    remarks = []
    for key, what in (("nothing_reads", "reads"), ("nothing_writes", "writes")):
        if key in rows:
            runs = ", ".join("%.3f" % run for run in rows[key]["runs"])
            remarks.append("Nothing remapped, %s, median of each run: %s." % (what, runs))
    if "two_reactors_passthru" in rows:
        remarks.append("Passthru on two reactors to one: %.2f." % rows["two_reactors_passthru"]["value"])
    if "checkpoint_hold" in rows:
        rounds = ", ".join("%.0f and %.0f" % tuple(of) for of in rows["checkpoint_hold"]["rounds"])
        remarks.append("The longest I/O at queue depth 1 while saving and without, in µs, by round: %s; a save took %.1f ms (median)."
                       % (rounds, series["save_ms"]["value"]))
    if "loop_ns" in series:
        remarks.append("The loop around a look-up of criterion takes %.1f ns, which is taken off its rows." % series["loop_ns"])
    if "load" in rows:
        load = series["load"]
        remarks.append("Loading took %.1f ms and read %.1f MiB; bdevperf reads as much in %.1f ms."
                       % (load["ms"]["value"], load["bytes"] / (1 << 20), load["plain_ms"]["value"]))
    return "".join("- %s\n" % remark for remark in remarks)
