//! Who a set is, whose it is, and what it may claim: names that two have, bases that two claim, other hosts, configurations.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use e2e::{
    config::Config,
    rpc::RpcError,
    scene::{BASE_UUID, BLOCK, NQN, SPARE_UUID, Scene, connect, fault, free_port, stamped},
    spare_format::{self, SpareFile, field},
    target::Target,
    wait::wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const BASE_1: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const SPARE_1: &str = "aaaaaaaa-0000-4000-8000-000000000002";
const HOST_1: &str = "bbbbbbbb-0000-4000-8000-000000000001";
const HOST_2: &str = "bbbbbbbb-0000-4000-8000-000000000002";

fn remap0() -> Value {
    json!({ "name": "Remap0" })
}

fn create(base: &str, spare: &str) -> Value {
    json!({ "name": "Remap0", "base_bdev": base, "spare_bdev": spare })
}

fn aio(config: Config, name: &str, file: &Path, uuid: &str) -> Config {
    config.aio(name, file, BLOCK as u32, uuid)
}

/// As [`aio`], in a running target.
fn plug(target: &Target, name: &str, file: &Path, uuid: &str) {
    target.rpc("bdev_aio_create", json!({ "name": name, "filename": file, "block_size": BLOCK, "uuid": uuid }));
}

/// Whether somebody else can have the bdev.
fn is_free(target: &Target, bdev: &str) -> bool {
    let taken = target.call("bdev_fault_create", json!({ "name": "Other", "base_bdev": bdev }));
    if taken.is_ok() {
        target.rpc("bdev_fault_delete", json!({ "name": "Other" }));
    }
    taken.is_ok()
}

/// The calls of the bdev subsystem, in order.
fn bdev_calls(config: &Value) -> &[Value] {
    let bdev = config["subsystems"].as_array().unwrap().iter().find(|system| system["subsystem"] == "bdev");
    bdev.unwrap()["config"].as_array().unwrap()
}

fn waits_for(status: &Value) -> &str {
    status["waits_for"].as_str().unwrap_or_else(|| panic!("it does not wait: {status}"))
}

/// A target with Remap0 on a spare of which each metadata I/O takes 20 ms.
fn on_a_slow_spare() -> Target {
    let config = Config::new()
        .malloc("Base", 16, 4096)
        .malloc("SpareDisk", 16, 4096)
        .bdev("bdev_fault_create", json!({ "name": "Spare", "base_bdev": "SpareDisk", "latency_us": 20_000 }));
    let target = Target::with(&config);
    target.rpc("bdev_wait_for_examine", Value::Null);
    target.rpc("bdev_remap_create", create("Base", "Spare"));
    target
}

/// Runs `meanwhile` while Remap0 is deleted and its spare wiped; the deletion must succeed.
#[track_caller]
fn while_it_is_wiped(target: &Target, meanwhile: impl FnOnce(&dyn Fn() -> bool)) {
    thread::scope(|scope| {
        let delete = || target.call("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true }));
        let deletion = scope.spawn(delete);
        meanwhile(&|| deletion.is_finished());
        match deletion.join().unwrap() {
            Ok(answer) => assert_eq!(answer, true),
            Err(error) => panic!("bdev_remap_delete: {error}"),
        }
    });
}

/// Defect 8.
#[test]
fn restore_does_not_find_a_set_that_is_being_deleted() {
    let mut target = on_a_slow_spare();
    let mut refused = None;
    while_it_is_wiped(&target, |done| {
        while !done() {
            match target.call("bdev_remap_restore", remap0()) {
                Ok(_) => {}
                Err(RpcError::Answer { code, message }) if message.contains("being removed") => {
                    refused = Some((code, message));
                }
                Err(RpcError::Answer { code: -19, .. }) if done() => {}
                Err(error) => panic!("bdev_remap_restore: {error}"),
            }
        }
    });
    assert!(target.runs());
    assert!(refused.as_ref().is_some_and(|(code, _)| *code == -19), "{refused:?}");
    target.stop();
}

/// The other way round: a set is deleted while it is restored.
#[test]
fn a_delete_that_overtakes_a_restore_waits_for_it() {
    let mut target = on_a_slow_spare();
    thread::scope(|scope| {
        let restore = scope.spawn(|| target.call("bdev_remap_restore", remap0()));
        wait_until("the restore to hold I/O back", SOON, || {
            assert!(!restore.is_finished(), "it was over before the deletion began");
            target.log().contains("restore begins")
        });
        assert_eq!(target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true })), true);
        match restore.join().unwrap() {
            Ok(report) => assert_eq!(report["changed"], 0, "{report}"),
            Err(error) => panic!("bdev_remap_restore: {error}"),
        }
    });
    assert!(target.runs() && !target.has_bdev("Remap0"));
    target.stop();
}

