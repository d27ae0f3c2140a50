//! Who else has a file or device open, as far as this process may know: what is read meanwhile may change.
//!
//! Only processes of this machine are seen, and those of a container only see each other.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::disk::{Disk, Identity};
use crate::error::Error;

/// Processes that are named.
const NAMED: usize = 3;
/// Where the kernel tells of its devices.
const SYS: &str = "/sys";
/// What the kernel calls the namespace of processes from which all of them are seen: `PROC_PID_INIT_INO`.
const ALL_PROCESSES: &str = "pid:[4026531836]";

/// Says on stderr if somebody else has `disk` open.
pub fn warn(disk: &Disk) {
    if let Some(who) = who_has(disk) {
        anstream::eprintln!(
            "warning: {}: {who}; what is read may change meanwhile, so that what is shown may never have been; end that first to be sure",
            disk.path().display()
        );
    }
}

/// Makes sure that no other process has `disk` open.
///
/// # Errors
/// [`Error::InUse`]; [`Error::Unseen`] if that cannot be known.
pub fn refuse(disk: &Disk) -> Result<(), Error> {
    let sys = Path::new(SYS);
    // Who cannot look there knows of no loop device, no partition and no disk: nobody would seem to use it.
    let unseen = |advice: &str| Error::Unseen { path: disk.path().to_owned(), advice: advice.to_owned() };
    let unseen_there = |why| match why {
        Hidden::Sys => unseen("where all of /sys can be read"),
        Hidden::Backing { device, path, source } => unseen(&format!(
            "when {path}, the file of the loop device {device}, can be looked at ({source}), or that device is detached"
        )),
    };
    if let Some(who) = attached(disk.identity(), sys).map_err(unseen_there)? {
        return Err(Error::InUse { path: disk.path().to_owned(), who });
    }
    let found = processes_with(&same_bytes(disk.identity(), sys).map_err(unseen_there)?);
    match words(&found) {
        Some(who) => Err(Error::InUse { path: disk.path().to_owned(), who }),
        None if !all_are_seen() => Err(unseen("on the machine itself, outside of any container")),
        None if !found.all_seen => Err(unseen("as root")),
        None => Ok(()),
    }
}

/// Whether this process is in no container, from which processes outside of it cannot be seen.
pub(crate) fn all_are_seen() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace == Path::new(ALL_PROCESSES))
}

/// Who has it open, in words.
fn who_has(disk: &Disk) -> Option<String> {
    let (sys, itself) = (Path::new(SYS), disk.identity());
    // This is for a warning: what cannot be seen is no reason for one.
    let same = || same_bytes(itself, sys).unwrap_or_else(|_| vec![itself]);
    let who = attached(itself, sys).ok().flatten().or_else(|| words(&processes_with(&same())));
    if who.is_some() {
        return who;
    }
    (disk.is_block_device() && kernel_has(disk.path()))
        .then(|| "the kernel has it in use (it is mounted, or a part of another device)".to_owned())
}

/// Whether a block device is taken by somebody for himself alone.
fn kernel_has(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// What cannot be looked at.
#[derive(Debug)]
enum Hidden {
    /// Something of what the kernel tells.
    Sys,
    /// The file of a loop device, which may be the one that is asked for.
    Backing { device: String, path: String, source: io::Error },
}

impl From<io::Error> for Hidden {
    fn from(_: io::Error) -> Hidden {
        Hidden::Sys
    }
}

/// The loop device that a file is attached to.
fn attached(identity: Identity, sys: &Path) -> Result<Option<String>, Hidden> {
    if !matches!(identity, Identity::File(..)) {
        return Ok(None);
    }
    for device in fs::read_dir(sys.join("block"))? {
        let device = device?;
        if backing_file(&device.path())? == Some(identity) {
            return Ok(Some(format!("it is attached to the loop device {}", device.file_name().display())));
        }
    }
    Ok(None)
}

/// What a loop device is attached to; nothing for another device.
fn backing_file(device: &Path) -> Result<Option<Identity>, Hidden> {
    let Some(path) = if_there(fs::read_to_string(device.join("loop/backing_file")))? else { return Ok(None) };
    let path = path.trim_end_matches('\n');
    // A file that was removed has no name any more.
    let metadata = if_there(fs::metadata(path)).map_err(|source| {
        let device = fs::canonicalize(device).unwrap_or_default();
        let device = device.file_name().unwrap_or_default().display().to_string();
        Hidden::Backing { device, path: path.to_owned(), source }
    })?;
    Ok(metadata.and_then(|metadata| Identity::of(&metadata)))
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        // The second where a folder of the path was replaced by a file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        found => found.map(Some),
    }
}

