//! The undo file.
//!
//! ```text
//! | header, JSON, one line | page | page | … | CRC-32C of all before, 4 bytes |
//! page: | LBA, 8 bytes | CRC-32C of what the repair writes, 4 bytes | flags, 4 bytes | what was there |
//! ```
//! Numbers are little-endian. The pages are in the order in which they are written, and put back in the opposite one, step by step. The header
//! has the identity of the spare, and a checksum of all the metadata that is not written over: so that a spare is known again that is as
//! the repair found or left it, or left half done.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

/// The version of the format.
pub(super) const VERSION: u32 = 1;
/// Bytes of a header at most.
const MAX_HEADER: u64 = 64 << 10;
/// Bytes of what stands before each page.
pub(super) const PAGE_HEADER: u64 = 16;
/// Flag of a page: it could not be read.
pub(super) const NOT_READ: u32 = 1;
/// Flag of a page: those before it are durable before it is written.
const BEGINS_STEP: u32 = 2;

/// The first line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) remapctl_undo: u32,
    pub(super) name: String,
    pub(super) set_uuid: Uuid,
    pub(super) spare_id: Uuid,
    /// Size of the spare.
    pub(super) bytes: u64,
    pub(super) block_size: u32,
    pub(super) page_bytes: u32,
    /// CRC-32C of all metadata pages but those below.
    pub(super) rest: u32,
    pub(super) pages: u64,
}

/// A page that was, or is to be, written over.
pub(super) struct Kept {
    pub(super) at: u64,
    /// CRC-32C of what the repair writes.
    pub(super) after: u32,
    /// What was there; nothing if it could not be read.
    pub(super) before: Option<Vec<u8>>,
    /// Whether it is the first of its step.
    pub(super) begins_step: bool,
}

impl Kept {
    pub(super) fn write(&self, header: &Header, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.at.to_le_bytes())?;
        out.write_all(&self.after.to_le_bytes())?;
        let read = if self.before.is_none() { NOT_READ } else { 0 };
        let begins = if self.begins_step { BEGINS_STEP } else { 0 };
        out.write_all(&(read | begins).to_le_bytes())?;
        match &self.before {
            Some(before) => out.write_all(before),
            None => out.write_all(&vec![0; header.page_bytes as usize]),
        }
    }

    fn read(header: &Header, input: &mut impl Read) -> io::Result<Kept> {
        let (mut at, mut after, mut flags) = ([0; 8], [0; 4], [0; 4]);
        input.read_exact(&mut at)?;
        input.read_exact(&mut after)?;
        input.read_exact(&mut flags)?;
        let mut page = vec![0; header.page_bytes as usize];
        input.read_exact(&mut page)?;
        let flags = u32::from_le_bytes(flags);
        let before = (flags & NOT_READ == 0).then_some(page);
        let (at, after) = (u64::from_le_bytes(at), u32::from_le_bytes(after));
        Ok(Kept { at, after, before, begins_step: flags & BEGINS_STEP != 0 })
    }
}

/// The pages of a file, one by one.
pub(super) struct Pages<'a> {
    path: &'a Path,
    pub(super) header: Header,
    input: Summed<BufReader<File>>,
    left: u64,
    /// Where the first one is in the file.
    first: u64,
}

impl Pages<'_> {
    /// The pages are those of the header's size: it has to be compared with that of the spare.
    pub(super) fn open(path: &Path) -> Result<Pages<'_>, Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(no_undo(path));
        }
        let mut input = Summed { inner: BufReader::new(file), crc: 0 };
        let mut line = Vec::new();
        input.inner.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line).map_err(failed)?;
        input.crc = crc32c::crc32c(&line);
        let header: Option<Header> = serde_json::from_slice(&line).ok();
        let header = header.filter(|header| header.remapctl_undo == VERSION).ok_or_else(|| no_undo(path))?;
        Ok(Pages { path, left: header.pages, header, input, first: line.len() as u64 })
    }

    /// The page with this number.
    pub(super) fn kept(&mut self, number: u64) -> Result<Kept, Error> {
        let at = self.first + number * (PAGE_HEADER + u64::from(self.header.page_bytes));
        let there = self.input.inner.seek(SeekFrom::Start(at));
        there.and_then(|_| Kept::read(&self.header, &mut self.input)).map_err(|_| no_undo(self.path))
    }

    /// Checks that nothing is behind the pages but their checksum, and that no page is there twice.
    pub(super) fn end(&mut self, places: u64) -> Result<(), Error> {
        let (crc, mut found, mut more) = (self.input.crc, [0; 4], [0; 1]);
        let whole = self.input.inner.read_exact(&mut found).is_ok()
            && self.input.inner.read(&mut more).is_ok_and(|more| more == 0)
            && u32::from_le_bytes(found) == crc;
        if whole && places == self.header.pages { Ok(()) } else { Err(no_undo(self.path)) }
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<Kept, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let kept = Kept::read(&self.header, &mut self.input).map_err(|_| no_undo(self.path));
        if kept.is_err() {
            self.left = 0;
        }
        Some(kept)
    }
}

pub(super) fn no_undo(path: &Path) -> Error {
    Error::NoUndo { path: path.to_owned() }
}

/// With the checksum of what went through.
pub(super) struct Summed<T> {
    pub(super) inner: T,
    pub(super) crc: u32,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..read]);
        Ok(read)
    }
}