/// Sends two calls in one piece, so that the second is there before the first is answered; yields both answers.
fn at_once(target: &Target, calls: [(&str, Value); 2]) -> [Value; 2] {
    let mut stream = UnixStream::connect(target.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = |(id, (method, params))| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let requests: Vec<_> = (0..2).zip(calls).map(|call| request(call).to_string()).collect();
    stream.write_all(requests.concat().as_bytes()).unwrap();
    let answers: Vec<Value> =
        serde_json::Deserializer::from_reader(stream).into_iter().take(2).map(Result::unwrap).collect();
    [0, 1].map(|id| answers.iter().find(|answer| answer["id"] == id).unwrap().clone())
}

/// Defect 12.
#[test]
fn a_second_delete_does_not_take_back_the_wipe_of_the_first() {
    let mut target = on_a_slow_spare();
    let wipe = json!({ "name": "Remap0", "wipe": true });
    let [first, second] = at_once(&target, [("bdev_remap_delete", wipe), ("bdev_remap_delete", remap0())]);
    assert_eq!(first["result"], true, "{first}");
    assert_eq!(second["error"]["code"], -19, "{second}");
    assert!(second["error"]["message"].as_str().unwrap().contains("Remap0 is being removed"), "{second}");
    let mut load = create("Base", "Spare");
    load["format"] = "never".into();
    let (code, message) = target.refused("bdev_remap_create", load);
    assert!(code == -19 && message.contains("empty"), "it was not wiped: {message} ({code})");
    target.stop();
}

/// Calls that meet a set that is being opened or closed wait for that, and look again.
#[test]
fn creations_and_deletions_at_once_come_one_after_the_other() {
    let mut target = on_a_slow_spare();
    let uuid = target.status("Remap0")["uuid"].take();
    let (again, wipe) = (create("Base", "Spare"), json!({ "name": "Remap0", "wipe": true }));
    let [deleted, created] = at_once(&target, [("bdev_remap_delete", remap0()), ("bdev_remap_create", again.clone())]);
    assert_eq!((&deleted["result"], &created["result"]), (&json!(true), &json!("Remap0")), "{deleted} {created}");
    assert_eq!(target.status("Remap0")["uuid"], uuid, "it was loaded again");
    let [deleted, created] = at_once(&target, [("bdev_remap_delete", wipe), ("bdev_remap_create", again.clone())]);
    assert_eq!((&deleted["result"], &created["result"]), (&json!(true), &json!("Remap0")), "{deleted} {created}");
    assert_ne!(target.status("Remap0")["uuid"], uuid, "it was wiped, and formatted anew");

    target.rpc("bdev_remap_delete", json!({ "name": "Remap0", "wipe": true }));
    let both = at_once(&target, [("bdev_remap_create", again.clone()), ("bdev_remap_create", again)]);
    assert!(both.iter().all(|created| created["result"] == "Remap0"), "{both:?}");
    assert_eq!(target.rpc("bdev_remap_status", json!({})).as_array().map(Vec::len), Some(1));
    target.stop();
}

/// Two pairs of files, each with a set that is called Remap0 and has one remapped block.
struct TwoOfAName {
    scene: Scene,
    base: PathBuf,
    spare: PathBuf,
    uuid: Value,
}

impl TwoOfAName {
    fn new() -> TwoOfAName {
        let mut scene = Scene::start(&[fault(5, 1, "write", "write_fault")]);
        assert!(scene.host().write(5, &stamped(5, 1, 1)).unwrap().ok());
        scene.target.stop();
        let (base, spare) = (scene.target.file("base1", 16), scene.target.file("spare1", 16));
        let config = aio(aio(Config::new(), "Base1", &base, BASE_1), "Spare1", &spare, SPARE_1);
        scene.target.start(&config.bdev("bdev_remap_create", create("Base1", "Spare1")));
        let uuid = scene.status()["uuid"].take();
        scene.target.stop();
        TwoOfAName { scene, base, spare, uuid }
    }

    fn status(&self) -> Value {
        let all = self.scene.target.rpc("bdev_remap_status", remap0());
        let mine = all.as_array().unwrap().iter().find(|status| status["uuid"] == self.uuid);
        mine.cloned().unwrap_or_default()
    }
}

/// Defect 9.
#[test]
fn the_base_of_a_waiting_set_goes_without_touching_the_one_of_its_name() {
    let mut two = TwoOfAName::new();
    let port = free_port();
    let config = aio(Config::new(), "Base0", &two.scene.base, BASE_UUID)
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
    let config = aio(config, "Spare0", &two.scene.spare, SPARE_UUID).export("Remap0", NQN, port);
    two.scene.target.start(&config);
    let target = &two.scene.target;
    let mut host = connect(port, NQN);
    plug(target, "Spare1", &two.spare, SPARE_1);
    plug(target, "Base1", &two.base, BASE_1);
    assert!(target.rpc("bdev_remap_status", remap0()).as_array().is_some_and(|all| all.len() == 2));
    let status = two.status();
    assert!(waits_for(&status).contains("the name Remap0"), "{status}");
    assert_eq!(status["base_bdev"], "Base1", "{status}");

    target.rpc("bdev_aio_delete", json!({ "name": "Base1" }));
    wait_until("the base to go", SOON, || two.status()["base_bdev"].is_null());
    assert!(waits_for(&two.status()).contains(BASE_1));
    assert_eq!(host.read(5, 1).expect("connected as before"), Ok(stamped(5, 1, 1)));
    assert!(!target.log().contains("removed too"), "{}", target.log());

    plug(target, "Base1", &two.base, BASE_1);
    assert!(!is_free(target, "Base1"), "it is kept for its set");
    assert_eq!(target.rpc("bdev_remap_forget", json!({ "uuid": two.uuid })), true);
    assert!(two.status().is_null(), "{}", two.status());
    assert!(is_free(target, "Base1"));
    let (code, message) = target.refused("bdev_remap_forget", json!({ "uuid": two.uuid }));
    assert!(code == -19 && message.contains(two.uuid.as_str().unwrap()), "{message} ({code})");
    let online = target.status("Remap0")["uuid"].take();
    let (code, message) = target.refused("bdev_remap_forget", json!({ "uuid": online }));
    assert!(code == -16 && message.contains("bdev_remap_delete"), "{message} ({code})");
    assert_eq!(host.read(5, 1).expect("connected as before"), Ok(stamped(5, 1, 1)));
    two.scene.target.stop();
}

/// Defect 2.
#[test]
fn a_saved_configuration_is_no_reason_to_format_a_blank_spare() {
    let mut scene = Scene::start(&[fault(5, 3, "write", "write_fault")]);
    assert!(scene.host().write(4, &stamped(4, 8, 1)).unwrap().ok());
    let config = scene.target.saved_config();
    scene.target.stop();
    let blank = vec![0; fs::metadata(&scene.spare).unwrap().len() as usize];
    fs::write(&scene.spare, &blank).unwrap();
    let base = fs::read(&scene.base).unwrap();
    let log = scene.target.try_start(&config).expect_err("a set that is not there");
    assert!(log.contains("the spare is empty"), "{log}");
    assert!(fs::read(&scene.spare).unwrap() == blank && fs::read(&scene.base).unwrap() == base, "nothing was written");
}

/// Defect 3: spare 1 is outdated, spare 2 has what is remapped.
#[test]
fn two_sets_that_claim_one_base_wait_for_a_decision() {
    let mut target = Target::prepare();
    let [base, one, two] = ["base", "spare1", "spare2"].map(|name| target.file(name, 16));
    let disks = |config| aio(aio(config, "Spare1", &one, SPARE_1), "Spare2", &two, SPARE_UUID);
    target.start(&aio(disks(Config::new()), "Base0", &base, BASE_UUID));
    target.rpc("bdev_remap_create", create("Base0", "Spare1"));
    let outdated = target.status("Remap0")["uuid"].take();
    target.rpc("bdev_remap_delete", remap0());
    target.rpc("bdev_remap_create", create("Base0", "Spare2"));
    let right = target.status("Remap0")["uuid"].take();
    target.stop();

    target.start(&aio(disks(Config::new()), "Base0", &base, BASE_UUID));
    assert!(!target.has_bdev("Remap0"), "none comes online by itself");
    let all = target.rpc("bdev_remap_status", json!({}));
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
    for status in all {
        for set in [&outdated, &right] {
            assert!(waits_for(status).contains(set.as_str().unwrap()), "{status}");
        }
        assert!(
            status["sequence"].as_u64() > Some(0) && status["written_at"].as_u64() > Some(1_600_000_000),
            "{status}"
        );
    }
    assert!(!is_free(&target, "Base0"), "nobody else may have it, either");
    let (code, message) =
        target.refused("bdev_remap_create", json!({ "name": "Wrong", "base_bdev": "Base0", "spare_bdev": "Spare2" }));
    assert!(code == -22 && message.contains("Wrong"), "{message} ({code})");
    assert!(!is_free(&target, "Base0"), "a call that is refused changes nothing");

    target.rpc("bdev_remap_create", create("Base0", "Spare2"));
    let all = target.rpc("bdev_remap_status", remap0());
    assert_eq!((&all[0]["uuid"], &all[0]["state"]), (&right, &json!("online")), "{all}");
    assert_eq!((&all[1]["uuid"], &all[1]["state"]), (&outdated, &json!("waiting")), "{all}");
    assert!(waits_for(&all[1]).contains(right.as_str().unwrap()), "{all}");
    target.stop();

    // The outdated spare comes first, when the base is there already: as the right set is expected, it does not win by that.
    let expectation = json!({ "name": "Remap0", "uuid": right, "base_uuid": BASE_UUID, "spare_uuid": SPARE_UUID });
    let expected = Config::new().bdev("bdev_remap_expect", expectation);
    target.start(&disks(aio(expected, "Base0", &base, BASE_UUID)));
    assert!(!target.has_bdev("Remap0"), "none comes online by itself");
    assert_eq!(target.rpc("bdev_remap_forget", json!({ "uuid": outdated })), true);
    target.rpc("bdev_remap_create", create("Base0", "Spare2"));
    assert_eq!(target.status("Remap0")["uuid"], right);
    target.stop();
}

/// A copy of a spare that says that it is another spare of the same set, as one could after a migration that went wrong.
#[test]
fn two_spares_of_one_set_wait_for_a_decision() {
    let mut target = Target::prepare();
    let [base, one, two] = ["base", "spare1", "spare2"].map(|name| target.file(name, 16));
    let disks = aio(aio(Config::new(), "Spare0", &one, SPARE_UUID), "Base0", &base, BASE_UUID);
    target.start(&disks.clone().bdev("bdev_remap_create", create("Base0", "Spare0")));
    target.stop();
    fs::copy(&one, &two).unwrap();
    let id = u128::from_str_radix(&SPARE_1.replace('-', ""), 16).unwrap().to_be_bytes();
    SpareFile::open(&two).forge_superblocks(|bytes| bytes[field::SPARE_0_ID..][..16].copy_from_slice(&id));
    let spares = aio(aio(Config::new(), "Spare1", &two, SPARE_1), "Spare0", &one, SPARE_UUID);
    target.start(&aio(spares, "Base0", &base, BASE_UUID));
    let status = target.status("Remap0");
    assert!(waits_for(&status).contains("Spare0") && waits_for(&status).contains("Spare1"), "{status}");
    assert!(!is_free(&target, "Base0"), "nobody else may have it, either");
    target.rpc("bdev_remap_create", create("Base0", "Spare0"));
    assert_eq!(target.status("Remap0")["state"], "online");
    target.stop();
}

/// Defect 15.
#[test]
fn create_finds_that_a_uuid_is_taken_before_it_formats() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 16), target.file("spare", 16));
    let other = json!({ "name": "Taken", "num_blocks": 1024, "block_size": 4096, "uuid": HOST_1 });
    let config = aio(aio(Config::new(), "Base0", &base, BASE_UUID), "Spare0", &spare, SPARE_UUID);
    target.start(&config.bdev("bdev_malloc_create", other));
    let mut params = create("Base0", "Spare0");
    params["uuid"] = HOST_1.into();
    let (code, message) = target.refused("bdev_remap_create", params);
    assert!(code == -17 && message.contains(HOST_1), "{message} ({code})");
    let (code, message) =
        target.refused("bdev_remap_create", json!({ "name": "a\u{0}b", "base_bdev": "Base0", "spare_bdev": "Spare0" }));
    assert!(code == -32602 && message.contains("name"), "{message} ({code})");
    assert!(fs::read(&spare).unwrap().iter().all(|byte| *byte == 0), "the spare was formatted");
    assert!(is_free(&target, "Base0") && is_free(&target, "Spare0"));
    target.stop();
}

