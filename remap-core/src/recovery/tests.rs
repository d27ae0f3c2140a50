//! The rules of recovery, one by one: which area is in force, where it ends, and what is refused.

use super::StatedEnd;
use super::choose::{Candidate, Chosen, Known, candidates, choose, choose_stated};
use super::faults::{PageFault, faults};
use super::scan::{PageState, Pages};
use crate::error::Error;
use crate::format::{Area, Copy, PageAt, PageInfo, PerArea, PerCopy};
use crate::units::{Epoch, Sequence};

/// Pages of an area in these tests.
const PAGES: usize = 8;
/// Pages of a checkpoint in these tests.
const CHECKPOINT: u32 = 2;

pub(super) fn epoch(number: u64) -> Epoch {
    Epoch::new(number).unwrap()
}

pub(super) fn sequence(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

/// What superblocks know that know `epoch` only.
pub(super) fn known(number: u64) -> Known {
    Known { epoch: epoch(number), committed: Sequence::ZERO, noted_epoch: Epoch::ZERO, ended: false }
}

/// A page of an epoch; the sequence number of page 0 is 100 times the epoch.
fn page(number: u64, page: usize) -> PageState {
    let info =
        PageInfo { epoch: epoch(number), sequence: sequence(number * 100 + page as u64), checkpoint_pages: CHECKPOINT };
    PageState::Valid(info, 7)
}

/// A copy of an area, one character a page: `v`alid, `o`lder, `b`ad, `.` zero.
fn copy(number: u64, pages: &str) -> Vec<PageState> {
    let state = |(index, what)| match what {
        'v' => page(number, index),
        'o' => page(number - 1, index),
        'b' => PageState::Bad,
        _ => PageState::Zero,
    };
    let mut states: Vec<_> = pages.chars().enumerate().map(state).collect();
    states.resize(PAGES, PageState::Zero);
    states
}

pub(super) fn area(number: u64, a: &str, b: &str) -> Pages {
    PerCopy([copy(number, a), copy(number, b)])
}

/// An area of epoch 4, complete, with a page behind the checkpoint.
fn old() -> Pages {
    area(4, "vvv", "vvv")
}

/// What is chosen of an area of epoch 5 behind `old`, and superblocks that know epoch 5.
fn good(a: &str, b: &str) -> Chosen {
    choose(&PerArea([old(), area(5, a, b)]), known(5)).unwrap()
}

/// The page that an area of epoch 5 behind `old` is refused for.
fn damaged(a: &str, b: &str, known: Known) -> u64 {
    match choose(&PerArea([old(), area(5, a, b)]), known) {
        Err(Error::LogDamaged { page, .. }) => page,
        other => panic!("{a} {b}: {other:?}"),
    }
}

#[test]
fn the_highest_complete_epoch_counts() {
    for areas in [[old(), area(5, "vv", "vv")], [area(5, "vv", "vv"), old()]] {
        let chosen = choose(&PerArea(areas), known(5)).unwrap();
        assert_eq!((chosen.epoch, chosen.end, chosen.first_sequence), (epoch(5), 2, sequence(500)));
        assert_eq!((chosen.top_epoch, chosen.top_sequence), (epoch(5), sequence(501)));
        assert_eq!((chosen.log_ok, chosen.unfinished), (PerCopy::BOTH, false));
    }
    let all = good("vvvvvvvv", "vvvvvvvv");
    assert_eq!((all.end, all.unfinished), (8, false));
    assert_eq!(choose(&PerArea([area(1, "", ""), area(1, "b", "")]), known(0)), Err(Error::NoCheckpoint));
}

#[test]
fn superblocks_that_lag_behind_are_to_be_written() {
    let chosen = choose(&PerArea([old(), area(5, "vv", "vv")]), known(4)).unwrap();
    assert_eq!((chosen.epoch, chosen.unfinished), (epoch(5), true));
}

#[test]
fn each_page_may_come_from_either_copy_and_what_one_lacks_is_healed() {
    for (a, b, end, ok) in [
        ("vbvvv", "bvvbv", 5, [false, false]),
        ("vv.vv", "vvvvv", 5, [false, true]),
        ("vvvv", "vvv", 4, [true, false]),
        ("vvvv", "vvvo", 4, [true, false]),
        ("vvvv", "vvvb", 4, [true, false]),
        ("vv", "", 2, [true, false]),
        ("vv", "bo", 2, [true, false]),
    ] {
        let chosen = good(a, b);
        assert_eq!((chosen.epoch, chosen.end, chosen.log_ok), (epoch(5), end, PerCopy(ok)), "{a} {b}");
        assert!(chosen.unfinished, "{a} {b}");
    }
}

#[test]
fn a_torn_page_and_a_bad_one_behind_the_end_are_put_right() {
    for (a, b) in [("vvvb", "vvv"), ("vvvbo", "vvvoo"), ("vvv", "vvvb"), ("vvvo", "vvvb"), ("vvv.b", "vvv")] {
        let chosen = good(a, b);
        assert_eq!((chosen.end, chosen.log_ok, chosen.unfinished), (3, PerCopy::BOTH, true), "{a} {b}");
    }
}

#[test]
fn an_end_that_may_hide_records_is_refused() {
    assert_eq!(damaged("vvvb", "vvvb", known(5)), 3);
    assert_eq!(damaged("vvv.v", "vvv", known(5)), 4);
    assert_eq!(damaged("vvvb", "vvvb.v", known(5)), 5);
    assert_eq!(damaged("vvvo...v", "vvvo", known(5)), 7);
}

#[test]
fn where_every_commit_is_noted_the_end_is_known() {
    let noted = |committed| Known { committed: sequence(committed), noted_epoch: epoch(5), ..known(5) };
    let choose = |a, b, known| choose(&PerArea([old(), area(5, a, b)]), known);
    // A page torn by a power cut, while the other copy is bad.
    for (a, b) in [("vvbb", "vvvb"), ("vvb", "vvvb"), ("vvvb", "vvbb")] {
        let chosen = choose(a, b, noted(502)).unwrap();
        assert_eq!((chosen.end, chosen.unfinished), (3, true), "{a} {b}");
        // The same, if it was committed.
        let lost = Err(Error::PagesLost { known: sequence(503), found: sequence(502) });
        assert_eq!(choose(a, b, noted(503)), lost, "{a} {b}");
    }
    // A page that was not noted yet is there all the same, and has to be noted, or saved, before anything rests on it.
    let chosen = choose("vvvv", "vvvv", noted(502)).unwrap();
    assert_eq!((chosen.end, chosen.unfinished), (4, true));
    // In another epoch, that says nothing.
    let elsewhere = Known { noted_epoch: epoch(4), ..noted(502) };
    assert!(matches!(choose("vvvb", "vvvb", elsewhere), Err(Error::LogDamaged { page: 3, .. })));
}

#[test]
fn a_note_is_made_anew_before_what_is_replayed_behind_it_is_relied_upon() {
    let known = Known { committed: sequence(501), noted_epoch: epoch(5), ..known(5) };
    let chosen = choose(&PerArea([old(), area(5, "vvv", "vvv")]), known).unwrap();
    assert_eq!((chosen.end, chosen.log_ok, chosen.unfinished), (3, PerCopy::BOTH, true));
}

#[test]
fn what_turns_up_behind_the_noted_end_of_a_log_does_not_count() {
    let ended = |epoch_number, committed| Known {
        committed: sequence(committed),
        noted_epoch: epoch(epoch_number),
        ended: true,
        ..known(epoch_number)
    };
    // In one copy, in both, and not the first page behind the end.
    for (a, b) in [("vvvv", "vvv"), ("vvv", "vvvv"), ("vvvv", "vvvv"), ("vvvo.v", "vvvo")] {
        let areas = PerArea([old(), area(5, a, b)]);
        let chosen = choose(&areas, ended(5, 502)).unwrap();
        assert_eq!((chosen.end, chosen.log_ok, chosen.unfinished), (3, PerCopy::BOTH, true), "{a} {b}");
        assert!(chosen.top_sequence > sequence(502), "its number is not used again");
        let states: Vec<_> = candidates(&areas, ended(5, 502)).iter().map(|one| one.sequence).collect();
        assert_eq!(states, [sequence(402), sequence(502)], "{a} {b}");
    }
    // One that is not what it would have been is damage, wherever it is.
    let mut areas = PerArea([old(), area(5, "vvv", "vvv")]);
    areas.0[1][Copy::A][1] = page(5, 4);
    assert!(matches!(choose(&areas, ended(5, 502)), Err(Error::LogDamaged { page: 1, .. })));
    // What is lost is lost all the same, and another epoch knows no such end.
    let lost = choose(&PerArea([old(), area(5, "vv.v", "vv")]), ended(5, 502));
    assert_eq!(lost, Err(Error::PagesLost { known: sequence(502), found: sequence(501) }));
    let later = choose(&PerArea([old(), area(5, "vvv", "vvv")]), ended(4, 401)).unwrap();
    assert_eq!((later.epoch, later.end), (epoch(5), 3));
    // Nor does it where the later epoch is not complete.
    let earlier = choose(&PerArea([old(), area(5, "v", "v")]), ended(4, 401)).unwrap();
    assert_eq!((earlier.epoch, earlier.end), (epoch(4), 2));
}

#[test]
fn bad_pages_behind_a_checkpoint_that_no_superblock_knows_hold_nothing() {
    // Attempts to zero the area for the next checkpoint have failed, and torn what was left behind this one.
    let chosen = choose(&PerArea([old(), area(5, "vvb", "vvb")]), known(4)).unwrap();
    assert_eq!((chosen.epoch, chosen.end, chosen.unfinished), (epoch(5), 2, true));
    assert_eq!(damaged("vvb", "vvb", known(5)), 2);
}

#[test]
fn a_log_that_ends_before_what_was_noted_is_refused() {
    let noted = Known { committed: sequence(503), ..known(5) };
    for (a, b) in [("vvv", "vvv"), ("vvvo", "vvvo"), ("vvvb", "vvv")] {
        let refused = choose(&PerArea([old(), area(5, a, b)]), noted);
        assert_eq!(refused, Err(Error::PagesLost { known: sequence(503), found: sequence(502) }), "{a} {b}");
    }
    assert_eq!(choose(&PerArea([old(), area(5, "vvvv", "vvv")]), noted).unwrap().end, 4);
}

#[test]
fn an_unfinished_checkpoint_falls_back_to_the_other_area() {
    // However it was left: no superblock knows it, so nothing was appended behind it.
    for (a, b) in
        [("v", ""), (".v", ""), ("vb", ""), ("bv", ""), ("b", "v"), (".", "v"), ("v", ".b"), ("v", "v"), ("bv", "b")]
    {
        let chosen = choose(&PerArea([old(), area(5, a, b)]), known(4)).unwrap();
        assert_eq!((chosen.area, chosen.epoch, chosen.end), (Area::Zero, epoch(4), 3), "{a} {b}");
        assert!(chosen.unfinished);
        assert_eq!(chosen.top_epoch, epoch(5), "its epoch is not used again");
    }
    // Nothing of it is valid: it may yet have been there.
    let chosen = choose(&PerArea([old(), area(5, "b", "")]), known(4)).unwrap();
    assert_eq!((chosen.epoch, chosen.top_epoch, chosen.hidden), (epoch(4), epoch(4), true));
}

#[test]
fn a_checkpoint_that_had_been_in_force_is_not_given_up() {
    // A page behind it.
    assert_eq!(damaged("v.v", "", known(4)), 2);
    assert_eq!(damaged("v", "..v", known(4)), 2);
    // The superblock knows it.
    assert_eq!(damaged("v", "", known(5)), 0);
    let lost = choose(&PerArea([old(), area(5, "", "")]), known(5));
    assert_eq!(lost, Err(Error::EpochLost { known: epoch(5), found: epoch(4) }));
    // The other area is not complete either.
    for pages in ["v", ""] {
        let areas = PerArea([area(4, pages, pages), area(5, "v", "")]);
        assert_eq!(choose(&areas, known(4)), Err(Error::NoCheckpoint));
    }
}

#[test]
fn pages_that_contradict_each_other_are_refused() {
    let refused = |areas| match choose(&PerArea(areas), known(4)) {
        Err(Error::LogDamaged { page, .. }) => page,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused([old(), area(4, "vv", "vv")]), 0);
    let change = |state: &mut PageState, change: fn(&mut PageInfo, &mut u32)| {
        if let PageState::Valid(info, checksum) = state {
            change(info, checksum);
        }
    };
    let changes: [fn(&mut PageInfo, &mut u32); 3] = [
        |info, _| info.sequence = info.sequence.plus(1),
        |info, _| info.checkpoint_pages += 1,
        |_, checksum| *checksum += 1,
    ];
    for one in changes {
        let mut new = area(5, "vvvv", "vvvv");
        change(&mut new.0[1][1], one);
        assert_eq!(refused([old(), new]), 1);
    }
}

#[test]
fn an_operator_may_choose_a_state_that_is_there_and_no_other() {
    let areas = PerArea([old(), area(5, "vvvb", "vvvb")]);
    let states: Vec<_> = candidates(&areas, known(5)).iter().map(|one| (one.epoch, one.sequence)).collect();
    assert_eq!(states, [(epoch(4), sequence(402)), (epoch(5), sequence(502))]);
    let stated = |epoch, sequence| choose_stated(&areas, known(5), StatedEnd { epoch, sequence });
    for (at, last) in states {
        let chosen = stated(at, last).unwrap();
        assert_eq!((chosen.epoch, chosen.end, chosen.unfinished, chosen.hidden), (at, 3, true, true));
    }
    let nowhere = Err(Error::NoSuchState { epoch: epoch(5), sequence: sequence(503) });
    assert_eq!(stated(epoch(5), sequence(503)), nowhere);
    let incomplete = PerArea([area(4, "v", "v"), area(5, "v", "")]);
    assert_eq!(candidates(&incomplete, known(5)), []);
}

/// As a lost write, or a stale read, brings it back: an attempt under epoch 9, of one page, that no later open saw.
#[test]
fn an_attempt_that_was_given_up_does_not_come_back() {
    let known = Known { committed: sequence(502), ..known(5) };
    let with_attempt = |within: Area, first| {
        let mut areas = PerArea([old(), area(5, "vvv", "vvv")]);
        let info = PageInfo { epoch: epoch(9), sequence: sequence(first), checkpoint_pages: 1 };
        areas[within][Copy::A][0] = PageState::Valid(info, 7);
        choose(&areas, known)
    };
    for first in 403..=502 {
        for (within, whole) in [(Area::Zero, true), (Area::One, false)] {
            let chosen = with_attempt(within, first).unwrap();
            assert_eq!((chosen.epoch, chosen.end, chosen.top_epoch), (epoch(5), 3, epoch(9)), "{first}");
            assert_eq!(
                (chosen.log_ok[Copy::A], chosen.unfinished, chosen.unsettled),
                (whole, !whole, false),
                "{first}"
            );
        }
    }
    // What begins behind all that was committed may be in force: a crash came before the superblocks.
    assert_eq!(with_attempt(Area::Zero, 503).unwrap().epoch, epoch(9));
}

/// The pages that are to be written: copy, area, number, what each is, and the epoch of what it should be.
fn faults_of(areas: [Pages; 2]) -> Vec<(Copy, Area, u32, &'static str, Option<u64>)> {
    let areas = PerArea(areas);
    let found = faults(&areas, &choose(&areas, known(5)).unwrap(), false);
    let epoch = |fault: &PageFault| fault.should_be.map(|info| info.epoch.get());
    found.iter().map(|fault| (fault.at.copy, fault.at.area, fault.at.index, fault.what, epoch(fault))).collect()
}

#[test]
fn a_page_of_the_log_that_one_copy_misses_should_be_as_in_the_other() {
    let found = |a, b| faults_of([old(), area(5, a, b)]);
    let new = Area::One;
    assert_eq!(found("vvvv", "vvvv"), []);
    assert_eq!(found("vbvv", "vvv"), [(Copy::A, new, 1, "bad", Some(5)), (Copy::B, new, 3, "missing", Some(5))]);
    assert_eq!(found("vovv", "vvvo"), [(Copy::A, new, 1, "older", Some(5)), (Copy::B, new, 3, "older", Some(5))]);
}

#[test]
fn elsewhere_only_a_bad_page_is_to_be_written() {
    let (old_area, new) = (Area::Zero, Area::One);
    // Behind the end an older page is as good as none.
    assert_eq!(faults_of([old(), area(5, "vvvo", "vvv.")]), []);
    assert_eq!(faults_of([old(), area(5, "vvvb", "vvvo")]), [(Copy::A, new, 3, "bad", Some(4))]);
    assert_eq!(faults_of([old(), area(5, "vvvb", "vvv.")]), [(Copy::A, new, 3, "bad", None)]);
    let torn = faults_of([area(4, "vbb.", "vvb"), area(5, "vv", "vv")]);
    let (a, b) = (Copy::A, Copy::B);
    assert_eq!(torn, [(a, old_area, 1, "bad", Some(4)), (a, old_area, 2, "bad", None), (b, old_area, 2, "bad", None)]);
}

#[test]
fn where_a_state_was_chosen_all_pages_of_others_are_to_go_and_the_first_one_before_them() {
    let areas = PerArea([area(4, "vvb.", "vvo"), area(5, "vbv", "vbv")]);
    assert!(choose(&areas, known(5)).is_err());
    let [Candidate { epoch, sequence, .. }] = candidates(&areas, known(5))[..] else { panic!("one") };
    let chosen = choose_stated(&areas, known(5), StatedEnd { epoch, sequence }).unwrap();
    let found = faults(&areas, &chosen, true);
    let found: Vec<_> =
        found.iter().map(|fault| (fault.at.copy, fault.at.area, fault.at.index, fault.what, fault.first)).collect();
    let of = |copy| {
        [(0, "not chosen", true), (1, "bad", false), (2, "not chosen", false)]
            .map(|(index, what, first)| (copy, Area::One, index, what, first))
    };
    let behind = [(Copy::A, Area::Zero, 2, "bad", false)];
    assert_eq!(found, [&behind[..], &of(Copy::A), &of(Copy::B)].concat());
}

/// The second attempt writes what the first one did: so the undo file of the first one knows each page still, as it was or as it was to be.
#[test]
fn what_a_crash_leaves_of_a_mend_is_mended_to_the_same() {
    // Where epoch 5 is in copy A, copy B has pages of epoch 3, or of none.
    let other = PerCopy([copy(5, "v.vvb"), copy(4, "ooo.o")]);
    let mut areas = PerArea([area(4, "vvb.v", "vvo"), other]);
    assert!(choose(&areas, known(5)).is_err());
    let [Candidate { epoch, sequence, .. }] = candidates(&areas, known(5))[..] else { panic!("one") };
    let stated = StatedEnd { epoch, sequence };
    let all_of = |areas: &PerArea<Pages>| faults(areas, &choose_stated(areas, known(5), stated).unwrap(), true);
    let all = all_of(&areas);
    for fault in &all {
        let page = |areas: &PerArea<Pages>, at: PageAt| areas[at.area][at.copy][at.index as usize];
        // Torn, then done.
        areas[fault.at.area][fault.at.copy][fault.at.index as usize] = PageState::Bad;
        let left = all_of(&areas);
        let again = left.iter().find(|again| again.at == fault.at).unwrap();
        assert_eq!(again.should_be, fault.should_be, "{fault:?}");
        let is_other = PageAt { copy: fault.at.copy.other(), ..fault.at };
        let done = if fault.should_be.is_some() { page(&areas, is_other) } else { PageState::Zero };
        areas[fault.at.area][fault.at.copy][fault.at.index as usize] = done;
    }
    assert_eq!(all_of(&areas), []);
    assert!(all.iter().any(|fault| fault.what == "not chosen" && fault.should_be.is_some()));
}
