//! The end of a migration that a crash has stopped after the old spare was given up for the new one, and the end of a spare that was
//! replaced while it was away.

use std::rc::Rc;

use uuid::Uuid;

use super::superblocks::{newest, read_superblocks};
use crate::device::{Device, Env};
use crate::error::Error;
use crate::format::{Copy, OtherSpare, SpareState, Superblock};
use crate::mutation::{Mutation, active};
use crate::spare::Spare;

/// Makes sure that the spare `old` is never in force again, where it says already that it was given up for the spare
/// `successor`; then that one can be opened ([`super::OpenParams::given_up`]). Returns the identity of the old one.
///
/// # Errors
/// [`Error::NotGivenUp`] if it does not say so; [`Error::Io`], [`Error::NoMemory`], and those of [`super::identify`].
pub async fn give_up_for<D: Device, E: Env>(old: D, env: E, successor: Uuid) -> Result<Uuid, Error> {
    let spare = Spare::new(old, Rc::new(env));
    // What is read may be in its cache only, as a process that died has left it: a power cut would bring the old spare back.
    if !active(Mutation::GivenUpInCacheOnly) {
        spare.flush().await?;
    }
    let found = read_superblocks(&spare).await?;
    let superblock = newest(&found)?.filter(|found| found.state.ends());
    let mut superblock = superblock
        .filter(|found| found.other.is_some_and(|other| other.id == successor))
        .ok_or(Error::NotGivenUp { successor })?;
    let whole = Copy::BOTH.iter().all(|copy| found[*copy].valid().is_some_and(|found| found.state.ends()));
    if whole {
        return Ok(superblock.spare_id);
    }
    // One that cannot be read now may say something else, and be read later.
    superblock.state = SpareState::Retired;
    write(&spare, &mut superblock).await?;
    Ok(superblock.spare_id)
}

/// Makes sure that the spare `old` is never in force again, which says that it is, but was replaced while it was away by the one with
/// the superblock `in_force`. Whether it is one of those.
///
/// # Errors
/// As of [`give_up_for`], but for [`Error::NotGivenUp`].
pub async fn retire_outdated<D: Device, E: Env>(old: D, env: E, in_force: &Superblock) -> Result<bool, Error> {
    let spare = Spare::new(old, Rc::new(env));
    let Some(mut superblock) = newest(&read_superblocks(&spare).await?)? else { return Ok(false) };
    let same_set = superblock.set_uuid == in_force.set_uuid && superblock.spare_id != in_force.spare_id;
    if !same_set || superblock.state != SpareState::Active || superblock.generation >= in_force.generation {
        return Ok(false);
    }
    superblock.state = SpareState::Retired;
    superblock.slot = in_force.slot.other();
    superblock.other = Some(OtherSpare { id: in_force.spare_id, state: SpareState::Active });
    write(&spare, &mut superblock).await?;
    Ok(true)
}

/// Writes both copies, one after the other, each durably.
async fn write<D: Device, E: Env>(spare: &Spare<D, E>, superblock: &mut Superblock) -> Result<(), Error> {
    superblock.sequence = superblock.sequence.plus(1);
    for copy in Copy::BOTH {
        let layout = &superblock.layout;
        let mut page = spare.alloc(layout.page_blocks())?;
        superblock.encode(page.as_mut());
        spare.write(layout.superblock(copy), page).await.1?;
        spare.flush().await?;
    }
    Ok(())
}
