//! Link settings of libbdev_remap.so. Its `spdk_*` symbols stay undefined: they are those of the application.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libbdev_remap.so");
}
