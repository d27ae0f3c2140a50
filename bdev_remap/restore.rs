//! `bdev_remap_restore`. App thread.

use std::rc::Rc;

use remap_core::RestoreReport;
use spdk::{Errno, rpc::Error};

use crate::{registry, status::to_rpc};

/// Reloads the set from its spare, with all I/O held back.
///
/// SPDK unregisters a bdev only when I/O is let go on: a removal that begins meanwhile waits for the end of this.
pub async fn restore(name: &str, dry_run: bool) -> Result<RestoreReport, Error> {
    let (_, device) = registry::find(name)?;
    let engine = Rc::clone(device.engine().ok_or_else(|| Error::new(Errno::NODEV, "not the owner thread"))?);
    let failed = |error: remap_core::Error| to_rpc(name, &error);
    if dry_run {
        return engine.restore(true).await.map_err(failed);
    }
    let held = |errno| Error::new(errno, format!("{name}: I/O could not be held back, nothing was changed: {errno}"));
    log::info!("{name}: restore begins, I/O is held back");
    device.quiesce().await.map_err(held)?;
    let report = engine.restore(false).await.map_err(failed);
    let resumed = device.unquiesce().await;
    resumed.map_err(|errno| Error::new(errno, format!("{name}: I/O could not be let go on: {errno}")))?;
    report
}
