//! `list`: the blocks that are remapped, pending or lost, for people and for other tools; of a spare, or of a running target.

use std::cell::RefCell;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use remap_core::engine::SetPreview;
use remap_core::{Epoch, ListedExtent, ListedState, Sequence};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::cli::{Format, ListArgs, SourceArgs, State};
use crate::ddrescue;
use crate::error::{Error, Verdict};
use crate::map::words::shown;
use crate::rpc::answers::{Online, Set};
use crate::rpc::{Client, Failure, PATIENCE};
use crate::spare::{Base, Spare};

/// Whose blocks are listed.
#[derive(Serialize)]
struct About {
    name: String,
    uuid: Uuid,
    base_uuid: Uuid,
    block_size: u32,
    base_blocks: u64,
    epoch: Epoch,
    sequence: Sequence,
}

/// Runs the command.
///
/// # Errors
/// Those of opening the spare and its set, or of asking the target; [`Error::NeitherSpareNorSet`]; [`Error::Stdout`].
pub fn run(args: &ListArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let source = &args.source;
    if let Some((client, set)) = online(source)? {
        live(args, &client, &set, out)?;
    } else {
        let spare = Spare::open(&source.spare, source.size.block_size)?;
        let set = spare.set(Base::default(), source.at.at)?;
        let extents = extents(&set).map(Ok);
        listed(args, &About::of(&set), extents, out)?;
    }
    out.flush()?;
    Ok(Verdict::Sound)
}

/// Whether there is no file that is meant. An absolute path is never the name of a bdev.
fn may_be_name(spare: &Path) -> bool {
    !spare.is_absolute() && fs::symlink_metadata(spare).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The set that is meant, and its target, unless a spare is. Nothing may be asked of it that only a spare can answer.
pub(crate) fn online(source: &SourceArgs) -> Result<Option<(Client, Online)>, Error> {
    let name = &source.spare;
    if !may_be_name(name) {
        return Ok(None);
    }
    let neither = |why: Failure| Error::NeitherSpareNorSet { path: name.to_owned(), why };
    if source.at.at.is_some() || source.size.block_size.is_some() {
        return Err(Error::NoSpare { path: name.to_owned() });
    }
    let client = Client::new(&source.target.socket, PATIENCE);
    // A name of SPDK is text.
    let text = name.to_string_lossy();
    let set = client.sets_named(&text).map_err(neither)?.into_iter().find_map(Set::into_online);
    let set = set.ok_or_else(|| Error::Offline { name: text.into_owned() })?;
    Ok(Some((client, set)))
}

/// Lists the blocks of a Remap bdev of a running target, page by page.
fn live(args: &ListArgs, client: &Client, set: &Online, out: &mut impl Write) -> Result<(), Error> {
    let (bdev, base) = (client.bdev(&set.name)?, client.bdev(&set.base_bdev)?);
    let about = About {
        name: set.name.clone(),
        uuid: set.uuid,
        base_uuid: base.uuid,
        block_size: bdev.block_size,
        base_blocks: bdev.num_blocks,
        epoch: set.epoch,
        sequence: set.sequence,
    };
    let extents = client.extents(&set.name).map(|extent| extent.map_err(Error::Target));
    listed(args, &about, extents, out)
}

/// Writes those extents that are asked for as they are asked for. What was written before an error is no whole list.
fn listed(args: &ListArgs, about: &About, extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    let wanted = |state| args.states.is_empty() || args.states.iter().any(|one: &State| one.is(state));
    let extents = extents.filter(|extent| extent.as_ref().map_or(true, |extent| wanted(extent.state)));
    match args.format {
        Format::Table => table(extents, out),
        Format::Csv => csv(extents, out),
        Format::Badblocks => badblocks(extents, out),
        Format::Json => json(about, extents, out),
        Format::Ddrescue => map(about, extents, out),
    }
}

/// Extents, ascending; an error is the last.
trait Extents: Iterator<Item = Result<ListedExtent, Error>> {}
impl<I: Iterator<Item = Result<ListedExtent, Error>>> Extents for I {}

impl About {
    fn of(set: &SetPreview) -> About {
        let superblock = &set.superblock;
        About {
            name: superblock.name.clone(),
            uuid: superblock.set_uuid,
            base_uuid: superblock.base_uuid,
            block_size: superblock.layout.block_size,
            base_blocks: superblock.base_blocks,
            epoch: set.epoch,
            sequence: set.sequence,
        }
    }
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

fn table(extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    writeln!(out, "{:>15} {:>10} {:>12}  state", "lba", "blocks", "spare lba")?;
    for extent in extents {
        let ListedExtent { lba, num_blocks, spare_lba, state } = extent?;
        let spare_lba = spare_lba.map_or_else(|| "-".to_owned(), |lba| lba.to_string());
        writeln!(out, "{:>15} {num_blocks:>10} {spare_lba:>12}  {}", lba.0, name(state))?;
    }
    Ok(())
}

fn csv(extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    writeln!(out, "lba,num_blocks,spare_lba,state")?;
    for extent in extents {
        let ListedExtent { lba, num_blocks, spare_lba, state } = extent?;
        let spare_lba = spare_lba.map_or_else(String::new, |lba| lba.to_string());
        writeln!(out, "{},{num_blocks},{spare_lba},{}", lba.0, name(state))?;
    }
    Ok(())
}

fn badblocks(extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    for extent in extents {
        let extent = extent?;
        for block in extent.lba.0..extent.lba.plus(extent.num_blocks).0 {
            writeln!(out, "{block}")?;
        }
    }
    Ok(())
}

/// The whole list as an object, of which no more than an extent is in memory.
#[derive(Serialize)]
struct Listing<'a, E> {
    #[serde(flatten)]
    about: &'a About,
    extents: &'a E,
}

/// A list that is written as it comes, up to its error, which is kept.
struct OneByOne<I> {
    extents: RefCell<I>,
    error: RefCell<Option<Error>>,
}

impl<I: Extents> Serialize for OneByOne<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for extent in &mut *self.extents.borrow_mut() {
            match extent {
                Ok(extent) => list.serialize_element(&extent)?,
                Err(error) => {
                    self.error.replace(Some(error));
                    return Err(S::Error::custom("the list has no end"));
                }
            }
        }
        list.end()
    }
}

fn json(about: &About, extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    let extents = OneByOne { extents: extents.into(), error: RefCell::default() };
    let listing = Listing { about, extents: &extents };
    if let Err(error) = serde_json::to_writer(&mut *out, &listing) {
        return Err(extents.error.take().unwrap_or_else(|| std::io::Error::from(error).into()));
    }
    Ok(writeln!(out)?)
}

fn map(about: &About, extents: impl Extents, out: &mut impl Write) -> Result<(), Error> {
    let bad = extents.map(|extent| extent.map(|extent| extent.lba.0..extent.lba.plus(extent.num_blocks).0));
    let (end, of) = (about.base_blocks, format!("{} ({}): what is bad on the base", shown(&about.name), about.uuid));
    ddrescue::write(out, &[&of], about.block_size, bad, end, end)
}
