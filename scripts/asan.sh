#!/usr/bin/env bash
# Usage: scripts/asan.sh [TEST...]
#
# Runs end-to-end tests (all, or those of these files in tests/tests, for example: rescue kill) with both libraries built under
# AddressSanitizer. Needs a nightly Rust and gcc's libasan, which is preloaded. What is checked is the code of this project, and, by
# malloc, what it hands to SPDK; SPDK itself is not instrumented. Any report fails the run.
#
# Environment: as for the tests; E2E_KILL_ROUNDS and E2E_POWER_ROUNDS are 20 unless set.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; -*) die "unknown argument $1 (see --help)" ;; esac

triple=$(rustc -vV | awk '/^host:/ {print $2}')
runtime=$(readlink -f "$(gcc -print-file-name=libasan.so)")
[ -f "$runtime" ] || die "gcc has no libasan.so: install its development package"
cargo +nightly --version >/dev/null 2>&1 || die "no nightly Rust: rustup toolchain install nightly"

"$TOP/scripts/setup.sh"
cd "$TOP"
# A target of its own name, so that build scripts and macros are built without the sanitizer.
RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes" cargo +nightly build --locked --release --target "$triple" --target-dir "$BUILD_DIR/asan" -p bdev_remap -p bdev_fault

reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
# The tests themselves are built as ever; the runner's environment goes from them to the target that they start.
variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_RUNNER
# Preloaded behind the libraries, as scripts/spdk does it: that is first enough, as nothing before it has malloc.
runner="env PROFILE=release CARGO_TARGET_DIR=$BUILD_DIR/asan/$triple LD_PRELOAD=$runtime"
runner+=" ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:log_path=$reports/asan"
which=()
for test in "$@"; do which+=(--test "$test"); done
[ ${#which[@]} -gt 0 ] || which=(--tests)
status=0
env "$variable=$runner" E2E_KILL_ROUNDS="${E2E_KILL_ROUNDS:-20}" E2E_POWER_ROUNDS="${E2E_POWER_ROUNDS:-20}" \
	cargo test --locked -p e2e "${which[@]}" --no-fail-fast || status=$?
if compgen -G "$reports/*" >/dev/null; then
	cat "$reports"/*
	die "AddressSanitizer has found something"
fi
say "AddressSanitizer has found nothing"
exit "$status"
