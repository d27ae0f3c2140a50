//! Long work in small steps: nothing that the owner thread does holds its reactor for long.

use std::future::poll_fn;
use std::task::Poll;

/// Entries after which long work lets others go on: so few that I/O which is under way on the same reactor gets nearly all of its
/// time, and long work gets what is left.
const ENTRIES: u32 = 64;

/// Lets the thread's other tasks go on first.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Counts the entries of long work.
#[derive(Default)]
pub(crate) struct Pace(u32);

impl Pace {
    /// How many entries there may be between two calls of [`Pace::step`].
    pub(crate) const STRIDE: usize = ENTRIES as usize;

    /// `entries` more are done: lets others go on if it is time to.
    pub(crate) async fn step(&mut self, entries: usize) {
        self.0 = self.0.saturating_add(u32::try_from(entries).unwrap_or(u32::MAX));
        if self.0 >= ENTRIES {
            self.0 = 0;
            yield_now().await;
        }
    }
}
