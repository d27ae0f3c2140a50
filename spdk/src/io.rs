//! One I/O: the handle that a module gets, and the forwarding of it to another bdev.
//!
//! An [`Io`] is an obligation: it is consumed by what ends it (completing, forwarding, waiting), so that it can be neither
//! completed twice nor used afterwards. One that is dropped is completed as failed: that is a bug, and says so in the log.
//! What is known of an I/O is in [`IoRef`], to which an `Io` dereferences. Both are typed by what the I/O asks for.

use std::{ffi::c_void, mem::ManuallyDrop, ops::Deref, ptr::NonNull};

use spdk_sys as sys;

use crate::{
    Bdev, Child, Endpoint, IoKind, Status,
    bdev::{channel_of, node_of},
    io_ref::IoRef,
    kind::{Abort, Flush, Kind, Other, Ranged, Read, Reset, Unmap, Write, WriteZeroes},
    memory::Memory,
    submit::{Slice, Submitted},
};

/// An I/O to a bdev `B` of this module that asks for `K`, to be ended exactly once, on the thread on which it was submitted.
pub struct Io<B: Bdev, K: Kind>(IoRef<B, K>);

/// An I/O as it comes in.
#[allow(missing_docs)]
pub enum Incoming<B: Bdev> {
    Read(Io<B, Read>),
    Write(Io<B, Write>),
    WriteZeroes(Io<B, WriteZeroes>),
    Unmap(Io<B, Unmap>),
    Flush(Io<B, Flush>),
    Reset(Io<B, Reset>),
    Abort(Io<B, Abort>),
    Other(Io<B, Other>),
}

/// What happens when a forwarded I/O comes back. Implemented by a type without data: nothing is stored for it.
pub trait OnChild<B: Bdev, K: Kind>: 'static {
    /// `child` is the I/O to the other bdev, completed.
    fn done(io: Io<B, K>, child: Child);

    /// There is no I/O structure for the child. Unless told otherwise, the I/O is submitted to its bdev again when there is.
    fn starved(io: Io<B, K>, to: &Endpoint) {
        if let Err(io) = io.wait::<Resubmit>(to, 0) {
            // The layer above tries again.
            io.complete(Err(Status::NoMemory));
        }
    }
}

/// What happens when there is an I/O structure again. Implemented by a type without data.
pub trait OnFree<B: Bdev, K: Kind>: 'static {
    /// `mark` is what was to be remembered.
    fn again(io: Io<B, K>, mark: u64);
}

/// Submits the I/O to its bdev again.
pub enum Resubmit {}

impl<B: Bdev, K: Kind> OnFree<B, K> for Resubmit {
    fn again(io: Io<B, K>, _mark: u64) {
        let raw = io.into_raw();
        // SAFETY: it was given up by the handle above, and is handled from now on by this one only.
        unsafe { Incoming::<B>::from_raw(raw) }.submit();
    }
}

impl<B: Bdev> Incoming<B> {
    /// # Safety
    /// `raw` was submitted to a bdev `B`, is not completed, and no handle stands for it; this is its thread.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::spdk_bdev_io>) -> Incoming<B> {
        // SAFETY: the caller vouches for the I/O, and its type is looked at here.
        unsafe {
            match IoKind::from_raw(u32::from(raw.as_ref().type_)) {
                IoKind::Read => Incoming::Read(Io::from_raw(raw)),
                IoKind::Write => Incoming::Write(Io::from_raw(raw)),
                IoKind::WriteZeroes => Incoming::WriteZeroes(Io::from_raw(raw)),
                IoKind::Unmap => Incoming::Unmap(Io::from_raw(raw)),
                IoKind::Flush => Incoming::Flush(Io::from_raw(raw)),
                IoKind::Reset => Incoming::Reset(Io::from_raw(raw)),
                IoKind::Abort => Incoming::Abort(Io::from_raw(raw)),
                IoKind::Unsupported => Incoming::Other(Io::from_raw(raw)),
            }
        }
    }

    /// Submits it to its bdev.
    fn submit(self) {
        match self {
            Incoming::Read(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Read(io))),
            Incoming::Write(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Write(io))),
            Incoming::WriteZeroes(io) => {
                io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::WriteZeroes(io)))
            }
            Incoming::Unmap(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Unmap(io))),
            Incoming::Flush(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Flush(io))),
            Incoming::Reset(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Reset(io))),
            Incoming::Abort(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Abort(io))),
            Incoming::Other(io) => io.take_up(|bdev, channel, io| bdev.submit(channel, Incoming::Other(io))),
        }
    }
}

