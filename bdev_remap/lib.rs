//! bdev_remap: a vbdev that presents a base bdev with its bad blocks replaced by blocks of a spare.
//!
//! Registers itself when it is loaded (preloaded into a stock SPDK application, or linked into one). What it does is in
//! `remap-core`, how it speaks to SPDK is in `spdk`; here the two meet:
//! [`io`] is the hot path, [`rescue`] what follows a media error, [`spare`] the metadata's way to the spare, [`device`] the
//! bdev itself, [`admin`] its making and end, [`assembly`] its making from what is found, [`rpc`] the methods.

#![deny(missing_docs, unsafe_code)]

mod admin;
mod assembly;
mod channel;
mod device;
mod io;
mod rescue;
mod rpc;
mod spare;
mod status;

use spdk::{BdevInfo, BdevModule, Module, logger::SpdkLogger};

struct RemapModule;

impl BdevModule for RemapModule {
    const EXAMINES: bool = true;

    fn module() -> &'static Module {
        &MODULE
    }

    fn fini_start() {
        assembly::forget_all();
    }

    fn examine_config(bdev: &BdevInfo) {
        assembly::keep_base(bdev);
    }

    fn examine_disk(name: String) -> impl Future<Output = ()> + 'static {
        assembly::examine(name)
    }
}

static MODULE: Module = Module::new::<RemapModule>(c"bdev_remap");
static LOGGER: SpdkLogger = SpdkLogger::new(c"bdev_remap");

fn register() {
    LOGGER.install();
    MODULE.register();
    rpc::register();
}

#[allow(unsafe_code)]
mod loading {
    spdk::constructor!(super::register);
}
