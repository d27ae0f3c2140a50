//! The picture as SVG: nothing in it moves, and it is no larger however many blocks there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use maud::{Markup, PreEscaped, html};

use super::about::Part;
use super::grid::{COLUMNS, Cell, Grid};
use super::palette::{classes, of_cell};
use super::picture::{Picture, spare};
use super::words::{count, lost_line, read_at, shades, shown, size, spare_counts, summary, taken};
use crate::error::Error;

const STYLE: &str = include_str!("svg.css");
/// From cell to cell.
const STEP: u64 = 6;
/// Of a cell; what is left of the step is a gap.
const SIDE: u64 = 5;
/// The whole.
const WIDTH: u64 = 1000;
/// Where cells begin.
const LEFT: u64 = 116;
/// Where they end.
const RIGHT: u64 = LEFT + COLUMNS * STEP;
/// From line to line of text.
const LINE: u64 = 18;
/// Rows from one label to the next.
const LABELLED: u64 = 8;
/// Lost extents that are named.
const NAMED: usize = 6;

/// Writes the picture.
///
/// # Errors
/// [`Error::Stdout`].
pub fn write(picture: &Picture, out: &mut impl Write) -> Result<(), Error> {
    let about = &picture.about;
    let base_top = 208;
    let base_bottom = base_top + picture.base.rows() * STEP;
    let strip_top = base_bottom + 76;
    let spare_top = strip_top + 94;
    let spare_bottom = spare_top + picture.spare.rows() * STEP;
    let (history, height) = history(picture, spare_bottom + 60);
    let base = html! {
        text x=(LEFT) y=(base_top - 40) {
            tspan.heading.ink { "Base" }
            tspan.small.faint dx="8" { (extent(&picture.base, about.block_size)) }
        }
        (axis(&picture.base, 0, about.block_size, base_top))
        (cells(&picture.base, base_top, |cell, blocks| of_cell(cell[0], cell[1], cell[2], blocks)))
        (base_legend(base_bottom + 24, picture.base.cell_blocks()))
    };
    let [_, lost, bad, _] = spare_counts(picture);
    let in_force = about.spare.metadata.iter().any(|part| part.in_force);
    let on_spare = html! {
        text x=(LEFT) y=(strip_top - 12) {
            tspan.heading.ink { "Spare" }
            tspan.small.faint dx="8" { (extent(&picture.spare, about.block_size)) @if in_force { "; green: in force" } }
        }
        @if !about.spare.metadata.is_empty() { (strip(picture, strip_top)) }
        (axis(&picture.spare, about.spare.first, about.block_size, spare_top))
        (cells(&picture.spare, spare_top, of_spare_cell))
        (spare_legend(spare_bottom + 24, picture.spare.cell_blocks(), bad > 0, lost > 0))
    };
    let markup = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}")) width=(WIDTH) height=(height) role="img"
            aria-labelledby="title description" {
            title #title { (shown(&about.name)) ": where its blocks are" }
            desc #description { (summary(picture)) }
            style { (PreEscaped(STYLE)) (PreEscaped(classes())) }
            rect.ground width=(WIDTH) height=(height) {}
            (head(picture))
            (base)
            (on_spare)
            (history)
        }
    };
    Ok(out.write_all(markup.into_string().as_bytes())?)
}

fn head(picture: &Picture) -> Markup {
    let about = &picture.about;
    let [remapped, pending, lost] = picture.counts;
    let [_, _, bad, free] = spare_counts(picture);
    let figures = [
        ("remapped-3", "remapped", count(remapped), size(remapped, about.block_size)),
        ("pending", "pending", count(pending), "unreadable, not rewritten".to_owned()),
        ("lost", "lost", count(lost), "reads fail until written".to_owned()),
        ("force", "of the spare taken", taken(picture), format!("{} free, {} bad", count(free), count(bad))),
    ];
    html! {
        text.title.ink x=(LEFT) y="38" { (shown(&about.name)) }
        text.faint x=(LEFT) y="59" { "metadata " (about.verdict.name()) ": " (about.sentence) }
        text.small.faint.end x=(RIGHT) y="38" { "as of " (read_at(picture)) }
        text.small.faint.end x=(RIGHT) y="59" { "set " (about.set_uuid) }
        @for ((colour, name, figure, more), index) in figures.iter().zip(0_u64..) {
            @let x = LEFT + index * (COLUMNS * STEP / 4);
            rect class=(colour) x=(x) y="80" width="4" height="46" {}
            text.figure.ink x=(x + 13) y="97" { (figure) }
            text.ink x=(x + 13) y="112" { (name) }
            text.small.faint x=(x + 13) y="126" { (more) }
        }
    }
}

