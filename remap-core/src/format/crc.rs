//! The checksum that every structure carries, CRC-32C over all of it with the field itself taken as zero; and what has
//! none, as it was never written.

/// The CRC-32C of `bytes`, with the four bytes at `field` taken as zero.
pub(super) fn crc_without(bytes: &[u8], field: usize) -> u32 {
    let head = &bytes[..field.min(bytes.len())];
    let tail = bytes.get(field + 4..).unwrap_or_default();
    let crc = crc32c::crc32c(head);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, tail)
}

/// Whether all of `bytes` are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}
