//! `inspect`: what is on a spare, both copies side by side.

mod report;
mod text;

use std::io::Write;

use self::report::Report;
pub(crate) use self::text::date;
use crate::cli::InspectArgs;
use crate::error::{Error, Verdict};
use crate::json;
use crate::spare::Spare;

/// Runs the command.
///
/// # Errors
/// Those of opening and reading the spare; [`Error::Stdout`].
pub fn run(args: &InspectArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let spare = Spare::open(&args.spare.spare, args.spare.size.block_size)?;
    let inspection = spare.inspect().map_err(|why| Error::of_spare(spare.path(), why))?;
    let report = Report::new(&spare, inspection);
    if args.json {
        json::write(&report, out)?;
    } else {
        text::write(&report, out)?;
    }
    out.flush()?;
    Ok(report.verdict)
}
