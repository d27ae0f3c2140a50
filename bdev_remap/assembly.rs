//! Auto-assembly: a spare that appears tells which base it belongs to, and a base that appears may be awaited.
//!
//! Whatever the order in which the two come, at boot or later, the set comes online when both are there and nothing speaks
//! against it; [`crate::waiting`] says what does. App thread.

use remap_core::{
    FormatPolicy,
    format::{SpareState, Superblock, superblock::NAME_MAX},
};
use spdk::{BdevInfo, Desc, Errno, bdev_exists, rpc::Error};
use uuid::Uuid;

use crate::{
    create::{By, Creation, Names, create},
    members, registry,
    set::{FoundSpare, Identity, Member, Set, State},
    spareless, waiting,
};

/// A bdev has appeared: if it is the base of a set that waits for it, nobody else may have it.
pub fn appeared(bdev: &BdevInfo) {
    waiting::keep_base(bdev.uuid);
}

/// A bdev has appeared, and may be read: is it a base that is awaited, or a spare?
pub async fn examine(bdev: String) {
    let Ok(desc) = Desc::open(&bdev, |_| ()) else { return };
    let info = desc.info();
    let of_base = sets_of(|set| set.identity.base_uuid == info.uuid);
    for set in &of_base {
        assemble(*set).await;
    }
    if of_base.is_empty()
        && let Some(superblock) = superblock_of_itself(&desc, &info).await
    {
        let set = superblock.set_uuid;
        found(superblock, &info.name).await;
        assemble(set).await;
    }
}

fn sets_of(wanted: impl Fn(&Set) -> bool) -> Vec<Uuid> {
    registry::with(|sets| sets.all().filter(|set| wanted(set)).map(|set| set.identity.uuid).collect())
}

/// The superblock of a spare that is in force, or may be after a migration that a crash has stopped. It is known by its own UUID, so
/// that a bdev below or above it, with the same content, is not taken for it.
async fn superblock_of_itself(desc: &Desc, info: &BdevInfo) -> Option<Superblock> {
    let superblock = members::identify(desc, info).await.unwrap_or_else(|error| {
        log::warn!("{}", error.message);
        None
    })?;
    (superblock.spare_id == info.uuid && superblock.state != SpareState::Retired).then_some(superblock)
}

/// A spare has been found.
async fn found(superblock: Superblock, bdev: &str) {
    let identity = Identity::from(&superblock);
    registry::opening_over(identity.uuid).await;
    if let Some(tag) = registry::online_as(identity.uuid) {
        return spareless::appeared(tag, &superblock, bdev).await;
    }
    let tag = registry::with(|sets| {
        let set = sets.know(&identity);
        set.waiting().is_some_and(|waiting| waiting.spares.iter().all(|spare| spare.bdev != bdev)).then(|| set.tag())
    });
    let Some(tag) = tag else { return };
    let watch = members::open(Member::Spare, bdev, tag);
    let _not_kept = registry::with(|sets| {
        let watch = watch.ok()?;
        let Some(Set { identity: known, state: State::Waiting(waiting), .. }) = sets.tagged(tag) else {
            return Some((Some(watch), None));
        };
        let Identity { name, base_uuid, .. } = &identity;
        log::info!("{name}: spare {bdev} found, it belongs to the base with UUID {base_uuid}");
        let mut kept = None;
        // The spare knows better than who expected it, unless it is outdated.
        if !known.outdates(&superblock) {
            if known.base_uuid != *base_uuid {
                kept = waiting.base.take();
            }
            if known.name != identity.name {
                waiting.events = None;
            }
            let generation = identity.generation.max(known.generation);
            *known = Identity { generation, ..identity };
        }
        waiting.spares.push(FoundSpare { bdev: bdev.to_owned(), superblock, _watch: watch });
        Some((None, kept))
    });
    waiting::release_unentitled();
    waiting::keep_base(base_of(tag.set));
}

fn base_of(set: Uuid) -> Uuid {
    registry::with(|sets| sets.get(set).map(|set| set.identity.base_uuid)).unwrap_or_default()
}

/// Brings the waiting set with this UUID online, if nothing stands against it.
async fn assemble(set: Uuid) {
    registry::opening_over(set).await;
    let Some(ready) = waiting::ready(set) else { return };
    let Ok(base) = members::look_at(Member::Base, &ready.base_uuid.to_string()) else { return };
    let names = Names { name: ready.name, base_bdev: base.info().name, spare_bdev: ready.spare_bdev };
    drop(base);
    let creation =
        Creation { names, uuid: Some(set), format: FormatPolicy::Never, tuning: ready.tuning, by: By::Assembly };
    if let Err(error) = create(creation).await {
        return waiting::refused(set, error.message);
    }
    for bdev in ready.outdated {
        // It is to say so.
        Box::pin(examine(bdev)).await;
    }
}

