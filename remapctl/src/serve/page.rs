//! The status page: all that there is in one document, without scripts, which loads itself anew.

use std::fmt::{self, Display, Write};

use crate::rpc::Client;
use crate::rpc::answers::{Job, Online};
use crate::rpc::look::Seen;
use crate::units::{Amount, bytes};

/// Seconds between two looks.
const EVERY: u32 = 5;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.2em 1em .2em 0;text-align:left;vertical-align:top}\
th{font-weight:normal;color:#666}h2{margin-bottom:0}code{color:#666}progress{width:16em}\
.good{color:#0a7d33}.warn{color:#b35900}.bad{color:#c62828;font-weight:bold}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,code{color:#999}a{color:#8ab4f8}\
.good{color:#5bd68a}.warn{color:#ffb454}.bad{color:#ff6b6b}}";

/// Text in a document.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// The page.
pub(super) fn page(client: &Client) -> String {
    let mut html = String::new();
    // Writing into a string cannot fail.
    let _ = whole(&mut html, client);
    html
}

fn whole(html: &mut String, client: &Client) -> fmt::Result {
    write!(
        html,
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content={EVERY}>\
         <meta name=viewport content=\"width=device-width\"><title>bdev_remap</title><style>{STYLE}</style>\
         <h1>bdev_remap</h1><p>The target at <code>{}</code>, every {EVERY} s. <a href=metrics>Metrics</a></p>",
        Escaped(client.socket().display())
    )?;
    match client.look() {
        Err(failure) => write!(html, "<p class=bad>{}</p>", Escaped(failure)),
        Ok(sets) if sets.is_empty() => write!(html, "<p>The target has no set.</p>"),
        Ok(sets) => sets.iter().try_for_each(|seen| about(html, seen)),
    }
}

/// How a state looks.
fn class(state: &str) -> &'static str {
    match state {
        "online" => "good",
        "degraded" | "tripped" | "waiting" => "bad",
        _ => "warn",
    }
}

fn row(html: &mut String, what: &str, value: impl Display) -> fmt::Result {
    write!(html, "<tr><th>{what}<td>{}", Escaped(value))
}

fn about(html: &mut String, seen: &Seen) -> fmt::Result {
    let (set, (base, spare)) = (&seen.set, seen.set.bdevs());
    let state = set.state();
    write!(html, "<h2>{} <span class={}>{}</span></h2>", Escaped(set.name()), class(state), Escaped(state))?;
    write!(html, "<code>{}</code><table>", set.uuid())?;
    row(html, "base", base.unwrap_or("not there"))?;
    row(html, "spare", spare.unwrap_or("not there"))?;
    if let Some(online) = set.online() {
        about_online(html, seen, online)?;
    } else if let Some(sentence) = set.waits_for() {
        row(html, "waits for", sentence)?;
    }
    write!(html, "</table>")
}

fn about_online(html: &mut String, seen: &Seen, set: &Online) -> fmt::Result {
    if let Some(bdev) = &seen.bdev {
        let size = bytes(bdev.num_blocks.saturating_mul(bdev.block_size.into()));
        row(html, "size", format_args!("{size}, in blocks of {} bytes", bdev.block_size))?;
    }
    let (remapped, pending, lost) = (Amount(set.remapped), Amount(set.pending), Amount(set.lost));
    row(html, "blocks", format_args!("{remapped} remapped, {pending} pending, {lost} lost"))?;
    let (free, total, bad) = (Amount(set.spare.free), Amount(set.spare.total), Amount(set.spare.bad));
    row(html, "room", format_args!("{free} of {total} spare blocks free, {bad} bad"))?;
    let bad: Vec<_> = set.metadata.copies().into_iter().filter(|(_, ok)| !ok).map(|(copy, _)| copy).collect();
    match bad.is_empty() {
        true => row(html, "metadata", "every copy is whole")?,
        false => row(html, "metadata", format_args!("bad: {}", bad.join(", ")))?,
    }
    let counters = &set.counters;
    let (writes, blocks) = (Amount(counters.rescued_writes), Amount(counters.rescued_blocks));
    row(html, "rescued", format_args!("{writes} writes, {blocks} blocks"))?;
    let (reads, writes) = (Amount(counters.failed_reads), Amount(counters.failed_writes));
    row(html, "failed", format_args!("{reads} reads, {writes} writes"))?;
    set.jobs.iter().try_for_each(|job| about_job(html, job))
}

fn about_job(html: &mut String, job: &Job) -> fmt::Result {
    write!(html, "<tr><th>{}<td>{}", Escaped(&job.kind), Escaped(&job.state))?;
    if job.runs() && job.blocks_total > 0 {
        let (done, total) = (job.blocks_done, job.blocks_total);
        write!(html, " <progress value={done} max={total}></progress> {} of {}", Amount(done), Amount(total))?;
    } else {
        write!(html, ", {} blocks", Amount(job.blocks_done))?;
    }
    job.error.iter().try_for_each(|error| write!(html, ": <span class=bad>{}</span>", Escaped(error)))
}
