//! The generator of plans: what a seed stands for.

use remap_core::RemapOn;
use remap_core::format::Copy;

use super::damage::{Damage, Place, Wound};
use super::faults::{Effect, Verb};
use super::plan::{Area, Bad, Config, Crash, Harm, Life, Op, Plan, Side, What};
use super::random::Random;
use super::store::Cut;

/// The longest wait, in microseconds: notes, back-off and summaries come in between.
const QUIET: u64 = 3_000_000;

/// The shape of a simulation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Ordinary,
    /// Few lives, each with much to do: log areas get full.
    Long,
    /// More records than a page takes: batches and checkpoints of two or three pages.
    Medium,
    /// Checkpoints of more pages than are written at once.
    Large,
    /// A few blocks, errors of both copies, and a base that fails for a moment only: what is in doubt is written again.
    Doubt,
    /// Writes of the superblocks fail that could not be read.
    Superblocks,
    /// Spare blocks are given free, and used again at once, as there are few.
    Reuse,
    /// A page is only in copy A when a crash comes, is not seen while others are written, and then is.
    Attempts,
    /// Blocks cannot be read for a while, and are scrubbed while hosts write them.
    Scrub,
}

/// What is decided for all of a plan.
struct Taste {
    shape: Shape,
    blocks: u64,
    harm: Harm,
    hosts: u64,
    /// Percent of all that is done.
    fate: u64,
    patience: u64,
    longest: u64,
    hot: u64,
    removes: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Plan {
        let random = Random::new(seed);
        let shape = match random.below(64) {
            0 => Shape::Large,
            1..7 => Shape::Medium,
            7..10 => Shape::Long,
            10..14 => Shape::Doubt,
            14..17 => Shape::Superblocks,
            17..22 => Shape::Reuse,
            22..24 => Shape::Attempts,
            24..27 => Shape::Scrub,
            _ => Shape::Ordinary,
        };
        let harms = [
            Harm::Errors,
            Harm::Errors,
            Harm::One(Copy::A),
            Harm::One(Copy::B),
            Harm::KnownBad(Copy::A),
            Harm::KnownBad(Copy::B),
            Harm::Both,
        ];
        let harm = match shape {
            Shape::Doubt | Shape::Reuse | Shape::Scrub => Harm::Errors,
            Shape::Superblocks => Harm::One(random.pick(&Copy::BOTH)),
            // The copy that is written first.
            Shape::Attempts => Harm::One(Copy::A),
            _ => random.pick(&harms),
        };
        let mut plan = Plan::of(&random, shape, harm);
        plan.grow_spare(seed);
        plan
    }

    /// A history, and damage of one copy, or of both, that is found at its end.
    #[must_use]
    pub fn with_damage(seed: u64, both: bool) -> Plan {
        let random = Random::new(!seed);
        let copy = random.pick(&Copy::BOTH);
        let shape = if random.chance(1, 8) { Shape::Medium } else { Shape::Ordinary };
        let mut plan = Plan::of(&random, shape, if both { Harm::Both } else { Harm::One(copy) });
        plan.config.older_spare = false;
        plan.lives.truncate(1 + random.below(2) as usize);
        for life in &mut plan.lives {
            life.damage.clear();
            let metadata = |what: &What| {
                matches!(what, What::Metadata { .. } | What::Unreadable { .. } | What::Lie { .. } | What::Rot { .. })
            };
            life.ops.retain(|op| !metadata(&op.what) && !matches!(op.what, What::Wipe | What::SparePower { .. }));
            life.crash.get_or_insert(Crash { commands: u64::MAX, polls: 0, cut: [Cut::Kill; 2] });
        }
        let copies: &[Copy] = if both { &Copy::BOTH } else { &[copy] };
        let place = Place::any(&random);
        let damage = copies.iter().map(|copy| {
            let place = if random.chance(1, 2) { place } else { Place::any(&random) };
            Damage { copy: *copy, place, wound: Wound::any(&random), pick: random.next() }
        });
        plan.lives.push(Life { damage: damage.collect(), verify: true, ops: Vec::new(), close: false, crash: None });
        plan
    }

