//! A file or block device, opened to be read and for nothing else, and the same as a device of remap-core.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use remap_core::{Device, Geometry, IoStatus};

use crate::buffer::Buffer;
use crate::error::Error;
use crate::progress::Progress;

/// What makes a file or device the same as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A file: its file system, and its number there.
    File(u64, u64),
    /// A block device: its number.
    Device(u64),
}

impl Identity {
    /// That of a file or block device, nothing of anything else.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Option<Identity> {
        if metadata.file_type().is_block_device() {
            Some(Identity::Device(metadata.rdev()))
        } else {
            metadata.is_file().then(|| Identity::File(metadata.dev(), metadata.ino()))
        }
    }
}

/// A file or block device that is open for reading.
pub struct Disk {
    path: PathBuf,
    file: File,
    identity: Identity,
    bytes: u64,
}

impl Disk {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::NoBlocks`].
    pub fn open(path: &Path) -> Result<Disk, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        // Looked at first: opening a pipe would wait for its other end.
        let metadata = fs::metadata(path).map_err(failed)?;
        let identity = Identity::of(&metadata).ok_or_else(|| Error::NoBlocks { path: path.to_owned() })?;
        let mut file = open_for_reading(path, identity).map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Disk { path: path.to_owned(), file, identity, bytes })
    }

    /// As it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Which it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        matches!(self.identity, Identity::Device(_))
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// Those of reading; `ENXIO` where there is nothing, as in a file that was truncated meanwhile.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::from_raw_os_error(libc::ENXIO),
            _ => error,
        })
    }
}

/// A block device is read as it is, past the cache of the kernel, so that what cannot be read is exactly one block.
fn open_for_reading(path: &Path, identity: Identity) -> io::Result<File> {
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
    match identity {
        Identity::Device(_) => match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
            opened => opened,
        },
        Identity::File(..) => open(0),
    }
}

/// A disk as a device of remap-core, in blocks of a size. It is only read: a write fails, and there is nothing to be flushed.
#[derive(Clone)]
pub struct Blocks {
    /// What is below.
    pub disk: Rc<Disk>,
    /// Bytes a block.
    pub block_size: u32,
    progress: Rc<Progress>,
}

impl Blocks {
    /// `disk` in blocks of `block_size` bytes; what is read counts as progress.
    #[must_use]
    pub fn new(disk: &Rc<Disk>, block_size: u32, progress: &Rc<Progress>) -> Blocks {
        Blocks { disk: Rc::clone(disk), block_size, progress: Rc::clone(progress) }
    }
}

/// What a write is answered with.
const READ_ONLY: IoStatus = IoStatus::Aio(-libc::EROFS);

impl Device for Blocks {
    type Buffer = Buffer;

    fn geometry(&self) -> Geometry {
        Geometry { block_size: self.block_size, blocks: self.disk.bytes() / u64::from(self.block_size.max(1)) }
    }

    fn alloc(&self, blocks: usize) -> Result<Buffer, IoStatus> {
        Buffer::zeroed(blocks.checked_mul(self.block_size as usize).ok_or(IoStatus::NoMemory)?)
    }

    async fn read(&self, lba: u64, mut buffer: Buffer) -> (Buffer, Result<(), IoStatus>) {
        let bytes = buffer.as_ref().len() as u64;
        let result = match lba.checked_mul(self.block_size.into()) {
            Some(offset) => self.disk.read(offset, buffer.as_mut()),
            None => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        };
        self.progress.add(bytes);
        (buffer, result.map_err(|error| IoStatus::Aio(-error.raw_os_error().unwrap_or(libc::EIO))))
    }

    async fn write(&self, _lba: u64, buffer: Buffer) -> (Buffer, Result<(), IoStatus>) {
        (buffer, Err(READ_ONLY))
    }

    async fn write_zeroes(&self, _lba: u64, _blocks: u64) -> Result<(), IoStatus> {
        Err(READ_ONLY)
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        Ok(())
    }
}
