//! What has to be written so that every copy of the metadata is whole, without loading the set: for tools. Nothing here writes; who
//! writes it all, in this order, leaves a set that is loaded as before.
//!
//! The set itself heals its copies by a checkpoint ([`super::upkeep`]). This changes no state: each page becomes what the other copy
//! of it says, so that a copy that is good is never touched, and that a write that is torn leaves what was bad bad. Before a plan is
//! given, it is rehearsed: the set is loaded as the spare would be after each step, and with each step torn.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::inspect::{Preview, SetPreview, preview_of};
use super::report::OpenParams;
use super::superblocks::{Found, newest, read_superblocks};
use crate::device::{Device, Env, Geometry};
use crate::error::Error;
use crate::format::{Copy, PageAt, PageContent, PageInfo, PerCopy, Superblock, decode_page, encode_page};
use crate::recovery::{InForce, PageFault, Reader, find_faults, owner};
use crate::spare::Spare;
use crate::status::IoStatus;
use crate::table::Mapping;
use crate::units::{Epoch, Sequence, SpareLba};

/// A page of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataPage {
    /// A superblock.
    Superblock(Copy),
    /// A page of the log.
    Log(PageAt),
}

impl MetadataPage {
    /// The copy that it belongs to.
    #[must_use]
    pub fn copy(self) -> Copy {
        match self {
            MetadataPage::Superblock(copy) => copy,
            MetadataPage::Log(at) => at.copy,
        }
    }
}

/// A page that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Which.
    pub page: MetadataPage,
    /// Where it is.
    pub at: SpareLba,
    /// What is wrong with it: "bad", "missing", "older", or what is in the place of a superblock.
    pub what: &'static str,
    /// Whether it is written from the other copy; zeros otherwise, as nothing is known to have been there.
    pub from_other: bool,
    /// Of a page of the log, what the other copy says.
    says: Option<PageInfo>,
}

/// All that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairPlan {
    /// The superblock that counts, and stays.
    pub superblock: Superblock,
    /// The state of the log that counts, and stays.
    pub in_force: InForce,
    /// In this order, with a FLUSH where [`RepairPlan::steps`] ends one.
    pub repairs: Vec<Repair>,
}

impl RepairPlan {
    /// What may be written together: pages of the log of one copy, or a superblock.
    pub fn steps(&self) -> impl Iterator<Item = &[Repair]> {
        let kind = |repair: &Repair| (matches!(repair.page, MetadataPage::Superblock(_)), repair.page.copy());
        self.repairs.chunk_by(move |a, b| kind(a) == kind(b))
    }
}

/// What is to be done so that every copy of the metadata is whole; `None` if the spare is empty. Writes nothing.
///
/// # Errors
/// Those with which opening would refuse the set; [`Error::NotRepairable`].
pub async fn plan_repair<D: Device, E: Env>(
    spare: D,
    env: E,
    params: &OpenParams,
) -> Result<Option<RepairPlan>, Error> {
    let spare = Rc::new(Spare::new(spare, Rc::new(env)));
    let Preview::Set(set) = preview_of(&spare, params).await? else { return Ok(None) };
    let (before, whole) = (Outcome::of(&set), set.superblock_ok.all() && set.log_ok.all());
    drop(set);
    let found = read_superblocks(&spare).await?;
    let superblock = newest(&found)?.ok_or(Error::Empty)?;
    let areas = Reader::new(&spare, &superblock).scan().await?;
    let (in_force, faults) = find_faults(&areas, &superblock)?;
    let mut repairs: Vec<_> = faults.into_iter().map(|fault| Repair::of_page(&superblock, fault)).collect();
    repairs.extend(superblock_repairs(&found, &superblock)?);
    let plan = Rc::new(RepairPlan { superblock, in_force, repairs });
    if !(whole && plan.repairs.is_empty()) {
        rehearse(&spare, &plan, params, &before).await?;
    }
    Ok(Some(Rc::unwrap_or_clone(plan)))
}