    fn of(random: &Random, shape: Shape, harm: Harm) -> Plan {
        let blocks = match shape {
            Shape::Large => 17_000,
            Shape::Medium => random.pick(&[600, 1200]),
            Shape::Long => 100,
            Shape::Doubt => 8,
            Shape::Reuse => 80,
            Shape::Scrub => 24,
            _ => random.pick(&[8, 16, 24, 40, 64]),
        };
        let many = matches!(shape, Shape::Large | Shape::Medium);
        let volatile = random.pick(&[[true, true], [true, true], [false, true], [true, false], [false, false]]);
        let slow = |random: &Random| random.pick(&[2, 20, 20, 200]);
        let config = Config {
            block_size: if many { 4096 } else { random.pick(&[512, 512, 520, 4096, 4096, 8192]) },
            base_blocks: blocks,
            data_blocks: if many {
                blocks * 9 / 16
            } else if shape == Shape::Reuse {
                64
            } else {
                random.pick(&[64, 64, 80])
            },
            volatile,
            admits_cache: volatile[0] && random.chance(1, 2),
            unmap: [(); 2].map(|()| random.chance(3, 4)),
            remap_on: random.pick(&[RemapOn::Media, RemapOn::Any]),
            storm_limit: if many || shape == Shape::Reuse {
                100_000
            } else {
                random.pick(&[4, 100_000, 100_000, 100_000, 100_000, 100_000])
            },
            // An answer that comes too soon must not take longer than what it should have waited for.
            slowness: match shape {
                Shape::Medium | Shape::Reuse => [2, 200, 2, 2],
                Shape::Scrub => [200, 20, 2, 2],
                _ => [(); 4].map(|()| slow(random)),
            },
            want: random.pick(&[0, 0, 5, 30]),
            harm,
            older_spare: random.chance(1, 16) && !many,
        };
        let longest = match shape {
            Shape::Large => 64,
            Shape::Medium => blocks,
            _ => random.pick(&[1, 4, 4, 12]).min(blocks),
        };
        let taste = Taste {
            shape,
            blocks,
            harm,
            hosts: if matches!(shape, Shape::Reuse | Shape::Scrub) { 6 } else { 1 + random.below(6) },
            fate: match shape {
                Shape::Doubt | Shape::Superblocks => 40,
                Shape::Attempts => 0,
                Shape::Scrub => 25,
                _ => random.pick(&[0, 10, 10, 25]),
            },
            patience: random.pick(&[4, 40, 400]),
            longest,
            hot: if shape == Shape::Reuse { blocks } else { random.pick(&[blocks, blocks, 4]) },
            removes: shape == Shape::Reuse || random.chance(1, 2),
        };
        let lives = match shape {
            Shape::Large => 1 + random.below(2),
            Shape::Long | Shape::Reuse | Shape::Scrub => 1 + random.below(3),
            Shape::Medium => 2 + random.below(3),
            Shape::Attempts => 3,
            _ => 2 + random.below(12),
        };
        let mut plan = Plan { schedule: random.next(), config, lives: Vec::new() };
        for life in 0..=lives {
            let life = taste.life(life, life < lives, random);
            plan.lives.push(life);
        }
        if shape == Shape::Attempts {
            taste.attempts(&mut plan.lives, random);
        }
        plan
    }
}

impl Taste {
    fn life(&self, number: u64, crashes: bool, random: &Random) -> Life {
        let many = matches!(self.shape, Shape::Large | Shape::Medium);
        let ops = match self.shape {
            Shape::Long | Shape::Reuse | Shape::Scrub => 150 + random.below(300),
            Shape::Medium | Shape::Large => 3 + random.below(10),
            _ => random.pick(&[0, 6, 15, 40]) + random.below(10),
        };
        let mut list = Vec::new();
        if number == 0 {
            self.sick(&mut list, random);
        }
        if self.shape == Shape::Reuse {
            list.push(Op { host: 1, wait: 0, what: What::Import { lba: 0, blocks: self.blocks } });
            list.push(Op { host: 1, wait: 0, what: What::Import { lba: 1, blocks: 46 } });
        }
        if many && (number == 0 || random.chance(1, 4)) {
            let host = 1 + random.below(self.hosts) as u8;
            list.push(Op { host, wait: 0, what: What::Import { lba: 0, blocks: self.blocks } });
        }
        list.extend((0..ops).map(|_| self.op(random)));
        let polls = match random.below(4) {
            0 => random.below(260),
            _ => 60 + random.below(80 + ops * 24 + if many { 2000 } else { 0 }),
        };
        // Half of them while the metadata is written.
        let (commands, polls) = if random.chance(1, 2) {
            let more = if self.shape == Shape::Large { 200 } else { 0 };
            (1 + random.below(10 + ops * 4 + more), random.below(8))
        } else {
            (0, polls)
        };
        let cut = |random: &Random| random.pick(&[Cut::PowerNothing, Cut::PowerSome, Cut::PowerSome, Cut::PowerAll]);
        let cut = match random.below(8) {
            0..3 => [Cut::Kill; 2],
            3 => [cut(random), Cut::Kill],
            4 => [Cut::Kill, cut(random)],
            _ => [cut(random); 2],
        };
        let damage = if number > 0 && random.chance(1, 2) { self.damage(random) } else { Vec::new() };
        Life {
            damage,
            verify: random.chance(1, 3),
            ops: list,
            close: random.chance(1, 4),
            crash: crashes.then_some(Crash { commands, polls, cut }),
        }
    }

