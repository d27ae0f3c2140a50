//! What a repair writes over, kept in a file, and put back from it.
//!
//! ```text
//! | header, JSON, one line | page | page | … | CRC-32C of all before, 4 bytes |
//! page: | LBA, 8 bytes | CRC-32C of what the repair writes, 4 bytes | flags, 4 bytes | what was there |
//! ```
//! Numbers are little-endian. The pages are in the order in which they are written, and put back in the opposite one, step by step, so that
//! whatever of that is done is what a crash of the repair might have left. The header has the identity of the spare, and a checksum of all the metadata that is not written over: so
//! that a spare is known again that is as the repair found or left it, or left half done.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use remap_core::SpareLba;
use remap_core::engine::RepairPlan;
use remap_core::format::Layout;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::target::Target;
use crate::buffer::Buffer;
use crate::disk::Disk;
use crate::error::{Error, Verdict};
use crate::spare::Spare;
use crate::style::{GOOD, WARN, styled};

/// The version of the format.
const VERSION: u32 = 1;
/// Bytes of a header at most.
const MAX_HEADER: u64 = 64 << 10;
/// Bytes of what stands before each page.
const PAGE_HEADER: u64 = 16;
/// Pages that are read at once.
const CHUNK_PAGES: u64 = 32;
/// What a page that cannot be read counts as in a checksum.
const UNREADABLE: &[u8] = b"unreadable";
/// Flag of a page: it could not be read.
const NOT_READ: u32 = 1;
/// Flag of a page: those before it are durable before it is written.
const BEGINS_STEP: u32 = 2;
/// What a page is full of that could not be read, and is put back: it is bad again, and was zeros meanwhile.
const BAD_AGAIN: u8 = 0xa5;

/// The first line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    remapctl_undo: u32,
    name: String,
    set_uuid: Uuid,
    spare_id: Uuid,
    /// Size of the spare.
    bytes: u64,
    block_size: u32,
    page_bytes: u32,
    /// CRC-32C of all metadata pages but those below.
    rest: u32,
    pages: u64,
}

/// A page that was, or is to be, written over.
struct Kept {
    at: u64,
    /// CRC-32C of what the repair writes.
    after: u32,
    /// What was there; nothing if it could not be read.
    before: Option<Vec<u8>>,
    /// Whether it is the first of its step.
    begins_step: bool,
}

/// Writes the file, and makes it durable.
///
/// # Errors
/// [`Error::UndoExists`], [`Error::Undo`]; those of making the pages.
pub(super) fn keep(spare: &Spare, plan: &RepairPlan, path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::UndoExists { path: path.to_owned() },
        _ => Error::Undo { path: path.to_owned(), source },
    };
    let layout = &plan.superblock.layout;
    let mut header = Header {
        remapctl_undo: VERSION,
        name: plan.superblock.name.clone(),
        set_uuid: plan.superblock.set_uuid,
        spare_id: plan.superblock.spare_id,
        bytes: spare.disk().bytes(),
        block_size: layout.block_size,
        page_bytes: layout.page_bytes,
        rest: 0,
        pages: plan.repairs.len() as u64,
    };
    let written: BTreeSet<u64> = plan.repairs.iter().map(|repair| repair.at.0).collect();
    header.rest = rest(spare.disk(), layout, &written)?;
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    let write = || -> Result<(), Error> {
        let mut out = Summed { inner: BufWriter::new(&file), crc: 0 };
        let line = serde_json::to_string(&header).map_err(io::Error::from).map_err(failed)?;
        writeln!(out, "{line}").map_err(failed)?;
        for step in plan.steps() {
            for (number, repair) in step.iter().enumerate() {
                let page = spare.repaired(plan, repair).map_err(|why| Error::of_spare(spare.path(), why))?;
                let after = crc32c::crc32c(page.as_ref());
                let before = read(spare.disk(), layout, repair.at.0)?;
                let kept = Kept { at: repair.at.0, after, before, begins_step: number == 0 };
                kept.write(&header, &mut out).map_err(failed)?;
            }
        }
        let crc = out.crc;
        out.inner.write_all(&crc.to_le_bytes()).and_then(|()| out.inner.flush()).map_err(failed)?;
        drop(out);
        file.sync_all().map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    };
    write().inspect_err(|_| {
        // It is of no use, and in the way of the next attempt.
        let _ = std::fs::remove_file(path);
    })
}

