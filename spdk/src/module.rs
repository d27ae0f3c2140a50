//! A bdev module: its registration with SPDK before main.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_int},
    mem::size_of,
    sync::Once,
};

use spdk_sys as sys;

use crate::{abi, io::DriverCtx};

/// What a module does over its life.
pub trait BdevModule: 'static {
    /// The bdev layer starts. App thread.
    fn init() {}
    /// The bdev layer is about to unregister all bdevs: claims that have no bdev on top must be given up now. App thread.
    fn fini_start() {}
    /// All bdevs have gone. App thread.
    fn fini() {}
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
        raw.get_ctx_size = Some(ctx_size);
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

unsafe extern "C" fn init<M: BdevModule>() -> c_int {
    M::init();
    0
}

unsafe extern "C" fn fini_start<M: BdevModule>() {
    M::fini_start();
}

unsafe extern "C" fn fini<M: BdevModule>() {
    M::fini();
}

unsafe extern "C" fn ctx_size() -> c_int {
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
