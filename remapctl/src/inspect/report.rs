//! What `inspect` tells, as data: the JSON is this, and the text is made of it.

use std::path::PathBuf;

use remap_core::engine::{AreaInspection, Inspection, PageCounts, PageRun, PageView};
use remap_core::format::{Area, Copy, InUse, PerArea, PerCopy, Superblock};
use remap_core::{BaseLba, Candidate, Epoch, InForce, Sequence};
use serde::Serialize;
use uuid::Uuid;

use crate::error::Verdict;
use crate::spare::Spare;

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) spare: PathBuf,
    pub(super) bytes: u64,
    pub(super) block_size: u32,
    pub(super) verdict: Verdict,
    /// Why the log would be refused, or what is wrong with the superblocks.
    pub(super) refusal: Option<String>,
    pub(super) superblock_a: SuperblockReport,
    pub(super) superblock_b: SuperblockReport,
    /// What the superblock says that counts.
    pub(super) set: Option<SetReport>,
    pub(super) in_force: Option<InForceReport>,
    pub(super) areas: Vec<AreaReport>,
    pub(super) damage: Vec<Damage>,
    /// The states of the log that `--at` takes.
    pub(super) candidates: Vec<State>,
}

/// One copy of the superblock.
#[derive(Serialize)]
pub(super) struct SuperblockReport {
    /// "valid", "corrupt", "unreadable", "zero", "foreign" …
    pub(super) content: &'static str,
    #[serde(flatten)]
    pub(super) says: Option<SuperblockSays>,
}

/// What the copies of a superblock may say differently.
#[derive(Serialize)]
pub(super) struct SuperblockSays {
    pub(super) set_uuid: Uuid,
    pub(super) spare_id: Uuid,
    pub(super) state: &'static str,
    pub(super) sequence: Sequence,
    /// Microseconds since 1970, UTC, by the clock of the host.
    pub(super) written_at: u64,
    pub(super) epoch: Epoch,
    pub(super) committed: Sequence,
    pub(super) noted_epoch: Epoch,
    pub(super) in_use: bool,
    /// Whether nothing is appended to the log any more: what turns up behind `committed` does not count.
    pub(super) log_ended: bool,
    pub(super) generation: u64,
}

#[derive(Serialize)]
pub(super) struct SetReport {
    pub(super) name: String,
    pub(super) set_uuid: Uuid,
    pub(super) base_uuid: Uuid,
    pub(super) base_blocks: u64,
    pub(super) md_size: u32,
    /// Nil where any host may have it.
    pub(super) host_id: Uuid,
    pub(super) generation: u64,
    pub(super) spare_id: Uuid,
    pub(super) slot: u8,
    pub(super) state: &'static str,
    pub(super) other_spare: Option<OtherReport>,
    pub(super) in_use: bool,
    pub(super) spare_blocks: u64,
    pub(super) data_start: u64,
    pub(super) data_blocks: u32,
    pub(super) area_pages: u32,
    pub(super) page_bytes: u32,
    pub(super) scrub_next: Option<BaseLba>,
    pub(super) scrub_end: Option<BaseLba>,
}

#[derive(Serialize)]
pub(super) struct OtherReport {
    pub(super) spare_id: Uuid,
    pub(super) state: &'static str,
}

/// A state of the log.
#[derive(Clone, Copy, Serialize)]
pub(super) struct State {
    pub(super) area: usize,
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
}

#[derive(Serialize)]
pub(super) struct InForceReport {
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) checkpoint_pages: u32,
    pub(super) pages: u32,
    pub(super) copy_a_whole: bool,
    pub(super) copy_b_whole: bool,
}

#[derive(Serialize)]
pub(super) struct AreaReport {
    pub(super) area: usize,
    pub(super) epoch: Option<Epoch>,
    pub(super) last_sequence: Option<Sequence>,
    pub(super) copy_a: PageCounts,
    pub(super) copy_b: PageCounts,
    pub(super) pages: Vec<RunReport>,
}

