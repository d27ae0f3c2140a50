//! `bdev_remap_migrate`: a job that has the set move to another spare. App thread.

use std::rc::Rc;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use remap_core::{Job, JobKind, JobOutcome, MigrateParams, Stopped};
use spdk::{BdevHandle, BdevInfo, Desc, Errno, rpc::Error, wait_for_examine};

use crate::{
    below::SpareBelow,
    device::Remap,
    disk::Disk,
    members,
    owner::RemapEngine,
    registry,
    set::{Member, Tag},
    status::to_rpc,
};

/// What is wanted of a migration.
pub struct Wish {
    /// The bdev of the new spare.
    pub spare_bdev: String,
    /// Whether it is formatted although it is not empty. A valid superblock is left alone all the same.
    pub force: bool,
    /// 10^6 bytes a second at most; None: as fast as it goes.
    pub max_mbps: Option<u32>,
}

/// Begins a migration. When this returns the new spare is formatted, and what is written goes there, too.
pub async fn start(name: &str, wish: Wish) -> Result<(), Error> {
    // Other modules have bdevs open that they look at, as long as they do.
    let waited = wait_for_examine().await;
    waited.map_err(|errno| Error::new(errno, format!("bdevs could not be waited for: {errno}")))?;
    let (tag, device) = registry::find(name)?;
    let (engine, _) = device.for_moves().ok_or_else(not_here)?;
    engine.jobs().may_begin(JobKind::Migrate).map_err(|error| to_rpc(name, &error))?;
    // Nothing was awaited since it was found.
    let desc = take(&device, &wish.spare_bdev, tag)?;
    let what = format!("spare_bdev {}", wish.spare_bdev);
    let info = desc.info();
    let disk = Disk::new(&desc, &info).map_err(|errno| Error::new(errno, format!("{what}: {errno}")))?;
    let (tell_ready, ready) = oneshot::channel();
    let migration = Migration { tag, device, engine: Rc::clone(&engine), desc, disk, info };
    let begun = engine.jobs().begin(JobKind::Migrate, |job| migration.run(wish, job, tell_ready));
    let begun = begun.map_err(|error| to_rpc(name, &error))?;
    // An error means that it has ended before, and why is what it ends with.
    let ended = match select(ready, Box::pin(begun.join())).await {
        Either::Left((Ok(()), _)) => return Ok(()),
        Either::Left((Err(oneshot::Canceled), ended)) => ended.await,
        Either::Right((ended, _)) => ended,
    };
    match ended {
        Ok(()) => Ok(()),
        Err(Stopped::Failed(error)) => Err(to_rpc(what, &error)),
        Err(Stopped::Cancelled) => {
            Err(Error::new(Errno::CANCELED, format!("{name}: migrate was cancelled; the old spare stays in force")))
        }
    }
}

/// Has the migration end soon; the old spare stays in force.
pub fn cancel(name: &str) -> Result<(), Error> {
    let (_, device) = registry::find(name)?;
    let (engine, _) = device.for_moves().ok_or_else(not_here)?;
    engine.jobs().cancel(JobKind::Migrate).map_err(|error| to_rpc(name, &error))
}

/// The spare of a set that is not in force is being removed: if all moves there, that ends.
pub fn spare_lost(device: &BdevHandle<Remap>) {
    let Some((engine, _)) = device.for_moves() else { return };
    // None runs any more where it is the old spare of one that is over.
    let _ = engine.jobs().fail(JobKind::Migrate, remap_core::Error::NewSpareRemoved);
}

/// Opens and claims the bdev to which all is to move, if it can be the spare of this set.
fn take(device: &Remap, spare_bdev: &str, tag: Tag) -> Result<Desc, Error> {
    let Remap { name, base_bdev, .. } = device;
    let desc = members::open(Member::Spare, spare_bdev, tag)?;
    let spare = desc.info();
    if spare.name == device.spare_bdev() {
        let why = format!("{} is the spare of {name} already; give another one", spare.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    let base = members::look_at(Member::Base, base_bdev)?.info();
    members::check(&base, &desc)?;
    if spare.write_cache && !device.write_cache {
        let why = format!(
            "{} has a volatile cache, and hosts of {name} were told that there is none, so that they do not flush; give one without",
            spare.name
        );
        return Err(Error::invalid("spare_bdev", why));
    }
    let (told, then) = (device.memory_domains_with(None), device.memory_domains_with(Some(&desc)));
    if !told.iter().all(|domain| then.contains(domain)) {
        let why = format!("{} takes no data in the memory domains that hosts of {name} were told of", spare.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    members::claim(Member::Spare, &desc)?;
    Ok(desc)
}

/// A migration, and the spare to which all moves.
struct Migration {
    tag: Tag,
    device: BdevHandle<Remap>,
    engine: Rc<RemapEngine>,
    desc: Desc,
    disk: Disk,
    info: BdevInfo,
}

impl Migration {
    async fn run(self, wish: Wish, job: Job, tell_ready: oneshot::Sender<()>) -> JobOutcome {
        let Migration { tag, device, engine, desc, disk, info } = self;
        let name = &device.name;
        let from = device.spare_bdev();
        let new = engine.prepare(disk.clone(), info.uuid, wish.force).await?;
        job.go_on()?;
        let slot = new.slot();
        let below = SpareBelow::new(desc, &new.layout());
        if let Err(errno) = Remap::attach(&device, slot, below, Some(disk)).await {
            log::warn!("{name}: a thread has no channel to spare {}: {errno}", info.name);
            Remap::detach(&device, slot).await;
            return Err(remap_core::Error::NoChannel.into());
        }
        log::info!("{name}: moves from spare {from} to spare {}", info.name);
        // Nobody may want to know.
        let _ = tell_ready.send(());
        let bytes_per_second = wish.max_mbps.map(|mbps| u64::from(mbps) * 1_000_000);
        let params = MigrateParams { on: device.remap_on(), bytes_per_second };
        let outcome = engine.migrate(new, params, &job).await;
        let in_force = engine.slot();
        Remap::detach(&device, in_force.other()).await;
        if in_force == slot {
            // At once: the set may be closed any moment, and then waits for this spare.
            registry::moved(tag, info.uuid);
            if let Some(superblock) = engine.superblock().await {
                registry::learn(tag, &superblock);
            }
            // It may have grown meanwhile.
            device.look_at_spare();
            log::info!("{name}: has moved from spare {from} to spare {}", info.name);
        }
        outcome
    }
}

fn not_here() -> Error {
    Error::new(Errno::NODEV, "not the owner thread")
}
