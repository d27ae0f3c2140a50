//! A leaf of the remap table: the mappings of 65,536 consecutive blocks of the base, in one immutable allocation.
//!
//! Made and freed by the writer half, looked at by everybody. Nothing here changes a leaf once it is made.
//!
//! ```text
//! | len: u32 | values: [u32; len] | keys: [u16; len], ascending |        6 bytes a block, and 4
//! ```

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Blocks of the base that one leaf covers.
pub(crate) const LEAF_BLOCKS: u64 = 1 << 16;

/// The header of the allocation; values and keys follow it.
#[repr(C)]
pub(super) struct Leaf {
    len: u32,
}

/// A leaf that can be looked at for `'a`.
#[derive(Clone, Copy)]
pub(super) struct LeafRef<'a> {
    pub(super) keys: &'a [u16],
    pub(super) values: &'a [u32],
}

/// Where the values and the keys start, and the layout of the whole.
fn layout(len: usize) -> Option<(usize, usize, Layout)> {
    let (whole, values) = Layout::new::<Leaf>().extend(Layout::array::<u32>(len).ok()?).ok()?;
    let (whole, keys) = whole.extend(Layout::array::<u16>(len).ok()?).ok()?;
    Some((values, keys, whole))
}

impl Leaf {
    /// A new leaf that holds `entries`, which are ascending by key; null if there are none. Aborts without memory.
    pub(super) fn make(entries: &[(u16, u32)]) -> *mut Leaf {
        // More entries than keys cannot be, as keys ascend; `layout` cannot fail below that.
        let (Ok(len), Some((values, keys, layout))) = (u32::try_from(entries.len()), layout(entries.len())) else {
            return std::ptr::null_mut();
        };
        if len == 0 {
            return std::ptr::null_mut();
        }
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // SAFETY: the layout is not empty, it holds at least the header.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: `start` is a fresh allocation of `layout`, which has room for the header, then `len` values at
        // `values`, then `len` keys at `keys`, each aligned; nobody else knows it yet.
        unsafe {
            start.cast::<Leaf>().write(Leaf { len });
            let (values, keys) = (start.add(values).cast::<u32>(), start.add(keys).cast::<u16>());
            for (i, (key, value)) in entries.iter().enumerate() {
                values.add(i).write(*value);
                keys.add(i).write(*key);
            }
        }
        start.cast()
    }

    /// Frees a leaf.
    ///
    /// # Safety
    /// `leaf` comes from [`Leaf::make`], is not null, was not freed, and no [`LeafRef`] to it is left.
    pub(super) unsafe fn free(leaf: *mut Leaf) {
        // SAFETY: by contract the leaf is whole.
        let len = unsafe { (*leaf).len } as usize;
        if let Some((_, _, layout)) = layout(len) {
            // SAFETY: allocated by `make` with this very layout, as `len` never changes.
            unsafe { dealloc(leaf.cast(), layout) }
        }
    }
}

impl<'a> LeafRef<'a> {
    /// Looks at a leaf.
    ///
    /// # Safety
    /// `leaf` comes from [`Leaf::make`], and is not freed while `'a` lasts.
    #[inline]
    pub(super) unsafe fn new(leaf: NonNull<Leaf>, _lives: PhantomData<&'a Leaf>) -> LeafRef<'a> {
        let start = leaf.as_ptr();
        // SAFETY: by contract the leaf is whole, and the values follow the header (both 4-byte aligned) and the keys
        // follow the values, as `layout` puts them; nothing writes to them any more.
        unsafe {
            let len = (*start).len as usize;
            let values = start.add(1).cast::<u32>();
            let keys = values.add(len).cast::<u16>();
            LeafRef { keys: std::slice::from_raw_parts(keys, len), values: std::slice::from_raw_parts(values, len) }
        }
    }

    /// The position of the first entry whose key is `key` or more.
    #[inline]
    pub(super) fn first_from(self, key: u16) -> usize {
        self.keys.partition_point(|k| *k < key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_gives_back_what_was_put_in() {
        for len in [1_u32, 2, 3, 1000, 65_536] {
            let entries: Vec<(u16, u32)> =
                (0..len).map(|i| (u16::try_from(i).unwrap(), i.wrapping_mul(77_777))).collect();
            let leaf = NonNull::new(Leaf::make(&entries)).unwrap();
            {
                // SAFETY: just made, freed below, behind this scope.
                let view = unsafe { LeafRef::new(leaf, PhantomData) };
                let back: Vec<_> = view.keys.iter().copied().zip(view.values.iter().copied()).collect();
                assert_eq!(back, entries);
                assert_eq!(view.first_from(0), 0);
            }
            // SAFETY: made above, and nothing looks at it any more.
            unsafe { Leaf::free(leaf.as_ptr()) }
        }
        assert!(Leaf::make(&[]).is_null());
    }
}
