//! The contents of one block of a simulated disk. Most are zeros, and cost nothing.

use std::rc::Rc;

use super::random::Random;

/// The contents of a block; `None` is zeros.
pub type Block = Option<Rc<[u8]>>;

/// The block that `bytes` are.
pub(crate) fn block_of(bytes: &[u8]) -> Block {
    if bytes.iter().all(|byte| *byte == 0) { None } else { Some(Rc::from(bytes)) }
}

/// Fills `bytes` with the block.
pub(crate) fn copy_to(block: &Block, bytes: &mut [u8]) {
    match block {
        Some(block) => bytes.copy_from_slice(block),
        None => bytes.fill(0),
    }
}

/// Some pieces of the old block, some of the new: up to some place, or anywhere.
pub(crate) fn mixed(old: &Block, new: &Block, size: usize, piece: usize, random: &Random) -> Block {
    let (mut all, mut other) = (vec![0; size], vec![0; size]);
    copy_to(old, &mut all);
    copy_to(new, &mut other);
    // Often in the first bytes, which are all that most pages have.
    let place = random.below(if random.chance(1, 2) { 128 } else { size as u64 }) as usize / piece;
    let anywhere = random.chance(1, 2);
    for (index, (to, from)) in all.chunks_mut(piece).zip(other.chunks(piece)).enumerate() {
        if if anywhere { random.chance(1, 2) } else { index < place } {
            to.copy_from_slice(from);
        }
    }
    block_of(&all)
}
