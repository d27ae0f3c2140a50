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
fn row_of(mut values: impl Iterator<Item = u32>) -> Option<u32> {
    let first = values.next()?;
    (1..).zip(values).all(|(at, value)| first.checked_add(at) == Some(value)).then_some(first)
}

impl Bits {
    /// A new bitmap that holds `entries`, whose keys ascend and are below [`BITS`]. Aborts without memory.
    pub(super) fn make(entries: &[(u16, u32)]) -> Option<NonNull<Bits>> {
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        debug_assert!(entries.iter().all(|(key, _)| *key < BITS));
        let mut words = [0; WORDS];
        for (key, _) in entries {
            let (word, bit) = place_of(*key);
            words[word] |= 1 << bit;
        }
        let values = entries.iter().map(|(_, value)| *value);
        // SAFETY: the bits are those of the entries, whose keys differ.
        unsafe { Bits::store(words, row_of(values.clone()), values) }
    }

    /// A new one with these bits, and a value for each, as many as there are; or with the first one of them in `row`, if they are one.
    ///
    /// # Safety
    /// `all` yields a value for each bit that is set.
    unsafe fn store(words: [u64; WORDS], row: Option<u32>, all: impl Iterator<Item = u32>) -> Option<NonNull<Bits>> {
        let mut bits = Bits { words, before: [0; WORDS], row };
        let mut before = 0;
        for (word, count) in bits.words.iter().zip(&mut bits.before) {
            *count = before;
            // At most 64, eight times.
            before += word.count_ones() as u16;
        }
        let kept = if row.is_some() { 0 } else { usize::from(before) };
        let (values, layout) = layout(kept)?;
        // SAFETY: the layout is not empty, it holds at least the header.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `start` is a fresh allocation of `layout`, which has room for the header, then the values at `values`, each
        // aligned; nobody else knows it yet. By contract as many are written as there is room for.
        unsafe {
            start.cast::<Bits>().write(bits);
            let values = start.add(values).cast::<u32>();
            for (i, value) in all.take(kept).enumerate() {
                values.add(i).write(value);
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
    /// `bits` comes from [`Bits::make`] or [`BitsRef::with`], was not freed, and no [`BitsRef`] to it is left.
    pub(super) unsafe fn free(bits: NonNull<Bits>) {
        // SAFETY: by contract it is whole.
        let head = unsafe { bits.as_ref() };
        let kept = if head.row.is_some() { 0 } else { head.len() };
        if let Some((_, layout)) = layout(kept) {
            // SAFETY: allocated by `store` with this very layout, as neither ever changes.
            unsafe { dealloc(bits.as_ptr().cast(), layout) }
        }
    }
}

impl<'a> BitsRef<'a> {
    /// Looks at it.
    ///
    /// # Safety
    /// `bits` comes from [`Bits::make`] or [`BitsRef::with`], and is not freed while `'a` lasts.
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
        (found >> bit & 1 != 0).then(|| {
            let at = u32::from(self.head().before[word]) + (found & !(!0 << bit)).count_ones();
            // SAFETY: its bit is set, and so many are before it.
            unsafe { self.value(at) }
        })
    }

    /// The value of the block that has `at` others before it.
    ///
    /// # Safety
    /// There is one.
    #[inline]
    unsafe fn value(self, at: u32) -> u32 {
        match self.head().row {
            Some(first) => first + at,
            // SAFETY: the values follow the header, one for each bit that is set, and by contract `at` of these are before this one.
            None => unsafe { self.bits.add(1).cast::<u32>().add(at as usize).read() },
        }
    }

    /// A new one, as [`Bits::make`] makes it of the same blocks and this one; `None` if it holds the block already.
    pub(super) fn with(self, key: u16, value: u32) -> Option<NonNull<Bits>> {
        let head = self.head();
        let (word, bit) = place_of(key);
        if head.words[word] >> bit & 1 != 0 {
            return None;
        }
        let mut words = head.words;
        words[word] |= 1 << bit;
        let at = usize::from(head.before[word]) + (head.words[word] & !(!0 << bit)).count_ones() as usize;
        let Some(first) = head.row else {
            let (before, behind) = self.kept().split_at(at);
            let all = before.iter().chain(std::iter::once(&value)).chain(behind).copied();
            // SAFETY: one value for each bit of before, and one for the bit that was not set.
            return unsafe { Bits::store(words, row_of(all.clone()), all) };
        };
        // At most 512 of them.
        let len = head.len() as u32;
        let row = match at as u32 {
            at if at == len && first.checked_add(len) == Some(value) => Some(first),
            0 if value.checked_add(1) == Some(first) => Some(value),
            _ => None,
        };
        let old = (0..len).map(|at| first + at);
        let (before, behind) = (old.clone().take(at), old.skip(at));
        // SAFETY: one value for each bit of before, and one for the bit that was not set.
        unsafe { Bits::store(words, row, before.chain(std::iter::once(value)).chain(behind)) }
    }

    /// The values that follow the header.
    fn kept(self) -> &'a [u32] {
        let head = self.head();
        let kept = if head.row.is_some() { 0 } else { head.len() };
        // SAFETY: so many follow it, unless it is a row; it lives, by the contract of `new`, and nothing writes to it.
        unsafe { std::slice::from_raw_parts(self.bits.add(1).cast::<u32>().as_ptr(), kept) }
    }

    /// The keys from `key` on, with their values.
    #[inline]
    pub(super) fn from(self, key: u16) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        let (head, (mut word, bit)) = (self.head(), place_of(key));
        let mut left = head.words[word] & (!0 << bit);
        // How many are before the next one, of 512 at most.
        let mut at = u32::from(head.before[word]) + (head.words[word] & !(!0 << bit)).count_ones();
        std::iter::from_fn(move || {
            while left == 0 {
                word += 1;
                left = *head.words.get(word)?;
            }
            // Below 64, and the word is below 8.
            let key = word as u16 * WORD + left.trailing_zeros() as u16;
            left &= left - 1;
            // SAFETY: its bit is set, and so many are before it.
            let value = unsafe { self.value(at) };
            at += 1;
            Some((key, value))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Miri, which takes its time for every step, looks at some of the keys.
    const EVERY: usize = if cfg!(miri) { 73 } else { 1 };

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
        let row_of = |values: &[u32]| row_of(values.iter().copied());
        assert_eq!(row_of(&[7, 8, 9]), Some(7));
        assert_eq!(row_of(&[7, 8, 10]), None);
        assert_eq!(row_of(&[u32::MAX, u32::MAX]), None);
        assert_eq!(row_of(&[u32::MAX, 0]), None);
        assert_eq!(row_of(&[]), None);
    }

    /// With one block more, it is as if it had been made of all.
    #[test]
    fn one_more_makes_what_all_would_have_made() {
        let row = |first: u32| (0..40_u16).map(|at| (20 + at * 3, first + u32::from(at))).collect::<Vec<_>>();
        let mut broken = row(500);
        broken[20].1 = 7;
        // Where a row goes on, at its end, at its start and in a hole; what is none stays none, or becomes one.
        let mut holed = row(500);
        holed.remove(20);
        for entries in [row(500), row(0), row(u32::MAX - 39), broken, holed] {
            for key in (0..BITS).step_by(EVERY).chain([17, 80, 140]) {
                for value in [0, 499, 500, 520, 540, u32::MAX] {
                    let mut all = entries.clone();
                    let Err(at) = all.binary_search_by_key(&key, |entry| entry.0) else { continue };
                    all.insert(at, (key, value));
                    let bits = [Bits::make(&entries).unwrap(), Bits::make(&all).unwrap()];
                    // SAFETY: just made, freed below; no view outlives this expression.
                    let with_it = unsafe { BitsRef::new(bits[0], PhantomData) }.with(key, value).unwrap();
                    {
                        // SAFETY: as above, and freed behind this scope.
                        let views = [with_it, bits[1]].map(|bits| unsafe { BitsRef::new(bits, PhantomData) });
                        let [row, expected] = views.map(|view| (view.head().row, view.from(0).collect::<Vec<_>>()));
                        assert_eq!(row, expected, "{key}: {value}");
                        assert!(views[0].with(key, value).is_none(), "it holds it already");
                    }
                    for bits in [bits[0], bits[1], with_it] {
                        // SAFETY: made above, and nothing looks at it any more.
                        unsafe { Bits::free(bits) }
                    }
                }
            }
        }
    }

    fn gives_back(entries: &[(u16, u32)]) {
        let bits = Bits::make(entries).unwrap();
        {
            // SAFETY: just made, freed below, behind this scope.
            let view = unsafe { BitsRef::new(bits, PhantomData) };
            assert_eq!(view.len(), entries.len());
            for key in (0..BITS).step_by(EVERY) {
                let expected: Vec<_> = entries.iter().copied().filter(|(k, _)| *k >= key).collect();
                assert_eq!(view.from(key).collect::<Vec<_>>(), expected);
                assert_eq!(view.get(key), expected.first().filter(|(k, _)| *k == key).map(|(_, value)| *value));
            }
        }
        // SAFETY: made above, and nothing looks at it any more.
        unsafe { Bits::free(bits) }
    }
}
