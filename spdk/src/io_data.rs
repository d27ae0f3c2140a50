//! For modules that look into an I/O's data, or take an I/O up again later. No module on the hot path needs it.

use crate::{
    Bdev, Io,
    bdev::{channel_of, node_of},
    fan::slice_iovecs,
};

impl<B: Bdev> Io<B> {
    /// Copies the data of a write out, from byte `start` of the I/O on. Bytes that the I/O does not have stay as they are.
    pub fn read_data(&self, start: u64, into: &mut [u8]) {
        let mut at = 0;
        self.for_each_piece(start, into.len(), |piece, len| {
            // SAFETY: `piece` is `len` bytes of the I/O's buffers, which live as long as the I/O; `into` is other memory.
            unsafe { std::ptr::copy_nonoverlapping(piece, into[at..at + len].as_mut_ptr(), len) };
            at += len;
        });
    }

    /// Copies data into the buffers of a read, from byte `start` of the I/O on. What goes beyond them is left out.
    pub fn write_data(&self, start: u64, from: &[u8]) {
        let mut at = 0;
        self.for_each_piece(start, from.len(), |piece, len| {
            // SAFETY: as above; the buffers of a read are there to be written until it completes.
            unsafe { std::ptr::copy_nonoverlapping(from[at..at + len].as_ptr(), piece, len) };
            at += len;
        });
    }

    fn for_each_piece(&self, start: u64, len: usize, mut f: impl FnMut(*mut u8, usize)) {
        let mut pieces = Vec::new();
        slice_iovecs(self.iovecs(), start, len as u64, &mut pieces);
        pieces.iter().for_each(|piece| f(piece.iov_base.cast(), piece.iov_len));
    }

    /// Hands the I/O to `f` together with its bdev and its channel, as when it was submitted first.
    pub fn take_up(self, f: impl FnOnce(&B, &B::Channel, Io<B>)) {
        let raw = self.raw();
        // SAFETY: bdev and channel belong to the live I/O and outlive it; they go only after a return to the reactor.
        let (bdev, channel) = unsafe {
            (node_of::<B>((*raw).bdev).device(), channel_of::<B>(spdk_sys::spdk_bdev_io_get_io_channel(raw)))
        };
        f(bdev, channel, self);
    }
}
