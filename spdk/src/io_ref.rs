//! What is known of an I/O, typed by what it asks for.

use std::{
    ffi::c_void,
    future::Future,
    marker::PhantomData,
    mem::{align_of, offset_of},
    num::NonZeroU8,
    ptr::NonNull,
};

use spdk_sys as sys;

use crate::{
    Bdev, Status,
    bdev::{channel_of, node_of},
    fan::Fan,
    kind::{Abort, Kind, Ranged, Read, Reset, Transfer},
    memory::Memory,
    submit::{Iovecs, slice_iovecs},
};

/// The module's own part of a bdev I/O (SPDK: `driver_ctx`). SPDK does not clear it: each member is written before use.
#[repr(C)]
pub(crate) struct DriverCtx {
    /// The channel that it was submitted on: SPDK has it too, but behind a call.
    pub(crate) channel: *mut sys::spdk_io_channel,
    /// See [`IoRef::stamp`].
    pub(crate) stamp: Option<NonZeroU8>,
    pub(crate) wait: sys::spdk_bdev_io_wait_entry,
    /// What [`crate::Io::wait`] was told to remember.
    pub(crate) mark: u64,
    pub(crate) fan: Fan,
}

const _: () = assert!(
    offset_of!(sys::spdk_bdev_io, driver_ctx).is_multiple_of(align_of::<DriverCtx>()),
    "SPDK aligns driver_ctx for what is in there"
);

/// Which I/O it is, among those that are under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IoId(pub(crate) *mut c_void);

/// What is known of an I/O to a bdev `B` that asks for `K`.
///
/// # Invariants
/// The I/O was submitted to a bdev `B` on one of its channels, is of type `K`, and is live; this is its thread.
pub struct IoRef<B: Bdev, K: Kind> {
    pub(crate) raw: NonNull<sys::spdk_bdev_io>,
    of: PhantomData<*const (B, K)>,
}

