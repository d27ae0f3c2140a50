//! What records come to, and which are refused; taken together and one by one, which has to be the same.

use proptest::collection::vec;
use proptest::prelude::*;

use super::replay::{Bounds, Pieces, Replay};
use crate::format::Record;
use crate::slot::{Slot, SpareBlock};
use crate::table::{Mapping, REGION_BLOCKS};
use crate::units::BaseLba;

/// Of the base.
const BLOCKS: u64 = 8 * REGION_BLOCKS;

fn spare(index: u32) -> SpareBlock {
    SpareBlock::new(Slot::FIRST, index).unwrap()
}

fn remap(lba: u64, at: u32, count: u32) -> Record {
    Record::Remap { lba: BaseLba(lba), spare: spare(at), count }
}

/// Replays a checkpoint and what is behind it, on a spare of 100 blocks: record by record, or as pages are.
fn replay_by(by_record: bool, checkpoint: &[Record], log: &[Record]) -> Result<Replay, &'static str> {
    let mut replay = Replay::new(Bounds { base_blocks: BLOCKS, data_blocks: 100 }, 64);
    for (page, of_checkpoint) in [(checkpoint, true), (log, false)] {
        if by_record {
            let mut take = |record| match of_checkpoint {
                true => replay.checkpoint_record(record),
                false => replay.log_record(record),
            };
            page.iter().try_for_each(|record| take(*record))?;
            continue;
        }
        let raw: Vec<_> = page.iter().map(|record| record.encode()).collect();
        let mut pieces = Pieces::new(&raw, Slot::FIRST);
        while replay.some(&mut pieces, of_checkpoint)? > 0 {}
    }
    Ok(replay)
}

/// What they say: of blocks, of spare blocks that are used, of those that are bad, and whether the checkpoint ended.
type Told = (Vec<(BaseLba, Mapping)>, Vec<usize>, Vec<SpareBlock>, bool);

fn told(replay: Replay) -> Told {
    let ended = replay.ended();
    (replay.mappings.iter().collect(), replay.used.ones().collect(), replay.bad.into_iter().collect(), ended)
}

/// Of both ways, which have to come to the same.
fn replay(checkpoint: &[Record], log: &[Record]) -> Result<Told, &'static str> {
    let [by_record, by_page] = [true, false].map(|by_record| replay_by(by_record, checkpoint, log).map(told));
    assert_eq!(by_record, by_page, "{checkpoint:?} {log:?}");
    by_page
}

/// Records of a checkpoint, and of what is behind it, which goes on where the checkpoint ends. Nearly all are of the next block, and of
/// the next spare block, so that most are taken together; the others are as they come, and some contradict what was said. Around the
/// end of a region of the table, and some in others.
fn checkpoint_and_log() -> impl Strategy<Value = [Vec<Record>; 2]> {
    let blocks = prop_oneof![4 => 0..5_u64, 1 => Just(REGION_BLOCKS)];
    let odd = (0..6_u8, blocks, 0..4_u32, 1..4_u32);
    let records = || vec(prop_oneof![30 => Just((0, 1, 1, 1)), 1 => odd.clone()], 0..45);
    (records(), records()).prop_map(|(checkpoint, log)| {
        let (mut lba, mut at) = (REGION_BLOCKS - 20, 0_u32);
        let mut record = |(kind, blocks, spares, count): (u8, u64, u32, u32)| {
            let (block, spare) = (BaseLba(lba), spare(at));
            let (long, short) = (u64::from(count), count);
            // Spare blocks or blocks that were skipped, or are said of twice.
            (lba, at) = (lba + (long + blocks).saturating_sub(1), at + (short + spares).saturating_sub(1));
            match kind {
                0 | 1 => Record::Remap { lba: block, spare, count },
                2 => Record::Lost { lba: block, spare, count },
                3 => Record::Pending { lba: block, count },
                4 => Record::BadSpare { spare, count },
                _ => Record::Clear { lba: BaseLba(block.0 - 10), count },
            }
        };
        let checkpoint = checkpoint.into_iter().map(&mut record).collect();
        let log = log.into_iter().map(record).collect::<Vec<_>>();
        [checkpoint, log]
    })
}

