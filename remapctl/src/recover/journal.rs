//! How far a recovery has come, and what cannot be read: in memory, and in a map file as ddrescue has them, so that its tools, and
//! `bdev_remap_import`, read it as well. The first comments say of what it is a recovery.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::ddrescue::{self, Fate};
use crate::error::Error;

/// Before what a recovery is of.
const ABOUT: &str = "remapctl recover: ";

pub(super) struct Journal {
    path: PathBuf,
    identity: String,
    block_size: u32,
    total: u64,
    /// Blocks before this were tried.
    done: u64,
    /// Those that cannot be read, ascending and apart.
    bad: Vec<Range<u64>>,
    /// Those of them that are still to be tried again.
    retried: Vec<Range<u64>>,
    begun: bool,
}

impl Journal {
    /// Goes on with the map at `path`, or begins it.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is of something else; [`Error::Map`], [`Error::Open`].
    pub(super) fn open(path: PathBuf, identity: String, block_size: u32, total: u64) -> Result<Journal, Error> {
        let mut journal =
            Journal { path, identity, block_size, total, done: 0, bad: Vec::new(), retried: Vec::new(), begun: false };
        match File::open(&journal.path) {
            Ok(file) => journal.load(BufReader::new(file))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Open { path: journal.path, source }),
        }
        Ok(journal)
    }

    fn load(&mut self, file: impl BufRead) -> Result<(), Error> {
        let malformed = |number| Error::Map { path: self.path.clone(), number };
        let mut identity = None;
        // The line that says where it is, and then extents.
        let (mut status, mut next, mut done, mut bad) = (false, 0, None, Vec::new());
        for (number, line) in (1..).zip(file.lines()) {
            let line = line.map_err(|source| Error::Open { path: self.path.clone(), source })?;
            if let Some(comment) = line.strip_prefix('#') {
                identity = comment.trim().strip_prefix(ABOUT).map(str::to_owned).or(identity);
            } else if !status {
                status = true;
            } else if !line.trim().is_empty() {
                let (range, fate) = self.extent(&line).ok_or_else(|| malformed(number))?;
                // What was not tried is all behind what was.
                if range.start != next || done.is_some() {
                    return Err(malformed(number));
                }
                next = range.end;
                match fate {
                    Fate::Untried => done = Some(range.start),
                    Fate::Bad => bad.push(range),
                    Fate::Read => {}
                }
            }
        }
        if identity.as_ref() != Some(&self.identity) {
            let (was, is) = (identity.unwrap_or_else(|| "something else".to_owned()), self.identity.clone());
            return Err(Error::Changed { path: self.path.clone(), was, is });
        }
        if next != self.total {
            return Err(malformed(1));
        }
        (self.done, self.bad, self.begun) = (done.unwrap_or(next), bad, true);
        Ok(())
    }

    /// A line of the map, in blocks.
    fn extent(&self, line: &str) -> Option<(Range<u64>, Fate)> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [at, size, fate] = words[..] else { return None };
        let size_of_block = u64::from(self.block_size);
        let blocks = |word: &str| {
            let bytes = u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()?;
            bytes.is_multiple_of(size_of_block).then_some(bytes / size_of_block)
        };
        let (at, size) = (blocks(at)?, blocks(size)?);
        Some((at..at.checked_add(size)?, Fate::of(fate)?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was there before.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn is_finished(&self) -> bool {
        self.done >= self.total
    }

    pub(super) fn bad(&self) -> &[Range<u64>] {
        &self.bad
    }

    /// All before `done` was tried, and of what is new these blocks cannot be read.
    pub(super) fn advance(&mut self, done: u64, bad: Vec<u64>) {
        self.add_bad(bad);
        self.done = done;
    }

    /// These blocks, behind all that are known, cannot be read.
    pub(super) fn add_bad(&mut self, blocks: Vec<u64>) {
        for block in blocks {
            match self.bad.last_mut() {
                Some(last) if last.end == block => last.end += 1,
                _ => self.bad.push(block..block + 1),
            }
        }
    }

    /// All that cannot be read, to be tried again one after the other.
    pub(super) fn take_bad(&mut self) -> Vec<Range<u64>> {
        self.retried = std::mem::take(&mut self.bad);
        self.retried.clone()
    }

    /// All that cannot be read, and lies before `end`, was tried again.
    pub(super) fn retried(&mut self, end: u64) {
        self.retried.retain(|extent| extent.end > end);
    }

    /// Of what is to be tried again nothing more is, from block `first` on: it is as it was.
    pub(super) fn give_back(&mut self, first: u64) {
        for extent in std::mem::take(&mut self.retried) {
            let rest = extent.start.max(first)..extent.end;
            match self.bad.last_mut() {
                Some(last) if last.end == rest.start => last.end = rest.end,
                _ => self.bad.push(rest),
            }
        }
    }

    /// Writes the map, whole: the old one is there until the new one is.
    pub(super) fn save(&self) -> Result<(), Error> {
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(&new)?);
            let about = format!("{ABOUT}{}", self.identity);
            let bad = self.bad.iter().cloned().map(io::Result::Ok);
            ddrescue::write(&mut file, &[&about], self.block_size, bad, self.done, self.total)?;
            file.flush()?;
            file.get_ref().sync_data()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| Error::Output { path: self.path.clone(), source })
    }
}
