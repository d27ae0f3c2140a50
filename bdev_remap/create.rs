//! The making of a Remap bdev, for an operator and for assembly. App thread.
//!
//! What can be wrong is looked at first, then the members are claimed, then the set is opened, which may format the spare, and
//! last the bdev is registered. On failure everything is as it was, unless the error says otherwise.

use std::rc::Rc;

use remap_core::{
    Engine, FormatPolicy, OpenParams, RemapOn, engine,
    format::{SpareState, Superblock, superblock::NAME_MAX},
};
use spdk::{BdevHandle, BdevInfo, Desc, Errno, Event, IoKind, Properties, bdev_exists, rpc::Error, wait_for_examine};
use uuid::Uuid;

use crate::{
    device::{Remap, Tuning},
    disk::Disk,
    members,
    options::options,
    registry::{self, Begun},
    runtime::Threads,
    scrub,
    set::{Identity, Member, Tag},
    status::to_rpc,
    waiting,
};

/// The names of a set.
pub struct Names {
    /// The Remap bdev.
    pub name: String,
    /// The base.
    pub base_bdev: String,
    /// The spare.
    pub spare_bdev: String,
}

/// The parameters of a creation.
pub struct Creation {
    /// Names of the three bdevs.
    pub names: Names,
    /// UUID of the set, and of the Remap bdev.
    pub uuid: Option<Uuid>,
    /// What to do with an unformatted spare.
    pub format: FormatPolicy,
    /// How it is to work.
    pub tuning: Tuning,
    /// Who wants it.
    pub by: By,
}

/// Who wants a set to come online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// An operator, who may also take it from another host.
    Operator { take_over: bool },
    /// Assembly, while bdevs that have appeared are examined.
    Assembly,
}

/// The storm limit, unless told otherwise.
const STORM_LIMIT: u64 = 4096;

/// Makes a Remap bdev. The same call on an existing set succeeds, and its options are taken over.
pub async fn create(creation: Creation) -> Result<(), Error> {
    let name = &creation.names.name;
    if !(1..=NAME_MAX).contains(&name.len()) {
        return Err(Error::invalid("name", format!("has {} bytes; 1 to {NAME_MAX} are allowed", name.len())));
    }
    if name.contains('\0') {
        return Err(Error::invalid("name", "must not hold a zero character"));
    }
    if creation.by != By::Assembly {
        // Other modules have bdevs open that they look at, as long as they do.
        let waited = wait_for_examine().await;
        waited.map_err(|errno| Error::new(errno, format!("bdevs could not be waited for: {errno}")))?;
    }
    let (plan, tag, kept) = loop {
        let plan = Plan::of(&creation).await?;
        match registry::begin_opening(&plan.identity) {
            Begun::Opening(tag, base) => break (plan, tag, base),
            Begun::Later(_) if creation.by == By::Assembly => {
                let why = format!("{name}: somebody else is opening or closing it");
                return Err(Error::new(Errno::BUSY, why));
            }
            // An error means that it has ended, too.
            Begun::Later(later) => drop(later.await),
            Begun::Online(existing) => return agree(&existing, &creation, &plan),
            Begun::NameTaken(holder) => return Err(exists(&holder)),
            Begun::Nowhere => return Err(Error::new(Errno::INVAL, "sets are made on the app thread only")),
        }
    };
    let made = make(&creation, &plan, tag, kept).await;
    if let Some(engine) = made.as_ref().ok().and_then(|remap| remap.engine())
        && let Some(superblock) = engine.superblock().await
    {
        registry::learn(tag, &superblock);
    }
    let lost = registry::opened(tag, made.as_ref().ok().cloned());
    if let Err(error) = made {
        log::warn!("{name}: not created: {error}");
        // It may have been taken from another set that waits.
        waiting::keep_base(plan.base.uuid);
        return Err(error);
    }
    if let Some((member, bdev)) = lost {
        // It came too early. The removal of the set is not waited for: it may have to wait for whoever waits for this.
        members::tell(tag, member, &bdev, Event::Remove);
        let why = format!("{}: {bdev} was removed meanwhile, and so {name} is, too", member.parameter());
        return Err(Error::new(Errno::NODEV, why));
    }
    Ok(())
}

