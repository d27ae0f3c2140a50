//! bdev_remap: a vbdev that presents a base bdev with its bad blocks replaced by blocks of a spare.
//!
//! Registers itself when it is loaded (preloaded into a stock SPDK application, or linked into one). What it does is in
//! `remap-core`, how it speaks to SPDK is in `spdk`; here the two meet. Each file uses only files further down:
//!
//! ```text
//! rpc         the methods
//! lifecycle   what happens to members
//! assembly    sets that are found or expected
//! delete, restore
//! close       the end of a set, whoever wants it
//! create
//! waiting     what stands between a set and its coming online
//! members     base and spare: open, claim, identify
//! registry    all sets, and what becomes of them
//! set         one of them                      options   of the module
//! bdev        the Remap bdev as SPDK sees it
//! io          the hot path                     rescue    what follows a media error
//! control     RESET and ABORT                  held      the I/O that a channel holds
//! device      what all threads share           channel   what one thread has
//! owner       the thread that has the engine
//! spare, runtime, status: the spare, the threads and the errors of SPDK for remap-core
//! ```

#![deny(missing_docs, unsafe_code)]

mod assembly;
mod bdev;
mod channel;
mod close;
mod control;
mod create;
mod delete;
mod device;
mod held;
mod io;
mod lifecycle;
mod members;
mod options;
mod owner;
mod registry;
mod rescue;
mod restore;
mod rpc;
mod runtime;
mod set;
mod spare;
mod status;
mod waiting;

use serde_json::{Value, json};
use spdk::{BdevInfo, BdevModule, Module, logger::SpdkLogger};

struct RemapModule;

impl BdevModule for RemapModule {
    const EXAMINES: bool = true;

    fn module() -> &'static Module {
        &MODULE
    }

    fn fini_start() {
        registry::forget_waiting();
    }

    fn config() -> Vec<(&'static str, Value)> {
        let options = options::config().map(|options| ("bdev_remap_set_module_options", options));
        let expected = registry::expected().into_iter().map(|set| ("bdev_remap_expect", json!(set)));
        options.into_iter().chain(expected).collect()
    }

    fn examine_config(bdev: &BdevInfo) {
        assembly::appeared(bdev);
    }

    fn examine_disk(name: String) -> impl Future<Output = ()> + 'static {
        assembly::examine(name)
    }
}

static MODULE: Module = Module::new::<RemapModule>(c"bdev_remap");
static LOGGER: SpdkLogger = SpdkLogger::new(c"bdev_remap");

fn register() {
    LOGGER.install();
    members::listen(lifecycle::on_event);
    MODULE.register();
    rpc::register();
}

#[allow(unsafe_code)]
mod loading {
    spdk::constructor!(super::register);
}