/// Defect 15: lvol has a new bdev open for writing as long as it looks at it, and a slow one it looks at for long.
#[test]
fn create_waits_for_other_modules_that_look_at_its_bdevs() {
    let mut target = Target::with(&Config::new().malloc("Disk", 16, 4096).malloc("Spare", 16, 4096));
    let slow = json!({ "name": "Base", "base_bdev": "Disk", "latency_us": 100_000 });
    target.rpc("bdev_fault_create", slow);
    assert_eq!(target.rpc("bdev_remap_create", create("Base", "Spare")), "Remap0");
    target.stop();
}

/// Defect 15.
#[test]
fn list_answers_as_much_as_an_answer_can_hold() {
    const EXTENTS: u64 = 20_000;
    let null = json!({ "name": "Null", "num_blocks": 2 * EXTENTS, "block_size": 512 });
    let bad = json!({ "name": "Base", "lba": 0, "num_blocks": 2 * EXTENTS, "stride": 2, "op": "write", "error": "write_fault" });
    let mut params = create("Base", "Spare");
    params["storm_limit"] = 1_000_000.into();
    let port = free_port();
    let config = Config::new()
        .bdev("bdev_null_create", null)
        .bdev("bdev_fault_create", json!({ "name": "Base", "base_bdev": "Null" }))
        .bdev("bdev_fault_inject", bad)
        .malloc("Spare", 32, 512)
        .bdev("bdev_remap_create", params)
        .export("Remap0", NQN, port);
    let mut target = Target::with(&config);
    assert!(connect(port, NQN).write_zeroes(0, (2 * EXTENTS - 1) as u16).unwrap().ok());
    let (mut extents, mut next) = (0, json!(0));
    let mut answers = 0;
    while !next.is_null() {
        let list = target.rpc("bdev_remap_list", json!({ "name": "Remap0", "lba": next, "max": u32::MAX }));
        let len = list["extents"].as_array().unwrap().len() as u64;
        assert!((1..=16_384).contains(&len), "{len} extents");
        extents += len;
        answers += 1;
        next = list["next"].clone();
    }
    assert_eq!((extents, answers), (EXTENTS, 2));
    target.stop();
}

