//! The Fault bdev: power, latency and rules are looked at, then the cache or the base has its turn.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::Range,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use spdk::{
    Abort, Bdev, BdevHandle, Child, Desc, Endpoint, Errno, Event, Flush, Held, HiddenMemory, Incoming, Io, IoKind,
    IoRef, MemoryDomain, Module, NextRound, OnChild, Properties, Ranged, Read, Reset, Status, Unmap, Write,
    WriteZeroes, sleep,
    thread::{self, AppCell, Bound},
};
use uuid::Uuid;

use crate::{
    cache::Cache,
    module::MODULE,
    rules::Rules,
    store::{Keep, NO_POWER, Store},
};

/// A bdev with faults.
pub struct Fault {
    options: Options,
    /// Given up in destruct.
    base: Mutex<Option<Desc>>,
    block_size: usize,
    /// What fails.
    pub rules: Rules,
    cache: Arc<Cache>,
    /// The power is off.
    off: Arc<AtomicBool>,
    store: Bound<Rc<Store>>,
    /// Where the data goes to the base, if not as it is.
    hidden: Option<Arc<HiddenMemory>>,
    /// How many reads and writes came with their data in a memory domain.
    in_domains: AtomicU64,
}

/// How a Fault bdev is made.
#[derive(Clone)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// Its base.
    pub base_bdev: String,
    /// Whether written data stays in memory until it is flushed.
    pub volatile_cache: bool,
    /// What every I/O waits before anything is done for it.
    pub latency: Duration,
    /// Whether the data of its I/O goes to the base in a memory domain that the CPU does not reach.
    pub hidden_memory: bool,
    /// Whether it takes no FLUSH.
    pub no_flush: bool,
    /// Blocks that there are none of: all I/O to them does nothing, and succeeds.
    pub hollow: Range<u64>,
}

/// What a thread has of a Fault bdev.
pub struct Channel {
    base: Endpoint,
    /// Where I/O ends that goes to hollow blocks, if there are any.
    nowhere: Option<NextRound>,
}

static DEVICES: AppCell<RefCell<BTreeMap<String, BdevHandle<Fault>>>> = AppCell::new(RefCell::new(BTreeMap::new()));

/// The Fault bdev called `name`. App thread.
pub fn find(name: &str) -> Option<BdevHandle<Fault>> {
    DEVICES.with(|devices| devices.borrow().get(name).cloned()).flatten()
}

/// Makes a Fault bdev. App thread.
pub fn create(options: Options) -> Result<(), Errno> {
    let name = options.name.clone();
    let owner = name.clone();
    let base = Desc::open(&options.base_bdev, move |event| {
        if event == Event::Remove
            && let Some(device) = find(&owner)
        {
            thread::spawn(async move {
                if let Err(errno) = device.unregister().await {
                    log::warn!("{}: {errno}", device.options.name);
                }
            });
        }
    })?;
    base.claim(&MODULE)?;
    let info = base.info();
    if options.volatile_cache && info.md_size > 0 {
        log::warn!("{name}: {} has metadata, which the cache does not hold", info.name);
        return Err(Errno::INVAL);
    }
    if !options.hollow.is_empty() && (options.volatile_cache || options.hollow.end > info.blocks) {
        log::warn!("{name}: hollow blocks are not in a cache, and on {}, which has {} blocks", info.name, info.blocks);
        return Err(Errno::INVAL);
    }
    let hidden = options.hidden_memory.then(HiddenMemory::new).transpose()?.map(Arc::new);
    let properties = Properties {
        name: name.clone(),
        product: "Fault injection disk",
        // The same at every start, so that what identifies its base by UUID finds it again.
        uuid: Uuid::new_v5(&info.uuid, name.as_bytes()),
        blocks: info.blocks,
        write_cache: info.write_cache || options.volatile_cache,
    };
    let (cache, off) = (Arc::new(Cache::default()), Arc::new(AtomicBool::new(false)));
    let store = Rc::new(Store::new(&base, Arc::clone(&cache), Arc::clone(&off))?);
    let device = Fault {
        options: Options { base_bdev: info.name, ..options },
        base: Mutex::new(Some(base.clone())),
        block_size: info.block_size as usize,
        rules: Rules::default(),
        cache,
        off,
        store: Bound::new(store).ok_or(Errno::INVAL)?,
        hidden,
        in_domains: AtomicU64::new(0),
    };
    let handle = BdevHandle::register(device, properties, &[&base])?;
    log::info!("{name}: created on {}", handle.options.base_bdev);
    DEVICES.with(|devices| devices.borrow_mut().insert(name, handle));
    Ok(())
}

