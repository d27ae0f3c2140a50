"""The bdevs that are measured, as calls of a configuration. Each configuration calls the one to be measured Dut."""

from bdev_remap_import import calls as import_calls
from bdevperf import Failed

BLOCK = 4096
MIB = 1 << 20
# Blocks of the base: 4 TiB, so that few I/Os meet one of a million remaps by chance, and what was written once is not met again.
BASE_BLOCKS = 1 << 30
# Blocks of 1 MiB, of which SPDK's concat takes whole ones.
STRIP = MIB // BLOCK
PAGE_RECORDS = 251
BASE_UUID = "6c7d2a4e-7e1f-4f0b-9a5b-0f6d1c6ba5e0"
SPARE_UUID = "6c7d2a4e-7e1f-4f0b-9a5b-0f6d1c6b5ba6"


def call(method, **params):
    return {"method": method, "params": params}


def null(name, blocks=BASE_BLOCKS, **more):
    return call("bdev_null_create", name=name, num_blocks=blocks, block_size=BLOCK, **more)


def malloc(name, blocks, **more):
    return call("bdev_malloc_create", name=name, num_blocks=blocks, block_size=BLOCK, **more)


def raw(blocks=BASE_BLOCKS):
    return [null("Dut", blocks)]


def passthru():
    return [null("Null0"), call("bdev_passthru_create", name="Dut", base_bdev_name="Null0")]


def split():
    """One part that is all of it, which SPDK calls Null0p0."""
    return [null("Null0"), call("bdev_split_create", base_bdev="Null0", split_count=1)]


def raid1():
    return [null("Null0"), null("Null1"),
            call("bdev_raid_create", name="Dut", raid_level="raid1", base_bdevs=["Null0", "Null1"])]


class Spare:
    """Where things are on a spare that has room for `remaps` blocks, as docs/format.md says."""

    def __init__(self, remaps):
        self.blocks = up_to_strip(remaps + remaps // 4 + 4096)
        room = min(max(self.blocks // 64, 64), 4096)
        self.area = next(area for area in range(room, self.blocks) if self._fits(area, room))
        self.data = self._data(area=self.area)
        self.head = 1 + 2 * self.area

    def _data(self, area):
        return self.blocks - 2 - 4 * area

    def _fits(self, area, room):
        data = self._data(area)
        return -(-(data + max(data // 8, 64)) // PAGE_RECORDS) + room <= area


def up_to_strip(blocks):
    return -(-blocks // STRIP) * STRIP


def null_spare(remaps):
    """A null bdev: what Remap writes to it is gone, which shows only where the set is loaded again."""
    return [null("Spare0", Spare(remaps).blocks, uuid=SPARE_UUID)]


def hollow_spare(remaps):
    """A spare with its metadata in memory, while I/O of its data does not go down: SPDK's concat of memory, nothing and memory,
    and bdev_fault on top, which lets what is data go nowhere."""
    spare = Spare(remaps)
    ends = up_to_strip(spare.head)
    return [
        malloc("SpareHead", ends), null("SpareMiddle", spare.blocks - 2 * ends), malloc("SpareTail", ends),
        call("bdev_raid_create", name="SpareParts", raid_level="concat", strip_size_kb=MIB // 1024,
             base_bdevs=["SpareHead", "SpareMiddle", "SpareTail"]),
        call("bdev_fault_create", name="Spare0", base_bdev="SpareParts", hollow_lba=spare.head, hollow_blocks=spare.data),
    ]


def small_spare():
    """A spare in memory, for where nothing goes to it."""
    return [malloc("Spare0", 16 * STRIP)]


def remap(spare, base=None):
    return [*(base or [null("Null0", uuid=BASE_UUID)]), *spare,
            call("bdev_remap_create", name="Dut", base_bdev="Null0", spare_bdev="Spare0", storm_limit=1 << 40)]


def remapped(extents, spare=None):
    """What prepares a process by having the blocks of (first, end) remapped, and sees to it that they are; on a hollow spare, that all
    that is data there is hollow."""
    def prepare(member):
        with member.client() as client:
            for text, _ in import_calls(extents):
                client.call("bdev_remap_import", {"name": "Dut", "extents": text})
        status = member.call("bdev_remap_status", name="Dut")[0]
        wanted = sum(end - first for first, end in extents)
        if status["remapped"] != wanted:
            raise Failed("%d blocks are remapped where %d should be" % (status["remapped"], wanted))
        if spare and status["spare"]["total"] != spare.data:
            raise Failed("the spare has %d blocks for data where %d should be: was the format changed?"
                         % (status["spare"]["total"], spare.data))
    return prepare


def spread(count, blocks=BASE_BLOCKS):
    """Single blocks, evenly over the base; in the middle of what each has for itself."""
    apart = blocks // count
    return [(index * apart + apart // 2, index * apart + apart // 2 + 1) for index in range(count)]
