//! What has to be written so that every copy of the metadata is whole, without loading the set: for tools. Nothing here writes; who
//! writes it all, in this order, leaves a set that is loaded as before.
//!
//! The set itself heals its copies by a checkpoint ([`super::upkeep`]). This changes no state: each page becomes what the other copy
//! of it says, so that a copy that is good is never touched, and that a write that is torn leaves what was bad bad. Before a plan is
//! given, it is rehearsed: the set is loaded as the spare would be after each step, and with each step torn.
//!
//! A set that is refused because of its log can be mended to a state that an operator has chosen ([`OpenParams::stated_end`]). What
//! speaks against that state is made zeros then, and last the superblocks say that no more than it is known; where they know no more, they
//! say first that epochs are given up. Whatever of that is written,
//! the set is refused, and the state can be chosen still; or it is loaded in that state.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::inspect::{Preview, SetPreview, preview_of};
use super::report::OpenParams;
use super::superblocks::{Found, newest, read_superblocks};
use crate::device::{Device, Env, Geometry};
use crate::error::Error;
use crate::format::{Copy, PageAt, PageContent, PageInfo, PerCopy, Superblock, decode_page, encode_page};
use crate::recovery::{Candidate, GivenUp, InForce, PageFault, Reader, StatedEnd, find_faults, given_up, owner};
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
    /// What is wrong with it: "bad", "missing", "older", "not chosen", "ahead" of what was chosen, or what is in the place of a superblock.
    pub what: &'static str,
    /// What it is written from.
    pub from: WrittenFrom,
    /// Of a page of the log, what the other copy says.
    says: Option<PageInfo>,
    /// Those of one number may be written together.
    step: usize,
}

/// What a page is written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenFrom {
    /// The other copy of it.
    OtherCopy,
    /// Zeros, as nothing is known to have been there, or it is not to count.
    Zeros,
    /// What an operator has chosen.
    Choice,
}

/// All that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairPlan {
    /// The superblock that counts at the end: the one that counts now, but for what it must not know of a log of which less was chosen.
    pub superblock: Superblock,
    /// The state of the log that counts at the end, as it does now, or as it was chosen.
    pub in_force: InForce,
    /// What is given up, if the set is refused as it is. Of one that is loaded in the state that was chosen, nothing is.
    pub gives_up: Option<GivenUp>,
    /// In this order, with a FLUSH where [`RepairPlan::steps`] ends one.
    pub repairs: Vec<Repair>,
}

impl RepairPlan {
    /// What may be written together: pages of the log of one copy, or a superblock.
    pub fn steps(&self) -> impl Iterator<Item = &[Repair]> {
        self.repairs.chunk_by(|a, b| a.step == b.step)
    }
}

/// What is to be done so that every copy of the metadata is whole, and the set is loaded without [`OpenParams::stated_end`] in the state
/// that this names, if it does; `None` if the spare is empty. Writes nothing.
///
/// # Errors
/// Those with which opening would refuse the set; [`Error::NotRepairable`], [`Error::NotReachable`], [`Error::NotRefused`].
pub async fn plan_repair<D: Device, E: Env>(
    spare: D,
    env: E,
    params: &OpenParams,
) -> Result<Option<RepairPlan>, Error> {
    let spare = Rc::new(Spare::new(spare, Rc::new(env)));
    let Preview::Set(set) = preview_of(&spare, params).await? else { return Ok(None) };
    let stated = params.stated_end;
    let (before, whole) = (Outcome::of(&set, stated.is_some()), set.superblock_ok.all() && set.log_ok.all());
    let refused = stated.is_some() && is_refused(&spare, params, &before).await?;
    let found = read_superblocks(&spare).await?;
    let counts = newest(&found)?.ok_or(Error::Empty)?;
    let reader = Reader::new(&spare, &counts);
    let areas = reader.scan().await?;
    let (in_force, faults) = find_faults(&areas, &counts, stated)?;
    let gives_up = if refused { Some(given_up(&reader, &areas, &in_force, &set.mappings).await?) } else { None };
    drop((set, areas, reader));
    let copies_ok = Copy::BOTH.iter().all(|copy| found[*copy].valid() == Some(&counts));
    let superblock = match stated {
        Some(_) => knowing_no_more(&counts, in_force.state, copies_ok && faults.is_empty()),
        None => counts.clone(),
    };
    let mut repairs: Vec<_> = faults.into_iter().map(|fault| Repair::of_page(&superblock, fault)).collect();
    let why = |why| not_to_be(stated, why);
    repairs.extend(superblock_repairs(&found, &counts, &superblock).map_err(why)?);
    repairs.sort_by_key(|repair| repair.step);
    let plan = Rc::new(RepairPlan { superblock, in_force, gives_up, repairs });
    if stated.is_some() || !(whole && plan.repairs.is_empty()) {
        rehearse(&spare, &plan, params, &before).await?;
    }
    Ok(Some(Rc::unwrap_or_clone(plan)))
}

/// Whether the set is refused by itself. It may also be in the chosen state already, as when most of such a repair was done; in another
/// one, that is not given up.
async fn is_refused<D: Device, E: Env>(
    spare: &Spare<D, E>,
    params: &OpenParams,
    chosen: &Outcome,
) -> Result<bool, Error> {
    match preview_of(spare, &OpenParams { stated_end: None, ..params.clone() }).await {
        Ok(Preview::Set(set)) if Outcome::of(&set, true) != *chosen => {
            Err(Error::NotRefused { epoch: set.epoch, sequence: set.sequence })
        }
        Ok(_) => Ok(false),
        Err(error @ (Error::Io { .. } | Error::NoMemory { .. })) => Err(error),
        Err(_) => Ok(true),
    }
}

