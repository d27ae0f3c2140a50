"""Plugin for SPDK's rpc.py: the methods of bdev_remap, and of bdev_fault for tests and drills.

    PYTHONPATH=rpc rpc.py --plugin bdev_remap_rpc bdev_remap_status --table

It only turns arguments into parameters and prints results; the target checks them. docs/rpc.md describes every method.
METHODS, at the end, has them all: a new method is an entry there. What needs more than one call is named behind its arguments.
"""

import argparse
import json

import bdev_remap_import
import bdev_remap_jobs
from bdev_remap_lists import FORMATS

STATUS_COLUMNS = (
    ("NAME", "name"),
    ("STATE", "state"),
    ("BASE", "base_bdev"),
    ("SPARE", "spare_bdev"),
    ("REMAPPED", "remapped"),
    ("PENDING", "pending"),
    ("LOST", "lost"),
    ("SPARE FREE", None),
    ("METADATA", None),
)

COPIES = ("superblock_a", "superblock_b", "log_a", "log_b")


def _metadata(status):
    metadata = status.get("metadata")
    if metadata is None:
        return "?"
    bad = [name for name in COPIES if metadata.get(name) != "ok"]
    return "bad: " + ",".join(bad) if bad else "ok"


def _row(status):
    spare = status.get("spare", {})
    values = {
        "SPARE FREE": "%s/%s" % (spare.get("free", "?"), spare.get("total", "?")),
        "METADATA": _metadata(status),
    }
    return [str(status.get(field, "?")) if field else values[title] for title, field in STATUS_COLUMNS]


