//! `bdev_remap_add` and `bdev_remap_remove`: jobs that move blocks which an operator names. App thread.

use std::{cell::RefCell, rc::Rc};

use remap_core::{AddReport, BaseLba, Extent, Job, JobKind, RemoveReport, Stopped};
use spdk::{BdevHandle, Errno, rpc::Error};

use crate::{device::Remap, disk::Disk, owner::RemapEngine, registry, status::to_rpc};

/// What a job works with.
struct Scene {
    engine: Rc<RemapEngine>,
    base: Disk,
    device: BdevHandle<Remap>,
    range: Extent,
    job: Job,
}

/// Relocates blocks before they fail.
pub async fn add(name: &str, lba: u64, blocks: u64) -> Result<AddReport, Error> {
    run(name, JobKind::Add, lba, blocks, async |scene: Scene| {
        let Scene { engine, base, device, range, job } = scene;
        engine.add(&base, range, device.remap_on(), &job).await
    })
    .await
}

/// Gives blocks back to the base, unless they would be less durable there than on the spare.
pub async fn remove(name: &str, lba: u64, blocks: u64) -> Result<RemoveReport, Error> {
    let (_, device) = registry::find(name)?;
    if device.abilities.base_is_never_durable() {
        let why = "has a volatile cache but takes no FLUSH, so that nothing could be made durable there; nothing was changed; the blocks stay on the spare";
        return Err(Error::new(Errno::OPNOTSUPP, format!("base_bdev {} {why}", device.names.base_bdev)));
    }
    run(name, JobKind::Remove, lba, blocks, async |scene: Scene| {
        let Scene { engine, base, device, range, job } = scene;
        engine.remove(&base, range, device.remap_on(), &job).await
    })
    .await
}

/// Begins the job, and waits for what it reports.
async fn run<R: 'static>(
    name: &str,
    kind: JobKind,
    lba: u64,
    blocks: u64,
    work: impl AsyncFnOnce(Scene) -> Result<R, Stopped> + 'static,
) -> Result<R, Error> {
    let (_, device) = registry::find(name)?;
    let (engine, base) = device.for_moves().ok_or_else(|| Error::new(Errno::NODEV, "not the owner thread"))?;
    let total = engine.table().base_blocks();
    if blocks == 0 || lba.checked_add(blocks).is_none_or(|end| end > total) {
        let why =
            format!("{blocks} blocks from {lba} on are not all on {name}, which has {total}; nothing was changed");
        return Err(Error::invalid("num_blocks", why));
    }
    let range = Extent::new(BaseLba(lba), blocks);
    let report = Rc::new(RefCell::new(None));
    let (told, worker) = (Rc::clone(&report), Rc::clone(&engine));
    let begun = engine.jobs().begin(kind, |job| async move {
        let scene = Scene { engine: worker, base, device, range, job };
        *told.borrow_mut() = Some(work(scene).await?);
        Ok(())
    });
    let ended = begun.map_err(|error| to_rpc(name, &error))?.join().await;
    match (ended, report.take()) {
        (Ok(()), Some(report)) => Ok(report),
        (Err(Stopped::Failed(error)), _) => Err(to_rpc(name, &error)),
        _ => Err(Error::new(
            Errno::CANCELED,
            format!("{name}: {} was cancelled; what was moved by then stays so", kind.name()),
        )),
    }
}
