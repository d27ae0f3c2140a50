//! A set: who it is, what is known of it, and what it is just now. The registry alone changes what it is.

use futures_channel::oneshot;
use remap_core::{
    Events,
    format::{SpareState, Superblock},
};
use serde::{Deserialize, Serialize};
use spdk::{BdevHandle, Desc};
use uuid::Uuid;

use crate::{
    device::{Remap, Tuning},
    runtime::Threads,
};

/// Who a set is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name of the Remap bdev.
    pub name: String,
    /// UUID of the set, and of the Remap bdev.
    pub uuid: Uuid,
    /// UUID of the base.
    pub base_uuid: Uuid,
    /// UUID of the spare.
    pub spare_uuid: Uuid,
    /// The generation of the set, as far as it is known: a spare that is in force says this or more. 0 if nothing is known.
    #[serde(default)]
    pub generation: u64,
}

impl Identity {
    /// Whether a spare of the set with this superblock was replaced by another one while it was away, and does not know it.
    pub fn outdates(&self, superblock: &Superblock) -> bool {
        superblock.state == SpareState::Active && superblock.generation < self.generation
    }
}

impl From<&Superblock> for Identity {
    fn from(superblock: &Superblock) -> Identity {
        let Superblock { name, set_uuid, base_uuid, spare_id, generation, .. } = superblock;
        Identity {
            name: name.clone(),
            uuid: *set_uuid,
            base_uuid: *base_uuid,
            spare_uuid: *spare_id,
            generation: *generation,
        }
    }
}

/// A set, from when it became known until it is closed or given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// UUID of the set.
    pub set: Uuid,
    pub(crate) generation: u64,
}

/// A member of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Member {
    /// The base.
    Base,
    /// The spare.
    Spare,
}

/// A spare that says that it belongs to a set.
pub struct FoundSpare {
    /// Name of its bdev.
    pub bdev: String,
    /// What it says.
    pub superblock: Superblock,
    /// Open for reading only: it tells when the spare goes.
    pub _watch: Desc,
}

/// What is known of a set that is not online.
#[derive(Default)]
pub struct Waiting {
    /// The base, claimed, so that nobody takes it for a bdev of its own: without its spare it shows old data.
    pub base: Option<Desc>,
    /// The spares that were found. Two that say that they are active are a contradiction; others may be what a migration has left.
    pub spares: Vec<FoundSpare>,
    /// Why it did not come online when all was there.
    pub refusal: Option<String>,
    /// Tells that others claim its base, too, if that was so.
    pub events: Option<Events<Threads>>,
}

/// What a set is just now.
pub enum State {
    /// Something is missing, or speaks against it.
    Waiting(Waiting),
    /// Being opened, with what was known before. `lost` is a member that is being removed meanwhile, and its bdev's name.
    Opening { was: Identity, before: Waiting, lost: Option<(Member, String)> },
    /// Registered.
    Online(BdevHandle<Remap>),
    /// Being unregistered: no RPC finds it.
    Closing(BdevHandle<Remap>),
}

/// A set.
pub struct Set {
    /// Who it is.
    pub identity: Identity,
    /// Known also without its spare: it was online, or somebody has said that it is to be expected.
    pub expected: bool,
    /// How it is to work when it comes online by itself.
    pub tuning: Tuning,
    /// What it is just now.
    pub state: State,
    pub(crate) generation: u64,
    /// Who wants to know when it has been opened or closed.
    pub(crate) settled: Vec<oneshot::Sender<()>>,
}

impl Set {
    /// Its tag.
    pub fn tag(&self) -> Tag {
        Tag { set: self.identity.uuid, generation: self.generation }
    }

    /// What is known of it, if it waits.
    pub fn waiting(&self) -> Option<&Waiting> {
        if let State::Waiting(waiting) = &self.state { Some(waiting) } else { None }
    }

    /// See [`Set::waiting`].
    pub fn waiting_mut(&mut self) -> Option<&mut Waiting> {
        if let State::Waiting(waiting) = &mut self.state { Some(waiting) } else { None }
    }

    /// Whether a spare of it was found.
    pub fn found(&self) -> bool {
        self.waiting().is_none_or(|waiting| !waiting.spares.is_empty())
    }

    /// Whether anything is known of it that does not come with a call to make it.
    pub fn is_known(&self) -> bool {
        self.expected || self.found()
    }

    /// Whether it is being opened or closed.
    pub fn changes(&self) -> bool {
        matches!(self.state, State::Opening { .. } | State::Closing(_))
    }
}
