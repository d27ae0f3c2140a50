//! What a choice gives up: which pages are gone, and what is told of those that are there.

use super::super::choose::choose_stated;
use super::super::tests::{area, epoch, known, sequence};
use super::super::{Candidate, StatedEnd, candidates};
use super::*;
use crate::format::Record;
use crate::slot::{Slot, SpareBlock};
use crate::table::Mapping;
use crate::units::BaseLba;

/// Of how many pages it is not known what they said, where the state of the first area is chosen.
fn unknown_of(first: Pages, second: Pages, known: Known) -> u64 {
    let areas = PerArea([first, second]);
    let Candidate { epoch, sequence, .. } = candidates(&areas, known)[0];
    let chosen = InForce::of(&choose_stated(&areas, known, StatedEnd { epoch, sequence }).unwrap());
    assert_eq!(chosen.state.area, Area::Zero);
    unknown(&areas, known, &chosen, &written(&areas, known, &chosen))
}

#[test]
fn each_page_that_is_gone_is_counted_once() {
    let whole = || area(4, "vvv", "vvv");
    let none = || area(1, "", "");
    let committed = |epoch, number| Known { committed: sequence(number), ..known(epoch) };
    // What cannot be read at the end is the page that a superblock knows of.
    assert_eq!(unknown_of(area(4, "vvvb", "vvvb"), none(), committed(4, 403)), 1);
    assert_eq!(unknown_of(area(4, "vvvb", "vvvb"), none(), committed(4, 405)), 3);
    assert_eq!(unknown_of(whole(), none(), committed(5, 409)), 7);
    // Of the epoch that is not chosen, what is behind its last page, and in between.
    assert_eq!(unknown_of(whole(), area(5, "vvvb", "vvvb"), known(5)), 1);
    assert_eq!(unknown_of(whole(), area(5, "vvvbb", "vvvbb"), known(5)), 2);
    assert_eq!(unknown_of(whole(), area(5, "v.v", ""), known(5)), 1);
    assert_eq!(unknown_of(whole(), area(5, "v.v", ""), committed(5, 503)), 2);
    // Both behind the chosen state: one that is bad, one that is missing, before one that is there.
    assert_eq!(unknown_of(area(4, "vvvb.v", "vvvb"), none(), known(4)), 2);
}

#[test]
fn a_page_that_was_never_committed_is_not_missed() {
    let whole = || area(4, "vvv", "vvv");
    // In one copy there is nothing, all commits are noted, or no superblock knows the epoch.
    assert_eq!(unknown_of(whole(), area(5, "vvvb", "vvv."), known(5)), 0);
    let noted = Known { committed: sequence(502), noted_epoch: epoch(5), ..known(5) };
    assert_eq!(unknown_of(whole(), area(5, "vvvb", "vvvb"), noted), 0);
    assert_eq!(unknown_of(whole(), area(5, "vvvb", "vvvb"), known(4)), 0);
    // Behind the chosen state is that of a later epoch, whose first page has the next number.
    let behind = known(5);
    assert_eq!(unknown_of(area(4, "vvvvvvvv", "vvvvvvvv"), area(5, "vv", "vv"), behind), 0);
}

const REMAPPED: [u64; 3] = [1, 2, 3];

fn spare(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

fn remap(lba: u64, index: u32, count: u32) -> Record {
    Record::Remap { lba: BaseLba(lba), spare: spare(index), count }
}

fn clear(lba: u64, count: u32) -> Record {
    Record::Clear { lba: BaseLba(lba), count }
}

/// What is told where blocks 1 to 3 are remapped to spare blocks 11 to 13, block 4 is lost, and these records follow; behind `None` there is a
/// complete checkpoint.
fn told(records: &[Option<Record>]) -> GivenUp {
    let mut chosen = Mappings::default();
    for lba in REMAPPED {
        chosen.insert(BaseLba(lba), Mapping::Spare(spare(10 + lba as u32)));
    }
    chosen.insert(BaseLba(4), Mapping::Lost(spare(14)));
    let mut later = Later::new(Bounds { base_blocks: 1000, data_blocks: 100 }, 64, &chosen);
    for record in records {
        match record {
            Some(record) => later.apply(*record),
            None => later.begins_anew(),
        }
    }
    let mut told = GivenUp::default();
    later.count(&mut told);
    told
}

#[test]
fn what_later_pages_say_otherwise_is_told() {
    let (nothing, pending) = (GivenUp::default(), |lba, count| Record::Pending { lba: BaseLba(lba), count });
    assert_eq!(told(&[]), nothing);
    assert_eq!(told(&[Some(remap(1, 11, 3)), Some(clear(7, 5))]), nothing);
    assert_eq!(told(&[Some(remap(8, 20, 2)), Some(pending(90, 3))]), GivenUp { remapped: 2, pending: 3, ..nothing });
    assert_eq!(told(&[Some(clear(0, 3)), Some(remap(1, 11, 1))]), GivenUp { cleared: 1, ..nothing });
    // More than there is, or can be.
    assert_eq!(told(&[Some(remap(999, 20, 2)), Some(remap(8, 99, 2)), Some(pending(0, 65))]), nothing);
}

#[test]
fn what_a_complete_checkpoint_does_not_mention_is_on_the_base_again() {
    let nothing = GivenUp::default();
    assert_eq!(told(&[None]), GivenUp { cleared: 4, ..nothing });
    assert_eq!(told(&[Some(clear(1, 2)), None, Some(remap(1, 11, 1))]), GivenUp { cleared: 3, ..nothing });
    let lost = Record::Lost { lba: BaseLba(4), spare: spare(14), count: 1 };
    assert_eq!(told(&[None, Some(remap(1, 11, 2)), Some(lost)]), GivenUp { cleared: 1, ..nothing });
}

#[test]
fn a_block_whose_place_was_given_to_another_one_shows_the_data_of_that() {
    let nothing = GivenUp::default();
    let given = [Some(clear(1, 1)), Some(remap(9, 11, 1))];
    assert_eq!(told(&given), GivenUp { remapped: 1, cleared: 1, overwritten: 1, ..nothing });
    // Also where it was given back since, or a checkpoint came in between.
    let back = [&given[..], &[Some(clear(9, 1)), Some(remap(1, 11, 1))]].concat();
    assert_eq!(told(&back), GivenUp { overwritten: 1, ..nothing });
    let all = told(&[None, Some(remap(9, 11, 3))]);
    assert_eq!(all, GivenUp { remapped: 3, cleared: 4, overwritten: 3, ..nothing });
    // A place of what is lost has no data; nothing is written to that of a block that is lost now.
    assert_eq!(told(&[Some(clear(4, 1)), Some(remap(9, 14, 1))]).overwritten, 0);
    let lost = Record::Lost { lba: BaseLba(9), spare: spare(12), count: 1 };
    assert_eq!(told(&[Some(clear(2, 1)), Some(lost)]).overwritten, 0);
    // Its own place in another order is that of another block.
    assert_eq!(told(&[Some(remap(1, 12, 1)), Some(remap(2, 11, 1))]).overwritten, 2);
}
