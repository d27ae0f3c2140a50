//! `check`: what `bdev_remap_create` would say of a spare, and of a base with it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use remap_core::engine::{Preview, SetPreview};
use remap_core::format::{Copy, PerCopy};
use remap_core::{Epoch, Mapping, Sequence};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::CheckArgs;
use crate::disk::Disk;
use crate::error::{Error, Verdict};
use crate::in_use;
use crate::json;
use crate::map::words::shown;
use crate::spare::{Base, Spare};
use crate::style::{WARN, styled, verdict};
use crate::units::counted;

/// What a set is that says that it is in use.
pub(crate) const NOT_CLOSED: &str = "the set was not closed: it is in use, or its process died";

/// What the command tells.
#[derive(Serialize)]
struct Report {
    spare: PathBuf,
    verdict: Verdict,
    /// One sentence on it.
    sentence: String,
    #[serde(flatten)]
    set: Option<Set>,
    base: Option<BaseReport>,
    /// What is no reason to refuse anything, and good to know.
    notes: Vec<String>,
}

/// The set as it would be loaded.
#[derive(Serialize)]
struct Set {
    name: String,
    uuid: Uuid,
    epoch: Epoch,
    sequence: Sequence,
    remapped: u64,
    pending: u64,
    lost: u64,
    bad_spare_blocks: u64,
    free_spare_blocks: u64,
    superblock_a: bool,
    superblock_b: bool,
    log_a: bool,
    log_b: bool,
}

/// The base that was given.
#[derive(Serialize)]
struct BaseReport {
    base: PathBuf,
    blocks: u64,
    /// Where the kernel knows it.
    uuid: Option<Uuid>,
    /// Bytes of metadata that each of its blocks carries, where that is known.
    md_size: Option<u32>,
}

/// Runs the command.
///
/// # Errors
/// Those of opening spare and base, and of reading the spare; [`Error::Stdout`].
pub fn run(args: &CheckArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let spare = Spare::open(&args.spare.spare, args.spare.size.block_size)?;
    let base = args.base.as_deref().map(|path| look_at(path, spare.block_size())).transpose()?;
    let report = report(&spare, base, args.base_uuid)?;
    if args.json {
        json::write(&report, out)?;
    } else {
        text(&report, out)?;
    }
    out.flush()?;
    Ok(report.verdict)
}

fn look_at(path: &Path, block_size: u32) -> Result<BaseReport, Error> {
    let disk = Disk::open(path)?;
    in_use::warn(&disk);
    let blocks = disk.bytes() / u64::from(block_size);
    // A block device of the kernel shows no metadata, and its bdev may have some all the same.
    let md_size = (!disk.is_block_device()).then_some(0);
    Ok(BaseReport { base: path.to_owned(), blocks, uuid: uuid_of(&disk), md_size })
}

/// The UUID of an NVMe namespace, which is that of its bdev.
pub fn uuid_of(disk: &Disk) -> Option<Uuid> {
    if !disk.is_block_device() {
        return None;
    }
    let number = disk.file().metadata().ok()?.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uuid")).ok()?;
    text.trim().parse().ok().filter(|uuid: &Uuid| !uuid.is_nil())
}

fn report(spare: &Spare, base: Option<BaseReport>, base_uuid: Option<Uuid>) -> Result<Report, Error> {
    let path = spare.path();
    let known = base.as_ref();
    let facts =
        Base { blocks: known.map(|base| base.blocks), uuid: base_uuid, md_size: known.and_then(|base| base.md_size) };
    let mut notes = Vec::new();
    let (verdict, sentence, set) = match spare.preview(facts, None) {
        Ok(Preview::Format) => {
            (Verdict::Sound, "the spare is empty: bdev_remap_create would format it".to_owned(), None)
        }
        Ok(Preview::Set(set)) => {
            notes = notes_on(&set, spare);
            let bad = bad_copies(&set);
            let (verdict, sentence) = match bad.is_empty() {
                true => (Verdict::Sound, "bdev_remap_create would load it, and every copy is whole".to_owned()),
                false => {
                    let bad = bad.join(", ");
                    (Verdict::Degraded, format!("bdev_remap_create would load it, and write anew what is bad: {bad}"))
                }
            };
            (verdict, sentence, Some(Set::of(&set)))
        }
        Err(why @ (remap_core::Error::Io { .. } | remap_core::Error::NoMemory { .. })) => {
            return Err(Error::of_spare(path, why));
        }
        Err(why) => (Verdict::Refused, why.to_string(), None),
    };
    if let (Some(base), Some(superblock)) = (&base, &spare.superblock) {
        if base.blocks > superblock.base_blocks && set.is_some() {
            let (was, now) = (superblock.base_blocks, base.blocks);
            notes.push(format!("the base had {was} blocks and has {now} now: the Remap bdev would grow"));
        } else if base.blocks < superblock.base_blocks && set.is_some() {
            let (was, now) = (superblock.base_blocks, base.blocks);
            notes.push(format!(
                "the base had {was} blocks and has {now} now, all mappings are on it: check that it is the right one"
            ));
        }
        if let Some(uuid) = base.uuid.filter(|uuid| *uuid != base_uuid.unwrap_or(superblock.base_uuid)) {
            let noted = superblock.base_uuid;
            notes.push(format!(
                "the kernel knows the base as {uuid}, the spare as {noted}: it is another base, unless its bdev was given that UUID"
            ));
        }
        if base_uuid.is_none() && base.uuid.is_none() {
            notes.push(format!("the UUID of the base cannot be known here; it has to be {}", superblock.base_uuid));
        }
        if base.md_size.is_none() && superblock.md_size != 0 {
            let noted = superblock.md_size;
            notes.push(format!(
                "how much metadata the blocks of the base carry cannot be seen here; it has to be {noted} bytes each"
            ));
        }
    }
    Ok(Report { spare: path, verdict, sentence, set, base, notes })
}

