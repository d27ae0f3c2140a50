//! The superblocks as they are found on a spare, and which of them counts.

use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::layout::{page_geometry, superblock_b};
use crate::format::{Copy, Layout, PerCopy, Superblock, SuperblockContent};
use crate::mutation::{Mutation, active};
use crate::spare::Spare;
use crate::units::SpareLba;

/// A superblock area as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Unreadable,
    Read(SuperblockContent),
}

impl Found {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Found::Unreadable => "unreadable",
            Found::Read(SuperblockContent::Valid(_)) => "valid",
            Found::Read(SuperblockContent::Newer { .. }) => "of a newer version",
            Found::Read(SuperblockContent::Impossible(_)) => "contradictory",
            Found::Read(SuperblockContent::Zero) => "zero",
            Found::Read(SuperblockContent::Corrupt) => "corrupt",
            Found::Read(SuperblockContent::Foreign) => "foreign",
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        matches!(self, Found::Read(SuperblockContent::Zero))
    }

    pub(super) fn valid(&self) -> Option<&Superblock> {
        match self {
            Found::Read(SuperblockContent::Valid(superblock)) => Some(superblock),
            _ => None,
        }
    }
}

/// What is in the two places where a superblock can be.
///
/// # Errors
/// [`Error::BlockSize`], [`Error::TooSmall`]; [`Error::Io`] for errors that say nothing about the medium.
pub(super) async fn read_superblocks<D: Device, E: Env>(spare: &Spare<D, E>) -> Result<PerCopy<Found>, Error> {
    let geometry = spare.geometry();
    let (_, page_blocks) =
        page_geometry(geometry.block_size).ok_or(Error::BlockSize { block_size: geometry.block_size })?;
    let Some(superblock_b) = superblock_b(geometry.block_size, geometry.blocks) else {
        // Not even two pages: this says how many there should be.
        Layout::for_spare(geometry.block_size, geometry.blocks)?;
        return Err(Error::Superblock { what: "size of the device" });
    };
    let read = async |lba| {
        let page = spare.read(lba, page_blocks as u64).await?;
        Ok::<_, Error>(page.map_or(Found::Unreadable, |page| Found::Read(Superblock::decode(page.as_ref()))))
    };
    let (a, mut b) = (read(SpareLba(0)).await?, read(superblock_b).await?);
    // The device may have grown, and have anything at its new end.
    if let Some(a) = a.valid().filter(|a| is_before(a, &b, superblock_b)) {
        let mut at = a.layout.superblock_b;
        b = read(at).await?;
        // Where superblock A could not be written when it grew, this one knows further.
        while let Some(next) =
            b.valid().map(|b| b.layout.superblock_b).filter(|next| at < *next && *next < superblock_b)
        {
            let found = read(next).await?;
            if found.valid().is_none_or(|found| found.spare_id != a.spare_id) {
                break;
            }
            (at, b) = (next, found);
        }
    }
    Ok(PerCopy([a, b]))
}

/// Whether superblock B is where `a` has it, before the end of the device where `b` was found.
fn is_before(a: &Superblock, b: &Found, end: SpareLba) -> bool {
    let moved = match b {
        Found::Read(SuperblockContent::Valid(b)) => b.spare_id == a.spare_id,
        // It may say something about this spare that is not known here.
        Found::Read(SuperblockContent::Newer { .. }) => true,
        _ => false,
    };
    a.layout.superblock_b < end && !moved
}

/// Of two valid superblocks the one that counts.
///
/// # Errors
/// [`Error::MixedSuperblocks`], [`Error::Superblock`].
pub(super) fn newest(found: &PerCopy<Found>) -> Result<Option<Superblock>, Error> {
    let (a, b) = match (found[Copy::A].valid(), found[Copy::B].valid()) {
        (Some(a), Some(b)) => (a, b),
        (a, b) => return Ok(a.or(b).cloned()),
    };
    if a.set_uuid != b.set_uuid || a.spare_id != b.spare_id {
        return Err(Error::MixedSuperblocks { a: a.set_uuid, b: b.set_uuid });
    }
    if a.sequence == b.sequence && a != b {
        return Err(Error::Superblock { what: "the copies differ" });
    }
    let (newer, older) = if (b.sequence > a.sequence) != active(Mutation::OlderSuperblock) { (b, a) } else { (a, b) };
    let mut counts = newer.clone();
    // What ends something counts only when both say so: until then nothing rests on it.
    if newer.state.ends() && !older.state.ends() {
        counts.state = older.state;
    }
    Ok(Some(counts))
}
