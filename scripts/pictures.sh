#!/usr/bin/env bash
# Usage: scripts/pictures.sh [--help]
#
# Makes the pictures of README and docs anew, into docs/pictures:
#
#   map.svg, map-page.png   of the spare of a disk that wears out (always the same one), and the page that `remapctl map` makes of it
#   watch.png, status.png   `remapctl watch`, and the page of `remapctl serve`, of a target whose base has bad blocks, under load
#
# Needs scripts/setup.sh --dev, and the Debian package aha.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=target.sh
source "$TOP/scripts/target.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac
for program in chromium tmux; do
	command -v $program >/dev/null || die "no $program in PATH: run scripts/setup.sh --dev"
done
command -v aha >/dev/null || die "no aha in PATH: apt-get install aha"
remapctl=$TOP/scripts/remapctl
NQN=nqn.2026-01.io.bdev-remap:pictures

# In memory, as hosts would else wait for the disk.
work=$(mktemp -d -p /dev/shm)
children=()
finish() {
	tmux -S "$work/tmux.sock" kill-server 2>/dev/null || true
	[ ${#children[@]} -eq 0 ] || kill "${children[@]}" 2>/dev/null || true
	kill_target
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
pictures=$TOP/docs/pictures
mkdir -p "$pictures"
cd "$work"

# screenshot URL FILE.png WIDTH,HEIGHT
screenshot() {
	local log=$work/chromium.log
	timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
		--disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/profile" \
		--window-size="$3" --screenshot="$2" "$1" >"$log" 2>&1 || die "chromium failed: $(cat "$log")"
	[ -s "$2" ] || die "chromium made no picture: $(cat "$log")"
}

map() {
	in_top cargo run --quiet --locked -p remapctl --example worn_spare -- "$PWD/worn.img"
	"$remapctl" map worn.img --output "$pictures/map.svg" --force
	"$remapctl" map worn.img --output map.html
	screenshot "file://$work/map.html" "$pictures/map-page.png" 1280,1130
}

# A target with a base that has 3,000 bad blocks, a scrub, and a host that writes.
live() {
	local port memory
	port=$(free_port)
	truncate -s 1G base.img
	truncate -s 256M spare.img
	/usr/bin/python3 "$TOP/scripts/config.py" --base base.img --base-uuid 3f9f2bb8-02c5-4a0c-8d6f-5a9a55c0de11 --spare spare.img \
		--spare-uuid 3f9f2bb8-02c5-4a0c-8d6f-5a9a55c0de12 --export "$NQN" --port "$port" --fault-blocks 12000 --fault-stride 4 >config.json
	mapfile -t memory < <(memory_options 1024)
	start_target "$work/spdk.sock" target.log --fault "${memory[@]}" --no-pci --disable-cpumask-locks -m 0x1 -c config.json
	cat >client.json <<-JSON
		{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_nvme_attach_controller", "params": {"name": "Nvme0",
		"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "$port", "subnqn": "$NQN"}}]}]}
	JSON
	mapfile -t memory < <(memory_options 512)
	setpriv --pdeathsig TERM -- "$TOP/scripts/spdk" bdevperf "${memory[@]}" --no-pci --disable-cpumask-locks -m 0x2 -r "$work/client.sock" \
		-c client.json -q 1 -o 4096 -w randwrite -t 60 >client.log 2>&1 </dev/null &
	children+=($!)
	wait_until 30 remapped 200 || die "no block is rescued: $(cat client.log)"
	rpc "$work/spdk.sock" bdev_remap_scrub Remap0 --max-mbps 20 >/dev/null
}

# remapped COUNT: whether so many blocks are.
remapped() {
	rpc "$work/spdk.sock" bdev_remap_status Remap0 |
		/usr/bin/python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)[0]["remapped"] < int(sys.argv[1]))' "$1"
}

watching() {
	tmux -S tmux.sock capture-pane -e -p >watch.ansi
	grep -q scrub watch.ansi && remapped 600
}

watch() {
	tmux -f /dev/null -S tmux.sock new-session -d -c "$work" -x 120 -y 32 "$remapctl watch -s spdk.sock"
	wait_until 60 watching || die "watch does not show the scrub: $(cat watch.ansi)"
	aha --black --title watch -f watch.ansi |
		sed 's|<pre>|<pre style="font: 15px/1.17 DejaVu Sans Mono, monospace; margin: 12px">|' >watch.html
	screenshot "file://$work/watch.html" "$pictures/watch.png" 1110,600
}

status() {
	local port
	port=$(free_port)
	setpriv --pdeathsig TERM -- "$remapctl" serve -s spdk.sock --listen "127.0.0.1:$port" >serve.log 2>&1 </dev/null &
	children+=($!)
	wait_until 20 curl -sf -o status.html "http://127.0.0.1:$port/" || die "serve does not answer: $(cat serve.log)"
	screenshot "http://127.0.0.1:$port/" "$pictures/status.png" 1000,480
}

map
live
watch
status
say "pictures are in $pictures"
