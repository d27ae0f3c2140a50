//! The engine: the owner of a set's remap state, on the owner thread.
//!
//! ```text
//! Engine ──requests──> Committer: a task that has the log, and alone makes changes durable and publishes them
//!    └───── Shared: table, allocator, storm brake, what the log last said of itself ─────┘
//! ```
//! The engine gives out spare blocks (`owner`) and does what operators ask for (`admin`); what becomes of each block is
//! decided in the committer (`batch`), which also keeps the copies of the metadata whole (`upkeep`), and tells what has
//! changed (`telling`). Reactors only read the table; what they want changed comes in through [`crate::Owner`]. It is not
//! `Send`; no borrow of its state is held across an await.

mod admin;
mod batch;
mod check;
mod committer;
mod gathered;
mod growth;
mod inspect;
mod migrate;
mod mirror;
mod moves;
mod open;
mod owner;
mod range_lock;
mod relocate;
mod repair;
mod report;
mod scrub;
mod settle;
mod spareless;
mod storm;
mod superblocks;
mod switch;
mod telling;
mod upkeep;

use std::cell::{Cell, RefCell};
use std::iter::Peekable;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::mpsc::{UnboundedSender, unbounded};
use uuid::Uuid;

pub use self::inspect::{
    AreaInspection, Inspection, PageCounts, PageRun, PageView, Preview, SetPreview, identify, inspect, preview,
};
pub use self::migrate::{MigrateParams, NewSpare};
pub use self::moves::RemoveReport;
pub use self::relocate::AddReport;
pub use self::repair::{MetadataPage, Repair, RepairPlan, WrittenFrom, plan_repair, repaired};
pub use self::report::{
    CopyHealth, Difference, DifferingExtent, FormatPolicy, ListedExtent, ListedState, MetadataHealth, OpenParams,
    RestoreReport, SaveReport, SetState, SpareUsage, Status,
};

pub use self::settle::{give_up_for, retire_outdated};

use self::batch::Few;
use self::committer::{Committer, Request};
use self::mirror::{Forget, Mirror};
use self::range_lock::RangeLocks;
use self::storm::StormBrake;
use self::telling::Left;
use crate::allocator::Allocator;
use crate::counters::Counters;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::events::Events;
use crate::format::{Layout, ScrubPosition};
use crate::jobs::JobScope;
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::recovery::Recovered;
use crate::remap_log::LogView;
use crate::slot::{PerSlot, Slot, SpareBlock};
use crate::spare::Spare;
use crate::table::{Change, Mapping, REGION_BLOCKS, Retired, Table, TableWriter, by_region, reclaim};
use crate::tasks::Tasks;
use crate::units::BaseLba;

/// Changes that are published together at most, in long work: making a region of them does not hold the thread for long.
const PUBLISHED_AT_ONCE: usize = 8192;
/// So many entries of the table are copied in the time of one step of other work.
const COPIED_AS_ONE: usize = 64;
/// A change takes as long as copying so many entries.
const CHANGED_AS: usize = 8;
/// A region takes as long as copying so many entries, whatever is in it.
const REGION_AS: usize = 64;

/// The owner of a set's remap state.
pub struct Engine<D: Device, E: Env> {
    shared: Rc<Shared<E>>,
    requests: UnboundedSender<Request<D, E>>,
    jobs: JobScope<E>,
    /// The spares as they are, for data that is moved. What looks after their I/O ends with the committer.
    spares: RefCell<PerSlot<Option<DataOf<D>>>>,
    /// The scrub that its last process did not end.
    unfinished_scrub: Option<ScrubPosition>,
}

/// A spare, and where the data is on it; the data area may have grown since.
struct DataOf<D> {
    device: Rc<D>,
    layout: Layout,
}

impl<D> Clone for DataOf<D> {
    fn clone(&self) -> DataOf<D> {
        DataOf { device: Rc::clone(&self.device), layout: self.layout }
    }
}

/// What the engine and its committer share.
struct Shared<E: Env> {
    env: Rc<E>,
    /// All that runs on for the engine: the committer, what uses the spare, and what waits until something can be freed.
    tasks: Tasks<E>,
    table: Arc<Table>,
    counters: Arc<Counters>,
    name: String,
    set_uuid: Uuid,
    /// Where the spare in force is in the set, and what is where on it, which grows with it.
    slot: Cell<Slot>,
    layout: Cell<Layout>,
    state: RefCell<State>,
    /// What there is of the mapping on another spare, while all moves there.
    mirror: RefCell<Option<Rc<Mirror>>>,
    /// The blocks that are being written to both.
    mirror_locks: RangeLocks,
    /// The log as the committer last saw it.
    log: Cell<LogView>,
    times: Cell<Times>,
    closed: Cell<bool>,
    /// The end has begun: nothing is tried again and again any more.
    closing: Cell<bool>,
    /// The set does without its spare.
    spare_gone: Cell<bool>,
    range_locks: RangeLocks,
    events: Events<E>,
    /// How much of the spare was left, and which copies of the metadata were bad, when that was last told.
    left: Cell<Left>,
    bad_copies: RefCell<Vec<&'static str>>,
}