/// Why nothing is planned.
fn not_to_be(stated: Option<StatedEnd>, why: &'static str) -> Error {
    match stated {
        Some(StatedEnd { epoch, sequence }) => Error::NotReachable { epoch, sequence, why },
        None => Error::NotRepairable { why },
    }
}

/// The superblock, without what it knows of the log beyond this state; as it is, if it knows no more and `nothing` else is to be written. Epochs
/// that were given up do not come again: it hides them.
fn knowing_no_more(counts: &Superblock, state: Candidate, nothing: bool) -> Superblock {
    let Candidate { epoch, sequence, .. } = state;
    let knows_more = counts.epoch > epoch || counts.committed > sequence;
    if !knows_more && (nothing || counts.hides_epochs()) {
        return counts.clone();
    }
    let noted_epoch = epoch.plus(1);
    Superblock { epoch, committed: sequence, noted_epoch, sequence: counts.sequence.plus(1), ..counts.clone() }
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
        let PageFault { at, what, should_be: says, first } = fault;
        let step = 2 + at.copy.index() + if first { 0 } else { 2 };
        let place = superblock.layout.log_page(at.copy, at.area, u64::from(at.index));
        let from = if says.is_some() { WrittenFrom::OtherCopy } else { WrittenFrom::Zeros };
        Repair { page: MetadataPage::Log(at), at: place, what, from, says, step }
    }
}

/// The superblocks that are not as they are `to_be`; `counts` is what they say now.
///
/// # Errors
/// Why none can be.
fn superblock_repairs(
    found: &PerCopy<Found>,
    counts: &Superblock,
    to_be: &Superblock,
) -> Result<Vec<Repair>, &'static str> {
    let ok = PerCopy::each(|copy| found[copy].valid() == Some(counts));
    if !ok.any() {
        // Only both together say what counts: that a spare was given up is not in force before both say so.
        return Err("a change of the state of the spare has not ended");
    }
    let from = if to_be == counts { WrittenFrom::OtherCopy } else { WrittenFrom::Choice };
    let is_ahead = counts.epoch > to_be.epoch || counts.committed > to_be.committed;
    // That epochs are given up is known before a page of them goes; less of the log when all have gone, as the set is refused until then.
    let first_step = if from == WrittenFrom::Choice && !is_ahead { 0 } else { 6 };
    let mut copies = Copy::BOTH;
    // While the one that does not count is torn, the other does.
    copies.sort_by_key(|copy| ok[*copy]);
    let bad = copies.into_iter().enumerate().filter(|(_, copy)| found[*copy].valid() != Some(to_be));
    let repair = |(number, copy): (usize, Copy)| {
        let what = match found[copy].valid() {
            Some(_) if ok[copy] && is_ahead => "ahead",
            Some(_) => "older",
            None => found[copy].name(),
        };
        let at = counts.layout.superblock(copy);
        Repair { page: MetadataPage::Superblock(copy), at, what, from, says: None, step: first_step + number }
    };
    Ok(bad.map(repair).collect())
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
    /// What `set` is; of a state that was `stated`, without what the superblocks know of the log, which changes.
    fn of(set: &SetPreview, stated: bool) -> Outcome {
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
        let mut superblock = Superblock { sequence: Sequence::ZERO, ..set.superblock.clone() };
        if stated {
            (superblock.epoch, superblock.committed, superblock.noted_epoch) =
                (Epoch::ZERO, Sequence::ZERO, Epoch::ZERO);
        }
        Outcome {
            superblock,
            state: (set.epoch, set.sequence),
            blocks: (set.mappings.iter().count(), set.bad.len()),
            crc,
        }
    }
}

/// Loads the set as it would be after each step, and with each step torn: it must always be the same, and at the end every copy whole.
/// One that is mended to a state that was chosen may be refused before the end, as long as this state can be chosen again.
async fn rehearse<D: Device, E: Env>(
    spare: &Rc<Spare<D, E>>,
    plan: &Rc<RepairPlan>,
    params: &OpenParams,
    before: &Outcome,
) -> Result<(), Error> {
    let refused = |why| not_to_be(params.stated_end, why);
    let chosen = params.stated_end.is_some();
    let by_itself = OpenParams { stated_end: None, ..params.clone() };
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
        let stage = Spare::new(stage, Rc::clone(spare.env()));
        let same = |set: &SetPreview| Outcome::of(set, chosen) == *before;
        if chosen {
            match preview_of(&stage, params).await {
                Ok(Preview::Set(set)) if same(&set) => {}
                Err(error @ (Error::Io { .. } | Error::NoMemory { .. })) => return Err(error),
                _ => return Err(refused("a crash meanwhile would leave a set that could not be brought to it")),
            }
        }
        let set = match preview_of(&stage, &by_itself).await {
            Ok(Preview::Set(set)) => set,
            Err(error @ (Error::Io { .. } | Error::NoMemory { .. })) => return Err(error),
            Err(_) if chosen && done < all => continue,
            _ => return Err(refused("a crash meanwhile would leave a set that cannot be loaded")),
        };
        if !same(&set) {
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
