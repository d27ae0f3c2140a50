//! `list`: the blocks that are remapped, pending or lost, for people and for other tools.

use std::io::Write;

use remap_core::engine::SetPreview;
use remap_core::{Epoch, ListedExtent, ListedState, Sequence};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::cli::{Format, ListArgs, State};
use crate::ddrescue;
use crate::error::{Error, Verdict};
use crate::spare::{Base, Spare};

/// Runs the command.
///
/// # Errors
/// Those of opening the spare and its set; [`Error::Stdout`].
pub fn run(args: &ListArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let spare = Spare::open(&args.spare.spare, args.spare.size.block_size)?;
    let set = spare.set(Base::default(), args.at.at)?;
    let wanted = |state| args.states.is_empty() || args.states.iter().any(|one: &State| one.is(state));
    let extents = extents(&set).filter(|extent| wanted(extent.state));
    match args.format {
        Format::Table => table(extents, out)?,
        Format::Csv => csv(extents, out)?,
        Format::Badblocks => badblocks(extents, out)?,
        Format::Json => json(&set, extents, out)?,
        Format::Ddrescue => map(&set, extents, out)?,
    }
    out.flush()?;
    Ok(Verdict::Sound)
}

/// What the set knows, ascending, in runs that are as long as they can be.
pub fn extents(set: &SetPreview) -> impl Iterator<Item = ListedExtent> + '_ {
    let layout = &set.superblock.layout;
    let mut blocks = set.mappings.iter().map(|(lba, mapping)| ListedExtent::of(lba, mapping, layout)).peekable();
    std::iter::from_fn(move || {
        let mut extent = blocks.next()?;
        while blocks.next_if(|next| extent.extend(next)).is_some() {}
        Some(extent)
    })
}

/// The state in a word.
#[must_use]
pub fn name(state: ListedState) -> &'static str {
    match state {
        ListedState::Remapped => "remapped",
        ListedState::Pending => "pending",
        ListedState::Lost => "lost",
    }
}

fn table(extents: impl Iterator<Item = ListedExtent>, out: &mut impl Write) -> Result<(), Error> {
    writeln!(out, "{:>15} {:>10} {:>12}  state", "lba", "blocks", "spare lba")?;
    for ListedExtent { lba, num_blocks, spare_lba, state } in extents {
        let spare_lba = spare_lba.map_or_else(|| "-".to_owned(), |lba| lba.to_string());
        writeln!(out, "{:>15} {num_blocks:>10} {spare_lba:>12}  {}", lba.0, name(state))?;
    }
    Ok(())
}

fn csv(extents: impl Iterator<Item = ListedExtent>, out: &mut impl Write) -> Result<(), Error> {
    writeln!(out, "lba,num_blocks,spare_lba,state")?;
    for ListedExtent { lba, num_blocks, spare_lba, state } in extents {
        let spare_lba = spare_lba.map_or_else(String::new, |lba| lba.to_string());
        writeln!(out, "{},{num_blocks},{spare_lba},{}", lba.0, name(state))?;
    }
    Ok(())
}

fn badblocks(extents: impl Iterator<Item = ListedExtent>, out: &mut impl Write) -> Result<(), Error> {
    for extent in extents {
        for block in extent.lba.0..extent.lba.plus(extent.num_blocks).0 {
            writeln!(out, "{block}")?;
        }
    }
    Ok(())
}

/// The whole list as an object, of which no more than an extent is in memory.
#[derive(Serialize)]
struct Listing<'a, I: Iterator<Item = ListedExtent>> {
    name: &'a str,
    uuid: Uuid,
    base_uuid: Uuid,
    block_size: u32,
    base_blocks: u64,
    epoch: Epoch,
    sequence: Sequence,
    #[serde(serialize_with = "one_by_one")]
    extents: std::cell::RefCell<I>,
}

fn one_by_one<I: Iterator<Item = ListedExtent>, S: Serializer>(
    extents: &std::cell::RefCell<I>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(&mut *extents.borrow_mut())
}

fn json(set: &SetPreview, extents: impl Iterator<Item = ListedExtent>, out: &mut impl Write) -> Result<(), Error> {
    let superblock = &set.superblock;
    let listing = Listing {
        name: &superblock.name,
        uuid: superblock.set_uuid,
        base_uuid: superblock.base_uuid,
        block_size: superblock.layout.block_size,
        base_blocks: superblock.base_blocks,
        epoch: set.epoch,
        sequence: set.sequence,
        extents: extents.into(),
    };
    serde_json::to_writer(&mut *out, &listing).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

fn map(set: &SetPreview, extents: impl Iterator<Item = ListedExtent>, out: &mut impl Write) -> Result<(), Error> {
    let superblock = &set.superblock;
    let bad = extents.map(|extent| extent.lba.0..extent.lba.plus(extent.num_blocks).0);
    let about = format!("{} ({}): what is bad on the base", superblock.name, superblock.set_uuid);
    let end = superblock.base_blocks;
    Ok(ddrescue::write(out, &[&about], superblock.layout.block_size, bad, end, end)?)
}
