#!/usr/bin/env bash
# Usage: scripts/remap_tgt.sh [--help] [--shared-spdk]
#
# Builds spdk_tgt and bdevperf with bdev_remap linked in, of the objects and libraries of the SPDK in use: programs that need
# nothing preloaded, and with SPDK linked in as well no LD_LIBRARY_PATH either. This is what production would run. They are made in
# target/release/static; what is there is made anew only when something has changed.
#
#   --shared-spdk   link against SPDK's shared libraries instead; made in target/release/shared-spdk
#   -h, --help
#
# APP_FLAVOUR=static (or shared-spdk) has scripts/spdk, and with it all other scripts and the end-to-end tests, start these programs:
#
#   APP_FLAVOUR=static scripts/spdk bdevperf -c config.json -q 128 -o 4096 -w randread -t 10 -T Remap0
#   APP_FLAVOUR=static cargo test -p e2e rescue::
#
# The other applications (nvmf_tgt, vhost, iscsi_tgt, spdk_dd, bdevio) are the stock ones with the library preloaded, as ever.
# bdev_fault is never linked in: for tests and drills it is preloaded into these programs, too; they export the functions of SPDK.
#
# Environment: as for setup.sh, which is run first (with BDEV_REMAP_LIBRARIES, libbdev_remap.a is taken from that folder, and the programs
# are made below it); CC, the compiler that links.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
flavour=static
case "${1:-}" in -h | --help) usage; exit 0 ;; --shared-spdk) flavour=shared-spdk ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac

"$TOP/scripts/setup.sh"
spdk=$(spdk_dir)
out=$LIBRARIES/$flavour
module=$LIBRARIES/libbdev_remap.a
[ -f "$module" ] || die "$module is not there: cargo build --release -p bdev_remap makes it, beside libbdev_remap.so"
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

# package ARGS...: asks pkg-config about this SPDK.
package() { PKG_CONFIG_PATH=$spdk/build/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} pkg-config "$@"; }

# parts PROGRAM: which of SPDK's libraries a stock application is made of. Each has a pkg-config file of its name.
parts() { readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[lib\(spdk_[^.]*\)\.so.*/\1/p'; }

# static_of_its_own LIBRARIES...: the same, but those that lie in a folder named before (-L: isa-l, in SPDK's own tree) as static ones.
static_of_its_own() {
	local word dir dirs=()
	for word in "$@"; do
		case "$word" in
		-L*) dirs+=("${word#-L}") ;;
		-l*)
			for dir in "${dirs[@]}"; do
				[ ! -f "$dir/lib${word#-l}.a" ] || { word=$dir/lib${word#-l}.a; break; }
			done
			;;
		esac
		printf '%s\n' "$word"
	done
}

# link_app PROGRAM OBJECT: makes the program of this flavour that corresponds to a stock one.
link_app() {
	local stock=$1 object=$2 name program names words spdk_libraries system command folders key
	name=$(basename "$stock")
	program=$out/$name
	[ -f "$object" ] || die "$object is not there: run make in $spdk"
	mapfile -t names < <(parts "$stock")
	[ ${#names[@]} -gt 0 ] || die "$stock needs no libspdk_*.so: rebuild SPDK with './configure --with-shared && make'"
	words=$(package --libs "${names[@]}") || die "$spdk/build/lib/pkgconfig does not describe all that $stock is made of: run make in $spdk"
	read -ra spdk_libraries <<<"$words"
	words=$(package --libs --static spdk_syslibs) || die "$spdk/build/lib/pkgconfig has no spdk_syslibs.pc: run make in $spdk"
	read -ra system <<<"$words"

	command=("${CC:-cc}" -pthread "-Wl,-z,relro,-z,now,-z,noexecstack" -o "$program.new" "$object")
	# The constructor of the module runs last, as it does when it is preloaded: bdevs that appear are shown to it first.
	if [ "$flavour" = static ]; then
		mapfile -t system < <(static_of_its_own "${system[@]}")
		command+=("-Wl,--export-dynamic-symbol=spdk_*" "-Wl,--whole-archive,-Bstatic" "${spdk_libraries[@]}" "$module"
			"-Wl,--no-whole-archive,-Bdynamic")
	else
		command+=("-Wl,--no-as-needed" "${spdk_libraries[@]}" "-Wl,--whole-archive" "$module" "-Wl,--no-whole-archive")
	fi
	command+=("${system[@]}")

	# Whatever goes into it: its name, size and time. Not every folder that is named need be there.
	mapfile -t folders < <(printf '%s\n' "${spdk_libraries[@]}" "${system[@]}" | sed -n 's/^-L//p' | sort -u)
	key=$({
		set +o pipefail
		printf '%s\n' "${command[@]}"
		find -L "$module" "$object" "${folders[@]}" -maxdepth 1 \( -name '*.[ao]' -o -name '*.so' \) -printf '%p %s %T@\n' 2>/dev/null | sort
	} | sha256sum)
	if [ -x "$program" ] && [ "$key" = "$(cat "$out/.$name.key" 2>/dev/null)" ]; then
		say "$name: $program (built before)"
		return
	fi
	: >"$out/$name.log"
	run_logged "linking $name" "$out/$name.log" "${command[@]}"
	mv "$program.new" "$program"
	printf '%s\n' "$key" >"$out/.$name.key"
	say "$name: $program"
}

link_app "$spdk/build/bin/spdk_tgt" "$spdk/app/spdk_tgt/spdk_tgt.o"
link_app "$spdk/build/examples/bdevperf" "$spdk/examples/bdev/bdevperf/bdevperf.o"
