//! The `log` facade on SPDK's own log, under one log flag.
//!
//! error, warn and info go to SPDK's ERROR, WARN and NOTICE; debug and trace are shown only while the flag is set
//! (`log_set_flag`, `-L`).

use std::{
    cell::UnsafeCell,
    ffi::{CStr, CString},
    ptr,
};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spdk_sys as sys;

/// SPDK's log as target of the `log` facade; declare one as a `static`.
pub struct SpdkLogger {
    flag: UnsafeCell<sys::spdk_log_flag>,
}

// SAFETY: SPDK links the flag into its list at registration (before main) and later writes only its `enabled` byte.
unsafe impl Sync for SpdkLogger {}
// SAFETY: as above; it is 'static and never moves.
unsafe impl Send for SpdkLogger {}

impl SpdkLogger {
    /// A logger under the log flag `name`.
    pub const fn new(name: &'static CStr) -> SpdkLogger {
        let tailq = sys::spdk_log_flag__bindgen_ty_1 { tqe_next: ptr::null_mut(), tqe_prev: ptr::null_mut() };
        SpdkLogger { flag: UnsafeCell::new(sys::spdk_log_flag { tailq, name: name.as_ptr(), enabled: false }) }
    }

    /// Registers the flag with SPDK and makes this the process's (this library's) logger. To be called once, before main.
    pub fn install(&'static self) {
        let flag = self.flag.get();
        // SAFETY: the flag is 'static and never moves; its name is 'static.
        unsafe { sys::spdk_log_register_flag((*flag).name, flag) };
        if log::set_logger(self).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
    }

    fn flag_enabled(&self) -> bool {
        // SAFETY: one byte that SPDK writes; read without tearing.
        unsafe { ptr::read_volatile(&raw const (*self.flag.get()).enabled) }
    }
}

impl Log for SpdkLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Info || self.flag_enabled()
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => sys::SPDK_LOG_ERROR,
            Level::Warn => sys::SPDK_LOG_WARN,
            // A debug line is shown because its flag was set: at a level that is printed by default.
            Level::Info | Level::Debug | Level::Trace => sys::SPDK_LOG_NOTICE,
        };
        let file = c_string(record.file().unwrap_or("?"));
        let module = c_string(record.module_path().unwrap_or("?"));
        let text = c_string(&format!("{}\n", record.args()));
        let line = i32::try_from(record.line().unwrap_or(0)).unwrap_or(0);
        // SAFETY: C strings that live through the call; the format takes exactly the one string.
        unsafe { sys::spdk_log(level, file.as_ptr(), line, module.as_ptr(), c"%s".as_ptr(), text.as_ptr()) };
    }

    fn flush(&self) {}
}

/// `text` up to its first NUL byte.
pub(crate) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}
