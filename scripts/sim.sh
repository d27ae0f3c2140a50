#!/usr/bin/env bash
# Usage: scripts/sim.sh [--seconds N | --crashes N | --seed S | --damage N [--both] | --mutations] [--migrate] [--first S] [--threads N]
#
# Simulates the durability promise (docs/reliability.md): the code of production on simulated disks that fail, lie, rot, and lose
# power, on all cores. Needs no SPDK. Prints how often each kind of fault and of crash point was met, seeds a second, and crashes
# survived. Fails if anything acknowledged was lost, and shows the shortest trace found that still fails; or if after 20,000 seeds
# some kind was never met.
#
#   --seconds N   for so long (60 if nothing is said)
#   --crashes N   until so many crashes were survived
#   --seed S      only this seed; if it fails, its shortest trace
#   --first S     begin with this seed, not 0
#   --damage N    damage one copy of the metadata after a random history, so often; both copies with --both
#   --threads N   on so many threads, not on all cores
#   --migrate     migrations with crashes in them instead: what survived is counted only where it was inside of one
#   --mutations   instead: show that each bug on purpose is found
#
# Environment: RUST_LOG=info shows what the engine logs, best with --seed.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
features=()
for arg in "$@"; do
	case "$arg" in
	-h | --help) usage; exit 0 ;;
	--mutations) features=(--features mutations) ;;
	esac
done
cd "$TOP"
# A panic is a failure like any other, and assertions count. In a directory of its own, as everything is built differently.
export CARGO_PROFILE_RELEASE_PANIC=unwind CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=8
cargo build --quiet --locked --release --target-dir "$BUILD_DIR/sim" -p remap-sim "${features[@]}"
exec "$BUILD_DIR/sim/release/remap-sim" "$@"
