//! Sets that wait: what stands between each and its coming online, and the claims on their bases. App thread.
//!
//! What a set waits for is never noted, but read from what is there: so it is right whatever happens meanwhile, and the
//! decision and the sentence that status shows are the same.

use std::rc::Rc;

use remap_core::{
    Events, What,
    format::{SpareState, Superblock},
};
use serde_json::{Value, json};
use spdk::{BdevInfo, Desc, bdev_exists};
use uuid::Uuid;

use crate::{
    device::Tuning,
    members,
    options::{Options, options},
    registry::{self, Sets},
    runtime::Threads,
    set::{FoundSpare, Identity, Member, Set, State, Tag, Waiting},
};

/// What stands between a waiting set and its coming online by itself.
enum Obstacle<'a> {
    Spare,
    Spares(Vec<&'a FoundSpare>),
    /// The other one of a migration that a crash has stopped.
    OtherSpare(&'a FoundSpare),
    /// One that was replaced while it was away.
    Outdated(&'a FoundSpare),
    Host(Uuid),
    Manual,
    Base,
    /// Other sets that have the base, or lay claim to it.
    Rivals(Vec<&'a Set>),
    /// The one that has the name.
    Name(&'a Set),
    Refusal(&'a str),
}

/// Whether the set belongs to another host.
fn foreign(waiting: &Waiting, options: &Options) -> Option<Uuid> {
    let hosts = waiting.spares.iter().map(|spare| spare.superblock.host_id);
    let mut others = hosts.filter(|host| !host.is_nil() && !options.host_id.is_nil() && *host != options.host_id);
    others.next()
}

/// Whether a waiting set may claim its base, and stand against others that do.
fn entitled(set: &Set, waiting: &Waiting, options: &Options) -> bool {
    let found = options.auto_assemble && !waiting.spares.is_empty();
    (set.expected || found) && foreign(waiting, options).is_none()
}

/// Of spares that say that they are in force, the one that has replaced the others while these were away.
fn replaced_others<'a>(active: &[&'a FoundSpare]) -> Option<&'a FoundSpare> {
    let newest = active.iter().max_by_key(|spare| spare.superblock.generation)?;
    let Superblock { spare_id, generation, other, .. } = &newest.superblock;
    let is_outdated =
        |of: &Superblock| of.generation < *generation && other.is_some_and(|other| other.id == of.spare_id);
    let all = active.iter().all(|spare| spare.superblock.spare_id == *spare_id || is_outdated(&spare.superblock));
    // Two of the same name are as good as each other.
    let alone = active.iter().filter(|spare| spare.superblock.spare_id == *spare_id).count() == 1;
    (all && alone).then_some(*newest)
}

/// Which spare of those that were found is in force.
fn in_force<'a>(identity: &Identity, spares: &'a [FoundSpare]) -> Result<&'a FoundSpare, Obstacle<'a>> {
    let is_active = |of: &Superblock| of.state == SpareState::Active && !identity.outdates(of);
    let active: Vec<_> = spares.iter().filter(|spare| is_active(&spare.superblock)).collect();
    match active[..] {
        [one] => return Ok(one),
        [] => {}
        _ => return replaced_others(&active).ok_or(Obstacle::Spares(active)),
    }
    // A crash has stopped a migration after the old one was given up, and before the new one said that it is active.
    let given_up_for = |new: &Superblock, old: &Superblock| {
        old.state.ends() && old.other.is_some_and(|other| other.id == new.spare_id)
    };
    let successor = spares.iter().find(|new| {
        let filled = new.superblock.state == SpareState::MigratingIn;
        filled && spares.iter().any(|old| given_up_for(&new.superblock, &old.superblock))
    });
    successor.ok_or_else(|| match spares.first() {
        None => Obstacle::Spare,
        Some(spare) if identity.outdates(&spare.superblock) => Obstacle::Outdated(spare),
        Some(spare) => Obstacle::OtherSpare(spare),
    })
}

fn obstacle<'a>(sets: &'a Sets, set: &'a Set, waiting: &'a Waiting, options: &Options) -> Option<Obstacle<'a>> {
    if let Err(obstacle) = in_force(&set.identity, &waiting.spares) {
        return Some(obstacle);
    }
    if let Some(host) = foreign(waiting, options) {
        return Some(Obstacle::Host(host));
    }
    if !entitled(set, waiting, options) {
        return Some(Obstacle::Manual);
    }
    let Identity { base_uuid, name, uuid, .. } = &set.identity;
    if waiting.base.is_none() && !bdev_exists(&base_uuid.to_string()) {
        return Some(Obstacle::Base);
    }
    let claims = |other: &&Set| {
        let rival = other.waiting().is_none_or(|waiting| entitled(other, waiting, options));
        other.identity.base_uuid == *base_uuid && other.identity.uuid != *uuid && rival
    };
    let rivals: Vec<_> = sets.all().filter(claims).collect();
    if !rivals.is_empty() {
        return Some(Obstacle::Rivals(rivals));
    }
    if let Some(holder) = sets.named(name) {
        return Some(Obstacle::Name(holder));
    }
    waiting.refusal.as_deref().map(Obstacle::Refusal)
}

