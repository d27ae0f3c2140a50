//! `doctor`: whether this machine can run a target with bdev_remap, and how those are that run: one line for each thing that was looked
//! at, and what to do about it. Looks only: no SPDK is run, nothing is changed.

mod kernel;
mod memory;
mod spdk;
mod targets;

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::error::{Error, Verdict};
use crate::json;
use crate::style::{BAD, GOOD, WARN, styled};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// A target runs, and something is missing or needs care.
    Warning,
    /// No target runs with it, or one that runs does not serve.
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    about: &'static str,
    level: Level,
    /// What it is like.
    sentence: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(about: &'static str, sentence: impl Into<String>) -> Finding {
        Finding { about, level: Level::Ok, sentence: sentence.into(), advice: None }
    }

    fn warning(about: &'static str, sentence: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { about, level: Level::Warning, sentence: sentence.into(), advice: Some(advice.into()) }
    }

    fn bad(about: &'static str, sentence: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { about, level: Level::Bad, sentence: sentence.into(), advice: Some(advice.into()) }
    }
}

/// All of it.
#[derive(Serialize)]
struct Report {
    level: Level,
    findings: Vec<Finding>,
}

/// Runs the command.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(args: &DoctorArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let mut findings = memory::look();
    findings.extend(kernel::look());
    findings.extend(spdk::look(args.spdk.as_deref(), args.library.as_deref()));
    findings.extend(targets::look(&args.sockets));
    let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let report = Report { level, findings };
    if args.json {
        json::write(&report, out)?;
    } else {
        report.findings.iter().try_for_each(|finding| line(finding, out))?;
    }
    out.flush()?;
    Ok(match level {
        Level::Ok => Verdict::Sound,
        Level::Warning => Verdict::Degraded,
        Level::Bad => Verdict::Refused,
    })
}

fn line(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let level = match finding.level {
        Level::Ok => styled(GOOD, "ok     "),
        Level::Warning => styled(WARN, "warning"),
        Level::Bad => styled(BAD, "bad    "),
    };
    let advice: &dyn Display = match &finding.advice {
        Some(advice) => &format!("; {advice}"),
        None => &"",
    };
    writeln!(out, "{level}  {:<9}  {}{advice}", finding.about, finding.sentence)
}
