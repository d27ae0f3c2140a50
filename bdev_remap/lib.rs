//! bdev_remap: a vbdev that presents a base bdev with its bad blocks replaced by blocks of a spare.
//!
//! Registers itself when it is loaded (preloaded into a stock SPDK application, or linked into one). What it does is in
//! `remap-core`, how it speaks to SPDK is in `spdk`; here the two meet. Each file uses only files further down:
//!
//! ```text
//! rpc         the methods
//! lifecycle   what happens to members
//! assembly    sets that are found or expected
//! delete      a set is deleted, and its spare wiped
//! restore     the table is loaded again
//! moves       blocks are relocated, or given back to the base
//! migrate     a set moves to another spare
//! spareless   the spare goes and comes back while a set is in use
//! growth      base or spare grow, and the set with them
//! close       the end of a set, whoever wants it
//! create      a set is opened, or made
//! scrub       all blocks and all metadata are read
//! waiting     what stands between a set and its coming online
//! members     base and spare: open, claim, identify
//! registry    all sets, and what becomes of them
//! set         one of them
//! options     of the module
//! bdev        the Remap bdev as SPDK sees it
//! io          the hot path
//! rescue      what follows a media error
//! control     RESET and ABORT
//! device      what all threads share
//! channel     what one thread has
//! below       the bdevs below
//! held        the I/O that a channel holds
//! owner       the thread that has the engine
//! disk        base and spare for remap-core
//! runtime     threads and time for remap-core
//! events      what happens, as notifications of SPDK
//! status      errors of SPDK and of remap-core in each other's words
//! module      the module as SPDK knows it
//! ```

#![deny(missing_docs, unsafe_code)]

mod assembly;
mod bdev;
mod below;
mod channel;
mod close;
mod control;
mod create;
mod delete;
mod device;
mod disk;
mod events;
mod growth;
mod held;
mod io;
mod lifecycle;
mod members;
mod migrate;
mod module;
mod moves;
mod options;
mod owner;
mod registry;
mod rescue;
mod restore;
mod rpc;
mod runtime;
mod scrub;
mod set;
mod spareless;
mod status;
mod waiting;

use serde_json::{Value, json};
use spdk::{BdevInfo, BdevModule, Module, logger::SpdkLogger};

use module::{MODULE, RemapModule};

impl BdevModule for RemapModule {
    const EXAMINES: bool = true;

    fn module() -> &'static Module {
        &MODULE
    }

    fn init() {
        events::register();
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
