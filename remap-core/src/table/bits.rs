//! The mappings of 512 consecutive blocks of the base as a bitmap and the values of the blocks in it, in one immutable allocation:
//! what is found fastest where many blocks are remapped.
//!
//! ```text
//! | words: [u64; 8] | before: [u16; 8] | row | values: [u32] |        4 bytes a block, and 88; of a row 88 in all
//! ```
//! A bit for each block; `before` counts those that are set in earlier words. Who finds a bit that is not set has looked at one word.
//!
//! Where each block has the value after that of the one before, the values are a *row*: the first says them all. So it is with blocks
//! that were remapped in order, as an import does it, or a host that writes over a bad stretch: their table stays in the near caches.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Blocks that one bitmap is for.
pub(super) const BITS: u16 = 512;
const WORD: u16 = 64;
const WORDS: usize = (BITS / WORD) as usize;

/// The header of the allocation; the values follow it.
#[repr(C)]
pub(super) struct Bits {
    words: [u64; WORDS],
    before: [u16; WORDS],
    /// The value of the first block, if the values are a row: then none are kept.
    row: Option<u32>,
}

/// A bitmap that can be looked at for `'a`.
#[derive(Clone, Copy)]
pub(super) struct BitsRef<'a> {
    bits: NonNull<Bits>,
    _lives: PhantomData<&'a Bits>,
}

/// Where the values start, and the layout of the whole, if so many values are kept.
fn layout(len: usize) -> Option<(usize, Layout)> {
    let (whole, values) = Layout::new::<Bits>().extend(Layout::array::<u32>(len).ok()?).ok()?;
    Some((values, whole))
}

/// The word with the bit of `key`, and which of its bits it is.
#[inline]
fn place_of(key: u16) -> (usize, u32) {
    (usize::from(key / WORD) & (WORDS - 1), u32::from(key % WORD))
}

/// The first value, if the others follow it one by one.
fn row_of(entries: &[(u16, u32)]) -> Option<u32> {
    let (_, first) = *entries.first()?;
    (0..).zip(entries).all(|(at, (_, value))| first.checked_add(at) == Some(*value)).then_some(first)
}

impl Bits {
    /// A new bitmap that holds `entries`, whose keys ascend and are below [`BITS`]. Aborts without memory.
    pub(super) fn make(entries: &[(u16, u32)]) -> Option<NonNull<Bits>> {
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        debug_assert!(entries.iter().all(|(key, _)| *key < BITS));
        let row = row_of(entries);
        let mut bits = Bits { words: [0; WORDS], before: [0; WORDS], row };
        for (key, _) in entries {
            let (word, bit) = place_of(*key);
            bits.words[word] |= 1 << bit;
        }
        let mut before = 0;
        for (word, count) in bits.words.iter().zip(&mut bits.before) {
            *count = before;
            // At most 64, eight times.
            before += word.count_ones() as u16;
        }
        let kept = if row.is_some() { &[] } else { entries };
        let (values, layout) = layout(kept.len())?;
        // SAFETY: the layout is not empty, it holds at least the header.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `start` is a fresh allocation of `layout`, which has room for the header, then the values at `values`, each
        // aligned; nobody else knows it yet.
        unsafe {
            start.cast::<Bits>().write(bits);
            let values = start.add(values).cast::<u32>();
            for (i, (_, value)) in kept.iter().enumerate() {
                values.add(i).write(*value);
            }
        }
        Some(start.cast())
    }

    /// How many bits are set.
    fn len(&self) -> usize {
        usize::from(self.before[WORDS - 1]) + self.words[WORDS - 1].count_ones() as usize
    }

    /// Frees it.
    ///
    /// # Safety
    /// `bits` comes from [`Bits::make`], was not freed, and no [`BitsRef`] to it is left.
    pub(super) unsafe fn free(bits: NonNull<Bits>) {
        // SAFETY: by contract it is whole.
        let head = unsafe { bits.as_ref() };
        let kept = if head.row.is_some() { 0 } else { head.len() };
        if let Some((_, layout)) = layout(kept) {
            // SAFETY: allocated by `make` with this very layout, as neither ever changes.
            unsafe { dealloc(bits.as_ptr().cast(), layout) }
        }
    }
}