/// What is to be in the place of `repair`, made of the copy that is good.
///
/// # Errors
/// [`Error::LogDamaged`] if that is not there any more; as [`plan_repair`].
pub async fn repaired<D: Device, E: Env>(
    spare: D,
    env: E,
    plan: &RepairPlan,
    repair: &Repair,
) -> Result<D::Buffer, Error> {
    content(&Spare::new(spare, Rc::new(env)), plan, repair).await
}

impl Repair {
    fn of_page(superblock: &Superblock, fault: PageFault) -> Repair {
        let PageFault { at, what, should_be: says } = fault;
        let first = superblock.layout.log_page(at.copy, at.area, u64::from(at.index));
        Repair { page: MetadataPage::Log(at), at: first, what, from_other: says.is_some(), says }
    }
}

/// The superblock that is not the one that counts.
fn superblock_repairs(found: &PerCopy<Found>, counts: &Superblock) -> Result<Option<Repair>, Error> {
    let ok = PerCopy::each(|copy| found[copy].valid() == Some(counts));
    if !ok.any() {
        // Only both together say what counts: that a spare was given up is not in force before both say so.
        return Err(Error::NotRepairable { why: "a change of the state of the spare has not ended" });
    }
    let bad = Copy::BOTH.into_iter().find(|copy| !ok[*copy]);
    Ok(bad.map(|copy| {
        let what = if found[copy].valid().is_some() { "older" } else { found[copy].name() };
        let at = counts.layout.superblock(copy);
        Repair { page: MetadataPage::Superblock(copy), at, what, from_other: true, says: None }
    }))
}

async fn content<D: Device, E: Env>(
    spare: &Spare<D, E>,
    plan: &RepairPlan,
    repair: &Repair,
) -> Result<D::Buffer, Error> {
    let superblock = &plan.superblock;
    let layout = &superblock.layout;
    let mut page = spare.alloc(layout.page_blocks())?;
    match (repair.page, repair.says) {
        (MetadataPage::Superblock(_), _) => superblock.encode(page.as_mut()),
        (MetadataPage::Log(at), Some(says)) => {
            let other = PageAt { copy: at.copy.other(), ..at };
            let place = layout.log_page(other.copy, other.area, u64::from(other.index));
            let good = spare.read(place, layout.page_blocks()).await?;
            match good.as_ref().map(|good| decode_page(good.as_ref(), owner(superblock), other)) {
                Some(PageContent::Valid(info, records)) if info == says => {
                    encode_page(page.as_mut(), owner(superblock), at, info, records);
                }
                _ => {
                    let (area, page) = (at.area.index(), u64::from(at.index));
                    let what = "a page that was good cannot be read again";
                    return Err(Error::LogDamaged { what, epoch: says.epoch, area, page });
                }
            }
        }
        (MetadataPage::Log(_), None) => {}
    }
    Ok(page)
}

/// What a set is loaded as, in a few bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    superblock: Superblock,
    state: (Epoch, Sequence),
    blocks: (usize, usize),
    crc: u32,
}

impl Outcome {
    fn of(set: &SetPreview) -> Outcome {
        let number = |mapping: Mapping| match mapping {
            Mapping::Spare(spare) => (1_u8, spare.index()),
            Mapping::Pending => (2, 0),
            Mapping::Lost(spare) => (3, spare.index()),
        };
        let add = |crc, bytes: &[u8]| crc32c::crc32c_append(crc, bytes);
        let mapped = set.mappings.iter().fold(0, |crc, (lba, mapping)| {
            let (kind, spare) = number(mapping);
            add(add(add(crc, &lba.0.to_le_bytes()), &[kind]), &spare.to_le_bytes())
        });
        let crc = set.bad.iter().fold(mapped, |crc, spare| add(crc, &spare.index().to_le_bytes()));
        // Where a copy cannot be read, numbers go on above all that it may hide.
        let superblock = Superblock { sequence: Sequence::ZERO, ..set.superblock.clone() };
        Outcome {
            superblock,
            state: (set.epoch, set.sequence),
            blocks: (set.mappings.iter().count(), set.bad.len()),
            crc,
        }
    }
}

