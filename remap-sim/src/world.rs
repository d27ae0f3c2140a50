//! The world of one simulation: the disks, the model, and what was seen so far.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use remap_core::format::{Area, Copy, Layout};
use remap_core::{Device, Error, OpenParams, RemapOn};
use uuid::Uuid;

use super::coverage::Coverage;
use super::disk::{Access, Disk};
use super::executor::Executor;
use super::fate::Rotten;
use super::faults::Verb;
use super::medium::Medium;
use super::model::Model;
use super::plan::{Harm, Plan, What};
use super::random::Random;
use super::vbdev::open_params;

/// The least spare with so many blocks for data.
pub(crate) fn spare_blocks(block_size: u32, data_blocks: u64) -> Result<u64, Error> {
    let page_blocks = u64::from(4096_u32.div_ceil(block_size));
    let mut pages = 2 + 4 * 65 + data_blocks.div_ceil(page_blocks);
    loop {
        let layout = Layout::for_spare(block_size, pages * page_blocks)?;
        let have = u64::from(layout.data_blocks);
        if have >= data_blocks {
            return Ok(pages * page_blocks);
        }
        pages += (data_blocks - have).div_ceil(page_blocks);
    }
}

impl Plan {
    /// Whether superblocks may become bad.
    fn superblock_errors(&self) -> bool {
        let ops = self.lives.iter().flat_map(|life| &life.ops);
        ops.into_iter().any(|op| {
            matches!(op.what, What::Metadata { .. } | What::FlushFails { .. } | What::SparePower { .. } | What::Wipe)
        })
    }
}

/// Disks and model, through all lives of a simulation.
pub(crate) struct World {
    pub(crate) base: Disk,
    pub(crate) spare: Disk,
    /// Where everything is on the spare; where it will be, when it has grown.
    pub(crate) layout: Cell<Layout>,
    pub(crate) remap_on: RemapOn,
    pub(crate) model: RefCell<Model>,
    pub(crate) random: Random,
    pub(crate) rotten: RefCell<Vec<Rotten>>,
    /// Whether the set was there at the last successful open, and was not wiped since.
    pub(crate) formatted: Rc<Cell<bool>>,
    /// Whether the spare has grown.
    pub(crate) grew: Cell<bool>,
    /// Whether nothing fails that is written to a superblock.
    fine: bool,
    /// The set that was there.
    pub(crate) set: Cell<Option<Uuid>>,
    /// Bad spare blocks that a checkpoint has recorded.
    pub(crate) bad_saved: Cell<u64>,
    /// What may be wrong with the metadata.
    pub(crate) harm: Harm,
    /// How long after the first process the last one was started.
    pub(crate) started: Cell<Duration>,
    /// Whether the spare was ever formatted by force.
    pub(crate) forced: Cell<bool>,
    /// Whether the metadata was damaged in a way that cannot be undone.
    pub(crate) lied: Cell<bool>,
    /// What was on the spare after earlier lives.
    pub(crate) past: RefCell<Vec<Medium>>,
    /// Whether it was wiped in this life.
    pub(crate) wiped: Cell<bool>,
    /// Whether a wipe has failed, in any life.
    pub(crate) wipe_failed: Cell<bool>,
    /// Whether the set has been opened in this life.
    pub(crate) open: Cell<bool>,
    /// Whether a scrub runs.
    pub(crate) scrubs: Cell<bool>,
    /// Whether damage that cannot be undone has ended the simulation.
    pub(crate) over: Cell<bool>,
    /// What is wrong, if anything is.
    pub(crate) failure: RefCell<Option<String>>,
    pub(crate) coverage: RefCell<Coverage>,
    /// What happened, if somebody wants to know.
    pub(crate) trace: Option<RefCell<Vec<String>>>,
    params: OpenParams,
}

impl World {
    pub(crate) fn new(plan: &Plan, traced: bool) -> Result<World, Error> {
        let config = &plan.config;
        let random = Random::new(plan.schedule);
        let spare_blocks = spare_blocks(config.block_size, config.data_blocks)?;
        let disk = |blocks, volatile_cache, slowness| {
            let disk = Disk::new(&Executor::new(), Medium::new(config.block_size, blocks), volatile_cache);
            disk.set_timing(&random, slowness);
            disk
        };
        let layout = Layout::for_spare(config.block_size, spare_blocks)?;
        let spare = disk(spare_blocks, config.volatile[1], config.slowness[1]);
        let world = World {
            base: disk(config.base_blocks, config.volatile[0], config.slowness[0]),
            spare,
            layout: Cell::new(layout),
            remap_on: config.remap_on,
            model: RefCell::new(Model::new(config.base_blocks, config.volatile == [false; 2])),
            rotten: RefCell::default(),
            formatted: Rc::default(),
            grew: Cell::new(false),
            fine: config.harm == Harm::Errors && !plan.superblock_errors(),
            set: Cell::new(None),
            bad_saved: Cell::new(0),
            harm: config.harm,
            started: Cell::default(),
            forced: Cell::new(false),
            lied: Cell::new(false),
            past: RefCell::default(),
            wiped: Cell::new(false),
            wipe_failed: Cell::new(false),
            open: Cell::new(false),
            scrubs: Cell::new(false),
            over: Cell::new(false),
            failure: RefCell::default(),
            coverage: RefCell::default(),
            trace: traced.then(RefCell::default),
            params: OpenParams { storm_limit: config.storm_limit, ..open_params(config.base_blocks) },
            random,
        };
        world.lay_out(layout);
        Ok(world)
    }

