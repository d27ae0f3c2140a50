//! The submission of an I/O to another bdev, and what comes of it.

use std::{ptr, ptr::NonNull};

use smallvec::SmallVec;
use spdk_sys as sys;

use crate::{Errno, Status, memory::Memory};

/// What came of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Submitted {
    /// It is under way: its callback will be called.
    Queued,
    /// There is no I/O structure for it at this moment.
    NoMemory,
    /// It cannot be done.
    Refused(Errno),
}

impl Submitted {
    #[inline(always)]
    pub(crate) fn of(rc: i32) -> Submitted {
        match Errno::check(rc) {
            Ok(_) => Submitted::Queued,
            Err(Errno::NOMEM) => Submitted::NoMemory,
            Err(errno) => Submitted::Refused(errno),
        }
    }
}

/// A run of blocks of another bdev, and the buffers for them, if it takes any.
#[derive(Clone, Copy)]
pub struct Slice {
    pub(crate) iovs: *mut sys::iovec,
    pub(crate) iovcnt: i32,
    pub(crate) memory: Memory,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
}

impl Slice {
    /// Without buffers.
    pub(crate) fn bare(lba: u64, blocks: u64) -> Slice {
        Slice { iovs: ptr::null_mut(), iovcnt: 0, memory: Memory::LOCAL, lba, blocks }
    }
}

/// Vectors of buffers. A few need no memory of their own.
pub(crate) type Iovecs = SmallVec<[sys::iovec; 4]>;

/// Appends to `out` the vectors that cover `len` bytes from `start` on; true if there are so many.
pub(crate) fn slice_iovecs(iovecs: &[sys::iovec], start: u64, len: u64, out: &mut Iovecs) -> bool {
    let (mut skip, mut left) = (start, len);
    for iov in iovecs {
        let size = iov.iov_len as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = (size - skip).min(left);
        if take == 0 {
            break;
        }
        out.push(sys::iovec { iov_base: iov.iov_base.wrapping_byte_add(skip as usize), iov_len: take as usize });
        left -= take;
        skip = 0;
    }
    left == 0
}

/// A completed I/O to another bdev; freed when dropped.
pub struct Child(NonNull<sys::spdk_bdev_io>);

impl Child {
    /// # Safety
    /// `raw` is a completed I/O that nobody else frees.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut sys::spdk_bdev_io) -> Child {
        // SAFETY: SPDK passes the completed I/O, never NULL.
        Child(unsafe { NonNull::new_unchecked(raw) })
    }

    /// Whether it succeeded.
    #[inline]
    pub fn succeeded(&self) -> bool {
        // SAFETY: completed and not yet freed.
        i32::from(unsafe { self.0.as_ref() }.internal.status) == sys::SPDK_BDEV_IO_STATUS_SUCCESS
    }

    /// How it ended.
    pub fn outcome(&self) -> Result<(), Status> {
        // SAFETY: completed and not yet freed.
        unsafe { Status::of(self.0.as_ptr()) }
    }
}

impl Drop for Child {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: completed, freed once.
        unsafe { sys::spdk_bdev_free_io(self.0.as_ptr()) };
    }
}
