//! Where the buffers of an I/O are: in memory that the CPU reaches, or in a memory domain, of which SPDK knows how a device gets
//! at it (include/spdk/dma.h). Domains are named and passed on here; nothing looks into them.

use std::{ffi::c_void, ptr, ptr::NonNull};

use spdk_sys as sys;

use crate::Desc;

/// A memory domain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MemoryDomain(NonNull<sys::spdk_memory_domain>);

impl MemoryDomain {
    /// The domains of which each of `bdevs` takes the type: I/O in them may go to any of these. A bdev reports the domains that it
    /// knows, and takes others of the same type.
    pub fn common_to(bdevs: &[&Desc]) -> Vec<MemoryDomain> {
        let of_each: Vec<_> = bdevs.iter().map(|bdev| reported_by(bdev)).collect();
        let takes = |of_one: &Vec<MemoryDomain>, kind| of_one.iter().any(|domain| domain.kind() == kind);
        let mut common = Vec::new();
        for domain in of_each.iter().flatten() {
            if !common.contains(domain) && of_each.iter().all(|of_one| takes(of_one, domain.kind())) {
                common.push(*domain);
            }
        }
        common
    }

    /// Which kind of device gets at it.
    fn kind(self) -> sys::spdk_dma_device_type {
        // SAFETY: an open bdev has just reported the domain.
        unsafe { sys::spdk_memory_domain_get_dma_device_type(self.raw()) }
    }

    pub(crate) fn raw(self) -> *mut sys::spdk_memory_domain {
        self.0.as_ptr()
    }
}

fn reported_by(desc: &Desc) -> Vec<MemoryDomain> {
    let bdev = desc.bdev();
    // SAFETY: the bdev lives while it is open; without an array it only counts.
    let count = unsafe { sys::spdk_bdev_get_memory_domains(bdev, ptr::null_mut(), 0) };
    let mut domains = vec![ptr::null_mut(); usize::try_from(count).unwrap_or(0)];
    // SAFETY: as above, and the array has so many elements. What is not written stays null.
    unsafe { sys::spdk_bdev_get_memory_domains(bdev, domains.as_mut_ptr(), count.max(0)) };
    domains.into_iter().filter_map(NonNull::new).map(MemoryDomain).collect()
}

/// What is to be known of the buffers of an I/O besides the vectors of its data.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// The metadata of its blocks, where that is apart from the data; else null.
    pub(crate) md: *mut c_void,
    /// The domain; null for memory that the CPU reaches.
    pub(crate) domain: *mut sys::spdk_memory_domain,
    /// What the domain is told when it is asked for the data.
    pub(crate) domain_ctx: *mut c_void,
}

impl Memory {
    /// Memory that the CPU reaches, and no metadata.
    pub(crate) const LOCAL: Memory =
        Memory { md: ptr::null_mut(), domain: ptr::null_mut(), domain_ctx: ptr::null_mut() };

    /// That of a read or write.
    #[inline(always)]
    pub(crate) fn of(params: &sys::spdk_bdev_io_block_params) -> Memory {
        Memory { md: params.md_buf, domain: params.memory_domain, domain_ctx: params.memory_domain_ctx }
    }

    /// What SPDK is to be told of it with a read or write: nothing of what is usual. The other options stay as they are by default:
    /// bdevs of this crate have no protection information, and execute no accel sequences.
    #[inline(always)]
    pub(crate) fn options(&self) -> Option<sys::spdk_bdev_ext_io_opts> {
        if self.md.is_null() && self.domain.is_null() {
            return None;
        }
        Some(sys::spdk_bdev_ext_io_opts {
            size: size_of::<sys::spdk_bdev_ext_io_opts>() as _,
            memory_domain: self.domain,
            memory_domain_ctx: self.domain_ctx,
            metadata: self.md,
            ..Default::default()
        })
    }
}