/// Consecutive pages, side by side.
#[derive(Serialize)]
pub(super) struct RunReport {
    pub(super) first: u32,
    pub(super) pages: u32,
    pub(super) copy_a: PageReport,
    pub(super) copy_b: PageReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PageReport {
    Zero,
    Epoch(Epoch),
    Bad,
}

/// Something that is not as it should be.
#[derive(Serialize)]
pub(super) struct Damage {
    /// "superblock" or "log".
    pub(super) of: &'static str,
    /// "A", "B", or "A and B".
    pub(super) copy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) area: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pages: Option<u32>,
    /// What it is: "bad", "older", "missing", or the content of a superblock.
    pub(super) what: &'static str,
    /// The epoch of what the other copy holds in its place: the damage is not older.
    pub(super) since_epoch: Option<Epoch>,
}

impl Report {
    pub(super) fn new(spare: &Spare, inspection: Inspection) -> Report {
        let Inspection { superblocks, decoded, superblock, areas, in_force, candidates, refusal } = inspection;
        let mut damage = superblock_damage(&superblocks, &decoded);
        damage.extend(areas.iter().flat_map(|areas| Area::BOTH.map(|area| (area, &areas[area]))).flat_map(log_damage));
        let whole = in_force.is_some_and(|in_force| in_force.whole.all());
        let superblocks_whole = damage.iter().all(|damage| damage.of != "superblock");
        let refusal = match &superblock {
            _ if refusal.is_some() => refusal.map(|why| why.to_string()),
            None => Some(format!(
                "there is no valid superblock (copy A is {}, copy B is {})",
                superblocks[Copy::A],
                superblocks[Copy::B]
            )),
            Some(_) if areas.is_none() => Some("the superblock does not fit the size of the device".to_owned()),
            Some(_) => None,
        };
        let verdict = match refusal {
            Some(_) => Verdict::Refused,
            None if whole && superblocks_whole => Verdict::Sound,
            None => Verdict::Degraded,
        };
        let [superblock_a, superblock_b] = Copy::BOTH.map(|copy| SuperblockReport {
            content: superblocks[copy],
            says: decoded[copy].as_ref().map(SuperblockSays::of),
        });
        Report {
            spare: spare.path(),
            bytes: spare.disk().bytes(),
            block_size: spare.block_size(),
            verdict,
            refusal,
            superblock_a,
            superblock_b,
            set: superblock.as_ref().map(SetReport::of),
            in_force: in_force.as_ref().map(InForceReport::of),
            areas: areas.iter().flat_map(PerArea::iter).zip(Area::BOTH).map(AreaReport::of).collect(),
            damage,
            candidates: candidates.iter().map(State::of).collect(),
        }
    }
}

impl SuperblockSays {
    fn of(superblock: &Superblock) -> SuperblockSays {
        SuperblockSays {
            set_uuid: superblock.set_uuid,
            spare_id: superblock.spare_id,
            state: superblock.state.name(),
            sequence: superblock.sequence,
            written_at: superblock.written_at,
            epoch: superblock.epoch,
            committed: superblock.committed,
            noted_epoch: superblock.noted_epoch,
            in_use: !superblock.was_closed(),
            log_ended: superblock.in_use == InUse::Ended,
            generation: superblock.generation,
        }
    }
}

impl SetReport {
    fn of(superblock: &Superblock) -> SetReport {
        let layout = &superblock.layout;
        SetReport {
            name: superblock.name.clone(),
            set_uuid: superblock.set_uuid,
            base_uuid: superblock.base_uuid,
            base_blocks: superblock.base_blocks,
            md_size: superblock.md_size,
            host_id: superblock.host_id,
            generation: superblock.generation,
            spare_id: superblock.spare_id,
            slot: superblock.slot.get(),
            state: superblock.state.name(),
            other_spare: superblock.other.map(|other| OtherReport { spare_id: other.id, state: other.state.name() }),
            in_use: !superblock.was_closed(),
            spare_blocks: layout.spare_blocks,
            data_start: layout.data_start.0,
            data_blocks: layout.data_blocks,
            area_pages: layout.area_pages,
            page_bytes: layout.page_bytes,
            scrub_next: superblock.scrub.map(|scrub| scrub.next),
            scrub_end: superblock.scrub.map(|scrub| scrub.end),
        }
    }
}

