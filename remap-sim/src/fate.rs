//! What fate does to the disks: bad blocks, glitches, failing metadata, bit rot; and how damage is undone.

use std::ops::Range;

use remap_core::IoStatus;
use remap_core::format::{Copy, Layout};

use super::block::Block;
use super::disk::Disk;
use super::faults::{Effect, Fault, Verb};
use super::medium::Medium;
use super::plan::{Area, Bad, Side, What};
use super::world::World;

/// A block of the metadata that rotted: where, what it was, what it became.
pub(crate) type Rotten = (u64, Block, Block);

/// Names by copy: of log and superblock.
fn name(superblock: bool, copy: Copy, names: [[&'static str; 2]; 2]) -> &'static str {
    names[usize::from(superblock)][copy.index()]
}

const WRITE_ERROR: [[&str; 2]; 2] = [
    ["fault: log A write error", "fault: log B write error"],
    ["fault: superblock A write error", "fault: superblock B write error"],
];
const UNREADABLE: [[&str; 2]; 2] = [
    ["fault: log A unreadable", "fault: log B unreadable"],
    ["fault: superblock A unreadable", "fault: superblock B unreadable"],
];
const ROT: [[&str; 2]; 2] =
    [["fault: log A rot", "fault: log B rot"], ["fault: superblock A rot", "fault: superblock B rot"]];

impl World {
    /// Does what a fault in the plan says; the layout of the spare in force tells what is data.
    pub(crate) fn strike(&self, what: What, layout: Layout) {
        self.follow(layout);
        match what {
            What::BadBlock { side, lba, bad } => self.bad_block(self.place(side, lba, layout), side, bad),
            What::Glitch { side, verb, lba, times, media, effect } => {
                let name = match (side, media) {
                    (Side::Base, true) => "fault: base media glitch",
                    (Side::Base, false) => "fault: base other glitch",
                    (Side::Spare, true) => "fault: spare media glitch",
                    (Side::Spare, false) => "fault: spare other glitch",
                };
                let status = if media { self.media_error(verb) } else { IoStatus::Aborted };
                let (disk, lba) = self.place(side, lba, layout);
                let fault = Fault::new(verb, lba..lba + 1, status).times(times).with_effect(effect);
                self.add(disk, fault.named(name));
            }
            What::Metadata { area, superblock, times, effect } => {
                for copy in Copy::BOTH {
                    if area == Area::Both || area == Area::One(copy) {
                        let (blocks, status) = (self.metadata(superblock, copy), self.media_error(Verb::Write));
                        let fault = Fault::new(Verb::Write, blocks, status).times(times).with_effect(effect);
                        self.add(&self.spare, fault.named(name(superblock, copy, WRITE_ERROR)));
                    }
                }
            }
            What::FlushFails { side, times } => {
                let (disk, name) = match side {
                    Side::Base => (&self.base, "fault: base flush error"),
                    Side::Spare => (&self.spare, "fault: spare flush error"),
                };
                self.add(disk, Fault::of_flush(IoStatus::Failed).times(times).named(name));
            }
            What::Unreadable { copy, superblock, pick, times } => {
                let lba = self.pick(superblock, copy, pick);
                let fault = Fault::new(Verb::Read, lba..lba + 1, self.media_error(Verb::Read)).healed_by_write();
                self.add(&self.spare, Fault { left: times, ..fault }.named(name(superblock, copy, UNREADABLE)));
            }
            What::Trouble { copy, superblock, pick, times } => {
                let lba = self.pick(superblock, copy, pick);
                let status = self.random.pick(&[IoStatus::Aborted, IoStatus::NoMemory, IoStatus::Other(-5)]);
                let fault = Fault::new(Verb::Read, lba..lba + 1, status).times(times);
                self.add(&self.spare, fault.named("fault: metadata read trouble"));
            }
            What::Lie { copy, superblock, times, effect } => {
                let (verb, name) = match effect {
                    Effect::Stale => (Verb::Read, "fault: stale read"),
                    Effect::Lost => (Verb::Write, "fault: write lost"),
                    _ => (Verb::Write, "fault: write misdirected"),
                };
                let blocks = self.metadata(superblock, copy);
                let fault = Fault::new(verb, blocks, IoStatus::Failed).times(times).with_effect(effect);
                self.add(&self.spare, fault.named(name));
            }
            What::Rot { copy, superblock, pick } => {
                let lba = self.pick(superblock, copy, pick);
                self.spoil(|medium| medium.flip(lba, (pick >> 20) as usize % (64 * 8)));
                self.count(name(superblock, copy, ROT));
            }
            What::Grow { blocks } => self.grow(blocks, layout),
            What::SparePower { cut } => {
                self.count("fault: spare without power");
                self.spare.lose_power(cut);
                self.model.borrow_mut().device_lost_power();
            }
            _ => {}
        }
    }

    fn bad_block(&self, (disk, lba): (&Disk, u64), side: Side, bad: Bad) {
        let names = match side {
            Side::Base => ["fault: base bad read", "fault: base bad write"],
            Side::Spare => ["fault: spare bad read", "fault: spare bad write"],
        };
        if bad != Bad::Writes {
            let mut fault = Fault::new(Verb::Read, lba..lba + 1, self.media_error(Verb::Read)).named(names[0]);
            fault.heals = bad == Bad::Reads;
            self.add(disk, fault);
        }
        if bad != Bad::Reads {
            let fault = Fault::new(Verb::Write, lba..lba + 1, self.media_error(Verb::Write));
            self.add(disk, fault.with_effect(Effect::Some).named(names[1]));
        }
    }

    /// Changes what is on the medium of the spare, and remembers what was there. What is in the cache is not touched.
    pub(crate) fn spoil(&self, change: impl FnOnce(&mut Medium)) {
        let (before, seen) = (self.spare.durable(), self.spare.contents());
        self.spare.rot(change);
        let after = self.spare.durable();
        let metadata = Copy::BOTH.map(|copy| [self.metadata(false, copy), self.metadata(true, copy)]);
        for lba in metadata.into_iter().flatten().flatten() {
            let (old, new) = (before.get(lba), after.get(lba));
            // What is there as the cache has it is as good as flushed.
            if old != new && new != seen.get(lba) {
                let rotten = &mut *self.rotten.borrow_mut();
                if !self.spare.note_rotten(lba) {
                    // What it was before it was written is no damage any more.
                    rotten.retain(|one| one.0 != lba);
                }
                rotten.push((lba, old, new));
            }
        }
    }

    /// Undoes all damage of the metadata that can be undone. Returns whether there was any.
    pub(crate) fn undo_damage(&self) -> bool {
        let rotten = std::mem::take(&mut *self.rotten.borrow_mut());
        let mut undone = rotten.iter().any(|rotten| self.spare.is_rotten(rotten.0));
        for (lba, before, after) in rotten.into_iter().rev() {
            if self.spare.is_rotten(lba) && self.spare.block(lba) == after {
                self.spare.rot(|medium| medium.set(lba, before));
            }
        }
        self.spare.faults(|faults| {
            faults.heal(|fault| {
                let metadata = fault.name.contains("log") || fault.name.contains("superblock");
                let passing = ["fault: spare flush error", "fault: metadata read trouble"].contains(&fault.name);
                let heal = (metadata || passing) && fault.left != Some(0);
                undone |= heal;
                heal
            });
        });
        undone
    }

    /// Takes those faults away that come and go.
    pub(crate) fn calm(&self) {
        for disk in [&self.base, &self.spare] {
            disk.faults(|faults| faults.heal(|fault| fault.left.is_some()));
        }
    }

    /// The disk has this fault from now on.
    pub(crate) fn add(&self, disk: &Disk, fault: Fault) {
        disk.fail(Fault { since: self.model.borrow_mut().now(), ..fault });
    }

    /// Media errors as the different kinds of devices report them.
    pub(crate) fn media_error(&self, verb: Verb) -> IoStatus {
        let nvme = if verb == Verb::Read { IoStatus::UNRECOVERED_READ } else { IoStatus::WRITE_FAULT };
        self.random.pick(&[nvme, IoStatus::Scsi { sc: 2, sk: 3, asc: 0x11, ascq: 0 }, IoStatus::Aio(-61)])
    }

    /// A block of data: what a spare that has grown is laid out like is metadata still, in part, until that is in force.
    fn place(&self, side: Side, lba: u64, layout: Layout) -> (&Disk, u64) {
        match side {
            Side::Base => (&self.base, lba),
            Side::Spare => (&self.spare, layout.data_start.0 + lba % u64::from(layout.data_blocks)),
        }
    }

    pub(crate) fn metadata(&self, superblock: bool, copy: Copy) -> Range<u64> {
        let (first, pages) = if superblock {
            (self.layout.get().superblock(copy).0, 1)
        } else {
            (self.layout.get().log[copy].0, 2 * u64::from(self.layout.get().area_pages))
        };
        first..first + pages * self.layout.get().page_blocks()
    }

    /// A block of the metadata: mostly one with something in it.
    fn pick(&self, superblock: bool, copy: Copy, pick: u64) -> u64 {
        let range = self.metadata(superblock, copy);
        let written = self.spare.written(range.clone());
        if written.is_empty() || pick.is_multiple_of(7) {
            range.start + (pick >> 8) % (range.end - range.start)
        } else {
            written[(pick >> 8) as usize % written.len()]
        }
    }
}