/// When something of note happened to the copies of the metadata: seconds since 1970.
#[derive(Clone, Copy, Default)]
struct Times {
    degraded: Option<u64>,
    healed: Option<u64>,
    saved: Option<u64>,
}

/// What changes without an await.
struct State {
    writer: TableWriter,
    allocator: Allocator,
    storm: StormBrake,
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Loads the set on `spare`, or formats it if it is empty and `params` allow it.
    ///
    /// # Errors
    /// Everything that speaks against using the spare, each its own [`Error`]; nothing was written then.
    /// [`Error::CheckpointFailed`] if something has to be durable before the set is served, and cannot be made so: what cannot
    /// be read now may come back later, and what only one copy has may be lost.
    pub async fn open(spare: D, env: E, params: OpenParams) -> Result<Rc<Self>, Error> {
        let (env, counters) = (Rc::new(env), Arc::new(Counters::default()));
        let spare = Rc::new(Spare::new(spare, Rc::clone(&env)));
        let (tasks, device) = (spare.tasks().clone(), Rc::clone(spare.device()));
        let (log, recovered, layout) = open::open(spare, Arc::clone(&counters), &params).await?;
        // Formatting may have found a copy that is bad.
        let unfinished = recovered.unfinished || !log.view().sound();
        let unsettled = recovered.unsettled;
        let writer = TableWriter::new(params.base_blocks);
        let superblock = log.superblock();
        writer.set_slot(superblock.slot);
        let allocator = Allocator::new(superblock.slot, layout.data_blocks);
        let events = Events::new(&env, &params.name);
        let jobs = JobScope::new(&env, &events);
        let shared = Rc::new(Shared {
            tasks,
            env,
            table: Arc::clone(writer.table()),
            counters,
            name: superblock.name.clone(),
            set_uuid: superblock.set_uuid,
            slot: Cell::new(superblock.slot),
            layout: Cell::new(layout),
            mirror: RefCell::default(),
            mirror_locks: RangeLocks::default(),
            log: Cell::new(log.view()),
            times: Cell::default(),
            state: RefCell::new(State { writer, allocator, storm: StormBrake::new(params.storm_limit) }),
            closed: Cell::new(false),
            closing: Cell::new(false),
            spare_gone: Cell::new(false),
            range_locks: RangeLocks::default(),
            events,
            left: Cell::default(),
            bad_copies: RefCell::default(),
        });
        let unfinished_scrub = superblock.scrub;
        shared.load(recovered).await;
        shared.look_at_what_is_left();
        let (requests, asked) = unbounded();
        let mut committer = Committer::new(Rc::clone(&shared), log, asked);
        committer.observe();
        if unfinished && !active(Mutation::FoundDamageNotHealed) {
            committer.heal_what_was_found(unsettled).await?;
        }
        shared.tasks.spawn(committer.run());
        let data = DataOf { device, layout: shared.layout.get() };
        let mut spares = PerSlot::default();
        spares[shared.slot.get()] = Some(data);
        Ok(Rc::new(Engine { shared, requests, jobs, spares: RefCell::new(spares), unfinished_scrub }))
    }

    /// The jobs of the set.
    pub fn jobs(&self) -> &JobScope<E> {
        &self.jobs
    }

    /// The remap table, to be shared with all threads.
    pub fn table(&self) -> &Arc<Table> {
        &self.shared.table
    }

    /// The slot of the spare in force: all spare blocks of the table are in it.
    pub fn slot(&self) -> Slot {
        self.shared.slot.get()
    }

    /// The layout of the spare in force.
    pub fn layout(&self) -> Layout {
        self.shared.layout.get()
    }

    /// The identity of the set.
    pub fn set_uuid(&self) -> Uuid {
        self.shared.set_uuid
    }

    /// The counters, to be shared with all threads.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// Sets the blocks that may be relocated within 60 s before the storm brake trips.
    pub fn set_storm_limit(&self, limit: u64) {
        self.shared.state.borrow_mut().storm.set_limit(limit);
    }

