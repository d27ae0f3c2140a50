//! One I/O as several children: the parent waits for all of them and is taken up once, with the first error.

use std::{ffi::c_void, mem::size_of, ptr::NonNull};

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
    /// The children's vectors: slices of the parent's buffers. They have room for all of them from the beginning, so that none moves.
    iovecs: Iovecs,
}

const _: () = assert!(size_of::<Fan>() <= 128, "the driver context stays small: it is part of every bdev I/O");

impl<B: Bdev, K: Ranged> Io<B, K> {
    /// Sends blocks of the I/O to other bdevs: `parts`, a window of children, in ascending order, `None` if there is no such bdev; `next`
    /// is where the blocks begin that are not in this window. When there is no I/O structure for some part, it and those behind it are
    /// left out.
    pub fn fan_out<'a, H: OnFan<B, K>>(self, parts: impl ExactSizeIterator<Item = Option<Part<'a>>>, next: u64) {
        // A part has one vector more than there are borders between the parent's vectors in it, and each border is in one part at most.
        let (mut left, mut end) = (parts.len(), 0);
        let room = self.vectors().checked_sub(1).map_or(0, |borders| left + borders);
        let io = self.begin(next, room);
        let slices = parts.map(|part| {
            let part = part.filter(|part| part.offset >= end)?;
            (left, end) = (left.checked_sub(1)?, part.offset.checked_add(part.blocks)?);
            // SAFETY: `send_all` asks while it keeps the parent live, and with it the fan, whose vectors nobody else touches. They have room
            // for those of so many parts, of which none begins before the end of another: those of children under way stay where they are.
            let slice = unsafe {
                let iovecs = &mut (*fan_of::<B, K>(io)).iovecs;
                let first = iovecs.len();
                let memory = IoRef::<B, K>::new(io).cut(part.offset, part.blocks, iovecs)?;
                let iovcnt = i32::try_from(iovecs.len() - first).ok()?;
                Slice { iovs: iovecs.as_mut_ptr().add(first), iovcnt, memory, lba: part.lba, blocks: part.blocks }
            };
            Some((part.to, part.offset, slice))
        });
        // SAFETY: `begin` has just given it.
        unsafe { send_all::<B, K, H>(io, slices) }
    }

    /// Sends it to each of `targets`, with its block range over there (first block and number), instead of its own.
    pub fn broadcast<H: OnFan<B, K>>(self, targets: &[(&Endpoint, u64, u64)]) {
        const { assert!(!K::HAS_DATA, "data goes to one place") };
        let (next, slices) =
            (self.blocks(), targets.iter().map(|(to, lba, blocks)| (*to, 0, Slice::bare(*lba, *blocks))));
        let io = self.begin(next, 0);
        // SAFETY: `begin` has just given it.
        unsafe { send_all::<B, K, H>(io, slices.map(Some)) }
    }

    /// Makes the fan, which has no vectors yet, but room for some.
    fn begin(self, next: u64, room: usize) -> NonNull<sys::spdk_bdev_io> {
        let fan = Fan { pending: 1, outcome: Ok(()), next, sent: Sent::All, iovecs: Iovecs::with_capacity(room) };
        let io = self.into_raw();
        // SAFETY: the I/O was given up just before, and is live; there is room for the fan in its driver context, aligned, which nobody
        // else uses now.
        unsafe { fan_of::<B, K>(io).write(fan) };
        io
    }
}

/// Sends slices: each to its bdev, with the blocks before it. They are asked for one by one; `None` if there is no such slice.
///
/// # Safety
/// `io` is the parent of a fan that has just begun: the caller has the submitter's count, which is given back here.
unsafe fn send_all<'a, B: Bdev, K: Ranged, H: OnFan<B, K>>(
    io: NonNull<sys::spdk_bdev_io>,
    slices: impl Iterator<Item = Option<(&'a Endpoint, u64, Slice)>>,
) {
    for (number, slice) in slices.enumerate() {
        // SAFETY: the submitter's count keeps the parent live, and with it the fan, whose vectors the slices are of, and are not touched by
        // who touches its other members. Children complete on this thread.
        unsafe {
            let fan = fan_of::<B, K>(io);
            let Some((to, offset, slice)) = slice else {
                log::error!("{:?}: part {number} is no part of it, is out of order, or has no bdev to go to", K::KIND);
                (*fan).outcome = (*fan).outcome.and(Err(Status::Failed));
                break;
            };
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
