//! Auto-assembly: a spare that appears tells which base it belongs to, and a base that appears may be awaited.
//!
//! Whatever the order in which the two come, at boot or later, the set comes online when both are there. Until then it is
//! *waiting*, and status says for what. The base of a waiting set is claimed as soon as it appears, before anybody else reads
//! it: without its spare it would show old data. App thread.

use std::{cell::RefCell, collections::BTreeMap};

use remap_core::{
    Device, FormatPolicy,
    format::{
        SpareState, Superblock, SuperblockContent,
        layout::{page_geometry, superblock_b},
    },
};
use serde_json::{Value, json};
use spdk::{BdevInfo, Desc, Event, thread::AppCell};

use crate::{
    admin::{self, Creation},
    device::Names,
    spare::Spare,
};

/// A set whose spare is there.
struct Waiting {
    superblock: Superblock,
    /// Open for reading only: it tells when the spare goes.
    _spare: Desc,
    /// The base, claimed, when it came after the spare.
    base: Option<Desc>,
    /// What is missing, or what went wrong.
    waits_for: String,
}

/// By name of the spare.
type Sets = BTreeMap<String, Waiting>;

static WAITING: AppCell<RefCell<Sets>> = AppCell::new(RefCell::new(Sets::new()));

fn with_waiting<R: Default>(f: impl FnOnce(&mut Sets) -> R) -> R {
    WAITING.with(|sets| f(&mut sets.borrow_mut())).unwrap_or_default()
}

/// What status says of the waiting sets, or of the one called `name`.
pub fn describe(name: Option<&str>) -> Vec<Value> {
    with_waiting(|sets| {
        let wanted = sets.iter().filter(|(_, set)| name.is_none_or(|name| name == set.superblock.name));
        let describe = |(spare, set): (&String, &Waiting)| {
            json!({
                "name": set.superblock.name,
                "state": "waiting",
                "base_bdev": set.base.as_ref().map(|base| base.info().name),
                "spare_bdev": spare,
                "uuid": set.superblock.set_uuid,
                "waits_for": set.waits_for,
            })
        };
        wanted.map(describe).collect()
    })
}

/// Forgets all waiting sets: SPDK stops, and their claims would hold up the bdevs.
pub fn forget_all() {
    drop(with_waiting(std::mem::take));
}

/// Gives up the base called `name`, and with it the claim, if a waiting set has it: an explicit creation takes over.
pub fn release_base(name: &str) {
    let kept = with_waiting(|sets| {
        let mine = |set: &&mut Waiting| set.base.as_ref().is_some_and(|base| base.info().name == name);
        sets.values_mut().filter(mine).filter_map(|set| set.base.take()).collect::<Vec<_>>()
    });
    drop(kept);
}

/// The base of the waiting set called `name` is being removed.
pub fn base_removed(name: &str) {
    let gone = with_waiting(|sets| {
        let mine = sets.values_mut().filter(|set| set.superblock.name == name);
        mine.filter_map(|set| {
            set.waits_for = missing_base(&set.superblock);
            set.base.take()
        })
        .collect::<Vec<_>>()
    });
    drop(gone);
}

/// The set with this spare is online: it waits no more.
pub fn online(spare_bdev: &str) {
    drop(with_waiting(|sets| sets.remove(spare_bdev)));
}

fn missing_base(superblock: &Superblock) -> String {
    format!("the base with UUID {}", superblock.base_uuid)
}

/// A bdev has appeared: if it is the base of a waiting set, nobody else may have it.
pub fn keep_base(bdev: &BdevInfo) {
    let awaiting = with_waiting(|sets| {
        let wants = |set: &Waiting| set.superblock.base_uuid == bdev.uuid && set.base.is_none();
        sets.iter().find(|(_, set)| wants(set)).map(|(spare, set)| (spare.clone(), set.superblock.name.clone()))
    });
    let Some((spare, name)) = awaiting else { return };
    let kept = admin::open("base_bdev", &bdev.name, &name).and_then(|base| {
        admin::claim("base_bdev", &base)?;
        Ok(base)
    });
    with_waiting(|sets| {
        let Some(set) = sets.get_mut(&spare) else { return };
        match kept {
            Ok(base) => set.base = Some(base),
            Err(error) => set.waits_for = error.message,
        }
    });
}

/// A bdev has appeared, and may be read: is it a base that is awaited, or a spare?
pub async fn examine(name: String) {
    let Ok(desc) = Desc::open(&name, |_| ()) else { return };
    let info = desc.info();
    let awaiting = with_waiting(|sets| {
        sets.iter().find(|(_, set)| set.superblock.base_uuid == info.uuid).map(|(spare, _)| spare.clone())
    });
    if let Some(spare) = awaiting {
        return assemble(spare).await;
    }
    let Some(superblock) = probe(&desc, &info).await else { return };
    // The spare is known by its own UUID, so that a bdev below or above it, with the same content, is not taken for it.
    if superblock.spare_id != info.uuid || superblock.state != SpareState::Active {
        return;
    }
    let spare = name.clone();
    let watched = Desc::open(&name, move |event| {
        if event == Event::Remove {
            online(&spare);
        }
    });
    let Ok(watched) = watched else { return };
    let waits_for = missing_base(&superblock);
    log::info!("{}: spare {name} found, it belongs to {waits_for}", superblock.name);
    let set = Waiting { superblock, _spare: watched, base: None, waits_for };
    drop(with_waiting(|sets| sets.insert(name.clone(), set)));
    assemble(name).await;
}

/// Brings the waiting set with this spare online, if its base is there.
async fn assemble(spare_bdev: String) {
    let found = with_waiting(|sets| sets.get(&spare_bdev).map(|set| (set.superblock.clone(), set.base.clone())));
    let Some((superblock, kept)) = found else { return };
    let Ok(base) = Desc::open(&superblock.base_uuid.to_string(), |_| ()) else { return };
    let base_bdev = base.info().name;
    drop(base);
    let creation = Creation {
        names: Names { name: superblock.name.clone(), base_bdev, spare_bdev: spare_bdev.clone() },
        uuid: Some(superblock.set_uuid),
        format: FormatPolicy::Never,
        remap_on: None,
        storm_limit: None,
        base: kept,
    };
    match admin::create(creation).await {
        // Also if somebody else made it meanwhile.
        Ok(()) => online(&spare_bdev),
        Err(error) => with_waiting(|sets| {
            if let Some(set) = sets.get_mut(&spare_bdev) {
                set.waits_for = error.message;
            }
        }),
    }
}

/// The newest valid superblock on the device, if there is one. Reads both places where one can be.
async fn probe(desc: &Desc, info: &BdevInfo) -> Option<Superblock> {
    let (_, page_blocks) = page_geometry(info.block_size)?;
    let device = Spare::new(desc, info).ok()?;
    let mut newest: Option<Superblock> = None;
    for lba in [0, superblock_b(info.block_size, info.blocks)?.0] {
        let (page, outcome) = device.read(lba, device.alloc(page_blocks).ok()?).await;
        if outcome.is_ok()
            && let SuperblockContent::Valid(found) = Superblock::decode(page.as_ref())
            && newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence)
        {
            newest = Some(*found);
        }
    }
    newest
}
