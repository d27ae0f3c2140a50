//! Who else has a file or device open, as far as this process may know: what is read meanwhile may change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::disk::{Disk, Identity};

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

/// Who has it open, in words.
fn who_has(disk: &Disk) -> Option<String> {
    let processes = processes_with(disk.identity());
    if !processes.is_empty() {
        let more = if processes.len() > NAMED { ", and others" } else { "" };
        return Some(format!("it is open in {}{more}", processes[..processes.len().min(NAMED)].join(", ")));
    }
    (disk.is_block_device() && kernel_has(disk.path()))
        .then(|| "the kernel has it in use (it is mounted, or a part of another device)".to_owned())
}

/// Whether a block device is taken by somebody for himself alone.
fn kernel_has(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(path);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// The other processes that have it open, other than those that this one may not look at.
fn processes_with(identity: Identity) -> Vec<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let own = std::process::id();
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let has = |file: fs::DirEntry| fs::metadata(file.path()).ok().and_then(|metadata| Identity::of(&metadata));
        if id != own && entries(&process.path().join("fd")).any(|file| has(file) == Some(identity)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("process {id} ({})", name.trim()));
        }
    }
    found
}
