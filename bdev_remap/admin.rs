//! The making and the end of Remap bdevs, and the list of them. App thread, which is every set's owner thread.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use futures_channel::oneshot;
use remap_core::{Engine, FormatPolicy, OpenParams, RemapOn, format::superblock::NAME_MAX};
use spdk::{
    BdevHandle, BdevInfo, Desc, Errno, Event, IoKind, Properties, bdev_exists,
    rpc::Error,
    thread::{self, AppCell},
};
use uuid::Uuid;

use crate::{
    assembly,
    device::{Below, Names, Remap},
    spare::{Spare, Threads},
    status::to_rpc,
};

/// A Remap bdev, from the first moment of its creation on.
enum Entry {
    /// Being made; `removed` says that the base or the spare has gone meanwhile. Others wait for how it ends.
    Creating { removed: bool, others: Vec<oneshot::Sender<()>> },
    /// Registered.
    Online(BdevHandle<Remap>),
}

type Entries = BTreeMap<String, Entry>;

static SETS: AppCell<RefCell<Entries>> = AppCell::new(RefCell::new(Entries::new()));

fn with_sets<R: Default>(f: impl FnOnce(&mut Entries) -> R) -> R {
    SETS.with(|sets| f(&mut sets.borrow_mut())).unwrap_or_default()
}

/// The parameters of a creation.
pub struct Creation {
    /// Names of the three bdevs.
    pub names: Names,
    /// UUID of the set, and of the Remap bdev.
    pub uuid: Option<Uuid>,
    /// What to do with an unformatted spare.
    pub format: FormatPolicy,
    /// Which errors count; media errors unless told otherwise.
    pub remap_on: Option<RemapOn>,
    /// Blocks that may be relocated within 60 s.
    pub storm_limit: Option<u64>,
    /// The base, if it is open and claimed already.
    pub base: Option<Desc>,
}

/// The storm limit, unless told otherwise.
const STORM_LIMIT: u64 = 4096;

/// The Remap bdev called `name`.
pub fn find(name: &str) -> Result<BdevHandle<Remap>, Error> {
    let online = with_sets(|sets| match sets.get(name) {
        Some(Entry::Online(device)) => Some(device.clone()),
        _ => None,
    });
    online.ok_or_else(|| Error::new(Errno::NODEV, format!("name: there is no Remap bdev called {name}")))
}

/// All Remap bdevs, by name.
pub fn all() -> Vec<BdevHandle<Remap>> {
    with_sets(|sets| {
        let online = |entry: &Entry| match entry {
            Entry::Online(device) => Some(device.clone()),
            Entry::Creating { .. } => None,
        };
        sets.values().filter_map(online).collect()
    })
}

/// The Remap bdev `name` has been destructed.
pub fn gone(name: &str) {
    with_sets(|sets| sets.remove(name));
    log::info!("{name}: deleted");
}

/// Makes a Remap bdev: claims both devices, loads or formats the set, registers. The same call on an existing set
/// succeeds, and its options are taken over. On failure nothing has changed, unless the error says so.
pub async fn create(creation: Creation) -> Result<(), Error> {
    let name = creation.names.name.clone();
    if !(1..=NAME_MAX).contains(&name.len()) {
        return Err(Error::invalid("name", format!("has {} bytes; 1 to {NAME_MAX} are allowed", name.len())));
    }
    // Somebody else may be making it, as auto-assembly does: then that is waited for.
    while let Some(other) = with_sets(|sets| match sets.get_mut(&name) {
        Some(Entry::Creating { others, .. }) => {
            let (ended, other) = oneshot::channel();
            others.push(ended);
            Some(other)
        }
        _ => None,
    }) {
        // An error means that it has ended, too.
        let _ = other.await;
    }
    if let Ok(existing) = find(&name) {
        return agree(&existing, &creation);
    }
    if bdev_exists(&name) {
        return Err(Error::new(Errno::EXIST, format!("name: a bdev called {name} exists already")));
    }
    let creating = Entry::Creating { removed: false, others: Vec::new() };
    with_sets(|sets| sets.insert(name.clone(), creating).is_some());
    let made = make(creation).await;
    let removed = with_sets(|sets| match (sets.remove(&name), &made) {
        (Some(Entry::Creating { removed, .. }), Ok(device)) => {
            sets.insert(name.clone(), Entry::Online(device.clone()));
            removed
        }
        _ => false,
    });
    let device = made.inspect_err(|error| log::warn!("{name}: not created: {error}"))?;
    if removed {
        let _ = device.unregister().await;
        let why = format!("name: {name} was not made, as its base or spare was removed meanwhile");
        return Err(Error::new(Errno::NODEV, why));
    }
    assembly::online(&device.names.spare_bdev);
    Ok(())
}

