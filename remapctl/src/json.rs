//! What is told to programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::Error;

/// Writes `value`, for eyes as well.
///
/// # Errors
/// [`Error::Stdout`].
pub fn write(value: &impl Serialize, out: &mut impl Write) -> Result<(), Error> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}
