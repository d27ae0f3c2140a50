//! What the tests share: golden images as files, and the program.

#![allow(dead_code, clippy::unwrap_used)]

pub mod browser;
pub mod spare;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of a block of most images.
pub const BLOCK: usize = 4096;

pub fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../remap-core/tests/golden")
}

/// The names of all golden images.
pub fn golden_names() -> Vec<String> {
    let names = fs::read_dir(golden_folder()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        (path.extension()? == "json").then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
    });
    names.collect()
}

/// The bytes of a golden image.
pub fn golden(name: &str) -> Vec<u8> {
    let file = File::open(golden_folder().join(format!("{name}.img.gz"))).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// What is known of a golden image.
pub fn known(name: &str) -> Value {
    let text = fs::read_to_string(golden_folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A folder with files.
pub struct Folder(TempDir);

impl Folder {
    /// In memory where that can be had: a test is not the faster for a disk's flushes.
    pub fn new() -> Folder {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Folder(tempfile::tempdir_in(memory).unwrap()) } else { Folder::on_disk() }
    }

    /// For files that are large.
    pub fn on_disk() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A golden image as a file.
    pub fn golden(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.img"), &golden(name))
    }
}

/// The program with some arguments.
pub fn remapctl<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remapctl"));
    command.args(args);
    command
}

/// What the program did.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        let code = output.status.code().unwrap_or_else(|| panic!("{}: {out}{err}", output.status));
        assert!(!err.contains("panicked"), "{err}");
        Done { code, out, err }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Runs a command and the path it is about, and whatever else.
pub fn run(command: &str, path: &Path, more: &[&str]) -> Done {
    let args = [command.as_ref(), path.as_os_str()].into_iter().chain(more.iter().map(AsRef::as_ref));
    Done::of(remapctl(args).output().unwrap())
}

/// A loop device on a file, for as long as it is needed.
pub struct Loop(pub PathBuf);

impl Loop {
    /// None where this process may not make one.
    pub fn on(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        made.status.success().then(|| Loop(String::from_utf8(made.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
