//! Memory that is about to be looked at: far from the processor, a load that is waited for takes a tenth of a microsecond.

/// Has the cache line with this address fetched, where the processor can, while other work goes on. Any address will do.
#[inline(always)]
pub(super) fn fetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint: it never faults, and nobody sees what it reads.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
