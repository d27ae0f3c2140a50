//! What holds for all sets of this application: whether they come online by themselves, and which host this is. App thread.

use std::{cell::RefCell, fs, sync::OnceLock};

use serde::Serialize;
use serde_json::{Value, json};
use spdk::thread::AppCell;
use uuid::{Uuid, uuid};

/// Options as they were given.
#[derive(Clone, Copy, Default)]
struct Given {
    auto_assemble: Option<bool>,
    host_id: Option<Uuid>,
}

static GIVEN: AppCell<RefCell<Given>> = AppCell::new(RefCell::new(Given { auto_assemble: None, host_id: None }));

/// The options in force.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Options {
    /// Whether sets that are found come online by themselves.
    pub auto_assemble: bool,
    /// The host to which sets belong that are made or loaded here; nil if this host has no identity, and takes any.
    pub host_id: Uuid,
}

fn given() -> Given {
    GIVEN.with(|given| *given.borrow()).unwrap_or_default()
}

/// The options in force.
pub fn options() -> Options {
    let Given { auto_assemble, host_id } = given();
    Options { auto_assemble: auto_assemble.unwrap_or(true), host_id: host_id.unwrap_or_else(machine) }
}

/// Changes those options that are given.
pub fn set(auto_assemble: Option<bool>, host_id: Option<Uuid>) {
    let was = given();
    let now = Given { auto_assemble: auto_assemble.or(was.auto_assemble), host_id: host_id.or(was.host_id) };
    GIVEN.with(|given| given.replace(now));
}

/// The parameters of the call that gives the same options again, if any was given.
pub fn config() -> Option<Value> {
    let Given { auto_assemble, host_id } = given();
    let mut params = json!({});
    if let Some(auto) = auto_assemble {
        params["auto_assemble"] = auto.into();
    }
    if let Some(host) = host_id {
        params["host_id"] = host.to_string().into();
    }
    params.as_object().is_some_and(|params| !params.is_empty()).then_some(params)
}

/// In which the machine's id is hashed, as it should not be told to others.
const NAMESPACE: Uuid = uuid!("6f2f8f0a-5c2e-4d0e-9d7b-0b1f5f6c7a31");

/// The identity of this machine; nil if it has none.
fn machine() -> Uuid {
    static MACHINE: OnceLock<Uuid> = OnceLock::new();
    *MACHINE.get_or_init(|| match fs::read_to_string("/etc/machine-id") {
        Ok(id) if !id.trim().is_empty() => Uuid::new_v5(&NAMESPACE, id.trim().as_bytes()),
        _ => {
            log::warn!("this machine has no /etc/machine-id: sets belong to no host unless host_id is set");
            Uuid::nil()
        }
    })
}
