//! What a repair writes over, kept in a file ([`mod@file`]), and put back from it: the other way round, so that whatever of an undo is done is
//! what the repair might have left.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use remap_core::SpareLba;
use remap_core::engine::RepairPlan;
use remap_core::format::Layout;

use self::file::{Header, Kept, Pages, Summed, VERSION, no_undo};
use super::target::Target;
use crate::buffer::Buffer;
use crate::disk::Disk;
use crate::error::{Error, Verdict};
use crate::spare::Spare;
use crate::style::{GOOD, WARN, styled};

/// Pages that are read at once.
const CHUNK_PAGES: u64 = 32;
/// What a page that cannot be read counts as in a checksum.
const UNREADABLE: &[u8] = b"unreadable";
/// What a page is full of that could not be read before the repair: it was bad, and is so again, whatever the repair has written there.
const BAD_AGAIN: u8 = 0xa5;

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
    let unread = same_state(disk, path, &layout)?;
    let mut all = Pages::open(path)?;
    let (spare, pages) = (disk.path().display(), all.header.pages);
    if unread > 0 {
        let (note, one) = (styled(WARN, "note"), unread == 1);
        let (pages, they) = if one { ("page", "it becomes") } else { ("pages", "they become") };
        writeln!(out, "{note}    {unread} {pages} could not be read before the repair: {they} bad again")?;
    }
    match target {
        Some(target) => {
            target.settle()?;
            target.alone()?;
            let write = |at, page: &[u8]| match interrupted.load(Ordering::Relaxed) {
                true => Err(Error::UndoInterrupted { path: disk.path().to_owned(), undo: path.to_owned() }),
                false => target.write(at, layout.block_size, page),
            };
            put_back(&mut all, write, || target.sync())?;
            let are = if pages == 1 { "1 page is as it was" } else { &format!("{pages} pages are as they were") };
            writeln!(out, "{spare}: {}: {are} before the repair", styled(GOOD, "undone"))?;
        }
        None => writeln!(out, "{spare}: pages to put back: {pages}; nothing was written; --yes writes them")?,
    }
    out.flush()?;
    Ok(Verdict::Sound)
}

/// Writes what was there before, the last page first; what was written in one step is durable before those of the step before it are written.
fn put_back(
    all: &mut Pages<'_>,
    mut write: impl FnMut(SpareLba, &[u8]) -> Result<(), Error>,
    mut sync: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let bad = vec![BAD_AGAIN; all.header.page_bytes as usize];
    for number in (0..all.header.pages).rev() {
        let kept = all.kept(number)?;
        write(SpareLba(kept.at), kept.before.as_deref().unwrap_or(&bad))?;
        if kept.begins_step {
            sync()?;
        }
    }
    Ok(())
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

/// Checks that the file is whole, and that each page of the metadata is as before the repair, or as after it. How many could not be read
/// before.
fn same_state(disk: &Disk, path: &Path, layout: &Layout) -> Result<u64, Error> {
    let mut pages = Pages::open(path)?;
    let (mut written, mut what, mut unread) = (BTreeSet::new(), None, 0);
    for kept in &mut pages {
        let kept = kept?;
        if !is_page(layout, kept.at) {
            return Err(no_undo(path));
        }
        written.insert(kept.at);
        unread += u64::from(kept.before.is_none());
        what = what.or(as_before_or_after(disk, layout, &kept)?);
    }
    pages.end(written.len() as u64)?;
    if rest(disk, layout, &written)? != pages.header.rest {
        what = Some("its metadata was written to since");
    }
    what.map_or(Ok(unread), |what| Err(differs(disk, path, what)))
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
