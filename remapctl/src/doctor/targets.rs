//! The targets that run: whether they answer, and how their sets are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::rpc::answers::{Online, Set};
use crate::rpc::{Client, DEFAULT_SOCKET, Failure, PATIENCE};

pub(super) fn look(given: &[PathBuf]) -> Vec<Finding> {
    let sockets = if given.is_empty() { running() } else { given.iter().cloned().collect() };
    if sockets.is_empty() {
        return vec![Finding::ok("targets", "none runs here, as far as can be seen; --socket names others")];
    }
    sockets.iter().flat_map(|socket| target(socket)).collect()
}

/// Sockets that somebody listens at and that look like those of targets, and the usual one.
fn running() -> BTreeSet<PathBuf> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found = listening(&sockets);
    if Path::new(DEFAULT_SOCKET).exists() {
        found.insert(DEFAULT_SOCKET.into());
    }
    found
}

/// Those of /proc/net/unix.
fn listening(sockets: &str) -> BTreeSet<PathBuf> {
    /// What the kernel shows of a socket that accepts connections.
    const ACCEPTS: &str = "00010000";
    let path = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let path = Path::new(words.get(7).filter(|_| words.get(3) == Some(&ACCEPTS))?);
        let name = path.file_name()?.to_str()?;
        (path.is_absolute() && name.contains("spdk") && name.ends_with(".sock")).then(|| path.to_owned())
    };
    sockets.lines().filter_map(path).collect()
}

fn target(socket: &Path) -> Vec<Finding> {
    const ABOUT: &str = "target";
    let shown = socket.display();
    match Client::new(socket, PATIENCE).sets() {
        Ok(sets) => {
            let count = match sets.len() {
                1 => "1 set".to_owned(),
                more => format!("{more} sets"),
            };
            let sets = sets.iter().map(|found| set(socket, found));
            [Finding::ok(ABOUT, format!("{shown}: it answers, and has {count}"))].into_iter().chain(sets).collect()
        }
        Err(Failure::NoTarget { source, .. }) => {
            let advice = format!("remove it if no target is to be there: rm {shown}");
            vec![Finding::warning(ABOUT, format!("{shown}: nobody listens ({source})"), advice)]
        }
        Err(Failure::Unknown { .. }) => {
            let advice = "start it by scripts/spdk, which loads it";
            vec![Finding::warning(ABOUT, format!("{shown}: it answers, and bdev_remap is not loaded"), advice)]
        }
        Err(failure) => vec![Finding::bad(ABOUT, failure.to_string(), "then look again")],
    }
}

fn set(socket: &Path, set: &Set) -> Finding {
    const ABOUT: &str = "set";
    match set {
        Set::Online(set) => online(socket, set),
        Set::Offline(set) => {
            let waits = set.waits_for.as_ref().map_or_else(String::new, |what| format!(": {what}"));
            let sentence = format!("\"{}\", {}, is {}{waits}", set.name, set.uuid, set.state);
            Finding::warning(ABOUT, sentence, format!("see scripts/rpc -s {} bdev_remap_status", socket.display()))
        }
    }
}

fn online(socket: &Path, set: &Online) -> Finding {
    const ABOUT: &str = "set";
    let bad: Vec<_> = set.metadata.copies().iter().filter(|(_, whole)| !whole).map(|(name, _)| *name).collect();
    let counts = format!("{} blocks remapped, {} pending, {} lost", set.remapped, set.pending, set.lost);
    let is = format!(
        "\"{}\" is {}: {counts}; {} of {} spare blocks free",
        set.name, set.state, set.spare.free, set.spare.total
    );
    let rpc = format!("scripts/rpc -s {}", socket.display());
    if set.state == "tripped" {
        let sentence = format!("{is}; the storm brake has tripped");
        let advice = format!("look at the base, then: {rpc} bdev_remap_set_options -n {} --rearm", set.name);
        return Finding::bad(ABOUT, sentence, advice);
    }
    if !bad.is_empty() || set.state == "degraded" {
        let sentence = format!(
            "{is}; bad copies of the metadata: {}",
            if bad.is_empty() { "none".to_owned() } else { bad.join(", ") }
        );
        return Finding::warning(
            ABOUT,
            sentence,
            "it heals them by itself; if that fails, move it to another spare by bdev_remap_migrate",
        );
    }
    if set.spare.free == 0 {
        return Finding::warning(
            ABOUT,
            format!("{is}: the spare is full"),
            "move it to a larger spare by bdev_remap_migrate",
        );
    }
    if set.lost > 0 {
        return Finding::warning(ABOUT, is, "lost blocks fail until they are written: restore what was in them");
    }
    Finding::ok(ABOUT, is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_somebody_listens_at_are_found() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0: 00000002 00000000 00010000 0001 01 7 /var/tmp/spdk.sock\n\
            0: 00000003 00000000 00000000 0001 03 8 /var/tmp/spdk2.sock\n\
            0: 00000002 00000000 00010000 0001 01 9 @/tmp/spdk.sock\n\
            0: 00000002 00000000 00010000 0001 01 9 /run/other.sock\n\
            0: 00000002 00000000 00010000 0001 01\n";
        assert_eq!(listening(text).into_iter().collect::<Vec<_>>(), [Path::new("/var/tmp/spdk.sock")]);
    }
}
