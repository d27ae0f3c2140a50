//! The faults of a simulated disk: which operations fail, how, and since when.

use std::collections::BTreeMap;
use std::ops::Range;

use remap_core::IoStatus;

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
    /// Takes the advice that blocks are not needed: each becomes zeros, or stays.
    Unmap,
}

/// What an operation that a fault strikes does all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Some blocks are written, never the bad one.
    Some,
    /// All of it: the error is a lie.
    Everything,
    /// Nothing is written, and that is called success.
    Lost,
    /// It is written so many blocks further on, as far as the fault goes, and that is called success; in its own place as
    /// well, or not.
    Misdirected {
        /// In blocks.
        by: i64,
        /// Not in its own place.
        instead: bool,
    },
    /// What was there some time ago is read, and that is called success.
    Stale,
    /// A flush drops what is in the cache.
    Dropped,
}

impl Effect {
    /// Whether the operation succeeds as far as anybody is told.
    pub(crate) fn lies(self) -> bool {
        matches!(self, Effect::Lost | Effect::Misdirected { .. } | Effect::Stale)
    }
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
    /// How often it lets an operation pass before it strikes.
    pub passes: u32,
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

impl Fault {
    /// Every operation of `verb` that touches `blocks` fails with `status`; a write that fails writes nothing. `blocks` mean
    /// nothing for a flush.
    #[must_use]
    pub fn new(verb: Verb, blocks: Range<u64>, status: IoStatus) -> Fault {
        let (first, end) = (blocks.start, blocks.end);
        let (passes, left, effect, heals, since) = (0, None, Effect::Nothing, false, 0);
        Fault { name: "fault", verb, first, end, passes, left, status, effect, heals, since }
    }

    /// Every flush fails with `status`.
    #[must_use]
    pub fn of_flush(status: IoStatus) -> Fault {
        Fault::new(Verb::Flush, 0..0, status)
    }

    /// It is counted under this name.
    #[must_use]
    pub fn named(self, name: &'static str) -> Fault {
        Fault { name, ..self }
    }

    /// It strikes so often, and never again.
    #[must_use]
    pub fn times(self, times: u32) -> Fault {
        Fault { left: Some(times), ..self }
    }

    /// It lets so many operations pass before.
    #[must_use]
    pub fn after(self, passes: u32) -> Fault {
        Fault { passes, ..self }
    }

    /// What an operation that it strikes does all the same.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Fault {
        Fault { effect, ..self }
    }

    /// A successful write makes it go away.
    #[must_use]
    pub fn healed_by_write(self) -> Fault {
        Fault { heals: true, ..self }
    }
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
    pub(crate) effect: Effect,
    /// The blocks that have the fault: from, and to before.
    pub(crate) within: (u64, u64),
}

impl Struck {
    /// The operation is not one for this disk.
    pub(crate) fn foreign(lba: u64) -> Struck {
        Struck { lba, status: IoStatus::Other(-1), since: None, effect: Effect::Nothing, within: (lba, lba) }
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

    pub(crate) fn strike(&mut self, verb: Verb, first: u64, end: u64) -> Option<Struck> {
        let verb = if verb == Verb::Zero { Verb::Write } else { verb };
        let hits = |fault: &&mut Fault| {
            fault.verb == verb
                && fault.left != Some(0)
                && (verb == Verb::Flush || fault.first < end && first < fault.end)
        };
        // Of several, the one on the first block.
        let fault = self.faults.iter_mut().filter(hits).min_by_key(|fault| fault.first)?;
        if let Some(passes) = fault.passes.checked_sub(1) {
            fault.passes = passes;
            return None;
        }
        let since = fault.left.is_none().then_some(fault.since);
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        *self.counts.entry(fault.name).or_default() += 1;
        let within = (fault.first, fault.end);
        Some(Struck { lba: fault.first.max(first), status: fault.status, since, effect: fault.effect, within })
    }

    pub(crate) fn heal_by_write(&mut self, first: u64, end: u64) {
        if self.faults.iter().any(|fault| fault.heals) {
            // One block each, so that a write of the block is a write of all of it.
            self.faults.retain(|fault| !(fault.heals && first <= fault.first && fault.end <= end));
        }
    }
}
