# shellcheck shell=bash
# Sourced by run.sh and demo.sh, after lib.sh: starts and stops one spdk_tgt, always by its pid.

TARGET_PID=""

# start_target SOCKET LOG [--fault] ARGS...: starts spdk_tgt in the background (TARGET_PID) and waits until it serves.
# Fails, with what the log says, if it does not.
start_target() {
	local socket=$1 log=$2 fault=()
	shift 2
	[ "${1:-}" != --fault ] || { fault=(--fault); shift; }
	rm -f "$socket"
	# Should this shell be killed, the target gets SIGTERM. All of these become the next by exec: one pid.
	setpriv --pdeathsig TERM -- "$TOP/scripts/spdk" "${fault[@]}" spdk_tgt -r "$socket" "$@" >"$log" 2>&1 </dev/null &
	TARGET_PID=$!
	if ! wait_until 60 target_settled "$socket"; then
		kill_target
		printf 'error: spdk_tgt does not answer at %s after 60 s; its log is %s\n' "$socket" "$log" >&2
		return 1
	fi
	if ! kill -0 "$TARGET_PID" 2>/dev/null; then
		TARGET_PID=""
		grep -aE 'ERROR|rror' "$log" | tail -n 12 >&2 || tail -n 12 "$log" >&2
		printf 'error: spdk_tgt did not start; its whole log is %s\n' "$log" >&2
		return 1
	fi
}

# target_settled SOCKET: it serves (its configuration is all in place), or it has ended.
target_settled() {
	kill -0 "$TARGET_PID" 2>/dev/null || return 0
	[ -S "$1" ] && rpc "$1" -t 60 framework_wait_init >/dev/null 2>&1
}

# stop_target: SIGTERM, and waits for its end; yields its exit code.
stop_target() {
	local status=0
	[ -n "$TARGET_PID" ] || return 0
	kill -TERM "$TARGET_PID" 2>/dev/null || true
	# A signal to this shell interrupts wait: go on waiting as long as the target is there.
	while kill -0 "$TARGET_PID" 2>/dev/null; do
		wait "$TARGET_PID" 2>/dev/null || true
	done
	wait "$TARGET_PID" 2>/dev/null || status=$?
	TARGET_PID=""
	return "$status"
}

# kill_target: kill -9.
kill_target() {
	[ -n "$TARGET_PID" ] || return 0
	kill -KILL "$TARGET_PID" 2>/dev/null || true
	wait "$TARGET_PID" 2>/dev/null || true
	TARGET_PID=""
}
