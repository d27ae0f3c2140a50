//! The directory of the remap table: the way from its root to its leaves.
//!
//! A tree of nodes of 4,096 pointers (32 KiB) each, as high as the size of the base asks for. A node is there only while a
//! leaf is below it: memory and a visit of the whole follow what is remapped, at most one node on each height for each
//! leaf. Readers descend it, without a lock or a reference; the writer alone changes it, by one store for each leaf.
//!
//! ```text
//! base up to 2^28 blocks:   root ──────────────────> node ──> leaf
//!            2^40 blocks:   root ─────────> node ──> node ──> leaf
//!            more:          root ──> node ──> node ──> node ──> leaf
//! ```
//!
//! A leaf has height 0, a node the height of what its slots point to plus 1. The number of a leaf is `lba >> 16`; a node
//! of height `h` takes the 12 bits above its lowest `12 * (h - 1)`.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::leaf::{LEAF_BLOCKS, Leaf, LeafRef};
use super::reclaim::Retired;
use crate::sync::{AtomicPtr, Ordering, Watched};
use crate::units::MAX_BASE_BLOCKS;

/// Bits of a leaf's number that a node takes. Few for loom, which looks at every slot.
pub(super) const NODE_BITS: u32 = if cfg!(loom) { 1 } else { 12 };
const SLOTS: usize = 1 << NODE_BITS;

/// What a slot points to: a [`Leaf`] in a node of height 1, else a [`Node`].
enum Below {}

/// A pointer that readers follow; null if nothing is below it. Its height is the height of what it points to.
struct Slot(AtomicPtr<Below>);

/// 4,096 slots of one height.
pub(super) struct Node {
    slots: [Slot; SLOTS],
    watched: Watched,
}

/// The root, and how far the leaves are below it.
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

    /// The node below, for the duration of one method of [`super::Table`], or of the writer.
    ///
    /// # Safety
    /// The slot has a height of 1 or more.
    #[inline]
    unsafe fn node(&self) -> Option<&Node> {
        let node = self.load()?.cast::<Node>();
        // SAFETY: by contract it is a node, a whole one, as `Directory::set_leaf` published it with Release. It is freed
        // only after it was taken out of its slot and a grace period passed (the contract of `Retired::free`), so not
        // before the method that called us has returned; no method lets a reference to it out.
        let node = unsafe { node.as_ref() };
        node.watched.look();
        Some(node)
    }

    /// The leaf below, for as long as [`Slot::node`] says.
    ///
    /// # Safety
    /// The slot has height 0.
    #[inline]
    unsafe fn leaf(&self) -> Option<LeafRef<'_>> {
        let leaf = self.load()?.cast::<Leaf>();
        // SAFETY: by contract it is a leaf, from `Leaf::make`; published and freed as a node is.
        Some(unsafe { LeafRef::new(leaf, PhantomData) })
    }
}

impl Node {
    /// A new node of this height, with `below` on the way to leaf `number`, and nothing else.
    fn make(height: u32, number: u64, below: *mut Below) -> *mut Node {
        let node = Node {
            slots: std::array::from_fn(|slot| {
                Slot::new(if slot == slot_of(height, number) { below } else { std::ptr::null_mut() })
            }),
            watched: Watched::new(),
        };
        Box::into_raw(Box::new(node))
    }

    /// Frees a node, and nothing of what is below it.
    ///
    /// # Safety
    /// `node` comes from [`Node::make`], was not freed, and nobody looks at it any more.
    pub(super) unsafe fn free(node: *mut Node) {
        // SAFETY: by contract; `make` got it from `Box::into_raw`.
        let node = unsafe { Box::from_raw(node) };
        node.watched.end();
    }

    #[inline]
    fn slot(&self, height: u32, number: u64) -> &Slot {
        &self.slots[slot_of(height, number)]
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.load().is_none())
    }
}

/// Which slot of a node of this height leads to leaf `number`: always one of [`SLOTS`].
#[inline]
fn slot_of(height: u32, number: u64) -> usize {
    (number >> (NODE_BITS * (height - 1))) as usize & (SLOTS - 1)
}

impl Directory {
    /// An empty one for a base of this size.
    pub(super) fn new(base_blocks: u64) -> Directory {
        let leaves = base_blocks.div_ceil(LEAF_BLOCKS);
        let mut height = 1;
        while leaves.saturating_sub(1) >> (NODE_BITS * height) > 0 {
            height += 1;
        }
        Directory { root: Slot::new(std::ptr::null_mut()), height }
    }

