//! A device of a set has been resized. App thread.

use std::time::Duration;

use crate::{registry, set::Tag};

/// After the new size could not be noted on the spare, so long passes until that is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Takes note of the size of the spare of this set. That of one to which the set moves is looked at when it is in force.
pub async fn note_spare(tag: Tag) {
    // A set that is being opened may have looked at it before.
    registry::opening_over(tag.set).await;
    if let Some(device) = registry::tagged_online(tag) {
        device.look_at_spare();
    }
}

/// Follows the base of this set to its size now. First the spare is told, then hosts are.
pub async fn follow(tag: Tag) {
    // A set that is being opened has looked at the base already.
    registry::opening_over(tag.set).await;
    let mut told = false;
    while let Some(device) = registry::tagged_online(tag) {
        let name = &device.name;
        let Some((engine, base)) = device.for_moves() else { return };
        let Some(blocks) = device.base_blocks() else { return };
        let before = engine.table().base_blocks();
        if blocks < before {
            log::error!(
                "{name}: the base has shrunk from {before} blocks to {blocks}; nothing was changed, and I/O behind its end fails; bring it back to its size"
            );
            return;
        }
        match engine.base_has_grown(blocks).await {
            // Somebody else may have followed it further meanwhile.
            Ok(()) => {
                let blocks = engine.table().base_blocks();
                base.grow(blocks);
                if let Err(errno) = device.grow(blocks) {
                    log::warn!("{name}: its hosts cannot be told that it has {blocks} blocks now: {errno}");
                }
                return;
            }
            Err(remap_core::Error::SizeNotNoted) => {
                if !std::mem::replace(&mut told, true) {
                    log::warn!("{name}: {}; that is tried again", remap_core::Error::SizeNotNoted);
                }
            }
            Err(error) => return log::warn!("{name}: {error}"),
        }
        // Nothing of the set is kept meanwhile.
        drop((device, engine, base));
        spdk::sleep(PAUSE).await;
    }
}
