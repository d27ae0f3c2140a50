//! One I/O as several children: the parent waits for all of them and is taken up once, with the first error.

use std::{ffi::c_void, mem::size_of, ptr::NonNull};

use smallvec::SmallVec;
use spdk_sys as sys;

use crate::{
    Bdev, Child, Endpoint, Io, Status,
    io_ref::IoRef,
    kind::Ranged,
    submit::{Iovecs, Slice, Submitted},
};

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

/// What came of a window of children.
pub struct Window {
    /// The first error, if any child failed.
    pub outcome: Result<(), Status>,
    /// Blocks from the beginning of the parent up to the first one that was not sent.
    pub next: u64,
    /// How much of it could be sent: for the rest there was no I/O structure.
    pub sent: Sent,
}

/// How much of a window could be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Sent {
    All,
    Some,
    Nothing,
}

/// What happens when all children of a window have come back. Implemented by a type without data.
pub trait OnFan<B: Bdev, K: Ranged>: 'static {
    /// The window is over.
    fn done(io: Io<B, K>, window: Window);
}

/// The state of the parent, in its driver context.
pub(crate) struct Fan {
    /// Children under way, and one for the submitter while it submits.
    pending: u32,
    outcome: Result<(), Status>,
    next: u64,
    sent: Sent,
    /// The children's vectors: slices of the parent's buffers. Complete, and left alone, before the first child is submitted.
    iovecs: Iovecs,
}

const _: () = assert!(size_of::<Fan>() <= 128, "the driver context stays small: it is part of every bdev I/O");

impl<B: Bdev, K: Ranged> Io<B, K> {
    /// Sends blocks of the I/O to other bdevs: `parts`, a window of children, in ascending order; `next` is where the blocks
    /// begin that are not in this window. When there is no I/O structure for some part, it and those behind it are left out.
    pub fn fan_out<H: OnFan<B, K>>(self, parts: &[Part<'_>], next: u64) {
        let fan = self.begin(next);
        let mut slices: SmallVec<[(usize, Slice); 4]> = SmallVec::new();
        for part in parts {
            // SAFETY: the fan is in the I/O, which is live, and nobody else knows it yet.
            let iovecs = unsafe { &mut (*fan).iovecs };
            let first = iovecs.len();
            let Some(memory) = self.cut(part.offset, part.blocks, iovecs) else {
                log::error!("{:?}: {} blocks at {} are no part of it", K::KIND, part.blocks, part.offset);
                // SAFETY: as above; it is given up here.
                unsafe { (&raw mut (*fan).iovecs).drop_in_place() };
                return self.complete(Err(Status::Failed));
            };
            let iovcnt = i32::try_from(iovecs.len() - first).unwrap_or(0);
            slices.push((first, Slice { iovcnt, memory, ..Slice::bare(part.lba, part.blocks) }));
        }
        let parts = parts.iter().map(|part| (part.to, part.offset));
        self.send_all::<H>(parts.zip(slices.iter().copied()));
    }

    /// Sends it to each of `targets`, with its block range over there (first block and number), instead of its own.
    pub fn broadcast<H: OnFan<B, K>>(self, targets: &[(&Endpoint, u64, u64)]) {
        const { assert!(!K::HAS_DATA, "data goes to one place") };
        self.begin(self.blocks());
        self.send_all::<H>(targets.iter().map(|(to, lba, blocks)| ((*to, 0), (0, Slice::bare(*lba, *blocks)))));
    }

    /// Makes the fan, which has no vectors yet.
    fn begin(&self, next: u64) -> *mut Fan {
        // SAFETY: room for it in the driver context, aligned, which nobody else uses now.
        unsafe {
            let fan = &raw mut (*self.driver_ctx()).fan;
            fan.write(Fan { pending: 1, outcome: Ok(()), next, sent: Sent::All, iovecs: Iovecs::new() });
            fan
        }
    }

    /// Sends slices: each to its bdev, with the blocks before it, and where in the fan's vectors, which are all there, its own begin.
    fn send_all<'a, H: OnFan<B, K>>(self, slices: impl Iterator<Item = ((&'a Endpoint, u64), (usize, Slice))>) {
        let io = self.into_raw();
        // SAFETY: the I/O was given up just before, and is live; `begin` made its fan, whose vectors stay where they are until it ends.
        let vectors = unsafe { (*fan_of::<B, K>(io)).iovecs.as_mut_ptr() };
        for (number, ((to, offset), (first, slice))) in slices.enumerate() {
            // Inside the vectors, or just behind them for a part that has none.
            let slice = Slice { iovs: vectors.wrapping_add(first), ..slice };
            // SAFETY: the submitter's count keeps the parent live, and with it the fan, whose vectors the slices are of, and are not
            // touched by who touches its other members. Children complete on this thread.
            unsafe {
                let fan = fan_of::<B, K>(io);
                (*fan).pending += 1;
                match to.submit::<K>(&slice, Some(part_done::<B, K, H>), io.as_ptr().cast()) {
                    Submitted::Queued => continue,
                    Submitted::NoMemory => {
                        (*fan).next = offset;
                        (*fan).sent = if number == 0 { Sent::Nothing } else { Sent::Some };
                    }
                    Submitted::Refused(errno) => {
                        log::error!("{:?}: a part could not be submitted: {errno}", K::KIND);
                        (*fan).outcome = (*fan).outcome.and(Err(Status::Failed));
                    }
                }
                // The child does not exist, and gives no count back.
                (*fan).pending -= 1;
            }
            break;
        }
        // SAFETY: the submitter's own count is given back once.
        unsafe { release::<B, K, H>(io) };
    }
}

/// # Safety
/// SPDK calls it once for each child, completed, with the parent as argument, on the parent's thread.
unsafe extern "C" fn part_done<B: Bdev, K: Ranged, H: OnFan<B, K>>(
    child: *mut sys::spdk_bdev_io,
    _success: bool,
    arg: *mut c_void,
) {
    let Some(io) = NonNull::new(arg.cast()) else { return };
    // SAFETY: the caller vouches for both.
    unsafe {
        let child = Child::from_raw(child);
        let fan = fan_of::<B, K>(io);
        (*fan).outcome = (*fan).outcome.and(child.outcome());
        drop(child);
        release::<B, K, H>(io);
    }
}

/// Gives one count back; with the last one the parent is taken up again.
///
/// # Safety
/// `io` is the parent of a fan, and the caller holds one of its counts.
unsafe fn release<B: Bdev, K: Ranged, H: OnFan<B, K>>(io: NonNull<sys::spdk_bdev_io>) {
    // SAFETY: the caller's count keeps the parent and its fan live. With the last one the fan ends here, as the driver context is not
    // dropped.
    let window = unsafe {
        let fan = fan_of::<B, K>(io);
        (*fan).pending -= 1;
        if (*fan).pending > 0 {
            return;
        }
        (&raw mut (*fan).iovecs).drop_in_place();
        Window { outcome: (*fan).outcome, next: (*fan).next, sent: (*fan).sent }
    };
    // SAFETY: nobody else stands for the parent any more.
    H::done(unsafe { Io::<B, K>::from_raw(io) }, window);
}

/// # Safety
/// `io` is a live I/O to a bdev `B` that asks for `K`; this is its thread.
unsafe fn fan_of<B: Bdev, K: Ranged>(io: NonNull<sys::spdk_bdev_io>) -> *mut Fan {
    // SAFETY: the caller vouches for the I/O; the field is inside its driver context.
    unsafe { &raw mut (*IoRef::<B, K>::new(io).driver_ctx()).fan }
}