    /// Releases the storm brake.
    pub fn rearm(&self) {
        self.shared.state.borrow_mut().storm.rearm();
        log::info!("{}: storm brake released", self.shared.name);
    }
}

impl<E: Env> Shared<E> {
    /// Puts what the log says into the table and the allocator, which know of nothing.
    async fn load(&self, recovered: Recovered) {
        {
            let allocator = &mut self.state.borrow_mut().allocator;
            allocator.set_all_used(&recovered.used);
            recovered.bad.iter().for_each(|spare| allocator.set_bad(*spare));
        }
        // No host can reach the set yet.
        let mut pace = Pace::while_hosts_wait();
        for group in recovered.mappings.into_regions() {
            pace.step(group.blocks).await;
            let writer = &mut self.state.borrow_mut().writer;
            group.regions.into_iter().for_each(|region| writer.put(region));
        }
    }

    /// Publishes any number of changes, ascending by block, in steps; the spare blocks that they name are used then.
    async fn publish_many(&self, changes: impl Iterator<Item = Change>) {
        let (mut changes, mut part, mut pace) = (changes.peekable(), Vec::new(), Pace::default());
        while changes.peek().is_some() {
            let before = part.len();
            let whole = self.gather(&mut changes, &mut part);
            pace.step(part.len() - before).await;
            if whole {
                pace.step(part.len()).await;
                self.publish(std::mem::replace(&mut part, Vec::with_capacity(2 * Pace::STRIDE)));
                pace.step(Pace::STRIDE).await;
            }
        }
        self.publish(part);
    }

    /// Puts some more changes into `part`, and takes the spare blocks that they name; whether these should be published now.
    fn gather(&self, changes: &mut Peekable<impl Iterator<Item = Change>>, part: &mut Vec<Change>) -> bool {
        let allocator = &mut self.state.borrow_mut().allocator;
        for _ in 0..Pace::STRIDE {
            let Some(change) = changes.peek() else { return true };
            // A region is made at once where that does not take long, as some of it is copied whenever something comes into it.
            let begins = part.last().is_some_and(|last| last.lba.0 / REGION_BLOCKS != change.lba.0 / REGION_BLOCKS);
            if part.len() >= PUBLISHED_AT_ONCE || (begins && part.len() >= Pace::STRIDE) {
                return true;
            }
            change.to.and_then(Mapping::spare).into_iter().for_each(|spare| allocator.set_used(spare));
            part.extend(changes.next());
        }
        false
    }

    /// Publishes the changes of a log page. They may be in many regions, some of each of which is copied: others go on in between.
    async fn publish_page(&self, mut changes: Few<Change>) {
        let (mut retired, mut pace) = (Retired::default(), Pace::default());
        for region in by_region(&mut changes) {
            let copied = self.table.copied_for(region[0].lba, region.len());
            pace.step((copied + region.len() * CHANGED_AS + REGION_AS).div_ceil(COPIED_AS_ONE)).await;
            self.forget_copies(region.iter().map(|change| change.lba), Forget::Changed);
            self.state.borrow_mut().writer.publish_region(region, &mut retired);
        }
        self.reclaim(retired);
    }

    /// Changes the table, and frees what that takes out of it when nobody can look at it any more.
    fn publish(&self, changes: Vec<Change>) {
        self.forget_copies(changes.iter().map(|change| change.lba), Forget::Changed);
        let retired = self.state.borrow_mut().writer.publish(changes);
        self.reclaim(retired);
    }

    fn reclaim(&self, retired: Retired) {
        if !retired.is_empty() {
            self.tasks.spawn(reclaim(Rc::clone(&self.env), retired));
        }
    }

    /// Gives spare blocks free that were taken out of the table, when no I/O can be under way to them any more.
    fn free_when_drained(self: &Rc<Self>, freed: Vec<SpareBlock>) {
        if freed.is_empty() {
            return;
        }
        freed.iter().for_each(|index| self.state.borrow_mut().allocator.hold(*index));
        let shared = Rc::clone(self);
        self.tasks.spawn(async move {
            if !active(Mutation::FreedSpareNotDrained) {
                shared.env.drain().await;
            }
            freed.into_iter().for_each(|index| shared.state.borrow_mut().allocator.set_drained(index));
            shared.look_at_what_is_left();
        });
    }

    /// Whether `lba` is a block of the base.
    fn on_base(&self, lba: BaseLba) -> bool {
        lba.0 < self.table.base_blocks()
    }
}
