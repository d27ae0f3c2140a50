#!/usr/bin/env bash
# Usage: scripts/bench.sh [--quick] [--only PARTS] [--report] [--output DIR]
#
# Measures all that docs/benchmarks.md tells, in under ten minutes after set-up, and writes the tables and plots there, and the figures
# to docs/benchmarks.json. bdevperf runs on one core; what is compared takes turns, round by round.
#
#   --quick           in two minutes, with few rounds: to see that everything works, not to believe the figures
#   --only PARTS      some of main,others,huge,rescues,slowest,zeroes,crates, with commas between them; nothing is written
#   --report          measure nothing; write tables and plots anew from docs/benchmarks.json
#   --output DIR      write to this folder instead of docs; benchmarks.md is copied there if it has none
#   -h, --help

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
options=(--top "$TOP")
measure=true
for arg in "$@"; do
	case "$arg" in
	-h | --help) usage; exit 0 ;;
	--report) measure=false ;;
	esac
done

"$TOP/scripts/setup.sh" --bench
spdk=$(spdk_dir)
if $measure; then
	"$TOP/scripts/remap_tgt.sh"
	# What cargo measures is built before the time runs.
	say "building the benchmarks of the crates"
	in_top cargo bench --quiet --no-run --locked -p remap-core --bench table
	in_top cargo test --quiet --no-run --release --locked -p remap-core --test table_memory --test commit_pace
	# For all that are there at the same time. What is reserved for that is given back in the end.
	reserved=$(cat /proc/sys/vm/nr_hugepages)
	[[ $(memory_options 5632 | head -n 1) != --huge-unlink ]] || options+=(--huge)
	options+=(--spdk "$TOP/scripts/spdk" --spdk-version "$(cat "$spdk/VERSION")")
fi
export PYTHONPATH=$TOP/rpc:$spdk/python PYTHONDONTWRITEBYTECODE=1
/usr/bin/python3 "$TOP/scripts/bench" "${options[@]}" "$@" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' INT TERM
status=0
wait "$pid" || status=$?
# A signal ends the waiting, but not what is waited for.
while kill -0 "$pid" 2>/dev/null; do
	wait "$pid" || status=$?
done
! $measure || ! [ -w /proc/sys/vm/nr_hugepages ] || echo "$reserved" >/proc/sys/vm/nr_hugepages
exit "$status"