impl State {
    fn of(candidate: &Candidate) -> State {
        State { area: candidate.area.index(), epoch: candidate.epoch, sequence: candidate.sequence }
    }
}

impl InForceReport {
    fn of(in_force: &InForce) -> InForceReport {
        InForceReport {
            state: State::of(&in_force.state),
            checkpoint_pages: in_force.checkpoint_pages,
            pages: in_force.pages,
            copy_a_whole: in_force.whole[Copy::A],
            copy_b_whole: in_force.whole[Copy::B],
        }
    }
}

impl AreaReport {
    fn of((inspection, area): (&AreaInspection, Area)) -> AreaReport {
        AreaReport {
            area: area.index(),
            epoch: inspection.last.map(|last| last.0),
            last_sequence: inspection.last.map(|last| last.1),
            copy_a: inspection.pages[Copy::A],
            copy_b: inspection.pages[Copy::B],
            pages: inspection.runs.iter().map(RunReport::of).collect(),
        }
    }
}

impl RunReport {
    fn of(run: &PageRun) -> RunReport {
        let [copy_a, copy_b] = run.holds.0.map(|view| match view {
            PageView::Zero => PageReport::Zero,
            PageView::Valid(epoch) => PageReport::Epoch(epoch),
            PageView::Bad => PageReport::Bad,
        });
        RunReport { first: run.first, pages: run.pages, copy_a, copy_b }
    }
}

fn superblock_damage(content: &PerCopy<&'static str>, decoded: &PerCopy<Option<Superblock>>) -> Vec<Damage> {
    let damage = |copy: Copy, what, good: &Superblock| Damage {
        of: "superblock",
        copy: name(copy),
        area: None,
        first: None,
        pages: None,
        what,
        since_epoch: Some(good.epoch),
    };
    match (&decoded[Copy::A], &decoded[Copy::B]) {
        (Some(a), Some(b)) if a.sequence > b.sequence => vec![damage(Copy::B, "older", a)],
        (Some(a), Some(b)) if a.sequence < b.sequence => vec![damage(Copy::A, "older", b)],
        (Some(a), None) => vec![damage(Copy::B, content[Copy::B], a)],
        (None, Some(b)) => vec![damage(Copy::A, content[Copy::A], b)],
        // Both say the same, or neither anything.
        _ => Vec::new(),
    }
}

fn log_damage((area, inspection): (Area, &AreaInspection)) -> Vec<Damage> {
    let of = |run: &PageRun| {
        let damage = |copy, what, since_epoch| {
            let (area, first, pages) = (Some(area.index()), Some(run.first), Some(run.pages));
            Some(Damage { of: "log", copy, area, first, pages, what, since_epoch })
        };
        let epoch = |view| if let PageView::Valid(epoch) = view { Some(epoch) } else { None };
        let [a, b] = run.holds.0;
        match (a, b) {
            (PageView::Bad, PageView::Bad) => damage("A and B", "bad", inspection.last.map(|last| last.0)),
            (PageView::Bad, other) => damage("A", "bad", epoch(other)),
            (other, PageView::Bad) => damage("B", "bad", epoch(other)),
            (PageView::Valid(epoch), PageView::Zero) => damage("B", "missing", Some(epoch)),
            (PageView::Zero, PageView::Valid(epoch)) => damage("A", "missing", Some(epoch)),
            (PageView::Valid(a), PageView::Valid(b)) if a > b => damage("B", "older", Some(a)),
            (PageView::Valid(a), PageView::Valid(b)) if a < b => damage("A", "older", Some(b)),
            _ => None,
        }
    };
    inspection.runs.iter().filter_map(of).collect()
}

fn name(copy: Copy) -> &'static str {
    match copy {
        Copy::A => "A",
        Copy::B => "B",
    }
}
