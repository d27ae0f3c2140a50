//! The end of a channel to another bdev: where I/O is submitted, for the hot path by callback, elsewhere by future.

use std::{ffi::c_void, future::Future, rc::Rc};

use smallvec::smallvec;
use spdk_sys as sys;

use crate::{
    Bdev, Desc, DmaBuf, Errno, Held, IoId, Status, callback,
    flight::Flight,
    kind::{Flush, Ranged, Read, Reset, Write, WriteZeroes, sealed::Send},
    memory::Memory,
    submit::{Iovecs, Slice, Submitted},
};

/// An I/O channel of an open bdev, for the thread that made it. Clones are the same channel.
#[derive(Clone)]
pub struct Endpoint {
    /// Here, too, so that the hot path finds them at once.
    raw_desc: *mut sys::spdk_bdev_desc,
    raw_channel: *mut sys::spdk_io_channel,
    open: Rc<Open>,
}

/// Keeps descriptor and channel open.
struct Open {
    raw_channel: *mut sys::spdk_io_channel,
    desc: Desc,
}

impl Endpoint {
    /// A channel for the current thread. The bdev stays open as long as it exists.
    pub fn new(desc: &Desc) -> Result<Endpoint, Errno> {
        // SAFETY: the descriptor is open; SPDK checks that this is one of its threads.
        let raw_channel = unsafe { sys::spdk_bdev_get_io_channel(desc.raw()) };
        if raw_channel.is_null() {
            return Err(Errno::NOMEM);
        }
        let open = Rc::new(Open { raw_channel, desc: desc.clone() });
        Ok(Endpoint { raw_desc: desc.raw(), raw_channel, open })
    }

    /// The descriptor behind it.
    pub fn descriptor(&self) -> &Desc {
        &self.open.desc
    }

    pub(crate) fn channel(&self) -> *mut sys::spdk_io_channel {
        self.raw_channel
    }

    pub(crate) fn bdev(&self) -> *mut sys::spdk_bdev {
        self.open.desc.bdev()
    }

    /// Submits an I/O; `done` is called with `arg` if it was queued.
    ///
    /// # Safety
    /// If `K` has data: the vectors of `slice` and what they point to live until `done` is called.
    #[inline(always)]
    pub(crate) unsafe fn submit<K: Send>(
        &self,
        slice: &Slice,
        done: sys::spdk_bdev_io_completion_cb,
        arg: *mut c_void,
    ) -> Submitted {
        // SAFETY: descriptor and channel are open as long as `self`, which is not Send; the caller vouches for the rest.
        Submitted::of(unsafe { K::send(self.raw_desc, self.raw_channel, slice, done, arg) })
    }

    /// Reads blocks from `lba` on into the whole of `buffer`, which comes back with the outcome.
    pub async fn read(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        self.transfer::<Read>(lba, buffer).await
    }

    /// Writes the whole of `buffer` to blocks from `lba` on; it comes back with the outcome.
    pub async fn write(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        self.transfer::<Write>(lba, buffer).await
    }

    async fn transfer<K: crate::kind::Transfer>(&self, lba: u64, mut buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        let block_size = self.descriptor().info().block_size;
        let blocks = buffer.as_ref().len() as u64 / u64::from(block_size.max(1));
        let iovec = buffer.as_iovec();
        let iovecs = smallvec![sys::iovec { iov_base: iovec.iov_base, iov_len: iovec.iov_len }];
        // SAFETY: the vector is the buffer, which is kept, and comes back with the answer.
        unsafe { Flight::<K, _>::run(self, iovecs, Slice::bare(lba, blocks), buffer).await }
    }

    /// Makes blocks zeros.
    pub async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<(), Status> {
        self.command::<WriteZeroes>(lba, blocks).await
    }

    /// Makes durable what was written to blocks.
    pub async fn flush(&self, lba: u64, blocks: u64) -> Result<(), Status> {
        self.command::<Flush>(lba, blocks).await
    }

    /// Resets the bdev: what is under way is aborted.
    pub async fn reset(&self) -> Result<(), Status> {
        self.command::<Reset>(0, 0).await
    }

