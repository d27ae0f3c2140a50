"""bdev_remap_import on the command line: reads a list, and sends it in calls that SPDK takes."""

import sys
import time

from bdev_remap_lists import List, Malformed, extents

# Extents of a call, and bytes of them: SPDK closes the connection when a request has more than 32 KiB.
CALL_EXTENTS = 4000
CALL_BYTES = 31_000
# Seconds before progress is shown, and between two lines of it.
PATIENCE = 2
BETWEEN_LINES = 1

SUMS = ("added", "already", "pending")


def _read(file):
    """A list from a file, or from stdin."""
    try:
        if file == "-":
            return List("stdin", sys.stdin.read())
        with open(file, encoding="utf-8") as opened:
            return List(file, opened.read())
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed("%s: %s; nothing was sent" % (file, error)) from error


def calls(blocks):
    """Strings of extents for one call each, and how many these are."""
    items, room = [], CALL_BYTES
    for first, end in blocks:
        item = "%d+%d" % (first, end - first) if end - first > 1 else str(first)
        if len(items) == CALL_EXTENTS or len(item) >= room:
            yield ",".join(items), len(items)
            items, room = [], CALL_BYTES
        items.append(item)
        room -= len(item) + 1
    if items:
        yield ",".join(items), len(items)


class _Progress:
    """What is done, told now and then."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.sums = dict.fromkeys(SUMS, 0)
        self.began = time.monotonic()
        self.next_line = self.began + PATIENCE

    def add(self, count, result):
        self.done += count
        for name in SUMS:
            self.sums[name] += result[name]
        now = time.monotonic()
        if now >= self.next_line and self.done < self.total:
            print("%d of %d extents, %d s" % (self.done, self.total, now - self.began), file=sys.stderr, flush=True)
            self.next_line = now + BETWEEN_LINES

    def summary(self):
        return {"extents": self.done, **self.sums, "seconds": round(time.monotonic() - self.began, 1)}


def run(args):
    """Imports args.file into args.name, and returns a summary."""
    # Only rpc.py has it.
    from spdk.rpc.client import JSONRPCException

    try:
        listed = _read(args.file)
        bdev = args.client.call("bdev_get_bdevs", {"name": args.name})[0]
        # A list tells bytes of data: interleaved metadata does not count.
        size = bdev["block_size"] - (bdev.get("md_size", 0) if bdev.get("md_interleave") else 0)
        blocks = extents(listed, args.format, args.block_size, size, bdev["num_blocks"])
    except Malformed as error:
        raise JSONRPCException(str(error)) from error
    progress = _Progress(len(blocks))
    for text, count in calls(blocks):
        try:
            result = args.client.call("bdev_remap_import", {"name": args.name, "extents": text})
        except JSONRPCException as error:
            # The client tells all of the request, which is long.
            why = error.message.rpartition("response:\n")[2]
            raise JSONRPCException("stopped: %s\nThe call that failed begins with extent %s. Before it: %s"
                                   % (why, text.partition(",")[0], progress.summary())) from error
        progress.add(count, result)
    return progress.summary()
