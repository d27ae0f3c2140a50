//! Generates the bindings from the headers of the SPDK in use: `SPDK_DIR`, else the tree that `scripts/setup.sh` built.

use std::{env, path::PathBuf, process::exit};

/// Functions the `spdk` crate calls; types and constants follow from them.
const FUNCTIONS: &[&str] = &[
    "spdk_bdev_(get_(by_name|name|aliases|uuid|block_size|num_blocks|md_size|dif_type|buf_align|write_unit_size|io_channel|io_type_name|module_name|data_block_size|memory_domains)|desc_get_bdev)",
    "spdk_bdev_(is_md_interleaved|has_write_cache|io_type_supported|register|unregister|destruct_done|open_ext|close)",
    "spdk_bdev_(readv|writev)_blocks(_ext)?",
    "spdk_bdev_(read|write|write_zeroes|unmap|flush)_blocks",
    "spdk_bdev_(reset|abort|queue_io_wait|free_io|quiesce|unquiesce|notify_blockcnt_change|wait_for_examine)",
    "spdk_bdev_io_(complete|get_buf|set_base_io_status|get_nvme_status|get_scsi_status|get_aio_status|complete_.*|get_thread|get_io_channel)",
    "spdk_bdev_module_(list_add|claim_bdev_desc|examine_done|fini_start_done|fini_done|init_done|claim_bdev_desc)",
    "spdk_bdev_claim_opts_init",
    "spdk_dma_(zmalloc|malloc|free)",
    "spdk_memory_domain_(get_dma_device_type|create|set_pull|set_push|destroy)|spdk_iovcpy",
    "spdk_get_io_channel|spdk_put_io_channel|spdk_io_channel_get_thread|spdk_io_channel_get_io_device",
    "spdk_io_device_(register|unregister)",
    "spdk_for_each_channel(_continue)?",
    "spdk_io_channel_iter_get_(ctx|channel|io_device)",
    "spdk_get_thread|spdk_thread_(send_msg|get_app_thread|is_app_thread|get_name)",
    "spdk_poller_(register_named|unregister)",
    "spdk_json_(decode_object|parse|write_.*)",
    "spdk_jsonrpc_.*",
    "spdk_rpc_register_method|spdk_rpc_is_method_allowed",
    "spdk_log|spdk_log_(register_flag|get_flag|get_print_level)",
    "spdk_get_ticks(_hz)?",
    "spdk_strerror",
];

const VARS: &[&str] = &[
    "SPDK_VERSION_.*",
    "SPDK_IO_CHANNEL_STRUCT_SIZE",
    "SPDK_BDEV_.*",
    "SPDK_RPC_.*",
    "SPDK_JSONRPC_.*",
    "SPDK_LOG_.*",
    "SPDK_JSON_.*",
    "SPDK_(NVME_SCT|SCSI_SENSE|SCSI_STATUS)_.*",
    "SPDK_ENV_.*",
];

const TYPES: &[&str] = &[
    "spdk_bdev.*",
    "spdk_io_channel",
    "spdk_thread_poller_rc",
    "spdk_log_flag",
    "spdk_json_.*",
    "spdk_nvme_(status_code_type|media_error_status_code)",
    "spdk_scsi_(status|sense)",
];

fn main() {
    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-env-changed=SPDK_DIR");
    println!("cargo:rerun-if-env-changed=XDG_CACHE_HOME");
    let spdk = spdk_dir();
    println!("cargo:rerun-if-changed={}", spdk.join("include/spdk/bdev_module.h").display());
    println!("cargo:rerun-if-changed={}", spdk.join("include/spdk/version.h").display());

    let functions = format!("^({})$", FUNCTIONS.join("|"));
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_arg(format!("-I{}", spdk.join("include").display()))
        .allowlist_function(functions)
        .layout_tests(true)
        .derive_default(true)
        .prepend_enum_name(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        // bindgen gets the size of these wrong (bit fields, packed with aligned members): they are not used here.
        .opaque_type("spdk_nvme_feat_async_event_configuration.*")
        .opaque_type("spdk_nvme_ctrlr_data")
        .blocklist_type("spdk_bdev_nvme_cdw1[23].*")
        .raw_line("#[allow(non_camel_case_types)] pub type spdk_bdev_nvme_cdw12 = u32;")
        .raw_line("#[allow(non_camel_case_types)] pub type spdk_bdev_nvme_cdw13 = u32;");
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
