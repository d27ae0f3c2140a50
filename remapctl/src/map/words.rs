//! Numbers and sentences of the pictures, as people read them.

use std::ops::Range;
use std::time::UNIX_EPOCH;

use remap_core::ListedExtent;

use super::palette::steps;
use super::picture::{Picture, spare};
use crate::inspect::date;
use crate::units::{Amount, bytes};

/// 1234567 as 1,234,567.
pub fn count(number: u64) -> String {
    Amount(number).to_string()
}

/// So many blocks, in bytes, as MiB and the like.
pub fn size(blocks: u64, block_size: u32) -> String {
    bytes(blocks.saturating_mul(block_size.into())).replace(".00 ", " ")
}

/// What the four shades of remapped cells mean, and of none of them if all cells are single blocks.
pub fn shades(cell_blocks: u64) -> Vec<(&'static str, String)> {
    let [second, third, fourth] = steps(cell_blocks);
    let until =
        |from: u64, to: u64| if from + 1 == to { count(from) } else { format!("{} to {}", count(from), count(to - 1)) };
    let all = [("remapped-1", 1, second), ("remapped-2", second, third), ("remapped-3", third, fourth)];
    let steps = all.into_iter().filter(|(_, from, to)| from < to).map(|(colour, from, to)| (colour, until(from, to)));
    let last = if cell_blocks == 1 { String::new() } else { format!("{} and more", count(fourth)) };
    steps.chain([("remapped-4", last)]).collect()
}

/// Blocks from the first to the last.
pub fn blocks(range: &Range<u64>) -> String {
    match range.end.saturating_sub(range.start) {
        0 | 1 => count(range.start),
        _ => format!("{} to {}", count(range.start), count(range.end - 1)),
    }
}

/// Text that was read from a device, in a line and without what cannot be shown, or not be in a document (the last two).
pub fn shown(text: &str) -> String {
    let cannot_be = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if cannot_be(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// When everything was read.
pub fn read_at(picture: &Picture) -> String {
    let since = picture.about.read_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    date(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// How the spare is used: blocks used, lost, bad, free.
pub fn spare_counts(picture: &Picture) -> [u64; 4] {
    let sum = |kind: usize| picture.spare.cells().iter().map(|cell| cell[kind]).sum::<u64>();
    let [used, bad, lost] = [spare::USED, spare::BAD, spare::LOST].map(sum);
    // What a target says can be any number.
    let bad = bad.saturating_add(picture.about.spare.bad);
    [used, lost, bad, picture.about.spare.room.saturating_sub((used + lost).saturating_add(bad))]
}

/// How much of the spare is taken.
pub fn taken(picture: &Picture) -> String {
    let total = picture.about.spare.room;
    let [.., free] = spare_counts(picture);
    percent(total - free, total)
}

/// A part of all, in percent.
pub fn percent(part: u64, all: u64) -> String {
    match u128::from(part) * 1000 / u128::from(all.max(1)) {
        0 if part > 0 => "under 0.1 %".to_owned(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// What the whole picture says, in a sentence for those who do not see it.
pub fn summary(picture: &Picture) -> String {
    let about = &picture.about;
    let [remapped, pending, lost] = picture.counts;
    let parts = picture.worst().count();
    let place = match picture.worst().next() {
        None => "nothing is remapped, pending or lost".to_owned(),
        Some(_) => format!("they are in {parts} of {} parts of the base", picture.regions.cells().len()),
    };
    let [.., free] = spare_counts(picture);
    format!(
        "{}: of {} blocks of {} bytes, {} are remapped, {} pending, {} lost; {place}. The spare is {} taken, {} blocks are free.",
        shown(&about.name),
        count(about.base_blocks),
        about.block_size,
        count(remapped),
        count(pending),
        count(lost),
        taken(picture),
        count(free)
    )
}

/// A lost extent: where it is, in blocks and bytes.
pub fn lost_line(extent: &ListedExtent, block_size: u32) -> String {
    let range = extent.lba.0..extent.lba.plus(extent.num_blocks).0;
    let byte = extent.lba.0.saturating_mul(block_size.into());
    format!("LBA {}, {} from byte {} on", blocks(&range), size(extent.num_blocks, block_size), count(byte))
}
