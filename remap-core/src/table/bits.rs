//! The mappings of 512 consecutive blocks of the base as a bitmap and the values of the blocks in it, in one immutable allocation:
//! what is found fastest where many blocks are remapped.
//!
//! ```text
//! | words: [u64; 8] | before: [u16; 8] | values: [u32] |        4 bytes a block, and 80
//! ```
//! A bit for each block; `before` counts those that are set in earlier words. Who finds a bit that is not set has looked at one word.

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
}

/// A bitmap that can be looked at for `'a`.
#[derive(Clone, Copy)]
pub(super) struct BitsRef<'a> {
    bits: NonNull<Bits>,
    _lives: PhantomData<&'a Bits>,
}

/// Where the values start, and the layout of the whole.
fn layout(len: usize) -> Option<(usize, Layout)> {
    let (whole, values) = Layout::new::<Bits>().extend(Layout::array::<u32>(len).ok()?).ok()?;
    Some((values, whole))
}

/// The word with the bit of `key`, and which of its bits it is.
#[inline]
fn place_of(key: u16) -> (usize, u32) {
    (usize::from(key / WORD) & (WORDS - 1), u32::from(key % WORD))
}

impl Bits {
    /// A new bitmap that holds `entries`, whose keys ascend and are below [`BITS`]. Aborts without memory.
    pub(super) fn make(entries: &[(u16, u32)]) -> Option<NonNull<Bits>> {
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        debug_assert!(entries.iter().all(|(key, _)| *key < BITS));
        let mut bits = Bits { words: [0; WORDS], before: [0; WORDS] };
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
        let (values, layout) = layout(entries.len())?;
        // SAFETY: the layout is not empty, it holds at least the header.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `start` is a fresh allocation of `layout`, which has room for the header, then the values at `values`, each
        // aligned; nobody else knows it yet.
        unsafe {
            start.cast::<Bits>().write(bits);
            let values = start.add(values).cast::<u32>();
            for (i, (_, value)) in entries.iter().enumerate() {
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
        let len = unsafe { bits.as_ref() }.len();
        if let Some((_, layout)) = layout(len) {
            // SAFETY: allocated by `make` with this very layout, as `len` never changes.
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
        let at = usize::from(self.head().before[word]) + below.count_ones() as usize;
        // SAFETY: the values follow the header, one for each bit that is set, and by contract `at` of these are before this one.
        unsafe { self.bits.add(1).cast::<u32>().add(at).read() }
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
    use super::*;

    #[test]
    fn it_gives_back_what_was_put_in() {
        for step in [1_usize, 2, 3, 63, 64, 65, 511] {
            let entries: Vec<(u16, u32)> =
                (0..BITS).step_by(step).map(|key| (key, u32::from(key).wrapping_mul(7_777_777))).collect();
            let bits = Bits::make(&entries).unwrap();
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
}
