//! A spare that is written at once: its log is one checkpoint, in both copies.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use remap_core::format::superblock::Kept;
use remap_core::format::{
    Area, Copy, InUse, Layout, PageAt, PageInfo, PageOwner, Record, SpareState, Superblock, SuperblockContent,
    encode_page, records_per_page,
};
use remap_core::{Epoch, Sequence, Slot, SpareBlock};
use uuid::Uuid;

/// What is to be on the spare.
pub struct Wanted {
    pub name: &'static str,
    pub block_size: u32,
    pub spare_blocks: u64,
    pub base_blocks: u64,
    /// Microseconds since 1970.
    pub written_at: u64,
}

/// The block of the spare with this number.
pub fn spare_block(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

/// Writes a spare whose log holds these records.
pub fn write_spare(path: &Path, wanted: &Wanted, records: impl Iterator<Item = Record>) -> Layout {
    let Wanted { name, block_size, spare_blocks, base_blocks, written_at } = *wanted;
    let layout = Layout::for_spare(block_size, spare_blocks).unwrap();
    let per_page = records_per_page(layout.page_bytes as usize);
    let (set_uuid, spare_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut encoded: Vec<_> = records.map(|record| record.encode()).collect();
    encoded.push(Record::EndOfCheckpoint.encode());
    let file = File::create(path).unwrap();
    file.set_len(spare_blocks * u64::from(block_size)).unwrap();
    let mut page = vec![0; layout.page_bytes as usize];
    let checkpoint_pages = encoded.len().div_ceil(per_page) as u32;
    for (index, records) in (0_u32..).zip(encoded.chunks(per_page)) {
        let sequence = Sequence::new(1 + u64::from(index)).unwrap();
        let info = PageInfo { epoch: Epoch::ONE, sequence, checkpoint_pages };
        for copy in Copy::BOTH {
            let at = PageAt { copy, area: Area::Zero, index };
            encode_page(&mut page, PageOwner { set_uuid, spare_id }, at, info, records);
            let place = layout.log_page(copy, Area::Zero, index.into());
            file.write_all_at(&page, place.0 * u64::from(block_size)).unwrap();
        }
    }
    let superblock = Superblock {
        set_uuid,
        base_uuid: Uuid::from_u128(3),
        host_id: Uuid::nil(),
        generation: 1,
        sequence: Sequence::ONE,
        written_at,
        epoch: Epoch::ONE,
        committed: Sequence::new(checkpoint_pages.into()).unwrap(),
        noted_epoch: Epoch::ZERO,
        in_use: InUse::No,
        base_blocks,
        md_size: 0,
        name: name.into(),
        slot: Slot::FIRST,
        spare_id,
        state: SpareState::Active,
        other: None,
        layout,
        scrub: None,
        compat: 0,
        kept: Kept::default(),
    };
    for copy in Copy::BOTH {
        superblock.encode(&mut page);
        file.write_all_at(&page, layout.superblock(copy).0 * u64::from(block_size)).unwrap();
    }
    layout
}

/// Changes both superblocks of a spare.
pub fn edit_superblocks(path: &Path, layout: &Layout, mut edit: impl FnMut(&mut Superblock)) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut page = vec![0; layout.page_bytes as usize];
    for copy in Copy::BOTH {
        let at = layout.superblock(copy).0 * u64::from(layout.block_size);
        file.read_exact_at(&mut page, at).unwrap();
        let SuperblockContent::Valid(mut superblock) = Superblock::decode(&page) else { panic!("no superblock") };
        edit(&mut superblock);
        superblock.encode(&mut page);
        file.write_all_at(&page, at).unwrap();
    }
}
