//! The registry: all sets that are known, by set UUID, and what becomes of them. App thread, which is every set's owner thread.
//!
//! ```text
//! Waiting ──> Opening ──> Online ──> Closing ──> gone, or Waiting again if a member was lost
//!    └───────────┘ when that fails
//! ```
//! A name is an index: at most one set that is opening, online or closing has it, any number of waiting ones. Whoever acts
//! on a set later, as the handler of an event does, names it by its [`Tag`], so that it never meets another one.

use std::{cell::RefCell, collections::BTreeMap};

use futures_channel::oneshot;
use remap_core::format::Superblock;
use spdk::{BdevHandle, Desc, Errno, rpc::Error, thread::AppCell};
use uuid::Uuid;

use crate::{
    device::{Remap, Tuning},
    set::{Identity, Member, Set, State, Tag, Waiting},
};

/// All sets.
#[derive(Default)]
pub struct Sets {
    by_uuid: BTreeMap<Uuid, Set>,
    generation: u64,
}

static SETS: AppCell<RefCell<Sets>> = AppCell::new(RefCell::new(Sets { by_uuid: BTreeMap::new(), generation: 0 }));

/// Shows the sets to `f`. Whatever `f` takes out that closes a bdev has to be dropped by the caller, not by `f`.
pub fn with<R: Default>(f: impl FnOnce(&mut Sets) -> R) -> R {
    SETS.with(|sets| f(&mut sets.borrow_mut())).unwrap_or_default()
}

impl Sets {
    /// All, by UUID.
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.by_uuid.values()
    }

    /// See [`Sets::all`].
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.by_uuid.values_mut()
    }

    /// The set with this UUID.
    pub fn get(&self, uuid: Uuid) -> Option<&Set> {
        self.by_uuid.get(&uuid)
    }

    /// See [`Sets::get`].
    pub fn get_mut(&mut self, uuid: Uuid) -> Option<&mut Set> {
        self.by_uuid.get_mut(&uuid)
    }

    /// The set that was meant.
    pub fn tagged(&mut self, tag: Tag) -> Option<&mut Set> {
        self.get_mut(tag.set).filter(|set| set.generation == tag.generation)
    }

    /// The set that has this name: it is opening, online or closing.
    pub fn named(&self, name: &str) -> Option<&Set> {
        self.all().find(|set| set.waiting().is_none() && set.identity.name == name)
    }

    /// The set with this identity's UUID, which becomes known if it was not.
    pub fn know(&mut self, identity: &Identity) -> &mut Set {
        let generation = self.generation + 1;
        self.by_uuid.entry(identity.uuid).or_insert_with(|| {
            self.generation = generation;
            let state = State::Waiting(Waiting::default());
            let (identity, tuning) = (identity.clone(), Tuning::default());
            Set { identity, expected: false, tuning, state, generation, settled: Vec::new() }
        })
    }

    /// Forgets the set.
    pub fn remove(&mut self, uuid: Uuid) -> Option<Set> {
        self.by_uuid.remove(&uuid)
    }
}

/// What comes of the wish to open a set.
#[derive(Default)]
pub enum Begun {
    /// It is opening now. The base comes with it if it was kept.
    Opening(Tag, Option<Desc>),
    /// It, or another set of that name, changes just now: once this resolves, ask again.
    Later(oneshot::Receiver<()>),
    /// It is there.
    Online(BdevHandle<Remap>),
    /// Another set has the name.
    NameTaken(BdevHandle<Remap>),
    /// This is not the app thread.
    #[default]
    Nowhere,
}

/// Begins to open a set under the name of `identity`.
pub fn begin_opening(identity: &Identity) -> Begun {
    with(|sets| {
        let holder = sets.named(&identity.name).map(|set| set.identity.uuid);
        for uuid in [Some(identity.uuid), holder].into_iter().flatten() {
            match sets.get_mut(uuid) {
                Some(set) if set.changes() => {
                    let (settled, later) = oneshot::channel();
                    set.settled.push(settled);
                    return Begun::Later(later);
                }
                Some(Set { state: State::Online(device), .. }) if uuid == identity.uuid => {
                    return Begun::Online(device.clone());
                }
                Some(Set { state: State::Online(device), .. }) => return Begun::NameTaken(device.clone()),
                _ => {}
            }
        }
        let set = sets.know(identity);
        let tag = set.tag();
        let before = set.waiting_mut().map(std::mem::take).unwrap_or_default();
        let base = before.base.clone();
        let was = std::mem::replace(&mut set.identity, identity.clone());
        set.state = State::Opening { was, before, lost: None };
        Begun::Opening(tag, base)
    })
}

