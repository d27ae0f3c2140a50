//! Descriptors of other bdevs: opening, claiming, events, facts about them.

use std::{
    ffi::{CStr, c_void},
    ptr,
    rc::Rc,
    sync::Arc,
};

use spdk_sys as sys;
use uuid::Uuid;

use crate::{Errno, IoKind, Module, logger::c_string, thread::Thread};

/// What can happen to a bdev that is open. Arrives on the thread that opened it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is going away: all I/O to it must end and the descriptor be closed.
    Remove,
    /// Its size has changed.
    Resize,
    /// Anything else.
    Other,
}

/// An open descriptor. Clones share it; it is closed, on the thread that opened it, when the last one has gone.
#[derive(Clone)]
pub struct Desc(Arc<Inner>);

struct Inner {
    raw: *mut sys::spdk_bdev_desc,
    handler: *mut Handler,
    opened_on: Thread,
}

/// Shared, so that a handler that closes its own descriptor outlives its own run.
type Handler = Rc<dyn Fn(Event)>;

// SAFETY: SPDK allows the use of a descriptor from any of its threads; the event handler is run and dropped only on the
// thread that opened it.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Facts about a bdev; none of them changes while it is open, except `blocks`, which may grow.
#[derive(Clone, Debug)]
pub struct BdevInfo {
    /// Its name.
    pub name: String,
    /// Its UUID: never nil.
    pub uuid: Uuid,
    /// Bytes in a block, interleaved metadata included.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of metadata for each block.
    pub md_size: u32,
    /// Whether that metadata stands between the blocks' data.
    pub md_interleaved: bool,
    /// Whether it checks protection information (DIF/DIX).
    pub protected: bool,
    /// Whether it is a zoned device.
    pub zoned: bool,
    /// Whether it holds written data in a volatile cache until it is flushed.
    pub write_cache: bool,
    /// Blocks that must be written at once.
    pub write_unit: u32,
}

impl Desc {
    /// Opens the bdev called `name` (a name, alias or UUID), read-only until claimed. `on_event` runs on this thread.
    pub fn open(name: &str, on_event: impl Fn(Event) + 'static) -> Result<Desc, Errno> {
        let opened_on = Thread::current().ok_or(Errno::INVAL)?;
        // A name that C cannot hold names no bdev.
        let Ok(c_name) = std::ffi::CString::new(name) else { return Err(Errno::NODEV) };
        let handler: *mut Handler = Box::into_raw(Box::new(Rc::new(on_event)));
        let mut raw = ptr::null_mut();
        // SAFETY: C string and out pointer live through the call; the handler lives until Drop has closed the descriptor.
        let rc = unsafe { sys::spdk_bdev_open_ext(c_name.as_ptr(), false, Some(event), handler.cast(), &mut raw) };
        match Errno::check(rc) {
            Ok(_) => Ok(Desc(Arc::new(Inner { raw, handler, opened_on }))),
            Err(errno) => {
                // SAFETY: the open failed, so that nobody else has the handler.
                drop(unsafe { Box::from_raw(handler) });
                Err(errno)
            }
        }
    }

    /// Claims the bdev for `module` as the only writer; others may still read. Released when the descriptor is closed.
    pub fn claim(&self, module: &'static Module) -> Result<(), Errno> {
        let claim = sys::SPDK_BDEV_CLAIM_READ_MANY_WRITE_ONE;
        // SAFETY: the descriptor is open; NULL options are the defaults; the module is 'static.
        let rc = unsafe { sys::spdk_bdev_module_claim_bdev_desc(self.raw(), claim, ptr::null_mut(), module.raw()) };
        Errno::check(rc).map(|_| ())
    }

    /// Facts about the bdev.
    pub fn info(&self) -> BdevInfo {
        // SAFETY: the bdev lives while it is open.
        unsafe { info_of(self.bdev()) }
    }

    /// Its number of blocks now.
    pub fn blocks(&self) -> u64 {
        // SAFETY: the bdev lives while it is open.
        unsafe { sys::spdk_bdev_get_num_blocks(self.bdev()) }
    }

