//! Encoding and decoding, and `docs/format.md` against the code.

use std::collections::BTreeMap;
use std::mem::offset_of;

use proptest::prelude::*;
use uuid::Uuid;

use super::layout::superblock_b;
use super::page::{PAGE_HEADER_SIZE, PageHeader};
use super::record::{RECORD_SIZE, RawRecord, kind};
use super::superblock::{RawSuperblock, SUPERBLOCK_SIZE};
use super::*;
use crate::error::Error;
use crate::units::{BaseLba, MAX_BASE_BLOCKS, MAX_SPARE_BLOCKS, SpareIndex};

const SET: Uuid = Uuid::from_u128(42);

fn superblock() -> Superblock {
    Superblock {
        set_uuid: SET,
        spare_id: Uuid::from_u128(43),
        base_uuid: Uuid::from_u128(44),
        base_blocks: 1 << 35,
        md_size: 8,
        name: "n".repeat(255),
        state: SpareState::MigratingOut(Uuid::from_u128(45)),
        sequence: 77,
        epoch: 5,
        missed_by_a: 4,
        layout: Layout::for_spare(512, 1 << 20).unwrap(),
    }
}

fn spare() -> impl Strategy<Value = SpareIndex> {
    (0..MAX_SPARE_BLOCKS - 1000).prop_map(|index| SpareIndex::new(index).unwrap())
}

fn record() -> impl Strategy<Value = Record> {
    let lba = || (0..MAX_BASE_BLOCKS - 1000).prop_map(BaseLba);
    let count = || 1..1000_u32;
    prop_oneof![
        (lba(), spare(), count()).prop_map(|(lba, spare, count)| Record::Remap { lba, spare, count }),
        (lba(), spare(), count()).prop_map(|(lba, spare, count)| Record::Lost { lba, spare, count }),
        (lba(), count()).prop_map(|(lba, count)| Record::Pending { lba, count }),
        (lba(), count()).prop_map(|(lba, count)| Record::Clear { lba, count }),
        (spare(), count()).prop_map(|(spare, count)| Record::BadSpare { spare, count }),
        Just(Record::EndOfCheckpoint),
    ]
}

fn info() -> impl Strategy<Value = PageInfo> {
    (any::<u64>(), any::<u64>(), 1..u32::MAX, any::<bool>())
        .prop_map(|(epoch, sequence, checkpoint_pages, solo)| PageInfo { epoch, sequence, checkpoint_pages, solo })
}

