//! A bdev of ours: the trait, registration and teardown.
//!
//! One allocation, the node, is at the same time SPDK's `spdk_bdev`, its io_device and the module's own value, so that the
//! hot path finds everything from the pointer that it is given. The node is reference-counted: SPDK holds one count from
//! registration to the end of destruct, each [`BdevHandle`] another.

use std::{
    cell::UnsafeCell,
    ffi::{CString, c_int, c_void},
    future::Future,
    mem::{align_of, size_of},
    num::NonZeroU8,
    ops::Deref,
    ptr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use spdk_sys as sys;
use uuid::Uuid;

use crate::{
    Errno, Incoming, IoKind, MemoryDomain, Module, callback, fn_table::FunctionTable, thread, visit::visit_channels,
};

/// Where a module's context begins behind an I/O channel.
const CHANNEL_HEADER: usize = sys::SPDK_IO_CHANNEL_STRUCT_SIZE as usize;

/// A block device of this module. The value is shared by all threads; what belongs to one thread is in its channel.
pub trait Bdev: Send + Sync + Sized + 'static {
    /// State of one thread.
    type Channel: 'static;

    /// The module it belongs to.
    fn module() -> &'static Module;

    /// Makes the state of the current thread.
    fn create_channel(&self) -> Result<Self::Channel, Errno>;

    /// Takes an I/O, on the thread of `channel`. Must not block, and ends `io` now or later.
    fn submit(&self, channel: &Self::Channel, io: Incoming<Self>);

    /// An I/O that was stamped ([`crate::IoRef::stamp`]) ends, on the thread of `channel`.
    #[inline]
    fn ended(_channel: &Self::Channel, _stamp: NonZeroU8) {}

    /// Which I/O is taken. Asked at registration only.
    fn supports(&self, kind: IoKind) -> bool;

    /// The memory domains that the data of reads and writes may be in, on any thread. If there are none at registration, the bdev
    /// layer copies what is in any domain. Where there are some, an I/O that comes in one must not be touched, but passed on.
    fn memory_domains(&self) -> Vec<MemoryDomain> {
        Vec::new()
    }

    /// Name and value of the object that `bdev_get_bdevs` shows.
    fn info(&self) -> (&'static str, serde_json::Value);

    /// The RPC call, method and parameters, that makes this bdev again; for `save_config`.
    fn config(&self) -> Option<(&'static str, serde_json::Value)>;

    /// Runs on the app thread when no I/O and no channel is left. Must give up the descriptors of the bdevs below.
    fn destruct(&self) -> impl Future<Output = ()>;
}

/// What SPDK is told of a bdev at registration.
#[derive(Clone, Debug)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// What kind of device it is, for people.
    pub product: &'static str,
    /// Its UUID.
    pub uuid: Uuid,
    /// Number of blocks.
    pub blocks: u64,
    /// Whether it has a volatile cache.
    pub write_cache: bool,
}

#[repr(C)]
struct Node<B: Bdev> {
    /// First, so that a pointer to it is a pointer to the node.
    bdev: UnsafeCell<sys::spdk_bdev>,
    device: B,
    name: CString,
    product: CString,
    /// False from destruct on: then no I/O can come any more.
    registered: AtomicBool,
}

impl<B: Bdev> Node<B> {
    fn io_device(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// What the hot path may know of a node.
pub(crate) struct NodeRef<'a, B: Bdev>(&'a Node<B>);

impl<'a, B: Bdev> NodeRef<'a, B> {
    #[inline]
    pub(crate) fn device(&self) -> &'a B {
        &self.0.device
    }

    /// See [`visit_channels`].
    ///
    /// # Safety
    /// The bdev stays registered until all have been visited.
    pub(crate) unsafe fn visit_channels<F: Future<Output = ()> + 'static>(
        &self,
        visit: impl Fn(&B::Channel) -> F + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + 'static {
        // SAFETY: the caller vouches for the registration.
        unsafe { visit_channels::<B, F>(self.0.io_device(), visit) }
    }
}

/// # Safety
/// `bdev` is a registered bdev `B`, live for `'a`; SPDK passes its node as context, too.
#[inline]
pub(crate) unsafe fn node_of<'a, B: Bdev>(bdev: *mut sys::spdk_bdev) -> NodeRef<'a, B> {
    // SAFETY: the bdev is the first member of its node.
    NodeRef(unsafe { &*bdev.cast::<Node<B>>() })
}

/// # Safety
/// `ch` is a channel of a bdev `B`, live for `'a`, and this is its thread.
#[inline]
pub(crate) unsafe fn channel_of<'a, B: Bdev>(ch: *mut sys::spdk_io_channel) -> &'a B::Channel {
    // SAFETY: create_channel has put the value there.
    unsafe { &*ch.byte_add(CHANNEL_HEADER).cast::<B::Channel>() }
}

/// A handle to a bdev of ours, which keeps its memory; not its registration.
pub struct BdevHandle<B: Bdev>(Arc<Node<B>>);

