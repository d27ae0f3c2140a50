//! remapctl: what an operator reaches for at night. It looks at the spare of a Remap bdev, checks it, and gets the data out, without
//! SPDK, by the format and recovery code of remap-core.
//!
//! `list`, `map`, `doctor`, `serve` and `watch` also ask a running target, by its RPC socket ([`rpc`]).
//!
//! Each command is a function of its arguments that writes to some output, and ends with a [`Verdict`] or an [`Error`]. Bases and
//! spares are opened read-only ([`disk`]); only [`repair`] can write to a spare.

pub mod buffer;
pub mod check;
pub mod cli;
pub mod ddrescue;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod in_use;
pub mod inspect;
pub mod json;
pub mod list;
pub mod map;
pub mod pages;
pub mod progress;
pub mod recover;
pub mod repair;
pub mod rpc;
pub mod runtime;
pub mod serve;
pub mod spare;
pub mod style;
pub mod timed;
pub mod units;
pub mod watch;

use std::io::Write;
use std::sync::atomic::AtomicBool;

pub use error::{Error, Verdict};

use cli::Command;

/// Runs a command. One that takes long ends when it is `interrupted`, and can be gone on with.
///
/// # Errors
/// See each command.
pub fn run(command: &Command, out: &mut impl Write, interrupted: &AtomicBool) -> Result<Verdict, Error> {
    match command {
        Command::Inspect(args) => inspect::run(args, out),
        Command::Check(args) => check::run(args, out),
        Command::List(args) => list::run(args, out),
        Command::Map(args) => map::run(args, out),
        Command::Recover(args) => recover::run(args, out, interrupted),
        Command::Repair(args) => repair::run(args, out, interrupted),
        Command::Doctor(args) => doctor::run(args, out),
        Command::Serve(args) => serve::run(args, out, interrupted),
        Command::Watch(args) => watch::run(args, interrupted),
        Command::Completions(args) => pages::completions(args.shell, out).map(|()| Verdict::Sound),
        Command::Man(args) => pages::man(&args.folder).map(|()| Verdict::Sound),
    }
}
