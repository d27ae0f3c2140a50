//! `repair`: bad copies of the metadata, written anew from good ones, or a set that is refused brought to a state that was chosen; and back
//! again. The only command that writes to a spare.
//!
//! What is to be written, and in which order, is told by remap-core ([`RepairPlan`]): whatever of it a crash leaves, the set is loaded as
//! before, or refused as before until it is as it was chosen. Before the first write there is an undo file, durably ([`undo`]), and nobody else has the spare open ([`target`]).

mod choices;
mod loss;
mod report;
mod target;
mod undo;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use remap_core::StatedEnd;
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
    let plan = match spare.repair_plan(args.at) {
        Ok(Some(plan)) => plan,
        Ok(None) => return Err(Error::Empty { path: spare.path() }),
        Err(why) => {
            // Programs have `inspect --json`, which lists the states; who has named one, knows them.
            if !args.json && args.at.is_none() {
                choices::write(&spare, out)?;
            }
            return Err(Error::of_spare(spare.path(), why));
        }
    };
    let undo = args.undo.clone().unwrap_or_else(|| default_undo(&spare.path()));
    let target = target.filter(|_| !plan.repairs.is_empty());
    if let Some(target) = &target {
        carry_out(&spare, &plan, args.at, target, &undo, interrupted)?;
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
    at: Option<StatedEnd>,
    target: &Target,
    undo: &Path,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    target.settle()?;
    undo::keep(spare, plan, undo)?;
    as_planned(spare, plan, at, target, interrupted).inspect_err(|_| {
        // Nothing was written: it is of no use, and in the way of the next attempt.
        let _ = fs::remove_file(undo);
    })?;
    write(spare, plan, target, undo, interrupted)
}

/// Writes all of it, and makes sure that it is there.
fn write(
    spare: &Spare,
    plan: &RepairPlan,
    target: &Target,
    undo: &Path,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    for step in plan.steps() {
        for repair in step {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::RepairInterrupted { path: spare.path(), undo: undo.to_owned() });
            }
            let page = spare.repaired(plan, repair).map_err(|why| Error::RepairStopped {
                path: spare.path(),
                lba: repair.at.0,
                why: Error::clause(&why),
                undo: undo.to_owned(),
            })?;
            target.write(repair.at, spare.block_size(), page.as_ref())?;
        }
        target.sync()?;
    }
    // As it is by itself, whatever was chosen.
    match spare.repair_plan(None) {
        Ok(Some(left)) if left.repairs.is_empty() && left.in_force.state == plan.in_force.state => Ok(()),
        Err(why @ (remap_core::Error::Io { .. } | remap_core::Error::NoMemory { .. })) => {
            Err(Error::NotVerified { path: spare.path(), why: Error::clause(&why), undo: undo.to_owned() })
        }
        _ => Err(Error::NotWhole { path: spare.path(), undo: undo.to_owned() }),
    }
}

/// Makes sure, just before the first write, that all is as it was planned: whoever had the spare open meanwhile may have changed it.
fn as_planned(
    spare: &Spare,
    plan: &RepairPlan,
    at: Option<StatedEnd>,
    target: &Target,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    target.alone()?;
    let again = spare.repair_plan(at).map_err(|why| Error::of_spare(spare.path(), why))?;
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

    #[allow(clippy::unwrap_used)]
    fn damaged_copy() -> Vec<u8> {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../remap-core/tests/golden/damaged-copy.img.gz");
        let mut image = Vec::new();
        GzDecoder::new(File::open(golden).unwrap()).read_to_end(&mut image).unwrap();
        image
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn what_has_changed_since_it_was_planned_is_not_written_over() {
        let mut image = damaged_copy();
        let folder = tempfile::tempdir().unwrap();
        let (path, undo) = (folder.path().join("spare.img"), folder.path().join("undo"));
        fs::write(&path, &image).unwrap();
        let spare = Spare::open(&path, None).unwrap();
        let plan = spare.repair_plan(None).unwrap().unwrap();
        let target = Target::open(spare.disk()).unwrap();
        // A page of the log that was good.
        image[67 * 4096 + 300] ^= 1;
        fs::write(&path, &image).unwrap();
        let refused = carry_out(&spare, &plan, None, &target, &undo, &AtomicBool::new(false));
        assert!(matches!(refused, Err(Error::ChangedMeanwhile { .. })), "{refused:?}");
        assert!(fs::read(&path).unwrap() == image && !undo.exists());

        // The same again, as it is now.
        let plan = spare.repair_plan(None).unwrap().unwrap();
        let stopped = carry_out(&spare, &plan, None, &target, &undo, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Error::NotBegun { .. })), "{stopped:?}");
        assert!(fs::read(&path).unwrap() == image && !undo.exists());
        carry_out(&spare, &plan, None, &target, &undo, &AtomicBool::new(false)).unwrap();
        assert!(fs::read(&path).unwrap() != image && undo.exists());
    }

    /// From the first write on the undo file has to be named.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn what_goes_wrong_while_it_is_written_names_the_undo_file() {
        let undo = Path::new("what was there");
        let stopped = |spoiled: &[usize]| {
            let folder = tempfile::tempdir().unwrap();
            let (path, mut image) = (folder.path().join("spare.img"), damaged_copy());
            fs::write(&path, &image).unwrap();
            let spare = Spare::open(&path, None).unwrap();
            let plan = spare.repair_plan(None).unwrap().unwrap();
            let target = Target::open(spare.disk()).unwrap();
            spoiled.iter().for_each(|block| image[block * 4096 + 300] ^= 1);
            fs::write(&path, &image).unwrap();
            write(&spare, &plan, &target, undo, &AtomicBool::new(false)).unwrap_err()
        };
        // What page 0 of copy A is to be made of.
        let error = stopped(&[334]);
        assert!(matches!(error, Error::RepairStopped { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains("what was there") && said.contains("a page that was good cannot be read again"),
            "{said}"
        );
        assert!(error.code() == 8 && !said.contains("nothing was written"), "{said}");
        // Another page, in both copies.
        let error = stopped(&[67, 335]);
        assert!(matches!(error, Error::NotWhole { .. }), "{error}");
    }
}
