//! What all threads share of a Remap bdev.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use remap_core::{Abilities, Counters, Extent, RemapOn, SpareIndex, Table};
use serde_json::{Value, json};
use spdk::{Desc, Errno, IoKind, MemoryDomain, thread::Bound};

use crate::{
    channel::Channel,
    owner::{Owned, OwnerThread, RemapEngine},
    spare::Spare,
};

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
    /// It is being reset: what is held ends.
    pub resetting: Arc<AtomicBool>,
    /// The engine, from any thread.
    pub owner: OwnerThread,
    /// What happened.
    pub counters: Arc<Counters>,
    /// Names, as given or found at creation.
    pub names: Names,
    /// The engine and the spare, on the owner thread.
    owned: Bound<Owned>,
    /// Blocks that hosts may not change now; new channels learn it from here.
    closed: Mutex<Vec<Extent>>,
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
            base_zeroes: below.base.supports(IoKind::WriteZeroes),
            spare_zeroes: below.spare.supports(IoKind::WriteZeroes),
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
            resetting: Arc::default(),
            owner: OwnerThread::new(owned.clone()),
            counters,
            names,
            owned,
            closed: Mutex::default(),
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

    /// The channel of the current thread to both devices.
    pub fn channel(&self) -> Result<Channel, Errno> {
        let below = lock(&self.below);
        let Below { base, spare } = below.as_ref().ok_or(Errno::NODEV)?;
        Channel::new(base, spare, lock(&self.closed).clone(), &self.resetting)
    }

    /// From now on the gates of new channels are closed for `range`, too.
    pub fn close(&self, range: Extent) {
        lock(&self.closed).push(range);
    }

    /// Ends a [`Remap::close`].
    pub fn open(&self, range: Extent) {
        lock(&self.closed).retain(|closed| *closed != range);
    }

    /// Those that both devices take: what comes in one is passed on as it is.
    pub fn memory_domains(&self) -> Vec<MemoryDomain> {
        let below = lock(&self.below);
        below.as_ref().map_or_else(Vec::new, |below| MemoryDomain::common_to(&[&below.base, &below.spare]))
    }

    /// The end: the engine is closed, after the superblocks were erased if that was asked for, and both devices are given up.
    pub async fn give_up(&self) {
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