// SAFETY: the device is Send and Sync by its trait's bounds; the bdev is touched by SPDK, under its own locks, and here
// only on the app thread.
unsafe impl<B: Bdev> Send for BdevHandle<B> {}
// SAFETY: as above.
unsafe impl<B: Bdev> Sync for BdevHandle<B> {}

impl<B: Bdev> Clone for BdevHandle<B> {
    fn clone(&self) -> Self {
        BdevHandle(Arc::clone(&self.0))
    }
}

/// A handle that does not keep the bdev's memory.
pub struct WeakBdev<B: Bdev>(Weak<Node<B>>);

impl<B: Bdev> WeakBdev<B> {
    /// The full handle, while the bdev's memory is there.
    pub fn upgrade(&self) -> Option<BdevHandle<B>> {
        self.0.upgrade().map(BdevHandle)
    }
}

impl<B: Bdev> Deref for BdevHandle<B> {
    type Target = B;
    fn deref(&self) -> &B {
        &self.0.device
    }
}

impl<B: Bdev> BdevHandle<B> {
    /// Registers `device` on top of the bdev behind `below`, whose block format and alignment it takes over. From here on
    /// I/O may come. App thread only. On failure the device goes, now or a moment later, and nothing is left behind.
    pub fn register(device: B, properties: Properties, below: &[&crate::Desc]) -> Result<BdevHandle<B>, Errno> {
        const {
            let alignment = align_of::<B::Channel>();
            let allocated = align_of::<libc::max_align_t>();
            assert!(
                alignment <= allocated && CHANNEL_HEADER.is_multiple_of(alignment),
                "SPDK allocates channels by calloc"
            );
        };
        let name = CString::new(properties.name.as_str()).map_err(|_| Errno::INVAL)?;
        let product = CString::new(properties.product).map_err(|_| Errno::INVAL)?;
        // SAFETY: all zeroes is valid: integers, pointers, list heads that SPDK fills in.
        let bdev = unsafe { std::mem::zeroed() };
        let node =
            Arc::new(Node { bdev: UnsafeCell::new(bdev), device, name, product, registered: AtomicBool::new(true) });
        let raw = node.bdev.get();
        // SAFETY: nobody else knows the bdev yet; the bdevs below are open. `&raw` avoids references to SPDK's own part.
        unsafe {
            (*raw).ctxt = Arc::as_ptr(&node).cast_mut().cast();
            (*raw).name = node.name.as_ptr().cast_mut();
            (*raw).product_name = node.product.as_ptr().cast_mut();
            (*raw).module = B::module().raw();
            (*raw).fn_table = FunctionTable::<B>::TABLE;
            (*raw).blockcnt = properties.blocks;
            (*raw).write_cache = properties.write_cache.into();
            (*raw).uuid.u.raw = properties.uuid.into_bytes();
            let alignment = below.iter().map(|desc| (*desc.bdev()).required_alignment).max();
            (*raw).required_alignment = alignment.unwrap_or(0);
            if let Some(first) = below.first() {
                let first = first.bdev();
                (*raw).blocklen = (*first).blocklen;
                (*raw).phys_blocklen = (*first).phys_blocklen;
                (*raw).md_len = (*first).md_len;
                let interleaved = (*first).__bindgen_anon_1.md_interleave();
                (*raw).__bindgen_anon_1.set_md_interleave(interleaved);
                (*raw).write_unit_size = (*first).write_unit_size;
                (*raw).optimal_io_boundary = (*first).optimal_io_boundary;
                (*raw).numa = (*first).numa;
            }
        }
        let io_device = Arc::as_ptr(&node).cast_mut().cast::<c_void>();
        let size = u32::try_from(size_of::<B::Channel>()).map_err(|_| Errno::INVAL)?;
        // SPDK's own count, taken back at the end of destruct, or below.
        let _ = Arc::into_raw(Arc::clone(&node));
        // SAFETY: the node does not move and lives until both are unregistered; the callbacks fit its type.
        let rc = unsafe {
            let (create, destroy) = (create_channel::<B>, destroy_channel::<B>);
            sys::spdk_io_device_register(io_device, Some(create), Some(destroy), size, node.name.as_ptr());
            sys::spdk_bdev_register(raw)
        };
        match Errno::check(rc) {
            Ok(_) => Ok(BdevHandle(node)),
            Err(errno) => {
                // SAFETY: the node is ours. SPDK writes the status on this thread.
                let status = unsafe { (&raw const (*raw).internal.status).read() };
                // Where SPDK had registered it before it failed, it unregisters it by itself, and the destruct does the rest.
                if !matches!(status, sys::SPDK_BDEV_STATUS_UNREGISTERING | sys::SPDK_BDEV_STATUS_REMOVING) {
                    // SAFETY: no channel was made; the callback takes back SPDK's count.
                    unsafe { sys::spdk_io_device_unregister(io_device, Some(forget_node::<B>)) };
                }
                Err(errno)
            }
        }
    }

    /// A handle that does not keep the memory.
    pub fn downgrade(&self) -> WeakBdev<B> {
        WeakBdev(Arc::downgrade(&self.0))
    }

