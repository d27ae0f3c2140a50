//! Everything that a set must be refused for: the error names what was found, and both devices are left as they were, byte for byte.

use e2e::{
    scene::BASE_UUID,
    set::{Loaded, Set},
    spare_format::{Copy, SpareFile},
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

/// Changes both copies of a page of the log in use; the second argument of `change` is where its first record begins.
fn pages(which: fn(u64, u64) -> u64, change: impl Fn(&mut [u8]) + 'static) -> impl Fn(&SpareFile) {
    move |spare| {
        let (area, checkpoint, pages) = spare.log();
        spare.forge_pages(area, which(checkpoint, pages), &change);
    }
}

/// Where record `n` of a page begins.
const fn record(n: usize) -> usize {
    64 + 16 * n
}

/// What both superblocks and their surroundings can say.
fn cases_of_superblocks() -> Vec<Case> {
    vec![
        Case { base_uuid: OTHER_UUID, ..case("another base", -22, &["belongs to base"], |_| ()) },
        case("a base of another size", -22, &["2047", "2048"], superblocks(80, &[0xff, 0x07])),
        Case { block_size: 512, ..case("another block size", -22, &["4096", "512"], |_| ()) },
        case("another metadata size", -22, &["8 bytes of metadata"], superblocks(100, &[8])),
        case("a newer version", -95, &["version 2"], superblocks(12, &[2])),
        case("an unknown feature", -95, &["0x10"], superblocks(16, &[0x10])),
        case("a retired spare", -116, &["retired", "5555"], |spare| {
            spare.forge_superblocks(|bytes| {
                put(bytes, 104, &[4]);
                put(bytes, 112, &[0x55; 16]);
            });
        }),
        case("a spare that is migrated away from", -116, &["migrating-out"], |spare| {
            spare.forge_superblocks(|bytes| {
                put(bytes, 104, &[3]);
                put(bytes, 112, &[0x55; 16]);
            });
        }),
        case("a spare that is migrated to", -116, &["migrating-in"], superblocks(104, &[2])),
        Case { more: json!({ "name": "Other" }), ..case("another name", -22, &["Remap0", "Other"], |_| ()) },
        Case { more: json!({ "uuid": OTHER_UUID }), ..case("another set", -22, &["3333"], |_| ()) },
        case("two sets in the superblocks", -17, &["different sets"], |spare| {
            spare.forge(spare.superblock(Copy::B), |bytes| put(bytes, 32, &[9; 16]));
        }),
        case("copies of the superblock that differ", -117, &["differ"], |spare| {
            spare.forge(spare.superblock(Copy::B), |bytes| put(bytes, 208, b"Remap9"));
        }),
        case("a layout that cannot be", -117, &["contradicts"], superblocks(184, &[1])),
        case("something else in the place of superblock A", -17, &["not ours", "A"], |spare| {
            spare.write(0, &[0xeb; 4096]);
        }),
        case("something else in the place of superblock B", -17, &["not ours", "B"], |spare| {
            spare.write(spare.superblock(Copy::B), &[0xeb; 4096]);
        }),
        case("something else in both places", -17, &["not ours"], |spare| {
            spare.write(0, &[0xeb; 4096]);
            spare.write(spare.superblock(Copy::B), &[0xeb; 4096]);
        }),
        case("two broken superblocks", -117, &["no valid superblock"], |spare| {
            spare.write(100, &[1]);
            spare.write(spare.superblock(Copy::B) + 100, &[1]);
        }),
        Case {
            more: json!({ "format": "never" }),
            ..case("an empty spare that must not be formatted", -19, &["empty"], |spare| {
                spare.write(0, &[0; 4096]);
                spare.write(spare.superblock(Copy::B), &[0; 4096]);
            })
        },
        case("a superblock that knows a newer epoch", -117, &["epoch 200"], superblocks(136, &[200])),
    ]
}

/// What the log can say.
fn cases_of_the_log() -> Vec<Case> {
    vec![
        case(
            "a base block remapped twice in one checkpoint",
            -117,
            &["damaged"],
            pages(
                |_, _| 0,
                |bytes| {
                    bytes.copy_within(record(0)..record(0) + 6, record(1));
                },
            ),
        ),
        case(
            "a spare block used twice",
            -117,
            &["damaged"],
            pages(
                |_, _| 0,
                |bytes| {
                    bytes.copy_within(record(0) + 8..record(0) + 12, record(1) + 8);
                },
            ),
        ),
        case(
            "a base block beyond the end",
            -117,
            &["damaged"],
            pages(
                |_, _| 0,
                |bytes| {
                    put(bytes, record(0) + 3, &[0x7f]);
                },
            ),
        ),
        case(
            "a spare block beyond the end",
            -117,
            &["damaged"],
            pages(
                |_, _| 0,
                |bytes| {
                    put(bytes, record(0) + 11, &[0x7f]);
                },
            ),
        ),
        case("a run of no blocks", -117, &["damaged"], pages(|_, _| 0, |bytes| put(bytes, record(0) + 12, &[0; 4]))),
        case(
            "a record of an unknown kind",
            -117,
            &["damaged"],
            pages(
                |_, _| 0,
                |bytes| {
                    put(bytes, record(0) + 6, &[77]);
                },
            ),
        ),
        case(
            "a checkpoint without an end",
            -117,
            &["damaged"],
            pages(
                |checkpoint, _| checkpoint - 1,
                |bytes| {
                    let last = u32::from_le_bytes([bytes[48], bytes[49], bytes[50], bytes[51]]) - 1;
                    put(bytes, 48, &last.to_le_bytes());
                    bytes[record(last as usize)..record(last as usize + 1)].fill(0);
                },
            ),
        ),
        case("a commit that is missing in the middle", -117, &["damaged"], |spare| {
            let (area, checkpoint, _) = spare.log();
            for copy in [Copy::A, Copy::B] {
                spare.write(spare.page(copy, area, checkpoint + 1), &[0; 4096]);
            }
        }),
        case("copies of a page that differ", -117, &["damaged"], |spare| {
            let (area, checkpoint, _) = spare.log();
            spare.forge(spare.page(Copy::B, area, checkpoint), |bytes| put(bytes, record(0) + 8, &[0x77]));
        }),
        case(
            "a spare block that is bad and used",
            -117,
            &["damaged"],
            pages(
                |_, pages| pages - 1,
                |bytes| {
                    put(bytes, 48, &[2]);
                    bytes.copy_within(record(0) + 8..record(0) + 12, record(1) + 8);
                    put(bytes, record(1), &[0; 6]);
                    put(bytes, record(1) + 6, &[5, 0]);
                    put(bytes, record(1) + 12, &[1, 0, 0, 0]);
                },
            ),
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

/// Base and spare of other sizes than they had.
#[test]
fn devices_of_another_size_are_refused_untouched() {
    let mut set = Set::make(false);
    for (file, words) in [(set.base.clone(), ["2048", "2304"]), (set.spare.clone(), ["2048", "2304"])] {
        set.mend();
        let grown = std::fs::File::options().write(true).open(&file).and_then(|file| file.set_len(9 << 20));
        grown.unwrap();
        let (code, message) = set.refused("a device of another size", 4096, BASE_UUID, json!({}));
        println!("{message} ({code})");
        assert!(code == -22 && words.iter().all(|word| message.contains(word)), "{message} ({code})");
    }
    set.target.stop();
}
