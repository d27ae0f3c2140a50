//! The spare of a set that is online goes while nothing is on it, and comes back; or another one comes that was replaced. App thread.

use std::rc::Rc;

use remap_core::{
    engine,
    format::{SpareState, Superblock},
};
use spdk::{BdevHandle, rpc::Error};

use crate::{
    below::SpareBelow,
    device::Remap,
    disk::Disk,
    members,
    owner::RemapEngine,
    registry,
    runtime::Threads,
    set::{Member, Tag},
    status::to_rpc,
};

/// The spare in force is being removed. Whether the set goes on without it, as nothing is there.
pub async fn go_on(tag: Tag, bdev: &str) -> bool {
    let Some(device) = registry::tagged_online(tag) else { return false };
    let Some(engine) = device.engine().map(Rc::clone) else { return false };
    let status = engine.status();
    if status.remapped + status.lost > 0 {
        return false;
    }
    // What is committed from now on fails: nothing can come there any more while that is found out.
    device.close_disk(engine.slot());
    if !engine.do_without_spare().await {
        return false;
    }
    Remap::part_with(&device, engine.slot()).await;
    log::warn!(
        "{}: its spare {bdev} is removed, and nothing was on it: it goes on, but no bad block is replaced before the spare is back, or bdev_remap_migrate gives it another one",
        device.name
    );
    true
}

/// A spare of a set that is online has appeared.
pub async fn appeared(tag: Tag, found: &Superblock, bdev: &str) {
    let Some(device) = registry::tagged_online(tag) else { return };
    let Some(engine) = device.engine().map(Rc::clone) else { return };
    let name = &device.name;
    if engine.is_without_spare() && engine.knows(found).await {
        return match take_back(tag, &device, &engine, found, bdev).await {
            Ok(()) => log::info!("{name}: its spare {bdev} is back"),
            Err(error) => log::warn!("{name}: its spare {bdev} is back, and cannot be used: {error}"),
        };
    }
    let Some(in_force) = engine.superblock().await else { return };
    if found.state == SpareState::Active && found.generation > in_force.generation {
        log::error!(
            "{name}: the spare {bdev} (generation {}) has replaced the one in use, {} (generation {}), which is outdated: stop using {name}, delete it, and create it with {bdev}",
            found.generation,
            device.spare_bdev(),
            in_force.generation
        );
    }
    if found.state == SpareState::Active && found.generation < in_force.generation {
        match retire(bdev, &in_force).await {
            Ok(true) => log::info!("{name}: the spare {bdev} was replaced while it was away, and is retired"),
            Ok(false) => {}
            Err(error) => log::warn!(
                "{name}: the spare {bdev} was replaced while it was away, and cannot be marked as retired: do not use it; {error}"
            ),
        }
    }
}

async fn take_back(
    tag: Tag,
    device: &BdevHandle<Remap>,
    engine: &Rc<RemapEngine>,
    found: &Superblock,
    bdev: &str,
) -> Result<(), Error> {
    let desc = members::open(Member::Spare, bdev, tag)?;
    let (blocks, before) = (desc.info().blocks, found.layout.spare_blocks);
    if blocks < before {
        let error = remap_core::Error::SpareSizeDiffers { found: before, expected: blocks };
        return Err(to_rpc(format_args!("spare_bdev {bdev}"), &error));
    }
    members::claim_in_the_end(Member::Spare, &desc).await?;
    let slot = engine.slot();
    let below = SpareBelow::new(desc.clone(), &engine.layout());
    let failed = |errno| Error::new(errno, format!("spare_bdev {bdev}: {errno}"));
    Remap::attach(device, slot, below, None).await.map_err(failed)?;
    if let Err(errno) = device.open_disk(slot, &desc) {
        Remap::part_with(device, slot).await;
        return Err(failed(errno));
    }
    engine.take_spare_back().await.map_err(|error| to_rpc(format_args!("spare_bdev {bdev}"), &error))?;
    // It may have grown.
    device.look_at_spare();
    Ok(())
}

/// Whether this was one that was replaced by the spare in force: then it says so now.
async fn retire(bdev: &str, in_force: &Superblock) -> Result<bool, Error> {
    let desc = members::look_at(Member::Spare, bdev)?;
    members::claim_in_the_end(Member::Spare, &desc).await?;
    let disk =
        Disk::new(&desc, &desc.info()).map_err(|errno| Error::new(errno, format!("spare_bdev {bdev}: {errno}")))?;
    let retired = engine::retire_outdated(disk, Threads::default(), in_force).await;
    retired.map_err(|error| to_rpc(format_args!("spare_bdev {bdev}"), &error))
}
