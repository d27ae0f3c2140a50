//! Memory for direct I/O: its start is aligned as the kernel asks for.

use remap_core::IoStatus;

/// What the kernel asks for at most.
const ALIGNMENT: usize = 4096;

/// Aligned bytes.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` bytes, all zero.
    ///
    /// # Errors
    /// [`IoStatus::NoMemory`].
    pub fn zeroed(len: usize) -> Result<Buffer, IoStatus> {
        let mut bytes = Vec::new();
        let all = len.checked_add(ALIGNMENT).ok_or(IoStatus::NoMemory)?;
        bytes.try_reserve_exact(all).map_err(|_| IoStatus::NoMemory)?;
        bytes.resize(all, 0);
        let start = (ALIGNMENT - bytes.as_ptr().addr() % ALIGNMENT) % ALIGNMENT;
        Ok(Buffer { bytes, start, len })
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
