//! `bdev_remap_add`, `bdev_remap_import` and `bdev_remap_remove`: jobs that move blocks which an operator names. App thread.

use std::{cell::RefCell, rc::Rc};

use remap_core::{AddReport, BaseLba, Extent, ExtentList, Job, JobKind, RemoveReport, Stopped};
use spdk::{BdevHandle, Errno, rpc::Error};

use crate::{device::Remap, disk::Disk, owner::RemapEngine, registry, status::to_rpc};

/// What a job works with.
struct Scene {
    engine: Rc<RemapEngine>,
    base: Disk,
    device: BdevHandle<Remap>,
}

/// Relocates blocks before they fail.
pub async fn add(name: &str, lba: u64, blocks: u64) -> Result<AddReport, Error> {
    let scene = scene(name)?;
    let range = scene.range(name, lba, blocks)?;
    scene
        .run(name, JobKind::Add, async move |scene, job| {
            scene.engine.add(&scene.base, range, scene.device.remap_on(), &job).await
        })
        .await
}

/// Relocates the blocks of a list.
pub async fn import(name: &str, extents: ExtentList) -> Result<AddReport, Error> {
    let scene = scene(name)?;
    let total = scene.engine.table().base_blocks();
    let blocks = extents.on_base(total).map_err(|error| Error::invalid("extents", error))?;
    scene
        .run(name, JobKind::Import, async move |scene, job| {
            scene.engine.import(&scene.base, &blocks, scene.device.remap_on(), &job).await
        })
        .await
}

/// Gives blocks back to the base, unless they would be less durable there than on the spare.
pub async fn remove(name: &str, lba: u64, blocks: u64) -> Result<RemoveReport, Error> {
    let scene = scene(name)?;
    if scene.device.abilities.base_is_never_durable() {
        let why = "has a volatile cache but takes no FLUSH, so that nothing could be made durable there; nothing was changed; the blocks stay on the spare";
        return Err(Error::new(Errno::OPNOTSUPP, format!("base_bdev {} {why}", scene.device.base_bdev)));
    }
    let range = scene.range(name, lba, blocks)?;
    scene
        .run(name, JobKind::Remove, async move |scene, job| {
            scene.engine.remove(&scene.base, range, scene.device.remap_on(), &job).await
        })
        .await
}

fn scene(name: &str) -> Result<Scene, Error> {
    let (_, device) = registry::find(name)?;
    let (engine, base) = device.for_moves().ok_or_else(|| Error::new(Errno::NODEV, "not the owner thread"))?;
    Ok(Scene { engine, base, device })
}

impl Scene {
    /// A range, if it is on the bdev.
    fn range(&self, name: &str, lba: u64, blocks: u64) -> Result<Extent, Error> {
        let total = self.engine.table().base_blocks();
        if blocks == 0 || lba.checked_add(blocks).is_none_or(|end| end > total) {
            let why =
                format!("{blocks} blocks from {lba} on are not all on {name}, which has {total}; nothing was changed");
            return Err(Error::invalid("num_blocks", why));
        }
        Ok(Extent::new(BaseLba(lba), blocks))
    }

    /// Begins a job, and waits for what it reports.
    async fn run<R: 'static>(
        self,
        name: &str,
        kind: JobKind,
        work: impl AsyncFnOnce(Scene, Job) -> Result<R, Stopped> + 'static,
    ) -> Result<R, Error> {
        let report = Rc::new(RefCell::new(None));
        let (told, engine) = (Rc::clone(&report), Rc::clone(&self.engine));
        let begun = engine.jobs().begin(kind, |job| async move {
            *told.borrow_mut() = Some(work(self, job).await?);
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
}
