# shellcheck shell=bash
# Shared by the scripts in this folder; sourced, never run.
# Knows where things are: the project, its cache, the SPDK in use, the built library.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/bdev-remap
# For all that is started from here, wherever.
[ -z "${CARGO_TARGET_DIR:-}" ] || CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")
BUILD_DIR=${CARGO_TARGET_DIR:-$TOP/target}
PROFILE=${PROFILE:-release}
LIBRARIES=${BDEV_REMAP_LIBRARIES:-$BUILD_DIR/$PROFILE}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# in_top COMMAND...: run it in the project's folder, as cargo looks for .cargo/config.toml where it is started.
in_top() { (cd "$TOP" && "$@"); }

# usage: print the comment block at the top of the calling script.
usage() { sed -n '2,/^$/{/^#/s/^# \{0,1\}//p}' "$0"; }

# spdk_dir: the SPDK tree in use: the user's own (SPDK_DIR), else the one that setup.sh built.
spdk_dir() {
	local dir=${SPDK_DIR:-$CACHE/spdk}
	[ -d "$dir" ] || die "no SPDK at $dir: run scripts/setup.sh, or set SPDK_DIR to a tree built --with-shared"
	(cd "$dir" && pwd -P)
}

# run_logged WHAT LOG COMMAND...: run it with its output in LOG; say every few seconds that it is still going on;
# when it fails, show the end of the log.
run_logged() {
	local what=$1 log=$2 start=$SECONDS next=10 pid status=0
	shift 2
	"$@" >>"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		if [ $((SECONDS - start)) -ge "$next" ]; then
			say "  $what: $((SECONDS - start)) s, $(wc -l <"$log") lines in the log"
			next=$((next + 20))
		fi
		sleep 0.2
	done
	wait "$pid" || status=$?
	if [ "$status" -ne 0 ]; then
		tail -n 30 "$log" >&2
		die "$what failed (exit $status); the whole log is $log"
	fi
	say "  $what: done in $((SECONDS - start)) s"
}

# library_path SPDK: what LD_LIBRARY_PATH must hold for SPDK's shared applications (their RUNPATH names only some of it).
library_path() {
	local spdk=$1 path="" dir
	for dir in build/lib build/libvfio-user/usr/local/lib dpdk/build/lib isa-l/.libs isa-l-crypto/.libs; do
		[ ! -d "$spdk/$dir" ] || path+=${path:+:}$spdk/$dir
	done
	printf '%s\n' "$path"
}

# plugin_library NAME: the built libNAME.so.
plugin_library() {
	local lib=$LIBRARIES/lib$1.so
	[ -f "$lib" ] || die "$lib is not built: run scripts/setup.sh"
	printf '%s\n' "$lib"
}

# rpc SOCKET METHOD ARGS...: SPDK's rpc.py with the plugin of this project. Debian's python3 has all that it needs.
rpc() {
	local socket=$1
	shift
	PYTHONPATH=$TOP/rpc${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 "$(spdk_dir)/scripts/rpc.py" -s "$socket" --plugin bdev_remap_rpc "$@"
}

# free_port: a TCP port on 127.0.0.1 that nobody has.
free_port() {
	/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# memory_options MIB: the options that give an SPDK application MIB of memory, one a line: from hugepages where they can be had
# (free ones, or, as root, newly reserved ones as long as that takes no more than a quarter of the available memory), else without.
memory_options() {
	local mib=$1 page_kib free total missing available
	page_kib=$(awk '/^Hugepagesize:/ {print $2}' /proc/meminfo)
	if [ "${page_kib:-0}" -eq 2048 ] && [ -z "${NO_HUGE:-}" ]; then
		free=$(awk '/^HugePages_Free:/ {print $2}' /proc/meminfo)
		total=$(awk '/^HugePages_Total:/ {print $2}' /proc/meminfo)
		available=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
		missing=$((mib / 2 - free))
		if [ "$missing" -gt 0 ] && [ -w /proc/sys/vm/nr_hugepages ] && [ $((missing * page_kib)) -le $((available / 4)) ]; then
			echo $((total + missing)) 2>/dev/null >/proc/sys/vm/nr_hugepages || true
			free=$(awk '/^HugePages_Free:/ {print $2}' /proc/meminfo)
			missing=$((mib / 2 - free))
		fi
		if [ "$missing" -le 0 ] && hugetlbfs; then
			printf '%s\n' --huge-unlink -s "$mib"
			return
		fi
	fi
	printf '%s\n' --no-huge -s "$mib"
}

# hugetlbfs: is one mounted, or could it be?
hugetlbfs() {
	grep -q ' hugetlbfs ' /proc/mounts && return 0
	[ "$(id -u)" -eq 0 ] || return 1
	mkdir -p /dev/hugepages 2>/dev/null && mount -t hugetlbfs nodev /dev/hugepages 2>/dev/null
}

# wait_until SECONDS COMMAND...: run COMMAND until it succeeds; fails when the time is over.
wait_until() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}
