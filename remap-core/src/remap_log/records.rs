//! The records of a checkpoint: what the table holds, in runs, then the bad spare blocks, then the end.
//!
//! They are made to be counted, and once more for each copy as it is written: only the first ones are kept, as all of them together
//! would be much to hold, and to give back at once. Nobody changes the table meanwhile.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::format::Record;
use crate::format::record::{RECORD_SIZE, RawRecord};
use crate::mutation::{Mutation, active};
use crate::pace::Pace;
use crate::slot::SpareBlock;
use crate::table::{Mapping, Table};
use crate::units::{BaseLba, Extent};

/// Records that are kept at most, but for the last chunk of them: 4 MiB, so that to give them back does not hold the thread for long.
const KEPT: usize = (4 << 20) / RECORD_SIZE;

/// What a checkpoint says.
pub(crate) struct Records<'a> {
    table: Option<&'a Table>,
    instead: Option<&'a BTreeMap<BaseLba, Option<Mapping>>>,
    bad: Vec<SpareBlock>,
    /// At which pace it is made and written.
    pace: fn() -> Pace,
}

impl<'a> Records<'a> {
    /// That nothing is remapped.
    pub(crate) fn none() -> Records<'static> {
        Records { table: None, instead: None, bad: Vec::new(), pace: Pace::default }
    }

    /// What `table` holds, and which spare blocks are `bad`.
    pub(crate) fn of(table: &'a Table, bad: Vec<SpareBlock>) -> Records<'a> {
        let bad = if active(Mutation::BadSpareBlocksNotSaved) { Vec::new() } else { bad };
        Records { table: Some(table), instead: None, bad, pace: Pace::default }
    }

    /// With this instead of what the table holds for some blocks.
    pub(crate) fn with(self, instead: &'a BTreeMap<BaseLba, Option<Mapping>>) -> Records<'a> {
        Records { instead: Some(instead).filter(|instead| !instead.is_empty()), ..self }
    }

    /// The same, made and written at this pace.
    pub(crate) fn at(self, pace: fn() -> Pace) -> Records<'a> {
        Records { pace, ..self }
    }

    /// Begins to make them.
    fn make(&self) -> Making<'_> {
        let end = self.table.map_or(BaseLba(0), |table| BaseLba(table.base_blocks()));
        let rest = self.bad.iter();
        Making { of: self, pace: (self.pace)(), from: BaseLba(0), end, run: None, bad: rest, last: None, ended: false }
    }

    /// Makes all of them, so that it is known how many there are, in chunks of `most`.
    pub(super) async fn count(&self, most: usize) -> Counted<'_> {
        self.count_keeping(most, KEPT).await
    }

    async fn count_keeping(&self, most: usize, keep: usize) -> Counted<'_> {
        let (mut making, mut kept, mut len) = (self.make(), Vec::new(), 0);
        while len < keep && !making.is_done() {
            let mut chunk = Vec::with_capacity(most);
            making.fill(&mut chunk, most).await;
            len += chunk.len();
            kept.push(chunk);
        }
        let (behind, mut chunk) = (making.clone(), Vec::new());
        while !making.is_done() {
            making.fill(&mut chunk, most).await;
            len += chunk.len();
            chunk.clear();
        }
        Counted { kept, behind, most, len }
    }
}

/// Records that were counted.
pub(super) struct Counted<'a> {
    /// The first chunks.
    kept: Vec<Vec<RawRecord>>,
    /// What makes those behind them.
    behind: Making<'a>,
    /// Records of a chunk.
    most: usize,
    len: usize,
}

impl<'a> Counted<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The pace at which they are to be written, beside that at which those are made that were not kept.
    pub(super) fn pace(&self) -> Pace {
        (self.behind.of.pace)()
    }

    /// All of them, from the first one on.
    pub(super) fn chunks(&self) -> Chunks<'a, '_> {
        Chunks { kept: self.kept.iter(), behind: self.behind.clone(), most: self.most, chunk: Vec::new() }
    }
}

