//! The thread that asks the target: now and then how its sets stand and what has happened, and at once what an operator wants done.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::rpc::answers::Notification;
use crate::rpc::look::Seen;
use crate::rpc::{Client, Failure, PATIENCE};

/// What begins the type of our notifications.
const OURS: &str = "bdev_remap_";

/// What can be done to a set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Save,
    Rearm,
    Scrub,
    CancelScrub,
}

/// That it is to be done.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) action: Action,
}

/// What the target says.
pub(super) enum Told {
    /// How its sets stand, and what has happened since the last look.
    Sets { at: Instant, sets: Vec<Seen>, events: Vec<Notification>, first: bool },
    /// It does not answer.
    Failed(Failure),
    /// What became of an order, in a sentence.
    Done(Result<String, Failure>),
}

/// Begins to ask the target at `socket`, every `interval`. It ends when nobody gives orders any more.
///
/// # Errors
/// Those of beginning a thread.
pub(super) fn begin(socket: &Path, interval: Duration) -> io::Result<(Sender<Order>, Receiver<Told>)> {
    let ((orders, to_do), (tell, told)) = (channel::<Order>(), channel());
    let mut asking = Asking { client: Client::new(socket, PATIENCE), next_event: None };
    thread::Builder::new().name("asking".to_owned()).spawn(move || {
        while tell.send(asking.look()).is_ok() {
            match to_do.recv_timeout(interval) {
                Ok(order) => _ = tell.send(Told::Done(asking.carry_out(&order))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    })?;
    Ok((orders, told))
}

struct Asking {
    client: Client,
    /// The number of the first event that is not known yet, once the target has been asked.
    next_event: Option<u64>,
}

impl Asking {
    fn look(&mut self) -> Told {
        let at = Instant::now();
        let first = self.next_event.is_none();
        let looked =
            self.client.look().and_then(|sets| Ok((sets, self.client.notifications(self.next_event.unwrap_or(0))?)));
        match looked {
            Ok((sets, mut events)) => {
                let next = events.last().map(|event| event.id.saturating_add(1));
                self.next_event = Some(next.or(self.next_event).unwrap_or(0));
                events.retain(|event| event.what.starts_with(OURS));
                events.iter_mut().for_each(|event| _ = event.what.drain(..OURS.len()));
                Told::Sets { at, sets, events, first }
            }
            Err(failure) => {
                // Another one may come in its place, which counts anew.
                self.next_event = None;
                Told::Failed(failure)
            }
        }
    }

    fn carry_out(&self, Order { name, action }: &Order) -> Result<String, Failure> {
        Ok(match action {
            Action::Save => format!("{name}: saved, epoch {}", self.client.save(name)?),
            Action::Rearm => {
                self.client.rearm(name)?;
                format!("{name}: the storm brake is armed")
            }
            Action::Scrub => {
                self.client.scrub(name)?;
                format!("{name}: a scrub has begun")
            }
            Action::CancelScrub => {
                self.client.cancel_scrub(name)?;
                format!("{name}: the scrub ends")
            }
        })
    }
}
