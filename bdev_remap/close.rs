//! The end of a Remap bdev, whoever wants it. App thread.

use spdk::{BdevHandle, Errno};

use crate::{
    device::Remap,
    registry::{self, Fate},
    set::Tag,
};

/// Closes a set that is online. From the first moment on no RPC finds it, so that nobody works on it meanwhile. None if it
/// is not online.
pub async fn close(tag: Tag, fate: Fate, wipe: Option<bool>) -> Option<Result<BdevHandle<Remap>, Errno>> {
    let device = registry::begin_closing(tag)?;
    device.wipe_at_end(wipe);
    Remap::leave(&device).await;
    let closed = device.unregister().await;
    if closed.is_err() {
        // The wish goes with the call that failed: a later removal must not wipe.
        device.wipe_at_end(None);
    }
    registry::closed(tag, if closed.is_ok() { fate } else { Fate::Online });
    Some(closed.map(|()| device))
}