/// Whether a bdev of a set that is expected is still to come: then the set comes online with it, as `creation` wants it.
pub fn comes_later(creation: &Creation) -> bool {
    let Creation { names: Names { name, base_bdev, spare_bdev }, uuid: Some(uuid), tuning, .. } = creation else {
        return false;
    };
    let Some(missing) = [base_bdev, spare_bdev].into_iter().find(|bdev| !bdev_exists(bdev)) else { return false };
    let expected = registry::with(|sets| {
        let set = sets.get_mut(*uuid)?;
        let waits = set.expected && set.waiting().is_some() && set.identity.name == *name;
        waits.then(|| set.tuning = *tuning)
    });
    if expected.is_some() {
        log::info!("{name}: waits for {missing}");
    }
    expected.is_some()
}

/// Keeps the base of a set from others from the moment it appears, before anybody can find on it what belongs to the set.
pub async fn expect(identity: Identity) -> Result<(), Error> {
    let Identity { name, uuid, base_uuid, spare_uuid, .. } = &identity;
    if !(1..=NAME_MAX).contains(&name.len()) {
        return Err(Error::invalid("name", format!("has {} bytes; 1 to {NAME_MAX} are allowed", name.len())));
    }
    for (parameter, value) in [("uuid", uuid), ("base_uuid", base_uuid), ("spare_uuid", spare_uuid)] {
        if value.is_nil() {
            return Err(Error::invalid(parameter, "must not be nil"));
        }
    }
    if base_uuid == spare_uuid {
        return Err(Error::invalid("spare_uuid", "is that of the base; the spare is another bdev"));
    }
    let (set, base) = (*uuid, *base_uuid);
    registry::settled(set).await;
    let known = registry::with(|sets| {
        let set = sets.know(&identity);
        // Its spares know better which of them it is on: it may have moved.
        let spare_uuid = if set.found() { set.identity.spare_uuid } else { identity.spare_uuid };
        let generation = set.identity.generation;
        if set.identity != (Identity { spare_uuid, generation, ..identity.clone() }) {
            return Some(set.identity.clone());
        }
        set.identity.generation = generation.max(identity.generation);
        set.expected = true;
        None
    });
    if let Some(Identity { name, base_uuid, spare_uuid, .. }) = known {
        let why = format!(
            "uuid: set {set} is known as {name}, on the base {base_uuid} and the spare {spare_uuid}; nothing was changed; bdev_remap_forget gives it up"
        );
        return Err(Error::new(Errno::EXIST, why));
    }
    waiting::keep_base(base);
    // The spare may have been there before, and not have been looked at.
    let spare = members::look_at(Member::Spare, &identity.spare_uuid.to_string()).map(|spare| spare.info().name);
    match spare {
        Ok(spare) => examine(spare).await,
        Err(_) => assemble(set).await,
    }
    Ok(())
}

/// Gives up a waiting set, and what it claims. It is met again when its spare appears anew.
pub fn forget(uuid: Uuid) -> Result<(), Error> {
    let given_up = registry::with(|sets| match sets.get(uuid)?.waiting() {
        Some(_) => sets.remove(uuid).map(Ok),
        None => sets.get(uuid).map(|set| Err(set.identity.name.clone())),
    });
    match given_up {
        Some(Ok(set)) => {
            log::info!("{}: set {uuid} is given up", set.identity.name);
            Ok(())
        }
        Some(Err(name)) => {
            let why = format!("uuid: set {uuid} is in use as {name}; nothing was changed; bdev_remap_delete ends it");
            Err(Error::new(Errno::BUSY, why))
        }
        None => Err(Error::new(Errno::NODEV, format!("uuid: no set {uuid} is waited for"))),
    }
}

/// The options have changed: what waits may come online now, or has no right to its base any more.
pub async fn reconsider() {
    waiting::release_unentitled();
    for set in sets_of(|set| set.waiting().is_some()) {
        waiting::keep_base(base_of(set));
        assemble(set).await;
    }
}

/// A set was closed as it lost a member: it waits for that, with its base kept and its spare watched, where they are there.
pub async fn await_return(set: &Identity) {
    waiting::keep_base(set.base_uuid);
    let spare = members::look_at(Member::Spare, &set.spare_uuid.to_string()).map(|spare| spare.info().name);
    if let Ok(spare) = spare {
        examine(spare).await;
    }
}
