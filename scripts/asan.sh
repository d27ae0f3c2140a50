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
# shellcheck source=sanitize.sh
source "$TOP/scripts/sanitize.sh"

runtime=$(readlink -f "$(gcc -print-file-name=libasan.so)")
[ -f "$runtime" ] || die "gcc has no libasan.so: install its development package"

"$TOP/scripts/setup.sh"
cd "$TOP"
build_sanitized address -Cforce-frame-pointers=yes

export E2E_KILL_ROUNDS=${E2E_KILL_ROUNDS:-20} E2E_POWER_ROUNDS=${E2E_POWER_ROUNDS:-20}
# Preloaded behind the libraries, as scripts/spdk does it: that is first enough, as nothing before it has malloc.
test_sanitized address "LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:log_path=$REPORTS/asan" "$@"