    /// The largest base that a directory of this height is high enough for, in blocks.
    pub(super) fn room(&self) -> u64 {
        let room = u128::from(LEAF_BLOCKS) << (NODE_BITS * self.height);
        u64::try_from(room).unwrap_or(u64::MAX).min(MAX_BASE_BLOCKS)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.root.load().is_none()
    }

    /// The leaf with this number.
    #[inline]
    pub(super) fn leaf(&self, number: u64) -> Option<LeafRef<'_>> {
        let node = self.lowest_node(number).ok()?;
        // SAFETY: a slot of a node of height 1 has height 0.
        unsafe { node.slot(1, number).leaf() }
    }

    /// The first leaf from number `from` up to `last`, with its number.
    #[inline]
    pub(super) fn first_leaf(&self, from: u64, last: u64) -> Option<(u64, LeafRef<'_>)> {
        if from == last {
            // Nearly every I/O.
            return self.leaf(from).map(|leaf| (from, leaf));
        }
        let mut number = from;
        while number <= last {
            let end = match self.lowest_node(number) {
                Ok(node) => {
                    let end = last.min(number | (SLOTS as u64 - 1));
                    for number in number..=end {
                        // SAFETY: a slot of a node of height 1 has height 0.
                        if let Some(leaf) = unsafe { node.slot(1, number).leaf() } {
                            return Some((number, leaf));
                        }
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

    /// The node of height 1 on the way to leaf `number`, or the height at which the way ends before.
    #[inline]
    fn lowest_node(&self, number: u64) -> Result<&Node, u32> {
        // SAFETY: the root's height is that of the directory, 1 or more.
        let mut node = unsafe { self.root.node() }.ok_or(self.height)?;
        for height in (2..=self.height).rev() {
            // SAFETY: a slot of a node of height 2 or more has a height of 1 or more.
            node = unsafe { node.slot(height, number).node() }.ok_or(height - 1)?;
        }
        Ok(node)
    }

    /// Each gets all that the other has. Readers see all of it change from one moment to the other.
    pub(super) fn exchange(&self, other: &Directory) {
        debug_assert_eq!(self.height, other.height, "they are for bases of one size");
        // Nobody but the writer, which has both, stores anything.
        let mine = self.root.0.load(Ordering::Acquire);
        let mine_now = other.root.swap(mine);
        self.root.swap(mine_now);
    }

    /// Puts `leaf`, or nothing if it is null, in the place of the leaf with this number. Readers see it from one moment
    /// to the other. What that takes out goes to `retired`.
    ///
    /// # Safety
    /// `leaf` is null, or comes from [`Leaf::make`] and is not in any table. Nobody else changes the directory.
    pub(super) unsafe fn set_leaf(&self, number: u64, leaf: *mut Leaf, retired: &mut Retired) {
        set_leaf(&self.root, self.height, number, leaf, retired);
    }
}

/// [`Directory::set_leaf`], below `slot`, which has this height.
fn set_leaf(slot: &Slot, height: u32, number: u64, leaf: *mut Leaf, retired: &mut Retired) {
    if height == 0 {
        retired.add_leaf(slot.swap(leaf.cast()).cast());
        return;
    }
    // SAFETY: it is not 0.
    match unsafe { slot.node() } {
        Some(node) => {
            set_leaf(node.slot(height, number), height - 1, number, leaf, retired);
            if leaf.is_null() && node.is_empty() {
                retired.add_node(slot.swap(std::ptr::null_mut()).cast());
            }
        }
        None if leaf.is_null() => {}
        None => {
            // The nodes that are missing, from below, so that one store makes all of it visible.
            let missing =
                (1..=height).fold(leaf.cast::<Below>(), |below, height| Node::make(height, number, below).cast());
            slot.swap(missing);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: nobody else has the directory any more, and what is in it was not retired.
        unsafe { free_all(&self.root, self.height) }
    }
}

/// Frees all that is below a slot of this height.
///
/// # Safety
/// Nobody looks at the slot or at what is below it any more.
unsafe fn free_all(slot: &Slot, height: u32) {
    let Some(below) = slot.load() else { return };
    if height == 0 {
        // SAFETY: a slot of height 0 holds a leaf from `Leaf::make`; by contract nobody looks at it.
        return unsafe { Leaf::free(below.cast().as_ptr()) };
    }
    let node = below.cast::<Node>();
    // SAFETY: a slot of another height holds a node from `Node::make`; nobody else has it, by contract, nor what is below.
    unsafe {
        node.as_ref().slots.iter().for_each(|slot| free_all(slot, height - 1));
        Node::free(node.as_ptr());
    }
}
