//! bdev_fault: a vbdev that forwards everything to its base, except what a fault rule makes fail. On demand it has a volatile
//! write cache, loses power, and takes its time.
//!
//! For tests, drills and demos. Loaded, like bdev_remap, by preloading it into a stock SPDK application.

mod cache;
mod device;
mod module;
mod rpc;
mod rules;
mod store;

use spdk::{constructor, logger::SpdkLogger};

static LOGGER: SpdkLogger = SpdkLogger::new(c"bdev_fault");

fn register() {
    LOGGER.install();
    module::MODULE.register();
    rpc::register();
}

constructor!(register);
