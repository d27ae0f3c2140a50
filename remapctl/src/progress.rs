//! Progress of what takes longer than two seconds, on stderr: a bar on a terminal, else a line now and then.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Before this nothing is shown.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How far something has come, in bytes.
pub struct Progress {
    what: String,
    bar: ProgressBar,
    began: Instant,
    shown: Cell<bool>,
    next_line: Cell<Instant>,
}

impl Progress {
    /// Nothing is done yet of `total` bytes, or of nobody knows how many.
    #[must_use]
    pub fn new(what: impl Into<String>, total: Option<u64>) -> Progress {
        let (what, began) = (what.into(), Instant::now());
        let bar = match total {
            Some(total) => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
        };
        let template = match total {
            Some(_) => {
                "{msg} [{bar:30}] {percent}% {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
            }
            None => "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.clone());
        Progress { what, bar, began, shown: Cell::new(false), next_line: Cell::new(began + PATIENCE) }
    }

    /// So much was done before.
    pub fn begin_at(&self, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.reset_eta();
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if !self.shown.get() && self.began.elapsed() < PATIENCE {
            return;
        }
        if !self.shown.replace(true) && stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if !stderr().is_terminal() && self.next_line.get() <= Instant::now() {
            self.next_line.set(Instant::now() + BETWEEN_LINES);
            let of = self.bar.length().map_or_else(String::new, |total| format!(" of {}", BinaryBytes(total)));
            eprintln!("{} {}{of}, {} s", self.what, BinaryBytes(self.bar.position()), self.began.elapsed().as_secs());
        }
    }

    /// Nothing is shown any more.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
