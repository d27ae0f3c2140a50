#!/usr/bin/env bash
# Usage: scripts/pictures.sh [--help]
#
# Makes the pictures of README and docs anew, into docs/pictures: map.svg, of the spare of a disk that wears out (always the same one), and
# map-page.png, the page that `remapctl map` makes of it, as Chromium shows it.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac
command -v chromium >/dev/null || die "no chromium in PATH: run scripts/setup.sh --dev"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pictures=$TOP/docs/pictures
mkdir -p "$pictures"
cd "$work"

# screenshot FILE.html FILE.png WIDTH,HEIGHT
screenshot() {
	local log=$work/chromium.log
	timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
		--disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" \
		--window-size="$3" --screenshot="$2" "file://$work/$1" >"$log" 2>&1 || die "chromium failed: $(cat "$log")"
	[ -s "$2" ] || die "chromium made no picture: $(cat "$log")"
}

map() {
	cargo run --quiet --locked --manifest-path "$TOP/Cargo.toml" -p remapctl --example worn_spare -- worn.img
	remapctl() { cargo run --quiet --locked --manifest-path "$TOP/Cargo.toml" -p remapctl --bin remapctl -- "$@"; }
	remapctl map worn.img --output "$pictures/map.svg" --force
	remapctl map worn.img --output map.html
	screenshot map.html "$pictures/map-page.png" 1280,1130
}

map
say "pictures are in $pictures"
