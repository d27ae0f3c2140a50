//! Generates the bindings from the headers of the SPDK in use: `SPDK_DIR`, else the tree that `scripts/setup.sh` built.

use std::{env, path::PathBuf, process::exit};

/// What the `spdk` crate uses, by header. Types, and the values of enums, follow from the functions that take them.
const FUNCTIONS: &[&str] = &[
    // bdev.h
    "spdk_bdev_(open_ext|close|desc_get_bdev|get_by_name|get_io_channel|wait_for_examine)",
    "spdk_bdev_get_(name|block_size|num_blocks|md_size|dif_type|write_unit_size|io_type_name)",
    "spdk_bdev_(is_md_interleaved|has_write_cache|get_memory_domains)",
    "spdk_bdev_(readv|writev)_blocks(_ext)?",
    "spdk_bdev_(write_zeroes|unmap|flush)_blocks",
    "spdk_bdev_(reset|abort|queue_io_wait|free_io)",
    // bdev_module.h
    "spdk_bdev_module_(list_add|claim_bdev_desc|examine_done)",
    "spdk_bdev_(register|unregister|destruct_done|notify_blockcnt_change)",
    "spdk_bdev_io_(get_buf|complete|complete_(nvme|scsi|aio)_status)",
    // dma.h
    "spdk_memory_domain_(get_dma_device_type|create|set_pull|set_push|destroy)",
    // env.h
    "spdk_dma_(zmalloc|free)",
    "spdk_get_ticks(_hz)?",
    // json.h, jsonrpc.h, rpc.h
    "spdk_json_write_(name|val_raw)",
    "spdk_jsonrpc_(begin_result|end_result|send_error_response)",
    "spdk_rpc_register_method",
    // log.h
    "spdk_log(_register_flag)?",
    // notify.h
    "spdk_notify_(type_register_once|send)",
    // thread.h
    "spdk_get_thread|spdk_thread_(send_msg|get_app_thread)",
    "spdk_io_device_(register|unregister)",
    "spdk_(get|put)_io_channel",
    "spdk_for_each_channel(_continue)?",
    "spdk_io_channel_iter_get_(ctx|channel)",
    "spdk_poller_(register_named|unregister)",
    // util.h
    "spdk_iovcpy",
];

/// Macros.
const VARS: &[&str] = &[
    "SPDK_IO_CHANNEL_STRUCT_SIZE",
    "SPDK_JSONRPC_ERROR_(INVALID_PARAMS|INTERNAL_ERROR)",
    "SPDK_NOTIFY_MAX_CTX_SIZE",
    "SPDK_RPC_RUNTIME",
];

/// What no function names.
const TYPES: &[&str] = &["spdk_thread_poller_rc"];

fn main() {
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-env-changed=SPDK_DIR");
    println!("cargo:rerun-if-env-changed=XDG_CACHE_HOME");
    let spdk = spdk_dir();
    println!("cargo:rerun-if-changed={}", spdk.join("include/spdk/bdev_module.h").display());
    println!("cargo:rerun-if-changed={}", spdk.join("include/spdk/version.h").display());

    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_arg(format!("-I{}", spdk.join("include").display()))
        .layout_tests(true)
        .derive_default(true)
        .derive_debug(false)
        .prepend_enum_name(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        // bindgen gets the size of these wrong (bit fields, packed with aligned members): they are not used here.
        .opaque_type("spdk_nvme_feat_async_event_configuration.*")
        .blocklist_type("spdk_bdev_nvme_cdw1[23].*")
        .raw_line("#[allow(non_camel_case_types)] pub type spdk_bdev_nvme_cdw12 = u32;")
        .raw_line("#[allow(non_camel_case_types)] pub type spdk_bdev_nvme_cdw13 = u32;");
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for var in VARS {
        builder = builder.allowlist_var(var);
    }
    for ty in TYPES {
        builder = builder.allowlist_type(ty);
    }
    let bindings = builder
        .generate()
        .unwrap_or_else(|error| fail(&format!("cannot read the headers of SPDK in {}: {error}", spdk.display())));
    let out =
        PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("no OUT_DIR: cargo sets it"))).join("bindings.rs");
    bindings.write_to_file(&out).unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", out.display())));
    // For the build scripts of the crates above (DEP_SPDK_DIR).
    println!("cargo:dir={}", spdk.display());
}

fn spdk_dir() -> PathBuf {
    let dir = env::var_os("SPDK_DIR").map(PathBuf::from).or_else(|| {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("bdev-remap/spdk"))
    });
    match dir {
        Some(dir) if dir.join("include/spdk/bdev_module.h").is_file() => dir.canonicalize().unwrap_or(dir),
        Some(dir) => fail(&format!(
            "no SPDK in {}: run scripts/setup.sh, or set SPDK_DIR to an SPDK tree built --with-shared",
            dir.display()
        )),
        None => fail("HOME is not set: set SPDK_DIR to an SPDK tree built --with-shared"),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    exit(1)
}
