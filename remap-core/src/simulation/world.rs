//! The world of one simulation: the disks, the model, and what was seen so far.

use std::cell::{Cell, RefCell};

use super::coverage::Coverage;
use super::disk::{Access, Disk};
use super::fate::Rotten;
use super::faults::Verb;
use super::model::{Model, Value, ZEROS};
use super::plan::Plan;
use super::random::Random;
use crate::device::Geometry;
use crate::engine::{FormatPolicy, OpenParams};
use crate::format::{Copy, Layout};
use crate::status::RemapOn;
use uuid::Uuid;

/// Disks and model, through all lives of a simulation.
pub(super) struct World {
    pub(super) base: Disk,
    pub(super) spare: Disk,
    pub(super) layout: Layout,
    pub(super) remap_on: RemapOn,
    pub(super) model: RefCell<Model>,
    pub(super) random: Random,
    pub(super) rotten: RefCell<Vec<Rotten>>,
    /// Whether the set was there at the last successful open, and was not wiped since.
    pub(super) formatted: Cell<bool>,
    /// Whether it was wiped in this life.
    pub(super) wiped: Cell<bool>,
    /// Whether the set has been opened in this life.
    pub(super) open: Cell<bool>,
    /// Whether damage that cannot be undone has ended the simulation.
    pub(super) over: Cell<bool>,
    /// Metadata errors up to the begin of the last open that succeeded.
    pub(super) settled_errors: Cell<u64>,
    /// What is wrong, if anything is.
    pub(super) failure: RefCell<Option<String>>,
    pub(super) coverage: RefCell<Coverage>,
    /// What happened, if somebody wants to know.
    pub(super) trace: Option<RefCell<Vec<String>>>,
    params: OpenParams,
}

impl World {
    pub(super) fn new(plan: &Plan, traced: bool) -> Result<World, crate::Error> {
        let config = &plan.config;
        let random = Random::new(plan.schedule);
        let page_blocks = u64::from(4096 / config.block_size);
        let spare_blocks = config.spare_pages * page_blocks;
        let disk = |blocks, volatile_cache, slowness| {
            Disk::new(Geometry { block_size: config.block_size, blocks, volatile_cache }, &random, slowness)
        };
        let layout = Layout::for_spare(config.block_size, spare_blocks)?;
        let spare = disk(spare_blocks, config.volatile[1], config.slowness[1]);
        let data = layout.data_start..layout.data_start + u64::from(layout.data_blocks);
        // A superblock is in one sector, and relies on it that a disk writes that as a whole.
        let superblocks = [layout.superblock(Copy::A), layout.superblock(Copy::B)];
        spare.set_tears(move |lba| match lba {
            _ if data.contains(&lba) => None,
            _ if superblocks.contains(&lba) => Some(512),
            _ => Some(16),
        });
        Ok(World {
            base: disk(config.base_blocks, config.volatile[0], config.slowness[0]),
            spare,
            layout,
            remap_on: config.remap_on,
            model: RefCell::new(Model::new(config.base_blocks, config.volatile == [false; 2])),
            rotten: RefCell::default(),
            formatted: Cell::new(false),
            wiped: Cell::new(false),
            open: Cell::new(false),
            over: Cell::new(false),
            settled_errors: Cell::new(0),
            failure: RefCell::default(),
            coverage: RefCell::default(),
            trace: traced.then(RefCell::default),
            params: OpenParams {
                name: "Remap0".into(),
                set_uuid: None,
                fresh_set_uuid: Uuid::from_u128(1),
                fresh_spare_id: Uuid::from_u128(2),
                base_uuid: Uuid::from_u128(3),
                base_blocks: config.base_blocks,
                md_size: 0,
                format: FormatPolicy::Auto,
                storm_limit: config.storm_limit,
            },
            random,
        })
    }