/// The set has been opened, or could not be; the member that is being removed since.
pub fn opened(tag: Tag, device: Option<BdevHandle<Remap>>) -> Option<(Member, String)> {
    let (_given_up, settled, lost) = with(|sets| {
        let Some(set) = sets.tagged(tag) else { return Default::default() };
        let settled = std::mem::take(&mut set.settled);
        let State::Opening { was, before, lost } =
            std::mem::replace(&mut set.state, State::Waiting(Waiting::default()))
        else {
            return Default::default();
        };
        let given_up = match device {
            Some(device) => {
                set.state = State::Online(device);
                (Some(before), None)
            }
            None => {
                set.identity = was;
                set.state = State::Waiting(before);
                (None, if set.is_known() { None } else { sets.remove(tag.set) })
            }
        };
        (given_up, settled, lost)
    });
    tell(settled);
    lost
}

fn tell(settled: Vec<oneshot::Sender<()>>) {
    for settled in settled {
        // An error means that nobody waits any more.
        let _ = settled.send(());
    }
}

/// Begins to close a set that is online: from now on no RPC finds it.
pub fn begin_closing(tag: Tag) -> Option<BdevHandle<Remap>> {
    with(|sets| {
        let set = sets.tagged(tag)?;
        let State::Online(device) = &set.state else { return None };
        let device = device.clone();
        // It may come back.
        set.tuning = device.tuning();
        set.state = State::Closing(device.clone());
        Some(device)
    })
}

/// What becomes of a set that was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It could not be closed: it goes on.
    Online,
    /// It waits for the member that it has lost.
    Waiting,
    /// It is forgotten.
    Gone,
}

/// The set has been closed, or could not be.
pub fn closed(tag: Tag, fate: Fate) {
    let (_gone, settled) = with(|sets| {
        let Some(set) = sets.tagged(tag) else { return Default::default() };
        let settled = std::mem::take(&mut set.settled);
        if fate == Fate::Online {
            if let State::Closing(device) = &set.state {
                set.state = State::Online(device.clone());
            }
            return (None, settled);
        }
        let gone = sets.remove(tag.set);
        if let (Some(gone), Fate::Waiting) = (&gone, fate) {
            let set = sets.know(&gone.identity);
            (set.expected, set.tuning) = (true, gone.tuning);
        }
        (gone, settled)
    });
    tell(settled);
}

/// What the loss of a member comes to.
#[derive(Default)]
pub enum Lost {
    /// Nothing more is to be done.
    #[default]
    Settled,
    /// The set is online, and has to be closed.
    Close,
    /// It is not in force: all moves there, or was moved from there.
    NotInForce(BdevHandle<Remap>),
}

/// A member of the set is being removed.
pub fn member_lost(tag: Tag, member: Member, bdev: &str) -> Lost {
    let (_given_up, lost) = with(|sets| {
        let Some(set) = sets.tagged(tag) else { return Default::default() };
        let waiting = match &mut set.state {
            State::Waiting(waiting) => waiting,
            State::Opening { before, lost, .. } => {
                *lost = Some((member, bdev.to_owned()));
                before
            }
            State::Online(device) if member == Member::Spare && device.spare_bdev() != bdev => {
                return (Default::default(), Lost::NotInForce(device.clone()));
            }
            State::Online(_) => return (Default::default(), Lost::Close),
            State::Closing(_) => return Default::default(),
        };
        let mut given_up = (Vec::new(), None, None);
        match member {
            Member::Base => given_up.1 = waiting.base.take(),
            Member::Spare => given_up.0 = waiting.spares.extract_if(.., |spare| spare.bdev == bdev).collect(),
        }
        if !set.is_known() {
            given_up.2 = sets.remove(tag.set);
        }
        (given_up, Lost::Settled)
    });
    lost
}

