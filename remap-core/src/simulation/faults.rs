//! The faults of a simulated disk: which operations fail, how, and since when.

use std::collections::BTreeMap;

use crate::status::IoStatus;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Writes zeroes.
    Zero,
    /// Flushes; has no range.
    Flush,
}

/// What a write that fails does all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Some blocks are written, never the bad one.
    Some,
    /// All of it: the error is a lie.
    Everything,
}

/// A fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is called in the coverage counts.
    pub name: &'static str,
    /// Which operations it strikes; writes stand for zeroing, too.
    pub verb: Verb,
    /// The first block that has it.
    pub first: u64,
    /// The first block behind.
    pub end: u64,
    /// How often it strikes; `None` for ever.
    pub left: Option<u32>,
    /// The error.
    pub status: IoStatus,
    /// What a write does all the same.
    pub effect: Effect,
    /// Whether a successful write makes it go away.
    pub heals: bool,
    /// When it appeared, by the clock of the model.
    pub since: u64,
}

/// A fault that struck an operation.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// The first block that has the fault.
    pub lba: u64,
    /// The error.
    pub status: IoStatus,
    /// Since when the block has had it; `None` if it comes and goes.
    pub since: Option<u64>,
    pub(super) effect: Effect,
}

impl Struck {
    /// The operation is not one for this disk.
    pub(super) fn foreign(lba: u64) -> Struck {
        Struck { lba, status: IoStatus::Other(-1), since: None, effect: Effect::Nothing }
    }
}

/// All faults of a disk.
#[derive(Default)]
pub struct Faults {
    faults: Vec<Fault>,
    counts: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Adds a fault.
    pub fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Takes those faults away that `heal` names.
    pub fn heal(&mut self, mut heal: impl FnMut(&Fault) -> bool) {
        self.faults.retain(|fault| !heal(fault));
    }

    /// How often each kind of fault struck.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Whether there is such a fault.
    pub fn any(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(is)
    }

    pub(super) fn strike(&mut self, verb: Verb, first: u64, end: u64) -> Option<Struck> {
        let verb = if verb == Verb::Zero { Verb::Write } else { verb };
        let hits = |fault: &&mut Fault| {
            fault.verb == verb
                && fault.left != Some(0)
                && (verb == Verb::Flush || fault.first < end && first < fault.end)
        };
        // Of several, the one on the first block.
        let fault = self.faults.iter_mut().filter(hits).min_by_key(|fault| fault.first)?;
        let since = fault.left.is_none().then_some(fault.since);
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        *self.counts.entry(fault.name).or_default() += 1;
        Some(Struck { lba: fault.first.max(first), status: fault.status, since, effect: fault.effect })
    }

    pub(super) fn heal_by_write(&mut self, first: u64, end: u64) {
        if self.faults.iter().any(|fault| fault.heals) {
            // One block each, so that a write of the block is a write of all of it.
            self.faults.retain(|fault| !(fault.heals && first <= fault.first && fault.end <= end));
        }
    }
}