impl<'a> BitsRef<'a> {
    /// Looks at it.
    ///
    /// # Safety
    /// `bits` comes from [`Bits::make`], and is not freed while `'a` lasts.
    #[inline]
    pub(super) unsafe fn new(bits: NonNull<Bits>, _lives: PhantomData<&'a Bits>) -> BitsRef<'a> {
        BitsRef { bits, _lives: PhantomData }
    }

    #[inline]
    fn head(self) -> &'a Bits {
        // SAFETY: it lives, by the contract of `new`, and nothing writes to it.
        unsafe { self.bits.as_ref() }
    }

    /// How many blocks it holds.
    pub(super) fn len(self) -> usize {
        self.head().len()
    }

    /// The value of `key`.
    #[inline]
    pub(super) fn get(self, key: u16) -> Option<u32> {
        let (word, bit) = place_of(key);
        let found = self.head().words[word];
        // SAFETY: the bit is set, and these are the ones before it.
        (found >> bit & 1 != 0).then(|| unsafe { self.value(word, found & !(!0 << bit)) })
    }

    /// The value of a bit of this word.
    ///
    /// # Safety
    /// It is set, and `below` are the set ones before it.
    #[inline]
    unsafe fn value(self, word: usize, below: u64) -> u32 {
        let head = self.head();
        let at = u32::from(head.before[word]) + below.count_ones();
        match head.row {
            Some(first) => first + at,
            // SAFETY: the values follow the header, one for each bit that is set, and by contract `at` of these are before this one.
            None => unsafe { self.bits.add(1).cast::<u32>().add(at as usize).read() },
        }
    }

    /// The keys from `key` on, with their values.
    #[inline]
    pub(super) fn from(self, key: u16) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        let (first, bit) = place_of(key);
        let mut word = first;
        let mut left = self.head().words[word] & (!0 << bit);
        std::iter::from_fn(move || {
            while left == 0 {
                word += 1;
                left = *self.head().words.get(word)?;
            }
            // Below 64, and the word is below 8.
            let key = word as u16 * WORD + left.trailing_zeros() as u16;
            let lowest = left & left.wrapping_neg();
            left &= !lowest;
            // SAFETY: it was one of those that are left, and these are the ones before it.
            let value = unsafe { self.value(word, self.head().words[word] & (lowest - 1)) };
            Some((key, value))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What the value of a block is, by its key and how many blocks are before it.
    type ValueOf = fn(u16, u32) -> u32;

    #[test]
    fn it_gives_back_what_was_put_in() {
        let any: ValueOf = |key, _| u32::from(key).wrapping_mul(7_777_777);
        let row: ValueOf = |_, at| 1000 + at;
        let last_row: ValueOf = |_, at| u32::MAX - 511 + at;
        let all_alike: ValueOf = |_, _| u32::MAX;
        let nearly_a_row: ValueOf = |key, at| at + u32::from(key == BITS - 1);
        for value_of in [any, row, last_row, all_alike, nearly_a_row] {
            for step in [1_usize, 2, 3, 63, 64, 65, 511] {
                let keys = (0..BITS).step_by(step);
                gives_back(&(0..).zip(keys).map(|(at, key)| (key, value_of(key, at))).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn of_a_row_no_values_are_kept() {
        assert_eq!(row_of(&[(3, 7), (9, 8), (10, 9)]), Some(7));
        assert_eq!(row_of(&[(3, 7), (9, 8), (10, 10)]), None);
        assert_eq!(row_of(&[(3, u32::MAX), (9, u32::MAX)]), None);
        assert_eq!(row_of(&[(3, u32::MAX), (9, 0)]), None);
        assert_eq!(row_of(&[]), None);
    }

    fn gives_back(entries: &[(u16, u32)]) {
        let bits = Bits::make(entries).unwrap();
        {
            // SAFETY: just made, freed below, behind this scope.
            let view = unsafe { BitsRef::new(bits, PhantomData) };
            assert_eq!(view.len(), entries.len());
            for key in 0..BITS {
                let expected: Vec<_> = entries.iter().copied().filter(|(k, _)| *k >= key).collect();
                assert_eq!(view.from(key).collect::<Vec<_>>(), expected);
                assert_eq!(view.get(key), expected.first().filter(|(k, _)| *k == key).map(|(_, value)| *value));
            }
        }
        // SAFETY: made above, and nothing looks at it any more.
        unsafe { Bits::free(bits) }
    }
}
