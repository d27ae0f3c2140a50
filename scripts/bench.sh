#!/usr/bin/env bash
# Usage: scripts/bench.sh [--rounds N] [--seconds S] [--depth Q] [--block BYTES] [--markdown FILE]
#
# What does Remap cost when nothing is remapped? bdevperf on one core over a null bdev (which does nothing, so that only the path
# is measured): random reads and random writes, on the raw bdev, through SPDK's passthru and through Remap, interleaved round by
# round. Prints medians, the range, and the medians of the ratios within each round.
#
#   --rounds N        rounds (default 7); each measures all six cases once, in changing order
#   --seconds S       seconds of each measurement (default 3)
#   --depth Q         queue depth (default 128)
#   --block BYTES     I/O size (default 4096, which is also the block size)
#   --markdown FILE   write the table there too
#   -h, --help

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
for arg in "$@"; do
	case "$arg" in -h | --help) usage; exit 0 ;; esac
done

"$TOP/scripts/setup.sh"
mapfile -t memory < <(memory_options 1024)
mask=0x1
[ "$(nproc)" -lt 2 ] || mask=0x2
exec /usr/bin/python3 "$TOP/scripts/bench.py" "$@" -- "$TOP/scripts/spdk" bdevperf "${memory[@]}" --no-pci --disable-cpumask-locks -m "$mask"