/// What a creation comes to, as far as a look at the devices tells.
struct Plan {
    identity: Identity,
    base: BdevInfo,
    spare: BdevInfo,
    /// Where a crash has stopped a migration to this spare: the one from which it was.
    moved_from: Option<Uuid>,
}

impl Plan {
    /// Looks at both devices, and whose spare it is.
    async fn of(creation: &Creation) -> Result<Plan, Error> {
        let Names { name, base_bdev, spare_bdev } = &creation.names;
        let base = members::look_at(Member::Base, base_bdev)?.info();
        let desc = members::look_at(Member::Spare, spare_bdev)?;
        let spare = desc.info();
        members::check(&base, &desc)?;
        let superblock = members::identify(&desc, &spare).await?;
        let from = |of: &Superblock| of.other.filter(|_| of.state == SpareState::MigratingIn).map(|other| other.id);
        let moved_from = superblock.as_ref().and_then(from);
        let identity = match &superblock {
            Some(superblock) => Identity::from(superblock),
            None => Identity {
                name: name.clone(),
                uuid: creation.uuid.unwrap_or_else(Uuid::new_v4),
                base_uuid: base.uuid,
                // By which assembly knows it again.
                spare_uuid: spare.uuid,
                generation: 0,
            },
        };
        if let (Some(known), Some(superblock)) = (registry::identity(identity.uuid), &superblock)
            && known.outdates(superblock)
        {
            let why = format!(
                "spare_bdev {}: it was replaced by the spare with UUID {} while it was away, and is outdated (generation {}; {} is in force); nothing was changed; if that one is gone for good, bdev_remap_forget {} first, which loses what is on it",
                spare.name, known.spare_uuid, superblock.generation, known.generation, known.uuid
            );
            return Err(Error::new(Errno::STALE, why));
        }
        if let Some(expected) = creation.uuid
            && expected != identity.uuid
        {
            let error = remap_core::Error::SetDiffers { found: identity.uuid, expected };
            return Err(to_rpc(format_args!("spare_bdev {}", spare.name), &error));
        }
        Ok(Plan { identity, base, spare, moved_from })
    }
}

fn exists(existing: &Remap) -> Error {
    let Remap { name, base_bdev, .. } = existing;
    let spare_bdev = existing.spare_bdev();
    let why = format!(
        "name: {name} exists already, on base_bdev {base_bdev} and spare_bdev {spare_bdev}; it was left as it is"
    );
    Error::new(Errno::EXIST, why)
}

/// Whether `creation` asks for what `existing` is; takes its options over.
fn agree(existing: &Remap, creation: &Creation, plan: &Plan) -> Result<(), Error> {
    let Remap { name, base_bdev, .. } = existing;
    if creation.names.name != *name || plan.base.name != *base_bdev || plan.spare.name != existing.spare_bdev() {
        return Err(exists(existing));
    }
    let Tuning { remap_on, storm_limit } = creation.tuning;
    if let Some(on) = remap_on {
        existing.set_remap_on(on);
    }
    if let (Some(limit), Some(engine)) = (storm_limit, existing.engine()) {
        engine.set_storm_limit(limit);
    }
    Ok(())
}

/// Opens and claims both members. `kept` is the base, if the set had it already.
async fn take(creation: &Creation, plan: &Plan, tag: Tag, kept: Option<Desc>) -> Result<(Desc, Desc), Error> {
    let spare = members::open(Member::Spare, &plan.spare.name, tag)?;
    let base = match kept.filter(|base| base.info().name == plan.base.name) {
        Some(base) => base,
        None => {
            let base = members::open(Member::Base, &plan.base.name, tag)?;
            waiting::release_base(plan.base.uuid);
            match creation.by {
                By::Operator { .. } => members::claim(Member::Base, &base)?,
                By::Assembly => members::claim_in_the_end(Member::Base, &base).await?,
            }
            base
        }
    };
    match creation.by {
        By::Operator { .. } => members::claim(Member::Spare, &spare)?,
        By::Assembly => members::claim_in_the_end(Member::Spare, &spare).await?,
    }
    Ok((base, spare))
}

