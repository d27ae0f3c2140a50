//! Puts the [`View`] on the terminal, whatever its size.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Borders, Cell, LineGauge, List, Paragraph, RenderDirection, Row, Sparkline, Table, Wrap,
};

use super::view::{Happened, Rates, View};
use crate::rpc::answers::{Job, Online, Set};
use crate::rpc::look::Seen;
use crate::units::{Amount, bytes, counted};

const KEYS: &str = "up/down select   s save   r re-arm   b begin a scrub   x cancel it   q quit";
/// Lines of the sets at most, those of the details, and those of what was rescued.
const SETS: u16 = 12;
const DETAILS: u16 = 7;
const RESCUED: u16 = 4;
/// Of a bar: what is done, and what is to be done.
const DONE: &str = "█";
const TO_DO: &str = "░";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame, view: &mut View) {
    let sets = u16::try_from(view.sets.len()).unwrap_or(SETS).clamp(1, SETS) + 3;
    let jobs = view.selected().and_then(|seen| seen.set.online()).map_or(0, |set| set.jobs.len());
    let jobs = if jobs == 0 { 0 } else { u16::try_from(jobs).unwrap_or(SETS).min(SETS) + 2 };
    let heights = [
        Constraint::Length(1),
        Constraint::Length(sets),
        Constraint::Length(DETAILS),
        Constraint::Length(jobs),
        Constraint::Length(RESCUED),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [head, sets, details, jobs, rescued, events, said, keys] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(headline(view), head);
    draw_sets(frame, view, sets);
    if let Some(seen) = view.selected() {
        frame.render_widget(about(seen), details);
        draw_jobs(frame, seen, jobs);
        draw_rescued(frame, view, seen, rescued);
    }
    draw_events(frame, view, events);
    if let Some((sentence, well)) = &view.said {
        frame.render_widget(Line::styled(sentence.as_str(), if *well { Color::Green } else { Color::Red }), said);
    }
    frame.render_widget(Line::from(KEYS).dim(), keys);
}

fn headline(view: &View) -> Line<'_> {
    let socket = view.socket.display();
    match (&view.failure, &view.time) {
        (Some(failure), _) => Line::styled(failure.as_str(), Style::new().fg(Color::Red).bold()),
        (None, None) => Line::from(format!("{socket}: asking …")),
        (None, Some(time)) => Line::from(vec![
            "bdev_remap".bold(),
            Span::raw(format!(" at {socket}, {time} UTC, sets: {}", view.sets.len())),
        ]),
    }
}

fn color(state: &str) -> Color {
    match state {
        "online" | "done" | "running" => Color::Green,
        "degraded" | "tripped" | "waiting" | "failed" => Color::Red,
        _ => Color::Yellow,
    }
}

fn block(title: &str) -> Block<'_> {
    Block::new().borders(Borders::ALL).border_style(Style::new().dim()).title(Line::from(title).bold())
}

fn draw_sets(frame: &mut Frame, view: &mut View, area: Rect) {
    let titles =
        ["set", "state", "remapped", "pending", "lost", "spare free", "reads/s", "writes/s", "bytes/s", "rescued/s"];
    let numbers = |texts: Vec<String>| texts.into_iter().map(|text| Cell::from(Line::from(text).right_aligned()));
    let rows = view.sets.iter().map(|seen| {
        let set = &seen.set;
        let state = Cell::from(Span::styled(set.state().to_owned(), color(set.state())));
        let rates = view.paces.get(&set.uuid()).map(|pace| pace.rates).unwrap_or_default();
        let texts = set.online().map_or_else(Vec::new, |online| figures(online, rates));
        Row::new([Cell::from(set.name().to_owned()), state].into_iter().chain(numbers(texts)))
    });
    let header = titles.iter().enumerate().map(|(at, title)| {
        let line = Line::from(*title);
        Cell::from(if at < 2 { line } else { line.right_aligned() })
    });
    let widths = [16, 10, 10, 9, 8, 16, 9, 9, 12, 10].map(Constraint::Max);
    let table = Table::new(rows, widths)
        .header(Row::new(header).dim())
        .block(block("sets"))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    // Rows borrow what is shown, and the selection is changed while that is drawn.
    let mut selection = view.table;
    frame.render_stateful_widget(table, area, &mut selection);
    view.table = selection;
}