impl Obstacle<'_> {
    /// How many claim the base, if more than one does.
    fn claims(&self) -> Option<usize> {
        match self {
            Obstacle::Spares(spares) => Some(spares.len()),
            Obstacle::Rivals(rivals) => Some(rivals.len() + 1),
            _ => None,
        }
    }

    /// For the operator: what it is, and what to do.
    fn sentence(&self, set: &Set) -> String {
        let Identity { base_uuid, spare_uuid, name, generation, .. } = &set.identity;
        match self {
            Obstacle::Spare => format!("the spare with UUID {spare_uuid}"),
            Obstacle::Base => format!("the base with UUID {base_uuid}"),
            Obstacle::OtherSpare(FoundSpare { bdev, superblock, .. }) => {
                let other = superblock.other.map(|other| other.id).unwrap_or_default();
                match superblock.state {
                    SpareState::MigratingIn => format!(
                        "the spare with UUID {other}, from which it was moving to {bdev} ({}) when it was stopped",
                        superblock.spare_id
                    ),
                    _ => format!("the spare with UUID {other}, to which it has moved from {bdev}"),
                }
            }
            Obstacle::Outdated(FoundSpare {
                bdev, superblock: Superblock { spare_id, generation: found, .. }, ..
            }) => {
                format!(
                    "the spare with UUID {spare_uuid}: {bdev} ({spare_id}) was replaced while it was away, and is outdated (generation {found}; {generation} is in force); wipe it, or keep it away"
                )
            }
            Obstacle::Spares(spares) => {
                let spares: Vec<_> = spares.iter().map(|spare| said_by(spare)).collect();
                format!(
                    "bdev_remap_create with the right one of its spares, as there are several: {}",
                    spares.join(", ")
                )
            }
            Obstacle::Host(host) => format!(
                "its host: it belongs to {host}, this is {}; bdev_remap_create takes it over, once that host has let it go",
                options().host_id
            ),
            Obstacle::Manual => "bdev_remap_create, as auto_assemble is off".into(),
            Obstacle::Rivals(rivals) => match rivals.iter().find(|rival| rival.waiting().is_none()) {
                Some(user) => format!(
                    "its base, which set {} ({}) has; bdev_remap_forget gives this set up",
                    user.identity.uuid, user.identity.name
                ),
                None => {
                    let all: Vec<_> = std::iter::once(&set).chain(rivals).map(|set| claimant(set)).collect();
                    format!(
                        "a decision, as several sets claim the base with UUID {base_uuid}: {}; bdev_remap_create with the right spare decides, bdev_remap_forget gives one up",
                        all.join(", ")
                    )
                }
            },
            Obstacle::Name(holder) => {
                format!("the name {name}, which set {} has; delete that one, or forget this one", holder.identity.uuid)
            }
            Obstacle::Refusal(why) => (*why).to_owned(),
        }
    }
}

/// A claimant of a base, so that one can tell which is right.
fn claimant(set: &Set) -> String {
    let Identity { uuid, name, .. } = &set.identity;
    let spares: Vec<_> = set.waiting().iter().flat_map(|waiting| &waiting.spares).map(said_by).collect();
    let spares = if spares.is_empty() { "whose spare is not there".into() } else { spares.join(", ") };
    format!("{uuid} ({name}; {spares})")
}

fn said_by(spare: &FoundSpare) -> String {
    let FoundSpare { bdev, superblock, .. } = spare;
    format!("spare {bdev}, superblock {} of {} s since 1970", superblock.sequence, seconds(superblock.written_at))
}

fn seconds(micros: u64) -> u64 {
    micros / 1_000_000
}

/// What status says of the sets that are not online, or of those called `name`.
pub fn describe(name: Option<&str>) -> Vec<Value> {
    let options = options();
    registry::with(|sets| {
        let wanted = sets.all().filter(|set| name.is_none_or(|name| name == set.identity.name));
        let describe = |set: &Set| {
            let (state, waiting) = match &set.state {
                State::Waiting(waiting) => ("waiting", Some(waiting)),
                State::Opening { .. } => ("opening", None),
                State::Closing(_) => ("closing", None),
                State::Online(_) => return None,
            };
            let waits_for = waiting.map(|waiting| match obstacle(sets, set, waiting, &options) {
                Some(obstacle) => obstacle.sentence(set),
                None => "bdev_remap_create, or one of its bdevs to appear anew".into(),
            });
            let spare =
                waiting.and_then(|waiting| in_force(&set.identity, &waiting.spares).ok().or(waiting.spares.first()));
            let superblock = spare.map(|spare| &spare.superblock);
            Some(json!({
                "name": set.identity.name,
                "state": state,
                "waits_for": waits_for,
                "base_bdev": waiting.and_then(|waiting| waiting.base.as_ref()).map(|base| base.info().name),
                "spare_bdev": spare.map(|spare| &spare.bdev),
                "uuid": set.identity.uuid,
                "base_uuid": set.identity.base_uuid,
                "spare_uuid": set.identity.spare_uuid,
                "expected": set.expected,
                "host_id": superblock.map(|superblock| superblock.host_id),
                "sequence": superblock.map(|superblock| superblock.sequence),
                "written_at": superblock.map(|superblock| seconds(superblock.written_at)),
            }))
        };
        wanted.filter_map(describe).collect()
    })
}

