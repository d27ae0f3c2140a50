//! Numbers for people.

use std::fmt::{self, Display};

use indicatif::{BinaryBytes, HumanCount};

/// A count, with its thousands apart.
#[derive(Clone, Copy, Debug)]
pub struct Amount(pub u64);

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HumanCount(self.0).to_string())
    }
}

/// So many of something.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", Amount(count))
}

/// A size in powers of 1024.
#[must_use]
pub fn bytes(size: u64) -> String {
    BinaryBytes(size).to_string()
}
