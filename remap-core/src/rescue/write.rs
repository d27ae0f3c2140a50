//! The rescue of a write, or write_zeroes: finds the blocks that have to be relocated, and has that done.

use super::{BATCH, Errors, HostIo, Rescue};
use crate::owner::Owner;
use crate::status::IoStatus;

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    pub(super) async fn write(&self) -> Result<(), IoStatus> {
        let mut errors = Errors::default();
        let mut moved = 0;
        let mut todo = self.all_parts();
        while !todo.is_empty() && errors.is_empty() {
            let failed = self.work_off(&mut todo, BATCH).await;
            let (bad, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(|failed| self.is_media(failed.status));
            others.into_iter().for_each(|failed| errors.add(failed));
            moved += self.relocate(bad, &mut errors).await;
        }
        let result = errors.into_result();
        self.counters.rescued_blocks.add(moved);
        match result {
            Ok(()) if moved > 0 => self.counters.rescued_writes.add(1),
            Ok(()) => {}
            Err(_) => self.counters.failed_writes.add(1),
        }
        result
    }
}
