//! The module as SPDK knows it: what claims bdevs, and what Remap bdevs belong to. What it does is said at the top, in `lib.rs`.

use spdk::Module;

/// The type by which SPDK's callbacks find what the module does.
pub struct RemapModule;

/// The module.
pub static MODULE: Module = Module::new::<RemapModule>(c"bdev_remap");