impl<B: Bdev, K: Kind> Deref for Io<B, K> {
    type Target = IoRef<B, K>;

    #[inline(always)]
    fn deref(&self) -> &IoRef<B, K> {
        &self.0
    }
}

impl<B: Bdev, K: Kind> Io<B, K> {
    /// # Safety
    /// The invariants of [`IoRef`] hold, the I/O is not completed, and no other `Io` stands for it.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::spdk_bdev_io>) -> Io<B, K> {
        // SAFETY: the caller vouches for it until the I/O is ended, which ends this handle.
        Io(unsafe { IoRef::new(raw) })
    }

    /// Gives the I/O up to C code, from where it comes back by `from_raw`.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> NonNull<sys::spdk_bdev_io> {
        ManuallyDrop::new(self).raw
    }

    /// Hands the I/O to `f` together with its bdev and its channel, as when it was submitted first.
    #[inline]
    pub fn take_up(self, f: impl FnOnce(&B, &B::Channel, Io<B, K>)) {
        let raw = self.raw();
        // SAFETY: bdev and channel belong to the live I/O and outlive it; they go only after a return to the reactor.
        let (bdev, channel) =
            unsafe { (node_of::<B>((*raw).bdev).device(), channel_of::<B>((*self.driver_ctx()).channel)) };
        f(bdev, channel, self);
    }

    /// Ends the I/O.
    pub fn complete(self, outcome: Result<(), Status>) {
        self.ends();
        // SAFETY: the handle proves that the I/O is live; it is not Send, so that this is the I/O's thread.
        unsafe { Status::complete(outcome, self.into_raw().as_ptr()) }
    }

    /// Ends the I/O as the forwarded `child` ended.
    #[inline]
    pub fn complete_as(self, child: Child) {
        if child.succeeded() {
            self.ends();
            // SAFETY: as in `complete`.
            unsafe { sys::spdk_bdev_io_complete(self.into_raw().as_ptr(), sys::SPDK_BDEV_IO_STATUS_SUCCESS) };
            // The child goes last: what is submitted meanwhile takes another one, whose memory is not just being written to.
            drop(child);
        } else {
            let outcome = child.outcome();
            drop(child);
            self.complete(outcome);
        }
    }

    /// Hands the I/O to `H`, with `mark`, as soon as SPDK has an I/O structure to spare on this thread. To be called just
    /// after a submission to `to` found none. Gives the I/O back if there are structures after all.
    #[cold]
    pub fn wait<H: OnFree<B, K>>(self, to: &Endpoint, mark: u64) -> Result<(), Self> {
        /// # Safety
        /// SPDK calls it once, with the I/O that was given up below, when its mark was written.
        unsafe extern "C" fn free<B: Bdev, K: Kind, H: OnFree<B, K>>(arg: *mut c_void) {
            let Some(raw) = NonNull::new(arg.cast()) else { return };
            // SAFETY: the caller vouches for the I/O and its mark.
            let (io, mark) = unsafe {
                let io = Io::<B, K>::from_raw(raw);
                let mark = (*io.driver_ctx()).mark;
                (io, mark)
            };
            H::again(io, mark);
        }
        // SAFETY: driver_ctx has room for a DriverCtx (Module::ctx_size); both members are written whole.
        let rc = unsafe {
            let ctx = self.driver_ctx();
            (&raw mut (*ctx).mark).write(mark);
            let entry = &raw mut (*ctx).wait;
            entry.write(wait_entry(to, free::<B, K, H>, self.raw().cast()));
            sys::spdk_bdev_queue_io_wait(to.bdev(), to.channel(), entry)
        };
        match Submitted::of(rc) {
            Submitted::Queued => {
                _ = self.into_raw();
                Ok(())
            }
            Submitted::NoMemory | Submitted::Refused(_) => Err(self),
        }
    }
}

/// An entry for SPDK's queue for I/O structures.
pub(crate) fn wait_entry(
    to: &Endpoint,
    free: unsafe extern "C" fn(*mut c_void),
    arg: *mut c_void,
) -> sys::spdk_bdev_io_wait_entry {
    sys::spdk_bdev_io_wait_entry {
        bdev: to.bdev(),
        cb_fn: Some(free),
        cb_arg: arg,
        // It goes before those that wait to submit more: else each structure that comes free becomes one more I/O that waits
        // here, until nothing is under way any more.
        dep_unblock: true,
        ..Default::default()
    }
}

