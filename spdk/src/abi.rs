//! The check, at load, that the application runs on the SPDK that this library was built against.
//!
//! SPDK changes the layout of its structures with every release. Two things tell releases apart: how many types of I/O SPDK knows,
//! and the version in the file name of its bdev library. A tree whose structures were changed without either is not noticed.
//!
//! Linked into an application, the module asks the same questions. Where SPDK is linked in as well (scripts/remap_tgt.sh) there is no
//! bdev library any more, and only the first is left: it tells a module that was built for another tree than it was linked with.

use std::{
    ffi::{CStr, c_void},
    mem::MaybeUninit,
};

use spdk_sys as sys;

/// None when the running SPDK fits; else one sentence that says what does not.
pub fn mismatch() -> Option<String> {
    let last = sys::SPDK_BDEV_NUM_IO_TYPES;
    // SAFETY: a pure look-up that returns NULL beyond the last type it knows.
    let (known, beyond) = unsafe { (sys::spdk_bdev_get_io_type_name(last - 1), sys::spdk_bdev_get_io_type_name(last)) };
    if known.is_null() || !beyond.is_null() {
        return Some(format!("the SPDK that runs knows another number of I/O types than {last}, {REBUILD}"));
    }
    let built = env!("SPDK_BDEV_SONAME");
    let running = library_of(sys::spdk_bdev_register as *const c_void)?;
    // In a statically linked application the function lies in the program itself, which has no SONAME to compare.
    let is_library = running.contains(".so");
    (is_library && !built.is_empty() && running != built)
        .then(|| format!("the SPDK that runs has {running}, but this library was built for {built}, {REBUILD}"))
}

const REBUILD: &str = "so its structures may differ: rebuild with SPDK_DIR set to the SPDK in use";

/// File name, links resolved, of the object that holds `symbol`.
fn library_of(symbol: *const c_void) -> Option<String> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is written when the return is not 0; its name is a C string that lives as long as the object.
    let name = unsafe {
        if libc::dladdr(symbol, info.as_mut_ptr()) == 0 {
            return None;
        }
        let info = info.assume_init();
        if info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned()
    };
    let path = std::fs::canonicalize(&name).unwrap_or_else(|_| name.into());
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}
