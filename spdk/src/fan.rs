//! One I/O as several children: the parent waits for all of them and is taken up once, with the first error.

use std::{
    ffi::c_void,
    mem::{MaybeUninit, size_of},
    ptr::NonNull,
};

use spdk_sys as sys;

use crate::{Bdev, Child, Endpoint, Errno, Io, IoKind, Status, io::Slice};

/// Where a part of an I/O goes.
pub struct Part<'a> {
    /// The bdev.
    pub to: &'a Endpoint,
    /// The first block over there.
    pub lba: u64,
    /// Blocks from the beginning of the parent to the beginning of this part.
    pub offset: u64,
    /// Length in blocks.
    pub blocks: u64,
}

/// What happens when all parts have come back. Implemented by a type without data.
pub trait OnFan<B: Bdev>: 'static {
    /// `outcome` is the first error, if any part failed.
    fn done(io: Io<B>, outcome: Result<(), Status>);
}

/// The state of the parent, in its driver context.
pub(crate) struct Fan {
    /// Children under way, and one for the submitter while it submits.
    pending: u32,
    outcome: Result<(), Status>,
    /// Set when a part could not be submitted for want of memory: then the whole I/O is submitted again.
    starved: *const Endpoint,
    /// The children's slices of the parent's buffers; never grows after the first child was submitted.
    iovecs: Vec<sys::iovec>,
}

impl<B: Bdev> Io<B> {
    /// Sends the I/O, in `parts`, to other bdevs. When there is no memory for some part, those that were sent are waited
    /// for and the whole I/O is submitted to its bdev again, which looks again where it must go.
    pub fn fan_out<'a, H: OnFan<B>>(self, parts: &[Part<'a>]) {
        let kind = self.kind();
        let has_data = matches!(kind, IoKind::Read | IoKind::Write);
        // A slice has at most as many vectors as the parent, and each cut between two slices adds at most one.
        let room = if has_data { self.iovecs().len() + parts.len() } else { 0 };
        let fan = Fan { pending: 1, outcome: Ok(()), starved: std::ptr::null(), iovecs: Vec::with_capacity(room) };
        // SAFETY: room for it in the driver context, aligned; written before any child can see it.
        unsafe { (&raw mut (*self.driver_ctx()).fan).write(fan) };
        let io = self.into_raw();
        for part in parts {
            // SAFETY: the submitter's count keeps the parent live; this borrow of the fan ends before the next child's.
            let starved = unsafe { submit_part::<B, H>(io, kind, has_data, part) };
            if starved {
                break;
            }
        }
        // SAFETY: the submitter's own count is given back once.
        unsafe { release::<B, H>(io) };
    }
}

/// Submits one part; true when there is no memory for it, or it failed, so that the others need not be tried.
///
/// # Safety
/// `io` is the parent of a fan whose submitter's count is still held.
unsafe fn submit_part<B: Bdev, H: OnFan<B>>(
    io: NonNull<sys::spdk_bdev_io>,
    kind: IoKind,
    has_data: bool,
    part: &Part,
) -> bool {
    // SAFETY: the parent is live; this second handle is given up again before the function returns.
    let parent = unsafe { Io::<B>::from_raw(io) };
    // SAFETY: fan_out has written the fan; children complete on this thread, so that nobody else touches it now.
    let fan = unsafe { &mut (*parent.driver_ctx()).fan };
    let first = fan.iovecs.len();
    if has_data {
        // SAFETY: the parent is live, and so is its bdev.
        let block_size = u64::from(unsafe { (*(*parent.raw()).bdev).blocklen });
        slice_iovecs(parent.iovecs(), part.offset * block_size, part.blocks * block_size, &mut fan.iovecs);
    }
    let iovcnt = i32::try_from(fan.iovecs.len() - first).unwrap_or(0);
    let slice = Slice {
        iovs: fan.iovecs[first..].as_mut_ptr(),
        iovcnt,
        md: parent.metadata(part.offset),
        lba: part.lba,
        blocks: part.blocks,
    };
    fan.pending += 1;
    let _ = parent.into_raw();
    // SAFETY: the slices live in the fan, and the buffers in the parent, until the last child has come back.
    let rc = unsafe { part.to.submit(kind, &slice, Some(part_done::<B, H>), io.as_ptr().cast()) };
    if rc == 0 {
        return false;
    }
    // SAFETY: as above; the child does not exist, so that its count is taken back here.
    let fan = unsafe { &mut (*driver_ctx(io)).fan };
    fan.pending -= 1;
    if rc == Errno::NOMEM.negative() {
        fan.starved = part.to;
    } else {
        log::error!("a part of an I/O could not be submitted: {:?}", Errno::check(rc));
        fan.outcome = fan.outcome.and(Err(Status::Failed));
    }
    true
}

unsafe extern "C" fn part_done<B: Bdev, H: OnFan<B>>(child: *mut sys::spdk_bdev_io, _success: bool, arg: *mut c_void) {
    let Some(io) = NonNull::new(arg.cast()) else { return };
    // SAFETY: SPDK calls this once for each child, with the parent as argument, on the parent's thread.
    unsafe {
        let child = Child::from_raw(child);
        let fan = &mut (*driver_ctx(io)).fan;
        fan.outcome = fan.outcome.and(child.outcome());
        drop(child);
        release::<B, H>(io);
    }
}

/// Gives one count back; with the last one the parent is taken up again.
///
/// # Safety
/// `io` is the parent of a fan, and the caller holds one of its counts.
unsafe fn release<B: Bdev, H: OnFan<B>>(io: NonNull<sys::spdk_bdev_io>) {
    // SAFETY: the caller's count keeps the parent and its fan live.
    let (outcome, starved) = unsafe {
        let fan = &raw mut (*driver_ctx(io)).fan;
        (*fan).pending -= 1;
        if (*fan).pending > 0 {
            return;
        }
        // The last one: the fan is moved out, as the driver context is not dropped.
        let fan = fan.read();
        (fan.outcome, fan.starved)
    };
    // SAFETY: nobody else stands for the parent any more.
    let io = unsafe { Io::<B>::from_raw(io) };
    // SAFETY: endpoints belong to the channel, which outlives its I/Os.
    match unsafe { starved.as_ref() } {
        Some(to) if outcome.is_ok() => io.resubmit_when_free(to),
        _ => H::done(io, outcome),
    }
}

/// # Safety
/// `io` is a live I/O of this module.
unsafe fn driver_ctx(io: NonNull<sys::spdk_bdev_io>) -> *mut crate::io::DriverCtx {
    // SAFETY: the field is inside the live I/O.
    unsafe { (&raw mut (*io.as_ptr()).driver_ctx).cast() }
}

/// Appends to `out` the vectors that cover `len` bytes from `start` on.
pub(crate) fn slice_iovecs(iovecs: &[sys::iovec], start: u64, len: u64, out: &mut Vec<sys::iovec>) {
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
}

const _: () =
    assert!(size_of::<MaybeUninit<Fan>>() <= 128, "the driver context stays small: it is part of every bdev I/O");