fn host(id: &str) -> Config {
    Config::new().bdev("bdev_remap_set_module_options", json!({ "host_id": id }))
}

/// Defect 20.
#[test]
fn a_set_of_another_host_is_shown_and_left_alone_until_it_is_taken_over() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 16), target.file("spare", 16));
    let disks = |config| aio(aio(config, "Spare0", &spare, SPARE_UUID), "Base0", &base, BASE_UUID);
    target.start(&disks(host(HOST_1)).bdev("bdev_remap_create", create("Base0", "Spare0")));
    let config_1 = target.saved_config();
    target.stop();

    target.start(&disks(host(HOST_2)));
    let before = fs::read(&spare).unwrap();
    let status = target.status("Remap0");
    assert_eq!((&status["state"], &status["host_id"]), (&json!("waiting"), &json!(HOST_1)), "{status}");
    assert!(waits_for(&status).contains(HOST_1) && waits_for(&status).contains(HOST_2), "{status}");
    assert!(is_free(&target, "Base0") && is_free(&target, "Spare0"));
    let mut polite = create("Base0", "Spare0");
    polite["take_over"] = false.into();
    let (code, message) = target.refused("bdev_remap_create", polite);
    assert!(code == -16 && message.contains(HOST_1), "{message} ({code})");
    assert!(fs::read(&spare).unwrap() == before, "nothing was written");
    target.rpc("bdev_remap_create", create("Base0", "Spare0"));
    assert_eq!(target.status("Remap0")["state"], "online");
    target.stop();

    // The old host respects it, also where its configuration has the set.
    target.start(&disks(host(HOST_1)));
    assert_eq!(target.status("Remap0")["host_id"], HOST_2);
    target.stop();
    let log = target.try_start(&config_1).expect_err("it is another host's now");
    assert!(log.contains(&format!("the set belongs to host {HOST_2}")), "{log}");
    target.start(&disks(host(HOST_2)));
    assert_eq!(target.status("Remap0")["state"], "online");
    target.stop();
}

