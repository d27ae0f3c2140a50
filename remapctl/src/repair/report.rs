//! What a repair is about to write, or has written.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use remap_core::engine::{MetadataPage, Repair, RepairPlan, WrittenFrom};
use remap_core::format::{Copy, Superblock};
use remap_core::{Epoch, GivenUp, Sequence};
use serde::Serialize;
use uuid::Uuid;

use super::loss;
use crate::check::NOT_CLOSED;
use crate::error::Error;
use crate::map::words::shown;
use crate::spare::Spare;
use crate::style::{BAD, BOLD, GOOD, WARN, styled};

/// Runs of pages that are shown; JSON has all of them.
const SHOWN: usize = 24;

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    spare: PathBuf,
    name: String,
    set_uuid: Uuid,
    epoch: Epoch,
    sequence: Sequence,
    /// What is given up with it, if an operator has chosen this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    gives_up: Option<GivenUp>,
    /// Whether the set was refused before.
    refused: bool,
    /// What speaks for somebody who has it open, perhaps where he cannot be seen.
    notes: Vec<String>,
    /// In the order in which they are written.
    pages: Vec<PageReport>,
    written: bool,
    /// Where is kept what they were, if they are written.
    undo: PathBuf,
}

/// A page.
#[derive(Serialize)]
struct PageReport {
    /// "superblock" or "log".
    of: &'static str,
    copy: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    area: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    lba: u64,
    /// What it is.
    what: &'static str,
    /// What it is written from: "copy A", "copy B", "zeros" or "the choice".
    from: &'static str,
}

impl Report {
    pub(super) fn new(spare: &Spare, plan: &RepairPlan, written: bool, undo: &Path) -> Report {
        Report {
            spare: spare.path(),
            name: plan.superblock.name.clone(),
            set_uuid: plan.superblock.set_uuid,
            epoch: plan.in_force.state.epoch,
            sequence: plan.in_force.state.sequence,
            gives_up: plan.gives_up,
            refused: plan.gives_up.is_some(),
            notes: notes(&plan.superblock),
            pages: plan.repairs.iter().map(PageReport::of).collect(),
            written,
            undo: undo.to_owned(),
        }
    }

    /// Whether every copy is whole now.
    pub(super) fn whole(&self) -> bool {
        self.written || self.pages.is_empty()
    }

    pub(super) fn text(&self, out: &mut impl Write) -> Result<(), Error> {
        let (spare, undo) = (self.spare.display(), self.undo.display());
        let Report { set_uuid, epoch, sequence, .. } = self;
        let name = shown(&self.name);
        writeln!(out, "set     \"{name}\", {set_uuid}: epoch {epoch}, sequence {sequence}")?;
        if let Some(loss) = self.gives_up.as_ref().and_then(loss::words) {
            writeln!(out, "{}   {loss}", styled(BAD, "loses"))?;
        }
        if self.pages.is_empty() {
            return Ok(writeln!(out, "{spare}: {}: every copy is whole", styled(GOOD, "nothing to repair"))?);
        }
        for note in self.notes.iter().filter(|_| !self.written) {
            writeln!(out, "{}    {note}", styled(WARN, "note"))?;
        }
        writeln!(
            out,
            "\n{}",
            styled(BOLD, format!("{:>15}  {:<30} {:<12} {}", "lba", "page", "it is", "written from"))
        )?;
        let runs: Vec<_> = self.pages.chunk_by(PageReport::is_followed_by).collect();
        runs.iter().take(SHOWN).try_for_each(|run| line(run, out))?;
        if runs.len() > SHOWN {
            writeln!(out, "  and {} more: see --json", runs.len() - SHOWN)?;
        }
        let count = self.pages.len();
        let (pages, them) = if count == 1 { ("1 page".to_owned(), "it") } else { (format!("{count} pages"), "them") };
        let (verdict, why) = if self.refused {
            (styled(BAD, "refused"), "to bring it to this state")
        } else if self.pages.iter().all(|page| page.what != "not chosen") {
            (styled(WARN, "degraded"), "of a copy that is bad")
        } else {
            (styled(WARN, "degraded"), "of what is left of other states: this one is in force, and nothing is lost")
        };
        writeln!(out)?;
        if self.written {
            writeln!(out, "{spare}: {}: {pages} written, every copy is whole", styled(GOOD, "repaired"))?;
            Ok(writeln!(
                out,
                "what was there is in {undo}; back again: remapctl repair --undo-from {undo} {spare} --yes"
            )?)
        } else {
            writeln!(out, "{spare}: {verdict}: {pages} to write, {why}; nothing was written")?;
            Ok(writeln!(out, "--yes writes {them}, and keeps what is there now in {undo}")?)
        }
    }
}

impl PageReport {
    fn of(repair: &Repair) -> PageReport {
        let (of, area, page) = match repair.page {
            MetadataPage::Superblock(_) => ("superblock", None, None),
            MetadataPage::Log(at) => ("log", Some(at.area.index()), Some(at.index)),
        };
        let copy = repair.page.copy();
        let from = match (repair.from, copy) {
            (WrittenFrom::Zeros, _) => "zeros",
            (WrittenFrom::Choice, _) => "the choice",
            (WrittenFrom::OtherCopy, Copy::A) => "copy B",
            (WrittenFrom::OtherCopy, Copy::B) => "copy A",
        };
        PageReport { of, copy: copy.name(), area, page, lba: repair.at.0, what: repair.what, from }
    }

    /// Whether `next` can be told with it.
    fn is_followed_by(&self, next: &PageReport) -> bool {
        let same = |page: &PageReport| (page.of, page.copy, page.area, page.what, page.from);
        same(self) == same(next) && self.page.map(|page| page + 1) == next.page
    }
}

fn notes(superblock: &Superblock) -> Vec<String> {
    let mut notes = Vec::new();
    if !superblock.was_closed() {
        notes.push(NOT_CLOSED.to_owned());
    }
    if !superblock.host_id.is_nil() {
        notes.push(format!("the set is of host {}: make sure that it is not open there", superblock.host_id));
    }
    notes
}

fn line(run: &[PageReport], out: &mut impl Write) -> io::Result<()> {
    let [first, ..] = run else { return Ok(()) };
    let PageReport { copy, lba, what, from, .. } = first;
    let last = run.last().and_then(|page| page.page);
    let which: &dyn Display = match (first.area, first.page, last) {
        (Some(area), Some(first), Some(last)) if first == last => &format!("log area {area}, copy {copy}, {first}"),
        (Some(area), Some(first), Some(last)) => &format!("log area {area}, copy {copy}, {first}-{last}"),
        _ => &format!("superblock {copy}"),
    };
    writeln!(out, "{lba:>15}  {which:<30} {what:<12} {from}")
}
