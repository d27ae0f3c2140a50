//! A bdev module: its registration with SPDK before main.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_int, c_void},
    future::Future,
    mem::size_of,
    sync::Once,
};

use serde_json::{Value, json};
use spdk_sys as sys;

use crate::{BdevInfo, Errno, abi, callback, desc::info_of, io_ref::DriverCtx, json, thread};

/// What a module does over its life.
pub trait BdevModule: 'static {
    /// Whether bdevs that appear are shown to this module.
    const EXAMINES: bool = false;
    /// The module itself.
    fn module() -> &'static Module;
    /// The bdev layer starts. App thread.
    fn init() {}
    /// The bdev layer is about to unregister all bdevs: claims that have no bdev on top must be given up now. App thread.
    fn fini_start() {}
    /// All bdevs have gone. App thread.
    fn fini() {}
    /// The RPC calls, method and parameters, that `save_config` writes before those of all bdevs. App thread.
    fn config() -> Vec<(&'static str, Value)> {
        Vec::new()
    }
    /// A bdev of another module has appeared. It may be claimed now, before anybody else, but not read. App thread.
    fn examine_config(_bdev: &BdevInfo) {}
    /// The same bdev, called `name`, unless another module has claimed it: it may be read. Who waits for bdevs to be
    /// examined waits for this. App thread.
    fn examine_disk(_name: String) -> impl Future<Output = ()> + 'static {
        async {}
    }
}

/// A module for SPDK to know; declare one as a `static`.
pub struct Module {
    raw: UnsafeCell<sys::spdk_bdev_module>,
    once: Once,
}

// SAFETY: SPDK writes its own part of it under its own lock; here it is only pointed to.
unsafe impl Sync for Module {}

impl Module {
    /// The module `M`, under `name`.
    pub const fn new<M: BdevModule>(name: &'static CStr) -> Module {
        // SAFETY: all zeroes is valid: optional functions, pointers, integers, booleans, list heads that SPDK fills in.
        let mut raw: sys::spdk_bdev_module = unsafe { std::mem::zeroed() };
        raw.name = name.as_ptr();
        raw.module_init = Some(init::<M>);
        raw.fini_start = Some(fini_start::<M>);
        raw.module_fini = Some(fini::<M>);
        raw.config_json = Some(config_json::<M>);
        raw.get_ctx_size = Some(ctx_size);
        if M::EXAMINES {
            raw.examine_config = Some(examine_config::<M>);
            raw.examine_disk = Some(examine_disk::<M>);
        }
        Module { raw: UnsafeCell::new(raw), once: Once::new() }
    }

    /// Registers the module. To be called before main (from a constructor), when SPDK's list is not yet read; further
    /// calls do nothing. When the application runs on another SPDK than this library was built for, this says so and ends
    /// the process: going on would corrupt memory.
    pub fn register(&'static self) {
        self.once.call_once(|| {
            if let Some(mismatch) = abi::mismatch() {
                // SAFETY: the name is a 'static C string, set in `new`.
                let name = unsafe { CStr::from_ptr((*self.raw.get()).name) }.to_string_lossy();
                eprintln!("bdev module {name} cannot be loaded: {mismatch}");
                std::process::exit(1);
            }
            // SAFETY: 'static, pinned by being a static, with 'static name and functions.
            unsafe { sys::spdk_bdev_module_list_add(self.raw.get()) };
        });
    }

    pub(crate) fn raw(&self) -> *mut sys::spdk_bdev_module {
        self.raw.get()
    }
}

extern "C" fn init<M: BdevModule>() -> c_int {
    M::init();
    0
}

extern "C" fn fini_start<M: BdevModule>() {
    M::fini_start();
}

extern "C" fn fini<M: BdevModule>() {
    M::fini();
}

/// # Safety
/// SPDK passes a writer that is inside an array of calls.
unsafe extern "C" fn config_json<M: BdevModule>(w: *mut sys::spdk_json_write_ctx) -> c_int {
    for (method, params) in M::config() {
        // SAFETY: the caller vouches for the writer.
        unsafe { json::write_value(w, &json!({ "method": method, "params": params })) };
    }
    0
}

/// Waits until no module examines a bdev any more. Not to be called while examining: that would wait for itself. App thread.
pub async fn wait_for_examine() -> Result<(), Errno> {
    /// # Safety
    /// SPDK calls it once, with the argument made below.
    unsafe extern "C" fn examined(arg: *mut c_void) {
        // SAFETY: the caller vouches for the argument.
        unsafe { callback::answer(arg, ()) };
    }
    let (arg, answered) = callback::argument::<()>();
    // SAFETY: the function fits the argument; when it is refused it is never called.
    let rc = unsafe { sys::spdk_bdev_wait_for_examine(Some(examined), arg) };
    if let Err(errno) = Errno::check(rc) {
        // SAFETY: refused, so that the argument is ours again.
        unsafe { callback::take_back::<()>(arg) };
        return Err(errno);
    }
    // An error means that the sender has gone, as it does with SPDK itself.
    let _ = answered.await;
    Ok(())
}

/// SPDK's bdev, unless it is one of the module's own.
///
/// # Safety
/// `bdev` is live.
unsafe fn examined<M: BdevModule>(bdev: *mut sys::spdk_bdev) -> Option<BdevInfo> {
    // SAFETY: the caller vouches for the bdev.
    unsafe { ((*bdev).module != M::module().raw()).then(|| info_of(bdev)) }
}

/// # Safety
/// SPDK passes a live bdev.
unsafe extern "C" fn examine_config<M: BdevModule>(bdev: *mut sys::spdk_bdev) {
    // SAFETY: the caller vouches for the bdev.
    if let Some(info) = unsafe { examined::<M>(bdev) } {
        M::examine_config(&info);
    }
    // SAFETY: exactly once for each call, before it returns.
    unsafe { sys::spdk_bdev_module_examine_done(M::module().raw()) };
}

/// # Safety
/// SPDK passes a live bdev.
unsafe extern "C" fn examine_disk<M: BdevModule>(bdev: *mut sys::spdk_bdev) {
    // SAFETY: the caller vouches for the bdev.
    let info = unsafe { examined::<M>(bdev) };
    thread::spawn(async move {
        if let Some(info) = info {
            M::examine_disk(info.name).await;
        }
        // SAFETY: exactly once for each call, when it has ended.
        unsafe { sys::spdk_bdev_module_examine_done(M::module().raw()) };
    });
}

extern "C" fn ctx_size() -> c_int {
    size_of::<DriverCtx>() as c_int
}

/// Runs a function before main, when the library is loaded: `constructor!(register);`
#[macro_export]
macro_rules! constructor {
    ($function:path) => {
        // SAFETY: the loader calls each pointer in this section once, before main, with arguments that are ignored here.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static CONSTRUCTOR: extern "C" fn() = {
            extern "C" fn construct() {
                $function();
            }
            construct
        };
    };
}