    /// Damage that is found at a start.
    fn damage(&self, random: &Random) -> Vec<Damage> {
        let damage = |copy, place, wound| Damage { copy, place, wound, pick: random.next() };
        match self.harm {
            Harm::Errors => Vec::new(),
            Harm::One(copy) if self.shape == Shape::Superblocks => {
                let wound = if random.chance(2, 3) { Wound::Hidden } else { Wound::any(random) };
                vec![damage(copy, Place::Superblock, wound)]
            }
            Harm::One(copy) => vec![damage(copy, Place::any(random), Wound::any(random))],
            Harm::KnownBad(copy) => {
                let other = if copy == Copy::A { Copy::B } else { Copy::A };
                vec![damage(other, Place::of_log(random), Wound::any(random))]
            }
            Harm::Both => {
                let place = random.pick(&[Place::Last, Place::Last, Place::First, Place::Any]);
                let wound = |random: &Random| match Wound::traced(random) {
                    Wound::Hidden => Wound::Unreadable,
                    other => other,
                };
                Copy::BOTH.map(|copy| damage(copy, place, wound(random))).to_vec()
            }
        }
    }

    /// What happens around a page that is only in copy A: of an attempt at a checkpoint where something is hidden, of a commit, or a
    /// superblock. It is not seen at the next start.
    fn attempts(&self, lives: &mut [Life], random: &Random) {
        let (Harm::One(copy), [_, attempt, others, then]) = (self.harm, lives) else { return };
        let damage = |place, wound, pick| vec![Damage { copy, place, wound, pick }];
        let import = || Op { host: 1, wait: 0, what: What::Import { lba: random.below(2), blocks: self.blocks - 1 } };
        let crash = |first, commands, polls| {
            Some(Crash { commands: first + random.below(commands), polls: random.below(polls), cut: [Cut::Kill; 2] })
        };
        then.damage.clear();
        let place = match random.below(3) {
            0 => {
                attempt.damage = damage(random.pick(&[Place::First, Place::Any]), Wound::Hidden, random.next());
                attempt.crash = crash(4, 6, 8);
                Place::First
            }
            1 => {
                attempt.damage.clear();
                attempt.ops.insert(0, import());
                attempt.crash = crash(6, 30, 8);
                Place::Last
            }
            _ => {
                attempt.damage.clear();
                attempt.crash = crash(6, 4, 8);
                others.damage = damage(Place::Superblock, Wound::Garbage, random.next());
                others.crash = crash(6, 10, 8);
                // As the attempt left it: of three states the second.
                then.damage = damage(Place::Superblock, Wound::Stale, 1);
                return;
            }
        };
        others.damage = damage(place, Wound::Outdated, random.next());
        others.crash = crash(20, 1, 1000);
        if place == Place::Last && random.chance(1, 2) {
            // Hosts go on, and nothing is committed.
            return;
        }
        let what = What::Metadata { area: Area::One(copy), superblock: false, times: 20, effect: Effect::Nothing };
        others.ops.splice(0..0, [Op { host: 0, wait: 0, what }, import()]);
    }

    /// Blocks that are bad from the beginning.
    fn sick(&self, list: &mut Vec<Op>, random: &Random) {
        let percent = match self.shape {
            Shape::Long => 90,
            Shape::Doubt | Shape::Large | Shape::Reuse | Shape::Scrub => 0,
            Shape::Medium => 30,
            _ => random.pick(&[0, 10, 50, 95]),
        };
        // More of the spare than a relocation tries.
        let spare = if random.chance(1, 32) { 10 + random.below(20) } else { 0 };
        for lba in 0..spare {
            list.push(Op { host: 0, wait: 0, what: What::BadBlock { side: Side::Spare, lba, bad: Bad::Writes } });
        }
        for lba in 0..self.blocks {
            if random.chance(percent, 100) {
                let bad = random.pick(&[Bad::Reads, Bad::Writes, Bad::Both, Bad::Both]);
                list.push(Op { host: 0, wait: 0, what: What::BadBlock { side: Side::Base, lba, bad } });
            }
        }
    }

