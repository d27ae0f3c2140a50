//! The directory of the remap table: the way from its root to its regions.
//!
//! A tree of nodes of 4,096 places each, as high as the size of the base asks for. A node is there only while a region is below it:
//! memory and a visit of the whole follow what is remapped, at most one node on each height for each region. Readers descend it,
//! without a lock or a reference; the writer alone changes it, by one store for each region.
//!
//! ```text
//! base up to 2^38 blocks:   root ──────────> inner node ──> lowest ──> region
//!            more:          root ──> inner ──> inner node ──> lowest ──> region
//! ```
//! A smaller base has two heights as well, so that it can grow while the table is in use.
//!
//! A region has height 0, the lowest nodes have height 1. The number of a region is `lba >> 14`; a node of height `h` takes the 12
//! bits above its lowest `12 * (h - 1)`.
//!
//! Beside the pointer to a region is its *filter*: a bit for each sixty-fourth of the region. Where the bit is not set, nothing is
//! remapped, so that most looks at a block that is not remapped end there. The filter has a bit before the region holds what it is
//! for, and until it does not any more: a reader that finds none sees the region as it was, or is, without looking at it.

use std::ptr::NonNull;

use super::keys::Keys;
use super::reclaim::Retired;
use super::region::{REGION_BLOCKS, Region, RegionRef, filter_of};
use crate::sync::{AtomicPtr, AtomicU64, Ordering, Watched};
use crate::units::MAX_BASE_BLOCKS;

/// Bits of a region's number that a node takes. Few for loom, which looks at every place.
pub(super) const NODE_BITS: u32 = if cfg!(loom) { 1 } else { 12 };
const PLACES: usize = 1 << NODE_BITS;

/// What a slot points to: a [`Lowest`] if that has height 1, else an [`Inner`].
enum Below {}

/// A pointer to a node, which readers follow; null if nothing is below it. Its height is the height of what it points to.
struct Slot(AtomicPtr<Below>);

/// A node of height 2 or more.
pub(super) struct Inner {
    slots: [Slot; PLACES],
    watched: Watched,
}

/// A node of height 1.
pub(super) struct Lowest {
    entries: [Entry; PLACES],
    watched: Watched,
}

/// A region.
struct Entry {
    filter: AtomicU64,
    region: AtomicPtr<Keys>,
}

/// The root, and how far the regions are below it.
pub(super) struct Directory {
    root: Slot,
    height: u32,
}

impl Slot {
    fn new(below: *mut Below) -> Slot {
        Slot(AtomicPtr::new(below))
    }

    /// Acquire: whoever sees a pointer sees what is behind it.
    #[inline]
    fn load(&self) -> Option<NonNull<Below>> {
        NonNull::new(self.0.load(Ordering::Acquire))
    }

    /// Replaces what is below. Release, for [`Slot::load`].
    fn swap(&self, below: *mut Below) -> *mut Below {
        self.0.swap(below, Ordering::AcqRel)
    }

    /// Takes out what is below.
    fn take<T>(&self) -> Option<NonNull<T>> {
        NonNull::new(self.swap(std::ptr::null_mut()).cast())
    }

    /// The node below, for the duration of one method of [`super::Table`], or of the writer.
    ///
    /// # Safety
    /// The slot has a height of 2 or more.
    #[inline]
    unsafe fn inner(&self) -> Option<&Inner> {
        let node = self.load()?.cast::<Inner>();
        // SAFETY: by contract it is such a node, a whole one, as `Directory::set_region` published it with Release. It is freed
        // only after it was taken out of its slot and a grace period passed (the contract of `Retired::free`), so not
        // before the method that called us has returned; no method lets a reference to it out.
        let node = unsafe { node.as_ref() };
        node.watched.look();
        Some(node)
    }

    /// As [`Slot::inner`].
    ///
    /// # Safety
    /// The slot has height 1.
    #[inline]
    unsafe fn lowest(&self) -> Option<&Lowest> {
        let node = self.load()?.cast::<Lowest>();
        // SAFETY: as for an inner node.
        let node = unsafe { node.as_ref() };
        node.watched.look();
        Some(node)
    }
}