    /// Unregisters the bdev; resolves when its destruct has ended. Who has it open is told to close it. App thread only.
    /// [`Errno::NODEV`] once the bdev is being destructed, [`Errno::BUSY`] if somebody else unregisters it.
    pub async fn unregister(&self) -> Result<(), Errno> {
        /// # Safety
        /// SPDK calls it once, with the argument made below.
        unsafe extern "C" fn unregistered(arg: *mut c_void, rc: c_int) {
            // SAFETY: the caller vouches for the argument.
            unsafe { callback::answer(arg, rc) };
        }
        if !self.0.registered.load(Ordering::Acquire) {
            return Err(Errno::NODEV);
        }
        let (arg, answered) = callback::argument::<c_int>();
        // SAFETY: the bdev is registered: its destruct has not begun. A second call is answered with -EBUSY.
        unsafe { sys::spdk_bdev_unregister(self.0.bdev.get(), Some(unregistered), arg) };
        Errno::check(answered.await.unwrap_or(0)).map(|_| ())
    }

    /// The bdev has grown to this number of blocks: whoever has it open is told. App thread only. [`Errno::NODEV`] once the bdev is
    /// being destructed, [`Errno::BUSY`] if that would be less than before.
    pub fn grow(&self, blocks: u64) -> Result<(), Errno> {
        if !self.0.registered.load(Ordering::Acquire) {
            return Err(Errno::NODEV);
        }
        // SAFETY: the bdev is registered, and stays so through the call, as the app thread is where its destruct begins.
        let rc = unsafe { sys::spdk_bdev_notify_blockcnt_change(self.0.bdev.get(), blocks) };
        Errno::check(rc).map(|_| ())
    }

    /// Waits until every thread that has a channel has been seen between two callbacks: whoever submits later sees what
    /// was published before this call. App thread only.
    pub async fn grace(&self) {
        self.visit_channels(|_| std::future::ready(())).await;
    }

    /// Calls `visit` on every thread that has a channel of the bdev, with that channel, one thread after the other, and waits for
    /// the future that it returns there. App thread only. Once the bdev is being destructed there are none.
    pub async fn visit_channels<F: Future<Output = ()> + 'static>(
        &self,
        visit: impl Fn(&B::Channel) -> F + Send + Sync + 'static,
    ) {
        if self.0.registered.load(Ordering::Acquire) {
            // SAFETY: the node is registered as io_device, and this is the app thread, as is the one that unregisters it.
            unsafe { visit_channels::<B, _>(self.0.io_device(), visit) }.await;
        }
    }
}

/// # Safety
/// SPDK calls it with a registered node `B` as io_device, and room for a channel at `ctx`.
unsafe extern "C" fn create_channel<B: Bdev>(io_device: *mut c_void, ctx: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for the node.
    let device = unsafe { &(*io_device.cast::<Node<B>>()).device };
    match device.create_channel() {
        Ok(channel) => {
            // SAFETY: there is room, and nothing is there yet.
            unsafe { ptr::write(ctx.cast::<B::Channel>(), channel) };
            0
        }
        Err(errno) => errno.negative(),
    }
}

/// # Safety
/// SPDK calls it once for each channel that was created, on its thread.
unsafe extern "C" fn destroy_channel<B: Bdev>(_io_device: *mut c_void, ctx: *mut c_void) {
    // SAFETY: create_channel has put the value there.
    unsafe { ptr::drop_in_place(ctx.cast::<B::Channel>()) };
}

/// Asynchronous: 1 is returned, and SPDK is told when all is done. First the last channels go, then the device gives up
/// what it has.
///
/// # Safety
/// SPDK calls it once for each node `B` that was registered.
pub(crate) unsafe extern "C" fn destruct<B: Bdev>(ctx: *mut c_void) -> c_int {
    // SAFETY: SPDK's count keeps the node until `destructed` gives it back.
    unsafe {
        (*ctx.cast::<Node<B>>()).registered.store(false, Ordering::Release);
        sys::spdk_io_device_unregister(ctx, Some(destructed::<B>));
    }
    1
}

/// # Safety
/// SPDK calls it once, when no channel of the node `B` is left.
unsafe extern "C" fn destructed<B: Bdev>(io_device: *mut c_void) {
    // SAFETY: takes back the count that `register` took for SPDK, once: nothing of SPDK's refers to the node any more
    // but the unregister callback, which is called below.
    let node = unsafe { Arc::from_raw(io_device.cast::<Node<B>>().cast_const()) };
    thread::spawn(async move {
        node.device.destruct().await;
        // SAFETY: the bdev was registered, and its destruct has returned 1.
        unsafe { sys::spdk_bdev_destruct_done(node.bdev.get(), 0) };
    });
}

/// # Safety
/// SPDK calls it once for a node `B` whose registration failed.
unsafe extern "C" fn forget_node<B: Bdev>(io_device: *mut c_void) {
    // SAFETY: gives back the count that `register` took for SPDK, once.
    drop(unsafe { Arc::from_raw(io_device.cast::<Node<B>>().cast_const()) });
}
