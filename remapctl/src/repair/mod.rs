//! `repair`: bad copies of the metadata, written anew from good ones; and back again. The only command that writes to a spare.
//!
//! What is to be written, and in which order, is told by remap-core ([`RepairPlan`]): whatever of it a crash leaves, the set is loaded as
//! before. Before the first write there is an undo file, durably ([`undo`]), and nobody else has the spare open ([`target`]).

mod choices;
mod report;
mod target;
mod undo;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use remap_core::engine::RepairPlan;

use self::report::Report;
use self::target::Target;
use crate::cli::RepairArgs;
use crate::error::{Error, Verdict};
use crate::json;
use crate::spare::Spare;

/// Runs the command.
///
/// # Errors
/// Those of opening the spare; [`Error::Refused`], [`Error::Empty`] if there is no state that every copy could be brought to; those of
/// writing, and of the undo file; [`Error::Stdout`].
pub fn run(args: &RepairArgs, out: &mut impl Write, interrupted: &AtomicBool) -> Result<Verdict, Error> {
    let spare = Spare::open(&args.spare.spare, args.spare.size.block_size)?;
    if let Some(from) = &args.undo_from {
        return undo::run(&spare, from, args.yes, out, interrupted);
    }
    // What is planned has to be there still when it is carried out.
    let target = if args.yes { Some(Target::open(spare.disk())?) } else { None };
    let plan = match spare.repair_plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => return Err(Error::Empty { path: spare.path() }),
        Err(why) => {
            // Programs have `inspect --json`, which lists the states.
            if !args.json {
                choices::write(&spare, out)?;
            }
            return Err(Error::of_spare(spare.path(), why));
        }
    };
    let undo = args.undo.clone().unwrap_or_else(|| default_undo(&spare.path()));
    let target = target.filter(|_| !plan.repairs.is_empty());
    if let Some(target) = &target {
        carry_out(&spare, &plan, target, &undo, interrupted)?;
    }
    let report = Report::new(&spare, &plan, target.is_some(), &undo);
    if args.json {
        json::write(&report, out)?
    } else {
        report.text(out)?
    }
    out.flush()?;
    Ok(if report.whole() { Verdict::Sound } else { Verdict::Degraded })
}

/// Beside whoever gives the command, as the folder of a device is no place for files.
fn default_undo(spare: &Path) -> PathBuf {
    let mut name = spare.file_name().unwrap_or_default().to_owned();
    name.push(".undo");
    name.into()
}

fn carry_out(
    spare: &Spare,
    plan: &RepairPlan,
    target: &Target,
    undo: &Path,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    // What is good has to stay before anything is written over: it may be in a cache only.
    target.sync()?;
    undo::keep(spare, plan, undo)?;
    let failed = |why| Error::of_spare(spare.path(), why);
    as_planned(spare, plan, target, interrupted).inspect_err(|_| {
        // Nothing was written: it is of no use, and in the way of the next attempt.
        let _ = fs::remove_file(undo);
    })?;
    for step in plan.steps() {
        for repair in step {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::RepairInterrupted { path: spare.path(), undo: undo.to_owned() });
            }
            let page = spare.repaired(plan, repair).map_err(failed)?;
            target.write(repair.at, spare.block_size(), page.as_ref())?;
        }
        target.sync()?;
    }
    match spare.repair_plan().map_err(failed)? {
        Some(left) if left.repairs.is_empty() => Ok(()),
        _ => Err(Error::NotWhole { path: spare.path(), undo: undo.to_owned() }),
    }
}

/// Makes sure, just before the first write, that all is as it was planned: whoever had the spare open meanwhile may have changed it.
fn as_planned(spare: &Spare, plan: &RepairPlan, target: &Target, interrupted: &AtomicBool) -> Result<(), Error> {
    target.alone()?;
    let again = spare.repair_plan().map_err(|why| Error::of_spare(spare.path(), why))?;
    if again.as_ref() != Some(plan) {
        return Err(Error::ChangedMeanwhile { path: spare.path() });
    }
    target.alone()?;
    if interrupted.load(Ordering::Relaxed) {
        return Err(Error::NotBegun { path: spare.path() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn what_has_changed_since_it_was_planned_is_not_written_over() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../remap-core/tests/golden/damaged-copy.img.gz");
        let mut image = Vec::new();
        GzDecoder::new(File::open(golden).unwrap()).read_to_end(&mut image).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (path, undo) = (folder.path().join("spare.img"), folder.path().join("undo"));
        fs::write(&path, &image).unwrap();
        let spare = Spare::open(&path, None).unwrap();
        let plan = spare.repair_plan().unwrap().unwrap();
        let target = Target::open(spare.disk()).unwrap();
        // A page of the log that was good.
        image[67 * 4096 + 300] ^= 1;
        fs::write(&path, &image).unwrap();
        let refused = carry_out(&spare, &plan, &target, &undo, &AtomicBool::new(false));
        assert!(matches!(refused, Err(Error::ChangedMeanwhile { .. })), "{refused:?}");
        assert!(fs::read(&path).unwrap() == image && !undo.exists());

        // The same again, as it is now.
        let plan = spare.repair_plan().unwrap().unwrap();
        let stopped = carry_out(&spare, &plan, &target, &undo, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Error::NotBegun { .. })), "{stopped:?}");
        assert!(fs::read(&path).unwrap() == image && !undo.exists());
        carry_out(&spare, &plan, &target, &undo, &AtomicBool::new(false)).unwrap();
        assert!(fs::read(&path).unwrap() != image && undo.exists());
    }
}
