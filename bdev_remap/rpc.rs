//! The JSON-RPC methods. docs/rpc.md describes them for users.

use std::{ffi::CStr, rc::Rc, time::Instant};

use remap_core::{
    AddReport, BaseLba, Epoch, ExtentList, FormatPolicy, ListedExtent, RemapOn, RemoveReport, RestoreReport,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spdk::{
    Errno,
    rpc::{self, Error, Method},
};
use uuid::Uuid;

use crate::{
    assembly,
    create::{By, Creation, Names, create},
    delete::delete,
    device::{Remap, Tuning},
    migrate, moves, options,
    owner::RemapEngine,
    registry,
    restore::restore,
    scrub,
    set::Identity,
    status::to_rpc,
    waiting,
};

/// Extents in one answer of bdev_remap_list, unless told otherwise.
const LIST_DEFAULT: usize = 1024;
/// Extents in one answer at most: SPDK drops the connection when an answer is too large for it.
const LIST_MAX: usize = 16_384;

/// Makes the methods known.
pub fn register() {
    rpc::register::<Create>();
    rpc::register::<Delete>();
    rpc::register::<GetStatus>();
    rpc::register::<List>();
    rpc::register::<Save>();
    rpc::register::<Restore>();
    rpc::register::<Add>();
    rpc::register::<Import>();
    rpc::register::<Remove>();
    rpc::register::<Scrub>();
    rpc::register::<Migrate>();
    rpc::register::<SetOptions>();
    rpc::register::<Expect>();
    rpc::register::<Forget>();
    rpc::register::<SetModuleOptions>();
}

fn engine(device: &Remap) -> Result<Rc<RemapEngine>, Error> {
    let engine = device.engine().map(Rc::clone);
    engine.ok_or_else(|| Error::new(Errno::NODEV, "this is not the thread that owns the remap state"))
}

fn check_storm_limit(limit: Option<u64>) -> Result<(), Error> {
    if limit == Some(0) {
        return Err(Error::invalid("storm_limit", "must be at least 1"));
    }
    Ok(())
}

fn check_rate(max_mbps: Option<u32>) -> Result<(), Error> {
    if max_mbps == Some(0) {
        return Err(Error::invalid("max_mbps", "must be at least 1"));
    }
    Ok(())
}

fn check_not_nil(parameter: &str, uuid: Option<Uuid>) -> Result<(), Error> {
    match uuid {
        Some(uuid) if uuid.is_nil() => Err(Error::invalid(parameter, "must not be nil")),
        _ => Ok(()),
    }
}

struct Create;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateParams {
    name: String,
    base_bdev: String,
    spare_bdev: String,
    uuid: Option<Uuid>,
    format: Option<FormatPolicy>,
    remap_on: Option<RemapOn>,
    storm_limit: Option<u64>,
    #[serde(default = "yes")]
    take_over: bool,
    #[serde(default)]
    wait_for_bdevs: bool,
}

fn yes() -> bool {
    true
}

impl Method for Create {
    const NAME: &'static CStr = c"bdev_remap_create";
    type Params = CreateParams;
    type Reply = String;

    async fn call(params: CreateParams) -> Result<String, Error> {
        let CreateParams { name, base_bdev, spare_bdev, uuid, format, .. } = params;
        let CreateParams { remap_on, storm_limit, take_over, wait_for_bdevs, .. } = params;
        check_storm_limit(storm_limit)?;
        check_not_nil("uuid", uuid)?;
        let creation = Creation {
            names: Names { name: name.clone(), base_bdev, spare_bdev },
            uuid,
            format: format.unwrap_or_default(),
            tuning: Tuning { remap_on, storm_limit },
            by: By::Operator { take_over },
        };
        if wait_for_bdevs && uuid.is_none() {
            return Err(Error::invalid("wait_for_bdevs", "goes with uuid"));
        }
        if !(wait_for_bdevs && assembly::comes_later(&creation)) {
            create(creation).await?;
        }
        Ok(name)
    }
}

struct Delete;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteParams {
    name: String,
    #[serde(default)]
    wipe: bool,
    #[serde(default)]
    force: bool,
}

impl Method for Delete {
    const NAME: &'static CStr = c"bdev_remap_delete";
    type Params = DeleteParams;
    type Reply = bool;

    async fn call(params: DeleteParams) -> Result<bool, Error> {
        let DeleteParams { name, wipe, force } = params;
        if force && !wipe {
            return Err(Error::invalid("force", "goes with wipe"));
        }
        delete(&name, wipe, force).await.map(|()| true)
    }
}

struct GetStatus;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusParams {
    name: Option<String>,
}

impl Method for GetStatus {
    const NAME: &'static CStr = c"bdev_remap_status";
    type Params = StatusParams;
    type Reply = Vec<Value>;

    async fn call(params: StatusParams) -> Result<Vec<Value>, Error> {
        let Some(name) = params.name else {
            let mut all: Vec<_> = registry::online().iter().map(|device| device.describe()).collect();
            all.extend(waiting::describe(None));
            return Ok(all);
        };
        // Others that are not online may have the same name.
        let mut named = waiting::describe(Some(&name));
        match registry::find(&name) {
            Ok((_, device)) => named.insert(0, device.describe()),
            Err(error) if named.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(named)
    }
}

struct List;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    name: String,
    #[serde(default)]
    lba: u64,
    max: Option<usize>,
}

#[derive(Serialize)]
struct Listing {
    extents: Vec<ListedExtent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<BaseLba>,
}

impl Method for List {
    const NAME: &'static CStr = c"bdev_remap_list";
    type Params = ListParams;
    type Reply = Listing;

    async fn call(params: ListParams) -> Result<Listing, Error> {
        let max = params.max.unwrap_or(LIST_DEFAULT);
        if max == 0 {
            return Err(Error::invalid("max", "must be at least 1"));
        }
        let (_, device) = registry::find(&params.name)?;
        let (extents, next) = engine(&device)?.list(BaseLba(params.lba), max.min(LIST_MAX));
        Ok(Listing { extents, next })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameParams {
    name: String,
}

struct Save;

#[derive(Serialize)]
struct Saved {
    epoch: Epoch,
    bytes: u64,
    all_copies: bool,
    duration_us: u128,
}

impl Method for Save {
    const NAME: &'static CStr = c"bdev_remap_save";
    type Params = NameParams;
    type Reply = Saved;

    async fn call(params: NameParams) -> Result<Saved, Error> {
        let (_, device) = registry::find(&params.name)?;
        let began = Instant::now();
        let saved = engine(&device)?.save().await;
        let report = saved.map_err(|error| to_rpc(&params.name, &error))?;
        Ok(Saved {
            epoch: report.epoch,
            bytes: report.bytes,
            all_copies: report.all_copies,
            duration_us: began.elapsed().as_micros(),
        })
    }
}

struct Restore;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreParams {
    name: String,
    #[serde(default)]
    dry_run: bool,
}

impl Method for Restore {
    const NAME: &'static CStr = c"bdev_remap_restore";
    type Params = RestoreParams;
    type Reply = RestoreReport;

    async fn call(params: RestoreParams) -> Result<RestoreReport, Error> {
        restore(&params.name, params.dry_run).await
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeParams {
    name: String,
    lba: u64,
    num_blocks: u64,
}

struct Add;

impl Method for Add {
    const NAME: &'static CStr = c"bdev_remap_add";
    type Params = RangeParams;
    type Reply = AddReport;

    async fn call(params: RangeParams) -> Result<AddReport, Error> {
        moves::add(&params.name, params.lba, params.num_blocks).await
    }
}

struct Import;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportParams {
    name: String,
    extents: ExtentList,
}

impl Method for Import {
    const NAME: &'static CStr = c"bdev_remap_import";
    type Params = ImportParams;
    type Reply = AddReport;

    async fn call(params: ImportParams) -> Result<AddReport, Error> {
        moves::import(&params.name, params.extents).await
    }
}

struct Remove;

impl Method for Remove {
    const NAME: &'static CStr = c"bdev_remap_remove";
    type Params = RangeParams;
    type Reply = RemoveReport;

    async fn call(params: RangeParams) -> Result<RemoveReport, Error> {
        moves::remove(&params.name, params.lba, params.num_blocks).await
    }
}

struct Scrub;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrubParams {
    name: String,
    lba: Option<u64>,
    num_blocks: Option<u64>,
    max_mbps: Option<u32>,
    #[serde(default)]
    cancel: bool,
}

impl Method for Scrub {
    const NAME: &'static CStr = c"bdev_remap_scrub";
    type Params = ScrubParams;
    type Reply = bool;

    async fn call(params: ScrubParams) -> Result<bool, Error> {
        let ScrubParams { name, lba, num_blocks, max_mbps, cancel } = params;
        check_rate(max_mbps)?;
        if !cancel {
            return scrub::start(&name, &scrub::Range { lba, blocks: num_blocks }, max_mbps).map(|()| true);
        }
        if lba.is_some() || num_blocks.is_some() || max_mbps.is_some() {
            return Err(Error::invalid("cancel", "goes with name alone"));
        }
        scrub::cancel(&name).map(|()| true)
    }
}

struct Migrate;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrateCall {
    name: String,
    spare_bdev: Option<String>,
    format: Option<FormatPolicy>,
    max_mbps: Option<u32>,
    #[serde(default)]
    cancel: bool,
}

impl Method for Migrate {
    const NAME: &'static CStr = c"bdev_remap_migrate";
    type Params = MigrateCall;
    type Reply = bool;

    async fn call(params: MigrateCall) -> Result<bool, Error> {
        let MigrateCall { name, spare_bdev, format, max_mbps, cancel } = params;
        if cancel {
            if spare_bdev.is_some() || format.is_some() || max_mbps.is_some() {
                return Err(Error::invalid("cancel", "goes with name alone"));
            }
            return migrate::cancel(&name).map(|()| true);
        }
        let spare_bdev = spare_bdev.ok_or_else(|| Error::invalid("spare_bdev", "is missing"))?;
        check_rate(max_mbps)?;
        let force = match format.unwrap_or_default() {
            FormatPolicy::Auto => false,
            FormatPolicy::Force => true,
            FormatPolicy::Never => {
                return Err(Error::invalid("format", "must be auto or force: the new spare is formatted"));
            }
        };
        migrate::start(&name, migrate::Wish { spare_bdev, force, max_mbps }).await.map(|()| true)
    }
}

struct SetOptions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionParams {
    name: String,
    remap_on: Option<RemapOn>,
    storm_limit: Option<u64>,
    #[serde(default)]
    rearm: bool,
}

#[derive(Serialize)]
struct Options {
    remap_on: RemapOn,
    storm_limit: u64,
}

impl Method for SetOptions {
    const NAME: &'static CStr = c"bdev_remap_set_options";
    type Params = OptionParams;
    type Reply = Options;

    async fn call(params: OptionParams) -> Result<Options, Error> {
        check_storm_limit(params.storm_limit)?;
        let (_, device) = registry::find(&params.name)?;
        let engine = engine(&device)?;
        if let Some(on) = params.remap_on {
            device.set_remap_on(on);
        }
        if let Some(limit) = params.storm_limit {
            engine.set_storm_limit(limit);
        }
        if params.rearm {
            engine.rearm();
        }
        let options = Options { remap_on: device.remap_on(), storm_limit: engine.status().storm_limit };
        log::info!("{}: options remap_on {:?}, storm_limit {}", params.name, options.remap_on, options.storm_limit);
        Ok(options)
    }
}

struct Expect;

impl Method for Expect {
    const NAME: &'static CStr = c"bdev_remap_expect";
    type Params = Identity;
    type Reply = bool;

    async fn call(identity: Identity) -> Result<bool, Error> {
        assembly::expect(identity).await.map(|()| true)
    }
}

struct Forget;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetParams {
    uuid: Uuid,
}

impl Method for Forget {
    const NAME: &'static CStr = c"bdev_remap_forget";
    type Params = ForgetParams;
    type Reply = bool;

    async fn call(params: ForgetParams) -> Result<bool, Error> {
        assembly::forget(params.uuid).map(|()| true)
    }
}

struct SetModuleOptions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleOptionParams {
    auto_assemble: Option<bool>,
    host_id: Option<Uuid>,
}

impl Method for SetModuleOptions {
    const NAME: &'static CStr = c"bdev_remap_set_module_options";
    type Params = ModuleOptionParams;
    type Reply = options::Options;

    async fn call(params: ModuleOptionParams) -> Result<options::Options, Error> {
        check_not_nil("host_id", params.host_id)?;
        options::set(params.auto_assemble, params.host_id);
        assembly::reconsider().await;
        let options = options::options();
        log::info!("module options: auto_assemble {}, host_id {}", options.auto_assemble, options.host_id);
        Ok(options)
    }
}
