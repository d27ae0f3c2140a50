"""Plugin for SPDK's rpc.py: the methods of bdev_remap, and of bdev_fault for tests and drills.

    PYTHONPATH=rpc rpc.py --plugin bdev_remap_rpc bdev_remap_status --table

It only turns arguments into parameters and prints results; the target checks them. docs/rpc.md describes every method.
"""

import json

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


def _call(args, method, **params):
    """Call a method with those parameters that were given."""
    return args.client.call(method, {name: value for name, value in params.items() if value is not None})


def _print(result):
    print(json.dumps(result, indent=2))


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


def _number(text):
    """A number, decimal or with 0x; LBAs of error messages come in both."""
    return int(text, 0)


def _add_remap(subparsers):
    def bdev_remap_create(args):
        _print(_call(args, "bdev_remap_create", name=args.name, base_bdev=args.base_bdev, spare_bdev=args.spare_bdev,
                     uuid=args.uuid, format=args.format, remap_on=args.remap_on, storm_limit=args.storm_limit,
                     take_over=False if args.no_take_over else None))

    p = subparsers.add_parser('bdev_remap_create',
                              help='Create a bdev that replaces bad blocks of a base bdev by blocks of a spare bdev')
    p.add_argument('-n', '--name', help='Name of the Remap bdev, 1 to 191 bytes', required=True)
    p.add_argument('-b', '--base-bdev', help='Name of the base bdev, whose bad blocks are replaced', required=True)
    p.add_argument('-s', '--spare-bdev',
                   help='Name of the spare bdev: same block size as the base; holds the replaced blocks and the remap log',
                   required=True)
    p.add_argument('-u', '--uuid', help='UUID of the set and of the Remap bdev (optional; by default that of the set on the spare, or a new one)')
    p.add_argument('--format', choices=['auto', 'never', 'force'],
                   help="""What to do with a spare without a valid superblock: auto (default) formats it if it is empty, also of
                   pages of a remap log, never refuses it, force formats it whatever is on it""")
    p.add_argument('--remap-on', choices=['media', 'any'],
                   help="""Errors that count as bad blocks: media (default) errors only, or any error of the base that does
                   not say what it is, too (AIO -EIO, FAILED)""")
    p.add_argument('--storm-limit', type=_number,
                   help='Stop relocating after this many blocks within 60 seconds (default: 4096)')
    p.add_argument('--no-take-over', action='store_true', help='Leave a set of another host alone (default: take it over)')
    p.set_defaults(func=bdev_remap_create)

    def bdev_remap_delete(args):
        _print(_call(args, "bdev_remap_delete", name=args.name, wipe=args.wipe or None, force=args.force or None))

    p = subparsers.add_parser('bdev_remap_delete', help='Delete a Remap bdev; base and spare stay as they are')
    p.add_argument('name', help='Name of the Remap bdev')
    p.add_argument('--wipe', action='store_true',
                   help='Make the spare empty as well; refused while blocks are remapped')
    p.add_argument('--force', action='store_true', help='Wipe although blocks are remapped: their data is lost')
    p.set_defaults(func=bdev_remap_delete)

    def bdev_remap_status(args):
        devices = _call(args, "bdev_remap_status", name=args.name)
        if args.table:
            _print_table(devices)
        else:
            _print(devices)

    p = subparsers.add_parser('bdev_remap_status', help='Show state, block counts, health of the metadata and counters of Remap bdevs')
    p.add_argument('name', nargs='?', help='Name of the Remap bdev (optional; all by default)')
    p.add_argument('-t', '--table', action='store_true', help='Print a short table instead of JSON')
    p.set_defaults(func=bdev_remap_status)

    def bdev_remap_list(args):
        _print(_call(args, "bdev_remap_list", name=args.name, lba=args.lba, max=args.max))

    p = subparsers.add_parser('bdev_remap_list', help='List remapped, pending and lost blocks as extents')
    p.add_argument('name', help='Name of the Remap bdev')
    p.add_argument('-l', '--lba', type=_number, help='First LBA (block) to list; "next" of the answer goes on (default: 0)')
    p.add_argument('-m', '--max', type=_number, help='Number of extents to list at most')
    p.set_defaults(func=bdev_remap_list)

    def bdev_remap_save(args):
        _print(_call(args, "bdev_remap_save", name=args.name))

    p = subparsers.add_parser('bdev_remap_save',
                              help='Write the whole remap table to all copies on the spare now; bad copies are also repaired without it')
    p.add_argument('name', help='Name of the Remap bdev')
    p.set_defaults(func=bdev_remap_save)

    def bdev_remap_restore(args):
        _print(_call(args, "bdev_remap_restore", name=args.name, dry_run=args.check or None))

    p = subparsers.add_parser('bdev_remap_restore', help='Load the remap table from the spare again; shows what differed')
    p.add_argument('name', help='Name of the Remap bdev')
    # Not --dry-run: that is an option of rpc.py itself, which then sends nothing.
    p.add_argument('--check', action='store_true', help='Only compare; change nothing (dry_run)')
    p.set_defaults(func=bdev_remap_restore)

    def bdev_remap_set_options(args):
        _print(_call(args, "bdev_remap_set_options", name=args.name, remap_on=args.remap_on,
                     storm_limit=args.storm_limit, rearm=args.rearm or None))

    p = subparsers.add_parser('bdev_remap_set_options', help='Change options of a Remap bdev; prints those in force')
    p.add_argument('name', help='Name of the Remap bdev')
    p.add_argument('--remap-on', choices=['media', 'any'], help='Errors that count as bad blocks')
    p.add_argument('--storm-limit', type=_number, help='Blocks relocated within 60 seconds that trip the storm brake')
    p.add_argument('--rearm', action='store_true', help='Release the storm brake after it has tripped')
    p.set_defaults(func=bdev_remap_set_options)

    def bdev_remap_expect(args):
        _print(_call(args, "bdev_remap_expect", name=args.name, uuid=args.uuid, base_uuid=args.base_uuid,
                     spare_uuid=args.spare_uuid))

    p = subparsers.add_parser('bdev_remap_expect',
                              help='Keep the base of a set from others from the moment it appears, until its spare is there')
    p.add_argument('-n', '--name', help='Name of the Remap bdev', required=True)
    p.add_argument('-u', '--uuid', help='UUID of the set', required=True)
    p.add_argument('-b', '--base-uuid', help='UUID of the base', required=True)
    p.add_argument('-s', '--spare-uuid', help='UUID of the spare', required=True)
    p.set_defaults(func=bdev_remap_expect)

    def bdev_remap_forget(args):
        _print(_call(args, "bdev_remap_forget", uuid=args.uuid))

    p = subparsers.add_parser('bdev_remap_forget', help='Give up a set that waits or is expected, and the base that is kept for it')
    p.add_argument('uuid', help='UUID of the set')
    p.set_defaults(func=bdev_remap_forget)

    def bdev_remap_set_module_options(args):
        _print(_call(args, "bdev_remap_set_module_options", auto_assemble=args.auto_assemble, host_id=args.host_id))

    p = subparsers.add_parser('bdev_remap_set_module_options', help='Change options of all of bdev_remap; prints those in force')
    group = p.add_mutually_exclusive_group()
    group.add_argument('--auto-assemble', dest='auto_assemble', action='store_true', default=None,
                       help='Sets that are found come online by themselves (default)')
    group.add_argument('--no-auto-assemble', dest='auto_assemble', action='store_false', default=None,
                       help='Sets that are found wait for bdev_remap_create, and claim nothing: for storage nodes')
    p.add_argument('--host-id', help='UUID of this host, to which its sets belong (default: a hash of /etc/machine-id)')
    p.set_defaults(func=bdev_remap_set_module_options)


