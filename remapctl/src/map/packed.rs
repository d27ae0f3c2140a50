//! Extents in few bytes, for a program in a browser: a few bytes an extent, so that millions of them are some MiB.
//!
//! Each is three numbers in LEB128: how many blocks lie between it and the one before, its length times 4 plus its state (0 remapped,
//! 1 pending, 2 lost), and, unless it is pending, its first block on the spare, as the zigzag difference to where the one before ended there.

use integer_encoding::VarInt;
use remap_core::{ListedExtent, ListedState};

/// Bytes of the longest number.
const LONGEST: usize = 10;

/// Extents, packed.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    extents: u64,
    next: u64,
    spare_next: u64,
}

/// The number of a state.
#[must_use]
pub fn number(state: ListedState) -> usize {
    match state {
        ListedState::Remapped => 0,
        ListedState::Pending => 1,
        ListedState::Lost => 2,
    }
}

impl Packed {
    /// Adds one, which must not begin before the last one ends.
    pub fn push(&mut self, extent: &ListedExtent) {
        self.number(extent.lba.0.wrapping_sub(self.next));
        self.number((extent.num_blocks << 2) | number(extent.state) as u64);
        self.next = extent.lba.0 + extent.num_blocks;
        if extent.state != ListedState::Pending {
            let spare = extent.spare_lba.map_or(0, |spare| spare.0);
            self.number(spare.wrapping_sub(self.spare_next).cast_signed());
            self.spare_next = spare.wrapping_add(extent.num_blocks);
        }
        self.extents += 1;
    }

    fn number(&mut self, number: impl VarInt) {
        let mut buffer = [0; LONGEST];
        let length = number.encode_var(&mut buffer);
        self.bytes.extend_from_slice(&buffer[..length]);
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many extents they are.
    #[must_use]
    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Where the last one ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use remap_core::{BaseLba, SpareLba};

    use super::*;

    /// As the page reads it.
    fn unpack(packed: &Packed) -> Vec<ListedExtent> {
        let mut bytes = packed.bytes();
        let (mut next, mut spare_next, mut extents) = (0, 0_u64, Vec::new());
        while let Some((gap, length)) = u64::decode_var(bytes) {
            bytes = &bytes[length..];
            let (both, length) = u64::decode_var(bytes).unwrap();
            bytes = &bytes[length..];
            let (lba, num_blocks) = (next + gap, both >> 2);
            next = lba + num_blocks;
            let state = [ListedState::Remapped, ListedState::Pending, ListedState::Lost][(both & 3) as usize];
            let spare_lba = (state != ListedState::Pending).then(|| {
                let (difference, length) = i64::decode_var(bytes).unwrap();
                bytes = &bytes[length..];
                let spare = spare_next.wrapping_add_signed(difference);
                spare_next = spare + num_blocks;
                SpareLba(spare)
            });
            extents.push(ListedExtent { lba: BaseLba(lba), num_blocks, spare_lba, state });
        }
        extents
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_unpacked(
            parts in prop::collection::vec((0..1_u64 << 40, 1..1_u64 << 22, 0..1_u64 << 40, 0..3_usize), 0..100),
        ) {
            let (mut packed, mut extents, mut at) = (Packed::default(), Vec::new(), 0);
            for (gap, num_blocks, spare, state) in parts {
                let state = [ListedState::Remapped, ListedState::Pending, ListedState::Lost][state];
                let spare_lba = (state != ListedState::Pending).then_some(SpareLba(spare));
                let extent = ListedExtent { lba: BaseLba(at + gap), num_blocks, spare_lba, state };
                at += gap + num_blocks;
                packed.push(&extent);
                extents.push(extent);
            }
            prop_assert_eq!(unpack(&packed), extents);
        }
    }

    #[test]
    fn a_usual_extent_takes_few_bytes() {
        let mut packed = Packed::default();
        for block in 0..1000 {
            let spare_lba = Some(SpareLba(500 + block));
            let extent =
                ListedExtent { lba: BaseLba(90 * block), num_blocks: 1, spare_lba, state: ListedState::Remapped };
            packed.push(&extent);
        }
        assert!(packed.bytes().len() < 3010 && packed.extents() == 1000, "{}", packed.bytes().len());
    }
}
