//! `watch`: how the sets of a running target stand, live on a terminal, with keys for what an operator does most.
//!
//! One thread asks the target ([`asking`]), so that keys are answered while that hangs; what it says goes into [`view`], which
//! [`draw`] puts on the terminal. Whatever ends this, the terminal is as it was.

mod asking;
mod draw;
mod view;

use std::io::{IsTerminal, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};

use crate::cli::WatchArgs;
use crate::error::{Error, Verdict};
use asking::{Action, Order, Told};
use view::View;

/// Between two looks at keys and signals.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command, until it is interrupted or told to end.
///
/// # Errors
/// [`Error::NoTerminal`], [`Error::Terminal`].
pub fn run(args: &WatchArgs, interrupted: &AtomicBool) -> Result<Verdict, Error> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Error::NoTerminal);
    }
    let (orders, told) = asking::begin(&args.target.socket, args.interval).map_err(Error::Terminal)?;
    let view = View::new(&args.target.socket);
    // From here on a panic gives the terminal back, too.
    let terminal = ratatui::try_init().map_err(Error::Terminal);
    let ended = terminal.and_then(|terminal| show(terminal, view, &orders, &told, interrupted));
    ratatui::restore();
    ended
}

fn show(
    mut terminal: DefaultTerminal,
    mut view: View,
    orders: &Sender<Order>,
    told: &Receiver<Told>,
    interrupted: &AtomicBool,
) -> Result<Verdict, Error> {
    let mut changed = true;
    while !interrupted.load(Ordering::Relaxed) {
        loop {
            match told.try_recv() {
                Ok(told) => view.take(told),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Error::Terminal(std::io::ErrorKind::BrokenPipe.into())),
            }
            changed = true;
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw::draw(frame, &mut view)).map_err(Error::Terminal)?;
        }
        if event::poll(LOOK).map_err(Error::Terminal)? {
            changed = true;
            match event::read().map_err(Error::Terminal)? {
                // Whatever the terminal has made of what was on it, and also if the size is what it was before.
                Event::Resize(..) => terminal.clear().map_err(Error::Terminal)?,
                event => {
                    if event.as_key_press_event().is_some_and(|key| press(key, &mut view, orders)) {
                        break;
                    }
                }
            }
        }
    }
    Ok(Verdict::Sound)
}

/// Does what a key is for; whether that is to end.
fn press(key: KeyEvent, view: &mut View, orders: &Sender<Order>) -> bool {
    let mut order = |action| {
        if let Some(name) = view.selected_online() {
            view.say(format!("{name}: {} …", action_name(action)));
            // Whether it is still there is seen when it is asked what it has to tell.
            let _ = orders.send(Order { name, action });
        }
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        // Those are for the terminal, or for nothing.
        _ if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {}
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Up | KeyCode::Char('k') => view.select_previous(),
        KeyCode::Down | KeyCode::Char('j') => view.select_next(),
        KeyCode::Char('s') => order(Action::Save),
        KeyCode::Char('r') => order(Action::Rearm),
        KeyCode::Char('b') => order(Action::Scrub),
        KeyCode::Char('x') => order(Action::CancelScrub),
        _ => {}
    }
    false
}

/// What an action is called while it is under way.
fn action_name(action: Action) -> &'static str {
    match action {
        Action::Save => "saving",
        Action::Rearm => "re-arming the storm brake",
        Action::Scrub => "starting a scrub",
        Action::CancelScrub => "cancelling the scrub",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::rpc::look::Seen;

    #[test]
    fn only_plain_keys_act_but_for_ctrl_c() {
        let set = json!({
            "name": "Remap0", "uuid": "00000000-0000-0000-0000-000000000001", "state": "online", "base_bdev": "Base0",
            "storm_limit": 1, "spare": { "total": 1, "used": 0, "free": 1, "bad": 0 }, "remapped": 0, "pending": 0,
            "lost": 0, "epoch": 1, "sequence": 1,
            "metadata": { "superblock_a": "ok", "superblock_b": "ok", "log_a": "ok", "log_b": "ok" }
        });
        let sets = vec![Seen { set: serde_json::from_value(set).unwrap(), bdev: None, io: None }];
        let mut view = View::new(Path::new("/socket"));
        view.take(Told::Sets { at: Instant::now(), sets, events: Vec::new(), first: true });
        let (orders, to_do) = channel();
        let mut press = |key, modifiers| press(KeyEvent::new(KeyCode::Char(key), modifiers), &mut view, &orders);
        for key in "srbxqkj".chars() {
            assert!(!press(key, KeyModifiers::CONTROL) && !press(key, KeyModifiers::ALT), "{key}");
        }
        assert!(to_do.try_recv().is_err(), "nothing is ordered");
        for key in "srbx".chars() {
            assert!(!press(key, KeyModifiers::NONE), "{key}");
            assert_eq!(to_do.try_recv().unwrap().name, "Remap0");
        }
        assert!(press('q', KeyModifiers::NONE) && press('c', KeyModifiers::CONTROL));
    }
}
