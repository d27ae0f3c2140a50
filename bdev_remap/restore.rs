//! `bdev_remap_restore`. App thread.

use std::rc::Rc;

use remap_core::RestoreReport;
use spdk::{Errno, rpc::Error};

use crate::{registry, status::to_rpc};

/// Reloads the set from its spare.
pub async fn restore(name: &str, dry_run: bool) -> Result<RestoreReport, Error> {
    let (_, device) = registry::find(name)?;
    let engine = Rc::clone(device.engine().ok_or_else(|| Error::new(Errno::NODEV, "not the owner thread"))?);
    if !dry_run {
        log::info!("{name}: restore begins, writes are held back");
    }
    engine.restore(dry_run).await.map_err(|error| to_rpc(name, &error))
}
