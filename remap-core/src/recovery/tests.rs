//! The rules of recovery, one by one: which area is in force, where it ends, and what is refused.

use super::choose::{Chosen, choose};
use super::replay::Replay;
use super::scan::{Area, Slot};
use crate::error::Error;
use crate::format::{PageInfo, Record};
use crate::table::Mapping;
use crate::units::{BaseLba, SpareIndex};

/// Pages of an area in these tests.
const PAGES: usize = 8;
/// Pages of a checkpoint in these tests.
const CHECKPOINT: u32 = 2;

/// A page of `epoch`; the sequence number of page 0 is 100 times the epoch.
fn held(epoch: u64, page: usize) -> Slot {
    let info = PageInfo { epoch, sequence: epoch * 100 + page as u64, checkpoint_pages: CHECKPOINT, solo: false };
    Slot::Valid(info, 7)
}

/// A copy of an area of `epoch`, one character a page: `v`alid, `s`olo, `o`lder, `b`ad, `.` zero.
fn copy(epoch: u64, pages: &str) -> Vec<Slot> {
    let slot = |(page, what)| match (what, held(epoch, page)) {
        ('v', slot) => slot,
        ('s', Slot::Valid(info, records)) => Slot::Valid(PageInfo { solo: true, ..info }, records),
        ('o', Slot::Valid(info, records)) => Slot::Valid(PageInfo { epoch: epoch - 1, ..info }, records),
        ('b', _) => Slot::Bad,
        _ => Slot::Zero,
    };
    let mut slots: Vec<_> = pages.chars().enumerate().map(slot).collect();
    slots.resize(PAGES, Slot::Zero);
    slots
}

fn area(epoch: u64, a: &str, b: &str) -> Area {
    [copy(epoch, a), copy(epoch, b)]
}

/// An area of epoch 4, complete, with a page behind the checkpoint.
fn old() -> Area {
    area(4, "vvv", "vvv")
}

fn good(areas: [Area; 2]) -> Chosen {
    choose(&areas, 4, 0).unwrap()
}