    /// How the set is opened; each time with other identities for the case that it is formatted.
    pub(super) fn params(&self) -> OpenParams {
        let id = || Uuid::from_u128(u128::from(self.random.next()) + 10);
        OpenParams { fresh_set_uuid: id(), fresh_spare_id: id(), ..self.params.clone() }
    }

    pub(super) fn block_size(&self) -> usize {
        self.layout.block_size as usize
    }

    /// Something is wrong. What is found first counts.
    pub(super) fn fail(&self, what: impl FnOnce() -> String) {
        if self.failure.borrow().is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            *self.failure.borrow_mut() = Some(what);
        }
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(what());
        }
    }

    pub(super) fn count(&self, kind: &'static str) {
        self.coverage.borrow_mut().count(kind);
    }

    /// How often writing the metadata has failed so far.
    pub(super) fn metadata_errors(&self) -> u64 {
        self.spare.faults(|faults| {
            let metadata = |name: &str| name.ends_with("write error") || name == "fault: spare flush error";
            faults.counts().iter().filter(|(name, _)| metadata(name)).map(|(_, count)| count).sum()
        })
    }

    /// Whether anything is wrong with what is read of the metadata.
    pub(super) fn damaged(&self) -> bool {
        let faults = self.spare.faults(|faults| {
            faults.any(|fault| fault.name.ends_with("unreadable") || fault.name == "fault: spare flush error")
        });
        faults || !self.rotten.borrow().is_empty()
    }

    /// The contents of block `lba` with `value` in it.
    pub(super) fn block(&self, lba: u64, value: Value) -> Vec<u8> {
        if value == ZEROS {
            return vec![0; self.block_size()];
        }
        let mut piece = [0; 16];
        piece[..8].copy_from_slice(&lba.to_le_bytes());
        piece[8..].copy_from_slice(&value.to_le_bytes());
        piece.repeat(self.block_size() / 16)
    }

    /// The value in block `lba`.
    pub(super) fn value(&self, lba: u64, bytes: &[u8]) -> Result<Value, String> {
        let (piece, rest) = bytes.split_at(16);
        if !rest.chunks(16).all(|other| other == piece) {
            return Err(format!("block {lba} is a mixture"));
        }
        let number = |at: usize| u64::from_le_bytes(piece[at..at + 8].try_into().unwrap_or_default());
        let (of, value) = (number(0), number(8));
        if value != ZEROS && of != lba || value == ZEROS && of != 0 {
            return Err(format!("block {lba} has the data of block {of}, written by {value}"));
        }
        Ok(value)
    }

    /// What was under way at a crash.
    pub(super) fn count_under_way(&self) {
        let spare = self.spare.under_way();
        let kinds: std::collections::BTreeSet<_> =
            self.base.under_way().iter().map(base_kind).chain(spare.iter().map(|one| self.spare_kind(one))).collect();
        if kinds.is_empty() {
            self.count("crash: nothing under way");
        }
        kinds.into_iter().for_each(|kind| self.count(kind));
    }

    fn spare_kind(&self, access: &Access) -> &'static str {
        let layout = &self.layout;
        let copy = if access.lba < layout.data_start { Copy::A } else { Copy::B };
        let superblock = access.lba == layout.superblock(copy);
        let data = access.lba >= layout.data_start && access.lba < layout.areas[1][0];
        match access.verb {
            Verb::Flush => "crash: spare flush under way",
            Verb::Read if data => "crash: spare data read under way",
            Verb::Read => "crash: log read under way",
            Verb::Write | Verb::Zero if data => "crash: spare data write under way",
            Verb::Zero if !superblock => "crash: log zeroing under way",
            Verb::Write | Verb::Zero if superblock => {
                [["crash: superblock A under way"], ["crash: superblock B under way"]][copy.index()][0]
            }
            Verb::Write | Verb::Zero => {
                let first = (0..2).any(|area| layout.log_page(copy, area, 0) == access.lba);
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
        Verb::Write | Verb::Zero => "crash: base write under way",
        Verb::Flush => "crash: base flush under way",
    }
}
