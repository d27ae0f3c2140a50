//! The rescue of a read: what can be read is, and what cannot becomes pending.

use super::parts::Part;
use super::{At, BATCH, Errors, HostIo, Rescue};
use crate::owner::Owner;
use crate::status::IoStatus;
use crate::table::Place;

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    pub(super) async fn read(&self) -> Result<(), IoStatus> {
        let mut errors = Errors::default();
        let mut todo = self.all_parts();
        while !todo.is_empty() {
            let mut unreadable = Vec::new();
            for failed in self.work_off(&mut todo, BATCH).await {
                if self.is_media(failed.status) && matches!(failed.part.at, Some(At::Base(_))) {
                    let block = self.block(failed.part.offset);
                    match self.table.lookup(block) {
                        Place::Base(_) => unreadable.push(block),
                        Place::Pending(_) => {}
                        // It has moved since: it is read from there, or cannot be.
                        Place::Spare(_) | Place::Lost(_) => {
                            todo.push(Part::block(failed.part.offset));
                            continue;
                        }
                    }
                }
                errors.add(failed);
            }
            if !unreadable.is_empty()
                && !self.io.is_given_up()
                && let Err(refused) = self.owner.set_pending(unreadable).await
            {
                self.counters.refused(refused);
                break;
            }
        }
        let result = errors.into_result();
        match result {
            Ok(()) => self.counters.retried_reads.add(1),
            Err(status) if self.is_media(status) => self.counters.failed_reads.add(1),
            Err(_) => {}
        }
        result
    }
}
