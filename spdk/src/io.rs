//! One I/O: the handle that a module gets, and the forwarding of it to another bdev.
//!
//! An [`Io`] is consumed by what ends it (completing, forwarding, retrying), so that it can be neither completed twice
//! nor used afterwards. One that is dropped is completed as failed: that is a bug, and says so in the log.

use std::{ffi::c_void, marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};

use spdk_sys as sys;

use crate::{
    Bdev, Endpoint, Errno, Status,
    bdev::{channel_of, node_of},
    fan::Fan,
};

/// What an I/O asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum IoKind {
    Read = sys::SPDK_BDEV_IO_TYPE_READ,
    Write = sys::SPDK_BDEV_IO_TYPE_WRITE,
    Unmap = sys::SPDK_BDEV_IO_TYPE_UNMAP,
    Flush = sys::SPDK_BDEV_IO_TYPE_FLUSH,
    Reset = sys::SPDK_BDEV_IO_TYPE_RESET,
    WriteZeroes = sys::SPDK_BDEV_IO_TYPE_WRITE_ZEROES,
    Abort = sys::SPDK_BDEV_IO_TYPE_ABORT,
    /// Anything else: no module here takes it.
    Unsupported = sys::SPDK_BDEV_IO_TYPE_INVALID,
}

impl IoKind {
    pub(crate) fn raw(self) -> sys::spdk_bdev_io_type {
        self as sys::spdk_bdev_io_type
    }

    #[inline]
    pub(crate) fn from_raw(raw: sys::spdk_bdev_io_type) -> IoKind {
        match raw {
            sys::SPDK_BDEV_IO_TYPE_READ => IoKind::Read,
            sys::SPDK_BDEV_IO_TYPE_WRITE => IoKind::Write,
            sys::SPDK_BDEV_IO_TYPE_UNMAP => IoKind::Unmap,
            sys::SPDK_BDEV_IO_TYPE_FLUSH => IoKind::Flush,
            sys::SPDK_BDEV_IO_TYPE_RESET => IoKind::Reset,
            sys::SPDK_BDEV_IO_TYPE_WRITE_ZEROES => IoKind::WriteZeroes,
            sys::SPDK_BDEV_IO_TYPE_ABORT => IoKind::Abort,
            _ => IoKind::Unsupported,
        }
    }
}

/// The module's own part of a bdev I/O (SPDK: `driver_ctx`). SPDK does not clear it: each member is written before use.
#[repr(C)]
pub(crate) struct DriverCtx {
    pub(crate) wait: sys::spdk_bdev_io_wait_entry,
    pub(crate) fan: Fan,
}

/// An I/O to a bdev `B` of this module, to be ended exactly once, on the thread on which it was submitted.
pub struct Io<B: Bdev> {
    raw: NonNull<sys::spdk_bdev_io>,
    bdev: PhantomData<*const B>,
}

/// What happens when a forwarded I/O comes back. Implemented by a type without data: nothing is stored for it.
pub trait OnChild<B: Bdev>: 'static {
    /// `child` is the I/O to the other bdev, completed.
    fn done(io: Io<B>, child: Child);
}

