//! Which I/O fails, and how.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use spdk::{IoKind, Status};

/// Which I/O a rule is for.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Reads.
    Read,
    /// Writes and write_zeroes.
    Write,
    /// Reads, writes, write_zeroes and unmaps.
    All,
}

/// The error that a rule gives.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names)]
pub enum Fault {
    /// NVMe 2/80h, write fault.
    WriteFault,
    /// NVMe 2/81h, unrecovered read error.
    ReadError,
    /// NVMe 3/00h, internal path error.
    Path,
    /// AIO -EIO.
    Io,
    /// AIO -ENODATA, Linux's medium error.
    AioEnodata,
}

/// A rule: the parameters of `bdev_fault_inject`.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub struct Rule {
    /// First block.
    pub lba: u64,
    /// Length in blocks.
    pub num_blocks: u64,
    /// Only every stride-th block from `lba` on is bad.
    pub stride: u64,
    /// For which I/O.
    pub op: Op,
    /// With which error.
    pub error: Fault,
    /// How many I/O still fail; None for all.
    pub count: Option<u64>,
}

/// The rules of one device; looked at by all threads, changed by the app thread.
#[derive(Default)]
pub struct Rules {
    /// Whether there are any: so that none cost nothing.
    any: AtomicBool,
    list: RwLock<Vec<(Rule, AtomicU64)>>,
}

impl Rules {
    /// Adds a rule.
    pub fn add(&self, rule: Rule) {
        let left = AtomicU64::new(rule.count.unwrap_or(u64::MAX));
        self.list.write().unwrap_or_else(PoisonError::into_inner).push((rule, left));
        self.any.store(true, Ordering::Release);
    }

    /// Removes all.
    pub fn clear(&self) {
        self.any.store(false, Ordering::Release);
        self.list.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// All of them, with what is left of their counts.
    pub fn list(&self) -> Vec<Rule> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let left = |rule: &Rule, left: &AtomicU64| rule.count.map(|_| left.load(Ordering::Relaxed));
        list.iter().map(|(rule, count)| Rule { count: left(rule, count), ..*rule }).collect()
    }

    /// The error that this I/O gets, if any; uses up one of the rule's count.
    // Nearly all I/O has none to look at, and what that costs counts where the bdev stands for a null one in benchmarks.
    #[inline(always)]
    pub fn verdict(&self, kind: IoKind, lba: u64, blocks: u64) -> Option<Status> {
        if self.any.load(Ordering::Acquire) { self.judge(kind, lba, blocks) } else { None }
    }

    #[inline(never)]
    fn judge(&self, kind: IoKind, lba: u64, blocks: u64) -> Option<Status> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let hit =
            list.iter().find(|(rule, left)| rule.hits(kind, lba, blocks) && take_one(left, rule.count.is_some()))?;
        Some(hit.0.error.status())
    }
}

/// Takes one from a count that is limited; false when nothing is left.
fn take_one(left: &AtomicU64, limited: bool) -> bool {
    !limited || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Rule {
    fn hits(&self, kind: IoKind, lba: u64, blocks: u64) -> bool {
        let of_kind = matches!(
            (self.op, kind),
            (Op::Read | Op::All, IoKind::Read)
                | (Op::Write | Op::All, IoKind::Write | IoKind::WriteZeroes)
                | (Op::All, IoKind::Unmap)
        );
        let (first, end) =
            (lba.max(self.lba), lba.saturating_add(blocks).min(self.lba.saturating_add(self.num_blocks)));
        // The first bad block at or behind `first`.
        of_kind && first < end && first + (self.stride - (first - self.lba) % self.stride) % self.stride < end
    }
}

impl Fault {
    fn status(self) -> Status {
        match self {
            Fault::WriteFault => Status::Nvme { cdw0: 0, sct: 2, sc: 0x80 },
            Fault::ReadError => Status::Nvme { cdw0: 0, sct: 2, sc: 0x81 },
            Fault::Path => Status::Nvme { cdw0: 0, sct: 3, sc: 0 },
            Fault::Io => Status::Aio(-libc::EIO),
            Fault::AioEnodata => Status::Aio(-libc::ENODATA),
        }
    }
}
