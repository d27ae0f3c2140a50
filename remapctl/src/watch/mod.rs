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
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyModifiers};

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
            // A new size is seen when it is drawn.
            let key = event::read().map_err(Error::Terminal)?.as_key_press_event();
            if key.is_some_and(|key| press(key, &mut view, orders)) {
                break;
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