proptest! {
    #[test]
    fn a_record_is_decoded_as_it_was_encoded(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Some(record));
    }

    #[test]
    fn a_page_is_decoded_as_it_was_encoded(
        records in prop::collection::vec(record(), 0..252), info in info(), size in prop::sample::select(vec![4096_usize, 4160, 8192]),
    ) {
        let mut page = vec![0xEE; size];
        prop_assert_eq!(encode_page(&mut page, SET, info, &records), records.len());
        let PageContent::Valid(found, raw) = decode_page(&page, SET) else { return Err(TestCaseError::fail("not valid")) };
        prop_assert_eq!(found, info);
        let back: Vec<_> = raw.iter().filter_map(Record::decode).collect();
        prop_assert_eq!(back, records);
        prop_assert_eq!(decode_page(&page, Uuid::nil()), PageContent::Bad);
    }

    #[test]
    fn a_flipped_bit_of_a_page_is_noticed(records in prop::collection::vec(record(), 0..20), info in info(), bit in 0..4096 * 8_usize) {
        let mut page = vec![0; 4096];
        encode_page(&mut page, SET, info, &records);
        page[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode_page(&page, SET), PageContent::Bad);
    }

    #[test]
    fn a_flipped_bit_of_a_superblock_is_noticed(bit in 0..4096 * 8_usize) {
        let mut page = vec![0; 4096];
        superblock().encode(&mut page);
        page[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 { SuperblockContent::Foreign } else { SuperblockContent::Corrupt };
        prop_assert_eq!(Superblock::decode(&page), expected);
    }

    #[test]
    fn decoding_takes_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), header in any::<bool>()) {
        // With the right magic, it gets further.
        if header && bytes.len() > 8 {
            bytes[..8].copy_from_slice(&super::page::PAGE_MAGIC);
        }
        let _ = decode_page(&bytes, SET);
        if header && bytes.len() > 8 {
            bytes[..8].copy_from_slice(&super::superblock::SUPERBLOCK_MAGIC);
        }
        let _ = Superblock::decode(&bytes);
        for chunk in bytes.chunks_exact(16) {
            let _ = Record::decode(&zerocopy::FromBytes::read_from_bytes(chunk).unwrap());
        }
    }

    /// Behind a right checksum too, which a fuzzer would not find.
    #[test]
    fn decoding_takes_any_superblock_with_a_right_checksum(patches in prop::collection::vec((12..480_usize, any::<u8>()), 0..20)) {
        let mut page = vec![0; 4096];
        superblock().encode(&mut page);
        patches.iter().for_each(|(at, byte)| page[*at] = *byte);
        let crc = super::crc::crc_without(&page, 8);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        if let SuperblockContent::Valid(superblock) = Superblock::decode(&page) {
            prop_assert_eq!(superblock.layout.check(), Ok(()));
        }
    }

    #[test]
    fn every_layout_is_sound(block_size in prop::sample::select(vec![512_u32, 520, 4096, 4104, 8192, 65536]), blocks in 0..1_u64 << 34) {
        match Layout::for_spare(block_size, blocks) {
            Ok(layout) => {
                prop_assert_eq!(layout.check(), Ok(()));
                prop_assert!(layout.page_bytes >= 4096 && layout.page_bytes % block_size == 0);
                prop_assert_eq!(Some(layout.superblock_b), superblock_b(block_size, blocks));
                let records = u64::from(layout.data_blocks) + layout.pending_limit() + 1;
                let pages = records.div_ceil(records_per_page(layout.page_bytes as usize) as u64);
                prop_assert!(pages + 32 < u64::from(layout.area_pages), "a checkpoint leaves room behind it");
            }
            Err(Error::TooSmall { least_mib, .. }) => {
                let blocks = |mib: u64| (mib << 20) / u64::from(block_size);
                prop_assert!(Layout::for_spare(block_size, blocks(least_mib)).is_ok());
                prop_assert!(Layout::for_spare(block_size, blocks(least_mib - 1)).is_err());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn a_superblock_is_decoded_as_it_was_encoded() {
    for state in [SpareState::Active, SpareState::MigratingIn, SpareState::Retired(Uuid::from_u128(9))] {
        let superblock = Superblock { state, ..superblock() };
        let mut page = vec![0xEE; 8192];
        superblock.encode(&mut page);
        assert_eq!(Superblock::decode(&page), SuperblockContent::Valid(Box::new(superblock)));
        assert!(page[512..].iter().all(|byte| *byte == 0), "all of it is in the first 512 bytes");
    }
    assert_eq!(Superblock::decode(&[0; 4096]), SuperblockContent::Zero);
    assert_eq!(Superblock::decode(&[7; 4096]), SuperblockContent::Foreign);
    assert_eq!(Superblock::decode(&[7; 40]), SuperblockContent::Foreign);
}

#[test]
fn a_large_spare_uses_what_it_can() {
    let layout = Layout::for_spare(4096, 1 << 30).unwrap();
    assert_eq!(layout.data_blocks, MAX_SPARE_BLOCKS);
    assert_eq!(layout.pending_limit(), u64::from(MAX_SPARE_BLOCKS) / 8);
    assert!(Layout::for_spare(256, 1 << 30).is_err());
    assert!(Layout::for_spare(0, 1 << 30).is_err());
}

#[test]
fn a_layout_that_overlaps_is_refused() {
    let good = Layout::for_spare(4096, 10_000).unwrap();
    let patches: [fn(&mut Layout); 9] = [
        |layout| layout.areas[0][1] -= 1,
        |layout| layout.areas[1][1] += 1,
        |layout| layout.areas[0][0] = 0,
        |layout| layout.data_start -= 1,
        |layout| layout.data_blocks += 1000,
        |layout| layout.superblock_b -= 1,
        |layout| layout.page_bytes = 8192,
        |layout| layout.area_pages = u32::MAX,
        |layout| layout.data_start = u64::MAX,
    ];
    for patch in patches {
        let mut layout = good;
        patch(&mut layout);
        assert!(layout.check().is_err(), "{layout:?}");
    }
}

/// The rows of the tables in `docs/format.md`, by the name of the structure in the heading above: field, offset, size.
fn documented() -> BTreeMap<String, Vec<(String, usize, usize)>> {
    let text = include_str!("../../../docs/format.md");
    let mut tables: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if line.starts_with('#') {
            current = line.split('`').nth(1).map(str::to_owned);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let (Some(name), [_, offset, size, field, ..]) = (&current, &cells[..])
            && let (Ok(offset), Ok(size)) = (offset.parse(), size.parse())
        {
            tables.entry(name.clone()).or_default().push((field.trim_matches('`').to_owned(), offset, size));
        }
    }
    tables
}

macro_rules! fields {
    ($type:ident: $($field:ident),* $(,)?) => {{
        let probe: $type = zerocopy::FromZeros::new_zeroed();
        vec![$((stringify!($field).to_owned(), offset_of!($type, $field), size_of_val(&probe.$field)),)*]
    }};
}

#[test]
fn the_document_says_what_the_code_does() {
    let documented = documented();
    let structures = [
        ("RawRecord", RECORD_SIZE, fields!(RawRecord: lba_low, lba_high, kind, reserved, spare, count)),
        (
            "PageHeader",
            PAGE_HEADER_SIZE,
            fields!(PageHeader: magic, crc, flags, set_uuid, epoch, sequence, record_count, checkpoint_pages, reserved),
        ),
        (
            "RawSuperblock",
            SUPERBLOCK_SIZE,
            fields!(RawSuperblock: magic, crc, version, incompat, compat, set_uuid, spare_id, base_uuid, base_blocks,
                spare_blocks, block_size, md_size, state, name_len, other_spare, sequence, epoch, page_bytes, area_pages,
                area_0_a, area_1_a, area_0_b, area_1_b, data_start, superblock_b, data_blocks, reserved, name, missed_by_a,
                tail),
        ),
    ];
    for (name, size, fields) in structures {
        assert_eq!(documented.get(name), Some(&fields), "{name}");
        // No gap, and nothing behind.
        let end = fields.iter().fold(0, |at, (field, offset, size)| {
            assert_eq!(*offset, at, "{name}.{field}");
            at + size
        });
        assert_eq!(end, size, "{name}");
    }
}

#[test]
fn the_document_names_the_kinds() {
    let text = include_str!("../../../docs/format.md");
    for (kind, name) in [
        (kind::REMAP, "remap"),
        (kind::PENDING, "pending"),
        (kind::LOST, "lost"),
        (kind::CLEAR, "clear"),
        (kind::BAD_SPARE, "bad_spare"),
        (kind::END_OF_CHECKPOINT, "end_of_checkpoint"),
    ] {
        assert!(text.contains(&format!("| {kind} | `{name}` |")), "{name}");
    }
}
