#!/usr/bin/env bash
# Usage: scripts/demo.sh [--help]     (as scripts/run.sh --demo)
#
# The main job on real input, in ./data/demo: a base with bad blocks (bdev_fault: NVMe write fault 2/80h on writes, unrecovered read
# error 2/81h on reads), a real file written to Remap0 over NVMe/TCP by SPDK's spdk_dd in another process, kill -9 of the target,
# a new start, the file read back over NVMe/TCP and compared. Exits 0 only if all of it held. The faults stay on throughout.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=target.sh
source "$TOP/scripts/target.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac

MIB=64
BLOCKS=$((MIB * 256)) # of 4096 bytes
STRIDE=100
BAD=$(((BLOCKS - STRIDE / 2 + STRIDE - 1) / STRIDE)) # as scripts/config.py places them
NQN=nqn.2026-01.io.bdev-remap:demo
PLAIN_NQN=nqn.2026-01.io.bdev-remap:demo-plain

begin=$SECONDS
dir=$TOP/data/demo
mkdir -p "$dir"
exec 8>"$dir/lock"
flock -n 8 || die "another demo runs in $dir"
find "$dir" -mindepth 1 ! -name lock -delete
socket=$dir/spdk.sock

finish() {
	local status=$?
	trap - EXIT
	kill_target
	rm -f "$dir"/*.img "$dir"/file.* "$dir"/*.sock
	[ "$status" -eq 0 ] || say "FAILED (exit $status); the logs are in $dir"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '[%2d s] %s\n' $((SECONDS - begin)) "$*"; }

port=$(free_port)
mapfile -t memory < <(memory_options 1024)
# Without a trace: what is killed would leave its file in shared memory.
common=(--no-pci --disable-cpumask-locks --num-trace-entries 0)
client_mask=0x1
[ "$(nproc)" -lt 2 ] || client_mask=0x2

start() {
	start_target "$socket" "$dir/spdk_tgt.$1.log" --fault "${memory[@]}" "${common[@]}" -m 0x1 -c "$dir/config.json"
}

# client NQN LOG ARGS...: SPDK's dd in a process of its own, with the subsystem attached as Nvme0.
client() {
	local nqn=$1 log=$dir/$2
	shift 2
	cat >"$dir/client.json" <<-JSON
		{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_nvme_attach_controller", "params": {"name": "Nvme0",
		"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "$port", "subnqn": "$nqn"}}]}]}
	JSON
	"$TOP/scripts/spdk" spdk_dd "${client_memory[@]}" "${common[@]}" -m "$client_mask" -r "$dir/client.sock" -c "$dir/client.json" \
		--aio --bs 65536 "$@" >"$log" 2>&1 </dev/null
}

step "a real file: $MIB MiB of a tar of /usr"
{ tar -cf - /usr/share /usr/bin /usr/lib 2>/dev/null || true; } | head -c "${MIB}M" >"$dir/file.in" || true
[ "$(stat -c %s "$dir/file.in")" -eq $((MIB << 20)) ] || die "/usr has less than $MIB MiB to offer"
sum_in=$(sha256sum <"$dir/file.in")

truncate -s 256M "$dir/base.img" "$dir/plain.img"
truncate -s 64M "$dir/spare.img"
/usr/bin/python3 "$TOP/scripts/config.py" --base "$dir/base.img" --base-uuid 3f9f2bb8-02c5-4a0c-8d6f-5a9a55c0de01 \
	--spare "$dir/spare.img" --spare-uuid 3f9f2bb8-02c5-4a0c-8d6f-5a9a55c0de02 --export $NQN --port "$port" \
	--fault-blocks $BLOCKS --fault-stride $STRIDE --plain "$dir/plain.img" --plain-export $PLAIN_NQN >"$dir/config.json"

start 1
# Only now: until the target has its memory, hugepages that it will take look free.
mapfile -t client_memory < <(memory_options 512)
step "spdk_tgt runs (pid $TARGET_PID); every ${STRIDE}th block of the base is bad: $BAD blocks in the range of the file"

# failed BDEV: the I/O of this bdev that failed since the target was started, as the target counts it. (spdk_dd goes on, and exits 0, when
# an I/O fails; every failed command is retried some times.)
failed() {
	rpc "$socket" bdev_get_iostat -b "$1" |
		/usr/bin/python3 -c 'import json, sys; print(sum(json.load(sys.stdin)["bdevs"][0]["io_error"].values()))'
}

client $PLAIN_NQN plain.log --if "$dir/file.in" --ob Nvme0n1 || true
plain_failed=$(failed PlainFault0)
[ "$plain_failed" -gt 0 ] || die "no write to the plain base failed, so the faults do not work"
step "without Remap0, the same bad blocks: $plain_failed commands failed"

client $NQN write.log --if "$dir/file.in" --ob Nvme0n1 || { tail -n 20 "$dir/write.log" >&2; die "writing the file to Remap0 failed"; }
write_failed=$(failed Remap0)
[ "$write_failed" -eq 0 ] || die "$write_failed commands of the write to Remap0 failed; see $dir/write.log"
step "through Remap0: the file is written over NVMe/TCP, 0 commands failed"
rpc "$socket" bdev_remap_status Remap0 --table | sed 's/^/       /'
remapped() { rpc "$socket" bdev_remap_status Remap0 | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["remapped"])'; }
before=$(remapped)
[ "$before" -eq "$BAD" ] || die "$before blocks are remapped instead of $BAD"

pid=$TARGET_PID
kill_target
step "kill -9 $pid"
cmp -s -n $((MIB << 20)) "$dir/file.in" "$dir/base.img" && die "the base itself holds all of the file: nothing was rescued"
start 2
step "started again (pid $TARGET_PID), the same blocks are bad"
after=$(remapped)
[ "$after" -eq "$before" ] || die "$before blocks were remapped before the kill, $after are now"

client $NQN read.log --ib Nvme0n1 --of "$dir/file.out" --count $((MIB * 16)) ||
	{ tail -n 20 "$dir/read.log" >&2; die "reading the file from Remap0 failed"; }
read_failed=$(failed Remap0)
[ "$read_failed" -eq 0 ] || die "$read_failed commands of the read from Remap0 failed; see $dir/read.log"
sum_out=$(sha256sum <"$dir/file.out")
step "SHA-256 written   ${sum_in%% *}"
step "SHA-256 read back ${sum_out%% *}"
[ "$sum_in" = "$sum_out" ] || die "the file that was read back differs"

stop_target || die "spdk_tgt did not stop cleanly; see $dir/spdk_tgt.2.log"
step "all held: $after bad blocks, no data lost"
