//! Stock SPDK applications as children: started through `scripts/spdk`, output in a file, dead at the latest with their owner.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{script, wait::wait_for};

/// Options that every application is started with: no hugepages and no devices of the machine's, so that tests run anywhere, no
/// trace, whose file in /dev/shm would outlive a kill, and a small pool of messages, as making the usual one is much of a start.
pub const COMMON: &[&str] =
    &["--no-huge", "-u", "--disable-cpumask-locks", "--num-trace-entries", "0", "--msg-mempool-size", "16383"];

/// A place among the applications that may poll at the same time, which picks their core; or all places at once, for one that polls
/// on two cores, or is measured.
pub struct Slot {
    places: Range<usize>,
    reactors: usize,
}

const SLOTS: usize = 2;
static PLACES: Mutex<Places> = Mutex::new(Places { busy: [false; SLOTS], came: 0, served: 0 });
static CHANGED: Condvar = Condvar::new();

/// The places, and a queue in front of them: who needs all of them is not passed by others all the time.
struct Places {
    busy: [bool; SLOTS],
    came: u64,
    served: u64,
}

impl Slot {
    /// Waits for a place.
    pub fn take() -> Slot {
        Slot::when(1, |busy| busy.iter().position(|taken| !taken).map(|free| free..free + 1))
    }

    /// Waits until all places are free, for so many reactors.
    pub fn take_all(reactors: usize) -> Slot {
        Slot::when(reactors, |busy| busy.iter().all(|taken| !taken).then_some(0..SLOTS))
    }

    fn when(reactors: usize, free: impl Fn(&[bool]) -> Option<Range<usize>>) -> Slot {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let number = places.came;
        places.came += 1;
        loop {
            if places.served == number
                && let Some(free) = free(&places.busy)
            {
                places.busy[free.clone()].fill(true);
                places.served += 1;
                CHANGED.notify_all();
                return Slot { places: free, reactors };
            }
            places = CHANGED.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What its cores are, for `-m`. Of two reactors each has a core where there are two, else they share one.
    pub fn cores(&self) -> &'static str {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        match (self.reactors, self.places.start) {
            (SLOTS, _) if cores < SLOTS => "[(0,1)@(0)]",
            (SLOTS, _) => "0x3",
            (_, 1) if cores >= SLOTS => "0x2",
            _ => "0x1",
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        PLACES.lock().unwrap_or_else(PoisonError::into_inner).busy[self.places.clone()].fill(false);
        CHANGED.notify_all();
    }
}

/// A running process with its output in a file. Dropped, it is killed.
pub struct App {
    child: Child,
    log: PathBuf,
}

impl App {
    /// Starts `command`, with its output in `log`. It gets SIGKILL when this thread ends, whatever happens to the test.
    pub fn spawn(command: &mut Command, log: &Path) -> io::Result<App> {
        let mut held = Command::new("setpriv");
        held.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                held.env(key, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            held.current_dir(dir);
        }
        let output = File::create(log)?;
        let child = held.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(App { child, log: log.to_owned() })
    }

    /// Starts stock application `name` with both libraries loaded; or, if `APP_FLAVOUR` says so and there is one, that with bdev_remap
    /// linked in.
    pub fn stock(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>, log: &Path) -> io::Result<App> {
        App::spawn(Command::new(script("spdk")).args(["--fault", name]).args(args), log)
    }

    /// Starts application `name` with bdev_remap and SPDK linked in, and nothing preloaded.
    pub fn linked(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>, log: &Path) -> io::Result<App> {
        App::spawn(Command::new(script("spdk")).env("APP_FLAVOUR", "static").arg(name).args(args), log)
    }

    /// The program and the libraries that are loaded into it, as the kernel lists them.
    pub fn mappings(&self) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/maps", self.child.id()))
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end. Panics with its output when `limit` is over.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        wait_for("end of the process", limit + Duration::from_secs(5), || {
            let ended = self.ended();
            assert!(ended.is_some() || Instant::now() < deadline, "still running after {limit:?}:\n{}", self.output());
            ended
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may just have ended: then there is nothing to signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for its end.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// How an application ended.
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// All that it printed.
    pub output: String,
}

/// Runs stock application `name` with `args` and the usual options to its end, in a place of its own unless it is the client
/// of a target that runs already.
#[track_caller]
pub fn run(name: &str, args: &[&str], client: bool, limit: Duration) -> Finished {
    let _slot = (!client).then(Slot::take);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let args = COMMON.iter().chain(args);
    let mut app = App::stock(name, args, &dir.path().join("output")).expect("scripts/spdk can be run");
    let status = app.wait(limit);
    Finished { status, output: app.output() }
}
