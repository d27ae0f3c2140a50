//! Encoding and decoding, and `docs/format.md` against the code.

use std::collections::BTreeMap;
use std::mem::offset_of;

use proptest::prelude::*;
use uuid::Uuid;
use zerocopy::transmute;

use super::layout::superblock_b;
use super::page::{PAGE_HEADER_SIZE, PageHeader, used_by};
use super::record::{RECORD_SIZE, RawRecord, kind};
use super::superblock::{Kept, NAME_MAX, RawSuperblock, SUPERBLOCK_SIZE};
use super::*;
use crate::error::Error;
use crate::slot::{Slot, SpareBlock};
use crate::units::{BaseLba, Epoch, MAX_BASE_BLOCKS, MAX_SPARE_BLOCKS, Sequence, SpareLba};

const SET: Uuid = Uuid::from_u128(42);
const OWNER: PageOwner = PageOwner { set_uuid: SET, spare_id: Uuid::from_u128(43) };
const AT: PageAt = PageAt { copy: Copy::B, area: Area::One, index: 7 };

fn superblock() -> Superblock {
    Superblock {
        set_uuid: SET,
        base_uuid: Uuid::from_u128(44),
        host_id: Uuid::from_u128(46),
        generation: 3,
        sequence: Sequence::new(77).unwrap(),
        written_at: 1_700_000_000_000_000,
        epoch: Epoch::new(5).unwrap(),
        committed: Sequence::new(70).unwrap(),
        noted_epoch: Epoch::new(4).unwrap(),
        in_use: InUse::Yes,
        base_blocks: 1 << 35,
        md_size: 8,
        name: "n".repeat(NAME_MAX),
        slot: Slot::FIRST,
        spare_id: Uuid::from_u128(43),
        state: SpareState::MigratingOut,
        other: Some(OtherSpare { id: Uuid::from_u128(45), state: SpareState::MigratingIn }),
        layout: Layout::for_spare(512, 1 << 20).unwrap(),
        scrub: Some(ScrubPosition { next: BaseLba(3), end: BaseLba(1 << 34), max_mbps: 50 }),
        compat: 0x80,
        kept: Kept::default(),
    }
}

fn spare() -> impl Strategy<Value = SpareBlock> {
    (0..2_u32, 0..MAX_SPARE_BLOCKS - 1000)
        .prop_map(|(slot, index)| SpareBlock::new(Slot::new(slot).unwrap(), index).unwrap())
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
    (0..1_u64 << 62, 0..1_u64 << 62, 1..u32::MAX).prop_map(|(epoch, sequence, checkpoint_pages)| PageInfo {
        epoch: Epoch::new(epoch).unwrap(),
        sequence: Sequence::new(sequence).unwrap(),
        checkpoint_pages,
    })
}

fn encoded(records: &[Record]) -> Vec<RawRecord> {
    records.iter().map(|record| record.encode()).collect()
}

