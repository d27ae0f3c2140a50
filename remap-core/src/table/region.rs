//! A region of the remap table: the mappings of 16,384 consecutive blocks of the base. All of it is immutable.
//!
//! ```text
//! up to 128 blocks:   Keys                (64 where there have been more)
//! more:               Chunks ──> 32 times Keys (up to 15 blocks) or Bits, each for 512 blocks, or nothing
//! ```
//! So that little is copied when a block comes or goes, and little is looked at when one is looked up; and memory is from 4 to 14
//! bytes a block, unless there are only a few in a region.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr::NonNull;

use smallvec::SmallVec;

use super::bits::{BITS, Bits, BitsRef};
use super::fetch::fetch;
use super::filter::Marks;
use super::keys::{Keys, KeysRef};
use super::reclaim::Retired;

/// Blocks of the base in a region: so few that where a million remaps are spread evenly over a large base no more than two in five bits of
/// the filters are set.
pub(crate) const REGION_BLOCKS: u64 = 1 << 14;
/// The key of its last block.
pub(super) const LAST_KEY: u16 = (REGION_BLOCKS - 1) as u16;
const CHUNKS: usize = (REGION_BLOCKS / BITS as u64) as usize;

/// A region with more blocks is one of chunks, until it has no more than half as many.
const FEW: usize = 128;
/// Entries that are copied when a block comes or goes, at most.
pub(super) const COPIED_AT_MOST: usize = BITS as usize;

/// Bytes that are fetched at once.
const CACHE_LINE: usize = 64;

/// A chunk with as many blocks has a bitmap.
const MANY_IN_CHUNK: usize = 16;

/// Null, or a pointer to [`Keys`], or one to a `T`.
pub(super) struct Either<T>(*mut Keys, PhantomData<*mut T>);

/// What an [`Either`] is.
enum Is<T> {
    Nothing,
    Keys(NonNull<Keys>),
    Other(NonNull<T>),
}

/// What is in a region.
pub(super) type Region = Either<Chunks>;
/// What is in a chunk of a region.
pub(super) type Chunk = Either<Bits>;

/// The chunks of a region, and how many blocks are in it.
pub(super) struct Chunks {
    chunks: [Chunk; CHUNKS],
    len: usize,
}

/// A change of the block with this key: to this value, or to none.
pub(super) type KeyChange = (u16, Option<u32>);
/// Changes of a region that need no memory of their own: most commits are of no more.
pub(super) const FEW_CHANGES: usize = 8;

/// In the pointer, where it is none to [`Keys`]: all that is pointed to is aligned to more.
const OTHER: usize = 1;

impl<T> Clone for Either<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Either<T> {}

impl<T> Either<T> {
    pub(super) const NOTHING: Either<T> = Either(std::ptr::null_mut(), PhantomData);

    fn keys(keys: Option<NonNull<Keys>>) -> Either<T> {
        keys.map_or(Either::NOTHING, |keys| Either(keys.as_ptr(), PhantomData))
    }

    fn other(other: NonNull<T>) -> Either<T> {
        const { assert!(align_of::<T>() > OTHER && align_of::<Keys>() > OTHER) }
        Either(other.as_ptr().cast::<Keys>().map_addr(|addr| addr | OTHER), PhantomData)
    }

    /// As it is kept in an atomic pointer.
    pub(super) fn to_raw(self) -> *mut Keys {
        self.0
    }

    /// What [`Either::to_raw`] gave.
    #[inline]
    pub(super) fn from_raw(raw: *mut Keys) -> Either<T> {
        Either(raw, PhantomData)
    }

    pub(super) fn is_nothing(self) -> bool {
        self.0.is_null()
    }

    #[inline]
    fn is(self) -> Is<T> {
        match NonNull::new(self.0.map_addr(|addr| addr & !OTHER)) {
            Some(other) if self.0.addr() & OTHER != 0 => Is::Other(other.cast()),
            Some(keys) => Is::Keys(keys),
            None => Is::Nothing,
        }
    }
}