    /// Whether the bdev takes I/O of this kind itself. (`spdk_bdev_io_type_supported` also counts what the bdev layer makes of
    /// other I/O, which hides how that failed.)
    pub fn supports(&self, kind: IoKind) -> bool {
        // SAFETY: the bdev lives while it is open, with a function table in which this member is mandatory.
        unsafe {
            let bdev = self.bdev();
            (*(*bdev).fn_table).io_type_supported.is_some_and(|supported| supported((*bdev).ctxt, kind.raw()))
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::spdk_bdev_desc {
        self.0.raw
    }

    pub(crate) fn bdev(&self) -> *mut sys::spdk_bdev {
        // SAFETY: the descriptor is open.
        unsafe { sys::spdk_bdev_desc_get_bdev(self.raw()) }
    }
}

/// Facts about a bdev.
///
/// # Safety
/// `bdev` is live.
pub(crate) unsafe fn info_of(bdev: *mut sys::spdk_bdev) -> BdevInfo {
    // SAFETY: the caller vouches for the bdev; all of these are plain reads of it.
    unsafe {
        BdevInfo {
            name: CStr::from_ptr(sys::spdk_bdev_get_name(bdev)).to_string_lossy().into_owned(),
            uuid: Uuid::from_bytes((*bdev).uuid.u.raw),
            block_size: sys::spdk_bdev_get_block_size(bdev),
            blocks: sys::spdk_bdev_get_num_blocks(bdev),
            md_size: sys::spdk_bdev_get_md_size(bdev),
            md_interleaved: sys::spdk_bdev_is_md_interleaved(bdev),
            protected: sys::spdk_bdev_get_dif_type(bdev) != sys::SPDK_DIF_DISABLE,
            zoned: (*bdev).__bindgen_anon_1.zoned() != 0,
            write_cache: sys::spdk_bdev_has_write_cache(bdev),
            write_unit: sys::spdk_bdev_get_write_unit_size(bdev),
        }
    }
}

/// Whether there is a bdev called `name` (a name, alias or UUID). App thread, where none can go meanwhile.
pub fn bdev_exists(name: &str) -> bool {
    // SAFETY: a look-up of a C string; the pointer that comes back is not kept.
    std::ffi::CString::new(name).is_ok_and(|name| unsafe { !sys::spdk_bdev_get_by_name(name.as_ptr()).is_null() })
}

/// # Safety
/// SPDK calls it with the handler that was given at open, which is freed only after the close, on this same thread.
unsafe extern "C" fn event(kind: sys::spdk_bdev_event_type, _bdev: *mut sys::spdk_bdev, ctx: *mut c_void) {
    let kind = match kind {
        sys::SPDK_BDEV_EVENT_REMOVE => Event::Remove,
        sys::SPDK_BDEV_EVENT_RESIZE => Event::Resize,
        _ => Event::Other,
    };
    // SAFETY: the caller vouches for the handler.
    let handler = unsafe { Rc::clone(&*ctx.cast::<Handler>()) };
    handler(kind);
}

/// Closes the descriptor and frees its event handler.
///
/// # Safety
/// Both are unused from now on, and this is the thread that opened the descriptor.
unsafe fn close(raw: *mut sys::spdk_bdev_desc, handler: *mut Handler) {
    // SAFETY: the caller vouches for both; events no longer come after the close.
    unsafe {
        sys::spdk_bdev_close(raw);
        drop(Box::from_raw(handler));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (raw, handler, opened_on) = (self.raw, self.handler, self.opened_on);
        if opened_on.is_current() {
            // SAFETY: this was the last handle, and this is the right thread.
            unsafe { close(raw, handler) };
            return;
        }
        // SAFETY: this was the last handle, and the message runs on the right thread.
        let sent = opened_on.send_local(move || unsafe { close(raw, handler) });
        if let Err(errno) = sent {
            log::error!("a bdev could not be closed on the thread that opened it: {errno}");
        }
    }
}

impl std::fmt::Debug for Desc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&c_string(&self.info().name).to_string_lossy())
    }
}
