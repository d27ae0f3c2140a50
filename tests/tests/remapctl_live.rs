//! remapctl on a running target: it lists what the spare has, and shows on a terminal what happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use e2e::{
    app::App,
    remapctl::{remapctl, text},
    scene::{Scene, Stack, fault, fault_every, stamped, write_stamped},
    script,
    wait::wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_list_of_a_running_set_is_that_of_its_spare() {
    let scene = Scene::of(
        Stack { base_mib: 256, spare_mib: 128, ..Stack::default() },
        &[fault(60_000, 3, "read", "read_error")],
    );
    assert!(!scene.host().read(60_000, 3).expect("an answer").expect_err("it is bad").ok());
    // More extents than a page has.
    let all: Vec<_> = (0..20_000).map(|block| (block * 3).to_string()).collect();
    for some in all.chunks(4000) {
        scene.target.rpc("bdev_remap_import", json!({ "name": "Remap0", "extents": some.join(",") }));
    }
    let (spare, socket) = (scene.spare.clone(), scene.target.socket());
    for format in ["table", "json", "csv", "badblocks", "ddrescue"] {
        for states in ["remapped,pending,lost", "pending"] {
            let more = ["--format", format, "--state", states];
            let (code, of_spare, _) = remapctl(&[&["list", text(&spare)], &more[..]].concat());
            assert_eq!(code, 0);
            let (code, live, errors) = remapctl(&[&["list", "Remap0", "-s", text(&socket)], &more[..]].concat());
            assert_eq!((code, errors.as_str()), (0, ""));
            assert!(live == of_spare, "{format}, {states}: {} and {} bytes", live.len(), of_spare.len());
            assert!(states == "pending" || live.lines().count() >= 20_000 || format == "json", "{live}");
        }
    }

    let list = |name: &str, more: &[&str]| remapctl(&[&["list", name, "-s", text(&socket)], more].concat());
    let (code, _, sentence) = list("Remap1", &[]);
    assert!(code == 8 && sentence.contains("no such file or device") && sentence.contains("-19"), "{code}: {sentence}");
    let (code, _, sentence) = list("Remap0", &["--at", "1:1"]);
    assert!(code == 16 && sentence.contains("--at"), "{code}: {sentence}");
    drop(scene);
    let (code, _, sentence) = list("Remap0", &[]);
    let both = sentence.contains("no such file or device") && sentence.contains("no SPDK target listens there");
    assert!(code == 8 && both && sentence.contains(text(&socket)), "{code}: {sentence}");
}

/// More than what the limit would hold, if the program held it.
#[test]
fn a_long_list_takes_little_memory() {
    const EXTENTS: usize = 500_000;
    // Of addresses, most of which are the program itself.
    const LIMIT_KIB: usize = 24 << 10;
    let stack = Stack { base_mib: 512, spare_mib: 300, block_size: 512, ..Stack::default() };
    let scene = Scene::of(stack, &[]);
    let all: Vec<_> = (0..EXTENTS).map(|extent| (extent * 2).to_string()).collect();
    for some in all.chunks(4000) {
        scene.target.rpc("bdev_remap_import", json!({ "name": "Remap0", "extents": some.join(",") }));
    }
    let (program, socket) = (script("remapctl"), scene.target.socket());
    let limited =
        format!("ulimit -v {LIMIT_KIB}; exec {} list Remap0 -s {} --format json", text(&program), text(&socket));
    let Output { status, stdout, stderr } = Command::new("bash").args(["-c", &limited]).output().unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    assert!(stdout.len() > LIMIT_KIB << 10, "{} bytes would have had room", stdout.len());
    let list = String::from_utf8(stdout).unwrap();
    assert_eq!(list.matches("\"lba\"").count(), EXTENTS);
    assert!(list.trim_end().ends_with('}'), "it has an end");
}

/// The only child of a process.
fn child_of(parent: &str) -> Pid {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap_or_else(|_| panic!("{children}"))).unwrap()
}

/// A shell in a terminal of its own.
struct Terminal {
    _server: App,
    socket: PathBuf,
}

