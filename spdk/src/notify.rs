//! Notifications: what SPDK keeps for whoever asks with `notify_get_notifications`.

use spdk_sys as sys;

use crate::logger::c_string;

/// Bytes of a notification's context, without the NUL behind it; SPDK does not end a longer one.
const CONTEXT_MAX: usize = sys::SPDK_NOTIFY_MAX_CTX_SIZE as usize - 1;

/// From now on `notify_get_types` shows this type of notifications.
pub fn register(name: &str) {
    let name = c_string(name);
    // SAFETY: a C string that lives through the call, which copies it. Where there is no memory for it, it is not shown.
    unsafe { sys::spdk_notify_type_register_once(name.as_ptr()) };
}

/// Sends a notification, from any thread. Of `context` at most 511 bytes are kept.
pub fn send(name: &str, context: &str) {
    let end = (0..=context.len().min(CONTEXT_MAX)).rev().find(|at| context.is_char_boundary(*at)).unwrap_or(0);
    let (name, context) = (c_string(name), c_string(&context[..end]));
    // SAFETY: C strings that live through the call, which copies them; each fits with the NUL behind it.
    unsafe { sys::spdk_notify_send(name.as_ptr(), context.as_ptr()) };
}