async fn make(creation: &Creation, plan: &Plan, tag: Tag, kept: Option<Desc>) -> Result<BdevHandle<Remap>, Error> {
    let Plan { identity, base, spare, .. } = plan;
    let name = &creation.names.name;
    for (parameter, taken) in [("name", name), ("uuid", &identity.uuid.to_string())] {
        if bdev_exists(taken) {
            let why = format!("{parameter}: a bdev called {taken} exists already; nothing was changed");
            return Err(Error::new(Errno::EXIST, why));
        }
    }
    let (base_desc, spare_desc) = take(creation, plan, tag, kept).await?;
    for (member, desc) in [(Member::Base, &base_desc), (Member::Spare, &spare_desc)] {
        if !desc.supports(IoKind::Flush) {
            let member = member.parameter();
            log::warn!("{name}: {member} {desc:?} takes no FLUSH: it alone decides what survives a loss of power");
        }
    }

    let params = OpenParams {
        name: name.clone(),
        set_uuid: Some(identity.uuid),
        fresh_set_uuid: identity.uuid,
        fresh_spare_id: identity.spare_uuid,
        base_uuid: base.uuid,
        base_blocks: base.blocks,
        md_size: base.md_size,
        format: creation.format,
        storm_limit: creation.tuning.storm_limit.unwrap_or(STORM_LIMIT),
        host_id: options().host_id,
        take_over: matches!(creation.by, By::Operator { take_over: true }),
        given_up: given_up(plan).await?,
        stated_end: None,
    };
    let on_spare = format!("spare_bdev {}", spare.name);
    let base_disk = Disk::new(&base_desc, base).map_err(failed("base_bdev"))?;
    let device = Disk::new(&spare_desc, spare).map_err(failed(&on_spare))?;
    let threads = Threads::default();
    let engine = Engine::open(device.clone(), threads.clone(), params).await;
    let engine = engine.map_err(|error| to_rpc(&on_spare, &error))?;

    let properties = Properties {
        name: name.clone(),
        product: "Remap disk",
        uuid: engine.set_uuid(),
        blocks: base.blocks,
        write_cache: base.write_cache || spare.write_cache,
    };
    let status = engine.status();
    let remap_on = creation.tuning.remap_on.unwrap_or(RemapOn::Media);
    let opened = Rc::clone(&engine);
    let remap =
        Remap::new(name.clone(), engine, (base_disk, device), (base_desc.clone(), spare_desc.clone()), remap_on);
    let remap = remap.ok_or_else(|| Error::new(Errno::INVAL, "not on an SPDK thread"))?;
    let handle = match BdevHandle::register(remap, properties, &[&base_desc, &spare_desc]) {
        Ok(handle) => handle,
        Err(errno) => {
            // As in `Remap::give_up`: before the devices are.
            opened.close().await;
            return Err(failed("name: the bdev was not registered")(errno));
        }
    };
    threads.watch(handle.downgrade());
    log::info!(
        "{name}: {:?} on base {} and spare {}: {} blocks remapped, {} pending, {} lost, {} of {} spare blocks free",
        status.state,
        base.name,
        spare.name,
        status.remapped,
        status.pending,
        status.lost,
        status.spare.free,
        status.spare.total,
    );
    scrub::resume(&handle);
    Ok(handle)
}

/// Where a crash has stopped a migration to the spare after the old one was given up for it: makes sure of that, if the old one is
/// there. Returns the identity of the old one.
async fn given_up(plan: &Plan) -> Result<Option<Uuid>, Error> {
    let Some(old) = plan.moved_from else { return Ok(None) };
    // Without it the new one is refused, with the identity of this one.
    let Ok(old) = members::look_at(Member::Spare, &old.to_string()) else { return Ok(None) };
    members::claim(Member::Spare, &old)?;
    let info = old.info();
    let what = format!("spare_bdev {}: the spare {}, from which it takes over", plan.spare.name, info.name);
    let disk = Disk::new(&old, &info).map_err(failed(&what))?;
    match engine::give_up_for(disk, Threads::default(), plan.identity.spare_uuid).await {
        Ok(id) => Ok(Some(id)),
        // It is in force itself.
        Err(remap_core::Error::NotGivenUp { .. }) => Ok(None),
        Err(error) => Err(to_rpc(what, &error)),
    }
}

fn failed(what: &str) -> impl Fn(Errno) -> Error {
    move |errno| Error::new(errno, format!("{what}: {errno}"))
}