/// How large it is, and what a cell is.
fn extent(grid: &Grid, block_size: u32) -> String {
    let (all, cell) = (grid.blocks(), grid.cell_blocks());
    format!(
        "{} blocks of {block_size} bytes, {}; a cell is {} ({}), a row {}",
        count(all),
        size(all, block_size),
        if cell == 1 { "one block".to_owned() } else { format!("{} blocks", count(cell)) },
        size(cell, block_size),
        size(cell.saturating_mul(COLUMNS), block_size)
    )
}

/// Block addresses on the left, bytes on the right.
fn axis(grid: &Grid, first: u64, block_size: u32, top: u64) -> Markup {
    let row = grid.cell_blocks().saturating_mul(COLUMNS);
    html! {
        text.small.faint.end x=(LEFT - 10) y=(top - 12) { "LBA" }
        text.small.faint x=(RIGHT + 8) y=(top - 12) { "byte" }
        @for line in (0..grid.rows()).step_by(LABELLED as usize) {
            @let (y, lba) = (top + line * STEP, row.saturating_mul(line).saturating_add(first));
            text.small.faint.end x=(LEFT - 10) y=(y + 6) { (count(lba)) }
            text.small.faint x=(RIGHT + 8) y=(y + 6) { @if lba == 0 { "0" } @else { (size(lba, block_size)) } }
            line.line-stroke x1=(LEFT - 7) x2=(LEFT - 2) y1=(y + 2) y2=(y + 2) {}
        }
    }
}

/// All cells of one colour are one path.
fn cells(grid: &Grid, top: u64, colour: impl Fn(&Cell, u64) -> &'static str) -> Markup {
    let (mut fills, mut crosses, mut dots) = (BTreeMap::<_, String>::new(), String::new(), String::new());
    for (index, cell) in grid.cells().iter().enumerate() {
        let colour = colour(cell, grid.cell_blocks());
        let (x, y) = (LEFT + index as u64 % COLUMNS * STEP, top + index as u64 / COLUMNS * STEP);
        let path = fills.entry(colour).or_default();
        // Writing to a string does not fail.
        let _ = write!(path, "M{x} {y}h{SIDE}v{SIDE}h-{SIDE}z");
        let _ = match colour {
            "lost" | "bad" => write!(crosses, "M{x} {y}m1 1l3 3m0-3l-3 3"),
            "pending" => write!(dots, "M{x} {y}m1.7 1.7h1.6v1.6h-1.6z"),
            _ => Ok(()),
        };
    }
    html! {
        @for (colour, path) in &fills { path class=(colour) d=(path) {} }
        @if !crosses.is_empty() { path.cross.mark-stroke d=(crosses) {} }
        @if !dots.is_empty() { path.ink d=(dots) {} }
    }
}

/// The colour of a cell of the spare.
fn of_spare_cell(cell: &Cell, blocks: u64) -> &'static str {
    if cell[spare::BAD] > 0 { "bad" } else { of_cell(cell[spare::USED], 0, cell[spare::LOST], blocks) }
}

fn base_legend(y: u64, cell_blocks: u64) -> Markup {
    let shades = shades(cell_blocks).into_iter().zip(0..);
    let shades =
        shades.map(|((colour, says), index)| (colour, if index == 0 { format!("{says} remapped") } else { says }));
    let worst = [("pending", "any pending".to_owned()), ("lost", "any lost".to_owned())];
    legend(y, [("clean", "nothing".to_owned())].into_iter().chain(shades).chain(worst))
}

