//! A superblock of any bytes, also with a right checksum: decoding never panics, and what is valid is encoded to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remap_core::format::superblock::SUPERBLOCK_MAGIC;
use remap_core::format::{Superblock, SuperblockContent};
use remap_fuzz::{PAGE, fix_crc};

fuzz_target!(|bytes: &[u8]| {
    let _ = Superblock::decode(bytes);
    // All that is not zero is in the first 512 bytes, so that short inputs go far.
    let mut page = bytes.to_vec();
    page.resize(PAGE, 0);
    page[..8].copy_from_slice(&SUPERBLOCK_MAGIC);
    fix_crc(&mut page);
    if let SuperblockContent::Valid(superblock) = Superblock::decode(&page) {
        let mut again = vec![0; PAGE];
        superblock.encode(&mut again);
        assert_eq!(Superblock::decode(&again), SuperblockContent::Valid(superblock));
    }
});
