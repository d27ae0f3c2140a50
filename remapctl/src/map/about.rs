//! What is told beside the blocks: which set it is, how it is, where everything is on the spare, and what its metadata know of the past.

use std::time::SystemTime;

use remap_core::engine::{AreaInspection, Inspection, PageCounts, SetPreview};
use remap_core::format::{Area, Copy, Layout, PerArea};
use remap_core::{Epoch, Sequence};
use uuid::Uuid;

use crate::check;
use crate::error::Verdict;
use crate::inspect::date;
use crate::spare::Spare;
use crate::units::counted;

/// What is known of a set beside its blocks.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub set_uuid: Uuid,
    /// Where all this is from: the path of a spare, or the target that has it in use.
    pub source: String,
    /// When it was read.
    pub read_at: SystemTime,
    /// How it is.
    pub verdict: Verdict,
    /// The same in words.
    pub sentence: String,
    /// Bytes a block.
    pub block_size: u32,
    /// Size of the base in blocks.
    pub base_blocks: u64,
    /// The spare.
    pub spare: SpareAbout,
    /// What is known of the past.
    pub history: Vec<Moment>,
    /// What else is good to know.
    pub notes: Vec<String>,
}

/// The spare, without what is on it.
#[derive(Clone, Debug, Default)]
pub struct SpareAbout {
    /// The size of its data area in blocks.
    pub room: u64,
    /// The first block that is drawn.
    pub first: u64,
    /// How many are drawn.
    pub blocks: u64,
    /// Bad blocks of it of which it is not known where they are.
    pub bad: u64,
    /// What is before and behind the data area, in the order of the device.
    pub metadata: Vec<Part>,
}

/// A part of the spare that holds metadata.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Its first block.
    pub first: u64,
    /// Its size in blocks.
    pub blocks: u64,
    /// How full it is, or what is wrong with it.
    pub says: String,
    /// Whether it is what counts.
    pub in_force: bool,
}

/// Something that is known of the past.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Who knows it.
    pub what: String,
    /// When it was written, as far as that is known.
    pub when: Option<String>,
    /// The epoch that it is of.
    pub epoch: Option<Epoch>,
    /// The number that it has, or of the last page that it has.
    pub sequence: Option<Sequence>,
    /// What it says.
    pub says: String,
}

impl About {
    /// All that is on `spare`, whose set would be loaded as `set`.
    #[must_use]
    pub fn of(spare: &Spare, set: &SetPreview, found: &Inspection) -> About {
        let superblock = &set.superblock;
        let bad = check::bad_copies(set);
        let (verdict, sentence) = match bad.is_empty() {
            true => (Verdict::Sound, "every copy is whole".to_owned()),
            false => {
                (Verdict::Degraded, format!("the set can be used, and is repaired by that; bad: {}", bad.join(", ")))
            }
        };
        About {
            name: superblock.name.clone(),
            set_uuid: superblock.set_uuid,
            source: spare.path().display().to_string(),
            read_at: SystemTime::now(),
            verdict,
            sentence,
            block_size: superblock.layout.block_size,
            base_blocks: superblock.base_blocks,
            spare: SpareAbout {
                room: superblock.layout.data_blocks.into(),
                first: superblock.layout.data_start.0,
                blocks: superblock.layout.data_blocks.into(),
                bad: 0,
                metadata: parts(&superblock.layout, found),
            },
            history: history(set, found),
            notes: check::notes_on(set, spare),
        }
    }
}

/// Superblocks and log areas, in the order of the device.
fn parts(layout: &Layout, found: &Inspection) -> Vec<Part> {
    let superblock = |name, copy: Copy, first, blocks| {
        let in_force = found.decoded[copy].is_some() && found.decoded[copy] == found.superblock;
        Part { name, first, blocks, says: found.superblocks[copy].to_owned(), in_force }
    };
    let log = |name, copy: Copy, area: Area, first, blocks| {
        let says = |areas: &PerArea<AreaInspection>| match areas[area].pages[copy] {
            PageCounts { bad: 0, current: 0, .. } => "empty".to_owned(),
            PageCounts { bad: 0, current, .. } => {
                format!("{} % full", current * 100 / u64::from(layout.area_pages.max(1)))
            }
            PageCounts { bad, .. } => format!("{} bad", counted(bad, "page")),
        };
        let in_force = found.in_force.is_some_and(|in_force| in_force.state.area == area);
        Part { name, first, blocks, says: found.areas.as_ref().map_or_else(String::new, says), in_force }
    };
    metadata(layout, superblock, log)
}

/// The places of metadata, in the order of the device, each made with its name, copy, area, first block and size.
pub(super) fn metadata(
    layout: &Layout,
    superblock: impl Fn(String, Copy, u64, u64) -> Part,
    log: impl Fn(String, Copy, Area, u64, u64) -> Part,
) -> Vec<Part> {
    let superblock = |copy: Copy| {
        let name = format!("superblock {}", copy.name());
        superblock(name, copy, layout.superblock(copy).0, layout.page_blocks())
    };
    let log = |copy: Copy, area: Area| {
        let name = format!("log {} {}", area.index(), copy.name());
        log(name, copy, area, layout.log_page(copy, area, 0).0, layout.area_blocks())
    };
    let logs = Copy::BOTH.into_iter().flat_map(|copy| Area::BOTH.map(|area| log(copy, area)));
    [superblock(Copy::A)].into_iter().chain(logs).chain([superblock(Copy::B)]).collect()
}

fn history(set: &SetPreview, found: &Inspection) -> Vec<Moment> {
    let superblocks = Copy::BOTH.map(|copy| {
        let says = found.decoded[copy].as_ref();
        Moment {
            what: format!("superblock {}", copy.name()),
            when: says.map(|says| date(says.written_at)),
            epoch: says.map(|says| says.epoch),
            sequence: says.map(|says| says.sequence),
            says: says.map_or_else(
                || found.superblocks[copy].to_owned(),
                |says| {
                    let used = if says.was_closed() { "closed cleanly" } else { "not closed" };
                    format!("{}, {used}, log known to be committed up to {}", says.state.name(), says.committed)
                },
            ),
        }
    });
    let logs = found.areas.iter().flat_map(|areas| {
        Area::BOTH.map(|area| {
            let in_force = found.in_force.filter(|in_force| in_force.state.area == area);
            Moment {
                what: format!("log area {}", area.index()),
                when: None,
                epoch: areas[area].last.map(|last| last.0),
                sequence: areas[area].last.map(|last| last.1),
                says: match in_force {
                    Some(log) => {
                        let behind = log.pages.saturating_sub(log.checkpoint_pages);
                        let pages = |count: u32| counted(count.into(), "page");
                        format!(
                            "in force: a checkpoint of {}, {} of changes since",
                            pages(log.checkpoint_pages),
                            pages(behind)
                        )
                    }
                    None if areas[area].last.is_some() => "not in force".to_owned(),
                    None => "never written".to_owned(),
                },
            }
        })
    });
    let drawn = Moment {
        what: "this picture".to_owned(),
        when: None,
        epoch: Some(set.epoch),
        sequence: Some(set.sequence),
        says: "the state that is drawn".to_owned(),
    };
    superblocks.into_iter().chain(logs).chain([drawn]).collect()
}
