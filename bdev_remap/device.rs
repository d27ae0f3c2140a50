//! What all threads share of a Remap bdev.

use std::{
    cell::RefCell,
    future::ready,
    mem::offset_of,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use remap_core::{Abilities, Counters, PerSlot, Ranges, RemapOn, Slot, Table};
use serde_json::{Value, json};
use spdk::{BdevHandle, Desc, Errno, MemoryDomain, thread::Bound};

use crate::{
    below::{Below, SpareBelow},
    channel::Channel,
    disk::Disk,
    owner::{Owned, OwnerThread, RemapEngine},
};

/// How a set is to work, where somebody has said so.
#[derive(Clone, Copy, Default)]
pub struct Tuning {
    /// Which errors count; media errors unless told otherwise.
    pub remap_on: Option<RemapOn>,
    /// Blocks that may be relocated within 60 s.
    pub storm_limit: Option<u64>,
}

/// A Remap bdev. The first members are those that every I/O reads, or every one that fails, in one cache line; they are never
/// written but for `any_error`.
#[repr(C, align(64))]
pub struct Remap {
    /// The remap table.
    pub table: Arc<Table>,
    /// Which I/O the base takes. What spares take, which may change, is known to the channels.
    pub abilities: Abilities,
    /// Option `remap_on` is "any".
    any_error: AtomicBool,
    /// It is being reset: what is held ends.
    pub resetting: Arc<AtomicBool>,
    /// The engine, from any thread.
    pub owner: OwnerThread,
    /// What happened.
    pub counters: Arc<Counters>,
    /// The name of the Remap bdev.
    pub name: String,
    /// The name of the base.
    pub base_bdev: String,
    /// Hosts are told that there is a volatile cache.
    pub write_cache: bool,
    /// The engine and the disks, on the owner thread.
    owned: Bound<Owned>,
    /// Blocks that hosts may not change now; new channels learn it from here.
    closed: Mutex<Vec<Ranges>>,
    /// Given up in destruct.
    below: Mutex<Option<Below>>,
    end: Mutex<End>,
}

const _: () = assert!(offset_of!(Remap, owner) + size_of::<OwnerThread>() <= 64, "one cache line");

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
        name: String,
        engine: Rc<RemapEngine>,
        (base, spare): (Disk, Disk),
        (base_desc, spare_desc): (Desc, Desc),
        remap_on: RemapOn,
    ) -> Option<Remap> {
        let (table, counters) = (Arc::clone(engine.table()), Arc::clone(engine.counters()));
        let base_bdev = base_desc.info().name;
        let write_cache = base_desc.info().write_cache || spare_desc.info().write_cache;
        let slot = engine.slot();
        let spare_below = SpareBelow::new(spare_desc, &engine.layout());
        let below = Below { base: base_desc, spares: PerSlot::only(slot, Some(spare_below)) };
        let owned = Bound::new(Owned { engine, base, spares: RefCell::new(PerSlot::only(slot, Some(spare))) })?;
        Some(Remap {
            table,
            abilities: below.abilities_of_base(),
            any_error: AtomicBool::new(remap_on == RemapOn::Any),
            resetting: Arc::default(),
            owner: OwnerThread::new(owned.clone()),
            counters,
            name,
            base_bdev,
            write_cache,
            owned,
            closed: Mutex::default(),
            below: Mutex::new(Some(below)),
            end: Mutex::default(),
        })
    }

    /// The spare in force, and the other one while there is one.
    fn spares_below(&self) -> (Option<SpareBelow>, Option<SpareBelow>) {
        let below = lock(&self.below);
        let spare = |slot: Slot| below.as_ref().and_then(|below| below.spares[slot].clone());
        let in_force = self.table.slot();
        (spare(in_force), spare(in_force.other()))
    }

    /// The bdev of the spare in force. Empty once it was given up.
    pub fn spare_bdev(&self) -> String {
        self.spares_below().0.map(|spare| spare.desc.info().name).unwrap_or_default()
    }

    /// A spare is there: hosts' I/O may go to it once this is done. Its disk, unless there is one. Owner thread; the engine is told by
    /// whoever calls this.
    pub async fn attach(
        device: &BdevHandle<Remap>,
        slot: Slot,
        spare: SpareBelow,
        disk: Option<Disk>,
    ) -> Result<(), Errno> {
        if let Some(below) = &mut *lock(&device.below) {
            below.spares[slot] = Some(spare.clone());
        }
        if let (Some(owned), Some(disk)) = (device.owned.get(), disk) {
            owned.spares.borrow_mut()[slot] = Some(disk);
        }
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let attach = move |channel: &Channel| {
            if let Err(errno) = channel.attach(slot, &spare) {
                *lock(&failed) = Some(errno);
            }
            ready(())
        };
        device.visit_channels(attach).await;
        let failure = lock(&failure).take();
        match failure {
            None => Ok(()),
            Some(errno) => {
                Remap::part_with(device, slot).await;
                Err(errno)
            }
        }
    }

    /// The spare in this slot, to which nothing goes any more, is given up. Owner thread.
    pub async fn detach(device: &BdevHandle<Remap>, slot: Slot) {
        Remap::part_with(device, slot).await;
        if let Some(owned) = device.owned.get() {
            owned.spares.borrow_mut()[slot] = None;
        }
    }

    /// The spare in this slot, to which nothing goes any more, is let go; it may come back ([`Remap::attach`], [`Remap::open_disk`]).
    /// Owner thread.
    pub async fn part_with(device: &BdevHandle<Remap>, slot: Slot) {
        let spare = lock(&device.below).as_mut().and_then(|below| below.spares[slot].take());
        let detach = move |channel: &Channel| {
            channel.detach(slot);
            ready(())
        };
        device.visit_channels(detach).await;
        device.close_disk(slot);
        // No channel to it is left.
        drop(spare);
    }

    /// Which errors count as media errors.
    pub fn remap_on(&self) -> RemapOn {
        if self.any_error.load(Ordering::Relaxed) { RemapOn::Any } else { RemapOn::Media }
    }

    /// How it works, as somebody has said. Owner thread.
    pub fn tuning(&self) -> Tuning {
        let storm_limit = self.engine().map(|engine| engine.status().storm_limit);
        Tuning { remap_on: Some(self.remap_on()), storm_limit }
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
        Channel::new(below.as_ref().ok_or(Errno::NODEV)?, lock(&self.closed).clone(), &self.resetting)
    }

    /// From now on the gates of new channels are closed for `blocks`, too.
    pub fn close(&self, blocks: Ranges) {
        lock(&self.closed).push(blocks);
    }

    /// Ends a [`Remap::close`].
    pub fn open(&self, blocks: &Ranges) {
        lock(&self.closed).retain(|closed| closed != blocks);
    }

    /// Those that all devices take, and `more`, too: what comes in one is passed on as it is.
    pub fn memory_domains_with(&self, more: Option<&Desc>) -> Vec<MemoryDomain> {
        let below = lock(&self.below);
        let Some(Below { base, spares }) = below.as_ref() else { return Vec::new() };
        let spares = spares.iter().filter_map(|(_, spare)| spare.as_ref()).map(|spare| &spare.desc);
        let all: Vec<_> = [base].into_iter().chain(spares).chain(more).collect();
        MemoryDomain::common_to(&all)
    }

    /// The size of the base now, in blocks. None once it was given up.
    pub fn base_blocks(&self) -> Option<u64> {
        lock(&self.below).as_ref().map(|below| below.base.info().blocks)
    }

    fn disk(&self, slot: Slot) -> Option<Disk> {
        self.owned.get().and_then(|owned| owned.spares.borrow()[slot].clone())
    }

    /// What the engine does to the spare in this slot fails from now on. Owner thread.
    pub fn close_disk(&self, slot: Slot) {
        self.disk(slot).iter().for_each(Disk::close);
    }

    /// It works again, and goes to `desc`. Owner thread.
    pub fn open_disk(&self, slot: Slot, desc: &Desc) -> Result<(), Errno> {
        self.disk(slot).ok_or(Errno::NODEV)?.reopen(desc)
    }

    /// The spare in force may have another size: what it has grown by is used from the next save on. Owner thread.
    pub fn look_at_spare(&self) {
        let Some(Owned { engine, spares, .. }) = self.owned.get() else { return };
        let Some(SpareBelow { desc, .. }) = self.spares_below().0 else { return };
        let (blocks, before, name) = (desc.info().blocks, engine.layout().spare_blocks, &self.name);
        if blocks > before {
            spares.borrow()[engine.slot()].iter().for_each(|spare| spare.grow(blocks));
            log::info!(
                "{name}: the spare has grown from {before} blocks to {blocks}: they are used after the next save"
            );
        } else if blocks < before {
            log::error!("{name}: the spare has shrunk from {before} blocks to {blocks}; bring it back to its size");
        }
    }

    /// The bdev is to go. While all moves to another spare, writes may be held back until it is known which spare is in force, and that may
    /// never be: they end as aborted. Owner thread.
    pub async fn leave(device: &BdevHandle<Remap>) {
        let Some(engine) = device.engine().filter(|_| device.table.is_mirrored()) else { return };
        engine.leave();
        // As in a reset that does not end: what would be held from now on is ended, too.
        device.resetting.store(true, Ordering::Release);
        device.visit_channels(Channel::give_all_up).await;
    }

    /// The end: the engine is closed, after the superblocks were erased if that was asked for, and both devices are given up.
    pub async fn give_up(&self) {
        let wipe = lock(&self.end).wipe;
        if let Some(Owned { engine, base, spares }) = self.owned.get() {
            if let Some(force) = wipe {
                let failure = engine.wipe(force).await.err();
                lock(&self.end).failure = failure;
            }
            engine.close().await;
            base.close();
            spares.take().0.into_iter().flatten().for_each(|spare| spare.close());
        }
        lock(&self.below).take();
    }

    /// All about the set, for people and programs. Owner thread.
    pub fn describe(&self) -> Value {
        let Remap { name, base_bdev, .. } = self;
        let status = self.engine().map(|engine| engine.status());
        let (spare, other) = self.spares_below();
        let name_of = |spare: &SpareBelow| spare.desc.info().name;
        let mut all = json!({
            "name": name, "state": status.as_ref().map(|status| status.state),
            "base_bdev": base_bdev, "spare_bdev": spare.as_ref().map(name_of), "remap_on": self.remap_on(),
            "flush": { "base": self.abilities.base.flush, "spare": spare.map(|spare| spare.takes.flush) },
        });
        if let (Some(all), Some(other)) = (all.as_object_mut(), other) {
            all.insert("other_spare_bdev".into(), name_of(&other).into());
        }
        if let (Some(all), Ok(Value::Object(status))) = (all.as_object_mut(), serde_json::to_value(status)) {
            all.extend(status);
        }
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
