//! What happens to sets, as notifications of SPDK: `notify_get_notifications` shows them.

use remap_core::{Event, What};
use spdk::notify;

/// What the type of each begins with.
const PREFIX: &str = "bdev_remap_";

/// Makes all types known, so that `notify_get_types` shows them before anything has happened.
pub fn register() {
    What::NAMES.iter().for_each(|name| notify::register(&format!("{PREFIX}{name}")));
}

/// Sends an event.
pub fn send(event: &Event) {
    notify::send(&format!("{PREFIX}{}", event.what.name()), &event.to_string());
}
