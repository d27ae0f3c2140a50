//! What one thread needs to reach the devices, and what it knows of the I/O that is under way.

use std::{
    cell::{Cell, Ref, RefCell},
    future::{Future, Ready, ready},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::future::Either;
use remap_core::{Abilities, At, Gate, PerSlot, Ranges, Slot, Takes};
use smallvec::SmallVec;
use spdk::{Aside, Endpoint, Errno, IoId};

use crate::{
    below::{Below, SpareBelow},
    held::Holder,
};

/// The channel of a Remap bdev.
pub struct Channel {
    /// To the base.
    pub base: Endpoint,
    /// To the spare in each slot where there is one. Never borrowed over an await.
    spares: RefCell<PerSlot<Option<Spare>>>,
    /// Which I/O the devices take.
    abilities: Cell<Abilities>,
    /// What all I/O to blocks goes through.
    pub gate: Rc<Gate>,
    /// The I/O that is held here.
    pub holder: Holder,
    /// The I/O that waits for what a look at the table needs.
    pub aside: Aside,
}

/// A spare, for one thread.
#[derive(Clone)]
pub struct Spare {
    /// The way there.
    pub endpoint: Endpoint,
    /// Where the data begins.
    pub data_start: u64,
}

/// The devices of a channel.
pub struct Reach<'a> {
    base: &'a Endpoint,
    spares: Ref<'a, PerSlot<Option<Spare>>>,
}

impl Reach<'_> {
    /// The device behind a place, and the LBA there. None if it is in a slot without a spare, which does not occur.
    #[inline]
    pub fn place(&self, at: At) -> Option<(&Endpoint, u64)> {
        match at {
            At::Base(lba) => Some((self.base, lba.0)),
            At::Spare(block) => {
                let spare = self.spares[block.slot()].as_ref()?;
                Some((&spare.endpoint, spare.data_start + u64::from(block.index())))
            }
        }
    }
}

impl Channel {
    /// Channels of all devices for the current thread, and a gate that is closed for these blocks.
    pub fn new(below: &Below, closed: Vec<Ranges>, resetting: &Arc<AtomicBool>) -> Result<Channel, Errno> {
        let channel = Channel {
            base: Endpoint::new(&below.base)?,
            spares: RefCell::default(),
            abilities: Cell::new(below.abilities_of_base()),
            gate: Rc::new(Gate::new(closed)),
            holder: Holder::new(resetting),
            aside: Aside::default(),
        };
        for (slot, spare) in below.spares.iter() {
            spare.iter().try_for_each(|spare| channel.attach(slot, spare))?;
        }
        Ok(channel)
    }

    /// A spare is there now, if it was not before.
    pub fn attach(&self, slot: Slot, spare: &SpareBelow) -> Result<(), Errno> {
        if self.spares.borrow()[slot].is_none() {
            let endpoint = Endpoint::new(&spare.desc)?;
            self.spares.borrow_mut()[slot] = Some(Spare { endpoint, data_start: spare.data_start });
            self.set_takes(slot, spare.takes);
        }
        Ok(())
    }

    /// The spare in this slot, to which nothing goes any more, is given up.
    pub fn detach(&self, slot: Slot) {
        self.set_takes(slot, Takes::NONE);
        // Given up when nothing is borrowed.
        let _gone = self.spares.borrow_mut()[slot].take();
    }

    fn set_takes(&self, slot: Slot, takes: Takes) {
        let mut abilities = self.abilities.get();
        abilities.spares[slot] = takes;
        self.abilities.set(abilities);
    }

    /// Which I/O the devices take.
    #[inline(always)]
    pub fn abilities(&self) -> Abilities {
        self.abilities.get()
    }

    /// All devices, as long as something is sent to them: spares come and go only in visits of all channels, each of which begins with a
    /// message.
    #[inline]
    pub fn devices(&self) -> Reach<'_> {
        Reach { base: &self.base, spares: self.spares.borrow() }
    }

    /// As [`Reach::place`], for whoever waits for what is sent there.
    pub fn reach(&self, at: At) -> Option<(Endpoint, u64)> {
        self.devices().place(at).map(|(to, lba)| (to.clone(), lba))
    }

    /// The spares in these slots.
    pub fn spares_in(&self, slots: PerSlot<bool>) -> SmallVec<[Spare; 2]> {
        let spares = self.spares.borrow();
        spares.iter().filter(|(slot, _)| slots[*slot]).filter_map(|(_, spare)| spare.clone()).collect()
    }

    /// Gives up all that is held. To be called by a message, as a visit is.
    pub fn give_all_up(&self) -> Ready<()> {
        // What is aside is not held: it goes where it would have gone already, to be reset there. Its own message may be behind this visit, and come
        // after the reset.
        self.aside.take_all_turns();
        self.holder.give_all_up();
        self.gate.stir();
        ready(())
    }

    /// Gives `io` up; the answer is whether it will not be sent any more. None if it is neither held nor aside. Nothing ends before the answer is
    /// awaited: the memory of what ends may be that of the next I/O.
    pub fn abort(&self, io: IoId) -> Option<impl Future<Output = bool> + use<>> {
        if let Some(aborted) = self.aside.abort(io) {
            return Some(Either::Left(aborted));
        }
        let aborted = self.holder.abort(io);
        self.gate.stir();
        aborted.map(Either::Right)
    }
}
