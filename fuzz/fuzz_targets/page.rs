//! A log page of any bytes, also with a right checksum: decoding never panics, and records are only taken from within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remap_core::format::page::{PAGE_HEADER_SIZE, PAGE_MAGIC};
use remap_core::format::{PageContent, Record, decode_page, encode_page, records_per_page};
use remap_fuzz::{PAGE, fix_crc};
use uuid::Uuid;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_page(bytes, Uuid::nil());
    let mut page = bytes.to_vec();
    page.resize(PAGE.max(bytes.len()), 0);
    page[..8].copy_from_slice(&PAGE_MAGIC);
    page[16..32].fill(0);
    fix_crc(&mut page);
    let PageContent::Valid(info, raw) = decode_page(&page, Uuid::nil()) else { return };
    assert!(raw.len() <= records_per_page(page.len()) && page.len() >= PAGE_HEADER_SIZE);
    let records: Vec<_> = raw.iter().filter_map(Record::decode).collect();
    let mut again = vec![0; page.len()];
    assert_eq!(encode_page(&mut again, Uuid::nil(), info, &records), records.len());
    let PageContent::Valid(same, raw) = decode_page(&again, Uuid::nil()) else { panic!("what was encoded is valid") };
    assert_eq!((same, raw.iter().filter_map(Record::decode).collect::<Vec<_>>()), (info, records));
});
