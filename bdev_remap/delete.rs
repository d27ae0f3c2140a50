//! `bdev_remap_delete`. App thread.

use spdk::{Errno, rpc::Error};

use crate::{
    close::close,
    registry::{self, Fate},
    status::to_rpc,
};

/// Removes a Remap bdev, and forgets its set; with `wipe`, its spare forgets it, too.
pub async fn delete(name: &str, wipe: bool, force: bool) -> Result<(), Error> {
    let (tag, device) = registry::find(name)?;
    if wipe {
        let status = device.engine().map(|engine| engine.status());
        let remapped = status.map_or(0, |status| status.remapped + status.lost);
        if remapped > 0 && !force {
            let why = format!(
                "wipe: {remapped} blocks of {name} live on its spare and would be lost; nothing was changed; set force to lose them"
            );
            return Err(Error::new(Errno::BUSY, why));
        }
    }
    drop(device);
    // Nothing was awaited since it was found.
    let closed = close(tag, Fate::Gone, wipe.then_some(force)).await.unwrap_or(Err(Errno::NODEV));
    let device = closed.map_err(|errno| Error::new(errno, format!("name: {name} was not deleted: {errno}")))?;
    log::info!("{name}: deleted");
    match device.wipe_failure() {
        None => Ok(()),
        Some(error) => Err(to_rpc(format_args!("{name} was deleted, but its spare was not wiped"), &error)),
    }
}
