//! Errno values as SPDK returns them: negative numbers, decoded in this one place.

use std::fmt;

/// An errno; holds the positive number, is made from and shown as C code has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Invalid argument.
    pub const INVAL: Errno = Errno(libc::EINVAL);
    /// Out of memory: of SPDK's pools, usually for a moment only.
    pub const NOMEM: Errno = Errno(libc::ENOMEM);
    /// Not permitted: of a claim, that somebody else has the bdev.
    pub const PERM: Errno = Errno(libc::EPERM);
    /// No such device.
    pub const NODEV: Errno = Errno(libc::ENODEV);
    /// It exists already.
    pub const EXIST: Errno = Errno(libc::EEXIST);
    /// It was cancelled.
    pub const CANCELED: Errno = Errno(libc::ECANCELED);
    /// Not supported.
    pub const OPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    /// In use.
    pub const BUSY: Errno = Errno(libc::EBUSY);
    /// What was replaced since.
    pub const STALE: Errno = Errno(libc::ESTALE);

    /// The errno in a C return code (`-EINVAL`), or the code itself when it is not negative.
    pub fn check(rc: i32) -> Result<i32, Errno> {
        if rc < 0 { Err(Errno(-rc)) } else { Ok(rc) }
    }

    /// The negative number, as C functions return it.
    pub fn negative(self) -> i32 {
        -self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl std::error::Error for Errno {}
