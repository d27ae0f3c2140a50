//! What one thread needs to reach the devices.

use std::sync::{Arc, atomic::AtomicBool};

use remap_core::{PerSlot, Slot};
use spdk::{Desc, Endpoint, Errno};

use crate::held::Holder;

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare in each slot where there is one.
    pub spares: PerSlot<Option<Endpoint>>,
    /// The I/O that is held here.
    pub holder: Holder,
}

impl Channel {
    /// Channels of all devices for the current thread.
    pub fn new(base: &Desc, spares: &PerSlot<Option<Desc>>, resetting: &Arc<AtomicBool>) -> Result<Channel, Errno> {
        let mut endpoints = PerSlot::default();
        for (slot, spare) in spares.iter() {
            endpoints[slot] = spare.as_ref().map(Endpoint::new).transpose()?;
        }
        Ok(Channel { base: Endpoint::new(base)?, spares: endpoints, holder: Holder::new(resetting) })
    }

    /// The spares in these slots.
    pub fn spares_in(&self, slots: PerSlot<bool>) -> impl Iterator<Item = (Slot, &Endpoint)> {
        let there = self.spares.iter().filter_map(|(slot, spare)| Some((slot, spare.as_ref()?)));
        there.filter(move |(slot, _)| slots[*slot])
    }
}