    fn op(&self, random: &Random) -> Op {
        let quiet = random.chance(1, 50);
        let wait = random.below(if quiet { QUIET } else { self.patience }) as u32;
        if random.chance(self.fate, 100) {
            return Op { host: 0, wait, what: self.fate(random) };
        }
        let blocks = 1 + random.below(self.longest);
        let lba = random.below(self.hot).min(self.blocks - blocks);
        let few = blocks.min(8);
        if self.shape == Shape::Reuse && random.chance(1, 4) {
            let what = random.pick(&[What::Remove { lba, blocks: few }, What::Import { lba, blocks: few }]);
            return Op { host: 1 + random.below(self.hosts) as u8, wait, what };
        }
        if self.shape == Shape::Scrub && random.chance(1, 8) {
            return Op {
                host: 1 + random.below(self.hosts) as u8,
                wait,
                what: What::Scrub { lba: 0, blocks: self.blocks },
            };
        }
        let what = match random.below(100) {
            0..24 => What::Read { lba, blocks },
            24..66 => What::Write { lba, blocks },
            66..73 => What::Zero { lba, blocks },
            73..76 => What::Unmap { lba, blocks },
            76..88 => What::Flush,
            88..91 => What::Save,
            91..96 if self.removes => What::Remove { lba, blocks: few },
            91 => What::Import { lba, blocks: few },
            92..96 => What::Read { lba, blocks },
            96 => What::Compare,
            97 => What::Restore,
            98 => random.pick(&[What::Reset, What::Abort, What::Abort]),
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
        if self.shape == Shape::Doubt && random.chance(1, 2) {
            return What::Glitch { side: Side::Base, verb: Verb::Write, lba, times: 1, media: true, effect };
        }
        if self.shape == Shape::Scrub && random.chance(1, 2) {
            // Some of them are over when a scrub has found them.
            let times = 2 + random.below(8) as u32;
            return What::Glitch { side: Side::Base, verb: Verb::Read, lba, times, media: true, effect };
        }
        match random.below(20) {
            0..6 => What::BadBlock { side, lba, bad: random.pick(&[Bad::Reads, Bad::Writes, Bad::Both]) },
            6..11 => {
                let verb = random.pick(&[Verb::Read, Verb::Write, Verb::Write]);
                What::Glitch { side, verb, lba, times, media: random.chance(3, 4), effect }
            }
            11 => {
                // A flush of the spare that fails is an error of either copy.
                let side = if matches!(self.harm, Harm::One(_)) { Side::Base } else { side };
                What::FlushFails { side, times: times.min(3) }
            }
            12 if random.chance(1, 4) => {
                What::SparePower { cut: random.pick(&[Cut::PowerNothing, Cut::PowerSome, Cut::PowerAll]) }
            }
            12 | 13 => {
                let (copy, superblock) = (random.pick(&Copy::BOTH), random.chance(1, 4));
                What::Trouble { copy, superblock, pick: random.next(), times: times.min(3) }
            }
            _ => self.metadata(times, effect, random),
        }
    }

    fn metadata(&self, times: u32, effect: Effect, random: &Random) -> What {
        let superblock = random.chance(if self.shape == Shape::Superblocks { 9 } else { 3 }, 12);
        let pick = random.next();
        match self.harm {
            Harm::Errors | Harm::Both => {
                let area = random.pick(&[Area::One(Copy::A), Area::One(Copy::B), Area::Both, Area::Both]);
                let superblock = superblock && self.harm == Harm::Errors;
                What::Metadata { area, superblock, times, effect }
            }
            Harm::KnownBad(copy) => {
                let times = random.pick(&[1, 20, 400]);
                What::Metadata { area: Area::One(copy), superblock: false, times, effect }
            }
            Harm::One(copy) => match random.below(10) {
                0..3 => What::Metadata { area: Area::One(copy), superblock, times, effect },
                3 => What::Unreadable { copy, superblock, pick, times: None },
                // Where superblocks fail, what has lied is no excuse.
                6 if self.shape == Shape::Superblocks => What::Unreadable { copy, superblock, pick, times: Some(1) },
                4 | 5 => What::Unreadable { copy, superblock, pick, times: Some(times.min(3)) },
                6 => {
                    let by = (random.below(9) as i64 - 4) * 8;
                    let misdirected = Effect::Misdirected { by, instead: random.chance(1, 2) };
                    let effect = random.pick(&[Effect::Lost, Effect::Lost, Effect::Stale, misdirected]);
                    What::Lie { copy, superblock: superblock && effect != misdirected, times, effect }
                }
                _ => What::Rot { copy, superblock, pick },
            },
        }
    }
}
