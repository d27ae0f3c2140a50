#!/usr/bin/env bash
# Usage: scripts/get-spdk.sh [--tsan]
#
# Downloads and builds SPDK 26.01 once, into the cache (~/.cache/bdev-remap); does nothing when it is there.
#
# SPDK has no Debian package, but Debian's source package of ceph (testing, unstable) carries a whole SPDK with
# DPDK, isa-l and isa-l-crypto. apt itself fetches it and checks it against Debian's signed index, with a sources
# file and package lists of its own: the system's apt configuration is not touched.
#
# With SPDK_DIR set, nothing is downloaded: that tree is checked and used.
#
# With --tsan it is a second SPDK, beside the first one, for scripts/tsan.sh: SPDK and DPDK under ThreadSanitizer.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
name=spdk
case "${1:-}" in -h | --help) usage; exit 0 ;; --tsan) name="spdk-tsan" ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac

CONFIGURE=(--with-shared --disable-unit-tests --disable-tests --with-uring --without-crypto
	--without-nvme-cuse)
[ "$name" = spdk ] || CONFIGURE+=(--enable-tsan)
RECIPE=3 # raise it when the steps below change, so that an old tree is not taken for a new one
OLDEST_SPDK=26.01 # whose structures the code was written for; 25.09 has other members
INNER=src/nvmeof/gateway/spdk

# check_tree DIR: is this an SPDK that bdev_remap can be built against?
check_tree() {
	local dir=$1 version
	[ -f "$dir/include/spdk/bdev_module.h" ] || die "$dir is no SPDK source tree (include/spdk/bdev_module.h is missing)"
	[ -e "$dir/build/lib/libspdk_bdev.so" ] || die "$dir is not built with shared libraries: run './configure --with-shared && make' there"
	[ -x "$dir/build/bin/spdk_tgt" ] || die "$dir has no build/bin/spdk_tgt: run make there"
	version=$(awk '$1 == "#define" && $2 == "SPDK_VERSION_MAJOR" {major=$3} $1 == "#define" && $2 == "SPDK_VERSION_MINOR" {minor=$3} END {printf "%d%02d", major, minor}' "$dir/include/spdk/version.h")
	[ "$version" -ge "${OLDEST_SPDK/./}" ] || die "$dir is SPDK ${version%??}.${version#??}; bdev_remap needs $OLDEST_SPDK or newer"
}

if [ "$name" = spdk ] && [ -n "${SPDK_DIR:-}" ]; then
	check_tree "$SPDK_DIR"
	say "SPDK: $SPDK_DIR (from SPDK_DIR)"
	exit 0
fi

mkdir -p "$CACHE"
exec 9>"$CACHE/$name.lock"
flock -n 9 || { say "another set-up is building SPDK; waiting for it"; flock 9; }

key=$(printf '%s\n' "$RECIPE" "${CONFIGURE[@]}" | sha256sum | cut -c1-8)
if [ -e "$CACHE/$name/.built-$key" ]; then
	say "SPDK: $(cd "$CACHE/$name" && pwd -P) (built before)"
	exit 0
fi

# apt's own folder: only here, only for the source package.
apt_dir=$CACHE/apt-$name
log=$CACHE/build-$name.log
: >"$log"
mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
uri=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null |
	awk '/^URIs:/ {print $2} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) print $i}' |
	grep -E '/debian/?$' | head -n 1) || true
[ -n "$uri" ] || die "no Debian archive in /etc/apt (a line 'URIs: …/debian'); set SPDK_DIR to your own SPDK tree instead"
cat >"$apt_dir/debian.sources" <<EOF
Types: deb-src
URIs: $uri
Suites: testing unstable
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
apt_opts=(-o "Dir::Etc::SourceList=$apt_dir/debian.sources" -o Dir::Etc::SourceParts=/dev/null
	-o "Dir::State::Lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" -o APT::Sandbox::User=root)