impl Entry {
    /// What is in the region between these keys, or more; `None` if nothing is.
    #[inline]
    fn look(&self, low: u16, high: u16) -> Option<RegionRef<'_>> {
        // Acquire: who finds no bit any more never finds the region as it was before.
        if self.filter.load(Ordering::Acquire) & filter_of(low, high) == 0 {
            return None;
        }
        self.region()
    }

    #[inline]
    fn region(&self) -> Option<RegionRef<'_>> {
        // SAFETY: it is whole, as `set_region` published it with Release; freed as a node is.
        unsafe { self.load().view() }
    }

    /// Acquire: whoever sees a region sees what is in it.
    #[inline]
    fn load(&self) -> Region {
        Region::from_raw(self.region.load(Ordering::Acquire))
    }

    /// Puts `region` here.
    fn set(&self, region: Region, filter: u64) {
        // Relaxed: who sees the region, which is published with Release, sees this. Exchanged, for what the last change said.
        self.filter.fetch_or(filter, Ordering::Relaxed);
        self.region.store(region.to_raw(), Ordering::Release);
        // Release, for `look`.
        self.filter.store(filter, Ordering::Release);
    }
}

impl Inner {
    /// A new node of this height, with `below` on the way to region `number`, and nothing else.
    fn make(height: u32, number: u64, below: *mut Below) -> *mut Inner {
        let at = place_of(height, number);
        let slot = |place| Slot::new(if place == at { below } else { std::ptr::null_mut() });
        Box::into_raw(Box::new(Inner { slots: std::array::from_fn(slot), watched: Watched::new() }))
    }

    /// Frees a node, and nothing of what is below it.
    ///
    /// # Safety
    /// `node` comes from [`Inner::make`], was not freed, and nobody looks at it any more.
    pub(super) unsafe fn free(node: NonNull<Inner>) {
        // SAFETY: by contract; `make` got it from `Box::into_raw`.
        let node = unsafe { Box::from_raw(node.as_ptr()) };
        node.watched.end();
    }

    #[inline]
    fn slot(&self, height: u32, number: u64) -> &Slot {
        &self.slots[place_of(height, number)]
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.load().is_none())
    }
}

impl Lowest {
    /// A new node that holds nothing.
    fn make() -> Box<Lowest> {
        let nothing = |_| Entry { filter: AtomicU64::new(0), region: AtomicPtr::new(Region::NOTHING.to_raw()) };
        Box::new(Lowest { entries: std::array::from_fn(nothing), watched: Watched::new() })
    }

    /// Frees a node, and nothing of what is below it.
    ///
    /// # Safety
    /// `node` comes from [`Lowest::make`], was not freed, and nobody looks at it any more.
    pub(super) unsafe fn free(node: NonNull<Lowest>) {
        // SAFETY: by contract; it was leaked as a box.
        let node = unsafe { Box::from_raw(node.as_ptr()) };
        node.watched.end();
    }

    #[inline]
    fn entry(&self, number: u64) -> &Entry {
        &self.entries[place_of(1, number)]
    }

    fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.load().is_nothing())
    }
}

/// Which place in a node of this height leads to region `number`: always one of [`PLACES`].
#[inline]
fn place_of(height: u32, number: u64) -> usize {
    (number >> (NODE_BITS * (height - 1))) as usize & (PLACES - 1)
}

impl Directory {
    /// An empty one for a base of this size.
    pub(super) fn new(base_blocks: u64) -> Directory {
        let regions = base_blocks.div_ceil(REGION_BLOCKS);
        let mut height = 2;
        while regions.saturating_sub(1) >> (NODE_BITS * height) > 0 {
            height += 1;
        }
        Directory { root: Slot::new(std::ptr::null_mut()), height }
    }

    /// The largest base that a directory of this height is high enough for, in blocks.
    pub(super) fn room(&self) -> u64 {
        let room = u128::from(REGION_BLOCKS) << (NODE_BITS * self.height);
        u64::try_from(room).unwrap_or(u64::MAX).min(MAX_BASE_BLOCKS)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.root.load().is_none()
    }

