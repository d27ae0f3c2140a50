//! Damage to each structure on the spare, on one copy and on both: the set comes up right, and whole again, or is refused with
//! both files left as they were. Never a wrong table.

use e2e::{
    scene::{BASE_UUID, copies_ok},
    set::{Loaded, Set},
    spare_format::{BOTH, Copy, LogInForce, SpareFile},
};
use serde_json::{Value, json};

/// A structure that is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Structure {
    Superblock,
    FirstPage,
    MiddleOfCheckpoint,
    EndOfCheckpoint,
    FirstCommit,
    MiddleCommit,
    LastCommit,
    /// The page behind the last commit, which was never written.
    NextPage,
    /// The first page of the log area that is not in use.
    DeadArea,
}

use Structure::{
    DeadArea, EndOfCheckpoint, FirstCommit, FirstPage, LastCommit, MiddleCommit, MiddleOfCheckpoint, NextPage,
    Superblock,
};

const ALL: [Structure; 9] = [
    Superblock,
    FirstPage,
    MiddleOfCheckpoint,
    EndOfCheckpoint,
    FirstCommit,
    MiddleCommit,
    LastCommit,
    NextPage,
    DeadArea,
];

/// How it is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    /// One bit.
    Bit,
    /// As if never written.
    Zeroes,
    /// Something else was written there.
    Garbage,
}

fn offset(spare: &SpareFile, structure: Structure, copy: Copy) -> u64 {
    let LogInForce { area, checkpoint, pages, .. } = spare.log();
    assert!(checkpoint >= 4 && pages == checkpoint + 3, "{checkpoint} pages of checkpoint, {pages} in all");
    match structure {
        Superblock => spare.superblock(copy),
        FirstPage => spare.page(copy, area, 0),
        MiddleOfCheckpoint => spare.page(copy, area, checkpoint / 2),
        EndOfCheckpoint => spare.page(copy, area, checkpoint - 1),
        FirstCommit => spare.page(copy, area, checkpoint),
        MiddleCommit => spare.page(copy, area, checkpoint + 1),
        LastCommit => spare.page(copy, area, pages - 1),
        NextPage => spare.page(copy, area, pages),
        DeadArea => spare.page(copy, 1 - area, 0),
    }
}

fn damage(spare: &SpareFile, offset: u64, damage: Damage) {
    let mut page = spare.read(offset, 4096);
    match damage {
        // Not in a page of zeroes, where it would be something of its own.
        Damage::Bit => page[70] ^= if page[0] == 0 { 0 } else { 4 },
        Damage::Zeroes => page.fill(0),
        Damage::Garbage => page.iter_mut().zip(0_u32..).for_each(|(byte, i)| *byte = (i * 37) as u8 ^ 0x5a),
    }
    spare.write(offset, &page);
}

/// What a load after this damage has to come to.
#[derive(PartialEq, Eq, Debug)]
enum Right {
    /// All is there, and nothing had to be put right.
    Sound,
    /// All is there, and what was bad is whole again right after loading.
    Healed,
    /// Refused, files unchanged: the codes for these values of `format`.
    Refused(&'static [(&'static str, i64)]),
    /// All is there but the last commit, which is as if never written: no software can tell.
    WithoutLast,
}

/// As the log cannot tell: -117.
const DAMAGED: Right = Right::Refused(&[("auto", -117), ("never", -117), ("force", -117)]);

fn right(structure: Structure, copies: &[Copy], damage: Damage) -> Right {
    match (structure, copies.len()) {
        // The page was zero before.
        (NextPage, _) if damage != Damage::Garbage => Right::Sound,
        // Both copies of a page that may have been written.
        (NextPage, 2) => DAMAGED,
        // The other area is in force. A bad page here may hide a newer epoch, which must not come back later.
        (DeadArea, _) if damage == Damage::Zeroes => Right::Sound,
        (DeadArea, _) => Right::Healed,
        (_, 1) => Right::Healed,
        (LastCommit, _) if damage == Damage::Zeroes => Right::WithoutLast,
        (Superblock, _) => Right::Refused(match damage {
            Damage::Bit => &[("auto", -117), ("never", -117)],
            // The log shows that this is no empty spare.
            Damage::Zeroes => &[("auto", -17), ("never", -17)],
            Damage::Garbage => &[("auto", -17), ("never", -17)],
        }),
        _ => DAMAGED,
    }
}

fn matrix(set: &Set, structures: &[Structure], damage_kind: Damage) -> u32 {
    let mut cases = 0;
    for &structure in structures {
        for copies in [&BOTH[..1], &BOTH[1..], &BOTH[..]] {
            let what = format!("{structure:?}, {copies:?}, {damage_kind:?}");
            set.mend();
            let spare = set.spare_file();
            let offsets: Vec<u64> = copies.iter().map(|copy| offset(&spare, structure, *copy)).collect();
            offsets.into_iter().for_each(|offset| damage(&spare, offset, damage_kind));
            match right(structure, copies, damage_kind) {
                Right::Refused(formats) => {
                    for (format, expected) in formats {
                        let (code, message) = set.refused(&what, 4096, BASE_UUID, json!({ "format": format }));
                        assert_eq!(code, *expected, "{what}, {format}: {message}");
                    }
                }
                Right::WithoutLast => {
                    let Loaded::Yes(_, list) = set.load() else { panic!("{what}: refused") };
                    assert_eq!(list, set.list_before_last, "{what}");
                    set.unload();
                }
                Right::Sound => {
                    let status = check_loaded(set, &what);
                    assert!(status["epoch"] == set.epoch && status["last_save_at"].is_null(), "{what}: {status}");
                }
                Right::Healed => {
                    let status = check_loaded(set, &what);
                    let saved = status["epoch"].as_u64() > Some(set.epoch) && status["last_save_at"].is_u64();
                    // A page that holds nothing of what is in force makes no copy bad.
                    let was_bad = ![NextPage, DeadArea].contains(&structure);
                    let healed = status["metadata"]["healed_at"].is_u64() == was_bad;
                    assert!(saved && healed, "{what}: {status}");
                }
            }
            cases += 1;
        }
    }
    cases
}

/// Loads the set, which must have all of its mapping and be whole on the spare, saves it, loads it again, and yields what status
/// said first.
fn check_loaded(set: &Set, what: &str) -> Value {
    let load = |what: &str| match set.load() {
        Loaded::Yes(status, list) => {
            assert_eq!(list, set.list, "{what}");
            assert!(status["state"] == "online" && copies_ok(&status), "{what}: {status}");
            set.spare_file().assert_whole(what);
            status
        }
        Loaded::Refused(code, message) => panic!("{what}: {message} ({code})"),
    };
    let first = load(what);
    let saved = set.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
    assert_eq!(saved["all_copies"], true, "{what}: {saved}");
    set.unload();
    load(&format!("{what}, after a save"));
    set.unload();
    first
}

#[test]
fn damaged_metadata_never_makes_a_wrong_table() {
    let mut set = Set::make(false);
    let kinds = [Damage::Bit, Damage::Zeroes, Damage::Garbage];
    assert_eq!(kinds.map(|kind| matrix(&set, &ALL, kind)).iter().sum::<u32>(), 81);
    set.target.stop();
}

#[test]
fn damaged_metadata_is_not_assembled_by_examine_either() {
    let mut set = Set::make(true);
    assert_eq!(matrix(&set, &[Superblock, FirstPage, MiddleCommit, LastCommit], Damage::Bit), 12);
    set.target.stop();
}
