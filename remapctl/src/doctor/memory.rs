//! Hugepages: SPDK takes its memory from them, or from others by `--no-huge`.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Finding;

const ABOUT: &str = "hugepages";
/// MiB that scripts/run.sh asks for.
const USUAL_MIB: u64 = 1024;

pub(super) fn look() -> Vec<Finding> {
    vec![
        pages(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        mounted(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
    ]
}

/// By what /proc/meminfo says.
fn pages(meminfo: &str) -> Finding {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (Some(total), Some(free), Some(kib)) =
        (value("HugePages_Total"), value("HugePages_Free"), value("Hugepagesize"))
    else {
        return Finding::warning(
            ABOUT,
            "the kernel knows none",
            "run targets with --no-huge, as scripts/run.sh does by itself",
        );
    };
    let of = format!("of {kib} KiB");
    let free_mib = free.saturating_mul(kib) >> 10;
    // Those that are there stay, as somebody uses them.
    let missing_kib = (USUAL_MIB << 10).saturating_sub(free.saturating_mul(kib));
    let wanted = total.saturating_add(missing_kib.div_ceil(kib.max(1)));
    let reserve = format!(
        "as root: echo {wanted} > /proc/sys/vm/nr_hugepages; or run targets with --no-huge, as scripts/run.sh does by itself"
    );
    if total == 0 {
        Finding::warning(ABOUT, format!("none are reserved ({of})"), reserve)
    } else if free_mib < USUAL_MIB {
        let sentence =
            format!("{free} of {total} are free ({of}): {free_mib} MiB, scripts/run.sh asks for {USUAL_MIB}");
        Finding::warning(ABOUT, sentence, reserve)
    } else {
        Finding::ok(ABOUT, format!("{free} of {total} are free ({of}): {free_mib} MiB"))
    }
}

/// By what /proc/mounts says.
fn mounted(mounts: &str) -> Finding {
    let places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("hugetlbfs")).then_some(place)
    });
    let places: Vec<_> = places.collect();
    let Some(place) = places.first() else {
        return Finding::warning(
            ABOUT,
            "no hugetlbfs is mounted",
            "as root: mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages",
        );
    };
    let may_write = |place: &&str| access(Path::new(place), Access::WRITE_OK | Access::EXEC_OK).is_ok();
    match places.iter().find(|place| may_write(place)) {
        Some(place) => Finding::ok(ABOUT, format!("hugetlbfs is mounted at {place}, and you may write there")),
        None => Finding::warning(
            ABOUT,
            format!("hugetlbfs is mounted at {place}, where you may not write"),
            "run targets as root, or give yourself the folder",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn hugepages_are_counted() {
        let meminfo = |total: u64, free: u64| {
            format!(
                "MemTotal: 1 kB\nHugePages_Total: {total:>7}\nHugePages_Free: {free:>7}\nHugepagesize:       2048 kB\n"
            )
        };
        let found = |total, free| pages(&meminfo(total, free));
        assert_eq!(found(3072, 600).level, Level::Ok);
        assert_eq!(found(3072, 600).sentence, "600 of 3072 are free (of 2048 KiB): 1200 MiB");
        assert_eq!(found(3072, 100).level, Level::Warning);
        let advised = |meminfo: &str, pages_wanted: &str| {
            assert!(
                pages(meminfo).advice.unwrap().starts_with(&format!("as root: echo {pages_wanted} > ")),
                "{meminfo}"
            );
        };
        advised(&meminfo(0, 0), "512");
        advised(&meminfo(3072, 100), "3484");
        advised("HugePages_Total: 0\nHugePages_Free: 0\nHugepagesize: 1048576 kB\n", "1");
        assert!(found(0, 0).sentence.contains("none are reserved"));
        assert_eq!(pages("MemTotal: 1 kB\n").sentence, "the kernel knows none");
        assert!(pages("HugePages_Total: many\n").advice.is_some());
    }

    #[test]
    fn a_mount_that_can_be_written_to_is_found() {
        let folder = std::env::temp_dir();
        let line = format!("nodev {} hugetlbfs rw,relatime 0 0\n", folder.display());
        assert_eq!(mounted(&line).level, Level::Ok);
        assert_eq!(mounted("nodev /nowhere hugetlbfs rw 0 0\n").level, Level::Warning);
        assert!(mounted("proc /proc proc rw 0 0\nshort\n").sentence.contains("no hugetlbfs"));
    }
}
