//! What `inspect` tells, for people.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use indicatif::BinaryBytes;

use super::report::{AreaReport, Damage, PageReport, Report, SetReport, SuperblockReport, SuperblockSays};
use crate::map::words::shown;
use crate::style::{BOLD, GOOD, WARN, styled, verdict};
use crate::units::counted;

/// Runs of pages, and lines of damage, that are shown; JSON has all of them.
const SHOWN: usize = 24;
/// The first moment of the year 10000, which is as far as dates can be written.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_800);

/// A line of superblocks: its name, and what a copy says.
type Row = (&'static str, fn(&SuperblockSays) -> String);

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let size = BinaryBytes(report.bytes);
    writeln!(out, "{}: {size}, in blocks of {} bytes", styled(BOLD, report.spare.display()), report.block_size)?;
    if let Some(set) = &report.set {
        set_lines(set, out)?;
    }
    superblocks(&report.superblock_a, &report.superblock_b, out)?;
    for area in &report.areas {
        let in_force = report.in_force.as_ref().is_some_and(|in_force| in_force.state.area == area.area);
        area_lines(area, in_force, out)?;
    }
    if let Some(log) = &report.in_force {
        let whole = |whole| if whole { styled(GOOD, "whole") } else { styled(WARN, "not whole") };
        writeln!(out, "\n{}", styled(BOLD, "in force"))?;
        writeln!(
            out,
            "  epoch {}, sequence {}, in area {}: {} of checkpoint, {} behind it; copy A is {}, copy B is {}",
            log.state.epoch,
            log.state.sequence,
            log.state.area,
            counted(log.checkpoint_pages.into(), "page"),
            log.pages - log.checkpoint_pages,
            whole(log.copy_a_whole),
            whole(log.copy_b_whole)
        )?;
    }
    if !report.damage.is_empty() {
        writeln!(out, "\n{}", styled(BOLD, "not as it should be"))?;
        report.damage.iter().take(SHOWN).try_for_each(|damage| writeln!(out, "  {}", sentence(damage)))?;
        rest(report.damage.len(), out)?;
    }
    writeln!(out)?;
    match &report.refusal {
        None => writeln!(out, "{}", verdict(report.verdict)),
        Some(why) => {
            writeln!(out, "{}: {why}", verdict(report.verdict))?;
            for state in &report.candidates {
                let (epoch, sequence) = (state.epoch, state.sequence);
                writeln!(out, "  there is a state at epoch {epoch}, sequence {sequence} (--at {epoch}:{sequence})")?;
            }
            Ok(())
        }
    }
}

fn set_lines(set: &SetReport, out: &mut impl Write) -> io::Result<()> {
    let mut line = |name: &str, value: String| writeln!(out, "  {name:<12} {value}");
    line("set", format!("\"{}\", {}, generation {}", shown(&set.name), set.set_uuid, set.generation))?;
    let md = if set.md_size == 0 { String::new() } else { format!(", with {} bytes of metadata each", set.md_size) };
    line("base", format!("{}, {} blocks{md}", set.base_uuid, set.base_blocks))?;
    line("spare", format!("{}, slot {}, {}", set.spare_id, set.slot, set.state))?;
    if let Some(other) = &set.other_spare {
        line("other spare", format!("{}, {}", other.spare_id, other.state))?;
    }
    line("host", if set.host_id.is_nil() { "any".to_owned() } else { set.host_id.to_string() })?;
    line(
        "used",
        if set.in_use { "not closed: it is in use, or its process died" } else { "closed cleanly" }.to_owned(),
    )?;
    let (data, start) = (set.data_blocks, set.data_start);
    line(
        "room",
        format!(
            "{data} blocks for data from block {start} on; log areas of {}",
            counted(set.area_pages.into(), "page")
        ),
    )?;
    if let (Some(next), Some(end)) = (set.scrub_next, set.scrub_end) {
        line("scrub", format!("has not ended: goes on at block {} of {}", next.0, end.0))?;
    }
    Ok(())
}

fn superblocks(a: &SuperblockReport, b: &SuperblockReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{} {:>28} {:>28}", styled(BOLD, format!("{:<14}", "superblock")), "copy A", "copy B")?;
    writeln!(out, "  {:<12} {:>28} {:>28}", "content", a.content, b.content)?;
    let rows: [Row; 7] = [
        ("state", |says| says.state.to_owned()),
        ("sequence", |says| says.sequence.to_string()),
        ("written at", |says| date(says.written_at)),
        ("epoch", |says| says.epoch.to_string()),
        ("committed", |says| says.committed.to_string()),
        ("noted epoch", |says| says.noted_epoch.to_string()),
        ("in use", |says| {
            let in_use = if says.in_use { "yes" } else { "no" };
            if says.log_ended { format!("{in_use}, log ended") } else { in_use.to_owned() }
        }),
    ];
    if a.says.is_none() && b.says.is_none() {
        return Ok(());
    }
    for (name, value) in rows {
        let of = |copy: &SuperblockReport| copy.says.as_ref().map_or_else(|| "-".to_owned(), value);
        let (a, b) = (of(a), of(b));
        writeln!(out, "  {name:<12} {a:>28} {b:>28}{}", if a == b { "" } else { "  <" })?;
    }
    Ok(())
}

/// A moment in microseconds since 1970.
pub(crate) fn date(micros: u64) -> String {
    let since = Duration::from_micros(micros);
    match SystemTime::UNIX_EPOCH.checked_add(since).filter(|_| since < LAST_DATE) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("{micros} us"),
    }
}

fn area_lines(area: &AreaReport, in_force: bool, out: &mut impl Write) -> io::Result<()> {
    let name = format!("log area {}{}", area.area, if in_force { "*" } else { "" });
    writeln!(out, "\n{} {:>28} {:>28}", styled(BOLD, format!("{name:<14}")), "copy A", "copy B")?;
    for run in area.pages.iter().take(SHOWN) {
        let last = run.first + run.pages - 1;
        let pages = if run.pages == 1 { format!("page {last}") } else { format!("{}-{last}", run.first) };
        let mark = if run.copy_a == run.copy_b && run.copy_a != PageReport::Bad { "" } else { "  <" };
        writeln!(out, "  {pages:<12} {:>28} {:>28}{mark}", view(run.copy_a), view(run.copy_b))?;
    }
    rest(area.pages.len(), out)
}

fn view(page: PageReport) -> String {
    match page {
        PageReport::Zero => "never written".to_owned(),
        PageReport::Epoch(epoch) => format!("epoch {epoch}"),
        PageReport::Bad => "bad".to_owned(),
    }
}

fn rest(all: usize, out: &mut impl Write) -> io::Result<()> {
    if all > SHOWN { writeln!(out, "  and {} more: see --json", all - SHOWN) } else { Ok(()) }
}

fn sentence(damage: &Damage) -> String {
    let since = |epoch: &dyn Display| format!(", since epoch {epoch} or later");
    let since = damage.since_epoch.as_ref().map_or_else(String::new, |epoch| since(epoch));
    let Damage { of, copy, what, .. } = damage;
    match (damage.area, damage.first, damage.pages) {
        (Some(area), Some(first), Some(pages)) => {
            let last = first + pages - 1;
            let which = if pages == 1 { format!("page {first} is") } else { format!("pages {first} to {last} are") };
            format!("{of} area {area}, copy {copy}: {which} {what}{since}")
        }
        _ => format!("{of} {copy} is {what}{since}"),
    }
}
