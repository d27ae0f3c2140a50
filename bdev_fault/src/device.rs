//! The Fault bdev: one comparison with the rules, then on to the base.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use spdk::{
    Bdev, BdevHandle, Child, Desc, Endpoint, Errno, Event, Io, IoKind, Module, OnChild, Properties,
    thread::{self, AppCell},
};
use uuid::Uuid;

use crate::rules::Rules;

/// A bdev with faults.
pub struct Fault {
    name: String,
    base_bdev: String,
    /// Given up in destruct.
    base: Mutex<Option<Desc>>,
    /// What fails.
    pub rules: Rules,
}

static DEVICES: AppCell<RefCell<BTreeMap<String, BdevHandle<Fault>>>> = AppCell::new(RefCell::new(BTreeMap::new()));

/// The Fault bdev called `name`. App thread.
pub fn find(name: &str) -> Option<BdevHandle<Fault>> {
    DEVICES.with(|devices| devices.borrow().get(name).cloned()).flatten()
}

/// Makes a Fault bdev on `base_bdev`. App thread.
pub fn create(name: &str, base_bdev: &str) -> Result<(), Errno> {
    let owner = name.to_owned();
    let base = Desc::open(base_bdev, move |event| {
        if event == Event::Remove
            && let Some(device) = find(&owner)
        {
            thread::spawn(async move {
                if let Err(errno) = device.unregister().await {
                    log::warn!("{}: {errno}", device.name);
                }
            });
        }
    })?;
    base.claim(&crate::MODULE)?;
    let info = base.info();
    let properties = Properties {
        name: name.to_owned(),
        product: "Fault injection disk",
        // The same at every start, so that what identifies its base by UUID finds it again.
        uuid: Uuid::new_v5(&info.uuid, name.as_bytes()),
        blocks: info.blocks,
        write_cache: info.write_cache,
    };
    let device = Fault {
        name: name.to_owned(),
        base_bdev: info.name,
        base: Mutex::new(Some(base.clone())),
        rules: Rules::default(),
    };
    let handle = BdevHandle::register(device, properties, &[&base])?;
    DEVICES.with(|devices| devices.borrow_mut().insert(name.to_owned(), handle));
    log::info!("{name}: created on {base_bdev}");
    Ok(())
}

impl Fault {
    fn base(&self) -> MutexGuard<'_, Option<Desc>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Back;

impl OnChild<Fault> for Back {
    fn done(io: Io<Fault>, child: Child) {
        io.complete_as(child);
    }
}

impl Bdev for Fault {
    type Channel = Endpoint;

    fn module() -> &'static Module {
        &crate::MODULE
    }

    fn create_channel(&self) -> Result<Endpoint, Errno> {
        Endpoint::new(self.base().as_ref().ok_or(Errno::NODEV)?)
    }

    fn submit(&self, channel: &Endpoint, io: Io<Fault>) {
        let kind = io.kind();
        if kind == IoKind::Abort {
            return io.forward_abort::<Back>(|channel| channel);
        }
        if kind == IoKind::Read && io.needs_buffer() {
            return io.get_buffer();
        }
        let lba = io.lba();
        match self.rules.verdict(kind, lba, io.blocks()) {
            Some(status) => io.complete(Err(status)),
            None => io.forward::<Back>(kind, channel, lba),
        }
    }

    fn supports(&self, kind: IoKind) -> bool {
        self.base().as_ref().is_some_and(|base| base.supports(kind))
    }

    fn info(&self) -> (&'static str, Value) {
        ("fault", json!({ "name": self.name, "base_bdev": self.base_bdev, "rules": self.rules.list() }))
    }

    fn config(&self) -> Option<(&'static str, Value)> {
        Some(("bdev_fault_create", json!({ "name": self.name, "base_bdev": self.base_bdev })))
    }

    async fn destruct(&self) {
        DEVICES.with(|devices| devices.borrow_mut().remove(&self.name));
        self.base().take();
        log::info!("{}: deleted", self.name);
    }
}