say "SPDK is not there yet: fetching and building it, once (about 250 MB, then some minutes)"
run_logged "reading Debian's source index" "$log" apt-get "${apt_opts[@]}" update
version=$(apt-cache "${apt_opts[@]}" showsrc ceph 2>>"$log" | awk '/^Version:/ {print $2}' | sort -V | grep '^20\.2\.' | head -n 1) || true
[ -n "$version" ] || die "Debian's testing and unstable have no ceph 20.2 any more, whose sources carry SPDK 26.01; set SPDK_DIR to your own SPDK tree"

work=$apt_dir/download
mkdir -p "$work"
fetch() { cd "$work" && apt-get "${apt_opts[@]}" source --download-only --tar-only "ceph=$version"; }
run_logged "downloading the sources of ceph $version" "$log" fetch
tarball=$(find "$work" -name 'ceph_*.orig.tar.*' | head -n 1)
[ -n "$tarball" ] || die "apt-get downloaded no ceph_*.orig.tar file; see $log"

# The tree is built in its final place, as its libraries remember it; only the stamp, written last, makes it good.
dest=$CACHE/$name-26.01-ceph-${version%%[+-]*}-$key
rm -rf "$dest"
mkdir -p "$dest"
unpack() {
	local top
	top=$(tar -tf "$tarball" 2>/dev/null | head -n 1 | cut -d/ -f1) || true
	tar -xf "$tarball" -C "$dest" --strip-components=5 "$top/$INNER"
}
run_logged "unpacking SPDK" "$log" unpack
[ -f "$dest/include/spdk/bdev_module.h" ] || die "ceph $version carries no SPDK in $INNER"

# Two fixes that this tree needs to be built with shared libraries and without RBD.
grep -q spdk_notify_type_register_once "$dest/lib/notify/spdk_notify.map" ||
	sed -i '0,/spdk_notify_/s//spdk_notify_type_register_once;\n\tspdk_notify_/' "$dest/lib/notify/spdk_notify.map"
resrv=$dest/lib/nvmf/subsystem_rbd_resrv.c
if [ -f "$resrv" ] && ! grep -q 'SPDK_LOG_REGISTER_COMPONENT(reservation)' "$resrv"; then
	printf '\nSPDK_LOG_REGISTER_COMPONENT(reservation)\n' >>"$resrv"
fi

# What ThreadSanitizer needs to see how threads of SPDK hand on what they have, and to run at all.
if [ "$name" = spdk-tsan ]; then
	# Of atomics it sees only the compiler's, and not DPDK's own assembly.
	sed -i '/^#define _RTE_CONFIG_H_/a #define RTE_FORCE_INTRINSICS 1\n#define RTE_USE_C11_MEM_MODEL 1' "$dest/dpdk/config/rte_config.h"
	# Of two threads that put something into a ring, the second one publishes for both: the language asks it to acquire for that.
	sed -i 's/rte_memory_order_relaxed/rte_memory_order_acquire/' "$dest/dpdk/lib/ring/rte_ring_c11_pvt.h"
	# Objects change threads in DPDK's mempools, too.
	sed -i '/^DPDK_CFLAGS += -fPIC/a DPDK_OPTS += -Db_sanitize=thread' "$dest/dpdkbuild/Makefile"
	# The sanitizer has its own memory where SPDK would have DPDK's.
	sed -i '/_DEFAULT_BASE_VIRTADDR/s/0x200000000000/0x1000000000/' "$dest/lib/event/app.c" "$dest/lib/env_dpdk/init.c"
	# What the loader calls to choose among clones runs before the sanitizer is there.
	sed -i '/^__attribute__((target_clones/d' "$dest/lib/util/math.c"
fi

# Debian's own python3 has the modules that the build needs; another one earlier in PATH may not.
export PATH=/usr/bin:$PATH
configure() { cd "$dest" && ./configure "${CONFIGURE[@]}"; }
run_logged "configuring SPDK" "$log" configure
run_logged "building SPDK" "$log" make -C "$dest" -j"$(nproc)"
run_logged "building bdevio" "$log" make -C "$dest/test/bdev/bdevio"
check_tree "$dest"

ln -sfn "$dest" "$CACHE/$name"
touch "$dest/.built-$key"
rm -rf "$apt_dir"
say "SPDK: $dest"
