//! The directory of the remap table: the way from its root to its regions.
//!
//! A tree, as high as the size of the base asks for, of inner nodes with 4,096 slots (32 KiB) and lowest nodes with 512 regions (20 KiB).
//! A node is there only while a region is below it: memory and a visit of the whole follow what is remapped, at most one node on each
//! height for each region. Readers descend it, without a lock or a reference; the writer alone changes it. A region changes by one
//! store, between those to its filter and to the outline.
//!
//! ```text
//! base up to 2^35 blocks:   root ──> top ──────────────────────> lowest ──> region
//!         up to 2^47:       root ──> top ────────────> inner ──> lowest ──> region
//!            more:          root ──> top ──> inner ──> inner ──> lowest ──> region
//! ```
//! The top is the highest of the inner nodes, and has the outline besides, where nearly all looks end, unless the table is far; it is there
//! while anything is. A base that one lowest node is enough for has one as well, so that it can grow while the table is in use.
//!
//! A region has height 0, the lowest nodes have height 1. The number of a region is `lba >> 14`; a lowest node takes its lowest 9 bits,
//! and each node above that the 12 bits above those of the one below.
//!
//! The lowest nodes are in [`super::lowest`].

use std::ptr::NonNull;

use super::filter::Marks;
use super::lowest::{LOWEST_BITS, Lowest, REGIONS, Used};
use super::outline::Outline;
use super::reclaim::Retired;
use super::region::{REGION_BLOCKS, Region, RegionRef};
use crate::sync::{AtomicPtr, Ordering, Watched};
use crate::units::MAX_BASE_BLOCKS;

/// Bits of a region's number that a node above the lowest takes. Few for loom, which looks at every place.
pub(super) const INNER_BITS: u32 = if cfg!(loom) { 1 } else { 12 };
/// From so many regions on a table is far: what looks load of them, 320 KiB and the regions, does not stay in a near cache.
pub(super) const FAR_REGIONS: u64 = 8192;
const SLOTS: usize = 1 << INNER_BITS;

/// What a slot points to: a [`Lowest`] if that has height 1, else an [`Inner`].
enum Below {}

/// A pointer to a node, which readers follow; null if nothing is below it. Its height is the height of what it points to.
struct Slot(AtomicPtr<Below>);

/// What is in a node of height 2 or more.
struct Slots {
    slots: [Slot; SLOTS],
    used: Used,
}

/// A node of height 2 or more, below the top.
pub(super) struct Inner {
    below: Slots,
    watched: Watched,
}

/// What the root points to: the node of the greatest height, and what is known of all of the table.
pub(super) struct Top {
    outline: Outline,
    below: Slots,
    height: u32,
    /// The regions that hold anything.
    regions: Used,
    watched: Watched,
}

/// The root, and what a top is made for.
pub(super) struct Directory {
    /// Null while nothing is remapped.
    root: AtomicPtr<Top>,
    height: u32,
    base_blocks: u64,
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
        node.look_at();
        Some(node)
    }
}

impl Slots {
    fn new() -> Slots {
        Slots { slots: std::array::from_fn(|_| Slot::new(std::ptr::null_mut())), used: Used::new(0) }
    }

    #[inline]
    fn slot(&self, height: u32, number: u64) -> &Slot {
        &self.slots[slot_of(height, number)]
    }

    /// [`Directory::set_region`], for those of a node of this height.
    ///
    /// # Safety
    /// That of it; and the node has this height.
    unsafe fn set_region(&self, height: u32, number: u64, region: (Region, Marks), retired: &mut Retired) -> bool {
        let below = self.slot(height, number);
        let was_there = below.load().is_some();
        // SAFETY: by contract, and slots of a node have the height below its own.
        let before = unsafe { set_region(below, height - 1, number, region, retired) };
        self.used.change(was_there, below.load().is_some());
        before
    }
}

impl Inner {
    /// A new node of this height, with `below` on the way to region `number`, and nothing else.
    #[inline(never)]
    fn make(height: u32, number: u64, below: *mut Below) -> *mut Inner {
        let inner = Box::new(Inner { below: Slots::new(), watched: Watched::new() });
        inner.below.slot(height, number).swap(below);
        inner.below.used.change(false, true);
        Box::into_raw(inner)
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
}

impl Top {
    #[inline(never)]
    fn make(base_blocks: u64, height: u32) -> Box<Top> {
        let (outline, regions) = (Outline::new(base_blocks), Used::new(0));
        Box::new(Top { outline, below: Slots::new(), height, regions, watched: Watched::new() })
    }

    /// Frees a top, and nothing of what is below it.
    ///
    /// # Safety
    /// `top` comes from [`Top::make`], was not freed, and nobody looks at it any more.
    pub(super) unsafe fn free(top: NonNull<Top>) {
        // SAFETY: by contract; it was leaked as a box.
        let top = unsafe { Box::from_raw(top.as_ptr()) };
        top.watched.end();
    }

