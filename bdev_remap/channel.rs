//! What one thread needs to reach both devices.

use spdk::{Desc, Endpoint, Errno};

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare.
    pub spare: Endpoint,
}

impl Channel {
    /// Channels of both devices for the current thread.
    pub fn new(base: &Desc, spare: &Desc) -> Result<Channel, Errno> {
        Ok(Channel { base: Endpoint::new(base)?, spare: Endpoint::new(spare)? })
    }
}