def _print_table(devices):
    rows = [[title for title, _ in STATUS_COLUMNS]] + [_row(device) for device in devices]
    widths = [max(len(row[i]) for row in rows) for i in range(len(STATUS_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _print(result):
    print(json.dumps(result, indent=2))


def _number(text):
    """A number, decimal or with 0x; LBAs of error messages come in both."""
    return int(text, 0)


def _at_least_1(text):
    value = _number(text)
    if value < 1:
        raise argparse.ArgumentTypeError("%s is less than 1" % text)
    return value


def _argument(*flags, parameter=None, **options):
    """An argument as argparse takes it, and the parameter of the method that it gives, if that has another name."""
    return flags, parameter, options


def _switch(*flags, value=True, **options):
    """An argument without a value: the parameter is `value` if it is given."""
    return _argument(*flags, action="store_const", const=value, **options)


def _one_of(*arguments):
    """Arguments that exclude each other."""
    return list(arguments)


NAME = _argument("name", help="Name of the Remap bdev")
RANGE = (
    _argument("lba", type=_number, help="First LBA (block) of the range"),
    _argument("num_blocks", type=_number, help="Length of the range in blocks"),
)
FAULT_NAME = _argument("name", help="Name of the fault bdev")
WAIT = _switch("--wait", help="Wait for the end, with a progress bar, and print how it ended")

METHODS = (
    ("bdev_remap_create", "Create a bdev that replaces bad blocks of a base bdev by blocks of a spare bdev", (
        _argument("-n", "--name", required=True, help="Name of the Remap bdev, 1 to 191 bytes"),
        _argument("-b", "--base-bdev", required=True, help="Name of the base bdev, whose bad blocks are replaced"),
        _argument("-s", "--spare-bdev", required=True,
                  help="Name of the spare bdev: same block size as the base; holds the replaced blocks and the remap log"),
        _argument("-u", "--uuid",
                  help="UUID of the set and of the Remap bdev (optional; by default that of the set on the spare, or a new one)"),
        _argument("--format", choices=["auto", "never", "force"],
                  help="""What to do with a spare without a valid superblock. auto (default): format it if it is empty, of pages of a
                  remap log, too. never: refuse it. force: format it, whatever else is on it. A valid superblock is never
                  overwritten: its set is loaded, or refused"""),
        _argument("--remap-on", choices=["media", "any"],
                  help="""Errors that count as bad blocks: media (default) errors only, or any error of the base that does
                  not say what it is, too (AIO -EIO, FAILED)"""),
        _argument("--storm-limit", type=_number,
                  help="Stop relocating after this many blocks within 60 seconds (default: 4096)"),
        _switch("--no-take-over", parameter="take_over", value=False,
                help="Leave a set of another host alone (default: take it over)"),
        _switch("--wait-for-bdevs",
                help="""Where base or spare are not there yet, and the set with this UUID is expected: succeed, and have it come online
                when they are"""),
    )),
    ("bdev_remap_delete", "Delete a Remap bdev; base and spare stay as they are", (
        NAME,
        _switch("--wipe", help="Make the spare empty as well; refused while blocks are remapped"),
        _switch("--force", help="Wipe although blocks are remapped: their data is lost"),
    )),
    ("bdev_remap_status", "Show state, block counts, health of the metadata and counters of Remap bdevs", (
        _argument("name", nargs="?", help="Name of the Remap bdev (optional; all by default)"),
        _switch("-t", "--table", dest="show", value=_print_table, help="Print a short table instead of JSON"),
    )),
    ("bdev_remap_list", "List remapped, pending and lost blocks as extents", (
        NAME,
        _argument("-l", "--lba", type=_number, help='First LBA (block) to list; "next" of the answer goes on (default: 0)'),
        _argument("-m", "--max", type=_number, help="Number of extents to list at most"),
    )),
    ("bdev_remap_save", "Write the whole remap table to all copies on the spare now; bad copies are also repaired without it", (NAME,)),
    ("bdev_remap_restore", "Load the remap table from the spare again; shows what differed", (
        NAME,
        # Not --dry-run: that is an option of rpc.py itself, which then sends nothing.
        _switch("--check", parameter="dry_run", help="Only compare; change nothing (dry_run)"),
    )),
    ("bdev_remap_add", "Relocate blocks before they fail, with their data; those that cannot be read become pending",
     (NAME, *RANGE)),
    ("bdev_remap_import", "Relocate the bad blocks of a list, as badblocks, ddrescue or Linux md write it", (
        NAME,
        _argument("file", help="The list; - reads it from stdin"),
        _argument("--format", choices=FORMATS, default="auto",
                  help="""json: [{"lba": 4096, "num_blocks": 8}] or "4096+8,8200", in blocks of the bdev. badblocks: the output of badblocks -o.
                  ddrescue: its map file; what it could not read counts, what it has not tried does not. md: /sys/block/.../bad_blocks.
                  auto (default): what its first line looks like"""),
        _argument("--block-size", type=_at_least_1, default=1024,
                  help="Bytes of a block of badblocks, as it was given by -b there (default: 1024, as there)"),
    ), bdev_remap_import.run),
    ("bdev_remap_remove", "Give remapped blocks back to the base, where it holds their data again", (NAME, *RANGE)),
    ("bdev_remap_scrub", "Read base, spare and metadata in the background; bdev_remap_status shows what is found", (
        NAME,
        _argument("-l", "--lba", type=_number, help="First LBA (block) that is read (default: 0)"),
        _argument("-b", "--num-blocks", type=_number, help="Number of blocks (default: all that follow)"),
        _argument("-m", "--max-mbps", type=_number, help="Rate at most, in 10^6 bytes a second (default: 50)"),
        _switch("--cancel", help="End the scrub that runs"),
        WAIT,
    )),
    ("bdev_remap_migrate", "Move a Remap bdev to another spare while it is in use; bdev_remap_status shows how that stands", (
        NAME,
        _argument("spare_bdev", nargs="?", help="Name of the new spare bdev, which is formatted; not with --cancel"),
        _argument("--format", choices=["auto", "force"],
                  help="""What to do with a new spare that is not empty. auto (default): refuse it. force: format it, whatever is on it;
                  but never one with a valid superblock"""),
        _argument("-m", "--max-mbps", type=_number, help="Rate at most, in 10^6 bytes a second (default: as fast as it goes)"),
        _switch("--cancel", help="End the migration that runs; the old spare stays in force"),
        WAIT,
    )),
    ("bdev_remap_set_options", "Change options of a Remap bdev; prints those in force", (
        NAME,
        _argument("--remap-on", choices=["media", "any"], help="Errors that count as bad blocks"),
        _argument("--storm-limit", type=_number, help="Blocks relocated within 60 seconds that trip the storm brake"),
        _switch("--rearm", help="Release the storm brake after it has tripped"),
    )),
    ("bdev_remap_expect", "Keep the base of a set from others from the moment it appears, until its spare is there", (
        _argument("-n", "--name", required=True, help="Name of the Remap bdev"),
        _argument("-u", "--uuid", required=True, help="UUID of the set"),
        _argument("-b", "--base-uuid", required=True, help="UUID of the base"),
        _argument("-s", "--spare-uuid", required=True, help="UUID of the spare"),
        _argument("-g", "--generation", type=_number, help="Of the set: a spare that says less is outdated"),
    )),
    ("bdev_remap_forget", "Give up a set that waits or is expected, and the base that is kept for it", (
        _argument("uuid", help="UUID of the set"),
    )),
    ("bdev_remap_set_module_options", "Change options of all of bdev_remap; prints those in force", (
        _one_of(
            _switch("--auto-assemble", help="Sets that are found come online by themselves (default)"),
            _switch("--no-auto-assemble", parameter="auto_assemble", value=False,
                    help="Sets that are found wait for bdev_remap_create, and claim nothing: for storage nodes"),
        ),
        _argument("--host-id", help="UUID of this host, to which its sets belong (default: a hash of /etc/machine-id)"),
    )),
    ("bdev_fault_create", "Create a bdev that fails chosen LBAs of a base bdev (for tests and drills)", (
        _argument("-n", "--name", required=True, help="Name of the fault bdev"),
        _argument("-b", "--base-bdev", required=True, help="Name of the base bdev"),
        _switch("--volatile-cache", help="Keep what is written in memory until it is flushed"),
        _argument("--latency-us", type=_number, help="Microseconds that every I/O waits (default: 0)"),
        _switch("--hidden-memory", help="Send data on in a memory domain that the CPU does not reach"),
        _switch("--no-flush", help="Take no FLUSH"),
        _argument("--hollow-lba", type=_number, help="First hollow block: I/O to those does nothing, and succeeds (default: 0)"),
        _argument("--hollow-blocks", type=_number, help="Number of hollow blocks (default: 0)"),
    )),
    ("bdev_fault_delete", "Delete a fault bdev", (FAULT_NAME,)),
    ("bdev_fault_inject", "Make I/O to a range of blocks fail", (
        FAULT_NAME,
        *RANGE,
        _argument("op", choices=["read", "write", "all"], help="I/O that fails"),
        _argument("error", choices=["write_fault", "read_error", "path", "io", "aio_enodata"],
                  help="""How it fails: NVMe write fault (2/80h), NVMe unrecovered read error (2/81h), NVMe path error (3/00h),
                  AIO -EIO, AIO -ENODATA (what Linux makes of a medium error)"""),
        _argument("-c", "--count", type=_number, help="Number of I/Os that fail (default: for ever)"),
        _argument("--stride", type=_number, help="Only every STRIDE-th block of the range fails (default: 1, all)"),
    )),
    ("bdev_fault_clear", "Remove all faults of a fault bdev", (FAULT_NAME,)),
    ("bdev_fault_list", "List the faults of a fault bdev", (FAULT_NAME,)),
    ("bdev_fault_power_cut", "Cut the power of a fault bdev: its cache is lost and all I/O fails", (
        FAULT_NAME,
        _argument("--keep", choices=["none", "random"], help="What of its cache is written down first (default: none)"),
        _argument("--seed", type=_number, help="Which blocks, with --keep random (default: 0)"),
    )),
    ("bdev_fault_power_on", "Give a fault bdev its power back", (FAULT_NAME,)),
    ("bdev_fault_reset", "Reset a bdev of any kind: what is under way is aborted", (_argument("name", help="Name of the bdev"),)),
)


def _add_arguments(parser, arguments):
    """Adds them; yields pairs of the names that argparse and the method have for each."""
    names = []
    for argument in arguments:
        if isinstance(argument, list):
            names += _add_arguments(parser.add_mutually_exclusive_group(), argument)
        else:
            flags, parameter, options = argument
            dest = parser.add_argument(*flags, **options).dest
            names.append((dest, parameter or dest))
    return names


def _add_method(subparsers, method, about, arguments, run=None):
    parser = subparsers.add_parser(method, help=about)
    # What becomes of the result is no parameter.
    names = [(dest, parameter) for dest, parameter in _add_arguments(parser, arguments) if dest not in ("show", "wait")]

    def call(args):
        values = ((parameter, getattr(args, dest)) for dest, parameter in names)
        result = args.client.call(method, {parameter: value for parameter, value in values if value is not None})
        if not getattr(args, "wait", None):
            return result
        return bdev_remap_jobs.wait(args.client, args.name, method.rpartition("_")[2], bool(args.cancel))

    run = run or call
    parser.set_defaults(func=lambda args: args.show(run(args)), show=_print)


def spdk_rpc_plugin_initialize(subparsers):
    """Called by rpc.py with its parser of methods."""
    for method in METHODS:
        _add_method(subparsers, *method)
