//! What is on the terminal: how the sets stand, how fast that changes, and what has happened. Knows nothing of the terminal.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use ratatui::widgets::TableState;
use uuid::Uuid;

use super::asking::Told;
use crate::rpc::answers::Set;
use crate::rpc::look::Seen;

/// Events that are kept.
const EVENTS: usize = 200;
/// Rates of rescues that are kept of each set.
const HISTORY: usize = 300;

/// What only grows of a set.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    reads: u64,
    writes: u64,
    bytes: u64,
    rescued: u64,
}

impl Counted {
    fn of(seen: &Seen) -> Counted {
        let io = seen.io.clone().unwrap_or_default();
        let rescued = seen.set.online().map_or(0, |set| set.counters.rescued_blocks);
        let bytes = io.bytes_read.saturating_add(io.bytes_written);
        Counted { reads: io.num_read_ops, writes: io.num_write_ops, bytes, rescued }
    }
}

/// How fast it grows, a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) bytes: u64,
    pub(super) rescued: u64,
}

/// What is remembered of a set between two looks.
#[derive(Default)]
pub(super) struct Pace {
    last: Option<(Instant, Counted)>,
    pub(super) rates: Rates,
    /// Blocks rescued a second, the newest first.
    pub(super) history: VecDeque<u64>,
}

impl Pace {
    fn advance(&mut self, at: Instant, now: Counted) {
        if let Some((then, before)) = self.last.replace((at, now)) {
            let millis = at.saturating_duration_since(then).as_millis().max(1);
            // A set that was opened anew counts from 0 on.
            let rate = |now: u64, before: u64| {
                u64::try_from(u128::from(now.saturating_sub(before)) * 1000 / millis).unwrap_or(u64::MAX)
            };
            self.rates = Rates {
                reads: rate(now.reads, before.reads),
                writes: rate(now.writes, before.writes),
                bytes: rate(now.bytes, before.bytes),
                rescued: rate(now.rescued, before.rescued),
            };
            self.history.truncate(HISTORY - 1);
            self.history.push_front(self.rates.rescued);
        }
    }
}

/// Something that happened.
pub(super) struct Happened {
    /// When that was seen, if it was while this runs.
    pub(super) at: Option<String>,
    pub(super) what: String,
    pub(super) facts: String,
}

/// All of it.
pub(super) struct View {
    pub(super) socket: PathBuf,
    pub(super) sets: Vec<Seen>,
    pub(super) paces: HashMap<Uuid, Pace>,
    /// The newest first.
    pub(super) events: VecDeque<Happened>,
    /// What became of the last order, and whether it was done.
    pub(super) said: Option<(String, bool)>,
    /// Why the target does not answer.
    pub(super) failure: Option<String>,
    /// When it last did.
    pub(super) time: Option<String>,
    pub(super) table: TableState,
}

impl View {
    pub(super) fn new(socket: &Path) -> View {
        View {
            socket: socket.to_owned(),
            sets: Vec::new(),
            paces: HashMap::new(),
            events: VecDeque::new(),
            said: None,
            failure: None,
            time: None,
            table: TableState::default(),
        }
    }

    /// What the target has told.
    pub(super) fn take(&mut self, told: Told) {
        match told {
            Told::Failed(failure) => self.failure = Some(failure.to_string()),
            Told::Done(done) => {
                let well = done.is_ok();
                self.said = Some((done.unwrap_or_else(|failure| failure.to_string()), well));
            }
            Told::Sets { at, sets, events, first } => {
                self.failure = None;
                let time = now();
                // What it tells first may be old, and is all that it remembers.
                let seen_at = (!first).then(|| time.clone());
                if first {
                    self.events.clear();
                }
                for event in events {
                    self.events.truncate(EVENTS - 1);
                    self.events.push_front(Happened { at: seen_at.clone(), what: event.what, facts: event.facts });
                }
                self.time = Some(time);
                self.paces.retain(|uuid, _| sets.iter().any(|seen| seen.set.uuid() == *uuid));
                for seen in &sets {
                    self.paces.entry(seen.set.uuid()).or_default().advance(at, Counted::of(seen));
                }
                // The target tells first what is online: a set can have another place than before.
                let selected = self.selected().map(|seen| seen.set.uuid());
                self.sets = sets;
                let place = self.sets.iter().position(|seen| Some(seen.set.uuid()) == selected);
                let place = place.or(self.table.selected()).unwrap_or(0);
                self.table.select(self.sets.len().checked_sub(1).map(|last| place.min(last)));
            }
        }
    }

    /// Shows a sentence.
    pub(super) fn say(&mut self, sentence: String) {
        self.said = Some((sentence, true));
    }

    /// The set that is selected.
    pub(super) fn selected(&self) -> Option<&Seen> {
        self.sets.get(self.table.selected()?)
    }

    /// Its name, if it is online; else it is said that it is not.
    pub(super) fn selected_online(&mut self) -> Option<String> {
        let set: &Set = &self.selected()?.set;
        let (name, online) = (set.name().to_owned(), set.online().is_some());
        if !online {
            self.said = Some((format!("{name} is not online"), false));
        }
        online.then_some(name)
    }

    pub(super) fn select_next(&mut self) {
        let next = self.table.selected().map_or(0, |selected| selected + 1);
        self.table.select(self.sets.len().checked_sub(1).map(|last| next.min(last)));
    }

    pub(super) fn select_previous(&mut self) {
        let previous = self.table.selected().map_or(0, |selected| selected.saturating_sub(1));
        self.table.select((!self.sets.is_empty()).then_some(previous));
    }
}

/// The time of day, UTC.
fn now() -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    text.split_once('T').map_or_else(String::new, |(_, time)| time.trim_end_matches('Z').to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_selection_stays_with_its_set() {
        let mut view = View::new(Path::new("/socket"));
        let take = |view: &mut View, names: &[u128]| {
            let waiting =
                |name: &u128| json!({ "name": name.to_string(), "uuid": Uuid::from_u128(*name), "state": "waiting" });
            let seen = |set| Seen { set: serde_json::from_value(set).unwrap(), bdev: None, io: None };
            let sets = names.iter().map(waiting).map(seen).collect();
            view.take(Told::Sets { at: Instant::now(), sets, events: Vec::new(), first: false });
            view.selected().map(|seen| seen.set.name().to_owned())
        };
        assert_eq!(take(&mut view, &[1, 2, 3]).as_deref(), Some("1"));
        view.select_next();
        assert_eq!(take(&mut view, &[2, 3, 1]).as_deref(), Some("2"));
        assert_eq!(take(&mut view, &[1, 3, 2]).as_deref(), Some("2"));
        assert_eq!(take(&mut view, &[1, 3]).as_deref(), Some("3"), "the one that is in its place");
        assert_eq!(take(&mut view, &[]), None);
        assert_eq!(take(&mut view, &[1]).as_deref(), Some("1"));
    }
}
