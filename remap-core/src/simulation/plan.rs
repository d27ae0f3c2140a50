//! What happens in a simulation: the plan that a seed stands for. It is plain data, so that it can be made smaller.

use super::disk::Cut;
use super::faults::{Effect, Verb};
use super::random::Random;
use crate::format::Copy;
use crate::status::RemapOn;

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

/// The world.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes a block.
    pub block_size: u32,
    /// Size of the base.
    pub base_blocks: u64,
    /// Size of the spare in pages.
    pub spare_pages: u64,
    /// Whether base and spare have a volatile cache.
    pub volatile: [bool; 2],
    /// Which errors start a rescue.
    pub remap_on: RemapOn,
    /// When the storm brake trips.
    pub storm_limit: u64,
    /// The longest that a third of an operation takes, on base, spare, and between threads.
    pub slowness: [u64; 3],
}

/// A process, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// Whether every block is read before anything else is done.
    pub verify: bool,
    /// What hosts and fate do.
    pub ops: Vec<Op>,
    /// How it ends; the last one ends in peace.
    pub crash: Option<Crash>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// After so many steps of its tasks, or when there is nothing left to do.
    pub polls: u64,
    /// What is left.
    pub cut: Cut,
}

/// Something that is done.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Who does it: each does one thing after the other.
    pub host: u8,
    /// How long after its last.
    pub wait: u16,
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
    Flush,
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
    /// A page of log or superblock cannot be read any more.
    Unreadable {
        copy: Copy,
        superblock: bool,
        pick: u64,
    },
    /// Some bits of a page flip.
    Rot {
        copy: Copy,
        superblock: bool,
        pick: u64,
    },
}

/// What the generator of a plan has decided for all of it.
struct Taste {
    blocks: u64,
    /// Damage of one copy that a crash may meet, or errors of both copies: together they may lose what was acknowledged.
    one_copy: Option<Copy>,
    hosts: u64,
    /// Percent of all that is done.
    fate: u64,
    patience: u64,
    longest: u64,
    hot: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Plan {
        let random = Random::new(seed);
        let long = random.chance(1, 16);
        let blocks = if long { 100 } else { random.pick(&[8, 16, 24, 40, 64]) };
        let block_size = random.pick(&[512, 512, 4096]);
        let config = Config {
            block_size,
            base_blocks: blocks,
            // The superblocks and 65 pages for each area; the rest is for data, and 64 blocks are the least.
            spare_pages: 2 + 4 * 65 + random.pick(&[64, 64, 80]) * u64::from(block_size) / 4096,
            volatile: random.pick(&[[true, true], [true, true], [false, true], [true, false], [false, false]]),
            remap_on: random.pick(&[RemapOn::Media, RemapOn::Any]),
            storm_limit: random.pick(&[4, 100_000, 100_000, 100_000, 100_000, 100_000]),
            slowness: [(); 3].map(|()| random.pick(&[2, 20, 20, 200])),
        };
        let taste = Taste {
            blocks,
            one_copy: random.pick(&[Some(Copy::A), Some(Copy::B), None, None]),
            hosts: 1 + random.below(6),
            fate: random.pick(&[0, 10, 10, 25]),
            patience: random.pick(&[4, 40, 400]),
            longest: random.pick(&[1, 4, 4, 12]).min(blocks),
            hot: random.pick(&[blocks, blocks, 4]),
        };
        let lives = if long { 1 + random.below(3) } else { 2 + random.below(12) };
        let mut plan = Plan { schedule: random.next(), config, lives: Vec::new() };
        for life in 0..=lives {
            let ops = if long { 150 + random.below(300) } else { random.pick(&[0, 6, 15, 40]) + random.below(10) };
            let mut list = Vec::new();
            if life == 0 {
                sick(&mut list, &taste, long, &random);
            }
            list.extend((0..ops).map(|_| taste.op(&random)));
            let polls = match random.below(4) {
                0 => random.below(260),
                _ => 60 + random.below(80 + ops * 24),
            };
            let cut =
                random.pick(&[Cut::Kill, Cut::Kill, Cut::PowerNothing, Cut::PowerSome, Cut::PowerSome, Cut::PowerAll]);
            let crash = (life < lives).then_some(Crash { polls, cut });
            plan.lives.push(Life { verify: random.chance(1, 3), ops: list, crash });
        }
        plan
    }

    /// How much there is of it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lives.iter().map(|life| 1 + life.ops.len()).sum()
    }
}

/// Blocks that are bad from the beginning.
fn sick(list: &mut Vec<Op>, taste: &Taste, long: bool, random: &Random) {
    let percent = if long { 90 } else { random.pick(&[0, 10, 50, 95]) };
    for lba in 0..taste.blocks {
        if random.chance(percent, 100) {
            let bad = random.pick(&[Bad::Reads, Bad::Writes, Bad::Both, Bad::Both]);
            list.push(Op { host: 0, wait: 0, what: What::BadBlock { side: Side::Base, lba, bad } });
        }
    }
}

impl Taste {
    fn op(&self, random: &Random) -> Op {
        let wait = random.below(self.patience) as u16;
        if random.chance(self.fate, 100) {
            return Op { host: 0, wait, what: self.fate(random) };
        }
        let blocks = 1 + random.below(self.longest);
        let lba = random.below(self.hot).min(self.blocks - blocks);
        let what = match random.below(100) {
            0..25 => What::Read { lba, blocks },
            25..70 => What::Write { lba, blocks },
            70..78 => What::Zero { lba, blocks },
            78..93 => What::Flush,
            93..97 => What::Save,
            97 => What::Compare,
            98 => What::Restore,
            _ if random.chance(1, 3) => What::Wipe,
            _ => What::Rearm,
        };
        Op { host: 1 + random.below(self.hosts) as u8, wait, what }
    }

    fn fate(&self, random: &Random) -> What {
        let side = random.pick(&[Side::Base, Side::Base, Side::Spare]);
        let lba = random.below(self.blocks);
        let effect = random.pick(&[Effect::Nothing, Effect::Some, Effect::Everything]);
        let times = random.pick(&[1, 1, 2, 3, 20]);
        let superblock = random.chance(1, 4);
        match (random.below(10), self.one_copy) {
            (0..3, _) => What::BadBlock { side, lba, bad: random.pick(&[Bad::Reads, Bad::Writes, Bad::Both]) },
            (3..6, _) => {
                let verb = random.pick(&[Verb::Read, Verb::Write, Verb::Write]);
                What::Glitch { side, verb, lba, times, media: random.chance(3, 4), effect }
            }
            (6..8, None) => {
                let area = random.pick(&[Area::One(Copy::A), Area::One(Copy::B), Area::Both, Area::Both]);
                What::Metadata { area, superblock, times, effect }
            }
            (_, None) => What::FlushFails { side, times: times.min(3) },
            (6, Some(copy)) => What::Metadata { area: Area::One(copy), superblock, times, effect },
            (7, Some(copy)) => What::Unreadable { copy, superblock, pick: random.next() },
            (_, Some(copy)) => What::Rot { copy, superblock, pick: random.next() },
        }
    }
}