proptest! {
    #[test]
    fn records_that_are_taken_together_say_what_each_by_itself_says([checkpoint, log] in checkpoint_and_log()) {
        let ended = [&checkpoint[..], &[Record::EndOfCheckpoint]].concat();
        let _ = (replay(&ended, &log), replay(&log, &checkpoint));
    }
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
    let (mappings, used, bad, ended) = replay(&checkpoint, &log).unwrap();
    assert!(ended);
    let expected = [
        (10, Mapping::Spare(spare(0))),
        (11, Mapping::Spare(spare(20))),
        (20, Mapping::Spare(spare(21))),
        (21, Mapping::Pending),
        (22, Mapping::Pending),
        (30, Mapping::Spare(spare(9))),
        (40, Mapping::Spare(spare(2))),
    ];
    assert_eq!(mappings, expected.map(|(lba, to)| (BaseLba(lba), to)));
    assert_eq!(used, [0, 2, 9, 20, 21]);
    assert_eq!(bad, [spare(1), spare(50), spare(51)]);
}

#[test]
fn a_long_record_is_taken_wholly_before_the_next_one() {
    let (mappings, ..) = replay(&[Record::EndOfCheckpoint], &[remap(0, 0, 70), remap(65, 90, 1)]).unwrap();
    assert_eq!((mappings.len(), mappings[65]), (70, (BaseLba(65), Mapping::Spare(spare(90)))));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let end = Record::EndOfCheckpoint;
    let pending = |lba| Record::Pending { lba: BaseLba(lba), count: 1 };
    let bad = |at| Record::BadSpare { spare: spare(at), count: 1 };
    let cases: [(&[Record], &[Record], &str); 18] = [
        (&[remap(1, 1, 1), remap(1, 2, 1)], &[], "two remaps of one block"),
        (&[remap(1, 1, 5), remap(5, 8, 1)], &[], "two remaps of one block"),
        (&[remap(1, 1, 1), remap(2, 1, 1)], &[], "a spare block is used twice"),
        (&[end], &[remap(1, 1, 3), remap(9, 3, 1)], "a spare block is used twice"),
        (&[remap(1, 1, 1), pending(1)], &[], "a block is both pending and something else"),
        (&[pending(1), pending(1)], &[], "a block is both pending and something else"),
        (&[remap(1, 1, 1), end], &[pending(1)], "a block is both pending and something else"),
        (&[bad(4), remap(1, 4, 1)], &[], "a bad spare block is used"),
        (&[remap(1, 4, 1), end], &[bad(4)], "a spare block is both bad and used"),
        (&[remap(BLOCKS - 2, 1, 3)], &[], "an address behind the end of the base"),
        (&[remap(1, 98, 3)], &[], "an address behind the end of the data area"),
        (&[bad(100)], &[], "an address behind the end of the data area"),
        (&[remap(BLOCKS, 1, 1)], &[], "an address behind the end of the base"),
        (&[remap(1, 100, 1)], &[], "an address behind the end of the data area"),
        (&[end, remap(1, 1, 1)], &[], "records behind the end of the checkpoint"),
        (&[end, pending(1)], &[], "records behind the end of the checkpoint"),
        (&[end], &[end], "an end of checkpoint behind the checkpoint"),
        (&[Record::Clear { lba: BaseLba(1), count: 1 }], &[], "a clear record in a checkpoint"),
    ];
    for (checkpoint, log, what) in cases {
        assert_eq!(replay(checkpoint, log).err(), Some(what), "{checkpoint:?} {log:?}");
    }
    let mut unknown = remap(1, 1, 1).encode();
    unknown.kind = 99;
    assert_eq!(Record::decode(&unknown, Slot::FIRST), None);
}