    async fn command<K: crate::kind::Kind + Send>(&self, lba: u64, blocks: u64) -> Result<(), Status> {
        const { assert!(!K::HAS_DATA, "there are no buffers for it") };
        // SAFETY: there is no data.
        unsafe { Flight::<K, _>::run(self, Iovecs::new(), Slice::bare(lba, blocks), ()).await.1 }
    }

    /// Does what `held` asks for with `blocks` of its blocks, from the one at `offset` on, at `lba` of this bdev; aborted if it
    /// was given up.
    pub async fn part_of<B: Bdev, K: Ranged>(
        &self,
        held: &Rc<Held<B, K>>,
        offset: u64,
        blocks: u64,
        lba: u64,
    ) -> Result<(), Status> {
        let mut iovecs = Iovecs::new();
        let Some(memory) = held.cut(offset, blocks, &mut iovecs) else {
            log::error!("{:?}: {blocks} blocks at {offset} are no part of it", K::KIND);
            return Err(Status::Failed);
        };
        let slice = Slice { memory, ..Slice::bare(lba, blocks) };
        // SAFETY: the buffers are those of the I/O, which is kept.
        unsafe { Flight::<K, _>::run(self, iovecs, slice, Rc::clone(held)).await.1 }
    }

    /// Makes `blocks` blocks from `lba` on zeros for `held`, by writing zeros: when a bdev that takes no write_zeroes fails it, the
    /// bdev layer hides with which error.
    pub async fn write_zeros_for<B: Bdev>(
        &self,
        held: &Rc<Held<B, WriteZeroes>>,
        blocks: u64,
        lba: u64,
    ) -> Result<(), Status> {
        /// Blocks that are written at one time.
        const AT_ONCE: u64 = 64;
        let info = self.descriptor().info();
        let (block_size, md_size) =
            (info.block_size as usize, if info.md_interleaved { 0 } else { info.md_size as usize });
        let mut done = 0;
        while done < blocks {
            let count = (blocks - done).min(AT_ONCE);
            // At most AT_ONCE.
            let (data, md) = (count as usize * block_size, count as usize * md_size);
            let mut zeros = DmaBuf::zeroed(data + md).ok_or(Status::NoMemory)?;
            let start = zeros.as_iovec().iov_base;
            let iovecs = smallvec![sys::iovec { iov_base: start, iov_len: data }];
            let md = if md > 0 { start.wrapping_byte_add(data) } else { std::ptr::null_mut() };
            let slice = Slice { memory: Memory { md, ..Memory::LOCAL }, ..Slice::bare(lba + done, count) };
            // SAFETY: the vector and the metadata are in the buffer, which is kept.
            unsafe { Flight::<Write, _>::run(self, iovecs, slice, (Rc::clone(held), zeros)).await.1? };
            done += count;
        }
        Ok(())
    }

    /// Aborts what was sent here on this channel for `of`; the answer is whether there was something, and all of it could be.
    /// It is asked for before this returns: whatever is sent later is not meant.
    pub fn abort(&self, of: IoId) -> impl Future<Output = bool> + use<> {
        /// # Safety
        /// SPDK calls it once, with the completed abort and the argument made for it.
        unsafe extern "C" fn done(abort: *mut sys::spdk_bdev_io, success: bool, arg: *mut c_void) {
            // SAFETY: the caller vouches for both.
            unsafe {
                sys::spdk_bdev_free_io(abort);
                callback::answer(arg, success);
            }
        }
        let (arg, answered) = callback::argument::<bool>();
        // SAFETY: as in `submit`. `of` is only compared with what the I/Os on this channel carry.
        let rc = unsafe { sys::spdk_bdev_abort(self.raw_desc, self.raw_channel, of.0, Some(done), arg) };
        // Without a structure it is not waited for one: by then `of` may be another I/O.
        let submitted = Submitted::of(rc) == Submitted::Queued;
        if !submitted {
            // SAFETY: not submitted, so that `done` is never called.
            unsafe { callback::take_back::<bool>(arg) };
        }
        async move { submitted && answered.await.unwrap_or(false) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: got in `new`, on this thread (the type is not Send), put back once.
        unsafe { sys::spdk_put_io_channel(self.raw_channel) }
    }
}
