//! The atomics of the remap table: the standard ones, or loom's when built with `--cfg loom`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Part of a thing that readers look at: loom then finds a look that does not come behind its making, or before its end.
/// Nothing without loom.
pub(crate) struct Watched(#[cfg(loom)] loom::cell::UnsafeCell<()>);

impl Watched {
    /// The thing is made.
    pub(crate) fn new() -> Watched {
        Watched(
            #[cfg(loom)]
            loom::cell::UnsafeCell::new(()),
        )
    }

    /// Somebody looks at it.
    #[inline(always)]
    pub(crate) fn look(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
    }

    /// It is freed.
    pub(crate) fn end(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }
}
