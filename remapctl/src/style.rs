//! Colours, which only a terminal gets to see.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use crate::error::Verdict;

/// Of headings.
pub const BOLD: Style = Style::new().bold();
/// Of what is damaged.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Of what is refused.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Of what is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();

/// `text` in this style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The verdict in its colour.
#[must_use]
pub fn verdict(verdict: Verdict) -> String {
    let style = match verdict {
        Verdict::Sound => GOOD,
        Verdict::Degraded => WARN,
        Verdict::Refused => BAD,
    };
    styled(style, verdict.name())
}