    /// The spare is laid out like this, and as that grows with the device when the next checkpoint is written. To be called whenever
    /// either may have changed: in two steps it may grow to less than in one.
    pub(crate) fn follow(&self, in_force: Layout) {
        let layout = in_force.grown(self.spare.geometry().blocks).unwrap_or(in_force);
        if layout != self.layout.get() {
            self.lay_out(layout);
        }
    }

    /// From now on the spare is laid out like this, which decides what may be torn.
    fn lay_out(&self, layout: Layout) {
        self.layout.set(layout);
        let data = layout.data_start.0..layout.data_end().0;
        // A superblock is in one sector, and relies on it that a disk writes that as a whole.
        let superblocks = Copy::BOTH.map(|copy| layout.superblock(copy).0);
        // As long as both can be read that is not needed, as they are written one after the other.
        let (whole, fine) = (Rc::clone(&self.formatted), self.fine);
        self.spare.set_tears(move |lba| match lba {
            _ if data.contains(&lba) => None,
            _ if superblocks.contains(&lba) && !(fine && whole.get()) => Some(512),
            _ => Some(16),
        });
    }

    /// The spare, on which this layout is in force, grows by so many blocks.
    pub(crate) fn grow(&self, blocks: u64, in_force: Layout) {
        self.spare.grow(self.spare.geometry().blocks + blocks);
        self.follow(in_force);
        self.grew.set(true);
        self.count("event: the spare has grown");
    }

    /// How the set is opened; each time with other identities for the case that it is formatted.
    pub(crate) fn params(&self) -> OpenParams {
        let id = || Uuid::from_u128(u128::from(self.random.next()) + 10);
        OpenParams { fresh_set_uuid: id(), fresh_spare_id: id(), ..self.params.clone() }
    }

    pub(crate) fn block_size(&self) -> usize {
        self.layout.get().block_size as usize
    }

    /// Something is wrong. What is found first counts.
    pub(crate) fn fail(&self, what: impl FnOnce() -> String) {
        if self.failure.borrow().is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            *self.failure.borrow_mut() = Some(what);
        }
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(what());
        }
    }

    pub(crate) fn count(&self, kind: &'static str) {
        self.coverage.borrow_mut().count(kind);
    }

    /// How often writing the metadata has failed so far.
    pub(crate) fn metadata_errors(&self) -> u64 {
        self.spare.faults(|faults| {
            let metadata = |name: &str| name.ends_with("write error") || name == "fault: spare flush error";
            faults.counts().iter().filter(|(name, _)| metadata(name)).map(|(_, count)| count).sum()
        })
    }

    /// Whether anything is wrong with what is read of the metadata.
    pub(crate) fn damaged(&self) -> bool {
        let faults = self.spare.faults(|faults| {
            faults.any(|fault| {
                fault.name.ends_with("unreadable")
                    || ["fault: spare flush error", "fault: metadata read trouble", "fault: stale read"]
                        .contains(&fault.name)
            })
        });
        faults || self.lied.get() || self.rotten.borrow().iter().any(|rotten| self.spare.is_rotten(rotten.0))
    }

    /// What was under way at a crash.
    pub(crate) fn count_under_way(&self) {
        let spare = self.spare.under_way();
        let kinds: std::collections::BTreeSet<_> =
            self.base.under_way().iter().map(base_kind).chain(spare.iter().map(|one| self.spare_kind(one))).collect();
        if kinds.is_empty() {
            self.count("crash: nothing under way");
        }
        if self.scrubs.get() {
            self.count("crash: while scrubbing");
        }
        kinds.into_iter().for_each(|kind| self.count(kind));
    }

    fn spare_kind(&self, access: &Access) -> &'static str {
        let layout = self.layout.get();
        let copy = if access.lba < layout.data_start.0 { Copy::A } else { Copy::B };
        let superblock = access.lba == layout.superblock(copy).0;
        let data = access.lba >= layout.data_start.0 && access.lba < layout.log[Copy::B].0;
        match access.verb {
            Verb::Flush => "crash: spare flush under way",
            Verb::Read if data => "crash: spare data read under way",
            Verb::Read => "crash: log read under way",
            Verb::Write | Verb::Zero | Verb::Unmap if data => "crash: spare data write under way",
            Verb::Zero if !superblock => "crash: log zeroing under way",
            Verb::Write | Verb::Zero | Verb::Unmap if superblock => {
                [["crash: superblock A under way"], ["crash: superblock B under way"]][copy.index()][0]
            }
            Verb::Write | Verb::Zero | Verb::Unmap => {
                let first = Area::BOTH.iter().any(|area| layout.log_page(copy, *area, 0).0 == access.lba);
                let kinds = [
                    ["crash: log page A under way", "crash: log page B under way"],
                    ["crash: checkpoint page A under way", "crash: checkpoint page B under way"],
                ];
                kinds[usize::from(first)][copy.index()]
            }
        }
    }
}

fn base_kind(access: &Access) -> &'static str {
    match access.verb {
        Verb::Read => "crash: base read under way",
        Verb::Write | Verb::Zero | Verb::Unmap => "crash: base write under way",
        Verb::Flush => "crash: base flush under way",
    }
}