proptest! {
    #[test]
    fn a_record_is_decoded_as_it_was_encoded(record in record()) {
        let raw = record.encode();
        let spare = match record {
            Record::Remap { spare, .. } | Record::Lost { spare, .. } | Record::BadSpare { spare, .. } => Some(spare),
            _ => None,
        };
        let slot = spare.map_or(Slot::FIRST, SpareBlock::slot);
        prop_assert_eq!(Record::decode(&raw, slot), Some(record));
        // Of another spare it is only taken if it speaks of none.
        prop_assert_eq!(Record::decode(&raw, slot.other()).is_none(), spare.is_some());
    }

    #[test]
    fn one_remapped_block_is_what_the_record_says(
        bytes in any::<[u8; RECORD_SIZE]>(),
        // Most of them as they are in a log.
        kind in prop_oneof![Just(kind::REMAP), 0..8_u8],
        count in prop_oneof![Just(1), 0..3_u32],
        spare_high in prop_oneof![Just(0), any::<u8>()],
        slot in prop_oneof![0..2_u8, 0..4_u8],
    ) {
        let mut raw = RawRecord { kind, slot, count: count.into(), ..transmute!(bytes) };
        raw.spare = (raw.spare.get() & 0x3f_ffff | u32::from(spare_high) << 22).into();
        for slot in Slot::BOTH {
            let said = match Record::decode(&raw, slot) {
                Some(Record::Remap { lba, spare, count: 1 }) => Some((lba, spare)),
                _ => None,
            };
            prop_assert_eq!(raw.one_remapped(slot), said);
        }
    }

    #[test]
    fn the_pieces_of_a_record_are_the_record(record in record(), most in 1..300_u32) {
        let mut pieces = Vec::new();
        let mut left = Some(record);
        while let Some(record) = left {
            let (first, rest) = record.cut(most);
            pieces.push(first);
            left = rest;
        }
        prop_assert_eq!(pieces.iter().map(|piece| u64::from(piece.count())).sum::<u64>(), u64::from(record.count()));
        prop_assert!(pieces.iter().all(|piece| piece.count() <= most));
        prop_assert_eq!(pieces.first().map(|piece| piece.encode().lba_low), Some(record.encode().lba_low));
        for pair in pieces.windows(2) {
            let (a, b) = (pair[0].encode(), pair[1].encode());
            prop_assert_eq!(a.kind, b.kind);
            let moved = a.kind != kind::BAD_SPARE;
            prop_assert!(!moved || (a.lba_low.get().wrapping_add(a.count.get()) == b.lba_low.get()));
            prop_assert!(a.spare == b.spare && a.spare.get() == 0 || a.spare.get() + a.count.get() == b.spare.get());
        }
    }

    #[test]
    fn a_page_is_decoded_as_it_was_encoded(
        records in prop::collection::vec(record(), 0..251), info in info(), size in prop::sample::select(vec![4096_usize, 4160, 8192]),
    ) {
        let mut page = vec![0xEE; size];
        prop_assert_eq!(encode_page(&mut page, OWNER, AT, info, &encoded(&records)), records.len());
        let PageContent::Valid(found, raw) = decode_page(&page, OWNER, AT) else { return Err(TestCaseError::fail("not valid")) };
        prop_assert_eq!(found, info);
        let slot_of = |raw: &RawRecord| Slot::new(raw.slot.into()).unwrap();
        let back: Vec<_> = raw.iter().filter_map(|raw| Record::decode(raw, slot_of(raw))).collect();
        prop_assert_eq!(back, records);
        prop_assert_eq!(used_by(&page, AT.copy), None, "it is not one of the first");
        // It is bad for every other owner, and in every other place.
        for owner in [PageOwner { set_uuid: Uuid::nil(), ..OWNER }, PageOwner { spare_id: Uuid::nil(), ..OWNER }] {
            prop_assert_eq!(decode_page(&page, owner, AT), PageContent::Bad);
        }
        for at in [PageAt { copy: Copy::A, ..AT }, PageAt { area: Area::Zero, ..AT }, PageAt { index: 6, ..AT }] {
            prop_assert_eq!(decode_page(&page, OWNER, at), PageContent::Bad);
        }
    }

    #[test]
    fn the_page_of_copy_b_is_made_of_that_of_copy_a(
        records in prop::collection::vec(record(), 0..20),
        info in info(),
        page_bytes in prop::sample::select(vec![4096, 4160, 65_536]),
    ) {
        let page = |copy, records: &[Record]| {
            let mut page = vec![0xaa; page_bytes];
            encode_page(&mut page, OWNER, PageAt { copy, ..AT }, info, &encoded(records));
            page
        };
        let (a, b, copy_b) = (page(Copy::A, &records), page(Copy::B, &records), CopyB::new(page_bytes));
        let mut made = a.clone();
        copy_b.make_of(&mut made);
        prop_assert_eq!(&made, &b);
        // What differs elsewhere has another checksum, whichever copy it is.
        prop_assert_eq!(copy_b.checksum_in_a(Copy::A, &a), copy_b.checksum_in_a(Copy::B, &b));
        let other = page(Copy::B, &[&records[..], &[Record::EndOfCheckpoint]].concat());
        prop_assert_ne!(copy_b.checksum_in_a(Copy::A, &a), copy_b.checksum_in_a(Copy::B, &other));
    }

    #[test]
    fn a_flipped_bit_of_a_page_is_noticed(records in prop::collection::vec(record(), 0..20), info in info(), bit in 0..4096 * 8_usize) {
        let mut page = vec![0; 4096];
        encode_page(&mut page, OWNER, AT, info, &encoded(&records));
        page[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode_page(&page, OWNER, AT), PageContent::Bad);
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
        let _ = decode_page(&bytes, OWNER, AT);
        if header && bytes.len() > 8 {
            bytes[..8].copy_from_slice(&super::superblock::SUPERBLOCK_MAGIC);
        }
        let _ = Superblock::decode(&bytes);
        for chunk in bytes.chunks_exact(16) {
            let _ = Record::decode(&zerocopy::FromBytes::read_from_bytes(chunk).unwrap(), Slot::FIRST);
        }
    }

    /// Behind a right checksum too, which a fuzzer would not find.
    #[test]
    fn decoding_takes_any_superblock_with_a_right_checksum(patches in prop::collection::vec((12..512_usize, any::<u8>()), 0..20)) {
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
    for (state, slot, in_use) in [
        (SpareState::Active, 0, InUse::Yes),
        (SpareState::MigratingIn, 1, InUse::Ended),
        (SpareState::Retired, 1, InUse::No),
    ] {
        let superblock = Superblock { state, slot: Slot::new(slot).unwrap(), in_use, ..superblock() };
        let mut page = vec![0xEE; 8192];
        superblock.encode(&mut page);
        assert_eq!(Superblock::decode(&page), SuperblockContent::Valid(Box::new(superblock)));
        assert!(page[512..].iter().all(|byte| *byte == 0), "all of it is in the first 512 bytes");
    }
    assert_eq!(Superblock::decode(&[0; 4096]), SuperblockContent::Zero);
    assert_eq!(Superblock::decode(&[7; 4096]), SuperblockContent::Foreign);
    assert_eq!(Superblock::decode(&[7; 40]), SuperblockContent::Foreign);
}

/// Puts the right checksum into a superblock.
fn seal(page: &mut [u8]) {
    let crc = super::crc::crc_without(&page[..SUPERBLOCK_SIZE], 8);
    page[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn what_later_versions_add_is_kept_or_refused_as_its_features_say() {
    let mut page = vec![0; 4096];
    superblock().encode(&mut page);
    // Reserved bytes, the tail, and a compatible feature: all of them come back.
    for at in [offset_of!(RawSuperblock, compat) + 3, offset_of!(RawSuperblock, reserved) + 5, 4000] {
        page[at] = 0xA5;
    }
    seal(&mut page);
    let SuperblockContent::Valid(found) = Superblock::decode(&page) else { panic!("it is valid") };
    let mut again = vec![0; 4096];
    Superblock { sequence: found.sequence.plus(1), ..*found }.encode(&mut again);
    let sequence = offset_of!(RawSuperblock, sequence);
    let differs = |(at, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(at);
    let changed: Vec<_> = page.iter().zip(&again).enumerate().filter_map(differs).collect();
    assert!(changed.iter().all(|at| (8..12).contains(at) || (sequence..sequence + 8).contains(at)), "{changed:?}");
    for field in [offset_of!(RawSuperblock, incompat), offset_of!(RawSuperblock, ro_compat)] {
        let mut newer = page.clone();
        newer[field] = 4;
        seal(&mut newer);
        assert_eq!(Superblock::decode(&newer), SuperblockContent::Newer { version: 1, features: 4 });
    }
}

#[test]
fn the_empty_first_checkpoint_does_not_show_that_a_spare_was_used() {
    let end = encoded(&[Record::EndOfCheckpoint]);
    let two = encoded(&[Record::Pending { lba: BaseLba(1), count: 1 }, Record::EndOfCheckpoint]);
    let page = |epoch, index, records: &[RawRecord]| {
        let mut page = vec![0; 4096];
        let info = PageInfo { epoch, sequence: Sequence::ONE, checkpoint_pages: 1 };
        encode_page(&mut page, OWNER, PageAt { index, ..AT }, info, records);
        assert_eq!(used_by(&page, Copy::A), None, "it is of the other copy");
        used_by(&page, AT.copy)
    };
    assert_eq!(page(Epoch::ONE, 0, &end), None);
    assert_eq!(
        [page(Epoch::ONE, 0, &two), page(Epoch::ONE, 1, &end), page(Epoch::ONE.plus(1), 0, &end)],
        [Some(SET); 3]
    );
    assert_eq!([page(Epoch::ONE.plus(1), 2, &two), used_by(&[0; 4096], Copy::A)], [None; 2]);
}

#[test]
fn numbers_that_nobody_can_have_reached_are_impossible() {
    for field in [
        offset_of!(RawSuperblock, epoch),
        offset_of!(RawSuperblock, sequence),
        offset_of!(RawSuperblock, committed),
        offset_of!(RawSuperblock, noted_epoch),
    ] {
        let mut page = vec![0; 4096];
        superblock().encode(&mut page);
        page[field + 7] = 0xFF;
        seal(&mut page);
        assert!(matches!(Superblock::decode(&page), SuperblockContent::Impossible(_)));
    }
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
    let patches: [fn(&mut Layout); 8] = [
        |layout| layout.log[Copy::A] = SpareLba(0),
        |layout| layout.log[Copy::B].0 += 1,
        |layout| layout.data_start.0 -= 1,
        |layout| layout.data_blocks += 1000,
        |layout| layout.superblock_b.0 -= 1,
        |layout| layout.page_bytes = 8192,
        |layout| layout.area_pages = u32::MAX,
        |layout| layout.data_start = SpareLba(u64::MAX),
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
        ("RawRecord", RECORD_SIZE, fields!(RawRecord: lba_low, lba_high, kind, slot, spare, count)),
        (
            "PageHeader",
            PAGE_HEADER_SIZE,
            fields!(PageHeader: magic, crc, flags, set_uuid, spare_id, epoch, sequence, record_count, checkpoint_pages, index,
                copy, area, reserved),
        ),
        (
            "RawSuperblock",
            SUPERBLOCK_SIZE,
            fields!(RawSuperblock: magic, crc, version, incompat, ro_compat, compat, set_uuid, base_uuid, host_id, generation,
                sequence, written_at, epoch, committed, noted_epoch, base_blocks, spare_blocks, spare_0_id, spare_1_id,
                spare_0_state, spare_1_state, slot, block_size, md_size, page_bytes, area_pages, data_blocks, log_a, log_b,
                data_start, superblock_b, name_len, in_use, name, scrub_next, scrub_end, scrub_mbps,
                reserved, tail),
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
