//! A record of any bytes: decoding never panics, and what is valid is encoded to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remap_core::Slot;
use remap_core::format::Record;
use remap_core::format::record::RawRecord;
use zerocopy::{FromBytes, IntoBytes};

fuzz_target!(|bytes: &[u8]| {
    let Ok((raw, _)) = RawRecord::ref_from_prefix(bytes) else { return };
    for slot in [Slot::FIRST, Slot::FIRST.other()] {
        if let Some(record) = Record::decode(raw, slot) {
            assert_eq!(record.encode().as_bytes(), raw.as_bytes());
        }
    }
});