impl<B: Bdev, K: Kind> IoRef<B, K> {
    /// # Safety
    /// The invariants of the type hold as long as this exists.
    #[inline(always)]
    pub(crate) unsafe fn new(raw: NonNull<sys::spdk_bdev_io>) -> IoRef<B, K> {
        IoRef { raw, of: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut sys::spdk_bdev_io {
        self.raw.as_ptr()
    }

    /// Which I/O it is. Its children to other bdevs carry this.
    #[inline]
    pub fn id(&self) -> IoId {
        IoId(self.raw().cast())
    }

    /// The bdev it was submitted to.
    #[inline]
    pub fn bdev(&self) -> &B {
        // SAFETY: the I/O was submitted to a bdev B, which outlives its I/Os.
        unsafe { node_of::<B>((*self.raw()).bdev).device() }
    }

    /// The channel it was submitted on.
    #[inline]
    pub fn channel(&self) -> &B::Channel {
        // SAFETY: the I/O was submitted on a channel of a bdev B, which outlives its I/Os; it was written then.
        unsafe { channel_of::<B>((*self.driver_ctx()).channel) }
    }

    /// When the I/O ends, [`Bdev::ended`] gets this.
    #[inline]
    pub fn stamp(&self, stamp: NonZeroU8) {
        // SAFETY: the field is inside the live I/O, and there is no reference to it.
        unsafe { (&raw mut (*self.driver_ctx()).stamp).write(Some(stamp)) };
    }

    /// The I/O ends now.
    #[inline]
    pub(crate) fn ends(&self) {
        // SAFETY: as above; it was written when the I/O was submitted.
        if let Some(stamp) = unsafe { (*self.driver_ctx()).stamp } {
            B::ended(self.channel(), stamp);
        }
    }

    #[inline]
    pub(crate) fn driver_ctx(&self) -> *mut DriverCtx {
        // SAFETY: the field is inside the live I/O.
        unsafe { (&raw mut (*self.raw()).driver_ctx).cast() }
    }
}

impl<B: Bdev, K: Ranged> IoRef<B, K> {
    #[inline(always)]
    pub(crate) fn params(&self) -> &sys::spdk_bdev_io_block_params {
        // SAFETY: the I/O is live, and for its kind this is the member of the union that is set.
        unsafe { (*self.raw()).u.bdev.as_ref() }
    }

    /// Its first block.
    #[inline(always)]
    pub fn lba(&self) -> u64 {
        self.params().offset_blocks
    }

    /// Its number of blocks.
    #[inline(always)]
    pub fn blocks(&self) -> u64 {
        self.params().num_blocks
    }

    /// Whether its data is in a memory domain, out of the CPU's reach.
    pub fn in_memory_domain(&self) -> bool {
        K::HAS_DATA && !self.params().memory_domain.is_null()
    }

    /// Bytes in a block of its bdev.
    pub(crate) fn block_size(&self) -> u64 {
        // SAFETY: the bdev outlives its I/Os.
        u64::from(unsafe { (*(*self.raw()).bdev).blocklen })
    }

    /// How many vectors of buffers it has.
    pub(crate) fn vectors(&self) -> usize {
        if K::HAS_DATA { usize::try_from(self.params().iovcnt).unwrap_or(0) } else { 0 }
    }

    /// Appends to `out` the vectors of `blocks` of its blocks, from the one at `offset` on, if its kind has any; yields
    /// what else there is to know of their memory. None if the I/O does not have those blocks, or no buffers for them.
    pub(crate) fn cut(&self, offset: u64, blocks: u64, out: &mut Iovecs) -> Option<Memory> {
        offset.checked_add(blocks).filter(|end| *end <= self.blocks())?;
        let params = self.params();
        if !K::HAS_DATA {
            return Some(Memory::LOCAL);
        }
        let vectors = self.vectors();
        if params.iovs.is_null() || vectors == 0 {
            return None;
        }
        // SAFETY: SPDK keeps the vector until the I/O is completed; its kind has one.
        let iovecs = unsafe { std::slice::from_raw_parts(params.iovs, vectors) };
        let size = self.block_size();
        if !slice_iovecs(iovecs, offset * size, blocks * size, out) {
            return None;
        }
        let memory = Memory::of(params);
        if memory.md.is_null() {
            return Some(memory);
        }
        // SAFETY: the bdev outlives its I/Os.
        let md_len = u64::from(unsafe { (*(*self.raw()).bdev).md_len });
        // The metadata buffer has md_len bytes for each of the I/O's blocks. It may be in a domain: an address, and no memory here.
        let bytes = usize::try_from(offset * md_len).ok()?;
        Some(Memory { md: memory.md.wrapping_byte_add(bytes), ..memory })
    }
}

impl<B: Bdev, K: Transfer> IoRef<B, K> {
    /// Copies the data of a write out, from byte `start` of the I/O on. Bytes that the I/O does not have stay as they are. Fails if
    /// the data is in a memory domain.
    pub fn read_data(&self, start: u64, into: &mut [u8]) -> Result<(), Status> {
        let mut at = 0;
        self.for_each_piece(start, into.len(), |piece, len| {
            // SAFETY: `piece` is `len` bytes of the I/O's buffers, which live as long as the I/O; `into` is other memory.
            unsafe { std::ptr::copy_nonoverlapping(piece, into[at..at + len].as_mut_ptr(), len) };
            at += len;
        })
    }

    fn for_each_piece(&self, start: u64, len: usize, mut f: impl FnMut(*mut u8, usize)) -> Result<(), Status> {
        let mut all = Iovecs::new();
        if self.in_memory_domain() || self.cut(0, self.blocks(), &mut all).is_none() {
            return Err(Status::Failed);
        }
        let mut pieces = Iovecs::new();
        slice_iovecs(&all, start, len as u64, &mut pieces);
        pieces.iter().for_each(|piece| f(piece.iov_base.cast(), piece.iov_len));
        Ok(())
    }
}

impl<B: Bdev> IoRef<B, Read> {
    /// Whether it has come without a buffer, so that one must be got for it first.
    #[inline]
    pub fn needs_buffer(&self) -> bool {
        let iovs = self.params().iovs;
        // SAFETY: a vector that is there has at least one element.
        iovs.is_null() || unsafe { (*iovs).iov_base.is_null() }
    }

    /// Copies data into its buffers, from byte `start` of the I/O on. What goes beyond them is left out. Fails if they are in a
    /// memory domain.
    pub fn write_data(&self, start: u64, from: &[u8]) -> Result<(), Status> {
        let mut at = 0;
        self.for_each_piece(start, from.len(), |piece, len| {
            // SAFETY: as in `read_data`; the buffers of a read are there to be written until it completes.
            unsafe { std::ptr::copy_nonoverlapping(from[at..at + len].as_ptr(), piece, len) };
            at += len;
        })
    }
}

impl<B: Bdev> IoRef<B, Reset> {
    /// Calls `visit` on every thread that has a channel of the bdev, with that channel, one thread after the other, and waits for
    /// the future that it returns there. To be awaited before the reset is completed.
    pub async fn visit_channels<F: Future<Output = ()> + 'static>(
        &self,
        visit: impl Fn(&B::Channel) -> F + Send + Sync + 'static,
    ) {
        // SAFETY: the bdev stays registered while it has an I/O under way, and this one is: the reference is to a live one.
        let visited = unsafe { node_of::<B>((*self.raw()).bdev).visit_channels(visit) };
        visited.await;
    }
}

impl<B: Bdev> IoRef<B, Abort> {
    /// Which I/O is to be aborted. It was submitted on this channel, and was under way when the abort was submitted.
    pub fn target(&self) -> IoId {
        // SAFETY: the I/O is live, and for its kind this is the member of the union that is set.
        IoId(unsafe { (*self.raw()).u.abort.as_ref().bio_to_abort }.cast())
    }
}
