//! A write while all that is on the spare moves to another one: what that has already is written to both.

use super::moves::Missed;
use super::{HostIo, Rescue};
use crate::mutation::{Mutation, active};
use crate::owner::{Owner, Uncopied};
use crate::status::IoStatus;

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    /// Writes to where the blocks live and, if that succeeds, to where they are on the other spare. What fails over there is no
    /// failure for the host: it is copied anew.
    pub(super) async fn write_mirrored(&self) -> Result<(), IoStatus> {
        let range = self.io.range();
        let copies = self.owner.begin_mirrored(range).await;
        let result = self.write().await;
        let missed = match result {
            _ if active(Mutation::WriteNotMirrored) => Vec::new(),
            Ok(()) => self.do_runs(&copies).await,
            // Some of it may have been written to the one.
            Err(_) => {
                let offsets = copies.iter().flat_map(|run| run.offset..run.offset + run.blocks);
                offsets.map(|offset| Missed { offset, status: IoStatus::Aborted }).collect()
            }
        };
        let uncopied =
            |Missed { offset, status }| Uncopied { lba: self.block(offset), status, media: self.is_media(status) };
        self.owner.end_mirrored(range, missed.into_iter().map(uncopied).collect()).await;
        result
    }
}
