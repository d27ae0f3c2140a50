//! The superblock: whose the spare is, in which state, and where everything is on it.
//!
//! Two copies, never both being written at once. Everything but the tail of zeros is in the first 512 bytes, so that a
//! write of it cannot be torn on a device with blocks of 512 bytes. Decoding takes any bytes and never panics.
//! `docs/format.md` describes the fields.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::{crc_without, is_zero};
use super::layout::Layout;

/// The first bytes of a superblock.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"BDRMSUP1";
/// The version that this code writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// The incompatible features that this code knows.
pub const INCOMPAT_KNOWN: u64 = 0;
/// The longest name of a set, in bytes.
pub const NAME_MAX: usize = 255;
/// Bytes of a superblock.
pub const SUPERBLOCK_SIZE: usize = 4096;

/// The superblock as it is on the spare.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawSuperblock {
    /// [`SUPERBLOCK_MAGIC`].
    pub magic: [u8; 8],
    /// CRC-32C of all 4096 bytes, this field taken as zero.
    pub crc: U32,
    /// [`VERSION`].
    pub version: U32,
    /// Features without which the spare must not be touched.
    pub incompat: U64,
    /// Features that code that does not know them may ignore.
    pub compat: U64,
    /// The identity of the pair of base and spare.
    pub set_uuid: [u8; 16],
    /// The identity of this spare.
    pub spare_id: [u8; 16],
    /// The base.
    pub base_uuid: [u8; 16],
    /// Size of the base in blocks.
    pub base_blocks: U64,
    /// Size of the spare in blocks.
    pub spare_blocks: U64,
    /// Bytes a block.
    pub block_size: U32,
    /// Metadata bytes a block.
    pub md_size: U32,
    /// A [`SpareState`].
    pub state: U32,
    /// Bytes of the name.
    pub name_len: U32,
    /// The other spare of a migration, or zeros.
    pub other_spare: [u8; 16],
    /// Grows with each superblock written.
    pub sequence: U64,
    /// The highest epoch whose checkpoint is known to be complete.
    pub epoch: U64,
    /// Bytes of a superblock or log page.
    pub page_bytes: U32,
    /// Pages of a log area.
    pub area_pages: U32,
    /// First block of area 0, copy A.
    pub area_0_a: U64,
    /// First block of area 1, copy A.
    pub area_1_a: U64,
    /// First block of area 0, copy B.
    pub area_0_b: U64,
    /// First block of area 1, copy B.
    pub area_1_b: U64,
    /// First block of the data area.
    pub data_start: U64,
    /// Block of superblock B.
    pub superblock_b: U64,
    /// Size of the data area in blocks.
    pub data_blocks: U32,
    /// Zero.
    pub reserved: [u8; 4],
    /// Name of the Remap bdev, UTF-8, zeros behind it.
    pub name: [u8; 256],
    /// The last epoch in which log copy A missed a committed page, or zero.
    pub missed_by_a: U64,
    /// Zeros.
    pub tail: [u8; 3624],
}

const _: () = assert!(size_of::<RawSuperblock>() == SUPERBLOCK_SIZE);

/// What a spare is to its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpareState {
    /// It holds the mapping.
    Active,
    /// It is being filled from another spare.
    MigratingIn,
    /// It was moved to this other spare, which may be active.
    MigratingOut(Uuid),
    /// This other spare has taken over.
    Retired(Uuid),
}

impl SpareState {
    /// The state in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SpareState::Active => "active",
            SpareState::MigratingIn => "migrating-in",
            SpareState::MigratingOut(_) => "migrating-out",
            SpareState::Retired(_) => "retired",
        }
    }

    fn encode(self) -> (u32, Uuid) {
        match self {
            SpareState::Active => (1, Uuid::nil()),
            SpareState::MigratingIn => (2, Uuid::nil()),
            SpareState::MigratingOut(other) => (3, other),
            SpareState::Retired(other) => (4, other),
        }
    }

    fn decode(state: u32, other: Uuid) -> Option<SpareState> {
        match state {
            1 => Some(SpareState::Active),
            2 => Some(SpareState::MigratingIn),
            3 => Some(SpareState::MigratingOut(other)),
            4 => Some(SpareState::Retired(other)),
            _ => None,
        }
    }

    /// The other spare that it names, or nil.
    #[must_use]
    pub fn other(self) -> Uuid {
        self.encode().1
    }
}

/// A superblock, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The identity of the pair of base and spare.
    pub set_uuid: Uuid,
    /// The identity of this spare.
    pub spare_id: Uuid,
    /// The base.
    pub base_uuid: Uuid,
    /// Size of the base in blocks.
    pub base_blocks: u64,
    /// Metadata bytes a block.
    pub md_size: u32,
    /// Name of the Remap bdev.
    pub name: String,
    /// What the spare is to the set.
    pub state: SpareState,
    /// Grows with each superblock written.
    pub sequence: u64,
    /// The highest epoch whose checkpoint is known to be complete.
    pub epoch: u64,
    /// The last epoch in which log copy A missed a committed page, or zero: in that epoch it does not show where the log ends.
    pub missed_by_a: u64,
    /// Where everything is.
    pub layout: Layout,
}

