//! What all threads share of a Remap bdev.

use std::{
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use remap_core::{Abilities, At, Counters, PerSlot, Ranges, RemapOn, Table, Takes};
use serde_json::{Value, json};
use spdk::{Desc, Endpoint, Errno, IoKind, MemoryDomain, thread::Bound};

use crate::{
    channel::Channel,
    disk::Disk,
    owner::{Owned, OwnerThread, RemapEngine},
};

/// A Remap bdev. The first members are those that every I/O reads; they are never written but for `any_error`.
pub struct Remap {
    /// The remap table.
    pub table: Arc<Table>,
    /// Where the data is on each spare.
    pub data: PerSlot<DataArea>,
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
    closed: Mutex<Vec<Ranges>>,
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

/// The data area of a spare; of no blocks where there is no spare.
#[derive(Clone, Copy, Default)]
pub struct DataArea {
    /// LBA of its first block.
    pub start: u64,
    /// Length in blocks.
    pub blocks: u64,
}

/// The bdevs below, claimed.
struct Below {
    base: Desc,
    spares: PerSlot<Option<Desc>>,
}

/// What a device takes.
fn takes(desc: &Desc) -> Takes {
    Takes {
        flush: desc.supports(IoKind::Flush),
        unmap: desc.supports(IoKind::Unmap),
        zeroes: desc.supports(IoKind::WriteZeroes),
        reset: desc.supports(IoKind::Reset),
        abort: desc.supports(IoKind::Abort),
    }
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
    pub fn new(
        names: Names,
        engine: Rc<RemapEngine>,
        (base, spare): (Disk, Disk),
        (base_desc, spare_desc): (Desc, Desc),
        remap_on: RemapOn,
    ) -> Option<Remap> {
        let slot = engine.slot();
        let abilities = Abilities {
            base_cache: base_desc.info().write_cache,
            base: takes(&base_desc),
            spares: PerSlot::only(slot, takes(&spare_desc)),
        };
        let (table, counters) = (Arc::clone(engine.table()), Arc::clone(engine.counters()));
        let layout = engine.layout();
        let data = DataArea { start: layout.data_start.0, blocks: layout.data_blocks.into() };
        let data = PerSlot::only(slot, data);
        let owned = Bound::new(Owned { engine, base, spare })?;
        Some(Remap {
            table,
            data,
            abilities,
            any_error: AtomicBool::new(remap_on == RemapOn::Any),
            resetting: Arc::default(),
            owner: OwnerThread::new(owned.clone()),
            counters,
            names,
            owned,
            closed: Mutex::default(),
            below: Mutex::new(Some(Below { base: base_desc, spares: PerSlot::only(slot, Some(spare_desc)) })),
            end: Mutex::default(),
        })
    }

    /// The device behind a place, and the LBA there. None if it is in a slot without a spare, which does not occur.
    #[inline(always)]
    pub fn reach<'a>(&self, channel: &'a Channel, at: At) -> Option<(&'a Endpoint, u64)> {
        match at {
            At::Base(lba) => Some((&channel.base, lba.0)),
            At::Spare(block) => {
                let spare = channel.spares[block.slot()].as_ref()?;
                Some((spare, self.data[block.slot()].start + u64::from(block.index())))
            }
        }
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

    /// What moves need, on the owner thread only.
    pub fn for_moves(&self) -> Option<(Rc<RemapEngine>, Disk)> {
        self.owned.get().map(|owned| (Rc::clone(&owned.engine), owned.base.clone()))
    }

    /// Asks for the superblocks to be erased when the bdev has gone, or takes that back.
    pub fn wipe_at_end(&self, force: Option<bool>) {
        lock(&self.end).wipe = force;
    }

    /// Why the superblocks could not be erased.
    pub fn wipe_failure(&self) -> Option<remap_core::Error> {
        lock(&self.end).failure.take()
    }

    /// The channel of the current thread to all devices.
    pub fn channel(&self) -> Result<Channel, Errno> {
        let below = lock(&self.below);
        let Below { base, spares } = below.as_ref().ok_or(Errno::NODEV)?;
        Channel::new(base, spares, lock(&self.closed).clone(), &self.resetting)
    }

    /// From now on the gates of new channels are closed for `blocks`, too.
    pub fn close(&self, blocks: Ranges) {
        lock(&self.closed).push(blocks);
    }

    /// Ends a [`Remap::close`].
    pub fn open(&self, blocks: &Ranges) {
        lock(&self.closed).retain(|closed| closed != blocks);
    }

    /// Those that all devices take: what comes in one is passed on as it is.
    pub fn memory_domains(&self) -> Vec<MemoryDomain> {
        let below = lock(&self.below);
        let Some(Below { base, spares }) = below.as_ref() else { return Vec::new() };
        let spares = spares.iter().filter_map(|(_, spare)| spare.as_ref());
        let all: Vec<_> = [base].into_iter().chain(spares).collect();
        MemoryDomain::common_to(&all)
    }

    /// The size of the base now, in blocks. None once it was given up.
    pub fn base_blocks(&self) -> Option<u64> {
        lock(&self.below).as_ref().map(|below| below.base.info().blocks)
    }

    /// The spare has another size: what it has grown by is used from the next save on. Owner thread.
    pub fn spare_was_resized(&self) {
        let Some(Owned { engine, spare, .. }) = self.owned.get() else { return };
        let size = lock(&self.below).as_ref().and_then(|below| Some(below.spares[engine.slot()].as_ref()?.info().blocks));
        let (Some(blocks), before) = (size, engine.layout().spare_blocks) else { return };
        let name = &self.names.name;
        if blocks > before {
            spare.grow(blocks);
            log::info!("{name}: the spare has grown from {before} blocks to {blocks}: they are used after the next save");
        } else if blocks < before {
            log::error!("{name}: the spare has shrunk from {before} blocks to {blocks}; bring it back to its size");
        }
    }

    /// The end: the engine is closed, after the superblocks were erased if that was asked for, and both devices are given up.
    pub async fn give_up(&self) {
        let wipe = lock(&self.end).wipe;
        if let Some(Owned { engine, base, spare }) = self.owned.get() {
            if let Some(force) = wipe {
                let failure = engine.wipe(force).await.err();
                lock(&self.end).failure = failure;
            }
            engine.close().await;
            base.close();
            spare.close();
        }
        lock(&self.below).take();
    }

    /// All about the set, for people and programs. Owner thread.
    pub fn describe(&self) -> Value {
        let Names { name, base_bdev, spare_bdev } = &self.names;
        let status = self.engine().map(|engine| engine.status());
        let spare_flush = self.engine().map(|engine| self.abilities.spares[engine.slot()].flush);
        let mut all = json!({
            "name": name, "state": status.as_ref().map(|status| status.state),
            "base_bdev": base_bdev, "spare_bdev": spare_bdev, "remap_on": self.remap_on(),
            "flush": { "base": self.abilities.base.flush, "spare": spare_flush },
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
