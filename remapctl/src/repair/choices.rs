//! Where nothing says which state is the right one: what there is to choose from, and what each choice would lose. Nothing is chosen here;
//! an operator names one of the states by `--at`.

use std::io::Write;

use remap_core::engine::{Inspection, Preview, SetPreview};
use remap_core::format::{Copy, Superblock};
use remap_core::{Candidate, Mapping, Sequence, StatedEnd};

use super::loss;
use crate::error::Error;
use crate::map::words::shown;
use crate::spare::{Base, Spare};
use crate::style::{BOLD, styled};

/// Writes the choices, if there are any.
///
/// # Errors
/// [`Error::Stdout`].
pub(super) fn write(spare: &Spare, out: &mut impl Write) -> Result<(), Error> {
    // What cannot be read at all is told by the refusal.
    let Ok(inspection) = spare.inspect() else { return Ok(()) };
    if inspection.refusal.is_none() {
        return Ok(());
    }
    if inspection.superblock.is_none() {
        superblocks(&inspection, out)?;
    } else {
        states(spare, &inspection, out)?;
    }
    Ok(out.flush()?)
}

fn superblocks(inspection: &Inspection, out: &mut impl Write) -> Result<(), Error> {
    let [Some(a), Some(b)] = &inspection.decoded.0 else { return Ok(()) };
    writeln!(out, "{}", styled(BOLD, "the superblocks contradict each other; either may be the right one"))?;
    for (copy, says, other) in [(Copy::A, a, b), (Copy::B, b, a)] {
        let name = shown(&says.name);
        let Superblock { set_uuid, spare_id, sequence, epoch, committed, .. } = says;
        let copy = copy.name();
        writeln!(
            out,
            "  superblock {copy}: \"{name}\", {set_uuid}, on spare {spare_id}; sequence {sequence}, epoch {epoch}, committed {committed}"
        )?;
        let loss = if *set_uuid != other.set_uuid {
            format!("all that is known of set {}", other.set_uuid)
        } else if committed < &other.committed {
            format!("what was committed after sequence {committed}: the other knows of {}", other.committed)
        } else {
            "what the other says, of which nothing is known to be newer".to_owned()
        };
        writeln!(out, "    it would lose {loss}")?;
    }
    Ok(())
}

fn states(spare: &Spare, inspection: &Inspection, out: &mut impl Write) -> Result<(), Error> {
    if inspection.candidates.is_empty() {
        return Ok(writeln!(out, "no state of the log is there as a whole: there is nothing to choose from")?);
    }
    let title = "these states of the log are there; --at brings the set to one of them, and shows it in `list`, `map` and `recover`";
    writeln!(out, "{}", styled(BOLD, title))?;
    let committed = inspection.superblock.as_ref().map_or(Sequence::ZERO, |superblock| superblock.committed);
    let pages = inspection.areas.iter().flat_map(|areas| areas.iter()).filter_map(|area| area.last);
    let known = pages.map(|last| last.1).max().unwrap_or_default().max(committed);
    for Candidate { epoch, sequence, .. } in inspection.candidates.iter().copied() {
        write!(out, "  --at {epoch}:{sequence}: ")?;
        let at = Some(StatedEnd { epoch, sequence });
        match spare.preview(Base::default(), at) {
            Ok(Preview::Set(set)) => writeln!(out, "{}", counts(&set))?,
            Ok(Preview::Format) => writeln!(out, "nothing")?,
            Err(why) => {
                writeln!(out, "it would be refused: {why}")?;
                continue;
            }
        }
        if sequence < known {
            writeln!(
                out,
                "    it would lose what was committed after sequence {sequence}: the spare knows of {known}"
            )?;
        } else {
            writeln!(out, "    it would lose nothing that the spare knows of")?;
        }
        match spare.repair_plan(at) {
            Ok(plan) => {
                if let Some(loss) = plan.and_then(|plan| loss::words(&plan.gives_up?)) {
                    writeln!(out, "    that is {loss}")?;
                }
            }
            Err(why) => writeln!(out, "    the set cannot be brought to it here: {why}")?,
        }
    }
    Ok(())
}

fn counts(set: &SetPreview) -> String {
    let remapped = set.mappings.count(|mapping| matches!(mapping, Mapping::Spare(_)));
    let lost = set.mappings.count(|mapping| matches!(mapping, Mapping::Lost(_)));
    let pending = set.mappings.count(|mapping| matches!(mapping, Mapping::Pending));
    format!("{remapped} blocks remapped, {pending} pending, {lost} lost")
}