/// Loads the set as it would be after each step, and with each step torn: it must always be the same, and at the end every copy whole.
async fn rehearse<D: Device, E: Env>(
    spare: &Rc<Spare<D, E>>,
    plan: &Rc<RepairPlan>,
    params: &OpenParams,
    before: &Outcome,
) -> Result<(), Error> {
    let refused = |why| Error::NotRepairable { why };
    let all = plan.repairs.len();
    let mut done = 0;
    let torn = plan.steps().map(|step| {
        let before = done;
        done += step.len();
        before..done
    });
    for torn in torn.chain(std::iter::once(all..all)) {
        let at = |number: usize| Some((plan.repairs.get(number)?.at.0, number));
        let begun = (0..torn.end).filter_map(at).collect();
        let done = torn.start;
        let stage = Stage { spare: Rc::clone(spare), plan: Rc::clone(plan), begun, done };
        let loaded = preview_of(&Spare::new(stage, Rc::clone(spare.env())), params).await;
        let Ok(Preview::Set(set)) = loaded else {
            return Err(refused("a crash meanwhile would leave a set that cannot be loaded"));
        };
        if Outcome::of(&set) != *before {
            return Err(refused("the set would be loaded in another state"));
        }
        if done == all && !(set.superblock_ok.all() && set.log_ok.all()) {
            return Err(refused("a copy would not be whole afterwards"));
        }
    }
    Ok(())
}

/// The spare as it would be with some of the repairs done, and others torn.
struct Stage<D: Device, E: Env> {
    spare: Rc<Spare<D, E>>,
    plan: Rc<RepairPlan>,
    /// Those that were begun, by place.
    begun: BTreeMap<u64, usize>,
    /// So many of them are done; the others are torn.
    done: usize,
}

impl<D: Device, E: Env> Device for Stage<D, E> {
    type Buffer = D::Buffer;

    fn geometry(&self) -> Geometry {
        self.spare.geometry()
    }

    fn alloc(&self, blocks: usize) -> Result<D::Buffer, IoStatus> {
        self.spare.device().alloc(blocks)
    }

    async fn read(&self, lba: u64, buffer: D::Buffer) -> (D::Buffer, Result<(), IoStatus>) {
        let (mut buffer, result) = self.spare.device().read(lba, buffer).await;
        let layout = &self.plan.superblock.layout;
        let (block, page) = (layout.block_size as usize, layout.page_bytes as usize);
        let blocks = (buffer.as_ref().len() / block) as u64;
        // What cannot be read together is read page by page, and a page that was begun can be read.
        let result = if blocks == layout.page_blocks() && self.begun.contains_key(&lba) { Ok(()) } else { result };
        for (at, number) in self.begun.range(lba..lba.saturating_add(blocks)) {
            let from = (at - lba) as usize * block;
            let Some(bytes) = buffer.as_mut().get_mut(from..from + page) else { continue };
            let Some(repair) = self.plan.repairs.get(*number).filter(|_| *number < self.done) else {
                bytes.fill(TORN);
                continue;
            };
            match content(&self.spare, &self.plan, repair).await {
                Ok(page) => bytes.copy_from_slice(page.as_ref()),
                Err(_) => return (buffer, Err(IoStatus::UNRECOVERED_READ)),
            }
        }
        (buffer, result)
    }

    async fn write(&self, _lba: u64, buffer: D::Buffer) -> (D::Buffer, Result<(), IoStatus>) {
        (buffer, Err(READ_ONLY))
    }

    async fn write_zeroes(&self, _lba: u64, _blocks: u64) -> Result<(), IoStatus> {
        Err(READ_ONLY)
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        Ok(())
    }
}

/// What a page is full of that is torn: nothing that can be read.
const TORN: u8 = 0xa5;
/// Nothing is written in a rehearsal.
const READ_ONLY: IoStatus = IoStatus::Other(-libc::EROFS);