/// What a set can be made of that nothing stands against.
pub struct Ready {
    /// Name of the Remap bdev.
    pub name: String,
    /// UUID of the base.
    pub base_uuid: Uuid,
    /// Name of the spare's bdev.
    pub spare_bdev: String,
    /// Others that say that they are in force, and were replaced by it.
    pub outdated: Vec<String>,
    /// How it is to work.
    pub tuning: Tuning,
}

/// What the set with this UUID can be made of, if it waits and can come online by itself. An earlier refusal does not count:
/// something has changed.
pub fn ready(uuid: Uuid) -> Option<Ready> {
    let options = options();
    registry::with(|sets| {
        sets.get_mut(uuid)?.waiting_mut()?.refusal = None;
        let set = sets.get(uuid)?;
        let waiting = set.waiting()?;
        let Identity { name, base_uuid, .. } = set.identity.clone();
        if let Some(obstacle) = obstacle(sets, set, waiting, &options) {
            log::info!("{name}: set {uuid} waits for {}", obstacle.sentence(set));
            if let Some(claims) = obstacle.claims() {
                let waiting = sets.get_mut(uuid)?.waiting_mut()?;
                let new = || Events::new(&Rc::new(Threads::default()), &name);
                let what = What::Conflict { set: uuid, base: base_uuid, claims: claims as u64 };
                waiting.events.get_or_insert_with(new).raise(what, 1);
            }
            return None;
        }
        let spare_bdev = in_force(&set.identity, &waiting.spares).ok()?.bdev.clone();
        let active = waiting.spares.iter().filter(|spare| spare.superblock.state == SpareState::Active);
        let outdated = active.map(|spare| spare.bdev.clone()).filter(|bdev| *bdev != spare_bdev).collect();
        Some(Ready { name, base_uuid, spare_bdev, outdated, tuning: set.tuning })
    })
}

/// Notes why a waiting set could not come online although nothing stood against it.
pub fn refused(uuid: Uuid, why: String) {
    registry::with(|sets| {
        if let Some(waiting) = sets.get_mut(uuid).and_then(Set::waiting_mut) {
            waiting.refusal = Some(why);
        }
    });
}

/// Claims the base with this UUID for the first waiting set that may do so, if it is there and nobody has it.
pub fn keep_base(base_uuid: Uuid) {
    let options = options();
    let keeper = registry::with(|sets| {
        let of_it = || sets.all().filter(|set| set.identity.base_uuid == base_uuid);
        if of_it().any(|set| set.waiting().is_none_or(|waiting| waiting.base.is_some())) {
            return None;
        }
        of_it().find(|set| set.waiting().is_some_and(|waiting| entitled(set, waiting, &options))).map(Set::tag)
    });
    let Some(tag) = keeper else { return };
    let Ok(found) = members::look_at(Member::Base, &base_uuid.to_string()) else { return };
    let kept = claimed_base(&found.info(), tag);
    drop(found);
    let _not_kept = registry::with(|sets| {
        let Some(waiting) = sets.tagged(tag).and_then(Set::waiting_mut) else { return kept.ok() };
        match kept {
            Ok(base) => waiting.base = Some(base),
            Err(error) => waiting.refusal = Some(error.message),
        }
        None
    });
}

fn claimed_base(base: &BdevInfo, tag: Tag) -> Result<Desc, spdk::rpc::Error> {
    let base = members::open(Member::Base, &base.name, tag)?;
    members::claim(Member::Base, &base)?;
    Ok(base)
}

/// Gives up the base with this UUID, and with it the claim, if a waiting set has it: somebody decided otherwise.
pub fn release_base(base_uuid: Uuid) {
    let _given_up = registry::with(|sets| {
        let of_it = sets.all_mut().filter(|set| set.identity.base_uuid == base_uuid);
        of_it.filter_map(|set| set.waiting_mut()?.base.take()).collect::<Vec<_>>()
    });
}

/// Gives up the bases of waiting sets that have no right to them any more, as the options have changed.
pub fn release_unentitled() {
    let options = options();
    let _given_up = registry::with(|sets| {
        let kept: Vec<_> = sets
            .all_mut()
            .filter(|set| set.waiting().is_some_and(|waiting| !entitled(set, waiting, &options)))
            .filter_map(|set| set.waiting_mut()?.base.take())
            .collect();
        kept
    });
}
