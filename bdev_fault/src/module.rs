//! The module as SPDK knows it.

use spdk::{BdevModule, Module};

struct FaultModule;

impl BdevModule for FaultModule {
    fn module() -> &'static Module {
        &MODULE
    }
}

/// The module.
pub static MODULE: Module = Module::new::<FaultModule>(c"bdev_fault");
