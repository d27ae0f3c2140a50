//! A memory domain of addresses that the CPU cannot use, for tests: whoever touches the data of an I/O in it, instead of having it
//! fetched, dies of a segmentation fault.

use std::{
    ffi::{c_int, c_void},
    ptr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use spdk_sys as sys;

use crate::{
    Bdev, Endpoint, Errno, Held, Ranged, Status,
    flight::Flight,
    memory::Memory,
    submit::{Iovecs, Slice},
};

/// With this bit, no address of a process is valid, neither on x86-64 nor on aarch64.
const HIDDEN: usize = 1 << 55;

/// The domain.
pub struct HiddenMemory(Arc<Inner>);

struct Inner {
    domain: *mut sys::spdk_memory_domain,
    pulls: AtomicU64,
    pushes: AtomicU64,
}

// SAFETY: SPDK's domain is not changed between its creation and its destruction, and may be used on all threads.
unsafe impl Send for Inner {}
// SAFETY: as above; the counters are atomic.
unsafe impl Sync for Inner {}

impl HiddenMemory {
    /// A new domain, of a type that is SPDK's for its users' own.
    pub fn new() -> Result<HiddenMemory, Errno> {
        let mut domain = ptr::null_mut();
        // SAFETY: the name is a C string that SPDK copies, `domain` is written when the return is 0; the callbacks fit.
        unsafe {
            let (kind, name) = (sys::SPDK_DMA_DEVICE_VENDOR_SPECIFIC_TYPE_START, c"hidden".as_ptr());
            Errno::check(sys::spdk_memory_domain_create(&mut domain, kind, ptr::null_mut(), name))?;
            sys::spdk_memory_domain_set_pull(domain, Some(pull));
            sys::spdk_memory_domain_set_push(domain, Some(push));
        }
        Ok(HiddenMemory(Arc::new(Inner { domain, pulls: AtomicU64::new(0), pushes: AtomicU64::new(0) })))
    }

    /// How often data was fetched from it, and how often it was brought to it.
    pub fn pulls_and_pushes(&self) -> (u64, u64) {
        (self.0.pulls.load(Ordering::Relaxed), self.0.pushes.load(Ordering::Relaxed))
    }

    /// Does on `to`, at `lba`, what `held` asks for, with its data in the domain.
    pub async fn send<B: Bdev, K: Ranged>(&self, to: &Endpoint, held: &Rc<Held<B, K>>, lba: u64) -> Result<(), Status> {
        let mut iovecs = Iovecs::new();
        let memory = held.cut(0, held.blocks(), &mut iovecs).ok_or(Status::Failed)?;
        for iovec in &mut iovecs {
            iovec.iov_base = iovec.iov_base.map_addr(|address| address | HIDDEN);
        }
        // The metadata is not hidden: malloc, for one, takes it for local whatever the domain.
        let domain_ctx = Arc::as_ptr(&self.0).cast_mut().cast();
        let memory = Memory { domain: self.0.domain, domain_ctx, ..memory };
        let slice = Slice { memory, ..Slice::bare(lba, held.blocks()) };
        // SAFETY: the buffers are those of the I/O, which is kept, as is the domain.
        unsafe { Flight::<K, _>::run(to, iovecs, slice, (Rc::clone(held), Arc::clone(&self.0))).await.1 }
    }
}

/// # Safety
/// SPDK passes what came with an I/O in this domain, which keeps it, and local vectors.
unsafe extern "C" fn pull(
    _domain: *mut sys::spdk_memory_domain,
    ctx: *mut c_void,
    from: *mut sys::iovec,
    from_count: u32,
    to: *mut sys::iovec,
    to_count: u32,
    done: sys::spdk_memory_domain_data_cpl_cb,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        (*ctx.cast::<Inner>()).pulls.fetch_add(1, Ordering::Relaxed);
        let mut from = revealed(from, from_count);
        sys::spdk_iovcpy(from.as_mut_ptr(), from_count as usize, to, to_count as usize);
        finish(done, arg)
    }
}

/// # Safety
/// As for [`pull`].
unsafe extern "C" fn push(
    _domain: *mut sys::spdk_memory_domain,
    ctx: *mut c_void,
    to: *mut sys::iovec,
    to_count: u32,
    from: *mut sys::iovec,
    from_count: u32,
    done: sys::spdk_memory_domain_data_cpl_cb,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: as in `pull`.
    unsafe {
        (*ctx.cast::<Inner>()).pushes.fetch_add(1, Ordering::Relaxed);
        let mut to = revealed(to, to_count);
        sys::spdk_iovcpy(from, from_count as usize, to.as_mut_ptr(), to_count as usize);
        finish(done, arg)
    }
}

/// The vectors as the CPU can use them.
///
/// # Safety
/// There are `count` of them.
unsafe fn revealed(iovecs: *const sys::iovec, count: u32) -> Vec<sys::iovec> {
    // SAFETY: the caller vouches for their number.
    let iovecs = unsafe { std::slice::from_raw_parts(iovecs, count as usize) };
    let reveal = |iovec: &sys::iovec| sys::iovec {
        iov_base: iovec.iov_base.map_addr(|address| address & !HIDDEN),
        iov_len: iovec.iov_len,
    };
    iovecs.iter().map(reveal).collect()
}

/// # Safety
/// `done` and `arg` are of the callback that is under way, and are used once.
unsafe fn finish(done: sys::spdk_memory_domain_data_cpl_cb, arg: *mut c_void) -> c_int {
    if let Some(done) = done {
        // SAFETY: the caller vouches for both.
        unsafe { done(arg, 0) };
    }
    0
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; no I/O in it is left, as each keeps it.
        unsafe { sys::spdk_memory_domain_destroy(self.domain) };
    }
}