/// Defect 20: a storage node.
#[test]
fn sets_stay_offline_where_auto_assembly_is_off() {
    let mut target = Target::prepare();
    let (base, spare) = (target.file("base", 16), target.file("spare", 16));
    let disks = |config| aio(aio(config, "Spare0", &spare, SPARE_UUID), "Base0", &base, BASE_UUID);
    target.start(&disks(Config::new()).bdev("bdev_remap_create", create("Base0", "Spare0")));
    target.stop();
    let off = Config::new().bdev("bdev_remap_set_module_options", json!({ "auto_assemble": false }));
    target.start(&disks(off));
    let status = target.status("Remap0");
    assert!(waits_for(&status).contains("auto_assemble"), "{status}");
    assert!(is_free(&target, "Base0") && is_free(&target, "Spare0"));
    let config = target.saved_config();
    let calls = bdev_calls(&config);
    let at = |method: &str| calls.iter().position(|call| call["method"] == method).unwrap_or(usize::MAX);
    assert!(at("bdev_remap_set_module_options") < at("bdev_aio_create"), "{calls:?}");
    assert_eq!(calls[at("bdev_remap_set_module_options")]["params"], json!({ "auto_assemble": false }));
    // Without further ado it comes online when that is allowed again.
    let (code, message) = target.refused("bdev_remap_set_module_options", json!({ "auto_assemble": 3 }));
    assert!(code == -32602 && message.contains("auto_assemble"), "{message}");
    target.rpc("bdev_remap_set_module_options", json!({ "auto_assemble": true }));
    assert_eq!(target.status("Remap0")["state"], "online");
    target.stop();
}