/// The Remap bdev called `name`, if it is online.
pub fn find(name: &str) -> Result<(Tag, BdevHandle<Remap>), Error> {
    let found = with(|sets| {
        let why = match sets.named(name) {
            Some(set) => match &set.state {
                State::Online(device) => return Some(Ok((set.tag(), device.clone()))),
                State::Closing(_) => format!("{name} is being removed"),
                _ => format!("{name} is being made; try again"),
            },
            None if sets.all().any(|set| set.identity.name == name) => {
                format!("{name} is not online: bdev_remap_status says what it waits for, bdev_remap_forget gives it up")
            }
            None => format!("there is no Remap bdev called {name}"),
        };
        Some(Err(why))
    });
    let found = found.unwrap_or_else(|| Err(format!("{name} cannot be looked up on this thread")));
    found.map_err(|why| Error::new(Errno::NODEV, format!("name: {why}")))
}

/// The set that was meant, if it is online.
pub fn tagged_online(tag: Tag) -> Option<BdevHandle<Remap>> {
    with(|sets| match &sets.tagged(tag)?.state {
        State::Online(device) => Some(device.clone()),
        _ => None,
    })
}

/// The set has moved to this spare.
pub fn moved(tag: Tag, spare_uuid: Uuid) {
    with(|sets| {
        if let Some(set) = sets.tagged(tag) {
            set.identity.spare_uuid = spare_uuid;
        }
    });
}

/// What the spare in force says of the set.
pub fn learn(tag: Tag, superblock: &Superblock) {
    with(|sets| {
        if let Some(set) = sets.tagged(tag) {
            set.identity = Identity::from(superblock);
        }
    });
}

/// What is known of the set with this UUID.
pub fn identity(uuid: Uuid) -> Option<Identity> {
    with(|sets| sets.get(uuid).map(|set| set.identity.clone()))
}

/// The tag of the set with this UUID, if it is online.
pub fn online_as(uuid: Uuid) -> Option<Tag> {
    with(|sets| sets.get(uuid).filter(|set| matches!(set.state, State::Online(_))).map(Set::tag))
}

/// All Remap bdevs that are online.
pub fn online() -> Vec<BdevHandle<Remap>> {
    with(|sets| {
        let online = |set: &Set| match &set.state {
            State::Online(device) => Some(device.clone()),
            _ => None,
        };
        let mut online: Vec<_> = sets.all().filter_map(online).collect();
        online.sort_by(|a, b| a.name.cmp(&b.name));
        online
    })
}

/// The sets that are expected after a restart: those that are online, and those that are expected now.
pub fn expected() -> Vec<Identity> {
    with(|sets| {
        let expected = |set: &&Set| set.expected || matches!(set.state, State::Online(_));
        sets.all().filter(expected).map(|set| set.identity.clone()).collect()
    })
}

/// Waits until the set with this UUID is neither being opened nor closed. Not to be called while bdevs are examined: SPDK lets go
/// of a bdev that was just registered only when nothing is.
pub async fn settled(uuid: Uuid) {
    wait_while(uuid, Set::changes).await;
}

/// Waits until the set with this UUID is not being opened.
pub async fn opening_over(uuid: Uuid) {
    wait_while(uuid, |set| matches!(set.state, State::Opening { .. })).await;
}

async fn wait_while(uuid: Uuid, changes: impl Fn(&Set) -> bool) {
    while let Some(later) = with(|sets| {
        let set = sets.get_mut(uuid).filter(|set| changes(set))?;
        let (settled, later) = oneshot::channel();
        set.settled.push(settled);
        Some(later)
    }) {
        // An error means that the set has gone.
        let _ = later.await;
    }
}

/// Forgets all sets that wait: SPDK stops, and their claims would hold up the bdevs.
pub fn forget_waiting() {
    let _given_up = with(|sets| {
        let waiting: Vec<_> = sets.all().filter(|set| set.waiting().is_some()).map(|set| set.identity.uuid).collect();
        waiting.into_iter().filter_map(|uuid| sets.remove(uuid)).collect::<Vec<_>>()
    });
}
