//! Damage of whole pages of the metadata, as it is found when a process starts.

use std::collections::BTreeMap;
use std::ops::Range;

use remap_core::IoStatus;
use remap_core::format::{Area, Copy, PageAt, PageContent, PageOwner, Superblock, SuperblockContent, decode_page};

use super::block::block_of;
use super::faults::{Effect, Fault, Verb};
use super::medium::Medium;
use super::random::Random;
use super::world::World;

/// Damage of one copy.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// Of which copy.
    pub copy: Copy,
    /// Where.
    pub place: Place,
    /// What became of it.
    pub wound: Wound,
    /// Decides the rest.
    pub pick: u64,
}

/// Which pages are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The last page of the log.
    Last,
    /// The first page of a log area.
    First,
    /// Some page of the log.
    Any,
    /// Some of the pages of the log.
    Many,
    /// All of the log.
    Log,
    /// The superblock.
    Superblock,
    /// All of the copy, the superblock too.
    Everything,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wound {
    /// A bit flipped.
    Flipped,
    /// Zeros.
    Zeroed,
    /// Anything.
    Garbage,
    /// Its contents and those of another page of the copy are in each other's place.
    Swapped,
    /// What was there earlier: writes that were acknowledged were lost.
    Stale,
    /// What was written to another place, of either copy.
    Misdirected,
    /// It cannot be read.
    Unreadable,
    /// It cannot be read for a while.
    Hidden,
    /// What was there earlier is read for a while.
    Outdated,
}

impl Place {
    pub(crate) fn any(random: &Random) -> Place {
        random.pick(&[
            Place::Last,
            Place::Last,
            Place::First,
            Place::Any,
            Place::Many,
            Place::Superblock,
            Place::Everything,
        ])
    }

    pub(crate) fn of_log(random: &Random) -> Place {
        random.pick(&[Place::Last, Place::Last, Place::First, Place::Any, Place::Many, Place::Log])
    }
}

impl Wound {
    pub(crate) fn any(random: &Random) -> Wound {
        let untraced = [Wound::Zeroed, Wound::Stale, Wound::Swapped];
        if random.chance(3, 7) { random.pick(&untraced) } else { Wound::traced(random) }
    }

    pub(crate) fn traced(random: &Random) -> Wound {
        random.pick(&[Wound::Flipped, Wound::Garbage, Wound::Misdirected, Wound::Unreadable, Wound::Hidden])
    }

    /// Whether nothing may tell that anything was there; what a page is swapped with may be zeros.
    fn is_untraced(self) -> bool {
        matches!(self, Wound::Zeroed | Wound::Stale | Wound::Swapped)
    }

    fn name(self) -> &'static str {
        match self {
            Wound::Flipped => "damage: bit flipped",
            Wound::Zeroed => "damage: zeroed",
            Wound::Garbage => "damage: garbage",
            Wound::Swapped => "damage: swapped",
            Wound::Stale => "damage: stale",
            Wound::Misdirected => "damage: misdirected",
            Wound::Unreadable => "damage: unreadable",
            Wound::Hidden => "damage: unreadable for a while",
            Wound::Outdated => "damage: outdated for a while",
        }
    }
}

/// Whether what is lost may be lost without being noticed: both copies are damaged, and in one of the two nothing tells
/// that anything was there.
pub(crate) fn may_lose(damage: &[Damage]) -> bool {
    let of = |copy| damage.iter().filter(move |one| one.copy == copy);
    let untraced = damage.iter().any(|one| one.wound.is_untraced());
    Copy::BOTH.iter().all(|copy| of(*copy).count() > 0) && untraced
}

impl World {
    /// Does the damage, and remembers what was there.
    pub(crate) fn wound(&self, damage: &Damage) {
        let pages = self.wounded(damage);
        if pages.is_empty() {
            return;
        }
        self.count(damage.wound.name());
        if damage.place == Place::Everything {
            self.count("damage: of all of a copy");
        }
        let contents = self.spare.contents();
        for (number, page) in (0..).zip(&pages) {
            let random = Random::new(damage.pick.wrapping_add(number));
            self.note(|| format!("fate: page at {} of copy {} {:?}", page.start, damage.copy.name(), damage.wound));
            self.wound_page(page.clone(), damage, &contents, &random);
        }
    }

