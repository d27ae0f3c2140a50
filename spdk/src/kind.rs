//! What an I/O asks for: as a value ([`IoKind`]), and as a type, so that what only some I/O has can be asked of those only.

use std::ffi::{c_int, c_void};

use spdk_sys as sys;

use crate::submit::Slice;

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

    #[inline(always)]
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

/// A kind of I/O, as a type.
pub trait Kind: sealed::Sealed + 'static {
    /// The same as a value.
    const KIND: IoKind;
}

/// Kinds that ask for a range of blocks.
pub trait Ranged: Kind + sealed::Send {}

/// Kinds that move data.
pub trait Transfer: Ranged {}

/// What only this crate implements and calls.
pub(crate) mod sealed {
    use super::*;

    /// Nobody else makes kinds.
    pub trait Sealed {}

    /// Kinds that can be sent to another bdev by what is in a [`Slice`].
    pub trait Send {
        /// Whether buffers go with it.
        const HAS_DATA: bool;

        /// SPDK's function for it.
        ///
        /// # Safety
        /// Descriptor and channel are open and belong together, and this is the channel's thread. If there is data, the
        /// vectors and what they point to live until `done` is called, which happens unless the return is not 0.
        unsafe fn send(
            desc: *mut sys::spdk_bdev_desc,
            ch: *mut sys::spdk_io_channel,
            slice: &Slice,
            done: sys::spdk_bdev_io_completion_cb,
            arg: *mut c_void,
        ) -> c_int;
    }
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident $kind:ident) => {
        $(#[$doc])*
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Kind for $name {
            const KIND: IoKind = IoKind::$kind;
        }
    };
}

macro_rules! sent {
    ($name:ident, $has_data:literal, |$desc:ident, $ch:ident, $slice:ident, $done:ident, $arg:ident| $call:expr) => {
        impl sealed::Send for $name {
            const HAS_DATA: bool = $has_data;

            #[inline(always)]
            unsafe fn send(
                $desc: *mut sys::spdk_bdev_desc,
                $ch: *mut sys::spdk_io_channel,
                $slice: &Slice,
                $done: sys::spdk_bdev_io_completion_cb,
                $arg: *mut c_void,
            ) -> c_int {
                // SAFETY: the caller vouches for all of the arguments.
                unsafe { $call }
            }
        }
    };
}

kind!(
    /// A read.
    Read Read
);
kind!(
    /// A write.
    Write Write
);
kind!(
    /// A write of zeroes, without data.
    WriteZeroes WriteZeroes
);
kind!(
    /// The advice that blocks are not needed any more.
    Unmap Unmap
);
kind!(
    /// What was written is to become durable.
    Flush Flush
);
kind!(
    /// All I/O under way is to be aborted.
    Reset Reset
);
kind!(
    /// One I/O under way is to be aborted.
    Abort Abort
);
kind!(
    /// Anything else.
    Other Unsupported
);

sent!(Read, true, |desc, ch, s, done, arg| match s.memory.options() {
    None => sys::spdk_bdev_readv_blocks(desc, ch, s.iovs, s.iovcnt, s.lba, s.blocks, done, arg),
    Some(mut options) =>
        sys::spdk_bdev_readv_blocks_ext(desc, ch, s.iovs, s.iovcnt, s.lba, s.blocks, done, arg, &mut options),
});
sent!(Write, true, |desc, ch, s, done, arg| match s.memory.options() {
    None => sys::spdk_bdev_writev_blocks(desc, ch, s.iovs, s.iovcnt, s.lba, s.blocks, done, arg),
    Some(mut options) =>
        sys::spdk_bdev_writev_blocks_ext(desc, ch, s.iovs, s.iovcnt, s.lba, s.blocks, done, arg, &mut options),
});
sent!(WriteZeroes, false, |desc, ch, s, done, arg| sys::spdk_bdev_write_zeroes_blocks(
    desc, ch, s.lba, s.blocks, done, arg
));
sent!(Unmap, false, |desc, ch, s, done, arg| sys::spdk_bdev_unmap_blocks(desc, ch, s.lba, s.blocks, done, arg));
sent!(Flush, false, |desc, ch, s, done, arg| sys::spdk_bdev_flush_blocks(desc, ch, s.lba, s.blocks, done, arg));
sent!(Reset, false, |desc, ch, _s, done, arg| sys::spdk_bdev_reset(desc, ch, done, arg));

impl Ranged for Read {}
impl Ranged for Write {}
impl Ranged for WriteZeroes {}
impl Ranged for Unmap {}
impl Ranged for Flush {}
impl Transfer for Read {}
impl Transfer for Write {}