fn damaged(areas: [Area; 2], known: u64) -> u64 {
    match choose(&areas, known, 0) {
        Err(Error::LogDamaged { page, .. }) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_highest_complete_epoch_counts() {
    for areas in [[old(), area(5, "vv", "vv")], [area(5, "vv", "vv"), old()]] {
        let chosen = good(areas);
        assert_eq!((chosen.epoch, chosen.end, chosen.first_sequence, chosen.unfinished), (5, 2, 500, false));
        assert_eq!(chosen.top, (5, 501));
        assert_eq!(chosen.log_ok, [true; 2]);
    }
    let all = good([old(), area(5, "vvvvvvvv", "vvvvvvvv")]);
    assert_eq!((all.end, all.unfinished), (8, false));
    assert_eq!(choose(&[area(1, "", ""), area(1, "b", "")], 0, 0), Err(Error::NoCheckpoint));
}

#[test]
fn each_page_may_come_from_either_copy() {
    let chosen = good([old(), area(5, "vbvvv", "bvvbv")]);
    assert_eq!((chosen.epoch, chosen.end), (5, 5));
    assert_eq!((chosen.log_ok, chosen.unfinished), ([false; 2], false), "reported, and healed by save");
    let chosen = good([old(), area(5, "vv.vv", "vvvvv")]);
    assert_eq!((chosen.end, chosen.log_ok), (5, [false, true]));
}

#[test]
fn what_a_crash_leaves_is_repaired() {
    for (a, b, end) in [
        ("vvvv", "vvv", 4),
        ("vvvv", "vvvo", 4),
        // Copy B was being written.
        ("vvvv", "vvvb", 4),
        // Copy A was.
        ("vvvb", "vvv", 3),
        ("vvvbo", "vvvoo", 3),
        // The checkpoint was.
        ("vv", "", 2),
        ("vv", "v", 2),
        ("vv", "bo", 2),
    ] {
        let chosen = good([old(), area(5, a, b)]);
        assert_eq!((chosen.epoch, chosen.end), (5, end), "{a} {b}");
        assert!(chosen.unfinished, "{a} {b}");
        assert_eq!(chosen.log_ok, [true; 2], "{a} {b}");
    }
}

#[test]
fn an_end_that_may_hide_records_is_refused() {
    assert_eq!(damaged([old(), area(5, "vvvb", "vvvb")], 4), 3);
    // Copy A is known to have missed pages of this epoch: copy B may have had one alone.
    for a in ["vvv", "vvvo"] {
        let missed = choose(&[old(), area(5, a, "vvvb")], 4, 5);
        assert!(matches!(missed, Err(Error::LogDamaged { page: 3, .. })), "{missed:?}");
    }
    // A gap.
    assert_eq!(damaged([old(), area(5, "vvv.v", "vvv")], 4), 4);
    assert_eq!(damaged([old(), area(5, "vvvb", "vvv.v")], 4), 4);
    assert_eq!(damaged([old(), area(5, "vvvo...v", "vvvo")], 4), 7);
}

#[test]
fn what_copy_b_lost_behind_the_end_of_copy_a_was_never_there() {
    for (a, b) in [("vvv", "vvvb"), ("vvvo", "vvvb"), ("vvv", "bbbbbbbb")] {
        // In an earlier epoch copy A may have missed something.
        let chosen = choose(&[old(), area(5, a, b)], 4, 3).unwrap();
        assert_eq!((chosen.epoch, chosen.end, chosen.unfinished), (5, 3, true), "{a} {b}");
    }
}

#[test]
fn an_unfinished_checkpoint_falls_back_to_the_other_area() {
    for (a, b) in [("v", ""), (".v", ""), ("vb", ""), ("bv", ""), ("b", "s"), (".", "s"), ("v", ".b")] {
        let chosen = good([old(), area(5, a, b)]);
        assert_eq!((chosen.area, chosen.epoch, chosen.end), (0, 4, 3), "{a} {b}");
        assert!(chosen.unfinished);
        assert_eq!(chosen.top.0, 5, "its epoch is not used again");
    }
    // Nothing of it is valid: it may yet have been there.
    let chosen = good([old(), [copy(5, "b"), copy(5, "")]]);
    assert_eq!((chosen.epoch, chosen.top.0, chosen.hidden), (4, 4, true));
}

#[test]
fn a_checkpoint_that_had_been_complete_is_not_given_up() {
    // A page behind it.
    assert_eq!(damaged([old(), area(5, "v.v", "")], 4), 2);
    assert_eq!(damaged([old(), area(5, "v", "..v")], 4), 2);
    // Copy B was begun.
    assert_eq!(damaged([old(), area(5, "v", "v")], 4), 0);
    assert_eq!(damaged([old(), area(5, "b", "v")], 4), 0);
    // Page 0 is bad in both.
    assert_eq!(damaged([old(), area(5, "bv", "b")], 4), 0);
    // The superblock knows it.
    assert_eq!(damaged([old(), area(5, "v", "")], 5), 0);
    assert_eq!(choose(&[old(), area(5, "", "")], 5, 0), Err(Error::EpochLost { known: 5, found: 4 }));
    // The other area is not complete either.
    assert_eq!(choose(&[area(4, "v", "v"), area(5, "v", "")], 4, 0), Err(Error::NoCheckpoint));
    assert_eq!(choose(&[area(4, "", ""), area(5, "v", "")], 4, 0), Err(Error::NoCheckpoint));
}

#[test]
fn pages_that_contradict_each_other_are_refused() {
    assert_eq!(damaged([old(), area(4, "vv", "vv")], 4), 0);
    let change = |slot: &mut Slot, change: fn(&mut PageInfo, &mut u32)| {
        if let Slot::Valid(info, records) = slot {
            change(info, records);
        }
    };
    let changes: [fn(&mut PageInfo, &mut u32); 3] =
        [|info, _| info.sequence += 1, |info, _| info.checkpoint_pages += 1, |_, records| *records += 1];
    for one in changes {
        let mut new = area(5, "vvvv", "vvvv");
        change(&mut new[1][1], one);
        assert_eq!(damaged([old(), new], 4), 1);
    }
    // A page of a higher epoch than the area's is not older.
    let mut areas = [old(), area(5, "v", "")];
    areas[0][0][3] = Slot::Bad;
    areas[0][1][3] = Slot::Bad;
    assert_eq!(damaged(areas, 4), 3);
}

fn spare(index: u32) -> SpareIndex {
    SpareIndex::new(index).unwrap()
}

fn remap(lba: u64, at: u32, count: u32) -> Record {
    Record::Remap { lba: BaseLba(lba), spare: spare(at), count }
}

/// Replays a checkpoint and what is behind it, on a base of 1000 blocks and a spare of 100.
fn replay(checkpoint: &[Record], log: &[Record]) -> Result<Replay, &'static str> {
    let mut replay = Replay::new(1000, 100);
    for record in checkpoint {
        replay.checkpoint_record(&record.encode())?;
    }
    for record in log {
        replay.log_record(&record.encode())?;
    }
    Ok(replay)
}

#[test]
fn records_behind_the_checkpoint_change_what_it_says() {
    let checkpoint = [
        remap(10, 0, 3),
        Record::Pending { lba: BaseLba(20), count: 2 },
        Record::Lost { lba: BaseLba(30), spare: spare(9), count: 1 },
        Record::BadSpare { spare: spare(50), count: 2 },
        Record::EndOfCheckpoint,
    ];
    let log = [
        // To another spare block, the old one being bad.
        remap(11, 20, 1),
        Record::BadSpare { spare: spare(1), count: 1 },
        // A pending and a lost block are written.
        remap(20, 21, 1),
        remap(30, 9, 1),
        Record::Clear { lba: BaseLba(12), count: 1 },
        // Its spare block is free again.
        remap(40, 2, 1),
        Record::Pending { lba: BaseLba(21), count: 2 },
    ];
    let replay = replay(&checkpoint, &log).ok().unwrap();
    assert!(replay.ended());
    let expected = [
        (10, Mapping::Spare(spare(0))),
        (11, Mapping::Spare(spare(20))),
        (20, Mapping::Spare(spare(21))),
        (21, Mapping::Pending),
        (22, Mapping::Pending),
        (30, Mapping::Spare(spare(9))),
        (40, Mapping::Spare(spare(2))),
    ];
    assert_eq!(replay.mappings.into_iter().collect::<Vec<_>>(), expected.map(|(lba, to)| (BaseLba(lba), to)));
    assert_eq!(replay.bad.into_iter().collect::<Vec<_>>(), [spare(1), spare(50), spare(51)]);
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let end = Record::EndOfCheckpoint;
    let pending = |lba| Record::Pending { lba: BaseLba(lba), count: 1 };
    let bad = |at| Record::BadSpare { spare: spare(at), count: 1 };
    let cases: [(&[Record], &[Record], &str); 15] = [
        (&[remap(1, 1, 1), remap(1, 2, 1)], &[], "two remaps of one block"),
        (&[remap(1, 1, 5), remap(5, 8, 1)], &[], "two remaps of one block"),
        (&[remap(1, 1, 1), remap(2, 1, 1)], &[], "a spare block is used twice"),
        (&[end], &[remap(1, 1, 3), remap(9, 3, 1)], "a spare block is used twice"),
        (&[remap(1, 1, 1), pending(1)], &[], "a block is both pending and something else"),
        (&[pending(1), pending(1)], &[], "a block is both pending and something else"),
        (&[remap(1, 1, 1), end], &[pending(1)], "a block is both pending and something else"),
        (&[bad(4), remap(1, 4, 1)], &[], "a bad spare block is used"),
        (&[remap(1, 4, 1), end], &[bad(4)], "a spare block is both bad and used"),
        (&[remap(998, 1, 3)], &[], "an address behind the end of the base"),
        (&[remap(1, 98, 3)], &[], "an address behind the end of the data area"),
        (&[bad(100)], &[], "an address behind the end of the data area"),
        (&[end, pending(1)], &[], "records behind the end of the checkpoint"),
        (&[end], &[end], "an end of checkpoint behind the checkpoint"),
        (&[Record::Clear { lba: BaseLba(1), count: 1 }], &[], "a clear record in a checkpoint"),
    ];
    for (checkpoint, log, what) in cases {
        assert_eq!(replay(checkpoint, log).err(), Some(what), "{checkpoint:?} {log:?}");
    }
    let mut unknown = remap(1, 1, 1).encode();
    unknown.kind = 99;
    assert_eq!(Replay::new(1000, 100).checkpoint_record(&unknown), Err("an unknown record"));
}
