//! Everything that a set must be refused for: the error names what was found, and both devices are left as they were, byte for byte.

use std::path::Path;

use e2e::{
    scene::BASE_UUID,
    set::{Loaded, Set},
    spare_format::{self, BOTH, Copy, LogInForce, SpareFile, Superblock, field, page_field, record},
};
use serde_json::{Value, json};

const OTHER_UUID: &str = "33333333-3333-4333-8333-333333333333";

/// A way to make a set unfit: the spare's file is changed, the bdevs are made otherwise, or the call is another.
struct Case {
    what: &'static str,
    forge: Box<dyn Fn(&SpareFile)>,
    block_size: u32,
    base_uuid: &'static str,
    more: Value,
    /// Error code, and words of the sentence.
    code: i64,
    words: &'static [&'static str],
}

fn case(what: &'static str, code: i64, words: &'static [&'static str], forge: impl Fn(&SpareFile) + 'static) -> Case {
    Case { what, forge: Box::new(forge), block_size: 4096, base_uuid: BASE_UUID, more: json!({}), code, words }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Changes a field of both superblocks.
fn superblocks(at: usize, value: &'static [u8]) -> impl Fn(&SpareFile) {
    move |spare| spare.forge_superblocks(|bytes| put(bytes, at, value))
}

/// Changes both copies of a page of the log in force: the one that `which` names.
fn pages(which: fn(LogInForce) -> u64, change: impl Fn(&mut [u8]) + 'static) -> impl Fn(&SpareFile) {
    move |spare| spare.forge_pages(spare.log().area, which(spare.log()), &change)
}

/// Page 0, in which the checkpoint begins.
fn first(_: LogInForce) -> u64 {
    0
}

/// The page of the last commit.
fn last(log: LogInForce) -> u64 {
    log.pages - 1
}

/// Puts the spare into this state, with another one in the other slot.
fn spare_state(bytes: &mut [u8], state: u8) {
    put(bytes, field::SPARE_0_STATE, &[state]);
    put(bytes, field::SPARE_1_ID, &[0x55; 16]);
    put(bytes, field::SPARE_1_STATE, &[1]);
}

/// What both superblocks and their surroundings can say.
fn cases_of_superblocks() -> Vec<Case> {
    let state = |state: u8| move |spare: &SpareFile| spare.forge_superblocks(|bytes| spare_state(bytes, state));
    vec![
        Case { base_uuid: OTHER_UUID, ..case("another base", -22, &["belongs to base"], |_| ()) },
        Case { block_size: 512, ..case("another block size", -22, &["4096", "512"], |_| ()) },
        case("another metadata size", -22, &["8 bytes of metadata"], superblocks(field::MD_SIZE, &[8])),
        case("a newer version", -95, &["version 2"], superblocks(field::VERSION, &[2])),
        case("an unknown feature", -95, &["0x10"], superblocks(field::INCOMPAT, &[0x10])),
        case("an unknown feature for writing", -95, &["0x20"], superblocks(field::RO_COMPAT, &[0x20])),
        case("a retired spare", -116, &["retired", "5555"], state(4)),
        case("a spare that is migrated away from", -116, &["migrating-out", "5555"], state(3)),
        case("a spare that is migrated to", -116, &["migrating-in", "5555"], state(2)),
        case("a retired spare without another", -117, &["contradicts"], superblocks(field::SPARE_0_STATE, &[4])),
        case("a spare in a slot that there is not", -117, &["contradicts"], superblocks(field::SLOT, &[2])),
        Case { more: json!({ "name": "Other" }), ..case("another name", -22, &["Remap0", "Other"], |_| ()) },
        Case { more: json!({ "uuid": OTHER_UUID }), ..case("another set", -22, &["3333"], |_| ()) },
        case("two sets in the superblocks", -17, &["different sets"], |spare| {
            spare.forge(spare.superblock(Copy::B), |bytes| put(bytes, field::SET_UUID, &[9; 16]));
        }),
        case("copies of the superblock that differ", -117, &["differ"], |spare| {
            spare.forge(spare.superblock(Copy::B), |bytes| put(bytes, field::NAME, b"Remap9"));
        }),
        case("a layout that cannot be", -117, &["contradicts"], superblocks(field::DATA_START, &[1])),
        case("something else in both places", -17, &["not ours"], |spare| {
            BOTH.iter().for_each(|copy| spare.write(spare.superblock(*copy), &[0xeb; 4096]));
        }),
        case("something else in one place, and nothing in the other", -17, &["not ours", "superblock B"], |spare| {
            spare.write(0, &[0; 4096]);
            spare.write(spare.superblock(Copy::B), &[0xeb; 4096]);
        }),
        case("two broken superblocks", -117, &["no valid superblock"], |spare| {
            BOTH.iter().for_each(|copy| spare.write(spare.superblock(*copy) + 100, &[1]));
        }),
        case("two erased superblocks", -17, &["it was erased", "pages of set"], SpareFile::zero_superblocks),
        Case {
            more: json!({ "format": "never" }),
            ..case("two erased superblocks, and no formatting", -17, &["it was erased"], SpareFile::zero_superblocks)
        },
        Case {
            more: json!({ "format": "never" }),
            ..case("an empty spare that must not be formatted", -19, &["empty"], |spare| {
                spare.zero_superblocks();
                for (offset, len) in BOTH.map(|copy| spare.log_bytes(copy)) {
                    spare.write(offset, &vec![0; len]);
                }
            })
        },
        case("a superblock that knows a newer epoch", -117, &["epoch 200"], superblocks(field::EPOCH, &[200])),
        case(
            "a superblock that knows of more pages",
            -117,
            &["page 4095"],
            superblocks(field::COMMITTED, &[0xff, 0x0f]),
        ),
        case("an epoch that nobody comes to", -117, &["contradicts"], superblocks(field::EPOCH + 7, &[0x7f])),
        case(
            "a sequence number that nobody comes to",
            -117,
            &["contradicts"],
            superblocks(field::SEQUENCE + 7, &[0x7f]),
        ),
    ]
}

/// What the log can say.
fn cases_of_the_log() -> Vec<Case> {
    let damaged = |what, forge: Box<dyn Fn(&SpareFile)>| case(what, -117, &["damaged"], forge);
    let (lba, kind, slot, spare, count) = (0, 6, 7, 8, 12);
    let in_first =
        |at: usize, value: &'static [u8]| Box::new(pages(first, move |bytes| put(bytes, record(0) + at, value)));
    vec![
        damaged(
            "a base block remapped twice in one checkpoint",
            Box::new(pages(first, move |bytes| bytes.copy_within(record(0) + lba..record(0) + kind, record(1)))),
        ),
        damaged(
            "a spare block used twice",
            Box::new(pages(first, move |bytes| {
                bytes.copy_within(record(0) + spare..record(0) + count, record(1) + spare);
            })),
        ),
        damaged("a base block beyond the end", in_first(lba + 3, &[0x7f])),
        damaged("a spare block beyond the end", in_first(spare + 3, &[0x7f])),
        damaged("a run of no blocks", in_first(count, &[0; 4])),
        damaged("a record of an unknown kind", in_first(kind, &[77])),
        damaged("a record of another slot", in_first(slot, &[1])),
        damaged(
            "a checkpoint without an end",
            Box::new(pages(
                |log| log.checkpoint - 1,
                |bytes| {
                    let at = page_field::RECORD_COUNT;
                    let last = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) - 1;
                    put(bytes, at, &last.to_le_bytes());
                    bytes[record(last as usize)..record(last as usize + 1)].fill(0);
                },
            )),
        ),
        damaged(
            "a commit that is missing in the middle",
            Box::new(|spare| {
                let LogInForce { area, checkpoint, .. } = spare.log();
                BOTH.iter().for_each(|copy| spare.write(spare.page(*copy, area, checkpoint + 1), &[0; 4096]));
            }),
        ),
        damaged(
            "copies of a page that differ",
            Box::new(move |file| {
                let LogInForce { area, checkpoint, .. } = file.log();
                file.forge(file.page(Copy::B, area, checkpoint), |bytes| put(bytes, record(0) + spare, &[0x77]));
            }),
        ),
        // Where the page is the last one, both copies are bad there, and the superblocks have not noted where the log ends.
        damaged("a page of another spare", Box::new(pages(last, |bytes| put(bytes, page_field::SPARE_ID, &[7; 16])))),
        damaged("a page of another place", Box::new(pages(last, |bytes| bytes[page_field::INDEX] ^= 1))),
        damaged("a page of the other area", Box::new(pages(last, |bytes| bytes[page_field::AREA] ^= 1))),
        damaged("a page with another sequence number", Box::new(pages(last, |bytes| bytes[page_field::SEQUENCE] ^= 4))),
        damaged(
            "a page that lies where another copy of it belongs",
            Box::new(|file| {
                let log = file.log();
                let [a, b] = BOTH.map(|copy| file.page(copy, log.area, last(log)));
                let pages = [file.read(a, 4096), file.read(b, 4096)];
                file.write(a, &pages[1]);
                file.write(b, &pages[0]);
            }),
        ),
        damaged(
            "a spare block that is bad and used",
            Box::new(pages(last, move |bytes| {
                put(bytes, page_field::RECORD_COUNT, &[2]);
                bytes.copy_within(record(0) + spare..record(0) + count, record(1) + spare);
                put(bytes, record(1), &[0; 6]);
                put(bytes, record(1) + kind, &[5, 0]);
                put(bytes, record(1) + count, &[1, 0, 0, 0]);
            })),
        ),
    ]
}

#[test]
fn unfit_sets_are_refused_untouched_and_the_error_says_why() {
    let mut set = Set::make(false);
    for case in cases_of_superblocks().into_iter().chain(cases_of_the_log()) {
        set.mend();
        (case.forge)(&set.spare_file());
        let (code, message) = set.refused(case.what, case.block_size, case.base_uuid, case.more);
        println!("{}: {message} ({code})", case.what);
        assert_eq!(code, case.code, "{}: {message}", case.what);
        for word in case.words {
            assert!(message.contains(word), "{}: \"{word}\" is not in: {message}", case.what);
        }
        assert!(message.contains("nothing was written"), "{}: {message}", case.what);
    }
    // Nothing of all that has harmed the set.
    set.mend();
    let Loaded::Yes(status, list) = set.load() else { panic!("the good set is refused") };
    assert!(status["state"] == "online" && list == set.list, "{status}");
    set.unload();
    set.target.stop();
}

/// What ends the life of a spare is written to both superblocks before anything rests on it: one alone does not count.
#[test]
fn spare_that_one_superblock_calls_retired_is_active() {
    let mut set = Set::make(false);
    for copy in BOTH {
        set.mend();
        let spare = set.spare_file();
        spare.forge(spare.superblock(copy), |bytes| {
            spare_state(bytes, 4);
            bytes[field::SEQUENCE + 1] += 1;
        });
        let Loaded::Yes(status, list) = set.load() else { panic!("{copy:?}: refused") };
        assert!(status["state"] == "online" && list == set.list, "{copy:?}: {status}");
        set.unload();
    }
    set.target.stop();
}

/// A later version may have written what this one does not know: it is there after this one has written the superblocks.
#[test]
fn what_a_later_version_wrote_is_kept() {
    let mut set = Set::make(false);
    let marks = [
        (field::COMPAT, 0x80),
        (field::RESERVED, 0x11),
        (field::RESERVED + 43, 0x22),
        (field::TAIL, 0x33),
        (4095, 0x44),
    ];
    set.spare_file().forge_superblocks(|bytes| marks.iter().for_each(|(at, value)| bytes[*at] = *value));
    let sequence = || superblocks_of(&set.spare).map(|copy| copy.number(field::SEQUENCE));
    let before = sequence();
    let Loaded::Yes(_, list) = set.load() else { panic!("refused") };
    assert_eq!(list, set.list);
    set.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
    set.unload();
    assert!(sequence().iter().zip(before).all(|(now, before)| *now > before), "both superblocks were written");
    for copy in superblocks_of(&set.spare) {
        assert!(marks.iter().all(|(at, value)| copy.bytes()[*at] == *value), "{marks:?}");
    }
    set.target.stop();
}

/// Both superblocks, which must be valid.
#[track_caller]
fn superblocks_of(spare: &Path) -> [Superblock; 2] {
    spare_format::superblocks(spare).map(|copy| copy.expect("a valid superblock"))
}

/// A valid set is never overwritten: force is for what is no set.
#[test]
fn force_does_not_overwrite_a_set() {
    let mut set = Set::make(false);
    let (code, message) = set.refused("force on another base", 4096, OTHER_UUID, json!({ "format": "force" }));
    assert_eq!(code, -22, "{message}");
    let Loaded::Yes(_, list) = set.load_with(4096, BASE_UUID, json!({ "format": "force" })) else { panic!("refused") };
    assert_eq!(list, set.list);
    set.unload();
    set.target.stop();
}

/// A spare of another size than it had, and a base that has shrunk below what is remapped.
#[test]
fn devices_that_have_shrunk_are_refused_untouched() {
    let mut set = Set::make(false);
    for (file, mib, words) in [
        (set.base.clone(), 4, ["2048", "1024", "block 1904 of it is remapped or pending"]),
        (set.spare.clone(), 7, ["2048", "1792", "bring it back to its size"]),
    ] {
        set.mend();
        let resized = std::fs::File::options().write(true).open(&file).and_then(|file| file.set_len(mib << 20));
        resized.unwrap();
        let (code, message) = set.refused("a device that has shrunk", 4096, BASE_UUID, json!({}));
        println!("{message} ({code})");
        assert!(code == -22 && words.iter().all(|word| message.contains(word)), "{message} ({code})");
    }
    set.target.stop();
}
