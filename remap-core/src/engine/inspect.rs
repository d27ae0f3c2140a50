//! Looking at a spare without changing anything: what its superblocks and log say, what is damaged, and between which
//! states of the log an operator may choose where none is in force; and what opening it would start from. For tools; nothing here
//! happens by itself.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde::Serialize;

use super::open::load;
use super::report::OpenParams;
use super::superblocks::{newest, read_superblocks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, PerArea, PerCopy, Superblock};
use crate::recovery::{Candidate, InForce, Mappings, PageState, Pages, Reader, judge};
use crate::slot::SpareBlock;
use crate::spare::Spare;
use crate::units::{Epoch, Sequence};

/// What is in one copy of a log area, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PageCounts {
    /// Of the highest epoch in the area.
    pub current: u64,
    /// Of earlier epochs.
    pub older: u64,
    /// Never written.
    pub zero: u64,
    /// Damaged, unreadable, or not of this place.
    pub bad: u64,
}

/// What a page of one copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageView {
    /// It was never written.
    Zero,
    /// It is valid, and of this epoch.
    Valid(Epoch),
    /// It is damaged, unreadable, or not of this place.
    Bad,
}

/// Consecutive pages of a log area that hold the same kind of thing, in each of the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The first page.
    pub first: u32,
    /// How many.
    pub pages: u32,
    /// What they hold, side by side.
    pub holds: PerCopy<PageView>,
}

/// What is in a log area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaInspection {
    /// The highest epoch in it, and the sequence number of its last page.
    pub last: Option<(Epoch, Sequence)>,
    /// By copy.
    pub pages: PerCopy<PageCounts>,
    /// All of it.
    pub runs: Vec<PageRun>,
}

/// What is on a spare.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// What the two places of superblocks hold: "valid", "corrupt", "unreadable", "zero", "foreign" …
    pub superblocks: PerCopy<&'static str>,
    /// What they hold, where it can be decoded.
    pub decoded: PerCopy<Option<Superblock>>,
    /// The one that counts.
    pub superblock: Option<Superblock>,
    /// The log, if some superblock says where it is.
    pub areas: Option<PerArea<AreaInspection>>,
    /// The state of the log that is in force.
    pub in_force: Option<InForce>,
    /// The states of the log that could be opened with [`OpenParams::stated_end`].
    pub candidates: Vec<Candidate>,
    /// Why the log would be refused as it is.
    pub refusal: Option<Error>,
}

/// Looks at everything on `spare` but the data. Writes nothing.
///
/// # Errors
/// [`Error::Io`] for errors that say nothing about the medium; [`Error::NoMemory`], [`Error::BlockSize`], [`Error::TooSmall`].
pub async fn inspect<D: Device, E: Env>(spare: D, env: E) -> Result<Inspection, Error> {
    let spare = Spare::new(spare, Rc::new(env));
    let found = read_superblocks(&spare).await?;
    let mut inspection = Inspection {
        superblocks: PerCopy::each(|copy| found[copy].name()),
        decoded: PerCopy::each(|copy| found[copy].valid().cloned()),
        superblock: None,
        areas: None,
        in_force: None,
        candidates: Vec::new(),
        refusal: None,
    };
    let superblock = match newest(&found) {
        Ok(Some(superblock)) => superblock,
        Ok(None) => return Ok(inspection),
        Err(error) => return Ok(Inspection { refusal: Some(error), ..inspection }),
    };
    let geometry = spare.geometry();
    let layout = &superblock.layout;
    if layout.block_size == geometry.block_size && layout.spare_blocks <= geometry.blocks {
        let areas = Reader::new(&spare, &superblock).scan().await?;
        let (candidates, judged) = judge(&areas, &superblock);
        inspection.candidates = candidates;
        match judged {
            Ok(in_force) => inspection.in_force = Some(in_force),
            Err(refusal) => inspection.refusal = Some(refusal),
        }
        inspection.areas = Some(PerArea::each(|area| AreaInspection::of(&areas, area)));
    }
    inspection.superblock = Some(superblock);
    Ok(inspection)
}

