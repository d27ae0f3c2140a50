//! The superblock: whose the spare is, in which state, where everything is on it, and how far the log is known to go.
//!
//! Two copies, never both being written at once. All that changes is in the first 512 bytes, so that a write of it cannot
//! be torn on a device with blocks of 512 bytes. What this version does not know (compatible features, reserved bytes) is
//! kept when the superblock is written again. Decoding takes any bytes and never panics. `docs/format.md` describes the fields.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::{crc_without, is_zero};
use super::layout::Layout;
use super::place::PerCopy;
use crate::slot::Slot;
use crate::units::{BaseLba, Epoch, Sequence, SpareLba};

/// The first bytes of a superblock.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"BDRMSUP1";
/// The version that this code writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// The incompatible features that this code knows.
pub const INCOMPAT_KNOWN: u64 = 0;
/// The features that this code knows of those without which nothing may be written.
pub const RO_COMPAT_KNOWN: u64 = 0;
/// The longest name of a set, in bytes.
pub const NAME_MAX: usize = 191;
/// Bytes of a superblock.
pub const SUPERBLOCK_SIZE: usize = 4096;
/// Bytes that this version keeps and does not look at: [`RawSuperblock::reserved`] and [`RawSuperblock::tail`].
const KEPT: usize = 44 + 3584;

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
    /// Features without which the spare must not be written to.
    pub ro_compat: U64,
    /// Features that code that does not know them may ignore, and keeps.
    pub compat: U64,
    /// The identity of the pair of base and spare.
    pub set_uuid: [u8; 16],
    /// The base.
    pub base_uuid: [u8; 16],
    /// The host to which the set belongs, or zeros.
    pub host_id: [u8; 16],
    /// Raised whenever another host takes the set over, or another spare comes into force.
    pub generation: U64,
    /// Grows with each superblock written.
    pub sequence: U64,
    /// When it was written: microseconds since 1970, UTC, by the clock of the host; for people.
    pub written_at: U64,
    /// The highest epoch whose checkpoint is known to be complete.
    pub epoch: U64,
    /// The sequence number of a log page that is known to be committed, with all before it.
    pub committed: U64,
    /// The epoch in which every commit is noted in `committed` before it is acknowledged, or zero.
    pub noted_epoch: U64,
    /// Size of the base in blocks.
    pub base_blocks: U64,
    /// Size of the spare in blocks.
    pub spare_blocks: U64,
    /// The identity of the spare in slot 0, or zeros.
    pub spare_0_id: [u8; 16],
    /// The identity of the spare in slot 1, or zeros.
    pub spare_1_id: [u8; 16],
    /// What the spare in slot 0 is to the set: a [`SpareState`], or zero.
    pub spare_0_state: U32,
    /// What the spare in slot 1 is to the set: a [`SpareState`], or zero.
    pub spare_1_state: U32,
    /// The slot of this spare: 0 or 1.
    pub slot: U32,
    /// Bytes a block.
    pub block_size: U32,
    /// Metadata bytes a block.
    pub md_size: U32,
    /// Bytes of a superblock or log page.
    pub page_bytes: U32,
    /// Pages of a log area.
    pub area_pages: U32,
    /// Size of the data area in blocks.
    pub data_blocks: U32,
    /// First block of log area 0, copy A; area 1 follows it.
    pub log_a: U64,
    /// First block of log area 0, copy B; area 1 follows it.
    pub log_b: U64,
    /// First block of the data area.
    pub data_start: U64,
    /// Block of superblock B.
    pub superblock_b: U64,
    /// Bytes of the name.
    pub name_len: U32,
    /// An [`InUse`].
    pub in_use: U32,
    /// Name of the Remap bdev, UTF-8, zeros behind it.
    pub name: [u8; 192],
    /// The block of the base where a scrub goes on that has not ended.
    pub scrub_next: U64,
    /// The block behind the last one of that scrub; zero, or not above `scrub_next`: there is none.
    pub scrub_end: U64,
    /// Its rate: 10^6 bytes a second at most.
    pub scrub_mbps: U32,
    /// For later versions; kept.
    pub reserved: [u8; 44],
    /// For later versions; kept.
    pub tail: [u8; 3584],
}

