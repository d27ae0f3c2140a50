//! SPDK's function table of a bdev of ours, and the trampolines from there to the trait [`Bdev`].

use std::{
    ffi::{c_int, c_void},
    marker::PhantomData,
    ptr::NonNull,
};

use spdk_sys as sys;

use crate::{
    Bdev, Incoming, IoKind,
    bdev::{channel_of, destruct, node_of},
    io_ref::DriverCtx,
    json,
};

/// The table of bdevs `B`.
pub(crate) struct FunctionTable<B: Bdev>(PhantomData<B>);

impl<B: Bdev> FunctionTable<B> {
    pub(crate) const TABLE: &'static sys::spdk_bdev_fn_table = &{
        // SAFETY: all zeroes is valid, as each function is optional.
        let mut table: sys::spdk_bdev_fn_table = unsafe { std::mem::zeroed() };
        table.destruct = Some(destruct::<B>);
        table.submit_request = Some(submit_request::<B>);
        table.io_type_supported = Some(io_type_supported::<B>);
        table.get_io_channel = Some(get_io_channel);
        table.dump_info_json = Some(dump_info_json::<B>);
        table.write_config_json = Some(write_config_json::<B>);
        table.get_memory_domains = Some(get_memory_domains::<B>);
        table
    };
}

/// # Safety
/// SPDK passes a live I/O of a bdev `B`, with one of its channels, on the thread of both. The I/O has room for a [`DriverCtx`]
/// (`Module::ctx_size`) that nobody else knows.
unsafe extern "C" fn submit_request<B: Bdev>(ch: *mut sys::spdk_io_channel, io: *mut sys::spdk_bdev_io) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let device = node_of::<B>((*io).bdev).device();
        let ctx = (&raw mut (*io).driver_ctx).cast::<DriverCtx>();
        (&raw mut (*ctx).channel).write(ch);
        (&raw mut (*ctx).stamp).write(None);
        device.submit(channel_of::<B>(ch), Incoming::from_raw(NonNull::new_unchecked(io)));
    }
}

/// # Safety
/// SPDK passes the context of a registered bdev `B`.
unsafe extern "C" fn io_type_supported<B: Bdev>(ctx: *mut c_void, kind: sys::spdk_bdev_io_type) -> bool {
    let kind = IoKind::from_raw(kind);
    // SAFETY: the caller vouches for the node.
    kind != IoKind::Unsupported && unsafe { node_of::<B>(ctx.cast()) }.device().supports(kind)
}

/// # Safety
/// SPDK passes the context of a registered bdev, which is its io_device.
unsafe extern "C" fn get_io_channel(ctx: *mut c_void) -> *mut sys::spdk_io_channel {
    // SAFETY: the caller vouches for the io_device.
    unsafe { sys::spdk_get_io_channel(ctx) }
}

/// # Safety
/// SPDK passes the context of a registered bdev `B`, and a writer that has an open object.
unsafe extern "C" fn dump_info_json<B: Bdev>(ctx: *mut c_void, w: *mut sys::spdk_json_write_ctx) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe {
        let (name, value) = node_of::<B>(ctx.cast()).device().info();
        json::write_named(w, name, &value);
    }
    0
}

/// # Safety
/// SPDK passes a registered bdev `B`, and a writer that is inside an array of calls.
unsafe extern "C" fn write_config_json<B: Bdev>(bdev: *mut sys::spdk_bdev, w: *mut sys::spdk_json_write_ctx) {
    // SAFETY: the caller vouches for the bdev.
    if let Some((method, params)) = unsafe { node_of::<B>(bdev) }.device().config() {
        // SAFETY: the caller vouches for the writer.
        unsafe { json::write_value(w, &serde_json::json!({ "method": method, "params": params })) };
    }
}

/// Writes as many as there is room for, and answers how many there are.
///
/// # Safety
/// SPDK passes the context of a registered bdev `B`, and an array of `room` elements or null.
unsafe extern "C" fn get_memory_domains<B: Bdev>(
    ctx: *mut c_void,
    domains: *mut *mut sys::spdk_memory_domain,
    room: c_int,
) -> c_int {
    // SAFETY: the caller vouches for the node.
    let all = unsafe { node_of::<B>(ctx.cast()) }.device().memory_domains();
    let room = if domains.is_null() { 0 } else { usize::try_from(room).unwrap_or(0) };
    for (at, domain) in all.iter().take(room).enumerate() {
        // SAFETY: the array has room for so many.
        unsafe { domains.add(at).write(domain.raw()) };
    }
    c_int::try_from(all.len()).unwrap_or(c_int::MAX)
}
