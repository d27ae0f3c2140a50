"""Lists of bad blocks, as other tools write them, for bdev_remap_import.

Each parser yields (line, first byte, bytes) for each piece of a list; what is no such list is a Malformed that names file and line.
json is in blocks of the bdev, all others are in bytes in the end.
"""

import json
import re

SECTOR = 512
FORMATS = ("auto", "json", "badblocks", "ddrescue", "md")

# What ddrescue could not read, or only in part: not trimmed, not scraped, bad. "?" was not tried, "+" is rescued.
BAD = "*/-"
STATUS = "?+" + BAD


class Malformed(Exception):
    """What is wrong with a list, and where."""


class List:
    """A list and where it comes from."""

    def __init__(self, name, text):
        self.name = name
        self.text = text

    def lines(self):
        """Its lines with their numbers, without those that are empty or a comment."""
        for number, line in enumerate(self.text.split("\n"), 1):
            line = line.strip()
            if line and line[0] != "#":
                yield number, line

    def malformed(self, number, why):
        return Malformed("%s, line %d: %s; nothing was sent" % (self.name, number, why))


def _natural(text):
    """A decimal number without a sign, or None."""
    return int(text) if text.isdecimal() else None


def _c_number(text):
    """A number as C has them: decimal, 0x for hexadecimal, 0 for octal; or None."""
    if re.fullmatch("0[0-7]+", text):
        return int(text, 8)
    return int(text, 0) if re.fullmatch("0[xX][0-9a-fA-F]+|[0-9]+", text) else None


def _badblocks(listed, block_size):
    """`badblocks -o`: a block a line, in blocks of the size that badblocks was given (-b)."""
    for number, line in listed.lines():
        block = _natural(line)
        if block is None:
            raise listed.malformed(number, "%r is not the number of a block" % line)
        yield number, block * block_size, block_size


def _md(listed, _block_size):
    """`/sys/block/…/bad_blocks` of Linux: first sector and length a line, in sectors of 512 bytes."""
    for number, line in listed.lines():
        numbers = [_natural(word) for word in line.split()]
        if len(numbers) != 2 or None in numbers or numbers[1] == 0:
            raise listed.malformed(number, "%r is not a first sector and a length" % line)
        yield number, numbers[0] * SECTOR, numbers[1] * SECTOR


def _ddrescue(listed, _block_size):
    """ddrescue's map file: a line on where it is, then position, size and status a line, in bytes."""
    lines = listed.lines()
    # Where it is: position, what it does, and the number of the pass, which old versions leave out.
    number, line = next(lines, (1, ""))
    words = line.split()
    if len(words) not in (2, 3) or _c_number(words[0]) is None or words[1] not in tuple(STATUS + "FG"):
        raise listed.malformed(number, "%r is not the status line of a map file" % line)
    for number, line in lines:
        words = line.split()
        start, size = [_c_number(word) for word in words[:2]] if len(words) == 3 else (None, None)
        if start is None or not size or words[2] not in tuple(STATUS):
            raise listed.malformed(number, "%r is not a position, a size and a status (one of %s)" % (line, STATUS))
        if words[2] in BAD:
            yield number, start, size


def _json(listed):
    """JSON: an array of lba and num_blocks, alone or as "extents" as bdev_remap_list answers, or a string such as "4096+8,8200"."""
    try:
        value = json.loads(listed.text)
    except json.JSONDecodeError as error:
        raise listed.malformed(error.lineno, error.msg) from error
    value = value.get("extents") if isinstance(value, dict) else value
    if isinstance(value, str):
        for number, item in enumerate(value.split(",") if value.strip() else [], 1):
            lba, _, blocks = item.strip().partition("+")
            yield number, _natural(lba), _natural(blocks) if "+" in item else 1
    elif isinstance(value, list):
        for number, item in enumerate(value, 1):
            item = item if isinstance(item, dict) else {}
            yield number, item.get("lba"), item.get("num_blocks")
    else:
        raise listed.malformed(1, "there is no array of extents, and no string of them")


def _is_number(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _blocks_of_json(listed, total):
    """As (first, end) in blocks."""
    for number, lba, blocks in _json(listed):
        if not _is_number(lba, 0) or not _is_number(blocks, 1):
            raise Malformed("%s, item %d is no lba with a num_blocks of at least 1; nothing was sent" % (listed.name, number))
        if lba + blocks > total:
            raise Malformed("%s, item %d, %d+%d, is not all on the bdev, which has %d blocks; nothing was sent"
                            % (listed.name, number, lba, blocks, total))
        yield lba, lba + blocks


def _blocks_of_bytes(listed, pieces, size, total):
    """As (first, end) in blocks of `size` bytes, rounded outwards, so that each bad byte is in one."""
    for number, start, length in pieces:
        first, end = start // size, -(-(start + length) // size)
        if end > total:
            raise listed.malformed(number, "bytes %d to %d are not all on the bdev, which has %d blocks of %d bytes"
                                   % (start, start + length - 1, total, size))
        yield first, end


PARSERS = {"badblocks": _badblocks, "ddrescue": _ddrescue, "md": _md}


def guess(listed):
    """The format of a list, by its first line."""
    if listed.text.lstrip()[:1] in ("{", "[", '"'):
        return "json"
    number, line = next(listed.lines(), (1, ""))
    words = line.split()
    if len(words) > 1 and not words[1].isdecimal():
        return "ddrescue"
    if len(words) > 2:
        raise listed.malformed(number, "%r is of no format that is known: give --format" % line)
    return "md" if len(words) == 2 else "badblocks"


def extents(listed, form, unit, size, total):
    """The blocks that are listed, as (first, end), ascending and apart, for a bdev of `total` blocks of `size` bytes. `unit` is that of
    badblocks. All of the list was looked at when this returns."""
    form = guess(listed) if form == "auto" else form
    if form == "json":
        pieces = _blocks_of_json(listed, total)
    else:
        pieces = _blocks_of_bytes(listed, PARSERS[form](listed, unit), size, total)
    merged = []
    last = -1
    for first, end in sorted(pieces):
        if first > last:
            merged.append((first, end))
            last = end
        elif end > last:
            merged[-1] = (merged[-1][0], end)
            last = end
    return merged
