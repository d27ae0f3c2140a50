//! What happens in a simulation: the plan that a seed stands for. It is plain data, so that it can be made smaller.

use remap_core::RemapOn;
use remap_core::format::Copy;

use super::damage::Damage;
use super::faults::{Effect, Verb};
use super::store::Cut;

/// All that happens.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides the order of what happens at one time, and what crashes leave.
    pub schedule: u64,
    /// The world.
    pub config: Config,
    /// One process after the other on the same devices.
    pub lives: Vec<Life>,
}

/// What may be wrong with the metadata, and so what is promised of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Writes and flushes that fail, and reads that fail for a while: the set is never refused, and loses nothing.
    Errors,
    /// Any damage of this copy: the set is refused only if the other copy is not whole either.
    One(Copy),
    /// Writes of this copy of the log fail, and the other copy is damaged: refused, or right.
    KnownBad(Copy),
    /// Both copies are damaged, in ways that leave a trace: refused, or right.
    Both,
}

/// The world.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes a block.
    pub block_size: u32,
    /// Size of the base.
    pub base_blocks: u64,
    /// The fewest blocks for data that the spare has.
    pub data_blocks: u64,
    /// Whether base and spare have a volatile cache.
    pub volatile: [bool; 2],
    /// Whether the base says so.
    pub admits_cache: bool,
    /// Whether base and spare take UNMAP.
    pub unmap: [bool; 2],
    /// Which errors start a rescue.
    pub remap_on: RemapOn,
    /// When the storm brake trips.
    pub storm_limit: u64,
    /// The longest that a third of an operation takes, on base, spare, and to and from either reactor.
    pub slowness: [u64; 4],
    /// Of a hundred I/Os, how many find no structure at first.
    pub want: u64,
    /// What may be wrong with the metadata.
    pub harm: Harm,
    /// Whether, after the last life, the spare comes back as it was after an earlier one.
    pub older_spare: bool,
}

/// A process, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// Damage that is found when it starts.
    pub damage: Vec<Damage>,
    /// Whether every block is read before anything else is done.
    pub verify: bool,
    /// What hosts and fate do.
    pub ops: Vec<Op>,
    /// Whether the set is closed when all is done.
    pub close: bool,
    /// How it ends; the last one ends in peace.
    pub crash: Option<Crash>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// When the spare was told so often to write or to flush,
    pub commands: u64,
    /// and so many steps of tasks after that; or when there is nothing left to do.
    pub polls: u64,
    /// What is left on base and spare.
    pub cut: [Cut; 2],
}

/// Something that is done.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Who does it: each does one thing after the other.
    pub host: u8,
    /// How long after its last, in microseconds.
    pub wait: u32,
    /// What.
    pub what: What,
}

/// What a bad block fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Reads, until it is written.
    Reads,
    /// Writes.
    Writes,
    /// Both.
    Both,
}

/// Which log or superblock area a fault is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Of this copy.
    One(Copy),
    /// Of both.
    Both,
}

/// Base or spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The base.
    Base,
    /// The spare: its data area.
    Spare,
}

/// What is done, by a host, an operator, or fate.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum What {
    Read {
        lba: u64,
        blocks: u64,
    },
    Write {
        lba: u64,
        blocks: u64,
    },
    Zero {
        lba: u64,
        blocks: u64,
    },
    Unmap {
        lba: u64,
        blocks: u64,
    },
    Flush,
    /// All I/O under way is aborted.
    Reset,
    /// One I/O under way is aborted.
    Abort,
    /// Blocks on the spare are copied back to the base, and given back.
    Remove {
        lba: u64,
        blocks: u64,
    },
    /// Every second block of a range is relocated before it fails, in one commit.
    Import {
        lba: u64,
        blocks: u64,
    },
    /// Blocks are scrubbed, and the metadata.
    Scrub {
        lba: u64,
        blocks: u64,
    },
    Save,
    /// A restore that changes nothing: the spare has to say what the table says.
    Compare,
    /// A restore, with the hosts held back.
    Restore,
    /// The set is erased, which is refused while blocks are remapped.
    Wipe,
    Rearm,
    BadBlock {
        side: Side,
        lba: u64,
        bad: Bad,
    },
    /// An error that goes away; `media` or another one.
    Glitch {
        side: Side,
        verb: Verb,
        lba: u64,
        times: u32,
        media: bool,
        effect: Effect,
    },
    /// Writes of log or superblocks fail.
    Metadata {
        area: Area,
        superblock: bool,
        times: u32,
        effect: Effect,
    },
    /// Flushes fail.
    FlushFails {
        side: Side,
        times: u32,
    },
    /// A page of log or superblock cannot be read any more; or so many times.
    Unreadable {
        copy: Copy,
        superblock: bool,
        pick: u64,
        times: Option<u32>,
    },
    /// Reads of the metadata fail for a moment, for reasons that are not the medium's.
    Trouble {
        copy: Copy,
        superblock: bool,
        pick: u64,
        times: u32,
    },
    /// A copy of log or superblock takes writes, says so, and does something else; or reads what was.
    Lie {
        copy: Copy,
        superblock: bool,
        times: u32,
        effect: Effect,
    },
    /// The spare has so many blocks more.
    Grow {
        blocks: u64,
    },
    /// The spare loses its power, and does not come back before the next life.
    SparePower {
        cut: Cut,
    },
    /// Some bits of a page flip.
    Rot {
        copy: Copy,
        superblock: bool,
        pick: u64,
    },
}

impl Plan {
    /// How much there is of it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lives.iter().map(|life| 1 + life.ops.len() + life.damage.len()).sum()
    }
}
