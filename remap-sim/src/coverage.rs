//! How often each kind of fault and of crash point was met. A kind that never was proves nothing.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

/// All that a long run has to meet.
pub const KINDS: &[&str] = &[
    "crash: base flush under way",
    "crash: base read under way",
    "crash: base write under way",
    "crash: checkpoint page A under way",
    "crash: checkpoint page B under way",
    "crash: log page A under way",
    "crash: log page B under way",
    "crash: log read under way",
    "crash: log zeroing under way",
    "crash: nothing left to do",
    "crash: nothing under way",
    "crash: spare data read under way",
    "crash: spare data write under way",
    "crash: spare flush under way",
    "crash: superblock A under way",
    "crash: superblock B under way",
    "crash: while formatting",
    "crash: while opening",
    "crash: while opening, after a crash while opening",
    "crash: while scrubbing",
    "cut: kill",
    "cut: power, all of the cache written out",
    "cut: power, nothing of the cache written out",
    "cut: power, of one device",
    "cut: power, some of the cache written out",
    "cut: torn write",
    "damage: bit flipped",
    "damage: garbage",
    "damage: misdirected",
    "damage: outdated for a while",
    "damage: of all of a copy",
    "damage: stale",
    "damage: swapped",
    "damage: unreadable",
    "damage: unreadable for a while",
    "damage: zeroed",
    "event: a list taken over",
    "event: abort",
    "event: aborted",
    "event: an older spare came up",
    "event: an older spare was refused",
    "event: area full",
    "event: bad metadata found by a scrub",
    "event: closed",
    "event: compared with the spare",
    "event: flush acknowledged",
    "event: given back to the base",
    "event: relocated by an operator",
    "event: log in doubt",
    "event: no spare block left",
    "event: read failed as it may",
    "event: refused as erased, and formatted by force",
    "event: refused for what may pass",
    "event: refused, and loaded when the damage was undone",
    "event: reset",
    "event: rescued by a scrub",
    "event: restored",
    "event: scrub gone on with",
    "event: several chunks in a checkpoint",
    "event: several pages in a batch",
    "event: spare block replaced",
    "event: storm brake",
    "event: the spare has grown",
    "event: the spare has grown, and is used to its end",
    "event: unmap",
    "event: unreadable blocks found by a scrub",
    "event: waited for a structure",
    "event: wiped",
    "event: write failed as it may",
    "event: write relocated",
    "fault: base bad read",
    "fault: base bad write",
    "fault: base flush error",
    "fault: base media glitch",
    "fault: base other glitch",
    "fault: log A rot",
    "fault: log A unreadable",
    "fault: log A write error",
    "fault: log B rot",
    "fault: log B unreadable",
    "fault: log B write error",
    "fault: log unreadable",
    "fault: metadata read trouble",
    "fault: page write error",
    "fault: spare bad read",
    "fault: spare bad write",
    "fault: spare flush error",
    "fault: spare media glitch",
    "fault: spare other glitch",
    "fault: spare without power",
    "fault: stale read",
    "fault: superblock A rot",
    "fault: superblock A unreadable",
    "fault: superblock A write error",
    "fault: superblock B rot",
    "fault: superblock B unreadable",
    "fault: superblock B write error",
    "fault: superblock unreadable",
    "fault: write lost",
    "fault: write misdirected",
];

impl Coverage {
    /// One more of `kind`.
    pub fn count(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    /// `times` more of `kind`.
    pub fn add(&mut self, kind: &'static str, times: u64) {
        *self.0.entry(kind).or_default() += times;
    }

    /// All that `other` has counted.
    pub fn merge(&mut self, other: &Coverage) {
        for (kind, times) in &other.0 {
            self.add(kind, *times);
        }
    }

    /// How often `kind` was met.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// All counts by name, those of [`KINDS`] that were never met among them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        let mut all: BTreeMap<_, _> = KINDS.iter().map(|kind| (*kind, 0)).collect();
        all.extend(&self.0);
        all
    }

    /// The [`KINDS`] that were never met.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| self.of(kind) == 0).collect()
    }
}