/// The copies of the metadata that are not whole.
pub(crate) fn bad_copies(set: &SetPreview) -> Vec<&'static str> {
    let names = |ok: PerCopy<bool>, names: [&'static str; 2]| {
        Copy::BOTH.into_iter().zip(names).filter(move |(copy, _)| !ok[*copy]).map(|(_, name)| name)
    };
    names(set.superblock_ok, ["superblock A", "superblock B"])
        .chain(names(set.log_ok, ["log copy A", "log copy B"]))
        .collect()
}

/// What is good to know of a set that would be loaded.
pub(crate) fn notes_on(set: &SetPreview, spare: &Spare) -> Vec<String> {
    let counts = Set::of(set);
    let mut notes = Vec::new();
    let found = spare.superblock.as_ref();
    if found.is_some_and(|found| !found.was_closed()) {
        notes.push(NOT_CLOSED.to_owned());
    }
    if counts.lost > 0 {
        notes.push(format!("{} lost: what is lost cannot be read until it is written", counted(counts.lost, "block")));
    }
    if counts.free_spare_blocks == 0 {
        notes.push("the spare is full: give the set a larger one by bdev_remap_migrate".to_owned());
    }
    notes
}

impl Set {
    fn of(set: &SetPreview) -> Set {
        let count = |is: fn(Mapping) -> bool| set.mappings.count(is) as u64;
        let remapped = count(|mapping| matches!(mapping, Mapping::Spare(_)));
        let lost = count(|mapping| matches!(mapping, Mapping::Lost(_)));
        let bad = set.bad.len() as u64;
        let total = u64::from(set.superblock.layout.data_blocks);
        Set {
            name: set.superblock.name.clone(),
            uuid: set.superblock.set_uuid,
            epoch: set.epoch,
            sequence: set.sequence,
            remapped,
            pending: count(|mapping| matches!(mapping, Mapping::Pending)),
            lost,
            bad_spare_blocks: bad,
            free_spare_blocks: total.saturating_sub(remapped + lost + bad),
            superblock_a: set.superblock_ok[Copy::A],
            superblock_b: set.superblock_ok[Copy::B],
            log_a: set.log_ok[Copy::A],
            log_b: set.log_ok[Copy::B],
        }
    }
}

fn text(report: &Report, out: &mut impl Write) -> Result<(), Error> {
    if let Some(set) = &report.set {
        writeln!(
            out,
            "set     \"{}\", {}: epoch {}, sequence {}",
            shown(&set.name),
            set.uuid,
            set.epoch,
            set.sequence
        )?;
        writeln!(out, "blocks  {} remapped, {} pending, {} lost", set.remapped, set.pending, set.lost)?;
        writeln!(out, "spare   {} blocks free, {} bad", set.free_spare_blocks, set.bad_spare_blocks)?;
    }
    if let (Some(base), Some(_)) = (&report.base, &report.set) {
        let uuid = base.uuid.map_or_else(String::new, |uuid| format!(", {uuid}"));
        writeln!(out, "base    {} blocks{uuid}: every mapping is on it", base.blocks)?;
    }
    for note in &report.notes {
        writeln!(out, "{}    {note}", styled(WARN, "note"))?;
    }
    Ok(writeln!(out, "{}: {}: {}", report.spare.display(), verdict(report.verdict), report.sentence)?)
}