def _add_fault(subparsers):
    def bdev_fault_create(args):
        _print(_call(args, "bdev_fault_create", name=args.name, base_bdev=args.base_bdev,
                     volatile_cache=args.volatile_cache or None, latency_us=args.latency_us))

    p = subparsers.add_parser('bdev_fault_create', help='Create a bdev that fails chosen LBAs of a base bdev (for tests and drills)')
    p.add_argument('-n', '--name', help='Name of the fault bdev', required=True)
    p.add_argument('-b', '--base-bdev', help='Name of the base bdev', required=True)
    p.add_argument('--volatile-cache', action='store_true', help='Keep what is written in memory until it is flushed')
    p.add_argument('--latency-us', type=_number, help='Microseconds that every I/O waits (default: 0)')
    p.set_defaults(func=bdev_fault_create)

    def bdev_fault_delete(args):
        _print(_call(args, "bdev_fault_delete", name=args.name))

    p = subparsers.add_parser('bdev_fault_delete', help='Delete a fault bdev')
    p.add_argument('name', help='Name of the fault bdev')
    p.set_defaults(func=bdev_fault_delete)

    def bdev_fault_inject(args):
        _print(_call(args, "bdev_fault_inject", name=args.name, lba=args.lba, num_blocks=args.num_blocks, op=args.op,
                     error=args.error, count=args.count, stride=args.stride))

    p = subparsers.add_parser('bdev_fault_inject', help='Make I/O to a range of blocks fail')
    p.add_argument('name', help='Name of the fault bdev')
    p.add_argument('lba', type=_number, help='First LBA (block) of the range')
    p.add_argument('num_blocks', type=_number, help='Length of the range in blocks')
    p.add_argument('op', choices=['read', 'write', 'all'], help='I/O that fails')
    p.add_argument('error', choices=['write_fault', 'read_error', 'path', 'io', 'aio_enodata'],
                   help="""How it fails: NVMe write fault (2/80h), NVMe unrecovered read error (2/81h), NVMe path error (3/00h),
                   AIO -EIO, AIO -ENODATA (what Linux makes of a medium error)""")
    p.add_argument('-c', '--count', type=_number, help='Number of I/Os that fail (default: for ever)')
    p.add_argument('--stride', type=_number, help='Only every STRIDE-th block of the range fails (default: 1, all)')
    p.set_defaults(func=bdev_fault_inject)

    def bdev_fault_clear(args):
        _print(_call(args, "bdev_fault_clear", name=args.name))

    p = subparsers.add_parser('bdev_fault_clear', help='Remove all faults of a fault bdev')
    p.add_argument('name', help='Name of the fault bdev')
    p.set_defaults(func=bdev_fault_clear)

    def bdev_fault_list(args):
        _print(_call(args, "bdev_fault_list", name=args.name))

    p = subparsers.add_parser('bdev_fault_list', help='List the faults of a fault bdev')
    p.add_argument('name', help='Name of the fault bdev')
    p.set_defaults(func=bdev_fault_list)

    def bdev_fault_power_cut(args):
        _print(_call(args, "bdev_fault_power_cut", name=args.name, keep=args.keep, seed=args.seed))

    p = subparsers.add_parser('bdev_fault_power_cut', help='Cut the power of a fault bdev: its cache is lost and all I/O fails')
    p.add_argument('name', help='Name of the fault bdev')
    p.add_argument('--keep', choices=['none', 'random'], help='What of its cache is written down first (default: none)')
    p.add_argument('--seed', type=_number, help='Which blocks, with --keep random (default: 0)')
    p.set_defaults(func=bdev_fault_power_cut)

    def bdev_fault_power_on(args):
        _print(_call(args, "bdev_fault_power_on", name=args.name))

    p = subparsers.add_parser('bdev_fault_power_on', help='Give a fault bdev its power back')
    p.add_argument('name', help='Name of the fault bdev')
    p.set_defaults(func=bdev_fault_power_on)

    def bdev_fault_reset(args):
        _print(_call(args, "bdev_fault_reset", name=args.name))

    p = subparsers.add_parser('bdev_fault_reset', help='Reset a bdev of any kind: what is under way is aborted')
    p.add_argument('name', help='Name of the bdev')
    p.set_defaults(func=bdev_fault_reset)


def spdk_rpc_plugin_initialize(subparsers):
    """Called by rpc.py with its parser of methods."""
    _add_remap(subparsers)
    _add_fault(subparsers)
