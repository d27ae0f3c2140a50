//! Damage to each structure on the spare, on one copy and on both: the set comes up right and says so, or is refused with both
//! files left as they were. Never a wrong table.

use e2e::{
    scene::BASE_UUID,
    set::{Loaded, Set},
    spare_format::{BOTH, Copy, SpareFile},
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
    /// One bit, near the end of the used part.
    Bit,
    /// As if never written.
    Zeroes,
    /// Something else was written there.
    Garbage,
}

fn offset(spare: &SpareFile, structure: Structure, copy: Copy) -> u64 {
    let (area, checkpoint, pages) = spare.log();
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

/// What a load after this damage may come to.
#[derive(PartialEq, Eq, Debug)]
enum Right {
    /// All is there; the status says that copy `bad` was bad, unless it was put right at once.
    Table { bad: Option<&'static str> },
    /// Refused with this `format`, files unchanged.
    Refused { format: &'static str },
    /// Taken for somebody else's data: refused, files unchanged, and all is there with `force`.
    Foreign,
    /// All is there but the last commit, which is as if never written: no software can tell.
    WithoutLast,
}

fn right(structure: Structure, copies: &[Copy], damage: Damage) -> Right {
    let name = |a, b| if copies[0] == Copy::A { a } else { b };
    match (structure, copies.len()) {
        (NextPage, _) if damage != Damage::Garbage => Right::Table { bad: None },
        // On copy A it is a page that a crash tore; copy B is not written before copy A. The area is left for the other one.
        (NextPage, 1) => Right::Table { bad: Some(name("log_a", "log_b")) },
        (NextPage, _) => Right::Refused { format: "auto" },
        (DeadArea, _) => Right::Table { bad: None },
        (Superblock, 1) if damage == Damage::Garbage => Right::Foreign,
        (Superblock, 1) => Right::Table { bad: Some(name("superblock_a", "superblock_b")) },
        (_, 1) => Right::Table { bad: Some(name("log_a", "log_b")) },
        (LastCommit, _) if damage == Damage::Zeroes => Right::WithoutLast,
        // That is what a wiped set looks like, and an empty spare: formatted, unless that is forbidden.
        (Superblock, _) if damage == Damage::Zeroes => Right::Refused { format: "never" },
        _ => Right::Refused { format: "auto" },
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
                Right::Refused { format } => {
                    let (code, message) = set.refused(&what, 4096, BASE_UUID, json!({ "format": format }));
                    assert!([-117, -19, -17].contains(&code), "{what}: {message} ({code})");
                }
                Right::Foreign => {
                    let (code, message) = set.refused(&what, 4096, BASE_UUID, json!({}));
                    assert!(code == -17 && message.contains("not ours"), "{what}: {message} ({code})");
                    let loaded = set.load_with(4096, BASE_UUID, json!({ "format": "force" }));
                    let Loaded::Yes(_, list) = loaded else { panic!("{what}: refused") };
                    assert_eq!(list, set.list, "{what}");
                    set.unload();
                }
                Right::WithoutLast => {
                    let Loaded::Yes(_, list) = set.load() else { panic!("{what}: refused") };
                    assert_eq!(list, set.list_before_last, "{what}");
                    set.unload();
                }
                Right::Table { bad } => check_healed(set, &what, bad),
            }
            cases += 1;
        }
    }
    cases
}

/// Loads the set, which must have all of its mapping, and saves it, after which all must be well.
fn check_healed(set: &Set, what: &str, bad: Option<&str>) {
    let status = match set.load() {
        Loaded::Yes(status, list) => {
            assert_eq!(list, set.list, "{what}");
            status
        }
        Loaded::Refused(code, message) => panic!("{what}: {message} ({code})"),
    };
    let ok = |status: &Value| status["state"] == "online" && all_ok(status);
    match bad {
        // What a crash leaves is put right at once, by a checkpoint under a new epoch.
        Some(copy) => {
            let said = status["state"] == "degraded" && status["metadata"][copy] == "bad";
            let put_right = ok(&status) && status["epoch"].as_u64() > Some(set.epoch);
            assert!(said || put_right, "{what}: {status}");
        }
        None => assert!(ok(&status), "{what}: {status}"),
    }
    if bad.is_none() {
        return set.unload();
    }
    let saved = set.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
    assert_eq!(saved["all_copies"], true, "{what}: {saved}");
    assert!(ok(&set.target.status("Remap0")), "{what}: {}", set.target.status("Remap0"));
    set.unload();
    let Loaded::Yes(status, list) = set.load() else { panic!("{what}: refused after a save") };
    assert!(ok(&status) && list == set.list, "{what}: {status}");
    set.unload();
}

fn all_ok(status: &Value) -> bool {
    status["metadata"].as_object().is_some_and(|copies| copies.values().all(|health| health == "ok"))
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
