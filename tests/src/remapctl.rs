//! The tool of operators, as they run it.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::script;

/// `remapctl ARGS…`; yields its exit code, stdout and stderr.
#[track_caller]
pub fn remapctl(args: &[&str]) -> (i32, String, String) {
    let done = Command::new(script("remapctl")).args(args).output();
    let Output { status, stdout, stderr } = done.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    (status.code().unwrap_or_else(|| panic!("{args:?}: {status}")), text(stdout), text(stderr))
}

/// A path as an argument.
#[track_caller]
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is no UTF-8", path.display()))
}
