//! The Remap bdev as SPDK sees it.

use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use remap_core::FormatPolicy;
use serde_json::{Value, json};
use spdk::{Bdev, Errno, Incoming, IoKind, Module, WeakBdev};

use crate::{
    channel::Channel,
    device::{Names, Remap},
    io,
    runtime::Readers,
};

/// The pause after a drain that SPDK refused.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

impl Bdev for Remap {
    type Channel = Channel;

    fn module() -> &'static Module {
        &crate::MODULE
    }

    fn create_channel(&self) -> Result<Channel, Errno> {
        self.channel()
    }

    #[inline(always)]
    fn submit(&self, channel: &Channel, io: Incoming<Remap>) {
        io::submit(self, channel, io);
    }

    /// The bdev layer makes the rest from these: zeros, over a base that takes no write_zeroes, by writes, each of which can be
    /// rescued.
    fn supports(&self, kind: IoKind) -> bool {
        match kind {
            IoKind::Read | IoKind::Write | IoKind::Flush | IoKind::Abort => true,
            IoKind::WriteZeroes => self.abilities.base.zeroes,
            IoKind::Unmap => self.abilities.base.unmap,
            IoKind::Reset => self.abilities.base.reset,
            IoKind::Unsupported => false,
        }
    }

    fn info(&self) -> (&'static str, Value) {
        ("remap", self.describe())
    }

    /// The set is loaded as it is found then: never made anew, and never taken from a host that has taken it over meanwhile.
    fn config(&self) -> Option<(&'static str, Value)> {
        let Names { name, base_bdev, spare_bdev } = &self.names;
        let status = self.engine()?.status();
        let params = json!({
            "name": name, "base_bdev": base_bdev, "spare_bdev": spare_bdev, "uuid": status.uuid,
            "format": FormatPolicy::Never, "take_over": false,
            "remap_on": self.remap_on(), "storm_limit": status.storm_limit,
        });
        Some(("bdev_remap_create", params))
    }

    async fn destruct(&self) {
        self.give_up().await;
    }
}

// SAFETY: the table's readers are `submit` and `rescue` on threads that have a channel of the bdev; none keeps a pointer
// into the table across a return to its reactor. `BdevHandle::grace` returns after SPDK has run a message on every such
// thread; a thread that gets its channel later sees what was published before. Once the bdev was destructed there are no
// readers. What `drain` waits for is told there.
#[allow(unsafe_code)]
unsafe impl Readers for WeakBdev<Remap> {
    fn grace(&self) -> LocalBoxFuture<'_, ()> {
        async {
            if let Some(bdev) = self.upgrade() {
                bdev.grace().await;
            }
        }
        .boxed_local()
    }

    /// Quiesces the whole bdev for a moment: SPDK ends that only when no I/O that it let in is left.
    ///
    /// An I/O that is held for a rescue counts, too. It goes on by itself, as the owner's tasks commit while a drain waits;
    /// whoever calls this holds no I/O. While the bdev is quiesced SPDK lets reads of a new channel in: those look at the
    /// table as it is now, where the blocks that are waited for are no more.
    fn drain(&self) -> LocalBoxFuture<'_, ()> {
        async {
            // From its destruct on, there is no I/O.
            while let Some(bdev) = self.upgrade() {
                match bdev.quiesce().await {
                    Ok(()) => {
                        if let Err(errno) = bdev.unquiesce().await {
                            log::error!("{}: I/O could not be let go on after a drain: {errno}", bdev.names.name);
                        }
                        return;
                    }
                    Err(Errno::NODEV) => return,
                    Err(errno) => log::warn!("{}: not drained yet: {errno}", bdev.names.name),
                }
                drop(bdev);
                spdk::sleep(DRAIN_PAUSE).await;
            }
        }
        .boxed_local()
    }
}
