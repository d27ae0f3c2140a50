#!/usr/bin/env bash
# Usage: scripts/run.sh [OPTIONS] [-- SPDK_TGT_ARGS...]
#        scripts/run.sh --demo
#
# Sets everything up and runs SPDK's spdk_tgt with bdev_remap: Remap0 over a base and a spare, exported over NVMe/TCP on
# 127.0.0.1. Without options the base and the spare are two files in ./data, made when they are not there (sparse, 1 GiB and
# 64 MiB). Ctrl-C stops it; started again, it finds its data and its remaps again.
#
#   --base FILE|/dev/X    use this base instead (it is never formatted; its blocks are served as they are)
#   --spare FILE|/dev/X   use this spare instead (formatted only if its superblocks are all zero)
#   --config JSON         start with your own SPDK configuration instead; nothing is made, nothing added
#   --fault               load bdev_fault too, for drills with a configuration of your own
#   --no-export           do not export Remap0
#   --port N              TCP port of the export (default 4420)
#   --dir DIR             where files, RPC socket, log and pid are kept (default ./data)
#   --cpumask MASK        cores to poll on (default 0x1)
#   --memory MIB          memory of the target (default 1024); hugepages where they can be had
#   --no-huge             do not use hugepages
#   --demo                show the main job: bad blocks, kill -9, restart, same data (uses ./data/demo only)
#   -h, --help
#
# What follows -- goes to spdk_tgt as it is, for example: scripts/run.sh -- -L bdev_remap

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=target.sh
source "$TOP/scripts/target.sh"

NQN=nqn.2026-01.io.bdev-remap:remap0
BASE_UUID=6c7d2a4e-7e1f-4f0b-9a5b-0f6d1c6ba5e0
SPARE_UUID=6c7d2a4e-7e1f-4f0b-9a5b-0f6d1c6b5ba6

base="" spare="" config="" export=yes port=4420 dir=$TOP/data mask=0x1 memory=1024 demo="" fault=() given=()
need() { [ -n "${2:-}" ] || die "$1 needs a value (see --help)"; }
while [ $# -gt 0 ]; do
	case "$1" in
	--base) need "$@"; base=$2; given+=("$1"); shift ;;
	--spare) need "$@"; spare=$2; given+=("$1"); shift ;;
	--config) need "$@"; config=$2; shift ;;
	--fault) fault=(--fault) ;;
	--no-export) export=""; given+=("$1") ;;
	--port) need "$@"; port=$2; given+=("$1"); shift ;;
	--dir) need "$@"; dir=$2; shift ;;
	--cpumask) need "$@"; mask=$2; shift ;;
	--memory) need "$@"; memory=$2; shift ;;
	--no-huge) export NO_HUGE=yes ;;
	--demo) demo=yes ;;
	-h | --help) usage; exit 0 ;;
	--) shift; break ;;
	*) die "unknown argument $1 (see --help)" ;;
	esac
	shift
done

[ -z "$demo" ] || [ -z "${given[*]}$config" ] || die "--demo takes no other options"
[ -z "$config" ] || [ ${#given[@]} -eq 0 ] || die "--config does not go with ${given[*]}: your configuration says it all"
[[ $port =~ ^[1-9][0-9]{0,4}$ ]] || die "--port $port is no TCP port"
[[ $memory =~ ^[1-9][0-9]*$ ]] || die "--memory $memory is no number of MiB"
[ -z "$config" ] || [ -r "$config" ] || die "--config $config: no such file"

"$TOP/scripts/setup.sh"
[ -z "$demo" ] || exec "$TOP/scripts/demo.sh"

mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
socket=$dir/spdk.sock log=$dir/spdk_tgt.log
[ ${#socket} -le 100 ] || die "$socket is too long for a Unix socket (100 bytes): choose another --dir"
# Held by the target too, so that it holds as long as either lives.
exec 8>"$dir/lock"
flock -n 8 || die "a target runs in $dir already (pid $(cat "$dir/pid" 2>/dev/null || echo unknown)); stop it, or give another --dir"

# identity PATH DEFAULT_PATH DEFAULT_UUID: the UUID of an AIO bdev must stay the same from start to start: fixed for the files made
# here, else from the device's serial number, or from the path where there is none.
identity() {
	local name serial
	name=$(realpath "$1")
	if [ "$name" = "$2" ]; then
		echo "$3"
		return
	fi
	if [ -b "$name" ]; then
		serial=$(lsblk -dno WWN,SERIAL "$name" 2>/dev/null | tr -s ' ') || true
		[ -z "${serial// /}" ] || name="serial:$serial"
	fi
	/usr/bin/python3 -c 'import sys, uuid; print(uuid.uuid5(uuid.NAMESPACE_URL, "bdev-remap:" + sys.argv[1]))' "$name"
}

# make_file PATH SIZE: a sparse file, unless it is there.
make_file() {
	[ -e "$1" ] || { truncate -s "$2" "$1" && say "made $1 ($2, sparse)"; }
}

if [ -z "$config" ]; then
	[ -n "$base" ] || { base=$dir/base.img; make_file "$base" 1G; }
	[ -n "$spare" ] || { spare=$dir/spare.img; make_file "$spare" 64M; }
	[ -e "$base" ] || die "--base $base: no such file or device"
	[ -e "$spare" ] || die "--spare $spare: no such file or device"
	[ "$(realpath "$base")" != "$(realpath "$spare")" ] || die "base and spare are the same: $base"
	block_size=4096
	[ ! -b "$base" ] || block_size=$(blockdev --getss "$base")
	config=$dir/config.json
	/usr/bin/python3 "$TOP/scripts/config.py" --base "$(realpath "$base")" --base-uuid "$(identity "$base" "$dir/base.img" $BASE_UUID)" \
		--spare "$(realpath "$spare")" --spare-uuid "$(identity "$spare" "$dir/spare.img" $SPARE_UUID)" \
		--block-size "$block_size" ${export:+--export "$NQN" --port "$port"} >"$config"
	pci=(--no-pci)
else
	pci=() export=""
fi

# However this ends, the target ends too.
interrupted=""
trap 'interrupted=yes' INT TERM
trap 'stop_target || true' EXIT
mapfile -t options < <(memory_options "$memory")
start_target "$socket" "$log" "${fault[@]}" "${options[@]}" "${pci[@]}" --disable-cpumask-locks -m "$mask" -c "$config" "$@" ||
	{ [ -n "$interrupted" ] && say "stopped" && exit 0; exit 1; }
echo "$TARGET_PID" >"$dir/pid"

if [ -z "$interrupted" ]; then
	say ""
	say "spdk_tgt runs with bdev_remap: pid $TARGET_PID, log $log"
	rpc "$socket" bdev_remap_status --table | sed 's/^/  /'
	[ -z "$export" ] || say "reach it:  nvme connect -t tcp -a 127.0.0.1 -s $port -n $NQN"
	say "manage it: scripts/rpc -s $socket bdev_remap_status"
	say "stop it:   Ctrl-C, or kill $TARGET_PID"
fi

while [ -z "$interrupted" ] && kill -0 "$TARGET_PID" 2>/dev/null; do
	wait "$TARGET_PID" || true
done
[ -z "$interrupted" ] || say "stopping"
status=0
stop_target || status=$?
rm -f "$dir/pid" "$socket"
[ "$status" -eq 0 ] || die "spdk_tgt ended with exit code $status; its log is $log"
say "stopped"
