//! Remembers the SONAME of SPDK's bdev library, against which the ABI is checked at load.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_SPDK_DIR");
    let dir = PathBuf::from(env::var_os("DEP_SPDK_DIR").unwrap_or_default());
    let link = dir.join("build/lib/libspdk_bdev.so");
    println!("cargo:rerun-if-changed={}", link.display());
    // An SPDK without shared libraries has no SONAME: the check is then left to the other probes.
    let soname = fs::canonicalize(&link)
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_default();
    println!("cargo:rustc-env=SPDK_BDEV_SONAME={soname}");
}