impl Fault {
    fn base(&self) -> MutexGuard<'_, Option<Desc>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes: the cache is lost but for what `keep` says, and all I/O fails.
    pub async fn power_cut(&self, keep: Keep, seed: u64) -> Result<(), Status> {
        let name = &self.options.name;
        log::info!("{name}: power cut, {} blocks in the cache", self.cache.len());
        let cut = self.store.call(move |store| {
            let store = Rc::clone(store);
            async move { store.cut(keep, seed).await }
        });
        cut.await.unwrap_or(Err(Status::Failed))
    }

    /// The power is back.
    pub fn power_on(&self) {
        self.off.store(false, Ordering::Release);
        log::info!("{}: power on", self.options.name);
    }

    /// How the device fails it, if it does.
    #[inline(always)]
    fn verdict<K: Ranged>(&self, io: &IoRef<Fault, K>) -> Result<(), Status> {
        match self.off.load(Ordering::Acquire) {
            true => Err(NO_POWER),
            false => self.rules.verdict(K::KIND, io.lba(), io.blocks()).map_or(Ok(()), Err),
        }
    }

    /// Does what `io` asks for.
    #[inline(always)]
    fn perform<K: Asks>(&self, channel: &Channel, io: Io<Fault, K>) {
        match self.verdict(&io) {
            Err(status) => io.complete(Err(status)),
            Ok(()) if self.options.volatile_cache => K::cached(self, channel, io),
            Ok(()) => self.pass_on(channel, io),
        }
    }

    #[inline(always)]
    fn pass_on<K: Ranged>(&self, channel: &Channel, io: Io<Fault, K>) {
        let (lba, hollow) = (io.lba(), &self.options.hollow);
        if let Some(nowhere) = &channel.nowhere
            && lba >= hollow.start
            && lba + io.blocks() <= hollow.end
        {
            return nowhere.succeed(io);
        }
        let Some(hidden) = self.hidden.clone() else { return io.forward::<Back>(&channel.base, lba) };
        thread::spawn(async move {
            let io = Held::new(io, Rc::default());
            let outcome = hidden.send(&io.channel().base, &io, lba).await;
            io.end(outcome);
        });
    }

    /// Performs it, after the latency.
    #[inline(always)]
    fn take<K: Asks>(&self, channel: &Channel, io: Io<Fault, K>) {
        if io.in_memory_domain() {
            self.in_domains.fetch_add(1, Ordering::Relaxed);
        }
        let latency = self.options.latency;
        if latency.is_zero() {
            return self.perform(channel, io);
        }
        thread::spawn(async move {
            sleep(latency).await;
            io.take_up(Fault::perform);
        });
    }
}

/// Kinds of I/O that go to blocks.
trait Asks: Ranged + Sized {
    /// What becomes of it where there is a cache.
    fn cached(device: &Fault, channel: &Channel, io: Io<Fault, Self>) {
        device.pass_on(channel, io);
    }
}

impl Asks for WriteZeroes {}
impl Asks for Unmap {}

impl Asks for Write {
    fn cached(device: &Fault, _channel: &Channel, io: Io<Fault, Write>) {
        let mut data = vec![0; io.blocks() as usize * device.block_size];
        let read = io.read_data(0, &mut data);
        if read.is_ok() {
            device.cache.put(io.lba(), device.block_size, &data);
        }
        io.complete(read);
    }
}

impl Asks for Read {
    fn cached(device: &Fault, channel: &Channel, io: Io<Fault, Read>) {
        let (lba, blocks, block_size) = (io.lba(), io.blocks(), device.block_size as u64);
        // Before the base is read: what leaves the cache later is on the base by then.
        let cached = device.cache.get(lba..lba + blocks);
        if cached.is_empty() {
            return device.pass_on(channel, io);
        }
        thread::spawn(async move {
            let io = Held::new(io, Rc::default());
            let read = io.channel().base.part_of(&io, 0, blocks, lba).await;
            let mut newer = cached.iter().map(|(at, data)| io.write_data((at - lba) * block_size, data));
            let outcome = read.and_then(|()| newer.try_for_each(|written| written));
            io.end(outcome);
        });
    }
}

impl Asks for Flush {
    fn cached(device: &Fault, _channel: &Channel, io: Io<Fault, Flush>) {
        let range = io.lba()..io.lba() + io.blocks();
        let store = device.store.clone();
        thread::spawn(async move {
            let flushed = store.call(move |store| {
                let store = Rc::clone(store);
                async move { store.flush(range).await }
            });
            let outcome = flushed.await.unwrap_or(Err(Status::Failed));
            io.complete(outcome);
        });
    }
}

