//! `recover`: the content of a Remap bdev as a file, without SPDK: the base, with the remapped blocks in their places.
//!
//! A map beside the output ([`journal`]) says how far it has come, so that the same command goes on where it was stopped, and which
//! blocks cannot be read. Those are zeros in the output. Base and spare are only read.

mod content;
mod journal;
mod output;

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use remap_core::Mapping;
use remap_core::engine::SetPreview;

use self::content::Content;
use self::journal::Journal;
use self::output::Output;
use crate::buffer::Buffer;
use crate::check::uuid_of;
use crate::cli::RecoverArgs;
use crate::disk::Disk;
use crate::error::{Error, Verdict};
use crate::in_use;
use crate::map::words::shown;
use crate::progress::Progress;
use crate::spare::{Base, Spare};
use crate::units::counted;

/// Bytes that are read at once, or one block where that is larger.
const WINDOW_BYTES: u64 = 1 << 20;
/// The map is written so often, and not so often that it takes more than a twentieth of the time.
const BETWEEN_SAVES: Duration = Duration::from_secs(5);
const SHARE_OF_SAVES: u32 = 20;

/// Runs the command, until it is `interrupted`.
///
/// # Errors
/// Those of opening base, spare and output; [`Error::Changed`], [`Error::Gone`], [`Error::Interrupted`], [`Error::Stdout`].
pub fn run(args: &RecoverArgs, out: &mut impl Write, interrupted: &AtomicBool) -> Result<Verdict, Error> {
    let spare = Spare::open(&args.spare, args.size.block_size)?;
    let base = Disk::open(&args.base)?;
    in_use::warn(&base);
    let blocks = base.bytes() / u64::from(spare.block_size());
    let set = spare.set(Base { blocks: Some(blocks), uuid: args.base_uuid, md_size: None }, args.at.at)?;
    if set.superblock.md_size != 0 {
        return Err(Error::Metadata { path: args.spare.clone(), bytes: set.superblock.md_size });
    }
    if let Some(uuid) = uuid_of(&base).filter(|uuid| *uuid != set.superblock.base_uuid) {
        let (base, noted) = (args.base.display(), set.superblock.base_uuid);
        anstream::eprintln!(
            "warning: {base}: the kernel knows it as {uuid}, the spare as {noted}: it is another base, unless its bdev was given that UUID"
        );
    }
    let map = args.map.clone().unwrap_or_else(|| {
        let mut path = args.output.clone().into_os_string();
        path.push(".map");
        PathBuf::from(path)
    });
    let bytes = blocks * u64::from(spare.block_size());
    let journal = Journal::open(map, identity(&set, &spare, args), spare.block_size(), blocks)?;
    let output =
        Output::open(&args.output, bytes, args.force, journal.is_begun(), [base.identity(), spare.disk().identity()])?;
    let content = Content::new(&set, base, spare.disk(), output.is_sparse());
    let mut recovery = Recovery { content, journal, output, interrupted, saved: Instant::now(), pause: BETWEEN_SAVES };
    let result = recovery.run(&args.base, args.retry);
    recovery.save()?;
    result?;
    report(&set, &recovery, args, out)
}

/// What has to be the same when a recovery goes on.
fn identity(set: &SetPreview, spare: &Spare, args: &RecoverArgs) -> String {
    let written = spare.superblock.as_ref().map_or(0, |superblock| superblock.sequence.get());
    let (uuid, epoch, sequence) = (set.superblock.set_uuid, set.epoch, set.sequence);
    format!("set {uuid}, epoch {epoch}, sequence {sequence}, superblock {written}, base {}", args.base.display())
}

/// A recovery under way.
struct Recovery<'a> {
    content: Content<'a>,
    journal: Journal,
    output: Output,
    interrupted: &'a AtomicBool,
    saved: Instant,
    /// Between two saves.
    pause: Duration,
}

impl Recovery<'_> {
    fn run(&mut self, base: &std::path::Path, retry: bool) -> Result<(), Error> {
        let size = u64::from(self.content.block_size());
        let total = self.journal.total();
        // Also where nothing is done yet: the map tells what the output is.
        self.save()?;
        let progress = Progress::new(format!("recovering {}", base.display()), Some(total * size));
        progress.begin_at(self.journal.done() * size);
        let window = (WINDOW_BYTES / size).max(1);
        let mut buffer = Buffer::zeroed((window * size) as usize).map_err(|_| Error::Memory)?;
        let finished = self.journal.is_finished();
        while !self.journal.is_finished() {
            let first = self.journal.done();
            let range = first..total.min(first + window);
            let bad = self.copy(range.clone(), &mut buffer)?;
            progress.add((range.end - range.start) * size);
            self.journal.advance(range.end, bad);
            self.save_if_due()?;
        }
        progress.end();
        if retry && finished { self.retry(window, &mut buffer) } else { Ok(()) }
    }

    /// Tries those blocks again that could not be read.
    fn retry(&mut self, window: u64, buffer: &mut Buffer) -> Result<(), Error> {
        for extent in self.journal.take_bad() {
            let mut first = extent.start;
            while first < extent.end {
                let range = first..extent.end.min(first + window);
                match self.copy(range.clone(), buffer) {
                    Ok(bad) => self.journal.add_bad(bad),
                    Err(error) => {
                        self.journal.give_back(first);
                        return Err(error);
                    }
                }
                first = range.end;
            }
            self.journal.retried(extent.end);
        }
        Ok(())
    }

    /// Copies some blocks; those that cannot be read are the answer.
    fn copy(&mut self, range: Range<u64>, buffer: &mut Buffer) -> Result<Vec<u64>, Error> {
        let size = u64::from(self.content.block_size());
        let bytes = &mut buffer.as_mut()[..((range.end - range.start) * size) as usize];
        let interrupted = self.interrupted;
        let check = || if interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) };
        check()?;
        let Some(bad) = self.content.read(range.clone(), bytes, &check)? else { return Ok(Vec::new()) };
        self.output.write(range.start * size, bytes)?;
        Ok(bad)
    }

    fn save_if_due(&mut self) -> Result<(), Error> {
        if self.saved.elapsed() >= self.pause { self.save() } else { Ok(()) }
    }

    /// Makes durable what was done, and then says so.
    fn save(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.output.sync()?;
        self.journal.save()?;
        self.saved = Instant::now();
        self.pause = BETWEEN_SAVES.max(began.elapsed() * SHARE_OF_SAVES);
        Ok(())
    }
}

fn report(set: &SetPreview, done: &Recovery<'_>, args: &RecoverArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let bad: u64 = done.journal.bad().iter().map(|extent| extent.end - extent.start).sum();
    let moved = set.mappings.count(|mapping| matches!(mapping, Mapping::Spare(_)));
    let (name, size) = (shown(&set.superblock.name), u64::from(done.content.block_size()));
    writeln!(
        out,
        "{}: {} of \"{name}\", as of epoch {}, sequence {}; {moved} blocks of it are from the spare",
        args.output.display(),
        BinaryBytes(done.journal.total() * size),
        set.epoch,
        set.sequence
    )?;
    if bad == 0 {
        out.flush()?;
        return Ok(Verdict::Sound);
    }
    let lost = set.mappings.count(|mapping| matches!(mapping, Mapping::Lost(_)));
    writeln!(
        out,
        "{} cannot be read ({lost} of that lost): zeros in it, and listed in {}; --retry tries again",
        counted(bad, "block"),
        done.journal.path().display()
    )?;
    out.flush()?;
    Ok(Verdict::Degraded)
}
