//! Memory that devices can reach by DMA.

use std::{ptr::NonNull, slice};

use spdk_sys as sys;

/// Every buffer begins on such a boundary, in bytes: what the strictest device asks for.
const ALIGNMENT: usize = 4096;

/// A zeroed, DMA-able buffer.
pub struct DmaBuf {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is plain memory that belongs to this value alone; SPDK's allocator may be called on any thread.
unsafe impl Send for DmaBuf {}

impl DmaBuf {
    /// `len` bytes of zeroes; None when there is no such memory left.
    pub fn zeroed(len: usize) -> Option<DmaBuf> {
        // SAFETY: no preconditions; the third argument asks for no physical address.
        let start = unsafe { sys::spdk_dma_zmalloc(len, ALIGNMENT, std::ptr::null_mut()) };
        NonNull::new(start.cast()).map(|start| DmaBuf { start, len })
    }

    pub(crate) fn as_iovec(&mut self) -> libc::iovec {
        libc::iovec { iov_base: self.start.as_ptr().cast(), iov_len: self.len }
    }
}

impl AsRef<[u8]> for DmaBuf {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that this value owns.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for DmaBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes that this value owns.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        // SAFETY: came from spdk_dma_zmalloc, is freed once.
        unsafe { sys::spdk_dma_free(self.start.as_ptr().cast()) }
    }
}
