//! Freeing what readers of the table may still look at, once they cannot.

use std::mem::ManuallyDrop;
use std::rc::Rc;

use super::TableWriter;
use super::directory::Node;
use super::leaf::Leaf;
use crate::device::Env;
use crate::pace::Pace;

/// What a [`super::TableWriter::publish`] took out of the table and readers may still look at. Dropping it leaks the memory.
#[must_use = "free it after a grace period, or it is leaked"]
#[derive(Default)]
pub struct Retired {
    leaves: Vec<*mut Leaf>,
    nodes: Vec<*mut Node>,
}

impl Retired {
    /// Whether there is nothing to free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.nodes.is_empty()
    }

    /// Takes what `other` has, too.
    pub(crate) fn merge(&mut self, other: Retired) {
        self.leaves.extend(other.leaves);
        self.nodes.extend(other.nodes);
    }

    /// How many leaves and nodes there are.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.leaves.len(), self.nodes.len())
    }

    /// Takes a leaf that was just taken out of the table; null is none.
    pub(super) fn add_leaf(&mut self, leaf: *mut Leaf) {
        if !leaf.is_null() {
            self.leaves.push(leaf);
        }
    }

    /// Takes an empty node that was just taken out of the table.
    pub(super) fn add_node(&mut self, node: *mut Node) {
        self.nodes.push(node);
    }

    /// Frees it.
    ///
    /// # Safety
    /// Every reader that could have begun before the publish returned has left the methods of [`super::Table`].
    pub unsafe fn free(self) {
        for leaf in self.leaves {
            // SAFETY: made by `Leaf::make`, taken out of the table by the writer and kept only here, so freed once; by
            // contract nobody looks at it.
            unsafe { Leaf::free(leaf) }
        }
        for node in self.nodes {
            // SAFETY: made by `Node::make`; otherwise as a leaf.
            unsafe { Node::free(node) }
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
    while let Some((number, retired)) = table.take_leaf(from) {
        // SAFETY: as above; what readers may have looked at was taken away from them before `grace` was called.
        unsafe { retired.free() }
        from = number + 1;
        pace.step(1).await;
    }
}
