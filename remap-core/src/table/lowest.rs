//! The lowest nodes of the directory: the regions, each with its *filter* ([`super::filter`]), which says what is not in there.

use std::ptr::NonNull;

use super::fetch::fetch;
use super::filter::{Marks, Others, Places};
use super::keys::Keys;
use super::region::{Region, RegionRef};
use crate::sync::{AtomicPtr, AtomicU64, Ordering, Watched};

/// Bits of a region's number that a lowest node takes. Few for loom, which looks at every place.
pub(super) const LOWEST_BITS: u32 = if cfg!(loom) { 1 } else { 9 };
/// Regions of a lowest node.
pub(super) const REGIONS: usize = 1 << LOWEST_BITS;

/// A node of height 1.
pub(super) struct Lowest {
    places: [Places; REGIONS],
    entries: [Entry; REGIONS],
    used: Used,
    watched: Watched,
}

/// What is known further of a region, in half a cache line, so that one load brings all of it.
#[repr(C, align(32))]
struct Entry {
    others: Others,
    region: AtomicPtr<Keys>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() == 32, "half a cache line");

/// How many places have something below, which the writer alone counts, and readers take for a hint.
pub(super) struct Used(AtomicU64);

impl Used {
    pub(super) fn new(places: u64) -> Used {
        Used(AtomicU64::new(places))
    }

    /// Something is below one more place, or one less.
    pub(super) fn change(&self, before: bool, now: bool) {
        // It is not written without need, as readers are near. Relaxed: nobody else decides by it what is there.
        if before != now {
            self.0.store(self.count() + u64::from(now) - u64::from(before), Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_none(&self) -> bool {
        self.count() == 0
    }
}

impl Lowest {
    /// A new node that holds nothing.
    #[inline(never)]
    pub(super) fn make() -> Box<Lowest> {
        Box::new(Lowest {
            places: std::array::from_fn(|_| Places::default()),
            entries: std::array::from_fn(|_| Entry {
                others: Others::default(),
                region: AtomicPtr::new(Region::NOTHING.to_raw()),
            }),
            used: Used::new(0),
            watched: Watched::new(),
        })
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

    /// Somebody has come to it.
    #[inline]
    pub(super) fn look_at(&self) {
        self.watched.look();
    }

    /// Whether no region below it holds anything.
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_none()
    }

    /// What the block with this key has in region `number`.
    #[inline]
    pub(super) fn get(&self, number: u64, key: u16) -> Option<u32> {
        let entry = self.entry(number);
        let may_hold = self.places(number).may_hold_block(key) && entry.others.may_hold_block(key);
        if may_hold { entry.region()?.get(key) } else { None }
    }

    /// What is in region `number` between these keys, or more; `None` if nothing is.
    #[inline]
    pub(super) fn look(&self, number: u64, low: u16, high: u16) -> Option<RegionRef<'_>> {
        let may_hold = self.places_may_hold(number, low, high) && self.entry_may_hold(number, low, high);
        if may_hold { self.region(number) } else { None }
    }

    /// Whether anything may be in region `number` between these keys, by the first word of its filter.
    #[inline]
    pub(super) fn places_may_hold(&self, number: u64, low: u16, high: u16) -> bool {
        self.places(number).may_hold(low, high)
    }

    /// The same, by what is in its entry.
    #[inline]
    pub(super) fn entry_may_hold(&self, number: u64, low: u16, high: u16) -> bool {
        self.entry(number).others.may_hold(low, high)
    }

    /// What is in region `number`.
    #[inline]
    pub(super) fn region(&self, number: u64) -> Option<RegionRef<'_>> {
        self.entry(number).region()
    }

    /// As [`Lowest::region`], for whoever does not look at it.
    #[inline]
    pub(super) fn whole(&self, number: u64) -> Region {
        self.entry(number).load()
    }

    /// Has the first word of the filter of region `number` fetched.
    #[inline]
    pub(super) fn fetch_places(&self, number: u64) {
        fetch(self.places(number));
    }

    /// Has the entry of region `number` fetched.
    #[inline]
    pub(super) fn fetch_entry(&self, number: u64) {
        fetch(self.entry(number));
    }

    /// Has region `number` fetched.
    #[inline]
    pub(super) fn fetch_region(&self, number: u64) {
        self.whole(number).fetch();
    }

    #[inline]
    fn places(&self, number: u64) -> &Places {
        &self.places[place_of(number)]
    }

    #[inline]
    fn entry(&self, number: u64) -> &Entry {
        &self.entries[place_of(number)]
    }

    /// Puts `region` in the place of the one with this number, with what is for its filter. The answer is whether that one held anything.
    ///
    /// # Safety
    /// That of [`super::directory::Directory::set_region`].
    pub(super) unsafe fn set(&self, number: u64, region: Region, marks: Marks) -> bool {
        let (places, entry) = (self.places(number), self.entry(number));
        let before = !entry.load().is_nothing();
        self.used.change(before, !region.is_nothing());
        places.announce(marks);
        entry.others.announce(marks);
        entry.region.store(region.to_raw(), Ordering::Release);
        // Where nothing was before, there is no bit to take away.
        if before {
            places.settle(marks);
            entry.others.settle(marks);
        }
        before
    }
}

impl Entry {
    #[inline]
    fn region(&self) -> Option<RegionRef<'_>> {
        // SAFETY: it is whole by the contract of `Lowest::set`, which published it with Release; freed as a node is.
        unsafe { self.load().view() }
    }

    /// Acquire: whoever sees a region sees what is in it.
    #[inline]
    fn load(&self) -> Region {
        Region::from_raw(self.region.load(Ordering::Acquire))
    }
}

/// Where region `number` is in a node: always one of [`REGIONS`].
#[inline]
fn place_of(number: u64) -> usize {
    number as usize & (REGIONS - 1)
}
