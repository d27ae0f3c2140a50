//! A running `spdk_tgt`: started with a JSON configuration, driven by RPC, killed, stopped and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    app::{App, COMMON, Slot},
    config::{Config, with_small_iscsi},
    rpc::{self, RpcError},
    script,
    wait::wait_for,
};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(60);

/// Where the files of the tests are: in memory where that can be had, as a test is not the faster for a disk's flushes, and what a
/// kill leaves does not depend on them. `E2E_DIR` names another place.
pub fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    std::env::var_os("E2E_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() })
}

/// A target and its directory. Its files are gone when it is dropped.
pub struct Target {
    app: Option<App>,
    linked: bool,
    starts: u32,
    slot: Slot,
    dir: TempDir,
}

impl Target {
    /// A place for a target, nothing running yet: for files that must exist before the start.
    #[track_caller]
    pub fn prepare() -> Target {
        Target::in_place(Slot::take())
    }

    /// As [`Target::prepare`], for a target with two reactors: RPCs, and the owner thread of every set, are on the first; NVMe-oF
    /// hosts are on both.
    #[track_caller]
    pub fn prepare_on_two_reactors() -> Target {
        Target::in_place(Slot::take_all(2))
    }

    /// As [`Target::prepare`], and no other application polls meanwhile: for what is measured.
    #[track_caller]
    pub fn prepare_alone() -> Target {
        Target::in_place(Slot::take_all(1))
    }

    /// As [`Target::prepare`], for a target with bdev_remap and SPDK linked in, and without bdev_fault.
    #[track_caller]
    pub fn prepare_linked() -> Target {
        let mut target = Target::prepare();
        target.linked = true;
        target
    }

    #[track_caller]
    fn in_place(slot: Slot) -> Target {
        let dir = tempfile::Builder::new().prefix("bdev-remap-").tempdir_in(place()).expect("a temporary directory");
        Target { app: None, linked: false, starts: 0, slot, dir }
    }

    /// Starts a target with `config` in a directory of its own.
    #[track_caller]
    pub fn with(config: &Config) -> Target {
        let mut target = Target::prepare();
        target.start(config);
        target
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its RPC socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("rpc.sock")
    }

    /// Makes a sparse file of `mib` MiB in its directory.
    #[track_caller]
    pub fn file(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.dir().join(name);
        fs::File::create(&path).and_then(|file| file.set_len(mib << 20)).expect("a sparse file");
        path
    }

    /// Starts the target with `config`, and waits until it serves. Panics with its log if it does not.
    #[track_caller]
    pub fn start(&mut self, config: &Config) {
        if let Err(log) = self.try_start(&config.to_json()) {
            panic!("spdk_tgt did not start:\n{log}");
        }
    }

    /// As [`Target::start`], with any JSON document; yields the log if the target ends instead of serving.
    #[track_caller]
    pub fn try_start(&mut self, config: &Value) -> Result<(), String> {
        self.launch(config);
        let socket = self.socket();
        let Some(app) = self.app.as_mut() else { return Err("not launched".to_owned()) };
        let ready = wait_for("start of spdk_tgt", START, || {
            if app.ended().is_some() {
                return Some(Err(app.output()));
            }
            // It answers only when all of the configuration is in place.
            rpc::call(&socket, "framework_wait_init", Value::Null, CALL).is_ok().then_some(Ok(()))
        });
        if ready.is_err() {
            self.app = None;
        }
        ready
    }

    /// Launches the target with `config`, and does not wait for it.
    #[track_caller]
    pub fn launch(&mut self, config: &Value) {
        assert!(self.app.is_none(), "the target runs already");
        self.starts += 1;
        let _ = fs::remove_file(self.socket());
        let file = self.dir().join("config.json");
        fs::write(&file, with_small_iscsi(config.clone()).to_string()).expect("the configuration can be written");
        let (file, socket) = (file.display().to_string(), self.socket().display().to_string());
        // Where the sockets of vhost are made.
        let dir = self.dir().display().to_string();
        let args = ["-s", "1024", "-m", self.slot.cores(), "-r", &socket, "-S", &dir, "-c", &file];
        let log = self.dir().join(format!("spdk_tgt.{}.log", self.starts));
        let args = COMMON.iter().chain(&args);
        let app = if self.linked { App::linked("spdk_tgt", args, &log) } else { App::stock("spdk_tgt", args, &log) };
        self.app = Some(app.expect("scripts/spdk can be run"));
    }

    /// Calls an RPC method; `Value::Null` for no parameters.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        rpc::call(&self.socket(), method, params, CALL)
    }

    /// Calls an RPC method that must succeed.
    #[track_caller]
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()) {
            Ok(result) => result,
            Err(error) => panic!("{method} {params}: {error}"),
        }
    }

    /// Calls an RPC method that must be refused; yields code and sentence.
    #[track_caller]
    pub fn refused(&self, method: &str, params: Value) -> (i64, String) {
        match self.call(method, params.clone()) {
            Err(RpcError::Answer { code, message }) => (code, message),
            other => panic!("{method} {params} was not refused: {other:?}"),
        }
    }

    /// The configuration that `rpc.py save_config` writes.
    #[track_caller]
    pub fn saved_config(&self) -> Value {
        let saved = Command::new(script("rpc")).arg("-s").arg(self.socket()).arg("save_config").output();
        let saved = saved.unwrap_or_else(|error| panic!("scripts/rpc: {error}"));
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
        serde_json::from_slice(&saved.stdout).unwrap_or_else(|error| panic!("save_config: {error}"))
    }

    /// Does a bdev of this name exist?
    pub fn has_bdev(&self, name: &str) -> bool {
        self.call("bdev_get_bdevs", serde_json::json!({ "name": name })).is_ok()
    }

    /// Status of one Remap bdev.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        self.rpc("bdev_remap_status", serde_json::json!({ "name": name }))[0].take()
    }

    /// All that it has printed since its last start.
    pub fn log(&self) -> String {
        self.app.as_ref().map(App::output).unwrap_or_default()
    }

    /// The program and the libraries that are loaded into it.
    #[track_caller]
    pub fn mappings(&self) -> String {
        self.app.as_ref().expect("a target that runs").mappings().expect("/proc")
    }

    /// Is it still there?
    pub fn runs(&mut self) -> bool {
        self.app.as_mut().is_some_and(|app| app.ended().is_none())
    }

    /// Does `meanwhile` while it stands still (SIGSTOP), so that it finds at one time what came.
    #[track_caller]
    pub fn while_it_stands_still<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let app = self.app.as_ref().expect("a target that runs");
        app.signal(Signal::STOP);
        let done = meanwhile();
        app.signal(Signal::CONT);
        done
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        self.app = None;
    }

    /// Stops it as an operator would, by SIGTERM. Panics if it does not end with exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        let Some(mut app) = self.app.take() else { return };
        app.signal(Signal::TERM);
        let status = app.wait(STOP);
        assert!(status.success(), "spdk_tgt ended with {status}:\n{}", app.output());
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- end of the log of spdk_tgt");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
