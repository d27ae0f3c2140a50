//! The targets that run: whether they answer, and how their sets are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::map::words::shown;
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
            let socket = fs::symlink_metadata(socket).is_ok_and(|there| there.file_type().is_socket());
            let advice = match socket {
                true => format!("remove it if no target is to be there: rm {shown}"),
                false => "check the path, or start the target".to_owned(),
            };
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
            let sentence = format!("\"{}\", {}, is {}{waits}", shown(&set.name), set.uuid, set.state);
            Finding::warning(ABOUT, sentence, format!("see scripts/rpc -s {} bdev_remap_status", socket.display()))
        }
    }
}

fn online(socket: &Path, set: &Online) -> Finding {
    const ABOUT: &str = "set";
    let bad = set.metadata.bad();
    let counts = format!("{} blocks remapped, {} pending, {} lost", set.remapped, set.pending, set.lost);
    let is = format!(
        "\"{}\" is {}: {counts}; {} of {} spare blocks free",
        shown(&set.name),
        set.state,
        set.spare.free,
        set.spare.total
    );
    let rpc = format!("scripts/rpc -s {}", socket.display());
    if set.state == "tripped" {
        let sentence = format!("{is}; the storm brake has tripped");
        let advice = format!("look at the base, then: {rpc} bdev_remap_set_options {} --rearm", quoted(&set.name));
        return Finding::bad(ABOUT, sentence, advice);
    }
    if set.spare_bdev.is_none() {
        let advice = "attach the spare again, or give it another one by bdev_remap_migrate";
        return Finding::warning(ABOUT, format!("{is}; its spare is gone"), advice);
    }
    if bad.is_some() || set.state == "degraded" {
        let copies = bad.map_or_else(String::new, |bad| format!("; bad copies of the metadata: {bad}"));
        let sentence = format!("{is}{copies}");
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

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    format!("'{}'", shown(word).replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn what_to_do_about_a_set_can_be_done() {
        let set = |name: &str, state: &str, spare: Option<&str>| -> Online {
            serde_json::from_value(serde_json::json!({
                "name": name, "uuid": uuid::Uuid::nil(), "state": state, "base_bdev": "base", "spare_bdev": spare,
                "storm_limit": 1, "spare": { "total": 9, "free": 9, "bad": 0, "used": 0 },
                "remapped": 0, "pending": 0, "lost": 0, "epoch": 1, "sequence": 1,
                "metadata": { "superblock_a": "ok", "superblock_b": "ok", "log_a": "ok", "log_b": "ok" },
            }))
            .unwrap()
        };
        let found = |set: &Online| online(Path::new("/s.sock"), set);
        let tripped = found(&set("it's\nbad: all", "tripped", Some("spare")));
        assert!(!tripped.sentence.contains('\n'), "{}", tripped.sentence);
        let advice = tripped.advice.unwrap();
        assert!(advice.ends_with("-s /s.sock bdev_remap_set_options 'it'\\''s\u{fffd}bad: all' --rearm"), "{advice}");
        let gone = found(&set("Remap0", "degraded", None));
        assert!(gone.sentence.ends_with("; its spare is gone"), "{}", gone.sentence);
        assert!(gone.advice.unwrap().starts_with("attach the spare again"));
    }

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
