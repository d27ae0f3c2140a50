//! Who else has a file or device open, as far as this process may know: what is read meanwhile may change.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::disk::{Disk, Identity};
use crate::error::Error;

/// Processes that are named.
const NAMED: usize = 3;

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
    let found = processes_with(disk.identity());
    match words(&found) {
        Some(who) => Err(Error::InUse { path: disk.path().to_owned(), who }),
        None if !found.all_seen => Err(Error::Unseen { path: disk.path().to_owned() }),
        None => Ok(()),
    }
}

/// Who has it open, in words.
fn who_has(disk: &Disk) -> Option<String> {
    if let Some(who) = words(&processes_with(disk.identity())) {
        return Some(who);
    }
    (disk.is_block_device() && kernel_has(disk.path()))
        .then(|| "the kernel has it in use (it is mounted, or a part of another device)".to_owned())
}

/// Whether a block device is taken by somebody for himself alone.
fn kernel_has(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
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

/// The other processes that have it open.
fn processes_with(identity: Identity) -> Processes {
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
                processes.all_seen &= error.kind() != io::ErrorKind::PermissionDenied;
                continue;
            }
        };
        let has = |file: fs::DirEntry| fs::metadata(file.path()).ok().and_then(|metadata| Identity::of(&metadata));
        if files.map(has).any(|found| found == Some(identity)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            processes.found.push(format!("process {id} ({})", name.trim()));
        }
    }
    processes
}