/// The numbers of a set in the table.
fn figures(set: &Online, rates: Rates) -> Vec<String> {
    let free = u128::from(set.spare.free) * 100 / u128::from(set.spare.total).max(1);
    let amount = |count| Amount(count).to_string();
    vec![
        amount(set.remapped),
        amount(set.pending),
        amount(set.lost),
        format!("{} ({free}%)", Amount(set.spare.free)),
        amount(rates.reads),
        amount(rates.writes),
        bytes(rates.bytes),
        amount(rates.rescued),
    ]
}

fn about(seen: &Seen) -> Paragraph<'_> {
    let set = &seen.set;
    let (base, spare) = set.bdevs();
    let (base, spare) = (base.unwrap_or("not there"), spare.unwrap_or("not there"));
    let mut lines = vec![Line::from(format!("{}   base {base}   spare {spare}", set.uuid()))];
    match set {
        Set::Online(online) => lines.extend(details(online)),
        Set::Offline(offline) => {
            lines.extend(offline.waits_for.as_ref().map(|sentence| Line::from(format!("waits for {sentence}")).red()));
        }
    }
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block(set.name()))
}

fn details(set: &Online) -> Vec<Line<'static>> {
    let metadata = match set.metadata.bad() {
        None => "every copy is whole".green(),
        Some(bad) => format!("bad: {bad}").red(),
    };
    let other = set.other_spare_bdev.as_ref().map_or_else(String::new, |other| format!("   other spare {other}"));
    let counters = &set.counters;
    let room = format!(
        "spare    {} of {} blocks free, {} bad{other}",
        Amount(set.spare.free),
        Amount(set.spare.total),
        Amount(set.spare.bad)
    );
    let rescued = format!(
        "rescued  {}, {}, {} when retried",
        counted(counters.rescued_writes, "write"),
        counted(counters.rescued_blocks, "block"),
        counted(counters.retried_reads, "read")
    );
    let failed = format!(
        "failed   {}, {}; media errors of {} of the spare",
        counted(counters.failed_reads, "read"),
        counted(counters.failed_writes, "write"),
        counted(counters.media_errors_spare, "block")
    );
    let (epoch, limit) = (set.epoch, Amount(set.storm_limit));
    let log = format!("log      epoch {epoch}, storm limit {limit} blocks, metadata: ");
    vec![Line::from(room), Line::from(rescued), Line::from(failed), Line::from(vec![Span::raw(log), metadata])]
}

fn draw_jobs(frame: &mut Frame, seen: &Seen, area: Rect) {
    let Some(set) = seen.set.online().filter(|set| !set.jobs.is_empty()) else { return };
    let outer = block("jobs");
    let inner = outer.inner(area);
    frame.render_widget(outer, area);
    let lines = Layout::vertical(set.jobs.iter().map(|_| Constraint::Length(1))).split(inner);
    for (job, line) in set.jobs.iter().zip(lines.iter()) {
        let [text, bar] = Layout::horizontal([Constraint::Min(20), Constraint::Max(40)]).areas(*line);
        frame.render_widget(job_line(job), text);
        if job.runs() && job.blocks_total > 0 {
            #[allow(clippy::cast_precision_loss)]
            let ratio = (job.blocks_done as f64 / job.blocks_total as f64).clamp(0.0, 1.0);
            frame.render_widget(LineGauge::default().ratio(ratio).filled_symbol(DONE).unfilled_symbol(TO_DO), bar);
        }
    }
}

