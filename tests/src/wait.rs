//! Waiting for a condition, with a deadline. Nothing in the tests sleeps for a fixed time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Calls `probe` every 10 ms until it yields a value. Panics, naming `what`, when `limit` is over.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(10));
    }
}

/// As [`wait_for`], for a plain condition.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()))
}
