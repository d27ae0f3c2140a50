//! Freeing what readers of the table may still look at, once they cannot.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::rc::Rc;

use smallvec::SmallVec;

use super::TableWriter;
use super::bits::Bits;
use super::directory::{Inner, Top};
use super::keys::Keys;
use super::lowest::Lowest;
use super::region::Chunks;
use crate::device::Env;
use crate::pace::{Pace, join_what_was_freed};

/// What a [`super::TableWriter::publish`] took out of the table and readers may still look at. Dropping it leaks the memory.
#[must_use = "free it after a grace period, or it is leaked"]
#[derive(Default)]
pub struct Retired(SmallVec<[Part; 2]>);

/// An allocation of its own.
enum Part {
    Keys(NonNull<Keys>),
    Bits(NonNull<Bits>),
    Chunks(NonNull<Chunks>),
    Lowest(NonNull<Lowest>),
    Inner(NonNull<Inner>),
    Top(NonNull<Top>),
}

impl Retired {
    /// Whether there is nothing to free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much is in there: of regions, and nodes.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let nodes =
            self.0.iter().filter(|part| matches!(part, Part::Lowest(_) | Part::Inner(_) | Part::Top(_))).count();
        (self.0.len() - nodes, nodes)
    }

    /// Takes what was just taken out of the table, or was in none; so do the others.
    pub(super) fn add_keys(&mut self, keys: NonNull<Keys>) {
        self.0.push(Part::Keys(keys));
    }

    pub(super) fn add_bits(&mut self, bits: NonNull<Bits>) {
        self.0.push(Part::Bits(bits));
    }

    pub(super) fn add_chunks(&mut self, chunks: NonNull<Chunks>) {
        self.0.push(Part::Chunks(chunks));
    }

    pub(super) fn add_lowest(&mut self, node: NonNull<Lowest>) {
        self.0.push(Part::Lowest(node));
    }

    pub(super) fn add_inner(&mut self, node: NonNull<Inner>) {
        self.0.push(Part::Inner(node));
    }

    pub(super) fn add_top(&mut self, top: NonNull<Top>) {
        self.0.push(Part::Top(top));
    }

    /// Frees it.
    ///
    /// # Safety
    /// Every reader that could have begun before the publish returned has left the methods of [`super::Table`], or nothing of it was in
    /// a table.
    pub unsafe fn free(self) {
        for part in self.0 {
            // SAFETY: each was made by what its type frees, taken out of the table by the writer, if it was in one, and kept only here,
            // so freed once; by contract nobody looks at it.
            unsafe {
                match part {
                    Part::Keys(keys) => Keys::free(keys),
                    Part::Bits(bits) => Bits::free(bits),
                    Part::Chunks(chunks) => Chunks::free(chunks),
                    Part::Lowest(node) => Lowest::free(node),
                    Part::Inner(node) => Inner::free(node),
                    Part::Top(top) => Top::free(top),
                }
            }
        }
    }
}

/// Waits for a grace period, and frees `retired`.
pub(crate) async fn reclaim<E: Env>(env: Rc<E>, retired: Retired) {
    env.grace().await;
    // SAFETY: `retired` was taken out of the table before `grace` was called, and `Env` promises that every reader that
    // could have begun before has left the table's methods by now.
    unsafe { retired.free() }
}

/// Waits for a grace period, and frees all of a table that was taken away from its readers ([`TableWriter::exchange`]), in steps.
pub(crate) async fn reclaim_table<E: Env>(env: Rc<E>, table: TableWriter) {
    // Who drops this task before leaks it.
    let table = ManuallyDrop::new(table);
    env.grace().await;
    let mut table = ManuallyDrop::into_inner(table);
    let (mut pace, mut from) = (Pace::default(), 0);
    while let Some((number, retired)) = table.take_region(from) {
        let parts = retired.0.len();
        // SAFETY: as above; what readers may have looked at was taken away from them before `grace` was called.
        unsafe { retired.free() }
        from = number + 1;
        join_what_was_freed();
        pace.step(1 + parts).await;
    }
}
