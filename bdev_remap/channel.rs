//! What one thread needs to reach the devices, and what it knows of the I/O that is under way.

use std::{
    future::Future,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use remap_core::{Gate, PerSlot, Ranges, Slot};
use spdk::{Desc, Endpoint, Errno, IoId};

use crate::held::Holder;

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare in each slot where there is one.
    pub spares: PerSlot<Option<Endpoint>>,
    /// What all I/O to blocks goes through.
    pub gate: Rc<Gate>,
    /// The I/O that is held here.
    pub holder: Holder,
}

impl Channel {
    /// Channels of all devices for the current thread, and a gate that is closed for these blocks.
    pub fn new(
        base: &Desc,
        spares: &PerSlot<Option<Desc>>,
        closed: Vec<Ranges>,
        resetting: &Arc<AtomicBool>,
    ) -> Result<Channel, Errno> {
        let mut endpoints = PerSlot::default();
        for (slot, spare) in spares.iter() {
            endpoints[slot] = spare.as_ref().map(Endpoint::new).transpose()?;
        }
        Ok(Channel {
            base: Endpoint::new(base)?,
            spares: endpoints,
            gate: Rc::new(Gate::new(closed)),
            holder: Holder::new(resetting),
        })
    }

    /// The spares in these slots.
    pub fn spares_in(&self, slots: PerSlot<bool>) -> impl Iterator<Item = (Slot, &Endpoint)> {
        let there = self.spares.iter().filter_map(|(slot, spare)| Some((slot, spare.as_ref()?)));
        there.filter(move |(slot, _)| slots[*slot])
    }

    /// Gives up all that is held.
    pub fn give_all_up(&self) {
        self.holder.give_all_up();
        self.gate.stir();
    }

    /// Gives `io` up; the answer is whether it will not be sent any more. None if it is not held.
    pub fn abort(&self, io: IoId) -> Option<impl Future<Output = bool> + use<>> {
        let aborted = self.holder.abort(io);
        self.gate.stir();
        aborted
    }
}
