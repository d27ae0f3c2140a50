//! The services that remap-core asks for, on the one thread of this program.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_executor::{LocalPool, LocalSpawner};
use futures_timer::Delay;
use remap_core::{Env, Event, Passed, Ranges};

use futures_util::task::LocalSpawnExt;

/// Runs what `begin` begins to its end, and what that spawns meanwhile.
pub fn run<T, F: Future<Output = T>>(begin: impl FnOnce(Offline) -> F) -> T {
    let mut pool = LocalPool::new();
    let env = Offline { began: Instant::now(), spawner: pool.spawner() };
    pool.run_until(begin(env))
}

/// A process without hosts: nobody but the caller looks at anything.
pub struct Offline {
    began: Instant,
    spawner: LocalSpawner,
}

// SAFETY: there is no other thread, and no reader of a table is ever in the midst of looking while a task runs.
unsafe impl Env for Offline {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        Delay::new(time)
    }

    async fn grace(&self) {}

    async fn drain(&self) {}

    async fn close(&self, _blocks: Ranges) {}

    async fn open(&self, _blocks: Ranges) {}

    async fn passed(&self) -> Passed {
        Passed::default()
    }

    fn tell(&self, _event: &Event) {}

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // It fails only when the pool has gone, and with it whoever asks.
        let _ = self.spawner.spawn_local(task);
    }
}