/// Whose this spare is: the superblock that counts, if there is one. Writes nothing.
///
/// # Errors
/// What speaks against every use of the superblocks: [`Error::MixedSuperblocks`], [`Error::Superblock`]; otherwise as
/// [`inspect`].
pub async fn identify<D: Device, E: Env>(spare: D, env: E) -> Result<Option<Superblock>, Error> {
    newest(&read_superblocks(&Spare::new(spare, Rc::new(env))).await?)
}

/// What opening a spare would start from.
#[derive(Clone, Debug)]
pub enum Preview {
    /// The spare is empty, or the parameters say that it may be overwritten: it would be formatted.
    Format,
    /// A set is on it.
    Set(Box<SetPreview>),
}

/// A set as it would be loaded.
#[derive(Clone, Debug)]
pub struct SetPreview {
    /// The superblock, as it would be from then on.
    pub superblock: Superblock,
    /// What is known of each block of the base that is not simply there.
    pub mappings: Mappings,
    /// The bad spare blocks.
    pub bad: BTreeSet<SpareBlock>,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The sequence number of its last page.
    pub sequence: Sequence,
    /// Which copies of the superblock say all that they should.
    pub superblock_ok: PerCopy<bool>,
    /// Which copies of the log hold every page that they should.
    pub log_ok: PerCopy<bool>,
    /// Whether a checkpoint would be written at once: to make copies whole, or as the set was not closed.
    pub unfinished: bool,
}

/// What [`super::Engine::open`] would start from, with the same parameters. Writes nothing, and takes memory in proportion to
/// what is mapped.
///
/// # Errors
/// Those with which opening would refuse the spare.
pub async fn preview<D: Device, E: Env>(spare: D, env: E, params: &OpenParams) -> Result<Preview, Error> {
    preview_of(&Spare::new(spare, Rc::new(env)), params).await
}

/// The same, of a spare that is looked at already.
pub(super) async fn preview_of<D: Device, E: Env>(spare: &Spare<D, E>, params: &OpenParams) -> Result<Preview, Error> {
    let (_, loaded) = load(spare, params).await?;
    let Some(loaded) = loaded else { return Ok(Preview::Format) };
    let recovered = loaded.recovered;
    Ok(Preview::Set(Box::new(SetPreview {
        superblock: loaded.superblock,
        epoch: recovered.position.epoch,
        sequence: recovered.position.last(),
        mappings: recovered.mappings,
        bad: recovered.bad,
        superblock_ok: loaded.superblock_ok,
        log_ok: recovered.log_ok,
        unfinished: recovered.unfinished,
    })))
}

impl PageView {
    fn of(state: &PageState) -> PageView {
        match state {
            PageState::Zero => PageView::Zero,
            PageState::Valid(info, _) => PageView::Valid(info.epoch),
            PageState::Bad => PageView::Bad,
        }
    }
}

/// The pages of an area, side by side.
fn runs(pages: &Pages) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = Vec::new();
    for (first, (a, b)) in (0..).zip(pages[Copy::A].iter().zip(&pages[Copy::B])) {
        let holds = PerCopy([PageView::of(a), PageView::of(b)]);
        match runs.last_mut() {
            Some(run) if run.holds == holds => run.pages += 1,
            _ => runs.push(PageRun { first, pages: 1, holds }),
        }
    }
    runs
}

impl AreaInspection {
    fn of(areas: &PerArea<Pages>, area: Area) -> AreaInspection {
        let pages = &areas[area];
        let infos = pages.iter().flatten().filter_map(|state| match state {
            PageState::Valid(info, _) => Some((info.epoch, info.sequence)),
            PageState::Zero | PageState::Bad => None,
        });
        let last = infos.max();
        let count = |copy: Copy| {
            let mut counts = PageCounts::default();
            for state in &pages[copy] {
                *match state {
                    PageState::Valid(info, _) if Some(info.epoch) == last.map(|last| last.0) => &mut counts.current,
                    PageState::Valid(..) => &mut counts.older,
                    PageState::Zero => &mut counts.zero,
                    PageState::Bad => &mut counts.bad,
                } += 1;
            }
            counts
        };
        AreaInspection { last, pages: PerCopy::each(count), runs: runs(pages) }
    }
}