impl<B: Bdev> Io<B> {
    /// # Safety
    /// `raw` was submitted to a bdev `B`, is not completed, and no other `Io` stands for it.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::spdk_bdev_io>) -> Io<B> {
        Io { raw, bdev: PhantomData }
    }

    /// Gives the I/O up to C code, from where it comes back by `from_raw`.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<sys::spdk_bdev_io> {
        ManuallyDrop::new(self).raw
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut sys::spdk_bdev_io {
        self.raw.as_ptr()
    }

    /// What it asks for.
    #[inline]
    pub fn kind(&self) -> IoKind {
        // SAFETY: the I/O is live while this handle exists.
        IoKind::from_raw(u32::from(unsafe { (*self.raw()).type_ }))
    }

    /// Its first block. Meaningless for resets and aborts.
    #[inline]
    pub fn lba(&self) -> u64 {
        self.params().offset_blocks
    }

    /// Its number of blocks. Meaningless for resets and aborts.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.params().num_blocks
    }

    /// The bdev it was submitted to.
    #[inline]
    pub fn bdev(&self) -> &B {
        // SAFETY: the I/O was submitted to a bdev B, which outlives its I/Os.
        unsafe { node_of::<B>((*self.raw()).bdev).device() }
    }

    /// The channel it was submitted on.
    pub fn channel(&self) -> &B::Channel {
        // SAFETY: the I/O was submitted on a channel of a bdev B, which outlives its I/Os.
        unsafe { channel_of::<B>(sys::spdk_bdev_io_get_io_channel(self.raw())) }
    }

    /// Its buffers.
    pub(crate) fn iovecs(&self) -> &[sys::iovec] {
        let params = self.params();
        let len = usize::try_from(params.iovcnt).unwrap_or(0);
        if params.iovs.is_null() || len == 0 {
            return &[];
        }
        // SAFETY: SPDK keeps the vector until the I/O is completed.
        unsafe { std::slice::from_raw_parts(params.iovs, len) }
    }

    /// Its separate metadata for `offset` blocks on; NULL if it has none.
    pub(crate) fn metadata(&self, offset: u64) -> *mut c_void {
        let md = self.params().md_buf;
        if md.is_null() {
            return md;
        }
        // SAFETY: the I/O is live; its metadata buffer has md_len bytes for each of its blocks.
        unsafe {
            let md_len = u64::from((*(*self.raw()).bdev).md_len);
            md.byte_add(usize::try_from(offset * md_len).unwrap_or(0))
        }
    }

    /// Whether a read has come without a buffer, so that one must be got for it first.
    #[inline]
    pub fn needs_buffer(&self) -> bool {
        let iovs = self.params().iovs;
        // SAFETY: a vector that is there has at least one element.
        iovs.is_null() || unsafe { (*iovs).iov_base.is_null() }
    }

    /// Gets a buffer for a read that came without one, then submits it to the bdev again.
    pub fn get_buffer(self) {
        unsafe extern "C" fn got<B: Bdev>(ch: *mut sys::spdk_io_channel, io: *mut sys::spdk_bdev_io, success: bool) {
            let Some(raw) = NonNull::new(io) else { return };
            // SAFETY: comes back from `get_buffer`, which gave the I/O up; `ch` is the channel it was submitted on.
            let (io, channel) = unsafe { (Io::<B>::from_raw(raw), channel_of::<B>(ch)) };
            if success {
                // SAFETY: the bdev outlives its I/Os.
                unsafe { node_of::<B>((*raw.as_ptr()).bdev) }.device().submit(channel, io);
            } else {
                io.complete(Err(Status::Failed));
            }
        }
        // SAFETY: the I/O is live and of a block type; its bdev too.
        unsafe {
            let len = self.blocks() * u64::from((*(*self.raw()).bdev).blocklen);
            sys::spdk_bdev_io_get_buf(self.into_raw().as_ptr(), Some(got::<B>), len);
        }
    }

    /// Ends the I/O.
    pub fn complete(self, outcome: Result<(), Status>) {
        // SAFETY: the handle proves that the I/O is live; it is not Send, so that this is the I/O's thread.
        unsafe { Status::complete(outcome, self.into_raw().as_ptr()) }
    }

    /// Ends the I/O as the forwarded `child` ended.
    #[inline]
    pub fn complete_as(self, child: Child) {
        if child.succeeded() {
            // The child goes first: the next I/O then finds its memory warm.
            drop(child);
            // SAFETY: as in `complete`.
            unsafe { sys::spdk_bdev_io_complete(self.into_raw().as_ptr(), sys::SPDK_BDEV_IO_STATUS_SUCCESS) };
        } else {
            let outcome = child.outcome();
            drop(child);
            self.complete(outcome);
        }
    }

    /// Sends the whole I/O to `to`, with its own buffers, `lba` being its place over there. `H` takes it up when it comes
    /// back. When there is no memory for it, it is submitted to its bdev again later; other failures complete it. `kind` is
    /// what the I/O asks for: the caller has just looked, and often knows it when this is compiled.
    #[inline(always)]
    pub fn forward<H: OnChild<B>>(self, kind: IoKind, to: &Endpoint, lba: u64) {
        unsafe extern "C" fn done<B: Bdev, H: OnChild<B>>(
            child: *mut sys::spdk_bdev_io,
            _success: bool,
            arg: *mut c_void,
        ) {
            // SAFETY: `arg` is the I/O that `forward` gave up, not NULL; SPDK calls this once, with a completed child.
            let (io, child) =
                unsafe { (Io::<B>::from_raw(NonNull::new_unchecked(arg.cast())), Child::from_raw(child)) };
            H::done(io, child);
        }
        let params = self.params();
        let whole =
            Slice { iovs: params.iovs, iovcnt: params.iovcnt, md: params.md_buf, lba, blocks: params.num_blocks };
        let raw = self.into_raw();
        // SAFETY: the buffers belong to the I/O, which stays live until `done` takes it up again.
        let rc = unsafe { to.submit(kind, &whole, Some(done::<B, H>), raw.as_ptr().cast()) };
        if rc != 0 {
            // SAFETY: the submission failed, so that `done` is never called: the I/O is ours again.
            unsafe { Io::<B>::from_raw(raw) }.not_submitted(rc, to);
        }
    }

    /// Aborts the I/O that this abort names, where it was forwarded to the endpoint that `pick` picks; `H` takes the abort
    /// up when that is decided.
    pub fn forward_abort<H: OnChild<B>>(self, pick: impl FnOnce(&B::Channel) -> &Endpoint) {
        unsafe extern "C" fn done<B: Bdev, H: OnChild<B>>(
            child: *mut sys::spdk_bdev_io,
            _success: bool,
            arg: *mut c_void,
        ) {
            let Some(raw) = NonNull::new(arg.cast()) else { return };
            // SAFETY: as in `forward`.
            let (io, child) = unsafe { (Io::<B>::from_raw(raw), Child::from_raw(child)) };
            H::done(io, child);
        }
        let to = pick(self.channel());
        // SAFETY: the kind is Abort, so that this member of the union is set; children carry their parent as argument.
        let rc = unsafe {
            let target = self.raw().as_ref().map_or(std::ptr::null_mut(), |io| io.u.abort.as_ref().bio_to_abort);
            sys::spdk_bdev_abort(to.desc(), to.channel(), target.cast(), Some(done::<B, H>), self.raw().cast())
        };
        if rc == 0 {
            let _ = self.into_raw();
        } else {
            // Nothing of it is over there (any more): the abort has failed, which is a normal outcome.
            self.complete(Err(Status::Failed));
        }
    }

    #[cold]
    pub(crate) fn not_submitted(self, rc: i32, to: &Endpoint) {
        if rc == Errno::NOMEM.negative() {
            self.resubmit_when_free(to);
        } else {
            log::error!("an I/O could not be submitted: {:?}", Errno::check(rc));
            self.complete(Err(Status::Failed));
        }
    }

    /// Submits the I/O to its bdev again as soon as SPDK has an I/O structure to spare.
    #[cold]
    pub(crate) fn resubmit_when_free(self, to: &Endpoint) {
        unsafe extern "C" fn again<B: Bdev>(arg: *mut c_void) {
            let Some(raw) = NonNull::new(arg.cast()) else { return };
            // SAFETY: `arg` is the I/O that was given up below.
            let io = unsafe { Io::<B>::from_raw(raw) };
            // SAFETY: bdev and channel outlive the I/O, and are not borrowed from the handle that goes into `submit`.
            let (bdev, channel) = unsafe {
                let raw = raw.as_ptr();
                (node_of::<B>((*raw).bdev), channel_of::<B>(sys::spdk_bdev_io_get_io_channel(raw)))
            };
            bdev.device().submit(channel, io);
        }
        // SAFETY: driver_ctx has room for a DriverCtx (Module::ctx_size), aligned to 64 bytes; the entry is written whole.
        let rc = unsafe {
            let wait = &raw mut (*self.driver_ctx()).wait;
            wait.write(sys::spdk_bdev_io_wait_entry {
                bdev: to.bdev(),
                cb_fn: Some(again::<B>),
                cb_arg: self.raw().cast(),
                ..std::mem::zeroed()
            });
            sys::spdk_bdev_queue_io_wait(to.bdev(), to.channel(), wait)
        };
        if rc == 0 {
            let _ = self.into_raw();
        } else {
            // There are structures after all: let the layer above try again.
            self.complete(Err(Status::NoMemory));
        }
    }

    pub(crate) fn driver_ctx(&self) -> *mut DriverCtx {
        // SAFETY: the field is inside the live I/O.
        unsafe { (&raw mut (*self.raw()).driver_ctx).cast() }
    }

    #[inline]
    fn params(&self) -> &sys::spdk_bdev_io_block_params {
        // SAFETY: the I/O is live; plain integers and pointers, whatever member of the union was set.
        unsafe { (*self.raw()).u.bdev.as_ref() }
    }
}

impl<B: Bdev> Drop for Io<B> {
    fn drop(&mut self) {
        log::error!("an I/O was dropped without being completed: it is failed");
        // SAFETY: the handle proves that the I/O is live.
        unsafe { Status::complete(Err(Status::Failed), self.raw()) }
    }
}

/// Part of an I/O's buffers, and where it goes.
pub(crate) struct Slice {
    pub(crate) iovs: *mut sys::iovec,
    pub(crate) iovcnt: i32,
    pub(crate) md: *mut c_void,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
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
