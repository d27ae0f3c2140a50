//! The status page: all that there is in one document, without scripts, which loads itself anew.

use std::fmt::Display;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use uuid::Uuid;

use crate::rpc::Client;
use crate::rpc::answers::{Job, Online};
use crate::rpc::look::Seen;
use crate::units::{Amount, bytes, counted};

/// Seconds between two looks.
const EVERY: u32 = 5;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(client: &Client) -> String {
    let sets = client.look();
    document(html! {
        p { "The target at " code { (client.socket().display()) } ", every " (EVERY) " s. " a href="metrics" { "Metrics" } }
        @match sets {
            Err(failure) => p .bad { (failure) },
            Ok(sets) if sets.is_empty() => p { "The target has no set." },
            Ok(sets) => @for seen in &sets { (about(seen)) },
        }
    })
}

/// The page from which one goes to the maps of these sets.
pub(super) fn maps(client: &Client, sets: &[Online]) -> String {
    document(html! {
        p { "The target at " code { (client.socket().display()) } ", every " (EVERY) " s. " a href="/" { "Sets" } }
        @if sets.is_empty() {
            p { "No set is online: there is no map to draw." }
        }
        @for set in sets {
            h2 { (set.name) " " span class=(class(&set.state)) { (set.state) } }
            code { (set.uuid) } " " (link_to_map(set.uuid))
        }
    })
}

fn document(content: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content=(EVERY);
                meta name="viewport" content="width=device-width";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { "bdev_remap" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "bdev_remap" }
                (content)
            }
        }
    };
    page.into_string()
}

fn link_to_map(set: Uuid) -> Markup {
    html! { a href={ "map/" (set) } { "Map" } }
}

/// How a state looks.
fn class(state: &str) -> &'static str {
    match state {
        "online" => "good",
        "degraded" | "tripped" | "waiting" => "bad",
        _ => "warn",
    }
}

fn row(what: &str, value: impl Display) -> Markup {
    html! { tr { th { (what) } td { (value.to_string()) } } }
}

fn about(seen: &Seen) -> Markup {
    let (set, (base, spare)) = (&seen.set, seen.set.bdevs());
    let state = set.state();
    html! {
        h2 { (set.name()) " " span class=(class(state)) { (state) } }
        code { (set.uuid()) }
        @if set.online().is_some() {
            " " (link_to_map(set.uuid()))
        }
        table {
            (row("base", base.unwrap_or("not there")))
            (row("spare", spare.unwrap_or("not there")))
            @if let Some(online) = set.online() {
                (about_online(seen, online))
            } @else if let Some(sentence) = set.waits_for() {
                (row("waits for", sentence))
            }
        }
    }
}

fn about_online(seen: &Seen, set: &Online) -> Markup {
    let (remapped, pending, lost) = (Amount(set.remapped), Amount(set.pending), Amount(set.lost));
    let (free, total, bad) = (Amount(set.spare.free), Amount(set.spare.total), Amount(set.spare.bad));
    let bad_copies = set.metadata.bad().map(|bad| format!("bad: {bad}"));
    let metadata = bad_copies.unwrap_or_else(|| "every copy is whole".to_owned());
    let counters = &set.counters;
    let (rescued, blocks) = (counted(counters.rescued_writes, "write"), counted(counters.rescued_blocks, "block"));
    let (reads, writes) = (counted(counters.failed_reads, "read"), counted(counters.failed_writes, "write"));
    html! {
        @if let Some(bdev) = &seen.bdev {
            @let size = bytes(bdev.num_blocks.saturating_mul(bdev.block_size.into()));
            (row("size", format_args!("{size}, in blocks of {} bytes", bdev.block_size)))
        }
        (row("blocks", format_args!("{remapped} remapped, {pending} pending, {lost} lost")))
        (row("room", format_args!("{free} of {total} spare blocks free, {bad} bad")))
        (row("metadata", metadata))
        (row("rescued", format_args!("{rescued}, {blocks}")))
        (row("failed", format_args!("{reads}, {writes}")))
        @for job in &set.jobs { (about_job(job)) }
    }
}

fn about_job(job: &Job) -> Markup {
    let (done, total) = (job.blocks_done, job.blocks_total);
    html! {
        tr {
            th { (job.kind) }
            td {
                (job.state)
                @if job.runs() && total > 0 {
                    " " progress value=(done) max=(total) {} " " (Amount(done).to_string()) " of " (Amount(total).to_string())
                } @else {
                    ", " (Amount(done).to_string()) " blocks"
                }
                @if let Some(error) = &job.error {
                    ": " span .bad { (error) }
                }
            }
        }
    }
}