/// Defect 11.
#[test]
fn a_base_that_has_grown_is_followed() {
    let mut scene = Scene::start(&[fault(5, 1, "write", "write_fault")]);
    assert!(scene.host().write(5, &stamped(5, 1, 1)).unwrap().ok());
    scene.target.stop();
    fs::File::options().write(true).open(&scene.base).and_then(|file| file.set_len(80 << 20)).unwrap();
    let last = (80 << 20) / BLOCK as u64 - 1;
    scene.start_again(&[fault(last, 1, "write", "write_fault")]);
    let mut host = scene.host();
    assert_eq!(host.blocks(), last + 1);
    for copy in spare_format::superblocks(&scene.spare) {
        assert_eq!(copy.expect("a valid superblock").number(field::BASE_BLOCKS), last + 1);
    }
    assert!(host.write(last, &stamped(last, 1, 1)).unwrap().ok());
    assert_eq!(scene.count("remapped"), 2);
    scene.target.kill9();
    scene.start_again(&[]);
    let mut host = scene.host();
    for lba in [5, last] {
        assert_eq!(host.read(lba, 1).unwrap(), Ok(stamped(lba, 1, 1)));
    }
    scene.target.stop();
    fs::File::options().write(true).open(&scene.base).and_then(|file| file.set_len(64 << 20)).unwrap();
    let spare = fs::read(&scene.spare).unwrap();
    let log = scene.target.try_start(&scene.config(&[]).to_json()).expect_err("a remapped block is beyond the end");
    assert!(log.contains(&format!("block {last} of it is remapped or pending")), "{log}");
    assert!(fs::read(&scene.spare).unwrap() == spare, "nothing was written");
}
