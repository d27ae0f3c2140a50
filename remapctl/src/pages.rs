//! What is generated from the command line: completions and manual pages.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Options;
use crate::error::Error;

/// Writes the completions of `shell`.
///
/// # Errors
/// [`Error::Stdout`].
pub fn completions(shell: Shell, out: &mut impl Write) -> Result<(), Error> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "remapctl", &mut bytes);
    Ok(out.write_all(&bytes)?)
}

/// Writes a manual page for the program and one for each command into `folder`.
///
/// # Errors
/// [`Error::Folder`].
pub fn man(folder: &Path) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Options::command(), folder)
    };
    write().map_err(|source| Error::Folder { path: folder.to_owned(), source })
}
