#!/usr/bin/env bash
# Usage: scripts/tsan.sh [TEST...]
#
# Runs the end-to-end tests that run on two reactors (or those of these files in tests/tests, for example: rescue kill) with both
# libraries, SPDK and DPDK built under ThreadSanitizer. Needs a nightly Rust with rust-src, and gcc's libtsan. The first run builds
# that SPDK, a second one, which takes as long as the first. Any report fails the run, unless tsan.supp says why it may be.
#
# Environment: as for the tests, but it always has an SPDK of its own; E2E_KILL_ROUNDS and E2E_POWER_ROUNDS are 3, and E2E_LIFE_MS is
# 1000, unless set: it all goes about ten times slower.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; -*) die "unknown argument $1 (see --help)" ;; esac
# shellcheck source=sanitize.sh
source "$TOP/scripts/sanitize.sh"

[ -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ] ||
	die "nightly Rust has no rust-src: rustup component add rust-src --toolchain nightly"
TWO_REACTORS=(kill storm rescue under_load reset removal)
"$TOP/scripts/setup.sh"
"$TOP/scripts/get-spdk.sh" --tsan
cd "$TOP"
spdk=$(SPDK_DIR=$CACHE/spdk-tsan spdk_dir)
# The standard library is built as well, as its atomics and locks must be seen. Where LLVM would call functions of its own for
# copies, memcpy itself is called: gcc's libtsan, which comes with spdk_tgt, knows that one only.
SPDK_DIR=$spdk build_sanitized thread -Cllvm-args=-tsan-instrument-memintrinsics=0 -Zbuild-std=std,panic_abort

export E2E_KILL_ROUNDS=${E2E_KILL_ROUNDS:-3} E2E_POWER_ROUNDS=${E2E_POWER_ROUNDS:-3} E2E_LIFE_MS=${E2E_LIFE_MS:-1000}
[ $# -gt 0 ] || set -- "${TWO_REACTORS[@]}"
# Without random addresses: on some kernels they are where gcc's libtsan has its own memory.
test_sanitized thread "SPDK_DIR=$spdk TSAN_OPTIONS=suppressions=$TOP/scripts/tsan.supp:history_size=4:log_path=$REPORTS/tsan setarch -R" "$@"