    /// What the set was loaded without does not come back: no checkpoint may have made it void, as both copies fail.
    pub(crate) fn settle_damage(&self) {
        self.rotten.borrow_mut().clear();
        let mut gone = Vec::new();
        self.spare.faults(|faults| {
            faults.heal(|fault| {
                // One that is over hides nothing any more.
                let unreadable = fault.name.ends_with("unreadable") && fault.left != Some(0);
                gone.extend((fault.first..fault.end).filter(|_| unreadable));
                unreadable
            });
        });
        let garbage = block_of(&vec![0xA5; self.layout.get().block_size as usize]);
        self.spare.rot(|medium| gone.into_iter().for_each(|lba| medium.set(lba, garbage.clone())));
    }

    fn wounded(&self, damage: &Damage) -> Vec<Range<u64>> {
        let size = self.layout.get().page_blocks();
        let page = |start: u64| start..start + size;
        let superblock = page(self.layout.get().superblock(damage.copy).0);
        let written = self.written_pages(damage.copy);
        let nth = |pages: &[u64]| pages.get((damage.pick >> 8) as usize % pages.len().max(1)).copied().map(page);
        let start = self.layout.get().log[damage.copy].0;
        let firsts = [start, start + self.layout.get().area_blocks()];
        match damage.place {
            Place::Last => self.last_page(damage.copy).map(page).into_iter().collect(),
            Place::First => vec![page(firsts[(damage.pick & 1) as usize])],
            Place::Any => nth(&written).into_iter().collect(),
            Place::Many => {
                let random = Random::new(damage.pick);
                written.into_iter().filter(|_| random.chance(1, 3)).map(page).collect()
            }
            Place::Log => written.into_iter().map(page).collect(),
            Place::Superblock => vec![superblock],
            Place::Everything => written.into_iter().map(page).chain([superblock]).collect(),
        }
    }

    fn wound_page(&self, page: Range<u64>, damage: &Damage, contents: &Medium, random: &Random) {
        let written = self.written_pages(damage.copy);
        let other = if written.is_empty() { page.start } else { random.pick(&written) };
        let from = |start: u64| (start..).zip(page.clone()).map(|(from, _)| contents.get(from)).collect::<Vec<_>>();
        let size = self.layout.get().block_size as usize;
        match damage.wound {
            Wound::Flipped => {
                // Mostly in the bytes that are in use.
                let bit = random.below(random.pick(&[96 * 8, size as u64 * 8])) as usize;
                self.spoil(|medium| medium.flip(page.start, bit));
            }
            Wound::Zeroed => self.spoil(|medium| medium.clear(page.start, page.end - page.start)),
            Wound::Garbage => {
                let garbage = |_| block_of(&(0..size).map(|_| random.below(256) as u8).collect::<Vec<_>>());
                let blocks: Vec<_> = page.clone().map(garbage).collect();
                self.spoil(|medium| page.zip(blocks).for_each(|(lba, block)| medium.set(lba, block)));
            }
            Wound::Swapped => {
                let (here, there) = (from(page.start), from(other));
                self.spoil(|medium| {
                    page.zip(there).for_each(|(lba, block)| medium.set(lba, block));
                    (other..).zip(here).for_each(|(lba, block)| medium.set(lba, block));
                });
            }
            Wound::Misdirected => {
                let away = self.written_pages(if random.chance(1, 2) { Copy::A } else { Copy::B });
                let there = from(if away.is_empty() { other } else { random.pick(&away) });
                self.spoil(|medium| page.zip(there).for_each(|(lba, block)| medium.set(lba, block)));
            }
            Wound::Stale => {
                let past = self.past.borrow();
                let Some(past) = past.get(damage.pick as usize % past.len().max(1)) else { return };
                self.spoil(|medium| page.for_each(|lba| medium.set(lba, past.get(lba))));
            }
            Wound::Outdated => {
                self.lied.set(true);
                let fault = Fault::new(Verb::Read, page, IoStatus::Failed).times(1 + random.below(3) as u32);
                // From the first look at it on, or from when it is read again.
                let fault = fault.after(random.below(2) as u32).with_effect(Effect::Stale);
                self.add(&self.spare, fault.named("fault: stale read"));
            }
            Wound::Unreadable | Wound::Hidden => {
                // A page of the log is read with others each time, and then alone.
                let superblock = page.start == self.layout.get().superblock(damage.copy).0;
                let times = (1 + random.below(3) as u32) * if superblock { 1 } else { 2 };
                let left = (damage.wound == Wound::Hidden).then_some(times);
                let written = page.clone();
                let name = if superblock { "fault: superblock unreadable" } else { "fault: log unreadable" };
                for lba in page {
                    let fault = Fault::new(Verb::Read, lba..lba + 1, self.media_error(Verb::Read));
                    self.add(&self.spare, Fault { left, ..fault.healed_by_write().named(name) });
                }
                if damage.wound == Wound::Hidden && random.chance(1, 2) {
                    // Nor can it be written.
                    let fault = Fault::new(Verb::Write, written, self.media_error(Verb::Write)).times(times);
                    self.add(&self.spare, fault.named("fault: page write error"));
                }
            }
        }
    }

