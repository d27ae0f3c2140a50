#!/usr/bin/env bash
# Usage: scripts/test.sh [--help] [FILTER]
#
# Sets everything up and runs all tests: formatting, clippy, ruff, shellcheck, rustdoc, the tests of the crates, those of the
# simulator with bugs on purpose, loom, the instructions of the hot paths, and the end-to-end tests with the real spdk_tgt. With FILTER: only the
# tests whose name holds it, and nothing else.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; -*) die "unknown argument $1 (see --help)" ;; esac
filter=("$@")

# Where everything is compiled once, from nothing, what would serve the next time takes a quarter longer.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

begin=$SECONDS
step() { printf '== [%3d s] %s\n' $((SECONDS - begin)) "$*"; }

step "set-up"
"$TOP/scripts/setup.sh" --dev
step "spdk_tgt with bdev_remap linked in"
"$TOP/scripts/remap_tgt.sh"
cd "$TOP"

if [ ${#filter[@]} -eq 0 ]; then
	step "formatting"
	cargo fmt --all --check
	step "clippy"
	cargo clippy --locked --workspace --all-targets -- -D warnings
	step "plugin and scripts"
	"$CACHE/ruff/bin/ruff" check --no-cache rpc scripts
	shellcheck -x -P SCRIPTDIR scripts/*.sh scripts/spdk scripts/rpc scripts/remapctl scripts/guest .ci/run
	step "documentation of the crates"
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --exclude e2e --no-deps --document-private-items --quiet
fi

step "tests of the crates"
cargo test --locked --workspace --exclude e2e --exclude remap-sim --no-fail-fast -- "${filter[@]}"
step "tests of the simulator, with bugs on purpose that it has to find"
cargo test --locked -p remap-sim --features mutations --no-fail-fast -- "${filter[@]}"
if [ ${#filter[@]} -eq 0 ]; then
	step "publishing and reclaiming of the remap table, in every order (loom)"
	loom=(env RUSTFLAGS="--cfg loom" cargo test --locked -p remap-core --lib --profile quick --target-dir "$BUILD_DIR/loom" --)
	names=$("${loom[@]}" loom --list --format terse | sed -n 's/: test$//p')
	[ -n "$names" ] || die "there is no test of loom"
	# A process for each: what one test maps and unmaps, as it does all the time, holds up the other threads of its process.
	xargs -P "$(nproc)" -I TEST "${loom[@]}" --exact TEST <<<"$names"
	step "instructions of lookups, routes and rescues"
	"$TOP/scripts/instructions.sh"
fi
step "end-to-end tests with the real spdk_tgt"
cargo test --locked -p e2e --tests --no-fail-fast -- "${filter[@]}"
