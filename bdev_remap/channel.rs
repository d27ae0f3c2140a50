//! What one thread needs to reach both devices, and what it knows of the I/O that is under way.

use std::{
    future::Future,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use remap_core::{Extent, Gate};
use spdk::{Desc, Endpoint, Errno, IoId};

use crate::held::Holder;

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare.
    pub spare: Endpoint,
    /// What all I/O to blocks goes through.
    pub gate: Rc<Gate>,
    /// The I/O that is held here.
    pub holder: Holder,
}

impl Channel {
    /// Channels of both devices for the current thread, and a gate that is closed for these blocks.
    pub fn new(base: &Desc, spare: &Desc, closed: Vec<Extent>, resetting: &Arc<AtomicBool>) -> Result<Channel, Errno> {
        Ok(Channel {
            base: Endpoint::new(base)?,
            spare: Endpoint::new(spare)?,
            gate: Rc::new(Gate::new(closed)),
            holder: Holder::new(resetting),
        })
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