fn job_line(job: &Job) -> Line<'static> {
    let mut facts = format!(
        " {} of {} blocks, {} a second",
        Amount(job.blocks_done),
        Amount(job.blocks_total),
        Amount(job.blocks_per_second)
    );
    if let Some(seconds) = job.remaining_seconds {
        facts += &format!(", {} left", humantime::format_duration(Duration::from_secs(seconds)));
    }
    if let Some(scrub) = &job.scrub {
        facts += &format!(", found {} unreadable, {} rescued", Amount(scrub.unreadable), Amount(scrub.rescued));
    }
    if let Some(error) = &job.error {
        facts += &format!(": {error}");
    }
    let state = Span::styled(job.state.clone(), color(&job.state));
    Line::from(vec![Span::raw(format!("{:<8}", job.kind)), state, Span::raw(facts)])
}

fn draw_rescued(frame: &mut Frame, view: &View, seen: &Seen, area: Rect) {
    let Some(pace) = view.paces.get(&seen.set.uuid()) else { return };
    let most = pace.history.iter().max().copied().unwrap_or(0);
    let title = format!("blocks rescued a second, {} at most", Amount(most));
    let line = Sparkline::default()
        .data(pace.history.iter().copied())
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().fg(Color::Yellow))
        .block(block(&title));
    frame.render_widget(line, area);
}

fn draw_events(frame: &mut Frame, view: &View, area: Rect) {
    let line = |event: &Happened| {
        let time = event.at.as_deref().unwrap_or("earlier ");
        let what = Span::styled(format!(" {:<12} ", event.what), event_color(&event.what));
        Line::from(vec![time.to_owned().dim(), what, Span::raw(event.facts.clone())])
    };
    frame.render_widget(List::new(view.events.iter().map(line)).block(block("events")), area);
}

fn event_color(what: &str) -> Color {
    match what {
        "healed" | "cleared" | "job_done" => Color::Green,
        "remapped" | "pending" | "spare_bad" | "spare_low" => Color::Yellow,
        _ => Color::Red,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;
    use crate::rpc::answers::Notification;
    use crate::watch::asking::Told;

    /// Sets with the largest numbers and with the strangest names that a target may tell.
    fn sets() -> Vec<Seen> {
        let (max, name) = (u64::MAX, "\u{1b}[31m\u{202e}\n\u{1f600}\u{301}".repeat(20));
        let job = json!({
            "kind": "scrub", "state": "running", "blocks_done": max, "blocks_total": 1, "blocks_per_second": max,
            "remaining_seconds": max, "error": name, "scrub": {}
        });
        let online = json!({
            "name": name, "uuid": "00000000-0000-0000-0000-000000000001", "state": "online", "base_bdev": name,
            "storm_limit": max, "spare": { "total": 0, "used": max, "free": max, "bad": max }, "remapped": max,
            "pending": max, "lost": max, "epoch": 1, "sequence": 1, "jobs": vec![job; 20],
            "metadata": { "superblock_a": "ok", "superblock_b": "bad", "log_a": name, "log_b": "ok" }
        });
        let waiting = json!({ "name": name, "uuid": "00000000-0000-0000-0000-000000000002", "state": "waiting", "waits_for": name });
        let seen = |set| Seen { set: serde_json::from_value(set).unwrap(), bdev: None, io: None };
        std::iter::once(online).chain(vec![waiting; 40]).map(seen).collect()
    }

    #[test]
    fn any_answer_is_drawn_at_any_size() {
        let mut view = View::new(Path::new("/socket"));
        let event = Notification { what: "remapped".to_owned(), facts: "\u{1b}c".repeat(100), id: u64::MAX };
        for (width, height) in [(1, 1), (2, 40), (40, 2), (9, 9), (80, 24), (300, 100), (0, 0)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &mut view)).unwrap();
            let told = Told::Sets { at: Instant::now(), sets: sets(), events: vec![event.clone(); 300], first: false };
            view.take(told);
            for _ in 0..4 {
                view.select_next();
                terminal.draw(|frame| draw(frame, &mut view)).unwrap();
            }
            let shown = terminal.backend().buffer().content.iter().map(|cell| cell.symbol()).collect::<String>();
            assert!(!shown.contains('\u{1b}'), "what a target says is no command for the terminal");
            view.take(Told::Sets { at: Instant::now(), sets: Vec::new(), events: Vec::new(), first: true });
            terminal.draw(|frame| draw(frame, &mut view)).unwrap();
        }
    }
}
