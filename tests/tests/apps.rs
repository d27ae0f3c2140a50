//! Every stock application takes the library: the targets by RPC, spdk_dd by moving a file.

use std::{fs, path::Path, time::Duration};

use e2e::{
    app::{self, App, COMMON, Slot},
    config::Config,
    rpc,
    scene::{BASE_UUID, SPARE_UUID, stamped},
    wait::wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn remap_over_malloc() -> Config {
    Config::new()
        .malloc("Base0", 16, 4096)
        .malloc("Spare0", 16, 4096)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" }))
}

#[test]
fn targets_serve_remap() {
    for name in ["nvmf_tgt", "iscsi_tgt", "vhost"] {
        let slot = Slot::take();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("config.json"), remap_over_malloc().to_json().to_string()).unwrap();
        let socket = path("rpc.sock");
        let config = path("config.json");
        let args = ["-s", "1024", "-m", slot.cores(), "-r", &socket, "-c", &config];
        let mut app = App::stock(name, COMMON.iter().chain(&args), Path::new(&path("output"))).unwrap();
        let status = wait_for(name, LIMIT, || {
            assert!(app.ended().is_none(), "{name}:\n{}", app.output());
            rpc::call(Path::new(&socket), "framework_wait_init", Value::Null, LIMIT).ok()?;
            rpc::call(Path::new(&socket), "bdev_remap_status", Value::Null, LIMIT).ok()
        });
        assert_eq!(status[0]["name"], "Remap0", "{name}: {status}");
        app.signal(Signal::TERM);
        let ended = app.wait(LIMIT);
        assert!(ended.success(), "{name}: {ended}\n{}", app.output());
    }
}

#[test]
fn spdk_dd_moves_a_file_through_bad_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let content = stamped(0, 2048, 1);
    fs::write(path("in"), &content).unwrap();
    for (name, mib) in [("base", 16), ("spare", 16)] {
        fs::File::create(path(name)).and_then(|file| file.set_len(mib << 20)).unwrap();
    }
    let inject = |op: &str, error: &str| json!({ "name": "Fault0", "lba": 40, "num_blocks": 2000, "stride": 9, "op": op, "error": error });
    let config = Config::new()
        .aio("Base0", Path::new(&path("base")), 4096, BASE_UUID)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_inject", inject("write", "write_fault"))
        .bdev("bdev_fault_inject", inject("read", "read_error"))
        .aio("Spare0", Path::new(&path("spare")), 4096, SPARE_UUID)
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }));
    fs::write(path("config.json"), config.to_json().to_string()).unwrap();
    let (config, socket, from, to) = (path("config.json"), path("rpc.sock"), path("in"), path("out"));
    let common = ["-s", "512", "-r", &socket, "-c", &config, "--aio", "--bs", "65536"];

    // Two processes: the second finds on the two files what the first has left there. spdk_dd exits with 0 whatever happens
    // to an I/O, so only the bytes tell.
    let write = app::run("spdk_dd", &[&common[..], &["--if", &from, "--ob", "Remap0"]].concat(), false, LIMIT);
    assert!(write.status.success(), "{}", write.output);
    let read =
        app::run("spdk_dd", &[&common[..], &["--ib", "Remap0", "--of", &to, "--count", "128"]].concat(), false, LIMIT);
    assert!(read.status.success(), "{}", read.output);
    assert!(fs::read(&to).unwrap() == content, "what was read back differs:\n{}{}", write.output, read.output);
    assert!(fs::read(path("base")).unwrap()[..content.len()] != content[..], "the base must lack the bad blocks");
}
