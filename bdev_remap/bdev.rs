//! The Remap bdev as SPDK sees it.

use std::{
    future::{Future, ready},
    num::NonZeroU8,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{FutureExt, LocalBoxFuture};
use remap_core::{FormatPolicy, Passed, Ranges};
use serde_json::{Value, json};
use spdk::{Bdev, Errno, Incoming, IoKind, MemoryDomain, Module, WeakBdev};

use crate::{channel::Channel, device::Remap, io, module::MODULE, runtime::Readers};

impl Bdev for Remap {
    type Channel = Channel;

    fn module() -> &'static Module {
        &MODULE
    }

    fn create_channel(&self) -> Result<Channel, Errno> {
        self.channel()
    }

    #[inline(always)]
    fn submit(&self, channel: &Channel, io: Incoming<Remap>) {
        io::submit(self, channel, io);
    }

    #[inline(always)]
    fn ended(channel: &Channel, stamp: NonZeroU8) {
        io::ended(channel, stamp);
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

    fn memory_domains(&self) -> Vec<MemoryDomain> {
        self.memory_domains_with(None)
    }

    fn info(&self) -> (&'static str, Value) {
        ("remap", self.describe())
    }

    /// The set is loaded as it is found then: never made anew, and never taken from a host that has taken it over meanwhile. A spare to
    /// which it has moved may be made behind it.
    fn config(&self) -> Option<(&'static str, Value)> {
        let Remap { name, base_bdev, .. } = self;
        let status = self.engine()?.status();
        // Without a spare the set is expected, and no more.
        let spare_bdev = Some(self.spare_bdev()).filter(|spare| !spare.is_empty())?;
        let params = json!({
            "name": name, "base_bdev": base_bdev, "spare_bdev": spare_bdev, "uuid": status.uuid,
            "format": FormatPolicy::Never, "take_over": false, "wait_for_bdevs": true,
            "remap_on": self.remap_on(), "storm_limit": status.storm_limit,
        });
        Some(("bdev_remap_create", params))
    }

    async fn destruct(&self) {
        self.give_up().await;
    }
}

// SAFETY: the table's readers are `submit`, the turns of what it has put aside, and `rescue`, on threads that have a channel of the bdev; none keeps a
// pointer into the table across a return to its reactor. `BdevHandle::grace` returns after SPDK has run a message on every such
// thread; a thread that gets its channel later sees what was published before. All I/O to blocks goes through its channel's
// gate before it looks at the table, and leaves when it is completed; a new channel's gate is closed for what its bdev is, from
// before the others are told. Once the bdev was destructed there are no readers, and no I/O.
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

    fn drain(&self) -> LocalBoxFuture<'_, ()> {
        async {
            if let Some(bdev) = self.upgrade() {
                bdev.visit_channels(drained).await;
            }
        }
        .boxed_local()
    }

    fn close(&self, blocks: Ranges) -> LocalBoxFuture<'_, ()> {
        async move {
            if let Some(bdev) = self.upgrade() {
                bdev.close(blocks.clone());
                let close = move |channel: &Channel| {
                    channel.gate.close(blocks.clone());
                    drained(channel)
                };
                bdev.visit_channels(close).await;
            }
        }
        .boxed_local()
    }

    fn open(&self, blocks: Ranges) -> LocalBoxFuture<'_, ()> {
        async move {
            if let Some(bdev) = self.upgrade() {
                bdev.open(&blocks);
                let open = move |channel: &Channel| {
                    channel.gate.open(&blocks);
                    ready(())
                };
                bdev.visit_channels(open).await;
            }
        }
        .boxed_local()
    }

    fn passed(&self) -> LocalBoxFuture<'_, Passed> {
        async {
            let all = Arc::new(Mutex::new(Passed::default()));
            if let Some(bdev) = self.upgrade() {
                let sum = Arc::clone(&all);
                let add = move |channel: &Channel| {
                    let sum = &mut *sum.lock().unwrap_or_else(PoisonError::into_inner);
                    *sum = sum.and(channel.gate.passed());
                    ready(())
                };
                bdev.visit_channels(add).await;
            }
            *all.lock().unwrap_or_else(PoisonError::into_inner)
        }
        .boxed_local()
    }
}

/// Waits for the I/O that is under way on a channel.
fn drained(channel: &Channel) -> impl Future<Output = ()> + use<> {
    let gate = Rc::clone(&channel.gate);
    async move { gate.drain().await }
}
