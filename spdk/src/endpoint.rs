//! The end of a channel to another bdev: where I/O is submitted, for the hot path by callback, elsewhere by future.

use std::{ffi::c_void, ptr, rc::Rc};

use futures_channel::oneshot;
use spdk_sys as sys;

use crate::{Bdev, Child, Desc, DmaBuf, Errno, Io, IoKind, Status, fan::slice_iovecs, io::Slice, thread};

/// An I/O channel of an open bdev, for the thread that made it.
pub struct Endpoint {
    raw_desc: *mut sys::spdk_bdev_desc,
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
        Ok(Endpoint { raw_desc: desc.raw(), raw_channel, desc: desc.clone() })
    }

    /// Another handle to the same channel; on the same thread, as this type is not `Send`.
    pub fn duplicate(&self) -> Result<Endpoint, Errno> {
        Endpoint::new(&self.desc)
    }

    /// The descriptor behind it.
    pub fn descriptor(&self) -> &Desc {
        &self.desc
    }

    pub(crate) fn desc(&self) -> *mut sys::spdk_bdev_desc {
        self.raw_desc
    }

    pub(crate) fn channel(&self) -> *mut sys::spdk_io_channel {
        self.raw_channel
    }

    pub(crate) fn bdev(&self) -> *mut sys::spdk_bdev {
        self.desc.bdev()
    }

    /// Submits an I/O; `done` is called with `arg` unless the return is not 0 (a negative errno).
    ///
    /// # Safety
    /// The buffers of `slice` live until `done` is called, and `done` fits `arg`.
    #[inline(always)] // Where the kind is known, as on the hot path, this is one call.
    pub(crate) unsafe fn submit(
        &self,
        kind: IoKind,
        slice: &Slice,
        done: sys::spdk_bdev_io_completion_cb,
        arg: *mut c_void,
    ) -> i32 {
        let (desc, ch) = (self.raw_desc, self.raw_channel);
        let Slice { iovs, iovcnt, md, lba, blocks } = *slice;
        // SAFETY: descriptor and channel are open as long as `self`; the caller vouches for the rest.
        unsafe {
            match kind {
                IoKind::Read if md.is_null() => {
                    sys::spdk_bdev_readv_blocks(desc, ch, iovs, iovcnt, lba, blocks, done, arg)
                }
                IoKind::Write if md.is_null() => {
                    sys::spdk_bdev_writev_blocks(desc, ch, iovs, iovcnt, lba, blocks, done, arg)
                }
                IoKind::Read => sys::spdk_bdev_readv_blocks_with_md(desc, ch, iovs, iovcnt, md, lba, blocks, done, arg),
                IoKind::Write => {
                    sys::spdk_bdev_writev_blocks_with_md(desc, ch, iovs, iovcnt, md, lba, blocks, done, arg)
                }
                IoKind::WriteZeroes => sys::spdk_bdev_write_zeroes_blocks(desc, ch, lba, blocks, done, arg),
                IoKind::Unmap => sys::spdk_bdev_unmap_blocks(desc, ch, lba, blocks, done, arg),
                IoKind::Flush => sys::spdk_bdev_flush_blocks(desc, ch, lba, blocks, done, arg),
                IoKind::Reset => sys::spdk_bdev_reset(desc, ch, done, arg),
                IoKind::Abort | IoKind::Unsupported => Errno::INVAL.negative(),
            }
        }
    }

    /// Reads blocks from `lba` on into the whole of `buffer`, which comes back with the outcome.
    pub async fn read(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        self.transfer(IoKind::Read, lba, buffer).await
    }

    /// Writes the whole of `buffer` to blocks from `lba` on; it comes back with the outcome.
    pub async fn write(&self, lba: u64, buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        self.transfer(IoKind::Write, lba, buffer).await
    }

    async fn transfer(&self, kind: IoKind, lba: u64, mut buffer: DmaBuf) -> (DmaBuf, Result<(), Status>) {
        let block_size = self.desc.info().block_size;
        let blocks = buffer.as_ref().len() as u64 / u64::from(block_size.max(1));
        let iovec = buffer.as_iovec();
        let iovecs = vec![sys::iovec { iov_base: iovec.iov_base, iov_len: iovec.iov_len }];
        self.run(kind, iovecs, ptr::null_mut(), lba, blocks, buffer).await
    }

    /// An I/O without data: write zeroes, unmap, flush or reset.
    pub async fn command(&self, kind: IoKind, lba: u64, blocks: u64) -> Result<(), Status> {
        self.run(kind, Vec::new(), ptr::null_mut(), lba, blocks, ()).await.1
    }

    /// Does what `io` asks for with `blocks` of its blocks, from the one at `offset` on, at `lba` of this bdev.
    pub async fn part_of<B: Bdev>(&self, io: &Rc<Io<B>>, offset: u64, blocks: u64, lba: u64) -> Result<(), Status> {
        let kind = io.kind();
        let mut iovecs = Vec::new();
        if matches!(kind, IoKind::Read | IoKind::Write) {
            let block_size = u64::from(self.desc.info().block_size);
            slice_iovecs(io.iovecs(), offset * block_size, blocks * block_size, &mut iovecs);
        }
        let md = io.metadata(offset);
        self.run(kind, iovecs, md, lba, blocks, Rc::clone(io)).await.1
    }

    /// Runs one I/O to its end; `keep` owns its buffers and is held until then, also when this future is dropped.
    async fn run<K: 'static>(
        &self,
        kind: IoKind,
        iovecs: Vec<sys::iovec>,
        md: *mut c_void,
        lba: u64,
        blocks: u64,
        keep: K,
    ) -> (K, Result<(), Status>) {
        /// What an I/O under way owns.
        struct Flight<K> {
            keep: K,
            iovecs: Vec<sys::iovec>,
            answer: oneshot::Sender<(K, Result<(), Status>)>,
        }
        unsafe extern "C" fn done<K>(child: *mut sys::spdk_bdev_io, _success: bool, arg: *mut c_void) {
            // SAFETY: SPDK calls this once for each submitted I/O, with the flight that was leaked for it.
            let (child, flight) = unsafe { (Child::from_raw(child), Box::from_raw(arg.cast::<Flight<K>>())) };
            let outcome = child.outcome();
            drop(child);
            // The future may have been dropped: then nobody waits, and what was kept goes here.
            let _ = flight.answer.send((flight.keep, outcome));
        }
        let (answer, answered) = oneshot::channel();
        let mut flight = Box::new(Flight { keep, iovecs, answer });
        loop {
            let iovcnt = i32::try_from(flight.iovecs.len()).unwrap_or(0);
            let slice = Slice { iovs: flight.iovecs.as_mut_ptr(), iovcnt, md, lba, blocks };
            let arg = Box::into_raw(flight);
            // SAFETY: the flight owns the vectors and what they point to, and lives until `done` has it.
            let rc = unsafe { self.submit(kind, &slice, Some(done::<K>), arg.cast()) };
            if rc == 0 {
                break;
            }
            // SAFETY: the submission failed, so that `done` is never called: the flight is ours again.
            flight = unsafe { Box::from_raw(arg) };
            if rc != Errno::NOMEM.negative() {
                log::error!("{kind:?} of {blocks} blocks at LBA {lba} could not be submitted: {:?}", Errno::check(rc));
                return (flight.keep, Err(Status::Failed));
            }
            self.memory_is_free().await;
        }
        match answered.await {
            Ok(landed) => landed,
            // The flight, and the sender in it, goes only in `done`, which sends: SPDK still has it, and for ever.
            Err(_) => std::future::pending().await,
        }
    }

    /// Resolves when SPDK has an I/O structure to spare.
    async fn memory_is_free(&self) {
        /// A queue entry and who waits for it.
        struct Waiter {
            entry: sys::spdk_bdev_io_wait_entry,
            answer: oneshot::Sender<()>,
        }
        unsafe extern "C" fn free(arg: *mut c_void) {
            // SAFETY: the waiter leaked below; SPDK has taken the entry out of its queue and calls this once.
            let waiter = unsafe { Box::from_raw(arg.cast::<Waiter>()) };
            let _ = waiter.answer.send(());
        }
        let (answer, answered) = oneshot::channel();
        // SAFETY: all zeroes is a valid entry: pointers, an optional function, integers.
        let waiter = Box::into_raw(Box::new(Waiter { entry: unsafe { std::mem::zeroed() }, answer }));
        // SAFETY: the waiter lives until `free` takes it, or, if it cannot be queued, until the box is taken back here.
        let rc = unsafe {
            (*waiter).entry.bdev = self.bdev();
            (*waiter).entry.cb_fn = Some(free);
            (*waiter).entry.cb_arg = waiter.cast();
            // What waits here is what others wait for: it goes first.
            (*waiter).entry.dep_unblock = true;
            sys::spdk_bdev_queue_io_wait(self.bdev(), self.channel(), &raw mut (*waiter).entry)
        };
        if rc == 0 {
            // An error means that the waiter has gone, and is as good a reason to try again.
            let _ = answered.await;
        } else {
            // SAFETY: not queued, as there are structures after all, so that the waiter is ours again.
            drop(unsafe { Box::from_raw(waiter) });
            thread::yield_now().await;
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // SAFETY: got in `new`, on this thread (the type is not Send), put back once.
        unsafe { sys::spdk_put_io_channel(self.raw_channel) }
    }
}
