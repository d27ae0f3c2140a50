//! A log page of any bytes, also with a right checksum: decoding never panics, and records are only taken from within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remap_core::Slot;
use remap_core::format::page::{PAGE_HEADER_SIZE, PAGE_MAGIC};
use remap_core::format::{
    Area, Copy, PageAt, PageContent, PageOwner, Record, decode_page, encode_page, records_per_page,
};
use remap_fuzz::{PAGE, fix_crc};
use uuid::Uuid;

const OWNER: PageOwner = PageOwner { set_uuid: Uuid::nil(), spare_id: Uuid::nil() };
const AT: PageAt = PageAt { copy: Copy::A, area: Area::Zero, index: 0 };

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_page(bytes, OWNER, AT);
    let mut page = bytes.to_vec();
    page.resize(PAGE.max(bytes.len()), 0);
    page[..8].copy_from_slice(&PAGE_MAGIC);
    // No flags, the owner, and the place.
    page[12..48].fill(0);
    page[72..PAGE_HEADER_SIZE].fill(0);
    fix_crc(&mut page);
    let PageContent::Valid(info, raw) = decode_page(&page, OWNER, AT) else { return };
    assert!(raw.len() <= records_per_page(page.len()) && page.len() >= PAGE_HEADER_SIZE);
    let known: Vec<_> = raw.iter().filter(|raw| Record::decode(raw, Slot::FIRST).is_some()).copied().collect();
    let mut again = vec![0; page.len()];
    assert_eq!(encode_page(&mut again, OWNER, AT, info, &known), known.len());
    let PageContent::Valid(same, raw) = decode_page(&again, OWNER, AT) else { panic!("what was encoded is valid") };
    assert_eq!((same, raw), (info, &known[..]));
});
