//! bdev_fault: a vbdev that forwards everything to its base, except what a fault rule makes fail.
//!
//! For tests, drills and demos. Loaded, like bdev_remap, by preloading it into a stock SPDK application.

mod device;
mod rpc;
mod rules;

use spdk::{BdevModule, Module, constructor, logger::SpdkLogger};

struct FaultModule;

impl BdevModule for FaultModule {}

static MODULE: Module = Module::new::<FaultModule>(c"bdev_fault");
static LOGGER: SpdkLogger = SpdkLogger::new(c"bdev_fault");

fn register() {
    LOGGER.install();
    MODULE.register();
    rpc::register();
}

constructor!(register);
