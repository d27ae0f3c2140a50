//! Where recovered data goes: a file with holes where there are only zeros, or a block device that is written all over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::disk::Identity;
use crate::error::Error;

/// Holes are at least so long.
const CHUNK: usize = 4096;

pub(super) struct Output {
    path: PathBuf,
    file: File,
    sparse: bool,
}

impl Output {
    /// Opens or makes the output, of `bytes` bytes. It has to be there if that was `begun`, and must not be otherwise, unless it is a
    /// block device and may be overwritten by `force`.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::OutputGone`], [`Error::Input`], [`Error::DeviceOutput`], [`Error::OutputTooSmall`], [`Error::Output`].
    pub(super) fn open(
        path: &Path,
        bytes: u64,
        force: bool,
        begun: bool,
        inputs: [Identity; 2],
    ) -> Result<Output, Error> {
        let path = path.to_owned();
        let identity = fs::metadata(&path).ok().map(|metadata| Identity::of(&metadata));
        let is_device = matches!(identity, Some(Some(Identity::Device(_))));
        let mut options = OpenOptions::new();
        options.write(true);
        match identity {
            Some(Some(identity)) if inputs.contains(&identity) => return Err(Error::Input { path }),
            Some(None) => return Err(Error::NoBlocks { path }),
            Some(_) if is_device && !force => return Err(Error::DeviceOutput { path }),
            Some(_) if !is_device && !begun => return Err(Error::Exists { path }),
            None if begun => return Err(Error::OutputGone { path }),
            None => _ = options.create_new(true),
            // Nobody else may have the device.
            Some(_) if is_device => _ = options.custom_flags(libc::O_EXCL),
            Some(_) => {}
        }
        let opened = options.open(&path).and_then(|mut file| {
            if !is_device {
                file.set_len(bytes)?;
            }
            let has = file.seek(SeekFrom::End(0))?;
            Ok((file, has))
        });
        match opened {
            Ok((_, has)) if has < bytes => Err(Error::OutputTooSmall { path, has, bytes }),
            Ok((file, _)) => Ok(Output { path, file, sparse: !is_device }),
            Err(source) => Err(Error::Output { path, source }),
        }
    }

    /// Whether zeros are not written, as they are there already.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.put(offset, bytes).map_err(|source| Error::Output { path: self.path.clone(), source })
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.sparse {
            return self.file.write_all_at(bytes, offset);
        }
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
        let mut at = offset;
        for run in chunks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let len: usize = run.iter().map(|chunk| chunk.len()).sum();
            if !is_zero(run[0]) {
                let from = (at - offset) as usize;
                self.file.write_all_at(&bytes[from..from + len], at)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|source| Error::Output { path: self.path.clone(), source })
    }
}

/// Whether at most [`CHUNK`] bytes are zeros.
fn is_zero(bytes: &[u8]) -> bool {
    bytes == &[0; CHUNK][..bytes.len()]
}