    /// Whether anything may be remapped from block `first` to block `last`.
    #[inline(always)]
    pub(super) fn may_hold(&self, first: u64, last: u64) -> bool {
        self.outline.may_hold(first, last)
    }

    /// What the block with this key has in region `number`.
    #[inline]
    pub(super) fn get(&self, number: u64, key: u16) -> Option<u32> {
        self.node(number)?.get(number, key)
    }

    /// What is in region `number` between these keys, or more; `None` if nothing is.
    #[inline]
    pub(super) fn look(&self, number: u64, low: u16, high: u16) -> Option<RegionRef<'_>> {
        self.node(number)?.look(number, low, high)
    }

    /// Whether [`FAR_REGIONS`] hold anything.
    #[inline(always)]
    pub(super) fn is_far(&self) -> bool {
        self.regions.count() >= FAR_REGIONS
    }

    /// The node in which region `number` is, if there is one.
    #[inline]
    pub(super) fn node(&self, number: u64) -> Option<&Lowest> {
        self.lowest(number).ok()
    }

    /// [`super::Table::fetch_entry_of`], of a block in region `number`.
    pub(super) fn fetch_entry(&self, number: u64) {
        self.node(number).into_iter().for_each(|node| {
            node.fetch_places(number);
            node.fetch_entry(number);
        });
    }

    /// [`super::Table::fetch_region_of`], of a block in region `number`.
    pub(super) fn fetch_region(&self, number: u64) {
        self.node(number).into_iter().for_each(|node| node.fetch_region(number));
    }

    /// The first region that holds anything from number `from` up to `last`, with its number.
    pub(super) fn first_region(&self, from: u64, last: u64) -> Option<(u64, RegionRef<'_>)> {
        let mut number = from;
        while number <= last {
            let end = match self.lowest(number) {
                Ok(node) => {
                    let end = last.min(number | (REGIONS as u64 - 1));
                    let found = (number..=end).find_map(|number| Some((number, node.region(number)?)));
                    if found.is_some() {
                        return found;
                    }
                    end
                }
                // Nothing below it is there: on behind all of that.
                Err(height) => number | ((1 << bits_up_to(height)) - 1),
            };
            number = end + 1;
        }
        None
    }

    /// The lowest node on the way to region `number`, or the height at which the way ends before.
    #[inline]
    fn lowest(&self, number: u64) -> Result<&Lowest, u32> {
        let mut slot = match self.height {
            // Which of them need not wait until the height is known: nearly every base has this one.
            2 => self.below.slot(2, number),
            height => self.below.slot(height, number),
        };
        for height in (2..self.height).rev() {
            // SAFETY: the slots of a node have the height below its own.
            slot = unsafe { slot.inner() }.ok_or(height)?.below.slot(height, number);
        }
        // SAFETY: it has height 1 now.
        unsafe { slot.lowest() }.ok_or(1)
    }

    /// [`Directory::set_region`].
    ///
    /// # Safety
    /// That of it.
    unsafe fn set_region(&self, number: u64, region: Region, retired: &mut Retired) {
        // SAFETY: by contract.
        let marks = unsafe { region.view() }.map_or(Marks::default(), RegionRef::marks);
        self.outline.announce(number, marks.parts());
        // SAFETY: by contract, and its slots are those of this height.
        let before = unsafe { self.below.set_region(self.height, number, (region, marks), retired) };
        self.regions.change(before, !region.is_nothing());
        self.outline.set_asked(!self.is_far());
        let (first, last) = self.outline.together(number);
        // Where nothing was before, there is no bit to take away.
        if before && (first == last || (region.is_nothing() && self.first_region(first, last).is_none())) {
            self.outline.settle(number, marks.parts());
        }
    }
}

/// Bits of a region's number that nodes up to this height take.
const fn bits_up_to(height: u32) -> u32 {
    LOWEST_BITS + INNER_BITS * (height - 1)
}

/// Which slot of an inner node of this height leads to region `number`: always one of [`SLOTS`].
#[inline]
fn slot_of(height: u32, number: u64) -> usize {
    (number >> bits_up_to(height - 1)) as usize & (SLOTS - 1)
}

impl Directory {
    /// An empty one for a base of this size.
    pub(super) fn new(base_blocks: u64) -> Directory {
        let regions = base_blocks.div_ceil(REGION_BLOCKS);
        let mut height = 2;
        while regions.saturating_sub(1) >> bits_up_to(height) > 0 {
            height += 1;
        }
        Directory { root: AtomicPtr::new(std::ptr::null_mut()), height, base_blocks }
    }

    /// The largest base that a directory of this height is high enough for, in blocks.
    pub(super) fn room(&self) -> u64 {
        let room = u128::from(REGION_BLOCKS) << bits_up_to(self.height);
        u64::try_from(room).unwrap_or(u64::MAX).min(MAX_BASE_BLOCKS)
    }

