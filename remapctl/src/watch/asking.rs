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
    let mut asking = Asking { client: Client::new(socket, PATIENCE), asked: false, last_event: None };
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
    /// Whether this target has been asked before.
    asked: bool,
    /// The last event that it has told.
    last_event: Option<Notification>,
}

impl Asking {
    fn look(&mut self) -> Told {
        let at = Instant::now();
        let looked = self.client.look().and_then(|sets| Ok((sets, self.events()?)));
        match looked {
            Ok((sets, (mut events, first))) => {
                self.asked = true;
                events.retain(|event| event.what.starts_with(OURS));
                events.iter_mut().for_each(|event| _ = event.what.drain(..OURS.len()));
                Told::Sets { at, sets, events, first }
            }
            Err(failure) => {
                // Another one may come in its place, which counts anew.
                (self.asked, self.last_event) = (false, None);
                Told::Failed(failure)
            }
        }
    }

    /// What has happened since the last look, and whether that is all that the target remembers, as it was never asked before.
    fn events(&mut self) -> Result<(Vec<Notification>, bool), Failure> {
        let news = match &self.last_event {
            Some(last) => news(last, self.client.notifications(last.id)?),
            None => None,
        };
        let (events, first) = match news {
            Some(events) => (events, false),
            None => (self.client.notifications(0)?, !self.asked || self.last_event.is_some()),
        };
        if let Some(last) = events.last() {
            self.last_event = Some(last.clone());
        }
        Ok((events, first))
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

/// What comes behind the `last` event in those from its number on. None if that is not known: a target that was started again in the
/// meantime counts anew, and has no such event, or another one of this number.
fn news(last: &Notification, mut events: Vec<Notification>) -> Option<Vec<Notification>> {
    let first = events.first()?;
    if first == last {
        events.remove(0);
        return Some(events);
    }
    // So many came that it does not remember the last one any more.
    (first.id > last.id).then_some(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_started_again_is_noticed() {
        let event =
            |id, facts: &str| Notification { what: "bdev_remap_remapped".to_owned(), facts: facts.to_owned(), id };
        let last = event(7, "a");
        assert_eq!(news(&last, vec![event(7, "a")]), Some(Vec::new()));
        assert_eq!(news(&last, vec![event(7, "a"), event(8, "b")]), Some(vec![event(8, "b")]));
        assert_eq!(news(&last, vec![event(900, "b"), event(901, "c")]), Some(vec![event(900, "b"), event(901, "c")]));
        assert_eq!(news(&last, Vec::new()), None, "it has fewer");
        assert_eq!(news(&last, vec![event(7, "x"), event(8, "b")]), None, "it has others");
    }
}