impl Terminal {
    fn open(dir: &Path) -> Terminal {
        let socket = dir.join("tmux.sock");
        // Not as a daemon: it ends with the test.
        let mut command = Command::new("tmux");
        command.args(["-D", "-f", "/dev/null", "-S", text(&socket)]).env("LC_ALL", "C.UTF-8");
        let server = App::spawn(&mut command, &dir.join("tmux.log")).expect("tmux: scripts/setup.sh --dev installs it");
        wait_until("tmux", LIMIT, || socket.exists());
        let terminal = Terminal { _server: server, socket };
        terminal.tmux(&["new-session", "-d", "-x", "130", "-y", "40", "PS1='ready> ' sh"]);
        terminal.wait("ready>");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            Command::new("tmux").arg("-S").arg(&self.socket).args(args).output().unwrap();
        assert!(status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn shows(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until this is shown.
    #[track_caller]
    fn wait(&self, text: &str) {
        self.wait_that(text, |shown| shown.contains(text));
    }

    #[track_caller]
    fn wait_that(&self, what: &str, holds: impl Fn(&str) -> bool) {
        wait_until(what, LIMIT, || holds(&self.shows()));
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal\n{}", self.shows());
        }
    }
}

#[test]
fn watch_shows_what_happens_does_what_keys_say_and_gives_the_terminal_back() {
    let options = json!({ "storm_limit": 400 });
    let mut scene = Scene::of(
        Stack { base_mib: 1024, options, ..Stack::default() },
        &[fault_every(3, 0, 900, "write", "write_fault"), fault(3000, 450, "write", "write_fault")],
    );
    let terminal = Terminal::open(scene.target.dir());
    let watch =
        format!("{} watch --interval 200ms -s {}", script("remapctl").display(), scene.target.socket().display());
    terminal.line(&format!("echo before; {watch}; echo exit $?"));
    terminal.wait("q quit");
    let online = |shown: &str| shown.lines().any(|line| line.contains("Remap0") && line.contains("online"));
    terminal.wait_that("a set that is online", online);

    // What happens is seen: in numbers, in events, and in how fast it goes.
    let mut host = scene.host();
    write_stamped(&mut host, 0, 900);
    terminal.wait("blocks=");
    terminal.wait_that("rescues", |shown| {
        shown.contains("a second, ") && !shown.contains("a second, 0 at most") && shown.contains(" 300 ")
    });

    let epoch = scene.count("last_save_epoch");
    terminal.key("s");
    wait_until("a save", LIMIT, || scene.count("last_save_epoch") > epoch);
    terminal.wait(&format!("saved, epoch {}", scene.count("last_save_epoch")));

    terminal.key("b");
    terminal.wait_that("a scrub with a bar", |shown| {
        shown.lines().any(|line| {
            line.contains("scrub") && line.contains("running") && line.contains("left") && line.contains('%')
        })
    });
    assert_eq!(scene.job("scrub").unwrap()["state"], "running");
    terminal.key("x");
    assert_eq!(scene.ended("scrub")["state"], "cancelled");
    terminal
        .wait_that("its end", |shown| shown.lines().any(|line| line.contains("scrub") && line.contains("cancelled")));
    terminal.key("x");
    terminal.wait("(-2)");

    // 450 more are too many for the brake, however long ago the others were.
    for lba in (3000..3450).step_by(30) {
        host.write(lba, &stamped(lba, 30, 1)).expect("an answer");
    }
    terminal
        .wait_that("the brake", |shown| shown.lines().any(|line| line.contains("Remap0") && line.contains("tripped")));
    terminal.key("r");
    wait_until("the brake released", LIMIT, || scene.status()["state"] == "online");
    terminal.wait("the storm brake is armed");

    // Any size will do, also when it changes to and fro faster than it is looked at.
    for (x, y) in [("20", "5"), ("3", "2"), ("200", "60"), ("40", "9"), ("130", "40")] {
        terminal.tmux(&["resize-window", "-x", x, "-y", y]);
    }
    terminal.wait_that("all of it", |shown| online(shown) && shown.contains("events") && shown.contains("q quit"));

    scene.target.kill9();
    terminal.wait("no SPDK target listens there");
    scene.start_again(&[]);
    terminal.wait_that("the set again", |shown| !shown.contains("no SPDK target") && online(shown));

    // Whatever ends it, the terminal is as it was: what was there is there, and what is typed is shown.
    let given_back = |code: &str| {
        terminal.wait(&format!("exit {code}"));
        let shown = terminal.shows();
        assert!(shown.contains("before") && !shown.contains("q quit"), "{shown}");
        terminal.line("echo sum-$((40 + 2))");
        terminal.wait("sum-42");
        assert!(terminal.shows().contains("echo sum-$((40 + 2))"), "{}", terminal.shows());
        terminal.line("clear");
        terminal.wait_that("a clear terminal", |shown| !shown.contains("exit"));
    };
    terminal.key("q");
    given_back("0");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        terminal.line(&format!("echo before; {watch}; echo exit $?"));
        let shell = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]);
        terminal.wait("q quit");
        kill_process(child_of(shell.trim()), signal).unwrap();
        given_back("0");
    }
    terminal.line(&format!("echo before; {watch}; echo exit $?"));
    terminal.wait("q quit");
    terminal.key("C-c");
    given_back("0");

    // The terminal goes away, as when a connection breaks.
    terminal.line(&watch);
    let shell = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]);
    terminal.wait("q quit");
    let watching = child_of(shell.trim());
    drop(terminal);
    let command_line = format!("/proc/{}/cmdline", watching.as_raw_nonzero());
    // It is empty of a process that has ended and that nobody has asked for yet.
    wait_until("the end of watch", LIMIT, || fs::read(&command_line).map_or(true, |line| line.is_empty()));

    // Where there is no terminal there is nothing to watch.
    let (code, _, sentence) = remapctl(&["watch", "-s", text(&scene.target.socket())]);
    assert!(code == 16 && sentence.contains("needs a terminal"), "{code}: {sentence}");
}
