//! What the simulated hosts write: each block tells where it belongs, and which write it is of.

use super::model::{Value, ZEROS};

/// The bits of a value; those above are the block's address.
const VALUE_BITS: u32 = 40;

/// The contents of block `lba` with `value` in it.
pub(crate) fn stamp(lba: u64, value: Value, block_size: usize) -> Vec<u8> {
    let piece = if value == ZEROS { 0 } else { (lba << VALUE_BITS) | value };
    piece.to_le_bytes().repeat(block_size / 8)
}

/// The value in block `lba`.
pub(crate) fn value_in(lba: u64, bytes: &[u8]) -> Result<Value, String> {
    let (piece, rest) = bytes.split_at(8);
    if !rest.chunks(8).all(|other| other == piece) {
        return Err(format!("block {lba} is a mixture"));
    }
    let number = u64::from_le_bytes(piece.try_into().unwrap_or_default());
    let (of, value) = (number >> VALUE_BITS, number & ((1 << VALUE_BITS) - 1));
    if number != 0 && of != lba {
        return Err(format!("block {lba} has the data of block {of}, written by {value}"));
    }
    Ok(value)
}