    /// What there is; `None` while nothing is remapped. For the duration of one method of [`super::Table`], or of the writer.
    #[inline]
    pub(super) fn top(&self) -> Option<&Top> {
        // Acquire: whoever sees a top sees what is in it.
        let top = NonNull::new(self.root.load(Ordering::Acquire))?;
        // SAFETY: it is a whole one, as `set_region` published it with Release; freed as a node is.
        let top = unsafe { top.as_ref() };
        top.watched.look();
        Some(top)
    }

    /// What is in region `number`.
    pub(super) fn region(&self, number: u64) -> Option<RegionRef<'_>> {
        self.top()?.lowest(number).ok()?.region(number)
    }

    /// For the writer: what is in region `number`.
    pub(super) fn whole_region(&self, number: u64) -> Region {
        let node = self.top().and_then(|top| top.lowest(number).ok());
        node.map_or(Region::NOTHING, |node| node.whole(number))
    }

    /// Each gets all that the other has. Readers see all of it change from one moment to the other.
    pub(super) fn exchange(&self, other: &Directory) {
        assert_eq!(self.height, other.height, "they are for bases of one size");
        // Nobody but the writer, which has both, stores anything.
        let mine = self.root.load(Ordering::Acquire);
        let mine_now = other.root.swap(mine, Ordering::AcqRel);
        self.root.swap(mine_now, Ordering::AcqRel);
    }

    /// Puts `region` in the place of the one with this number. Readers see it from one moment to the other. Nodes that this
    /// takes out go to `retired`; the region that was there is the caller's business.
    ///
    /// # Safety
    /// The region is whole, and stays so until it was taken out and a grace period has passed. Nobody else changes the directory.
    pub(super) unsafe fn set_region(&self, number: u64, region: Region, retired: &mut Retired) {
        let Some(top) = self.top() else {
            if !region.is_nothing() {
                let top = Top::make(self.base_blocks, self.height);
                // SAFETY: by contract.
                unsafe { top.set_region(number, region, retired) };
                // Release, for `top`: one store makes all of it visible.
                self.root.store(Box::into_raw(top), Ordering::Release);
            }
            return;
        };
        // SAFETY: by contract.
        unsafe { top.set_region(number, region, retired) };
        if top.below.used.is_none() {
            NonNull::new(self.root.swap(std::ptr::null_mut(), Ordering::AcqRel))
                .into_iter()
                .for_each(|top| retired.add_top(top));
        }
    }
}

/// [`Directory::set_region`], below `slot`, with what is for the region's filter. The answer is whether the region before held anything.
///
/// # Safety
/// That of the method; and the slot has this height.
unsafe fn set_region(
    slot: &Slot,
    height: u32,
    number: u64,
    (region, marks): (Region, Marks),
    retired: &mut Retired,
) -> bool {
    if height == 1 {
        // SAFETY: it is 1.
        if let Some(node) = unsafe { slot.lowest() } {
            // SAFETY: by contract.
            let before = unsafe { node.set(number, region, marks) };
            if node.is_empty() {
                slot.take().into_iter().for_each(|node| retired.add_lowest(node));
            }
            return before;
        }
    // SAFETY: it is more.
    } else if let Some(node) = unsafe { slot.inner() } {
        // SAFETY: by contract.
        let before = unsafe { node.below.set_region(height, number, (region, marks), retired) };
        if node.below.used.is_none() {
            slot.take().into_iter().for_each(|node| retired.add_inner(node));
        }
        return before;
    }
    if !region.is_nothing() {
        // The nodes that are missing, from below, so that one store makes all of it visible.
        let lowest = Lowest::make();
        // SAFETY: by contract.
        unsafe { lowest.set(number, region, marks) };
        let lowest = Box::into_raw(lowest).cast::<Below>();
        slot.swap((2..=height).fold(lowest, |below, height| Inner::make(height, number, below).cast()));
    }
    false
}

impl Drop for Directory {
    fn drop(&mut self) {
        let Some(top) = NonNull::new(self.root.load(Ordering::Acquire)) else { return };
        // SAFETY: nobody else has the directory any more, and what is in it was not retired.
        unsafe {
            top.as_ref().below.slots.iter().for_each(|slot| free_all(slot, self.height - 1));
            Top::free(top);
        }
    }
}

/// Frees all that is below a slot of this height.
///
/// # Safety
/// Nobody looks at the slot or at what is below it any more.
unsafe fn free_all(slot: &Slot, height: u32) {
    let Some(below) = slot.load() else { return };
    if height == 1 {
        let node = below.cast::<Lowest>();
        // SAFETY: a slot of height 1 holds such a node, and what is in it is whole; by contract nobody looks at it.
        return unsafe {
            (0..REGIONS as u64).for_each(|number| node.as_ref().whole(number).free());
            Lowest::free(node);
        };
    }
    let node = below.cast::<Inner>();
    // SAFETY: a slot of another height holds such a node; otherwise as above.
    unsafe {
        node.as_ref().below.slots.iter().for_each(|slot| free_all(slot, height - 1));
        Inner::free(node);
    }
}
