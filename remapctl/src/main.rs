//! The program: see `remapctl --help`, and docs/remapctl.md.

use std::io::{BufWriter, Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use remapctl::cli::{Command, Options};
use remapctl::error::USAGE;
use remapctl::style::{BAD, styled};

fn main() -> ExitCode {
    // What the engine has to say is told by the commands: its log is shown only to who asks for it.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    if matches!(options.command, Command::Recover(_) | Command::Repair(_) | Command::Serve(_) | Command::Watch(_)) {
        end_on_signals(&interrupted);
    }
    // Lists can be long, and have no colours that would have to be taken out of them.
    let out: Box<dyn Write> = match options.command {
        Command::Inspect(_) | Command::Check(_) | Command::Repair(_) | Command::Doctor(_) => {
            Box::new(anstream::stdout().lock())
        }
        _ => Box::new(stdout().lock()),
    };
    let mut out = BufWriter::new(out);
    match remapctl::run(&options.command, &mut out, &interrupted) {
        Ok(verdict) => ExitCode::from(verdict.code()),
        Err(error) if error.nobody_reads() => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{}: {error}", styled(BAD, "error"));
            ExitCode::from(error.code())
        }
    }
}

/// SIGINT and SIGTERM are told, and end nothing by themselves.
fn end_on_signals(interrupted: &Arc<AtomicBool>) {
    let flag = Arc::clone(interrupted);
    if let Err(error) = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)) {
        anstream::eprintln!(
            "warning: a signal will end this at once ({error}); what is not noted by then is done again"
        );
    }
}
