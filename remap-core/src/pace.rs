//! Long work in small steps: nothing that the owner thread does holds its reactor for long.

use std::future::poll_fn;
use std::hint::black_box;
use std::task::Poll;

/// Entries after which long work lets others go on: so few that I/O which is under way on the same reactor gets nearly all of its
/// time, and long work gets what is left.
const ENTRIES: u32 = 64;
/// The same while hosts, or commits, wait for it: still far less than the 500 us that a reactor may be held.
const ENTRIES_WHILE_HOSTS_WAIT: u32 = 512;

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

/// For long work that frees very many small pieces of memory, between its steps. glibc leaves these as they are until something that is
/// not small is asked for, and joins all of them then: ten thousands hold the thread for milliseconds.
pub(crate) fn join_what_was_freed() {
    drop(black_box(Vec::<u8>::with_capacity(4096)));
}

/// Counts the entries of long work.
#[derive(Clone)]
pub(crate) struct Pace {
    done: u32,
    /// Others go on after so many.
    entries: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { done: 0, entries: ENTRIES }
    }
}

impl Pace {
    /// How many entries there may be between two calls of [`Pace::step`].
    pub(crate) const STRIDE: usize = ENTRIES as usize;
    /// The same while hosts wait.
    pub(crate) const LONG_STRIDE: usize = ENTRIES_WHILE_HOSTS_WAIT as usize;

    /// The pace of work that all writes of hosts wait for, or all commits: it takes most of the reactor's time.
    pub(crate) fn while_hosts_wait() -> Pace {
        Pace { done: 0, entries: ENTRIES_WHILE_HOSTS_WAIT }
    }

    /// `entries` more are done: lets others go on if it is time to.
    pub(crate) async fn step(&mut self, entries: usize) {
        self.done = self.done.saturating_add(u32::try_from(entries).unwrap_or(u32::MAX));
        if self.done >= self.entries {
            self.done = 0;
            yield_now().await;
        }
    }
}
