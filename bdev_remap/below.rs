//! The bdevs below, for all threads.

use remap_core::{Abilities, PerSlot, Takes, format::Layout};
use spdk::{Desc, IoKind};

/// The bdevs below, claimed.
pub struct Below {
    /// The base.
    pub base: Desc,
    /// The spare in each slot where there is one.
    pub spares: PerSlot<Option<SpareBelow>>,
}

/// A spare, for all threads.
#[derive(Clone)]
pub struct SpareBelow {
    /// Its bdev.
    pub desc: Desc,
    /// Where the data begins.
    pub data_start: u64,
    /// Which I/O it takes.
    pub takes: Takes,
}

impl SpareBelow {
    /// The spare behind `desc`.
    pub fn new(desc: Desc, layout: &Layout) -> SpareBelow {
        let takes = takes(&desc);
        SpareBelow { desc, data_start: layout.data_start.0, takes }
    }
}

impl Below {
    /// Which I/O the base takes; nothing is said of spares.
    pub fn abilities_of_base(&self) -> Abilities {
        let (base_cache, base) = (self.base.info().write_cache, takes(&self.base));
        Abilities { base_cache, base, spares: PerSlot::default() }
    }
}

/// What a device takes.
fn takes(desc: &Desc) -> Takes {
    Takes {
        flush: desc.supports(IoKind::Flush),
        unmap: desc.supports(IoKind::Unmap),
        zeroes: desc.supports(IoKind::WriteZeroes),
        reset: desc.supports(IoKind::Reset),
        abort: desc.supports(IoKind::Abort),
    }
}