/// A chunk that can be looked at for `'a`.
#[derive(Clone, Copy)]
enum ChunkRef<'a> {
    Keys(KeysRef<'a>),
    Bits(BitsRef<'a>),
}

impl Chunk {
    /// With `entries`, which ascend and whose keys are those in the chunk.
    fn make(entries: &[(u16, u32)]) -> Chunk {
        if entries.len() < MANY_IN_CHUNK {
            return Chunk::keys(Keys::make(entries));
        }
        Bits::make(entries).map_or(Chunk::NOTHING, Chunk::other)
    }

    /// # Safety
    /// What it points to is whole, and not freed while `'a` lasts.
    #[inline]
    unsafe fn view<'a>(self) -> Option<ChunkRef<'a>> {
        // SAFETY: by contract, and it is what its tag says.
        unsafe {
            match self.is() {
                Is::Nothing => None,
                Is::Keys(keys) => Some(ChunkRef::Keys(KeysRef::new(keys, PhantomData))),
                Is::Other(bits) => Some(ChunkRef::Bits(BitsRef::new(bits, PhantomData))),
            }
        }
    }

    /// Takes out what it points to.
    fn retire(self, retired: &mut Retired) {
        match self.is() {
            Is::Nothing => {}
            Is::Keys(keys) => retired.add_keys(keys),
            Is::Other(bits) => retired.add_bits(bits),
        }
    }
}

impl ChunkRef<'_> {
    #[inline]
    fn get(self, key: u16) -> Option<u32> {
        match self {
            ChunkRef::Keys(keys) => keys.get(key),
            ChunkRef::Bits(bits) => bits.get(key),
        }
    }

    fn len(self) -> usize {
        match self {
            ChunkRef::Keys(keys) => keys.keys.len(),
            ChunkRef::Bits(bits) => bits.len(),
        }
    }

    /// Calls `f` for each block from key `low` to `high`.
    #[inline]
    fn visit(self, low: u16, high: u16, f: impl FnMut(u16, u32) -> ControlFlow<()>) -> ControlFlow<()> {
        match self {
            ChunkRef::Keys(keys) => up_to(high, keys.from(low), f),
            ChunkRef::Bits(bits) => up_to(high, bits.from(low), f),
        }
    }
}

#[inline]
fn up_to(
    high: u16,
    entries: impl Iterator<Item = (u16, u32)>,
    mut f: impl FnMut(u16, u32) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for (key, value) in entries {
        if key > high {
            break;
        }
        f(key, value)?;
    }
    ControlFlow::Continue(())
}

impl Chunks {
    /// The chunk of `key`, and the key in it.
    #[inline]
    fn place_of(key: u16) -> (usize, u16) {
        (usize::from(key / BITS) & (CHUNKS - 1), key % BITS)
    }

    /// For the duration of a look at the region, which has it.
    #[inline]
    fn chunk(&self, index: usize) -> Option<ChunkRef<'_>> {
        // SAFETY: a chunk that is in a region is whole, and freed only when the last region that it was in is: after that was taken out
        // of the table and a grace period has passed (`changed` retires it then), or by the only one who knows it.
        unsafe { self.chunks[index].view() }
    }
}

