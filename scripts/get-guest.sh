#!/usr/bin/env bash
# Usage: scripts/get-guest.sh [--help]
#
# Fetches what scripts/guest starts Linux in a virtual machine with, so that the kernel's own NVMe/TCP host can be tested against: QEMU, a
# kernel and busybox, from Debian's packages, about 45 MB. apt fetches and checks them with package lists of its own; they are unpacked
# into the cache (~/.cache/bdev-remap/guest) and not installed: nothing else on this machine changes. Does nothing when it is there.
#
# For x86-64 only; on other machines it does nothing, and those tests are skipped.

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
case "${1:-}" in -h | --help) usage; exit 0 ;; "") ;; *) die "unknown argument $1 (see --help)" ;; esac

KERNEL=linux-image-cloud-amd64
# In the order in which they are loaded; one that is not there is a part of the kernel.
MODULES=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net
	nvme-core nvme-fabrics nvme-tcp)
RECIPE=1 # raise it when the steps below change

[ "$(uname -m)" = x86_64 ] || { say "guest: none on $(uname -m)"; exit 0; }
dest=$CACHE/guest
mkdir -p "$CACHE"
exec 9>"$CACHE/guest.lock"
flock -n 9 || { say "another set-up is fetching the guest; waiting for it"; flock 9; }
stamp=$dest/.unpacked-$RECIPE
if [ -e "$stamp" ]; then
	say "guest: $dest (unpacked before)"
	exit 0
fi

command -v apt-get >/dev/null || die "this is no Debian: the tests with a Linux guest need apt-get, to fetch QEMU and a kernel"
rm -rf "$dest"
work=$dest/apt
log=$CACHE/guest.log
: >"$log"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
apt_opts=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
run_logged "reading Debian's package lists" "$log" apt-get "${apt_opts[@]}" update

# The kernel that the package of this name stands for; QEMU with its firmware, and of what else it needs what is not installed here.
kernel=$(apt-cache "${apt_opts[@]}" depends "$KERNEL" 2>>"$log" | awk '/Depends: linux-image-/ {print $2; exit}') || true
[ -n "$kernel" ] || die "Debian has no package $KERNEL (see $log)"
plan=$(apt-get "${apt_opts[@]}" install -s --no-install-recommends qemu-system-x86 2>>"$log") ||
	die "apt-get cannot tell what QEMU needs: the log is $log"
mapfile -t packages < <(printf '%s\n' busybox-static "$kernel" qemu-system-{x86,common,data} seabios \
	"$(awk '/^Inst/ {print $2}' <<<"$plan")" | sed '/^$/d' | sort -u)
fetch() { cd "$work/packages" && apt-get "${apt_opts[@]}" download "${packages[@]}"; }
run_logged "fetching ${#packages[@]} packages: busybox, QEMU, $kernel" "$log" fetch
unpack() {
	local package
	for package in "$work"/packages/*.deb; do
		dpkg-deb -x "$package" "$dest" || return
	done
}
run_logged "unpacking them" "$log" unpack

# What the guest starts from: busybox, the modules, and what it does first. Its script is put behind it by scripts/guest.
busybox=$(find "$dest" -path '*/bin/busybox' -type f)
root=$dest/root
mkdir -p "$root"/{bin,lib,proc,sys,dev,mnt}
cp "$busybox" "$root/bin/busybox"
loaded=()
for module in "${MODULES[@]}"; do
	file=$(find "$dest" -path '*/lib/modules/*' -name "$module.ko*")
	case "$file" in
	"") continue ;;
	*.xz) xz -dc "$file" >"$root/lib/$module.ko" ;;
	*) cp "$file" "$root/lib/" ;;
	esac
	loaded+=("$module")
done
cat >"$root/init" <<EOF
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in ${loaded[*]}; do
	insmod /lib/\$module.ko
done
# 10.0.2.2 is 127.0.0.1 of the machine that this one is in; nothing else can be reached.
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
sh /script
echo "the script has ended: \$?"
poweroff -f
EOF
chmod +x "$root/init"
pack() { cd "$root" && find . | bin/busybox cpio -o -H newc >"$dest/initrd"; }
run_logged "packing what it starts from" "$log" pack
cp "$root/bin/busybox" "$dest/busybox"
cp "$dest"/boot/vmlinuz-* "$dest/vmlinuz"
rm -rf "$work" "$root" "${dest:?}"/{lib/modules,usr/lib/modules,boot}
touch "$stamp"
say "guest: $dest"
