//! What of the kernel matters: asynchronous I/O for bdevs of files and block devices, IOMMU for devices that SPDK drives itself, and whether
//! other processes can be seen.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::in_use;

/// Requests that a target with a few AIO bdevs needs.
const AIO_REQUESTS: u64 = 1024;

pub(super) fn look() -> Vec<Finding> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut findings = Vec::new();
    if let (Some(used), Some(max)) = (number("/proc/sys/fs/aio-nr"), number("/proc/sys/fs/aio-max-nr")) {
        findings.push(aio(used, max));
    }
    findings.push(uring(number("/proc/sys/kernel/io_uring_disabled")));
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    findings.push(iommu(Path::new("/dev/vfio/vfio").exists(), groups));
    findings.push(if !in_use::all_are_seen() {
        Finding::warning(
            "rights",
            "this is a container: who uses a spare outside of it cannot be seen, and repair refuses",
            "run remapctl on the machine itself",
        )
    } else if rustix::process::geteuid().is_root() {
        Finding::ok("rights", "you are root: who uses a spare can be seen")
    } else {
        Finding::warning(
            "rights",
            "you are not root: who uses a spare cannot be seen, and repair refuses",
            "run remapctl as root",
        )
    });
    findings
}

fn aio(used: u64, max: u64) -> Finding {
    let free = max.saturating_sub(used);
    let sentence = format!("{free} of {max} requests are free, for AIO bdevs");
    if free < AIO_REQUESTS {
        Finding::warning(
            "kernel AIO",
            sentence,
            format!("as root: sysctl fs.aio-max-nr={}", max.saturating_mul(16).max(65_536)),
        )
    } else {
        Finding::ok("kernel AIO", sentence)
    }
}

fn uring(disabled: Option<u64>) -> Finding {
    match disabled {
        Some(0) | None => Finding::ok("io_uring", "it may be used, for uring bdevs"),
        Some(1) => Finding::warning(
            "io_uring",
            "it is for privileged processes only: uring bdevs work in targets of root",
            "run targets as root, or, as root: sysctl kernel.io_uring_disabled=0",
        ),
        Some(_) => Finding::warning(
            "io_uring",
            "it is switched off: there are no uring bdevs",
            "use AIO bdevs, or, as root: sysctl kernel.io_uring_disabled=0",
        ),
    }
}

/// For devices that SPDK drives itself only, so that nothing about it is bad.
fn iommu(vfio: bool, groups: usize) -> Finding {
    Finding::ok(
        "vfio",
        match (vfio, groups) {
            (true, 1..) => format!("it is there, with {groups} groups of devices: SPDK can drive NVMe devices itself"),
            (true, 0) => "it is there without an IOMMU: SPDK drives NVMe devices itself only in its unsafe mode, or by uio".to_owned(),
            (false, _) => "it is not loaded: only bdevs of the kernel's devices (AIO, uring) and of the network; for others, modprobe vfio-pci".to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(aio(0, 65536).level, Level::Ok);
        assert_eq!((aio(65000, 65536).level, aio(70000, 65536).level), (Level::Warning, Level::Warning));
        assert_eq!([None, Some(0), Some(1), Some(2)].map(|disabled| uring(disabled).level as u8), [0, 0, 1, 1]);
        assert!(iommu(true, 3).sentence.contains("3 groups") && iommu(false, 0).sentence.contains("not loaded"));
    }
}