/// Itself, and what has bytes of it under another name: the disk of a partition, the partitions of a disk, the file of a loop device.
fn same_bytes(identity: Identity, sys: &Path) -> Result<Vec<Identity>, Hidden> {
    let mut all = vec![identity];
    let Identity::Device(number) = identity else { return Ok(all) };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let device = sys.join(format!("dev/block/{major}:{minor}"));
    if is_partition(&device) {
        all.push(number_of(&device.join(".."))?);
        all.extend(backing_file(&device.join(".."))?);
    }
    for part in fs::read_dir(&device)? {
        let part = part?.path();
        if is_partition(&part) {
            all.push(number_of(&part)?);
        }
    }
    all.extend(backing_file(&device)?);
    Ok(all)
}

fn is_partition(device: &Path) -> bool {
    device.join("partition").exists()
}

fn number_of(device: &Path) -> io::Result<Identity> {
    let text = fs::read_to_string(device.join("dev"))?;
    let number = || {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Identity::Device(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?)))
    };
    number().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Processes that have something open.
struct Processes {
    found: Vec<String>,
    /// Whether there is none that this one may not look at.
    all_seen: bool,
}

fn words(processes: &Processes) -> Option<String> {
    let found = &processes.found;
    let more = if found.len() > NAMED { ", and others" } else { "" };
    (!found.is_empty()).then(|| format!("it is open in {}{more}", found[..found.len().min(NAMED)].join(", ")))
}

/// The other processes that have one of these open.
fn processes_with(identities: &[Identity]) -> Processes {
    let own = std::process::id();
    let mut processes = Processes { found: Vec::new(), all_seen: true };
    let Ok(all) = fs::read_dir("/proc") else { return Processes { all_seen: false, ..processes } };
    for process in all.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if id == own {
            continue;
        }
        let files = match fs::read_dir(process.path().join("fd")) {
            Ok(files) => files.flatten(),
            Err(error) => {
                // It may have ended meanwhile.
                let ended = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH);
                processes.all_seen &= ended;
                continue;
            }
        };
        let has = |file: fs::DirEntry| fs::metadata(file.path()).ok().and_then(|metadata| Identity::of(&metadata));
        if files.filter_map(has).any(|found| identities.contains(&found)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            processes.found.push(format!("process {id} ({})", name.trim()));
        }
    }
    processes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn other_names_of_the_same_bytes_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let put = |path: &str, text: &str| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("devices/sda/dev", "8:0\n");
        put("devices/sda/sda1/dev", "8:1\n");
        put("devices/sda/sda1/partition", "1\n");
        put("devices/sda/queue/dev", "no partition\n");
        let image = sys.join("an image");
        fs::write(&image, "").unwrap();
        put("block/loop3/loop/backing_file", &format!("{}\n", image.display()));
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        symlink("../../devices/sda", sys.join("dev/block/8:0")).unwrap();
        symlink("../../devices/sda/sda1", sys.join("dev/block/8:1")).unwrap();
        symlink("../../block/loop3", sys.join("dev/block/7:3")).unwrap();

        let device = |major, minor| Identity::Device(rustix::fs::makedev(major, minor));
        let file = Identity::of(&fs::metadata(&image).unwrap()).unwrap();
        assert_eq!(same_bytes(device(8, 0), sys).unwrap(), [device(8, 0), device(8, 1)]);
        assert_eq!(same_bytes(device(8, 1), sys).unwrap(), [device(8, 1), device(8, 0)]);
        assert_eq!(same_bytes(device(7, 3), sys).unwrap(), [device(7, 3), file]);
        assert_eq!(same_bytes(file, sys).unwrap(), [file]);
        assert_eq!(attached(file, sys).unwrap().as_deref(), Some("it is attached to the loop device loop3"));
        assert_eq!(attached(device(7, 3), sys).unwrap(), None);

        // What cannot be looked at is not taken for what is not there.
        assert!(same_bytes(device(9, 9), sys).is_err());
        put("devices/sda/sda1/dev", "none\n");
        assert!(same_bytes(device(8, 0), sys).is_err() && same_bytes(device(8, 1), sys).is_ok());
        fs::remove_file(sys.join("block/loop3/loop/backing_file")).unwrap();
        assert_eq!(attached(file, sys).unwrap(), None);
        fs::create_dir(sys.join("block/loop3/loop/backing_file")).unwrap();
        assert!(attached(file, sys).is_err() && same_bytes(device(7, 3), sys).is_err());
        assert!(attached(file, &sys.join("nowhere")).is_err());
        fs::remove_dir(sys.join("block/loop3/loop/backing_file")).unwrap();

        // Another loop device, whose file cannot be looked at: a path of which a link leads to itself, as root may look everywhere.
        symlink("itself", sys.join("itself")).unwrap();
        put("block/loop4/loop/backing_file", &format!("{}/image\n", sys.join("itself").display()));
        match attached(file, sys) {
            Err(Hidden::Backing { device, path, .. }) => assert!(device == "loop4" && path.ends_with("itself/image")),
            found => panic!("{found:?}"),
        }
        // A file that is surely not there any more is not this one.
        put("block/loop4/loop/backing_file", &format!("{}/image\n", image.display()));
        assert_eq!(attached(file, sys).unwrap(), None);
    }
}
