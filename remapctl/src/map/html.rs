//! The picture as a page: one file, which asks nobody for anything. What is drawn is in it as bytes, and `page.js` draws it; all that counts
//! is said in words as well, for those who do not see it, or have no scripts.

use std::io::Write;

use base64::prelude::{BASE64_STANDARD, Engine};
use base64::write::EncoderWriter;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::about::Moment;
use super::grid::{COLUMNS, Cell};
use super::palette::properties;
use super::picture::Picture;
use super::words::{blocks, count, lost_line, percent, read_at, shades, shown, size, spare_counts, summary, taken};
use crate::error::{Error, Verdict};

const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
/// Where the extents go.
const PLACE: &str = "(extents)";

/// Writes the picture.
///
/// # Errors
/// [`Error::Stdout`].
pub fn write(picture: &Picture, out: &mut impl Write) -> Result<(), Error> {
    let page = page(picture).into_string();
    // What was read from a device comes before it.
    let (before, behind) = page.rsplit_once(PLACE).unwrap_or((&page, ""));
    out.write_all(before.as_bytes())?;
    let mut encoder = EncoderWriter::new(&mut *out, &BASE64_STANDARD);
    encoder.write_all(picture.packed.bytes())?;
    encoder.finish()?;
    drop(encoder);
    Ok(out.write_all(behind.as_bytes())?)
}

fn page(picture: &Picture) -> Markup {
    let about = &picture.about;
    let style = style();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (shown(&about.name)) ": where its blocks are" }
                style { (PreEscaped(style)) }
            }
            body data-picture=(facts(picture)) {
                (head(picture))
                main {
                    (base(picture))
                    (spare(picture))
                    (places(picture))
                    (history(picture))
                }
                script #extents type="application/octet-stream" { (PreEscaped(PLACE)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn style() -> String {
    properties() + STYLE
}

/// The content security policy of the page, for who serves it: nothing may be loaded, and no script but its own runs, whatever the name of
/// a set is.
#[must_use]
pub fn policy() -> String {
    format!(
        "default-src 'none'; img-src data:; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        source(SCRIPT),
        source(&style())
    )
}

/// How a policy names an inline script or style.
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// What the script has to know beside the extents.
fn facts(picture: &Picture) -> String {
    let about = &picture.about;
    let facts = json!({
        "block_size": about.block_size,
        "base_blocks": about.base_blocks,
        "extents": picture.packed.extents(),
        "columns": COLUMNS,
        "spare": {
            "first": about.spare.first,
            "blocks": picture.spare.blocks(),
            "cell_blocks": picture.spare.cell_blocks(),
            "cells": picture.spare.cells(),
        },
    });
    facts.to_string()
}

fn head(picture: &Picture) -> Markup {
    let about = &picture.about;
    let [remapped, pending, lost] = picture.counts;
    let [_, _, bad, free] = spare_counts(picture);
    let verdict = if about.verdict == Verdict::Sound { "sound" } else { "damaged" };
    let figure = |colour: &str, figure: &str, name: &str, more: &str| {
        html! {
            div class={ "figure " (colour) } { dd { (figure) } dt { (name) } dd.more { (more) } }
        }
    };
    html! {
        header {
            div {
                h1 { (shown(&about.name)) }
                p class={ "verdict " (verdict) } { strong { "metadata " (about.verdict.name()) } ": " (about.sentence) }
            }
            p.source { "as of " time { (read_at(picture)) } br; "set " (about.set_uuid) br; (shown(&about.source)) }
        }
        dl.figures {
            (figure("remapped", &count(remapped), "remapped", &format!("{} on the spare", size(remapped, about.block_size))))
            (figure("pending", &count(pending), "pending", "unreadable, not rewritten"))
            (figure("lost", &count(lost), "lost", "reads fail until written"))
            (figure("taken", &taken(picture), "of the spare taken", &format!("{} free, {} bad", count(free), count(bad))))
        }
        @for note in &about.notes { p.note { (note) } }
    }
}

fn base(picture: &Picture) -> Markup {
    let about = &picture.about;
    html! {
        section aria-labelledby="base" {
            h2 #base {
                "Base" small { (count(about.base_blocks)) " blocks of " (about.block_size) " bytes, " (size(about.base_blocks, about.block_size)) }
            }
            p.hidden #summary { (summary(picture)) }
            noscript { p.note { "The picture is drawn by the script in this file, which is not run; what is below says the same in words." } }
            div.tools role="group" aria-label="What is shown" {
                button #out title="zoom out (-)" aria-label="zoom out" { "−" }
                button #in title="zoom in (+)" aria-label="zoom in" { "+" }
                button #whole title="the whole device (0)" { "Whole" }
                span.gap {}
                button #previous title="the extent before (p)" { "‹ Previous" }
                button #next title="the next extent (n)" { "Next ›" }
                label { "of " select #kind {
                    option value="any" { "all" }
                    option value="pending" { "pending and lost" }
                    option value="lost" { "lost" }
                } }
                span.gap {}
                label { "LBA " input #go inputmode="numeric" size="14" placeholder="go to" autocomplete="off"; }
                span.scale #scale {}
            }
            canvas #strip height="26" title="The whole device; the frame is what is shown below" aria-hidden="true" {}
            canvas #cells tabindex="0" role="application" aria-describedby="summary said"
                aria-label="Map of the base. Arrow keys move, plus and minus zoom, n and p go to the next and previous extent." {}
            p #tip hidden aria-hidden="true" {}
            p #said role="status" aria-live="polite" {}
            ul.legend #legend { (legend(picture.base.cell_blocks(), "nothing", "remapped", &[("pending", "any pending"), ("lost", "any lost")])) }
            p.keys {
                kbd { "wheel" } ", " kbd { "+" } " " kbd { "−" } " zoom · " kbd { "drag" } ", " kbd { "arrows" } ", " kbd { "page" } " move · "
                kbd { "double click" } ", " kbd { "Enter" } " down to single blocks · " kbd { "n" } " " kbd { "p" } " next, previous · " kbd { "0" } " whole"
            }
        }
    }
}