const _: () = assert!(size_of::<RawSuperblock>() == SUPERBLOCK_SIZE);

/// What a spare is to its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpareState {
    /// It holds the mapping.
    Active,
    /// It is being filled from the spare in the other slot.
    MigratingIn,
    /// It was copied to the spare in the other slot, which may be in force.
    MigratingOut,
    /// The spare in the other slot has taken over.
    Retired,
}

impl SpareState {
    /// The state in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SpareState::Active => "active",
            SpareState::MigratingIn => "migrating-in",
            SpareState::MigratingOut => "migrating-out",
            SpareState::Retired => "retired",
        }
    }

    /// Whether it ends that the spare is in force. Such a state counts only when both superblocks say so.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, SpareState::MigratingOut | SpareState::Retired)
    }

    fn encode(self) -> u32 {
        match self {
            SpareState::Active => 1,
            SpareState::MigratingIn => 2,
            SpareState::MigratingOut => 3,
            SpareState::Retired => 4,
        }
    }

    fn decode(state: u32) -> Option<SpareState> {
        match state {
            1 => Some(SpareState::Active),
            2 => Some(SpareState::MigratingIn),
            3 => Some(SpareState::MigratingOut),
            4 => Some(SpareState::Retired),
            _ => None,
        }
    }
}

/// Whether pages may be behind `committed`, under `epoch`, that the superblocks do not tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// It was closed cleanly: there are none.
    No,
    /// It was not closed cleanly: one may have been under way.
    Yes,
    /// Nor was it, but nothing is appended under this epoch any more: what turns up there later does not count.
    Ended,
}

impl InUse {
    fn encode(self) -> u32 {
        match self {
            InUse::No => 0,
            InUse::Yes => 1,
            InUse::Ended => 2,
        }
    }

    fn decode(in_use: u32) -> InUse {
        match in_use {
            0 => InUse::No,
            2 => InUse::Ended,
            _ => InUse::Yes,
        }
    }
}

/// The spare in the other slot of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSpare {
    /// Its identity.
    pub id: Uuid,
    /// What it is to the set.
    pub state: SpareState,
}

/// A scrub that has not ended: where it goes on, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPosition {
    /// The block with which it goes on.
    pub next: BaseLba,
    /// The block behind its last one, above `next`.
    pub end: BaseLba,
    /// 10^6 bytes a second at most.
    pub max_mbps: u32,
}

/// A superblock, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The identity of the pair of base and spare.
    pub set_uuid: Uuid,
    /// The base.
    pub base_uuid: Uuid,
    /// The host to which the set belongs, or nil.
    pub host_id: Uuid,
    /// Raised whenever another host takes the set over, or another spare comes into force.
    pub generation: u64,
    /// Grows with each superblock written.
    pub sequence: Sequence,
    /// When it was written: microseconds since 1970, UTC; for people.
    pub written_at: u64,
    /// The highest epoch whose checkpoint is known to be complete.
    pub epoch: Epoch,
    /// The sequence number of a log page that is known to be committed, with all before it.
    pub committed: Sequence,
    /// The epoch in which every commit is noted in `committed` before it is acknowledged, or zero: there, nothing behind
    /// `committed` was acknowledged. Greater than `epoch` after a state was chosen by an operator: [`Superblock::hides_epochs`].
    pub noted_epoch: Epoch,
    /// Whether log pages may be there that the superblocks do not tell of.
    pub in_use: InUse,
    /// Size of the base in blocks.
    pub base_blocks: u64,
    /// Metadata bytes a block.
    pub md_size: u32,
    /// Name of the Remap bdev.
    pub name: String,
    /// The slot of this spare.
    pub slot: Slot,
    /// The identity of this spare.
    pub spare_id: Uuid,
    /// What this spare is to the set.
    pub state: SpareState,
    /// The spare in the other slot, if there is one.
    pub other: Option<OtherSpare>,
    /// Where everything is.
    pub layout: Layout,
    /// The scrub that has not ended, if there is one.
    pub scrub: Option<ScrubPosition>,
    /// Compatible features, known here or not.
    pub compat: u64,
    /// What this version does not look at.
    pub kept: Kept,
}