/// Waits as long as other I/O, so that what came before is at the base by then, and is reset there.
fn reset(io: Io<Fault, Reset>) {
    thread::spawn(async move {
        sleep(io.bdev().options.latency).await;
        let outcome = match io.bdev().off.load(Ordering::Acquire) {
            true => Err(NO_POWER),
            false => io.channel().base.reset().await,
        };
        io.complete(outcome);
    });
}

fn abort(channel: &Channel, io: Io<Fault, Abort>) {
    let aborted = channel.base.abort(io.target());
    thread::spawn(async move {
        // Nothing of it is over there (any more): the abort has failed, which is a normal outcome.
        let outcome = if aborted.await { Ok(()) } else { Err(Status::Failed) };
        io.complete(outcome);
    });
}

struct Back;

impl<K: Ranged> OnChild<Fault, K> for Back {
    fn done(io: Io<Fault, K>, child: Child) {
        io.complete_as(child);
    }
}

impl Bdev for Fault {
    type Channel = Channel;

    fn module() -> &'static Module {
        &MODULE
    }

    fn create_channel(&self) -> Result<Channel, Errno> {
        let base = Endpoint::new(self.base().as_ref().ok_or(Errno::NODEV)?)?;
        let nowhere = if self.options.hollow.is_empty() { None } else { Some(NextRound::new()?) };
        Ok(Channel { base, nowhere })
    }

    fn submit(&self, channel: &Channel, io: Incoming<Fault>) {
        match io {
            Incoming::Read(io) if io.needs_buffer() => io.get_buffer(),
            Incoming::Read(io) => self.take(channel, io),
            Incoming::Write(io) => self.take(channel, io),
            Incoming::WriteZeroes(io) => self.take(channel, io),
            Incoming::Unmap(io) => self.take(channel, io),
            Incoming::Flush(io) => self.take(channel, io),
            Incoming::Reset(io) => reset(io),
            Incoming::Abort(io) => abort(channel, io),
            Incoming::Other(io) => io.complete(Err(Status::Failed)),
        }
    }

    /// A device with a cache leaves zeroing to the bdev layer, which writes, and has no unmap: nothing gets past the cache.
    fn supports(&self, kind: IoKind) -> bool {
        match kind {
            IoKind::Flush if self.options.no_flush => false,
            IoKind::Flush if self.options.volatile_cache => true,
            IoKind::WriteZeroes | IoKind::Unmap if self.options.volatile_cache => false,
            kind => self.base().as_ref().is_some_and(|base| base.supports(kind)),
        }
    }

    /// Those of the base, as nothing here touches the data but the cache. What is hidden here must not be in a domain already.
    fn memory_domains(&self) -> Vec<MemoryDomain> {
        match self.base().as_ref() {
            Some(base) if !self.options.volatile_cache && self.hidden.is_none() => MemoryDomain::common_to(&[base]),
            _ => Vec::new(),
        }
    }

    fn info(&self) -> (&'static str, Value) {
        let mut all = self.options.to_json();
        let (pulls, pushes) = self.hidden.as_ref().map_or((0, 0), |hidden| hidden.pulls_and_pushes());
        all["memory_domains"] =
            json!({ "came": self.in_domains.load(Ordering::Relaxed), "pulls": pulls, "pushes": pushes });
        all["power"] = json!(if self.off.load(Ordering::Acquire) { "off" } else { "on" });
        all["cached_blocks"] = self.cache.len().into();
        all["rules"] = json!(self.rules.list());
        ("fault", all)
    }

    fn config(&self) -> Option<(&'static str, Value)> {
        Some(("bdev_fault_create", self.options.to_json()))
    }

    async fn destruct(&self) {
        DEVICES.with(|devices| devices.borrow_mut().remove(&self.options.name));
        if let Some(store) = self.store.get() {
            store.close().await;
        }
        self.base().take();
        log::info!("{}: deleted", self.options.name);
    }
}

impl Options {
    /// The parameters of `bdev_fault_create`.
    fn to_json(&self) -> Value {
        json!({
            "name": self.name, "base_bdev": self.base_bdev, "volatile_cache": self.volatile_cache,
            "latency_us": self.latency.as_micros() as u64, "hidden_memory": self.hidden_memory,
            "no_flush": self.no_flush, "hollow_lba": self.hollow.start,
            "hollow_blocks": self.hollow.end - self.hollow.start,
        })
    }
}
