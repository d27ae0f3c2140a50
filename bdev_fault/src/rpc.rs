//! bdev_fault_create, _delete, _inject, _clear, _list, _power_cut, _power_on and _reset.

use std::{ffi::CStr, time::Duration};

use serde::Deserialize;
use spdk::{
    BdevHandle, Desc, Endpoint, Errno,
    rpc::{self, Error, Method},
    wait_for_examine,
};

use crate::{
    device::{self, Fault, Options},
    rules::{self, Rule},
    store::Keep,
};

/// Makes the methods known.
pub fn register() {
    rpc::register::<Create>();
    rpc::register::<Delete>();
    rpc::register::<Inject>();
    rpc::register::<Clear>();
    rpc::register::<List>();
    rpc::register::<PowerCut>();
    rpc::register::<PowerOn>();
    rpc::register::<Reset>();
}

fn find(name: &str) -> Result<BdevHandle<Fault>, Error> {
    device::find(name).ok_or_else(|| Error::new(Errno::NODEV, format!("there is no Fault bdev called {name}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateParams {
    name: String,
    base_bdev: String,
    #[serde(default)]
    volatile_cache: bool,
    #[serde(default)]
    latency_us: u32,
    #[serde(default)]
    hidden_memory: bool,
    #[serde(default)]
    no_flush: bool,
    #[serde(default)]
    hollow_lba: u64,
    #[serde(default)]
    hollow_blocks: u64,
}

struct Create;

impl Method for Create {
    const NAME: &'static CStr = c"bdev_fault_create";
    type Params = CreateParams;
    type Reply = String;

    async fn call(params: CreateParams) -> Result<String, Error> {
        let CreateParams {
            name,
            base_bdev,
            volatile_cache,
            latency_us,
            hidden_memory,
            no_flush,
            hollow_lba,
            hollow_blocks,
        } = params;
        let latency = Duration::from_micros(latency_us.into());
        let hollow = hollow_lba..hollow_lba.saturating_add(hollow_blocks);
        // Other modules have bdevs open that they look at, as long as they do.
        let waited = wait_for_examine().await;
        waited.map_err(|errno| Error::new(errno, format!("bdevs could not be waited for: {errno}")))?;
        let options = Options {
            name: name.clone(),
            base_bdev: base_bdev.clone(),
            volatile_cache,
            latency,
            hidden_memory,
            no_flush,
            hollow,
        };
        match device::create(options) {
            Ok(()) => Ok(name),
            Err(errno) => Err(Error::new(errno, format!("{name} on base_bdev {base_bdev} was not created: {errno}"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameParams {
    name: String,
}

struct Delete;

impl Method for Delete {
    const NAME: &'static CStr = c"bdev_fault_delete";
    type Params = NameParams;
    type Reply = bool;

    async fn call(params: NameParams) -> Result<bool, Error> {
        let NameParams { name } = params;
        match find(&name)?.unregister().await {
            Ok(()) => Ok(true),
            Err(errno) => Err(Error::new(errno, format!("{name} was not deleted: {errno}"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectParams {
    name: String,
    lba: Lbas,
    num_blocks: u64,
    stride: Option<u64>,
    op: rules::Op,
    error: rules::Fault,
    count: Option<u64>,
}

/// The first block of a rule, or of several that are the same otherwise. SPDK takes 1,024 values in a request.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a block, or an array of blocks")]
enum Lbas {
    One(u64),
    Many(Vec<u64>),
}

struct Inject;

impl Method for Inject {
    const NAME: &'static CStr = c"bdev_fault_inject";
    type Params = InjectParams;
    type Reply = bool;

    async fn call(params: InjectParams) -> Result<bool, Error> {
        let InjectParams { name, lba, num_blocks, stride, op, error, count } = params;
        let stride = stride.unwrap_or(1);
        if stride == 0 {
            return Err(Error::invalid("stride", "must be at least 1"));
        }
        if num_blocks == 0 {
            return Err(Error::invalid("num_blocks", "must be at least 1"));
        }
        let lbas = match lba {
            Lbas::One(lba) => vec![lba],
            Lbas::Many(lbas) => lbas,
        };
        let fault = find(&name)?;
        lbas.into_iter().for_each(|lba| fault.rules.add(Rule { lba, num_blocks, stride, op, error, count }));
        Ok(true)
    }
}

struct Clear;

impl Method for Clear {
    const NAME: &'static CStr = c"bdev_fault_clear";
    type Params = NameParams;
    type Reply = bool;

    async fn call(params: NameParams) -> Result<bool, Error> {
        find(&params.name)?.rules.clear();
        Ok(true)
    }
}

struct List;

impl Method for List {
    const NAME: &'static CStr = c"bdev_fault_list";
    type Params = NameParams;
    type Reply = Vec<Rule>;

    async fn call(params: NameParams) -> Result<Vec<Rule>, Error> {
        Ok(find(&params.name)?.rules.list())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerCutParams {
    name: String,
    #[serde(default)]
    keep: Keep,
    #[serde(default)]
    seed: u64,
}

struct PowerCut;

impl Method for PowerCut {
    const NAME: &'static CStr = c"bdev_fault_power_cut";
    type Params = PowerCutParams;
    type Reply = bool;

    async fn call(params: PowerCutParams) -> Result<bool, Error> {
        let PowerCutParams { name, keep, seed } = params;
        match find(&name)?.power_cut(keep, seed).await {
            Ok(()) => Ok(true),
            Err(status) => {
                let why = format!("{name} has no power, but what was to be kept of its cache was lost: {status:?}");
                Err(Error { code: -libc::EIO, message: why })
            }
        }
    }
}

struct PowerOn;

impl Method for PowerOn {
    const NAME: &'static CStr = c"bdev_fault_power_on";
    type Params = NameParams;
    type Reply = bool;

    async fn call(params: NameParams) -> Result<bool, Error> {
        find(&params.name)?.power_on();
        Ok(true)
    }
}

/// Resets any bdev, as a host would: SPDK itself has no method for that.
struct Reset;

impl Method for Reset {
    const NAME: &'static CStr = c"bdev_fault_reset";
    type Params = NameParams;
    type Reply = bool;

    async fn call(params: NameParams) -> Result<bool, Error> {
        let NameParams { name } = params;
        let channel = Desc::open(&name, |_| ()).and_then(|desc| Endpoint::new(&desc));
        let channel = channel.map_err(|errno| Error::new(errno, format!("{name} cannot be opened: {errno}")))?;
        match channel.reset().await {
            Ok(()) => Ok(true),
            Err(status) => Err(Error { code: -libc::EIO, message: format!("{name} was not reset: {status:?}") }),
        }
    }
}