/// Bytes of a superblock that this version does not look at, and writes as it found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(Option<Box<[u8; KEPT]>>);

/// A superblock area that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuperblockContent {
    /// A superblock that this code understands. Whether it fits the devices is not checked.
    Valid(Box<Superblock>),
    /// A valid one of a version, or with features, that this code does not know.
    Newer {
        /// Its version.
        version: u32,
        /// The unknown features among those without which nothing may be read, or written.
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
    /// Whether epochs above this one may have been used that nothing on the spare tells of any more, as an operator has chosen an earlier
    /// state: what was erased of them may come back, where a device has lost that write.
    #[must_use]
    pub fn hides_epochs(&self) -> bool {
        self.noted_epoch > self.epoch
    }

    /// Whether it was closed cleanly since something was written to the log.
    #[must_use]
    pub fn was_closed(&self) -> bool {
        self.in_use == InUse::No
    }

    /// Fills `page` (at least [`SUPERBLOCK_SIZE`] bytes, or nothing is done) with the superblock, and zeros behind it.
    pub fn encode(&self, page: &mut [u8]) {
        page.fill(0);
        let Some(head) = page.get_mut(..SUPERBLOCK_SIZE) else { return };
        head.copy_from_slice(self.to_raw().as_bytes());
    }

    /// Whether its numbers leave room for all that may come after them.
    pub(crate) fn has_room(&self) -> bool {
        self.epoch.has_room() && self.sequence.has_room() && self.committed.has_room()
    }

    fn to_raw(&self) -> RawSuperblock {
        let layout = &self.layout;
        let name_len = self.name.len().min(NAME_MAX);
        let mut spares = [(Uuid::nil(), 0); 2];
        spares[usize::from(self.slot.get())] = (self.spare_id, self.state.encode());
        if let Some(other) = self.other {
            spares[usize::from(self.slot.other().get())] = (other.id, other.state.encode());
        }
        let mut raw = RawSuperblock {
            magic: SUPERBLOCK_MAGIC,
            version: U32::new(VERSION),
            compat: U64::new(self.compat),
            set_uuid: *self.set_uuid.as_bytes(),
            base_uuid: *self.base_uuid.as_bytes(),
            host_id: *self.host_id.as_bytes(),
            generation: U64::new(self.generation),
            sequence: U64::new(self.sequence.get()),
            written_at: U64::new(self.written_at),
            epoch: U64::new(self.epoch.get()),
            committed: U64::new(self.committed.get()),
            noted_epoch: U64::new(self.noted_epoch.get()),
            base_blocks: U64::new(self.base_blocks),
            spare_blocks: U64::new(layout.spare_blocks),
            spare_0_id: *spares[0].0.as_bytes(),
            spare_1_id: *spares[1].0.as_bytes(),
            spare_0_state: U32::new(spares[0].1),
            spare_1_state: U32::new(spares[1].1),
            slot: U32::new(u32::from(self.slot.get())),
            block_size: U32::new(layout.block_size),
            md_size: U32::new(self.md_size),
            page_bytes: U32::new(layout.page_bytes),
            area_pages: U32::new(layout.area_pages),
            data_blocks: U32::new(layout.data_blocks),
            log_a: U64::new(layout.log.0[0].0),
            log_b: U64::new(layout.log.0[1].0),
            data_start: U64::new(layout.data_start.0),
            superblock_b: U64::new(layout.superblock_b.0),
            // At most 191.
            name_len: U32::new(name_len as u32),
            in_use: U32::new(self.in_use.encode()),
            ..RawSuperblock::new_zeroed()
        };
        if let Some(ScrubPosition { next, end, max_mbps }) = self.scrub {
            (raw.scrub_next, raw.scrub_end) = (U64::new(next.0), U64::new(end.0));
            raw.scrub_mbps = U32::new(max_mbps);
        }
        raw.name[..name_len].copy_from_slice(&self.name.as_bytes()[..name_len]);
        self.kept.put(&mut raw);
        raw.crc = U32::new(crc_without(raw.as_bytes(), offset_of!(RawSuperblock, crc)));
        raw
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
        let features = (raw.incompat.get() & !INCOMPAT_KNOWN) | (raw.ro_compat.get() & !RO_COMPAT_KNOWN);
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
            log: PerCopy([SpareLba(raw.log_a.get()), SpareLba(raw.log_b.get())]),
            data_start: SpareLba(raw.data_start.get()),
            data_blocks: raw.data_blocks.get(),
            superblock_b: SpareLba(raw.superblock_b.get()),
        };
        layout.check()?;
        let name_len = usize::try_from(raw.name_len.get()).unwrap_or(usize::MAX);
        let name = raw.name.get(..name_len).filter(|name| (1..=NAME_MAX).contains(&name.len())).ok_or("name")?;
        let name = std::str::from_utf8(name).map_err(|_| "name")?.to_owned();
        let slot = Slot::new(raw.slot.get()).ok_or("slot")?;
        let mut spares = [(raw.spare_0_id, raw.spare_0_state), (raw.spare_1_id, raw.spare_1_state)];
        if slot != Slot::FIRST {
            spares.swap(0, 1);
        }
        let [(id, state), (other_id, other_state)] = spares.map(|(id, state)| (Uuid::from_bytes(id), state.get()));
        let other = match SpareState::decode(other_state) {
            Some(state) => Some(OtherSpare { id: other_id, state }),
            None if other_state == 0 && other_id.is_nil() => None,
            None => return Err("state of the other spare"),
        };
        let state = SpareState::decode(state).ok_or("state")?;
        if state != SpareState::Active && other.is_none() {
            return Err("a state that needs another spare");
        }
        let (next, end) = (BaseLba(raw.scrub_next.get()), BaseLba(raw.scrub_end.get()));
        Ok(Superblock {
            set_uuid: Uuid::from_bytes(raw.set_uuid),
            base_uuid: Uuid::from_bytes(raw.base_uuid),
            host_id: Uuid::from_bytes(raw.host_id),
            generation: raw.generation.get(),
            sequence: Sequence::new(raw.sequence.get()).ok_or("sequence")?,
            written_at: raw.written_at.get(),
            epoch: Epoch::new(raw.epoch.get()).ok_or("epoch")?,
            committed: Sequence::new(raw.committed.get()).ok_or("committed sequence")?,
            noted_epoch: Epoch::new(raw.noted_epoch.get()).ok_or("noted epoch")?,
            in_use: InUse::decode(raw.in_use.get()),
            base_blocks: raw.base_blocks.get(),
            md_size: raw.md_size.get(),
            name,
            slot,
            spare_id: id,
            state,
            other,
            layout,
            scrub: (next < end).then(|| ScrubPosition { next, end, max_mbps: raw.scrub_mbps.get() }),
            compat: raw.compat.get(),
            kept: Kept::of(raw),
        })
    }
}

impl Kept {
    fn of(raw: &RawSuperblock) -> Kept {
        if is_zero(&raw.reserved) && is_zero(&raw.tail) {
            return Kept(None);
        }
        let mut bytes = Box::new([0; KEPT]);
        let (reserved, tail) = bytes.split_at_mut(raw.reserved.len());
        reserved.copy_from_slice(&raw.reserved);
        tail.copy_from_slice(&raw.tail);
        Kept(Some(bytes))
    }

    fn put(&self, raw: &mut RawSuperblock) {
        let Some(bytes) = &self.0 else { return };
        let (reserved, tail) = bytes.split_at(raw.reserved.len());
        raw.reserved.copy_from_slice(reserved);
        raw.tail.copy_from_slice(tail);
    }
}