/// Puts back what the file has, if `yes`.
///
/// # Errors
/// [`Error::Open`], [`Error::NoUndo`] for the file; [`Error::OtherState`] for a spare that is not as the repair left it; those of writing.
pub(super) fn run(
    spare: &Spare,
    path: &Path,
    yes: bool,
    out: &mut impl Write,
    interrupted: &AtomicBool,
) -> Result<Verdict, Error> {
    let disk = spare.disk();
    let target = if yes { Some(Target::open(disk)?) } else { None };
    let layout = layout(spare, path)?;
    same_state(disk, path, &layout)?;
    if let Some(target) = &target {
        target.alone()?;
    }
    let (mut pages, mut unread) = (0, 0);
    let mut all = Pages::open(path)?;
    for number in (0..all.header.pages).rev() {
        let kept = all.kept(number)?;
        let Some(before) = kept.to_put_back(&layout) else {
            unread += 1;
            continue;
        };
        pages += 1;
        let Some(target) = &target else { continue };
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::UndoInterrupted { path: spare.path(), undo: path.to_owned() });
        }
        target.write(SpareLba(kept.at), layout.block_size, &before)?;
        if kept.begins_step {
            target.sync()?;
        }
    }
    let spare = disk.path().display();
    if unread > 0 {
        writeln!(
            out,
            "{}    {unread} pages could not be read before the repair, and stay as they are, which is what the other copy says",
            styled(WARN, "note")
        )?;
    }
    match target {
        Some(target) => {
            target.sync()?;
            let are = if pages == 1 { "1 page is as it was" } else { &format!("{pages} pages are as they were") };
            writeln!(out, "{spare}: {}: {are} before the repair", styled(GOOD, "undone"))?;
        }
        None => writeln!(out, "{spare}: pages to put back: {pages}; nothing was written; --yes writes them")?,
    }
    out.flush()?;
    Ok(Verdict::Sound)
}

/// Where everything is on the spare, if it is the one of the file.
fn layout(spare: &Spare, path: &Path) -> Result<Layout, Error> {
    let header = Pages::open(path)?.header;
    let found = spare.superblock.as_ref().filter(|found| {
        (found.set_uuid, found.spare_id) == (header.set_uuid, header.spare_id)
            && (found.layout.block_size, found.layout.page_bytes) == (header.block_size, header.page_bytes)
            && spare.disk().bytes() == header.bytes
    });
    found
        .map(|found| found.layout)
        .ok_or_else(|| differs(spare.disk(), path, "it is another spare, or of another size"))
}

/// Checks that the file is whole, and that each page of the metadata is as before the repair, or as after it.
fn same_state(disk: &Disk, path: &Path, layout: &Layout) -> Result<(), Error> {
    let mut pages = Pages::open(path)?;
    let (mut written, mut what) = (BTreeSet::new(), None);
    for kept in &mut pages {
        let kept = kept?;
        if !is_page(layout, kept.at) {
            return Err(no_undo(path));
        }
        written.insert(kept.at);
        what = what.or(as_before_or_after(disk, layout, &kept)?);
    }
    pages.end(written.len() as u64)?;
    if rest(disk, layout, &written)? != pages.header.rest {
        what = Some("its metadata was written to since");
    }
    what.map_or(Ok(()), |what| Err(differs(disk, path, what)))
}

/// What speaks against it.
fn as_before_or_after(disk: &Disk, layout: &Layout, kept: &Kept) -> Result<Option<&'static str>, Error> {
    Ok(match (read(disk, layout, kept.at)?, &kept.before) {
        (_, None) => None,
        (None, Some(_)) => Some("a page that was written cannot be read"),
        (Some(now), Some(before)) if now == *before || crc32c::crc32c(&now) == kept.after => None,
        _ => Some("a page is neither as before nor as after the repair; repair it again first"),
    })
}

