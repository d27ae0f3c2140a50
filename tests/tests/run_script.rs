//! scripts/run.sh as an operator uses it: start, Ctrl-C, start again.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use e2e::{
    app::{App, Slot},
    nvme_tcp::Status,
    rpc,
    scene::{NQN, Scene, connect, fault, free_port, stamped},
    script,
    wait::wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

// The first run may have to build the libraries.
const LIMIT: Duration = Duration::from_secs(300);

/// Starts run.sh in `dir`, and waits until it says that it runs.
#[track_caller]
fn start(dir: &Path, args: &[&str]) -> App {
    let mut command = Command::new(script("run.sh"));
    command.arg("--dir").arg(dir).arg("--no-huge").args(args);
    let mut app = App::spawn(&mut command, &dir.join("run.log")).unwrap();
    wait_for("start by run.sh", LIMIT, || {
        assert!(app.ended().is_none(), "{}", app.output());
        app.output().contains("stop it:").then_some(())
    });
    app
}

#[track_caller]
fn interrupt(mut app: App) {
    app.signal(Signal::INT);
    let status = app.wait(LIMIT);
    assert!(status.success(), "{status}\n{}", app.output());
}

#[test]
fn run_starts_exports_and_stops_cleanly() {
    let _slot = Slot::take();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let app = start(dir.path(), &["--port", &port]);
    assert_eq!(fs::metadata(dir.path().join("base.img")).unwrap().len(), 1 << 30);
    assert_eq!(fs::metadata(dir.path().join("spare.img")).unwrap().len(), 64 << 20);
    assert!(app.output().contains(&port) && app.output().contains("nvme connect"), "{}", app.output());
    let mut host = connect(port.parse().unwrap(), NQN);
    assert_eq!(host.write(77, &stamped(77, 4, 1)).unwrap(), Status::SUCCESS);
    let socket = dir.path().join("spdk.sock");
    let uuid = rpc::call(&socket, "bdev_remap_status", Value::Null, LIMIT).unwrap()[0]["uuid"].take();

    // A second one in the same place is told off, and does no harm.
    let second = Command::new(script("run.sh")).arg("--dir").arg(dir.path()).output().unwrap();
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("already"), "{second:?}");
    interrupt(app);
    assert!(!dir.path().join("pid").exists());

    let app = start(dir.path(), &["--port", &port]);
    assert_eq!(connect(port.parse().unwrap(), NQN).read(77, 4).unwrap().unwrap(), stamped(77, 4, 1));
    assert_eq!(rpc::call(&socket, "bdev_remap_status", Value::Null, LIMIT).unwrap()[0]["uuid"], uuid);
    interrupt(app);
}

#[test]
fn run_takes_files_and_a_configuration() {
    let mut scene = Scene::start(&[]);
    scene.target.stop();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("own.json");
    fs::write(&config, scene.config(&[fault(5, 2, "write", "write_fault")]).to_json().to_string()).unwrap();
    let args = ["--fault", "--config", config.to_str().unwrap(), "--", "--no-pci"];
    let app = start(dir.path(), &args);
    assert_eq!(connect(scene.port, NQN).write(4, &stamped(4, 4, 1)).unwrap(), Status::SUCCESS);
    interrupt(app);

    let app = start(dir.path(), &args);
    let socket = dir.path().join("spdk.sock");
    let status = rpc::call(&socket, "bdev_remap_status", json!({ "name": "Remap0" }), LIMIT).unwrap();
    assert_eq!(status[0]["remapped"], 2, "{status}");
    assert_eq!(connect(scene.port, NQN).read(4, 4).unwrap().unwrap(), stamped(4, 4, 1));
    interrupt(app);

    // Files of one's own.
    let (base, spare) = (scene.target.file("base2", 32), scene.target.file("spare2", 16));
    let app = start(dir.path(), &["--no-export", "--base", base.to_str().unwrap(), "--spare", spare.to_str().unwrap()]);
    let status = rpc::call(&socket, "bdev_remap_status", Value::Null, LIMIT).unwrap();
    assert_eq!(status[0]["name"], "Remap0", "{status}");
    interrupt(app);
}

#[test]
fn run_refuses_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    for (args, word) in [
        (&["--base", "/nonexistent"][..], "/nonexistent"),
        (&["--port", "none"], "--port"),
        (&["--config", "/nonexistent"], "/nonexistent"),
        (&["--nonsense"], "--nonsense"),
        (&["--spare"], "--spare"),
    ] {
        let done = Command::new(script("run.sh")).arg("--dir").arg(dir.path()).args(args).output().unwrap();
        assert!(!done.status.success(), "{args:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains(word), "{args:?}: {done:?}");
    }
}

/// The demo tells by counters and statuses whether its faults work and its data is there.
#[test]
fn the_demo_holds() {
    let _slot = Slot::take_all(2);
    let done = Command::new(script("run.sh")).arg("--demo").output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn an_spdk_that_is_too_old_is_refused() {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("include/spdk/bdev_module.h", ""),
        // As in SPDK: the number is looked at again below its definition.
        (
            "include/spdk/version.h",
            "#define SPDK_VERSION_MAJOR 25\n#define SPDK_VERSION_MINOR 9\n#if SPDK_VERSION_MINOR < 10\n#endif\n",
        ),
        ("build/lib/libspdk_bdev.so", ""),
        ("build/bin/spdk_tgt", ""),
    ] {
        let file = tree.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let check = || Command::new(script("get-spdk.sh")).env("SPDK_DIR", tree.path()).output().unwrap();
    let refused = check();
    assert!(!refused.status.success(), "{refused:?}");
    let sentence = String::from_utf8_lossy(&refused.stderr);
    assert!(sentence.contains("is SPDK 25.09; bdev_remap needs 26.01 or newer"), "{sentence}");
    let newer = "#define SPDK_VERSION_MAJOR 26\n#define SPDK_VERSION_MINOR 5\n";
    fs::write(tree.path().join("include/spdk/version.h"), newer).unwrap();
    assert!(check().status.success(), "{:?}", check());
}
