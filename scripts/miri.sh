#!/usr/bin/env bash
# Usage: scripts/miri.sh [TEST...]
#
# Runs the tests of the remap table, which has the unsafe code of remap-core (or those with one of these in their names), under Miri. It
# goes through each of their steps, and reports what is undefined: memory that is looked at after it was freed, out of its bounds, not
# aligned, or by a pointer that has no right to; that two threads meet in without order; that is never freed. Tests with threads are run in
# 4 more orders. Needs Miri: rustup component add miri rust-src --toolchain nightly
#
# Environment: MIRI_TOOLCHAIN, if another toolchain than nightly has it; PROPTEST_CASES, of each property, are 2 unless set.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; -*) die "unknown argument $1 (see --help)" ;; esac
toolchain=${MIRI_TOOLCHAIN:-nightly}
cargo "+$toolchain" miri --version >/dev/null 2>&1 ||
	die "$toolchain Rust has no Miri: rustup component add miri rust-src --toolchain $toolchain"
cd "$TOP"

export PROPTEST_CASES=${PROPTEST_CASES:-2}
# Where there is isolation, a property cannot keep the seed of what failed.
flags="-Zmiri-disable-isolation -Zmiri-strict-provenance -Zmiri-symbolic-alignment-check"
miri=(cargo "+$toolchain" miri test --locked -p remap-core --lib --target-dir "$BUILD_DIR/miri" --)
# tests [ARGUMENTS]: the names of those of the table.
tests() { MIRIFLAGS=$flags "${miri[@]}" table:: --list --format terse "$@" | sed -n 's/: test$//p'; }
names=$(comm -23 <(tests | sort) <(tests --ignored | sort))
[ $# -eq 0 ] || names=$(grep -F "$(printf '%s\n' "$@")" <<<"$names") || die "no test of the table has $* in its name"
[ -n "$names" ] || die "there is no test of the table"

# run FLAGS NAMES: a process for each test, on all cores; what it prints comes together.
run() {
	# shellcheck disable=SC2016 # it is the shell of each test that is to expand these
	MIRIFLAGS="$flags $1" xargs -r -P "$(nproc)" -I TEST bash -c 'said=$("$@" 2>&1); status=$?; printf "%s\n" "$said"; exit "$status"' \
		run "${miri[@]}" --exact TEST <<<"$2"
}
say "== $(wc -l <<<"$names") tests, some of which take minutes"
run "" "$names"
say "== those with threads, in 4 more orders"
run -Zmiri-many-seeds=1..5 "$(grep threads <<<"$names" || true)"
say "Miri has found nothing"
