//! Freeing what readers of the table may still look at, once they cannot.

use std::rc::Rc;

use super::Retired;
use crate::device::Env;

/// Waits for a grace period, and frees `retired`.
pub(crate) async fn reclaim<E: Env>(env: Rc<E>, retired: Retired) {
    env.grace().await;
    // SAFETY: `retired` was taken out of the table before `grace` was called, and `Env` promises that every reader that
    // could have begun before has left the table's methods by now.
    unsafe { retired.free() }
}