fn spare_legend(y: u64, cell_blocks: u64, bad: bool, lost: bool) -> Markup {
    let shades = shades(cell_blocks).into_iter().zip(0..);
    let shades = shades.map(|((colour, says), index)| (colour, if index == 0 { format!("{says} used") } else { says }));
    let bad = bad.then(|| ("bad", "any bad".to_owned()));
    let lost = lost.then(|| ("lost", "any without its data".to_owned()));
    legend(y, [("clean", "free".to_owned())].into_iter().chain(shades).chain(bad).chain(lost))
}

/// The parts of the spare in their order, all equally wide, as metadata would not be seen beside the data.
fn strip(picture: &Picture, top: u64) -> Markup {
    let spare = &picture.about.spare;
    let (front, back) = spare.metadata.split_at(spare.metadata.len() / 2);
    let data = Part {
        name: "data".to_owned(),
        first: spare.first,
        blocks: spare.blocks,
        says: format!("{} taken", taken(picture)),
        in_force: false,
    };
    let parts: Vec<_> = front.iter().chain([&data]).chain(back).collect();
    let width = COLUMNS * STEP / parts.len() as u64;
    html! {
        @for (part, x) in parts.iter().zip((LEFT..).step_by(width as usize)) {
            rect.ground.line-stroke x=(x) y=(top) width=(width - 4) height="46" {}
            @if part.in_force { rect.force x=(x) y=(top) width="3" height="46" {} }
            text.small.ink x=(x + 8) y=(top + 14) { (part.name) }
            text.small.faint x=(x + 8) y=(top + 27) { (part.says) }
            text.small.faint x=(x + 8) y=(top + 40) { "LBA " (count(part.first)) }
        }
    }
}

fn legend(y: u64, entries: impl Iterator<Item = (&'static str, String)>) -> Markup {
    // Wide enough for the widest letters of the usual fonts.
    let places = entries.scan(LEFT, |x, (colour, says)| {
        let at = *x;
        *x += 32 + says.len() as u64 * 6;
        Some((colour, says, at))
    });
    html! {
        @for (colour, says, x) in places {
            rect class=(colour) x=(x) y=(y - 9) width="10" height="10" {}
            @if matches!(colour, "lost" | "bad") { path.cross.mark-stroke d=(format!("M{x} {y}m2-7l6 6m0-6l-6 6")) {} }
            @if colour == "pending" { path.ink d=(format!("M{x} {y}m3.5-5.5h3v3h-3z")) {} }
            text.small.faint x=(x + 15) y=(y) { (says) }
        }
    }
}

/// What is lost, what the metadata know of the past, and what else is good to know; and how high all of it is.
fn history(picture: &Picture, top: u64) -> (Markup, u64) {
    let about = &picture.about;
    let mut lines: Vec<(bool, String)> = Vec::new();
    if !picture.lost.is_empty() {
        lines.push((true, "Lost".to_owned()));
        lines.extend(picture.lost.iter().take(NAMED).map(|extent| (false, lost_line(extent, about.block_size))));
        let more = picture.lost_extents.saturating_sub(NAMED as u64);
        if more > 0 {
            lines.push((false, format!("and {} more: remapctl list --state lost", count(more))));
        }
    }
    lines.push((true, "What the metadata know".to_owned()));
    for moment in &about.history {
        let when = moment.when.as_ref().map_or_else(String::new, |when| format!("written {when}, "));
        let epoch = moment.epoch.map_or_else(String::new, |epoch| format!("epoch {epoch}, "));
        let sequence = moment.sequence.map_or_else(String::new, |sequence| format!("sequence {sequence}, "));
        lines.push((false, format!("{}: {when}{epoch}{sequence}{}", moment.what, moment.says)));
    }
    lines.extend(about.notes.iter().map(|note| (false, format!("note: {note}"))));
    let mut y = top;
    let mut placed = Vec::new();
    for (heading, line) in lines {
        y += if heading && y > top { LINE + 8 } else { LINE };
        placed.push((y, heading, line));
    }
    let markup = html! {
        @for (y, heading, line) in &placed {
            @if *heading { text.heading.ink x=(LEFT) y=(y) { (line) } } @else { text.small.faint x=(LEFT) y=(y) { (line) } }
        }
    };
    (markup, y + 28)
}
