//! What fate does to the disks: bad blocks, glitches, failing metadata, bit rot; and how damage is undone.

use super::block::Block;
use super::disk::Disk;
use super::faults::{Effect, Fault, Verb};
use super::plan::{Area, Bad, Side, What};
use super::world::World;
use crate::format::Copy;
use crate::status::IoStatus;

/// A block of the metadata that rotted: where, what it was, what it became.
pub(super) type Rotten = (u64, Block, Block);

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
    /// Does what a fault in the plan says.
    pub(super) fn strike(&self, what: What) {
        match what {
            What::BadBlock { side, lba, bad } => self.bad_block(side, lba, bad),
            What::Glitch { side, verb, lba, times, media, effect } => {
                let name = match (side, media) {
                    (Side::Base, true) => "fault: base media glitch",
                    (Side::Base, false) => "fault: base other glitch",
                    (Side::Spare, true) => "fault: spare media glitch",
                    (Side::Spare, false) => "fault: spare other glitch",
                };
                let status = if media { self.media_error(verb) } else { IoStatus::Aborted };
                let (disk, lba) = self.place(side, lba);
                self.add(disk, name, (verb, lba, lba + 1), Some(times), status, effect, false);
            }
            What::Metadata { area, superblock, times, effect } => {
                for copy in Copy::BOTH {
                    if area == Area::Both || area == Area::One(copy) {
                        let (first, end) = self.metadata(superblock, copy);
                        let status = self.media_error(Verb::Write);
                        let name = name(superblock, copy, WRITE_ERROR);
                        self.add(&self.spare, name, (Verb::Write, first, end), Some(times), status, effect, false);
                    }
                }
            }
            What::FlushFails { side, times } => {
                let (disk, name) = match side {
                    Side::Base => (&self.base, "fault: base flush error"),
                    Side::Spare => (&self.spare, "fault: spare flush error"),
                };
                self.add(disk, name, (Verb::Flush, 0, 0), Some(times), IoStatus::Failed, Effect::Nothing, false);
            }
            What::Unreadable { copy, superblock, pick } => {
                let lba = self.pick(superblock, copy, pick);
                let name = name(superblock, copy, UNREADABLE);
                let status = self.media_error(Verb::Read);
                self.add(&self.spare, name, (Verb::Read, lba, lba + 1), None, status, Effect::Nothing, true);
            }
            What::Rot { copy, superblock, pick } => {
                let lba = self.pick(superblock, copy, pick);
                let before = self.spare.durable(lba);
                let mut bytes = before.as_deref().map_or_else(|| vec![0; self.block_size()], <[u8]>::to_vec);
                let bit = (pick >> 20) as usize % (64 * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let after: Block = bytes.iter().any(|byte| *byte != 0).then(|| bytes.into());
                self.spare.rot(lba, after.clone());
                self.rotten.borrow_mut().push((lba, before, after));
                self.count(name(superblock, copy, ROT));
            }
            _ => {}
        }
    }

    fn bad_block(&self, side: Side, lba: u64, bad: Bad) {
        let (disk, lba) = self.place(side, lba);
        let names = match side {
            Side::Base => ["fault: base bad read", "fault: base bad write"],
            Side::Spare => ["fault: spare bad read", "fault: spare bad write"],
        };
        if bad != Bad::Writes {
            let status = self.media_error(Verb::Read);
            self.add(disk, names[0], (Verb::Read, lba, lba + 1), None, status, Effect::Nothing, bad == Bad::Reads);
        }
        if bad != Bad::Reads {
            let status = self.media_error(Verb::Write);
            self.add(disk, names[1], (Verb::Write, lba, lba + 1), None, status, Effect::Some, false);
        }
    }

    /// Undoes all damage of the metadata that can be undone. Returns whether there was any.
    pub(super) fn undo_damage(&self) -> bool {
        let rotten = std::mem::take(&mut *self.rotten.borrow_mut());
        let mut undone = !rotten.is_empty();
        for (lba, before, after) in rotten.into_iter().rev() {
            if self.spare.durable(lba) == after {
                self.spare.rot(lba, before);
            }
        }
        self.spare.faults(|faults| {
            faults.heal(|fault| {
                let metadata = fault.name.contains("log") || fault.name.contains("superblock");
                let heal = metadata || fault.name == "fault: spare flush error";
                undone |= heal;
                heal
            });
        });
        undone
    }

    /// Takes those faults away that come and go.
    pub(super) fn calm(&self) {
        for disk in [&self.base, &self.spare] {
            disk.faults(|faults| faults.heal(|fault| fault.left.is_some()));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        disk: &Disk,
        name: &'static str,
        (verb, first, end): (Verb, u64, u64),
        left: Option<u32>,
        status: IoStatus,
        effect: Effect,
        heals: bool,
    ) {
        let since = self.model.borrow_mut().now();
        disk.faults(|faults| faults.add(Fault { name, verb, first, end, left, status, effect, heals, since }));
    }

    /// Media errors as the different kinds of devices report them.
    fn media_error(&self, verb: Verb) -> IoStatus {
        let nvme = if verb == Verb::Read { IoStatus::UNRECOVERED_READ } else { IoStatus::WRITE_FAULT };
        self.random.pick(&[nvme, IoStatus::Scsi { sc: 2, sk: 3, asc: 0x11, ascq: 0 }, IoStatus::Aio(-61)])
    }

    fn place(&self, side: Side, lba: u64) -> (&Disk, u64) {
        match side {
            Side::Base => (&self.base, lba),
            Side::Spare => (&self.spare, self.layout.data_start + lba % u64::from(self.layout.data_blocks)),
        }
    }

    fn metadata(&self, superblock: bool, copy: Copy) -> (u64, u64) {
        let (first, pages) = if superblock {
            (self.layout.superblock(copy), 1)
        } else {
            (self.layout.areas[copy.index()][0], 2 * u64::from(self.layout.area_pages))
        };
        (first, first + pages * self.layout.page_blocks())
    }

    /// A block of the metadata: mostly one with something in it.
    fn pick(&self, superblock: bool, copy: Copy, pick: u64) -> u64 {
        let (first, end) = self.metadata(superblock, copy);
        let written = self.spare.written(first, end);
        if written.is_empty() || pick.is_multiple_of(7) {
            first + (pick >> 8) % (end - first)
        } else {
            written[(pick >> 8) as usize % written.len()]
        }
    }
}
