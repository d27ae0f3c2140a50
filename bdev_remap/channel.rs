//! What one thread needs to reach both devices.

use std::sync::{Arc, atomic::AtomicBool};

use spdk::{Desc, Endpoint, Errno};

use crate::held::Holder;

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare.
    pub spare: Endpoint,
    /// The I/O that is held here.
    pub holder: Holder,
}

impl Channel {
    /// Channels of both devices for the current thread.
    pub fn new(base: &Desc, spare: &Desc, resetting: &Arc<AtomicBool>) -> Result<Channel, Errno> {
        Ok(Channel { base: Endpoint::new(base)?, spare: Endpoint::new(spare)?, holder: Holder::new(resetting) })
    }
}
