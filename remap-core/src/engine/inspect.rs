//! Looking at a spare without changing anything: what its superblocks and log say, what is damaged, and between which
//! states of the log an operator may choose where none is in force. For tools; nothing here happens by itself.

use std::rc::Rc;

use serde::Serialize;

use super::superblocks::{newest, read_superblocks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Area, Copy, PerArea, PerCopy, Superblock};
use crate::recovery::{Candidate, PageState, Pages, judge, scan};
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

/// What is in a log area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaInspection {
    /// The highest epoch in it, and the sequence number of its last page.
    pub last: Option<(Epoch, Sequence)>,
    /// By copy.
    pub pages: PerCopy<PageCounts>,
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
    /// The states of the log that could be opened with [`super::OpenParams::stated_end`].
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
        let areas = scan(&spare, &superblock).await?;
        (inspection.candidates, inspection.refusal) = judge(&areas, &superblock);
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
        AreaInspection { last, pages: PerCopy::each(count) }
    }
}