fn legend(cell_blocks: u64, nothing: &str, what: &str, worst: &[(&str, &str)]) -> Markup {
    html! {
        li { i.clean {} (nothing) }
        @for ((colour, says), first) in shades(cell_blocks).into_iter().zip([true].into_iter().chain(std::iter::repeat(false))) {
            li.shade { i class=(colour) {} (says) @if first { " " (what) } }
        }
        @for (colour, says) in worst { li { i class=(colour) {} (says) } }
    }
}

fn spare(picture: &Picture) -> Markup {
    let about = &picture.about;
    let [used, lost, bad, free] = spare_counts(picture);
    let (front, back) = about.spare.metadata.split_at(about.spare.metadata.len() / 2);
    let part = |part: &super::about::Part| {
        html! {
            li.force[part.in_force] { b { (part.name) } span { (part.says) } span { "LBA " (count(part.first)) } }
        }
    };
    html! {
        section aria-labelledby="spare" {
            h2 #spare { "Spare" small {
                (count(used)) " blocks used, " (count(lost)) " without their data, " (count(bad)) " bad, " (count(free)) " free"
            } }
            @if !about.spare.metadata.is_empty() { ol.parts {
                @for one in front { (part(one)) }
                li.data { b { "data" } span { (taken(picture)) " taken" } span { "LBA " (count(about.spare.first)) } }
                @for one in back { (part(one)) }
            } }
            canvas #on-spare role="img" aria-describedby="spare" {}
            p #spare-said {}
            ul.legend { (legend(picture.spare.cell_blocks(), "free", "used", &[("bad", "any bad"), ("lost", "any without its data")])) }
        }
    }
}

/// Where something is, by large parts of the base, and what is lost.
fn places(picture: &Picture) -> Markup {
    let size = |blocks| size(blocks, picture.about.block_size);
    let all = picture.counts.iter().sum();
    let row = |(range, cell): (std::ops::Range<u64>, Cell)| {
        html! {
            tr {
                th scope="row" { (blocks(&range)) }
                td { (size(range.start)) }
                @for (kind, colour) in ["remapped", "pending", "lost"].into_iter().enumerate() {
                    td.{ @if cell[kind] > 0 { (colour) } @else { "none" } } { (count(cell[kind])) }
                }
                td { (percent(cell.iter().sum(), all)) }
            }
        }
    };
    let more = picture.lost_extents.saturating_sub(picture.lost.len() as u64);
    html! {
        section aria-labelledby="places" {
            h2 #places { "By region" }
            @if picture.packed.extents() == 0 { p { "Nothing is remapped, pending or lost." } }
            @else {
                div.wide { table {
                    thead { tr {
                        th scope="col" { "LBA" } th scope="col" { "from byte" } th scope="col" { "remapped" } th scope="col" { "pending" }
                        th scope="col" { "lost" } th scope="col" { "share" }
                    } }
                    tbody { @for part in picture.worst() { (row(part)) } }
                } }
            }
            @if !picture.lost.is_empty() {
                h3 { "Lost" }
                ul.plain {
                    @for extent in &picture.lost { li { (lost_line(extent, picture.about.block_size)) } }
                    @if more > 0 { li { "and " (count(more)) " more: " code { "remapctl list --state lost" } } }
                }
            }
        }
    }
}

fn history(picture: &Picture) -> Markup {
    let cell = |moment: &Moment| {
        html! {
            tr {
                th scope="row" { (moment.what) }
                td { @if let Some(when) = &moment.when { time { (when) } } }
                td { @if let Some(epoch) = moment.epoch { (epoch) } }
                td { @if let Some(sequence) = moment.sequence { (sequence) } }
                td { (moment.says) }
            }
        }
    };
    html! {
        section aria-labelledby="history" {
            h2 #history { "What the metadata know" }
            div.wide { table.text {
                thead { tr {
                    th scope="col" { "where" } th scope="col" { "written" } th scope="col" { "epoch" } th scope="col" { "sequence" } th scope="col" { "" }
                } }
                tbody { @for moment in &picture.about.history { (cell(moment)) } }
            } }
        }
    }
}