/// A superblock area that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuperblockContent {
    /// A superblock that this code understands. Whether it fits the devices is not checked.
    Valid(Box<Superblock>),
    /// A valid one of a version, or with features, that this code does not know.
    Newer {
        /// Its version.
        version: u32,
        /// The unknown incompatible features.
        features: u64,
    },
    /// A valid checksum over something impossible: what.
    Impossible(&'static str),
    /// All zeros.
    Zero,
    /// Our magic, but a wrong checksum.
    Corrupt,
    /// Something else.
    Foreign,
}

impl Superblock {
    /// Fills `page` (at least [`SUPERBLOCK_SIZE`] bytes, or nothing is done) with the superblock, and zeros behind it.
    pub fn encode(&self, page: &mut [u8]) {
        page.fill(0);
        let mut name = [0; 256];
        let name_len = self.name.len().min(NAME_MAX);
        name[..name_len].copy_from_slice(&self.name.as_bytes()[..name_len]);
        let (state, other_spare) = self.state.encode();
        let layout = &self.layout;
        let [[area_0_a, area_1_a], [area_0_b, area_1_b]] = layout.areas.map(|copy| copy.map(U64::new));
        let mut raw = RawSuperblock {
            magic: SUPERBLOCK_MAGIC,
            crc: U32::ZERO,
            version: U32::new(VERSION),
            incompat: U64::ZERO,
            compat: U64::ZERO,
            set_uuid: *self.set_uuid.as_bytes(),
            spare_id: *self.spare_id.as_bytes(),
            base_uuid: *self.base_uuid.as_bytes(),
            base_blocks: U64::new(self.base_blocks),
            spare_blocks: U64::new(layout.spare_blocks),
            block_size: U32::new(layout.block_size),
            md_size: U32::new(self.md_size),
            state: U32::new(state),
            // At most 255.
            name_len: U32::new(name_len as u32),
            other_spare: *other_spare.as_bytes(),
            sequence: U64::new(self.sequence),
            epoch: U64::new(self.epoch),
            page_bytes: U32::new(layout.page_bytes),
            area_pages: U32::new(layout.area_pages),
            area_0_a,
            area_1_a,
            area_0_b,
            area_1_b,
            data_start: U64::new(layout.data_start),
            superblock_b: U64::new(layout.superblock_b),
            data_blocks: U32::new(layout.data_blocks),
            reserved: [0; 4],
            name,
            missed_by_a: U64::new(self.missed_by_a),
            tail: [0; 3624],
        };
        raw.crc = U32::new(crc_without(raw.as_bytes(), offset_of!(RawSuperblock, crc)));
        if let Some(head) = page.get_mut(..SUPERBLOCK_SIZE) {
            head.copy_from_slice(raw.as_bytes());
        }
    }

    /// Looks at a superblock area that was read.
    #[must_use]
    pub fn decode(page: &[u8]) -> SuperblockContent {
        if is_zero(page) {
            return SuperblockContent::Zero;
        }
        let Ok((raw, _)) = RawSuperblock::ref_from_prefix(page) else { return SuperblockContent::Foreign };
        if raw.magic != SUPERBLOCK_MAGIC {
            return SuperblockContent::Foreign;
        }
        if raw.crc.get() != crc_without(raw.as_bytes(), offset_of!(RawSuperblock, crc)) {
            return SuperblockContent::Corrupt;
        }
        let features = raw.incompat.get() & !INCOMPAT_KNOWN;
        if raw.version.get() != VERSION || features != 0 {
            return SuperblockContent::Newer { version: raw.version.get(), features };
        }
        match Self::from_raw(raw) {
            Ok(superblock) => SuperblockContent::Valid(Box::new(superblock)),
            Err(what) => SuperblockContent::Impossible(what),
        }
    }

    fn from_raw(raw: &RawSuperblock) -> Result<Superblock, &'static str> {
        let layout = Layout {
            block_size: raw.block_size.get(),
            spare_blocks: raw.spare_blocks.get(),
            page_bytes: raw.page_bytes.get(),
            area_pages: raw.area_pages.get(),
            areas: [[raw.area_0_a.get(), raw.area_1_a.get()], [raw.area_0_b.get(), raw.area_1_b.get()]],
            data_start: raw.data_start.get(),
            data_blocks: raw.data_blocks.get(),
            superblock_b: raw.superblock_b.get(),
        };
        layout.check()?;
        let name_len = usize::try_from(raw.name_len.get()).unwrap_or(usize::MAX);
        let name = raw.name.get(..name_len).filter(|name| (1..=NAME_MAX).contains(&name.len())).ok_or("name")?;
        let name = std::str::from_utf8(name).map_err(|_| "name")?.to_owned();
        let other = Uuid::from_bytes(raw.other_spare);
        Ok(Superblock {
            set_uuid: Uuid::from_bytes(raw.set_uuid),
            spare_id: Uuid::from_bytes(raw.spare_id),
            base_uuid: Uuid::from_bytes(raw.base_uuid),
            base_blocks: raw.base_blocks.get(),
            md_size: raw.md_size.get(),
            name,
            state: SpareState::decode(raw.state.get(), other).ok_or("state")?,
            sequence: raw.sequence.get(),
            epoch: raw.epoch.get(),
            missed_by_a: raw.missed_by_a.get(),
            layout,
        })
    }
}
