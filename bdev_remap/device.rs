//! The Remap bdev: what all threads share of it.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use remap_core::{Abilities, Counters, Engine, RemapOn, SpareIndex, Table};
use serde_json::{Value, json};
use spdk::{Bdev, Desc, Errno, Io, IoKind, Module, thread::Bound};

use crate::{
    admin,
    channel::Channel,
    io,
    rescue::OwnerThread,
    spare::{Spare, Threads},
};

/// The engine of a Remap bdev: its table, log and allocator on the real spare.
pub type RemapEngine = Engine<Spare, Threads>;

/// A Remap bdev. The first members are those that every I/O reads; they are never written but for `any_error`.
pub struct Remap {
    /// The remap table.
    pub table: Arc<Table>,
    /// LBA, on the spare, of the first block of its data area.
    pub data_start: u64,
    /// Length of the data area in blocks.
    pub data_blocks: u64,
    /// Which I/O the devices take.
    pub abilities: Abilities,
    /// Option `remap_on` is "any".
    any_error: AtomicBool,
    /// The engine, from any thread.
    pub owner: OwnerThread,
    /// What happened.
    pub counters: Arc<Counters>,
    /// Names, as given or found at creation.
    pub names: Names,
    /// The engine and the spare, on the owner thread.
    owned: Bound<Owned>,
    /// Given up in destruct.
    below: Mutex<Option<Below>>,
    end: Mutex<End>,
}

/// The names of a set.
#[derive(Clone, PartialEq, Eq)]
pub struct Names {
    /// The Remap bdev.
    pub name: String,
    /// The base.
    pub base_bdev: String,
    /// The spare.
    pub spare_bdev: String,
}

/// What lives on the owner thread.
pub struct Owned {
    /// The engine.
    pub engine: Rc<RemapEngine>,
    /// Its spare.
    pub spare: Spare,
}

/// The bdevs below.
pub struct Below {
    /// The base, claimed.
    pub base: Desc,
    /// The spare, claimed.
    pub spare: Desc,
}

/// What is to be done, and was done, at the end.
#[derive(Default)]
struct End {
    /// Erase the superblocks; the bool says whether also with blocks remapped.
    wipe: Option<bool>,
    /// How that went.
    failure: Option<remap_core::Error>,
}

impl Remap {
    /// A bdev on an engine that has loaded its set. Owner thread.
    pub fn new(names: Names, engine: Rc<RemapEngine>, spare: Spare, below: Below, remap_on: RemapOn) -> Option<Remap> {
        let abilities = Abilities {
            base_cache: below.base.info().write_cache,
            base_flush: below.base.supports(IoKind::Flush),
            spare_flush: below.spare.supports(IoKind::Flush),
            base_unmap: below.base.supports(IoKind::Unmap),
            spare_unmap: below.spare.supports(IoKind::Unmap),
            base_reset: below.base.supports(IoKind::Reset),
            spare_reset: below.spare.supports(IoKind::Reset),
            base_abort: below.base.supports(IoKind::Abort),
            spare_abort: below.spare.supports(IoKind::Abort),
        };
        let (table, counters) = (Arc::clone(engine.table()), Arc::clone(engine.counters()));
        let (data_start, data_blocks) = (engine.layout().data_start.0, engine.layout().data_blocks.into());
        let owned = Bound::new(Owned { engine, spare })?;
        Some(Remap {
            table,
            data_start,
            data_blocks,
            abilities,
            any_error: AtomicBool::new(remap_on == RemapOn::Any),
            owner: OwnerThread::new(owned.clone()),
            counters,
            names,
            owned,
            below: Mutex::new(Some(below)),
            end: Mutex::default(),
        })
    }

    /// LBA, on the spare, of a block of its data area.
    #[inline]
    pub fn spare_lba(&self, index: SpareIndex) -> u64 {
        self.data_start + u64::from(index.get())
    }

    /// Which errors count as media errors.
    pub fn remap_on(&self) -> RemapOn {
        if self.any_error.load(Ordering::Relaxed) { RemapOn::Any } else { RemapOn::Media }
    }

    /// Changes which errors count as media errors.
    pub fn set_remap_on(&self, on: RemapOn) {
        self.any_error.store(on == RemapOn::Any, Ordering::Relaxed);
    }

    /// The engine, on the owner thread only.
    pub fn engine(&self) -> Option<&Rc<RemapEngine>> {
        self.owned.get().map(|owned| &owned.engine)
    }

    /// Asks for the superblocks to be erased when the bdev has gone, or takes that back.
    pub fn wipe_at_end(&self, force: Option<bool>) {
        lock(&self.end).wipe = force;
    }

    /// Why the superblocks could not be erased.
    pub fn wipe_failure(&self) -> Option<remap_core::Error> {
        lock(&self.end).failure.take()
    }

    /// All about the set, for people and programs. Owner thread.
    pub fn describe(&self) -> Value {
        let Names { name, base_bdev, spare_bdev } = &self.names;
        let status = self.engine().map(|engine| engine.status());
        let mut all = json!({
            "name": name, "state": status.as_ref().map(|status| status.state),
            "base_bdev": base_bdev, "spare_bdev": spare_bdev, "remap_on": self.remap_on(),
            "flush": { "base": self.abilities.base_flush, "spare": self.abilities.spare_flush },
        });
        if let (Some(all), Ok(Value::Object(status))) = (all.as_object_mut(), serde_json::to_value(status)) {
            all.extend(status);
        }
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bdev for Remap {
    type Channel = Channel;

    fn module() -> &'static Module {
        &crate::MODULE
    }

    fn create_channel(&self) -> Result<Channel, Errno> {
        let below = lock(&self.below);
        let Below { base, spare } = below.as_ref().ok_or(Errno::NODEV)?;
        Channel::new(base, spare)
    }

    #[inline]
    fn submit(&self, channel: &Channel, io: Io<Remap>) {
        io::submit(self, channel, io);
    }

    /// The bdev layer makes the rest from these.
    fn supports(&self, kind: IoKind) -> bool {
        match kind {
            IoKind::Read | IoKind::Write | IoKind::WriteZeroes | IoKind::Flush | IoKind::Abort => true,
            IoKind::Unmap => self.abilities.base_unmap,
            IoKind::Reset => self.abilities.base_reset,
            IoKind::Unsupported => false,
        }
    }

    fn info(&self) -> (&'static str, Value) {
        ("remap", self.describe())
    }

    fn config(&self) -> Option<(&'static str, Value)> {
        let Names { name, base_bdev, spare_bdev } = &self.names;
        let status = self.engine()?.status();
        let params = json!({
            "name": name, "base_bdev": base_bdev, "spare_bdev": spare_bdev, "uuid": status.uuid,
            "remap_on": self.remap_on(), "storm_limit": status.storm_limit,
        });
        Some(("bdev_remap_create", params))
    }

    async fn destruct(&self) {
        let wipe = lock(&self.end).wipe;
        if let Some(Owned { engine, spare }) = self.owned.get() {
            if let Some(force) = wipe {
                let failure = engine.wipe(force).await.err();
                lock(&self.end).failure = failure;
            }
            engine.close().await;
            spare.close();
        }
        lock(&self.below).take();
        admin::gone(&self.names.name);
    }
}
