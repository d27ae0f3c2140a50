#!/usr/bin/env bash
# Usage: scripts/setup.sh [--help] [--dev] [--bench]
#
# Makes everything ready: Debian packages (only those that are missing), SPDK (built once into ~/.cache/bdev-remap, or your
# own by SPDK_DIR), and the libraries and remapctl of this project. Run it as often as you like: it does only what is not done yet.
# The other scripts call it. With --dev, what only the tests need is installed as well: shellcheck, valgrind, chromium, promtool,
# tmux, and in the cache ruff and a Linux guest. With --bench, what only the benchmarks need: matplotlib.
#
# Environment: SPDK_DIR, XDG_CACHE_HOME, CARGO_TARGET_DIR, PROFILE (release, the default, or debug); BDEV_REMAP_LIBRARIES, a folder
# with the libraries of this project, which are not built then.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
dev=false
bench=false
for arg in "$@"; do
	case "$arg" in
	-h | --help) usage; exit 0 ;;
	--dev) dev=true ;;
	--bench) bench=true ;;
	*) die "unknown argument $arg (see --help)" ;;
	esac
done

PACKAGES=(build-essential pkg-config meson ninja-build nasm autoconf automake libtool xz-utils
	libaio-dev libssl-dev openssl uuid-dev libnuma-dev liburing-dev libcunit1-dev libncurses-dev
	python3 python3-jinja2 python3-tabulate python3-pyelftools python3-tqdm procps util-linux)

DEV_PACKAGES=(shellcheck python3-venv valgrind chromium prometheus tmux)
RUFF=ruff==0.14.14
! $dev || PACKAGES+=("${DEV_PACKAGES[@]}")
! $bench || PACKAGES+=(python3-matplotlib)

# bindgen needs libclang and clang's own headers; any version will do, so the newest installed one is kept.
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null && compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null; }

install_packages() {
	local missing=() package
	for package in "${PACKAGES[@]}"; do
		installed "$package" || missing+=("$package")
	done
	has_libclang || missing+=(libclang-dev)
	[ ${#missing[@]} -gt 0 ] || return 0

	command -v apt-get >/dev/null || die "this is no Debian: install what these packages hold, then run it again: ${missing[*]}"
	[ "$(id -u)" -eq 0 ] || die "packages are missing; install them and run this again:
  sudo apt-get install --no-install-recommends ${missing[*]}"
	say "installing ${#missing[@]} Debian packages: ${missing[*]}"
	local log=$CACHE/apt.log
	mkdir -p "$CACHE"
	: >"$log"
	run_logged "apt-get update" "$log" apt-get update
	run_logged "apt-get install" "$log" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# installed PACKAGE: from a single look at dpkg's list.
installed() {
	if [ -z "${INSTALLED:-}" ]; then
		# shellcheck disable=SC2016 # the ${...} is dpkg-query's
		INSTALLED=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | awk '$1 == "ii" {print $2}') || true
	fi
	grep -qxF "$1" <<<"$INSTALLED"
}

# install_ruff: into a virtual environment of its own, as Debian has no package of it.
install_ruff() {
	[ ! -e "$CACHE/ruff/.$RUFF" ] || return 0
	local log=$CACHE/ruff.log
	mkdir -p "$CACHE"
	: >"$log"
	run_logged "creating $CACHE/ruff" "$log" /usr/bin/python3 -m venv --clear "$CACHE/ruff"
	run_logged "installing $RUFF" "$log" "$CACHE/ruff/bin/pip" install --quiet --disable-pip-version-check "$RUFF"
	touch "$CACHE/ruff/.$RUFF"
}

build() {
	command -v cargo >/dev/null || die "no cargo in PATH: install Rust 1.88 or newer, for example with rustup, then run this again"
	local flags=(--locked)
	[ "$PROFILE" != release ] || flags+=(--release)
	# Only what is loaded into SPDK, and the tool beside it; the tests build themselves.
	in_top cargo build "${flags[@]}" -p bdev_remap -p bdev_fault -p remapctl
}

install_packages
! $dev || { install_ruff; "$TOP/scripts/get-guest.sh"; }
"$TOP/scripts/get-spdk.sh"
[ -n "${BDEV_REMAP_LIBRARIES:-}" ] || build