/// Whether a page of the metadata begins there.
fn is_page(layout: &Layout, at: u64) -> bool {
    let begins = |(first, blocks): &(SpareLba, u64)| {
        at.checked_sub(first.0).is_some_and(|within| within < *blocks && within % layout.page_blocks() == 0)
    };
    layout.metadata().iter().any(begins)
}

fn differs(disk: &Disk, path: &Path, what: &'static str) -> Error {
    Error::OtherState { path: disk.path().to_owned(), undo: path.to_owned(), what }
}

/// The checksum of all metadata pages but those in `without`.
fn rest(disk: &Disk, layout: &Layout, without: &BTreeSet<u64>) -> Result<u32, Error> {
    let page_blocks = layout.page_blocks();
    let mut crc = 0;
    for (first, blocks) in layout.metadata() {
        let pages = blocks / page_blocks;
        for done in (0..pages).step_by(CHUNK_PAGES as usize) {
            let count = CHUNK_PAGES.min(pages - done);
            let from = first.plus(done * page_blocks).0;
            let mut buffer = buffer(count * u64::from(layout.page_bytes))?;
            let together = disk.read(offset(layout, from), buffer.as_mut()).is_ok();
            let pages = buffer.as_ref().chunks(layout.page_bytes as usize);
            for (at, page) in (from..).step_by(page_blocks as usize).zip(pages) {
                if without.contains(&at) {
                    continue;
                }
                let alone = if together { None } else { read(disk, layout, at)? };
                let found = if together { page } else { alone.as_deref().unwrap_or(UNREADABLE) };
                crc = crc32c::crc32c_append(crc, found);
            }
        }
    }
    Ok(crc)
}

/// A page of the spare; nothing if it cannot be read.
fn read(disk: &Disk, layout: &Layout, at: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut buffer = buffer(layout.page_bytes.into())?;
    let read = disk.read(offset(layout, at), buffer.as_mut());
    Ok(read.is_ok().then(|| buffer.as_ref().to_vec()))
}

fn offset(layout: &Layout, at: u64) -> u64 {
    at.saturating_mul(layout.block_size.into())
}

fn buffer(bytes: u64) -> Result<Buffer, Error> {
    usize::try_from(bytes).ok().and_then(|bytes| Buffer::zeroed(bytes).ok()).ok_or(Error::Memory)
}

impl Kept {
    fn write(&self, header: &Header, out: &mut impl Write) -> io::Result<()> {
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

    /// What is to be there again; nothing where what the repair has written is as good. Where that was zeros, the page must not look as if
    /// it had never been written: it was bad, and says so again.
    fn to_put_back(&self, layout: &Layout) -> Option<Vec<u8>> {
        let page = layout.page_bytes as usize;
        let is_erased = self.after == crc32c::crc32c(&vec![0; page]);
        self.before.clone().or_else(|| is_erased.then(|| vec![BAD_AGAIN; page]))
    }
}

/// The pages of a file, one by one.
struct Pages<'a> {
    path: &'a Path,
    header: Header,
    input: Summed<BufReader<File>>,
    left: u64,
    /// Where the first one is in the file.
    first: u64,
}

impl Pages<'_> {
    /// The pages are those of the header's size: it has to be compared with that of the spare.
    fn open(path: &Path) -> Result<Pages<'_>, Error> {
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
    fn kept(&mut self, number: u64) -> Result<Kept, Error> {
        let at = self.first + number * (PAGE_HEADER + u64::from(self.header.page_bytes));
        let there = self.input.inner.seek(SeekFrom::Start(at));
        there.and_then(|_| Kept::read(&self.header, &mut self.input)).map_err(|_| no_undo(self.path))
    }

    /// Checks that nothing is behind the pages but their checksum, and that no page is there twice.
    fn end(&mut self, places: u64) -> Result<(), Error> {
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

fn no_undo(path: &Path) -> Error {
    Error::NoUndo { path: path.to_owned() }
}

/// With the checksum of what went through.
struct Summed<T> {
    inner: T,
    crc: u32,
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