/// Counted records, chunk by chunk.
pub(super) struct Chunks<'a, 'c> {
    kept: std::slice::Iter<'c, Vec<RawRecord>>,
    behind: Making<'a>,
    most: usize,
    chunk: Vec<RawRecord>,
}

impl Chunks<'_, '_> {
    /// The next chunk, which is empty in the end, and whether more are to come.
    pub(super) async fn next(&mut self) -> (&[RawRecord], bool) {
        let chunk = match self.kept.next() {
            Some(kept) => kept,
            None => {
                self.chunk.clear();
                self.behind.fill(&mut self.chunk, self.most).await;
                &self.chunk
            }
        };
        (chunk, self.kept.len() > 0 || !self.behind.is_done())
    }
}

/// Records that are being made.
#[derive(Clone)]
struct Making<'a> {
    of: &'a Records<'a>,
    pace: Pace,
    /// What of the table is left.
    from: BaseLba,
    end: BaseLba,
    /// What was seen of it last, and may yet grow.
    run: Option<Run>,
    bad: std::slice::Iter<'a, SpareBlock>,
    /// The last record of what is not from the table, which may yet grow.
    last: Option<Record>,
    ended: bool,
}

impl Making<'_> {
    /// Makes more, until there are `most` in `records`, or no more are to come.
    async fn fill(&mut self, records: &mut Vec<RawRecord>, most: usize) {
        while records.len() < most {
            let entries = self.some(records, most);
            if entries == 0 {
                break;
            }
            self.pace.step(entries).await;
        }
    }

    /// Whether no more are to come.
    fn is_done(&self) -> bool {
        self.ended && self.last.is_none()
    }

    /// As many as long work makes in one step, and no more than that there are `most`; of how many entries, of which there are none only
    /// in the end.
    fn some(&mut self, records: &mut Vec<RawRecord>, most: usize) -> usize {
        if let Some(table) = self.of.table
            && self.from < self.end
        {
            return self.of_table(table, records, most).max(1);
        }
        if let Some(run) = self.run.take() {
            records.push(run.record().encode());
        } else if let Some(spare) = self.bad.next() {
            add(&mut self.last, Record::BadSpare { spare: *spare, count: 1 }, records);
        } else if !self.ended {
            self.ended = true;
            add(&mut self.last, Record::EndOfCheckpoint, records);
        } else if let Some(last) = self.last.take() {
            records.push(last.encode());
        } else {
            return 0;
        }
        1
    }

    fn of_table(&mut self, table: &Table, records: &mut Vec<RawRecord>, most: usize) -> usize {
        let Making { of: Records { instead, .. }, from, end, run, .. } = self;
        let (mut seen, mut next) = (0, *end);
        let _ = table.visit(Extent::new(*from, end.0 - from.0), |lba, held| {
            if seen == Pace::STRIDE || records.len() == most {
                next = lba;
                return ControlFlow::Break(());
            }
            seen += 1;
            let mapping = match instead.and_then(|instead| instead.get(&lba)) {
                Some(instead) => *instead,
                None => Some(held),
            };
            let Some(mapping) = mapping else { return ControlFlow::Continue(()) };
            match run {
                Some(run) if run.goes_on(lba, mapping) => run.count += 1,
                _ => {
                    let before = run.replace(Run { lba, mapping, count: 1 });
                    records.extend(before.map(|run| run.record().encode()));
                }
            }
            ControlFlow::Continue(())
        });
        *from = next;
        seen
    }
}

/// Blocks of the table that follow one another, on the base and on the spare. To have a [`Record`] grow instead would take twice as long,
/// and commits wait for a checkpoint.
#[derive(Clone, Copy)]
struct Run {
    lba: BaseLba,
    /// Of the first.
    mapping: Mapping,
    count: u32,
}