/// Whether `creation` asks for what `existing` is; takes its options over.
fn agree(existing: &Remap, creation: &Creation) -> Result<(), Error> {
    let Names { name, base_bdev, spare_bdev } = &existing.names;
    let resolved = |name: &str| Desc::open(name, |_| ()).map(|desc| desc.info().name);
    let same = resolved(&creation.names.base_bdev).as_ref() == Ok(base_bdev)
        && resolved(&creation.names.spare_bdev).as_ref() == Ok(spare_bdev)
        && creation.uuid.is_none_or(|uuid| existing.engine().is_some_and(|engine| engine.set_uuid() == uuid));
    if !same {
        let why = format!(
            "name: {name} exists already, on base_bdev {base_bdev} and spare_bdev {spare_bdev}; it was left as it is"
        );
        return Err(Error::new(Errno::EXIST, why));
    }
    if let Some(on) = creation.remap_on {
        existing.set_remap_on(on);
    }
    if let (Some(limit), Some(engine)) = (creation.storm_limit, existing.engine()) {
        engine.set_storm_limit(limit);
    }
    Ok(())
}

async fn make(creation: Creation) -> Result<BdevHandle<Remap>, Error> {
    let Creation { names, uuid, format, remap_on, storm_limit, base: kept } = creation;
    let base = match &kept {
        Some(base) => base.clone(),
        None => open("base_bdev", &names.base_bdev, &names.name)?,
    };
    let spare = open("spare_bdev", &names.spare_bdev, &names.name)?;
    let (base_info, spare_info) = (base.info(), spare.info());
    check(&base_info, &spare_info)?;
    if kept.is_none() {
        assembly::release_base(&base_info.name);
        claim("base_bdev", &base)?;
    }
    if spare_info.write_cache && !spare.supports(IoKind::Flush) {
        let why = "has a volatile cache but takes no FLUSH, so that nothing on it could be made durable";
        return Err(Error::invalid("spare_bdev", format!("{} {why}", spare_info.name)));
    }
    claim("spare_bdev", &spare)?;
    for (parameter, desc) in [("base_bdev", &base), ("spare_bdev", &spare)] {
        if !desc.supports(IoKind::Flush) {
            let Names { name, .. } = &names;
            log::warn!("{name}: {parameter} {desc:?} takes no FLUSH: it alone decides what survives a loss of power");
        }
    }

    let params = OpenParams {
        name: names.name.clone(),
        set_uuid: uuid,
        fresh_set_uuid: Uuid::new_v4(),
        // By which auto-assembly knows it again.
        fresh_spare_id: spare_info.uuid,
        base_uuid: base_info.uuid,
        base_blocks: base_info.blocks,
        md_size: base_info.md_size,
        format,
        storm_limit: storm_limit.unwrap_or(STORM_LIMIT),
        host_id: Uuid::nil(),
        take_over: false,
        stated_end: None,
    };
    let (device, threads) = (Spare::new(&spare, &spare_info).map_err(failed("spare_bdev"))?, Threads::default());
    let engine = Engine::open(device.clone(), threads.clone(), params)
        .await
        .map_err(|error| to_rpc(format_args!("spare_bdev {}", spare_info.name), &error))?;

    let properties = Properties {
        name: names.name.clone(),
        product: "Remap disk",
        uuid: engine.set_uuid(),
        blocks: base_info.blocks,
        write_cache: base_info.write_cache || spare_info.write_cache,
    };
    let names = Names { base_bdev: base_info.name, spare_bdev: spare_info.name, ..names };
    let status = engine.status();
    let below = Below { base: base.clone(), spare: spare.clone() };
    let remap = Remap::new(names.clone(), engine, device, below, remap_on.unwrap_or(RemapOn::Media))
        .ok_or_else(|| Error::new(Errno::INVAL, "not on an SPDK thread"))?;
    let handle =
        BdevHandle::register(remap, properties, &[&base, &spare]).map_err(failed("the bdev was not registered"))?;
    threads.watch(handle.downgrade());
    let Names { name, base_bdev, spare_bdev } = names;
    log::info!(
        "{name}: {:?} on base {base_bdev} and spare {spare_bdev}: {} blocks remapped, {} pending, {} lost, {} of {} spare blocks free",
        status.state,
        status.remapped,
        status.pending,
        status.lost,
        status.spare.free,
        status.spare.total,
    );
    Ok(handle)
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(errno, format!("{what}: {errno}"))
}

/// Opens a bdev; when it is removed, so is the Remap bdev `owner`.
pub fn open(parameter: &'static str, name: &str, owner: &str) -> Result<Desc, Error> {
    let owner = owner.to_owned();
    let opened = Desc::open(name, move |event| match event {
        Event::Remove => below_removed(&owner, parameter),
        Event::Resize => log::warn!("{owner}: {parameter} was resized; the size it had is still used"),
        Event::Other => (),
    });
    opened.map_err(|errno| match errno {
        Errno::NODEV => Error::new(errno, format!("{parameter}: there is no bdev called {name}")),
        _ => Error::new(errno, format!("{parameter}: {name} cannot be opened: {errno}")),
    })
}