    /// The page of a copy of the log that was written last.
    fn last_page(&self, copy: Copy) -> Option<u64> {
        let contents = self.spare.contents();
        self.written_pages(copy).into_iter().max_by_key(|page| {
            let block = contents.block(*page);
            let number = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap_or_default());
            (number(48), number(56))
        })
    }

    /// The pages of a copy of the log that have something on them.
    fn written_pages(&self, copy: Copy) -> Vec<u64> {
        let mut pages: Vec<_> = self.spare.contents().written(self.metadata(false, copy)).map(|(lba, _)| lba).collect();
        let (start, size) = (self.layout.get().log[copy].0, self.layout.get().page_blocks());
        pages.iter_mut().for_each(|lba| *lba -= (*lba - start) % size);
        pages.dedup();
        pages
    }

    /// The pages that have something on them, each with the epoch and the sequence number that it may have.
    pub(crate) fn describe(&self) -> String {
        let contents = self.spare.contents();
        let pages = Copy::BOTH.map(|copy| {
            let describe = |page: u64| {
                let block = contents.block(page);
                let number = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap_or_default());
                format!("{page}: {}/{}", number(48), number(56))
            };
            self.written_pages(copy).into_iter().map(describe).collect::<Vec<_>>()
        });
        format!("A {:?}, B {:?}", pages[0], pages[1])
    }

    /// The bytes of the page that begins there.
    pub(crate) fn page(&self, start: u64) -> Vec<u8> {
        self.page_of(&self.spare.contents(), start)
    }

    fn page_of(&self, contents: &Medium, start: u64) -> Vec<u8> {
        (start..start + self.layout.get().page_blocks()).flat_map(|lba| contents.block(lba)).collect()
    }

    /// Whether a copy of log and superblock is whole: nothing in it is torn or bad, and it holds the checkpoint and the last page that the
    /// superblocks know, or later ones.
    pub(crate) fn is_whole(&self, copy: Copy) -> bool {
        let contents = self.spare.contents();
        let page = |start| self.page_of(&contents, start);
        let superblock = |copy| match Superblock::decode(&page(self.layout.get().superblock(copy).0)) {
            SuperblockContent::Valid(superblock) => Some(superblock),
            _ => None,
        };
        // The other one may know a checkpoint, or a page, that this copy missed, as it failed.
        let noted = Copy::BOTH.into_iter().filter_map(superblock).map(|one| (one.epoch, one.committed)).max();
        let Some(superblock) = superblock(copy) else { return false };
        let owner = PageOwner { set_uuid: superblock.set_uuid, spare_id: superblock.spare_id };
        let mut known = false;
        for area in Area::BOTH {
            let mut held = BTreeMap::new();
            for index in 0..self.layout.get().area_pages {
                let bytes = page(self.layout.get().log_page(copy, area, u64::from(index)).0);
                match decode_page(&bytes, owner, PageAt { copy, area, index }) {
                    PageContent::Bad => return false,
                    PageContent::Zero => {}
                    PageContent::Valid(info, _) => {
                        let (pages, needed, last) =
                            held.entry(info.epoch).or_insert((0, info.checkpoint_pages, info.sequence));
                        *pages += u32::from(index < *needed);
                        *last = info.sequence.max(*last);
                    }
                }
            }
            let newest = held.last_key_value();
            known |= newest
                .is_some_and(|(newest, (pages, needed, last))| Some((*newest, *last)) >= noted && pages == needed);
        }
        known
    }
}