impl Run {
    /// Whether this is the block behind it.
    #[inline]
    fn goes_on(&self, lba: BaseLba, mapping: Mapping) -> bool {
        lba == self.lba.plus(u64::from(self.count))
            && self.mapping.plus(u64::from(self.count)) == Some(mapping)
            && self.count < u32::MAX
    }

    #[inline]
    fn record(&self) -> Record {
        let Run { lba, mapping, count } = *self;
        match mapping {
            Mapping::Spare(spare) => Record::Remap { lba, spare, count },
            Mapping::Lost(spare) => Record::Lost { lba, spare, count },
            Mapping::Pending => Record::Pending { lba, count },
        }
    }
}

/// Has the `last` record grow by `record`, or lets this be the last one, and puts the one before into `records`.
#[inline]
fn add(last: &mut Option<Record>, record: Record, records: &mut Vec<RawRecord>) {
    if last.as_mut().is_some_and(|last| last.extend(record)) {
        return;
    }
    records.extend(last.replace(record).map(Record::encode));
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::slot::Slot;
    use crate::table::{Change, TableWriter};

    fn spare(index: u32) -> SpareBlock {
        SpareBlock::new(Slot::FIRST, index).unwrap()
    }

    /// All of them, made in chunks of `most`, of which `keep` are kept and the others made again.
    fn all(records: &Records<'_>, most: usize, keep: usize) -> Vec<Record> {
        let make = async {
            let counted = records.count_keeping(most, keep).await;
            let (mut chunks, mut all) = (counted.chunks(), Vec::new());
            loop {
                let (some, more) = chunks.next().await;
                assert!((1..=most).contains(&some.len()));
                all.extend(some.iter().map(|raw| Record::decode(raw, Slot::FIRST).unwrap()));
                if !more {
                    break;
                }
            }
            assert_eq!(chunks.next().await, ([].as_slice(), false));
            assert_eq!(counted.len(), all.len());
            all
        };
        // It waits for nothing but that others were let go on.
        let mut make = Box::pin(make);
        loop {
            if let Some(all) = make.as_mut().now_or_never() {
                return all;
            }
        }
    }

    #[test]
    fn they_are_the_same_however_many_are_made_at_once() {
        let mut writer = TableWriter::new(1 << 20);
        let to = |lba, to| Change { lba: BaseLba(lba), to: Some(to) };
        let mut changes = vec![to(3, Mapping::Pending), to(4, Mapping::Pending), to(9, Mapping::Lost(spare(7)))];
        // Longer than what is made in one step, and than a region.
        changes.extend((0..40_000).map(|at| to(20_000 + at, Mapping::Spare(spare(100 + at as u32)))));
        changes.push(to((1 << 20) - 1, Mapping::Spare(spare(1))));
        drop(writer.publish(changes));
        let instead = BTreeMap::from([(BaseLba(4), None), (BaseLba(9), Some(Mapping::Pending))]);
        let records = Records::of(writer.table(), vec![spare(5), spare(6), spare(8)]).with(&instead);
        let expected = [
            Record::Pending { lba: BaseLba(3), count: 1 },
            Record::Pending { lba: BaseLba(9), count: 1 },
            Record::Remap { lba: BaseLba(20_000), spare: spare(100), count: 40_000 },
            Record::Remap { lba: BaseLba((1 << 20) - 1), spare: spare(1), count: 1 },
            Record::BadSpare { spare: spare(5), count: 2 },
            Record::BadSpare { spare: spare(8), count: 1 },
            Record::EndOfCheckpoint,
        ];
        for (most, keep) in [1, 2, 3, 6, 7, 1000].into_iter().flat_map(|most| (0..9).map(move |keep| (most, keep))) {
            assert_eq!(all(&records, most, keep), expected, "{most} at once, {keep} kept");
        }
        assert_eq!(all(&Records::none(), 1, 0), [Record::EndOfCheckpoint]);
    }
}
