//! The engine: the owner of a set's remap state, on the owner thread.
//!
//! It decides what becomes of each block (`commit`), gives out spare blocks (`owner`), makes it durable through the log,
//! publishes it in the table, and does the administrative operations (`admin`). Reactors only read its table; what they
//! want changed comes in through [`crate::Owner`]. It is not `Send`; no borrow of its state is held across an await.

mod admin;
mod commit;
mod open;
mod owner;
mod report;
mod storm;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

pub use self::report::{
    CopyHealth, Difference, DifferingExtent, FormatPolicy, ListedExtent, ListedState, MetadataHealth, OpenParams,
    RestoreReport, SaveReport, SetState, SpareUsage, Status,
};

use self::commit::{Committer, Queued};
use self::storm::StormBrake;
use crate::allocator::Allocator;
use crate::counters::Counters;
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::Layout;
use crate::recovery::Recovered;
use crate::remap_log::LogView;
use crate::spare::Spare;
use crate::table::{Change, Retired, Table, TableWriter, reclaim};
use crate::units::{BaseLba, SpareIndex};

/// The owner of a set's remap state.
pub struct Engine<D: Device, E: Env> {
    env: Rc<E>,
    table: Arc<Table>,
    counters: Arc<Counters>,
    name: String,
    set_uuid: Uuid,
    layout: Layout,
    state: RefCell<State>,
    /// Who has it, and nobody else, writes to the log and publishes.
    committer: async_lock::Mutex<Committer<D>>,
    /// The log as it was when the committer was last given back.
    log: Cell<LogView>,
    closed: Cell<bool>,
}

/// What changes without an await.
struct State {
    writer: TableWriter,
    allocator: Allocator,
    storm: StormBrake,
    /// Requests that wait for the committer.
    queue: Vec<Queued>,
}

impl<D: Device, E: Env> Engine<D, E> {
    /// Loads the set on `spare`, or formats it if it is empty and `params` allow it.
    ///
    /// # Errors
    /// Everything that speaks against using the spare, each its own [`Error`]; nothing was written then.
    pub async fn open(spare: D, env: E, params: OpenParams) -> Result<Rc<Self>, Error> {
        let counters = Arc::new(Counters::default());
        let spare = Rc::new(Spare::new(spare));
        let (log, recovered) = open::open(spare, Arc::clone(&counters), &params).await?;
        let (set_uuid, layout) = (log.superblock().set_uuid, log.superblock().layout);
        let mut writer = TableWriter::new(params.base_blocks);
        let mut allocator = Allocator::new(layout.data_blocks);
        allocator.reload(recovered.used(), recovered.bad.iter().copied());
        let changes = recovered.mappings.iter().map(|(lba, to)| Change { lba: *lba, to: Some(*to) }).collect();
        let fresh = writer.publish(changes);
        debug_assert!(fresh.is_empty(), "nothing was in the table");
        let engine = Rc::new(Engine {
            env: Rc::new(env),
            table: Arc::clone(writer.table()),
            counters,
            name: params.name.clone(),
            set_uuid,
            layout,
            log: Cell::new(log.view()),
            state: RefCell::new(State {
                writer,
                allocator,
                storm: StormBrake::new(params.name.clone(), params.storm_limit),
                queue: Vec::new(),
            }),
            committer: async_lock::Mutex::new(Committer::new(log)),
            closed: Cell::new(false),
        });
        if recovered.unfinished {
            engine.finish_recovery().await;
        }
        Ok(engine)
    }

    /// Puts right what a crash left: if that fails, nothing is appended before it has succeeded.
    async fn finish_recovery(&self) {
        let mut committer = self.committer.lock().await;
        committer.log.require_checkpoint();
        if let Err(error) = self.checkpoint(&mut committer).await {
            log::warn!("{}: not saved after loading: {error}", self.name);
        }
        self.log.set(committer.log.view());
    }

    /// The remap table, to be shared with all threads.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The block of the spare device that is [`SpareIndex`] 0.
    pub fn data_start(&self) -> u64 {
        self.layout.data_start
    }

    /// The layout of the spare.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The identity of the set.
    pub fn set_uuid(&self) -> Uuid {
        self.set_uuid
    }

    /// The counters, to be shared with all threads.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Sets the blocks that may be relocated within 60 s before the storm brake trips.
    pub fn set_storm_limit(&self, limit: u64) {
        self.state.borrow_mut().storm.set_limit(limit);
    }

    /// Releases the storm brake.
    pub fn rearm(&self) {
        self.state.borrow_mut().storm.rearm();
        log::info!("{}: storm brake released", self.name);
    }

    /// Changes the table, and frees what that takes out of it when nobody can look at it any more.
    fn publish(&self, changes: Vec<Change>) {
        let retired: Retired = self.state.borrow_mut().writer.publish(changes);
        if !retired.is_empty() {
            self.env.spawn(reclaim(Rc::clone(&self.env), retired));
        }
    }

    /// Whether `lba` is a block of the base.
    fn on_base(&self, lba: BaseLba) -> bool {
        lba.0 < self.table.base_blocks()
    }
}

impl Recovered {
    /// The spare blocks that hold data.
    fn used(&self) -> impl Iterator<Item = SpareIndex> + '_ {
        self.mappings.values().filter_map(|mapping| mapping.spare())
    }
}
