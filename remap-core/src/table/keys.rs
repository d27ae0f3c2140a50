//! Some mappings of the remap table as pairs of key and value, in one immutable allocation: what takes least where few blocks are
//! remapped. The key says how far the block is behind the first one that the allocation is for.
//!
//! ```text
//! | len: u32 | keys: [u16; len], ascending | values: [u32; len] |        6 bytes a block, and 4
//! ```
//! Keys first: who finds none looks at no value.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The header of the allocation; keys and values follow it.
#[repr(C)]
pub(super) struct Keys {
    len: u32,
}

/// Pairs that can be looked at for `'a`.
#[derive(Clone, Copy)]
pub(super) struct KeysRef<'a> {
    pub(super) keys: &'a [u16],
    pub(super) values: &'a [u32],
}

/// Where the keys and the values start, and the layout of the whole.
#[inline]
fn layout(len: usize) -> Option<(usize, usize, Layout)> {
    let (whole, keys) = Layout::new::<Keys>().extend(Layout::array::<u16>(len).ok()?).ok()?;
    let (whole, values) = whole.extend(Layout::array::<u32>(len).ok()?).ok()?;
    Some((keys, values, whole))
}

impl Keys {
    /// A new allocation that holds `entries`, which are ascending by key; `None` if there are none. Aborts without memory.
    pub(super) fn make(entries: &[(u16, u32)]) -> Option<NonNull<Keys>> {
        // More entries than keys cannot be, as keys ascend; `layout` cannot fail below that.
        let len = u32::try_from(entries.len()).ok().filter(|len| *len > 0)?;
        let (keys, values, layout) = layout(entries.len())?;
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // SAFETY: the layout is not empty, it holds at least the header.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: `start` is a fresh allocation of `layout`, which has room for the header, then `len` keys at `keys`, then
        // `len` values at `values`, each aligned; nobody else knows it yet.
        unsafe {
            start.cast::<Keys>().write(Keys { len });
            let (keys, values) = (start.add(keys).cast::<u16>(), start.add(values).cast::<u32>());
            for (i, (key, value)) in entries.iter().enumerate() {
                keys.add(i).write(*key);
                values.add(i).write(*value);
            }
        }
        Some(start.cast())
    }

    /// Frees it.
    ///
    /// # Safety
    /// `keys` comes from [`Keys::make`], was not freed, and no [`KeysRef`] to it is left.
    pub(super) unsafe fn free(keys: NonNull<Keys>) {
        // SAFETY: by contract it is whole.
        let len = unsafe { keys.as_ref().len } as usize;
        if let Some((_, _, layout)) = layout(len) {
            // SAFETY: allocated by `make` with this very layout, as `len` never changes.
            unsafe { dealloc(keys.as_ptr().cast(), layout) }
        }
    }
}

impl<'a> KeysRef<'a> {
    /// Looks at it.
    ///
    /// # Safety
    /// `keys` comes from [`Keys::make`], and is not freed while `'a` lasts.
    #[inline]
    pub(super) unsafe fn new(keys: NonNull<Keys>, _lives: PhantomData<&'a Keys>) -> KeysRef<'a> {
        // SAFETY: by contract it is whole: the keys follow the header, and the values, aligned to 4 bytes as the header is, the keys;
        // nothing writes to them any more.
        unsafe {
            let len = (*keys.as_ptr()).len as usize;
            let first = keys.as_ptr().add(1).cast::<u16>();
            let values = first.add(len.next_multiple_of(2)).cast::<u32>();
            KeysRef { keys: std::slice::from_raw_parts(first, len), values: std::slice::from_raw_parts(values, len) }
        }
    }

    /// The value of `key`.
    #[inline]
    pub(super) fn get(self, key: u16) -> Option<u32> {
        let at = self.first_from(key);
        (self.keys.get(at) == Some(&key)).then(|| self.values[at])
    }

    /// The pairs from `key` on.
    #[inline]
    pub(super) fn from(self, key: u16) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        let at = self.first_from(key);
        self.keys[at..].iter().copied().zip(self.values[at..].iter().copied())
    }

    #[inline]
    fn first_from(self, key: u16) -> usize {
        self.keys.partition_point(|k| *k < key)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_gives_back_what_was_put_in() {
        // Miri would take a minute for the last one.
        for len in [1_u32, 2, 3, 1000, if cfg!(miri) { 1001 } else { 65_536 }] {
            let entries: Vec<(u16, u32)> =
                (0..len).map(|i| (u16::try_from(i).unwrap(), i.wrapping_mul(77_777))).collect();
            let keys = Keys::make(&entries).unwrap();
            {
                // SAFETY: just made, freed below, behind this scope.
                let view = unsafe { KeysRef::new(keys, PhantomData) };
                assert_eq!(view.from(0).collect::<Vec<_>>(), entries);
                assert_eq!(view.from(1).count(), entries.len() - 1);
                assert_eq!(view.get(0), Some(0));
            }
            // SAFETY: made above, and nothing looks at it any more.
            unsafe { Keys::free(keys) }
        }
        assert!(Keys::make(&[]).is_none());
    }
}