    /// What is in region `number` between these keys, or more; `None` if nothing is.
    #[inline]
    pub(super) fn look(&self, number: u64, low: u16, high: u16) -> Option<RegionRef<'_>> {
        self.lowest(number).ok()?.entry(number).look(low, high)
    }

    /// What is in region `number`.
    pub(super) fn region(&self, number: u64) -> Option<RegionRef<'_>> {
        self.lowest(number).ok()?.entry(number).region()
    }

    /// For the writer: what is in region `number`.
    pub(super) fn whole_region(&self, number: u64) -> Region {
        self.lowest(number).map_or(Region::NOTHING, |node| node.entry(number).load())
    }

    /// The first region that holds anything from number `from` up to `last`, with its number.
    pub(super) fn first_region(&self, from: u64, last: u64) -> Option<(u64, RegionRef<'_>)> {
        let mut number = from;
        while number <= last {
            let end = match self.lowest(number) {
                Ok(node) => {
                    let end = last.min(number | (PLACES as u64 - 1));
                    let found = (number..=end).find_map(|number| Some((number, node.entry(number).region()?)));
                    if found.is_some() {
                        return found;
                    }
                    end
                }
                // Nothing below it is there: on behind all of that.
                Err(height) => number | ((1 << (NODE_BITS * height)) - 1),
            };
            number = end + 1;
        }
        None
    }

    /// The lowest node on the way to region `number`, or the height at which the way ends before.
    #[inline]
    fn lowest(&self, number: u64) -> Result<&Lowest, u32> {
        let mut slot = &self.root;
        for height in (2..=self.height).rev() {
            // SAFETY: the root's height is that of the directory, and the slots of a node have the height below its own.
            slot = unsafe { slot.inner() }.ok_or(height)?.slot(height, number);
        }
        // SAFETY: it has height 1 now.
        unsafe { slot.lowest() }.ok_or(1)
    }

    /// Each gets all that the other has. Readers see all of it change from one moment to the other.
    pub(super) fn exchange(&self, other: &Directory) {
        debug_assert_eq!(self.height, other.height, "they are for bases of one size");
        // Nobody but the writer, which has both, stores anything.
        let mine = self.root.0.load(Ordering::Acquire);
        let mine_now = other.root.swap(mine);
        self.root.swap(mine_now);
    }

    /// Puts `region` in the place of the one with this number. Readers see it from one moment to the other. Nodes that this
    /// takes out go to `retired`; the region that was there is the caller's business.
    ///
    /// # Safety
    /// The region is whole, and stays so until it was taken out and a grace period has passed. Nobody else changes the directory.
    pub(super) unsafe fn set_region(&self, number: u64, region: Region, retired: &mut Retired) {
        set_region(&self.root, self.height, number, region, retired);
    }
}

/// [`Directory::set_region`], below `slot`, which has this height.
fn set_region(slot: &Slot, height: u32, number: u64, region: Region, retired: &mut Retired) {
    // SAFETY: the region is whole, by contract of `Directory::set_region`.
    let filter = unsafe { region.view() }.map_or(0, RegionRef::filter);
    if height > 1 {
        // SAFETY: it is more than 1.
        if let Some(node) = unsafe { slot.inner() } {
            set_region(node.slot(height, number), height - 1, number, region, retired);
            if region.is_nothing() && node.is_empty() {
                slot.take().into_iter().for_each(|node| retired.add_inner(node));
            }
            return;
        }
    // SAFETY: it is 1.
    } else if let Some(node) = unsafe { slot.lowest() } {
        node.entry(number).set(region, filter);
        if region.is_nothing() && node.is_empty() {
            slot.take().into_iter().for_each(|node| retired.add_lowest(node));
        }
        return;
    }
    if !region.is_nothing() {
        // The nodes that are missing, from below, so that one store makes all of it visible.
        let lowest = Lowest::make();
        lowest.entry(number).set(region, filter);
        let lowest = Box::into_raw(lowest).cast::<Below>();
        slot.swap((2..=height).fold(lowest, |below, height| Inner::make(height, number, below).cast()));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let mut all = Retired::default();
        // SAFETY: nobody else has the directory any more, and what is in it was not retired.
        unsafe {
            retire_all(&self.root, self.height, &mut all);
            all.free();
        }
    }
}

/// Takes out all that is below a slot of this height.
///
/// # Safety
/// Nobody changes it any more.
unsafe fn retire_all(slot: &Slot, height: u32, retired: &mut Retired) {
    let Some(below) = slot.load() else { return };
    if height == 1 {
        let node = below.cast::<Lowest>();
        // SAFETY: a slot of height 1 holds such a node, and what is in it is whole.
        unsafe { node.as_ref().entries.iter().for_each(|entry| entry.load().retire(retired)) };
        return retired.add_lowest(node);
    }
    let node = below.cast::<Inner>();
    // SAFETY: a slot of another height holds such a node; by contract, of what is below.
    unsafe { node.as_ref().slots.iter().for_each(|slot| retire_all(slot, height - 1, retired)) };
    retired.add_inner(node);
}
