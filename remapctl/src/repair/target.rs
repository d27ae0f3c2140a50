//! A spare that is written to: only while nobody else has it open.
//!
//! A block device is opened for this process alone, which keeps the kernel and all who ask for the same away; a file is locked. Neither
//! keeps away who does not ask, as SPDK does not: so all processes are looked at, and who may not do that may not write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::rc::Rc;

use remap_core::SpareLba;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::disk::{Disk, Identity};
use crate::error::Error;
use crate::in_use;

/// A spare that is open for writing.
pub(super) struct Target {
    disk: Rc<Disk>,
    file: File,
}

impl Target {
    /// Opens `disk` for writing.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unseen`], [`Error::Open`].
    pub(super) fn open(disk: &Rc<Disk>) -> Result<Target, Error> {
        in_use::refuse(disk)?;
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY) => in_use(disk, "the kernel has it in use (it is mounted, or a part of another device)"),
            _ => Error::Open { path: disk.path().to_owned(), source },
        };
        let flags = if disk.is_block_device() { libc::O_EXCL } else { 0 } | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(disk.path()).map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => in_use(disk, "somebody else has locked it"),
            error => failed(error.into()),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if Identity::of(&metadata) != Some(disk.identity()) {
            return Err(in_use(disk, "its name was given to something else meanwhile"));
        }
        let target = Target { disk: Rc::clone(disk), file };
        target.alone()?;
        Ok(target)
    }

    /// Looks again whether anybody else has it open.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unseen`].
    pub(super) fn alone(&self) -> Result<(), Error> {
        in_use::refuse(&self.disk)
    }

    /// Writes a page.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(super) fn write(&self, lba: SpareLba, block_size: u32, page: &[u8]) -> Result<(), Error> {
        let written = match lba.0.checked_mul(u64::from(block_size)) {
            Some(offset) => self.file.write_all_at(page, offset),
            None => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        };
        written.map_err(|source| Error::Write { path: self.disk.path().to_owned(), lba: lba.0, source })
    }

    /// Makes durable what is there, before anything is written: it may be in a cache only.
    ///
    /// # Errors
    /// [`Error::NotFlushed`].
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|source| Error::NotFlushed { path: self.disk.path().to_owned(), source })
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// [`Error::Sync`].
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|source| Error::Sync { path: self.disk.path().to_owned(), source })
    }
}

fn in_use(disk: &Disk, who: &str) -> Error {
    Error::InUse { path: disk.path().to_owned(), who: who.to_owned() }
}