fn below_removed(owner: &str, parameter: &str) {
    let device = with_sets(|sets| match sets.get_mut(owner) {
        Some(Entry::Online(device)) => Some(device.clone()),
        Some(Entry::Creating { removed, .. }) => {
            *removed = true;
            None
        }
        None => None,
    });
    if parameter == "base_bdev" {
        assembly::base_removed(owner);
    }
    let Some(device) = device else { return };
    log::warn!("{owner}: its {parameter} is removed, and so it is removed too; what was remapped is safe on the spare");
    let owner = owner.to_owned();
    thread::spawn(async move {
        match device.unregister().await {
            // The spare may still be there, and wait for the base to come back.
            Ok(()) => assembly::examine(device.names.spare_bdev.clone()).await,
            // Both devices may go at once: the second finds the removal under way.
            Err(Errno::BUSY) => {}
            Err(errno) => log::error!("{owner}: {errno}"),
        }
    });
}

fn check(base: &BdevInfo, spare: &BdevInfo) -> Result<(), Error> {
    if base.name == spare.name {
        return Err(Error::invalid(
            "spare_bdev",
            format!("{} is the base; the spare must be another bdev", spare.name),
        ));
    }
    for (parameter, info) in [("base_bdev", base), ("spare_bdev", spare)] {
        let BdevInfo { name, .. } = info;
        let unfit = if info.protected {
            "has protection information (DIF), which this version does not remap"
        } else if info.md_interleaved {
            "has metadata between its blocks' data, which this version does not remap"
        } else if info.zoned {
            "is a zoned device, whose blocks cannot be remapped"
        } else if info.write_unit > 1 {
            "must be written in units of several blocks, which this version does not remap"
        } else {
            continue;
        };
        return Err(Error::invalid(parameter, format!("{name} {unfit}")));
    }
    if base.block_size != spare.block_size {
        let (a, b) = (base.block_size, spare.block_size);
        let why = format!("{} has blocks of {b} bytes, but the base {} has blocks of {a}", spare.name, base.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    if base.md_size != spare.md_size {
        let (a, b) = (base.md_size, spare.md_size);
        let why = format!("{} has {b} bytes of metadata a block, but the base {} has {a}", spare.name, base.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    Ok(())
}

/// Claims a bdev for this module.
pub fn claim(parameter: &str, desc: &Desc) -> Result<(), Error> {
    desc.claim(&crate::MODULE).map_err(|errno| {
        let name = desc.info().name;
        Error::new(errno, format!("{parameter}: {name} is in use or claimed by another: free it first ({errno})"))
    })
}

/// Removes a Remap bdev; with `wipe`, its spare forgets the set.
pub async fn delete(name: &str, wipe: bool, force: bool) -> Result<(), Error> {
    let device = find(name)?;
    if wipe {
        let status = device.engine().map(|engine| engine.status());
        let remapped = status.map_or(0, |status| status.remapped + status.lost);
        if remapped > 0 && !force {
            let why = format!(
                "wipe: {remapped} blocks of {name} live on its spare and would be lost; nothing was changed; set force to lose them"
            );
            return Err(Error::new(Errno::BUSY, why));
        }
        device.wipe_at_end(Some(force));
    }
    device.unregister().await.map_err(|errno| {
        // The wish goes with the call that failed: a later removal must not wipe.
        device.wipe_at_end(None);
        Error::new(errno, format!("name: {name} was not deleted: {errno}"))
    })?;
    match device.wipe_failure() {
        None => Ok(()),
        Some(error) => Err(to_rpc(format_args!("{name} was deleted, but its spare was not wiped"), &error)),
    }
}

/// Reloads the set from its spare, with all I/O held back.
pub async fn restore(name: &str, dry_run: bool) -> Result<remap_core::RestoreReport, Error> {
    let device = find(name)?;
    let engine = Rc::clone(device.engine().ok_or_else(|| Error::new(Errno::NODEV, "not the owner thread"))?);
    let failed = |error: remap_core::Error| to_rpc(name, &error);
    if dry_run {
        return engine.restore(true).await.map_err(failed);
    }
    let held = |errno| Error::new(errno, format!("{name}: I/O could not be held back, nothing was changed: {errno}"));
    device.quiesce().await.map_err(held)?;
    let report = engine.restore(false).await.map_err(failed);
    let resumed = device.unquiesce().await;
    resumed.map_err(|errno| Error::new(errno, format!("{name}: I/O could not be let go on: {errno}")))?;
    report
}