impl<B: Bdev> Io<B, Read> {
    /// Gets a buffer for a read that came without one, then submits it to the bdev again.
    pub fn get_buffer(self) {
        /// # Safety
        /// SPDK calls it once, with the I/O that was given up below.
        unsafe extern "C" fn got<B: Bdev>(_ch: *mut sys::spdk_io_channel, io: *mut sys::spdk_bdev_io, success: bool) {
            let Some(raw) = NonNull::new(io) else { return };
            // SAFETY: the caller vouches for the I/O.
            let io = unsafe { Io::<B, Read>::from_raw(raw) };
            match success {
                true => Incoming::Read(io).submit(),
                false => io.complete(Err(Status::Failed)),
            }
        }
        let len = self.blocks() * self.block_size();
        // SAFETY: the I/O is a live read.
        unsafe { sys::spdk_bdev_io_get_buf(self.into_raw().as_ptr(), Some(got::<B>), len) };
    }
}

impl<B: Bdev, K: Ranged> Io<B, K> {
    /// Sends the whole I/O to `to`, with its own buffers, `lba` being its place over there. `H` takes it up when it comes
    /// back, or when there is no I/O structure for it; other failures complete it.
    #[inline(always)]
    pub fn forward<H: OnChild<B, K>>(self, to: &Endpoint, lba: u64) {
        if let Err((io, not)) = self.try_to_send::<H>(to, lba) {
            match not {
                Submitted::Refused(errno) => io.refused(errno),
                Submitted::Queued | Submitted::NoMemory => H::starved(io, to),
            }
        }
    }

    /// As [`Io::forward`], where the I/O must not end: gives it back if it could not be sent.
    #[inline(always)]
    pub fn try_forward<H: OnChild<B, K>>(self, to: &Endpoint, lba: u64) -> Result<(), Self> {
        self.try_to_send::<H>(to, lba).map_err(|(io, _)| io)
    }

    #[inline(always)]
    fn try_to_send<H: OnChild<B, K>>(self, to: &Endpoint, lba: u64) -> Result<(), (Self, Submitted)> {
        /// # Safety
        /// SPDK calls it once, with a completed child and the I/O that was given up below, which is not NULL.
        unsafe extern "C" fn done<B: Bdev, K: Kind, H: OnChild<B, K>>(
            child: *mut sys::spdk_bdev_io,
            _success: bool,
            arg: *mut c_void,
        ) {
            // SAFETY: the caller vouches for both.
            let (io, child) =
                unsafe { (Io::<B, K>::from_raw(NonNull::new_unchecked(arg.cast())), Child::from_raw(child)) };
            H::done(io, child);
        }
        let params = self.params();
        let whole = match K::HAS_DATA {
            true => {
                let memory = Memory::of(params);
                Slice { iovs: params.iovs, iovcnt: params.iovcnt, memory, lba, blocks: params.num_blocks }
            }
            false => Slice::bare(lba, params.num_blocks),
        };
        let raw = self.into_raw();
        // SAFETY: the buffers belong to the I/O, which stays live until `done` takes it up again.
        let submitted = unsafe { to.submit::<K>(&whole, Some(done::<B, K, H>), raw.as_ptr().cast()) };
        if submitted == Submitted::Queued {
            return Ok(());
        }
        // SAFETY: the submission failed, so that `done` is never called: the I/O is ours again.
        Err((unsafe { Io::<B, K>::from_raw(raw) }, submitted))
    }

    /// Ends an I/O, or the child of one, that another bdev does not take.
    #[cold]
    fn refused(self, errno: crate::Errno) {
        log::error!("{:?} of {} blocks at LBA {} could not be submitted: {errno}", K::KIND, self.blocks(), self.lba());
        self.complete(Err(Status::Failed));
    }
}

impl<B: Bdev, K: Kind> Drop for Io<B, K> {
    fn drop(&mut self) {
        log::error!("an I/O was dropped without being completed: it is failed");
        self.ends();
        // SAFETY: the handle proves that the I/O is live.
        unsafe { Status::complete(Err(Status::Failed), self.raw()) }
    }
}