/// A region that can be looked at for `'a`.
#[derive(Clone, Copy)]
pub(super) enum RegionRef<'a> {
    Keys(KeysRef<'a>),
    Chunks(&'a Chunks),
}

impl Region {
    /// # Safety
    /// What it points to is whole, and not freed while `'a` lasts.
    #[inline]
    pub(super) unsafe fn view<'a>(self) -> Option<RegionRef<'a>> {
        // SAFETY: by contract, and it is what its tag says.
        unsafe {
            match self.is() {
                Is::Nothing => None,
                Is::Keys(keys) => Some(RegionRef::Keys(KeysRef::new(keys, PhantomData))),
                Is::Other(chunks) => Some(RegionRef::Chunks(chunks.as_ref())),
            }
        }
    }

    /// Has the beginning of what it points to fetched, while other work goes on.
    pub(super) fn fetch(self) {
        let start = self.0.map_addr(|addr| addr & !OTHER);
        fetch(start);
        fetch(start.wrapping_byte_add(CACHE_LINE));
    }

    /// Takes out all that it points to, and what that points to.
    ///
    /// # Safety
    /// It is whole.
    pub(super) unsafe fn retire(self, retired: &mut Retired) {
        if let Is::Other(chunks) = self.is() {
            // SAFETY: by contract.
            unsafe { chunks.as_ref() }.chunks.iter().for_each(|chunk| chunk.retire(retired));
        }
        self.retire_shell(retired);
    }

    /// Frees all that it points to, and what that points to.
    ///
    /// # Safety
    /// It is whole, and nobody looks at it any more.
    pub(super) unsafe fn free(self) {
        let mut retired = Retired::default();
        // SAFETY: by contract.
        unsafe {
            self.retire(&mut retired);
            retired.free();
        }
    }

    /// Takes out what it points to, and not the chunks in there.
    fn retire_shell(self, retired: &mut Retired) {
        match self.is() {
            Is::Nothing => {}
            Is::Keys(keys) => retired.add_keys(keys),
            Is::Other(chunks) => retired.add_chunks(chunks),
        }
    }

    /// What the region is after `changes`, which ascend, one for each key. What it holds no more goes to `retired`. Calls `replaced`
    /// for each value that was there for a key of `changes`.
    ///
    /// # Safety
    /// It is whole, and not freed before this returns.
    pub(super) unsafe fn changed(
        self,
        changes: &[KeyChange],
        retired: &mut Retired,
        mut replaced: impl FnMut(u32),
    ) -> Region {
        // SAFETY: by contract.
        let old = unsafe { self.view() };
        if let Some(RegionRef::Chunks(chunks)) = old {
            let after = chunks.changed(changes, retired, &mut replaced);
            self.retire_shell(retired);
            return after;
        }
        let entries = match old {
            Some(RegionRef::Keys(keys)) => merged((keys.keys.len(), keys.from(0)), changes, &mut replaced),
            _ => merged((0, std::iter::empty()), changes, &mut replaced),
        };
        self.retire_shell(retired);
        Region::make(&entries)
    }

    /// With `entries`, which ascend.
    pub(super) fn make(entries: &[(u16, u32)]) -> Region {
        if entries.len() <= FEW { Region::keys(Keys::make(entries)) } else { Chunks::make(entries).into() }
    }
}

impl From<Chunks> for Region {
    fn from(chunks: Chunks) -> Region {
        Region::other(NonNull::from(Box::leak(Box::new(chunks))))
    }
}

impl Chunks {
    fn make(entries: &[(u16, u32)]) -> Chunks {
        let mut all = Chunks { chunks: [Chunk::NOTHING; CHUNKS], len: entries.len() };
        for group in entries.chunk_by(|a, b| a.0 / BITS == b.0 / BITS) {
            let in_chunk: Vec<_> = group.iter().map(|(key, value)| (key % BITS, *value)).collect();
            all.chunks[Chunks::place_of(group[0].0).0] = Chunk::make(&in_chunk);
        }
        all
    }

    /// [`Region::changed`].
    fn changed(&self, changes: &[KeyChange], retired: &mut Retired, replaced: &mut impl FnMut(u32)) -> Region {
        let mut after = Chunks { chunks: self.chunks, len: self.len };
        for group in changes.chunk_by(|a, b| a.0 / BITS == b.0 / BITS) {
            let in_chunk: SmallVec<[KeyChange; FEW_CHANGES]> =
                group.iter().map(|(key, to)| (key % BITS, *to)).collect();
            let (index, _) = Chunks::place_of(group[0].0);
            let chunk = self.chunk(index);
            let before = chunk.map_or(0, ChunkRef::len);
            if let (Some(ChunkRef::Bits(bits)), [(key, Some(value))]) = (chunk, &in_chunk[..])
                && let Some(with_it) = bits.with(*key, *value)
            {
                self.chunks[index].retire(retired);
                (after.chunks[index], after.len) = (Chunk::other(with_it), after.len + 1);
                continue;
            }
            let entries = match chunk {
                None => merged((0, std::iter::empty()), &in_chunk, replaced),
                Some(ChunkRef::Keys(keys)) => merged((before, keys.from(0)), &in_chunk, replaced),
                Some(ChunkRef::Bits(bits)) => merged((before, bits.from(0)), &in_chunk, replaced),
            };
            after.len = after.len - before + entries.len();
            self.chunks[index].retire(retired);
            after.chunks[index] = Chunk::make(&entries);
        }
        if after.len > FEW / 2 {
            return after.into();
        }
        let mut entries = Vec::with_capacity(after.len);
        let _ = RegionRef::Chunks(&after).visit(0, LAST_KEY, |key, value| {
            entries.push((key, value));
            ControlFlow::Continue(())
        });
        after.chunks.iter().for_each(|chunk| chunk.retire(retired));
        Region::keys(Keys::make(&entries))
    }

    /// Frees the box of [`Region::from`], and none of the chunks.
    ///
    /// # Safety
    /// It is from there, was not freed, and nobody looks at it any more.
    pub(super) unsafe fn free(chunks: NonNull<Chunks>) {
        // SAFETY: by contract.
        drop(unsafe { Box::from_raw(chunks.as_ptr()) });
    }
}

/// `old`, which are `held`, with `changes`; both ascend. Calls `replaced` for each old value of a key that is changed.
fn merged(
    (held, old): (usize, impl Iterator<Item = (u16, u32)>),
    changes: &[KeyChange],
    replaced: &mut impl FnMut(u32),
) -> Vec<(u16, u32)> {
    let mut old = old.peekable();
    let mut entries = Vec::with_capacity(held + changes.len());
    for (key, to) in changes {
        while let Some(entry) = old.next_if(|entry| entry.0 < *key) {
            entries.push(entry);
        }
        if let Some((_, value)) = old.next_if(|entry| entry.0 == *key) {
            replaced(value);
        }
        entries.extend(to.map(|value| (*key, value)));
    }
    entries.extend(old);
    entries
}

impl RegionRef<'_> {
    /// The value of `key`.
    #[inline]
    pub(super) fn get(self, key: u16) -> Option<u32> {
        match self {
            RegionRef::Keys(keys) => keys.get(key),
            RegionRef::Chunks(chunks) => {
                let (index, key) = Chunks::place_of(key);
                chunks.chunk(index)?.get(key)
            }
        }
    }

    /// How many blocks it holds.
    pub(super) fn len(self) -> usize {
        match self {
            RegionRef::Keys(keys) => keys.keys.len(),
            RegionRef::Chunks(chunks) => chunks.len,
        }
    }

    /// Calls `f` for each block from key `low` to `high`, in ascending order, until it breaks.
    #[inline]
    pub(super) fn visit(self, low: u16, high: u16, mut f: impl FnMut(u16, u32) -> ControlFlow<()>) -> ControlFlow<()> {
        match self {
            RegionRef::Keys(keys) => up_to(high, keys.from(low), f),
            RegionRef::Chunks(chunks) => {
                let ((first, from), (last, to)) = (Chunks::place_of(low), Chunks::place_of(high));
                for index in first..=last {
                    let Some(chunk) = chunks.chunk(index) else { continue };
                    let low = if index == first { from } else { 0 };
                    let high = if index == last { to } else { BITS - 1 };
                    // Below 32 chunks of 512 blocks.
                    let start = index as u16 * BITS;
                    chunk.visit(low, high, |key, value| f(start + key, value))?;
                }
                ControlFlow::Continue(())
            }
        }
    }

    /// Calls `f` for the value of each block that it holds.
    #[inline]
    pub(super) fn for_each_value(self, mut f: impl FnMut(u32)) {
        match self {
            RegionRef::Keys(keys) => keys.values.iter().for_each(|value| f(*value)),
            RegionRef::Chunks(chunks) => {
                (0..CHUNKS).filter_map(|index| chunks.chunk(index)).for_each(|chunk| match chunk {
                    ChunkRef::Keys(keys) => keys.values.iter().for_each(|value| f(*value)),
                    ChunkRef::Bits(bits) => bits.from(0).for_each(|(_, value)| f(value)),
                })
            }
        }
    }

    /// What its filter is to have: of a chunk in which anything is, all of it.
    pub(super) fn marks(self) -> Marks {
        match self {
            RegionRef::Keys(keys) => Marks::of_blocks(keys.keys),
            RegionRef::Chunks(chunks) => {
                (0_u16..).zip(&chunks.chunks).fold(Marks::default(), |marks, (index, chunk)| {
                    let first = index * BITS;
                    if chunk.is_nothing() { marks } else { marks.union(Marks::of_many(first, first + (BITS - 1))) }
                })
            }
        }
    }
}
