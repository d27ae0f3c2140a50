//! remapctl beside the real target: its verdicts are those of `bdev_remap_create`, and what it recovers is what hosts read.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    app,
    config::Config,
    nvme_tcp::Status,
    remapctl::{remapctl, text},
    scene::{BASE_UUID, BLOCK, NQN, Scene, Stack, copies_ok, fault, fault_every, stamped},
    script,
    set::{Loaded, Set},
    spare_format::{BOTH, Copy},
};
use serde_json::{Value, json};

#[test]
fn what_is_recovered_without_spdk_is_what_hosts_read() {
    let bad = [
        fault_every(3, 0, 900, "write", "write_fault"),
        fault(2000, 40, "write", "write_fault"),
        fault(5000, 3, "read", "read_error"),
    ];
    let mut scene = Scene::of(Stack { base_mib: 32, ..Stack::default() }, &bad);
    let mut host = scene.host();
    for lba in (0..8000).step_by(32) {
        assert_eq!(host.write(lba, &stamped(lba, 32, 1)).expect("an answer"), Status::SUCCESS);
    }
    // Blocks that hosts cannot read, and that remapctl can: the file below is sound.
    assert!(!host.read(5000, 3).expect("an answer").expect_err("it is bad").ok());
    assert_eq!(host.write(10, &stamped(10, 32, 2)).expect("an answer"), Status::SUCCESS);
    let (remapped, pending) = (scene.count("remapped"), scene.count("pending"));
    assert!(remapped >= 340 && pending == 3, "{remapped} remapped, {pending} pending");

    // While it is in use, it can be looked at.
    let (base, spare) = (scene.base.clone(), scene.spare.clone());
    let bdev = scene.target.rpc("bdev_get_bdevs", json!({ "name": "Fault0" }));
    let uuid = bdev[0]["uuid"].as_str().unwrap();
    let check = ["check", text(&spare), "--base", text(&base), "--base-uuid", uuid, "--json"];
    let (code, report, warning) = remapctl(&check);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(code == 0 && report["remapped"] == remapped && report["pending"] == pending, "{code}: {report}");
    assert!(warning.contains("it is open in process"), "{warning}");
    // And it is not written to.
    let undo = scene.target.dir().join("undo");
    let (code, _, refused) = remapctl(&["repair", text(&spare), "--yes", "--undo", text(&undo)]);
    assert!(code == 8 && refused.contains("it is open in process") && !undo.exists(), "{code}: {refused}");
    let (_, found, _) = remapctl(&["doctor", "--socket", text(&scene.target.socket()), "--json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let about = |about: &str| found["findings"].as_array().unwrap().iter().find(|one| one["about"] == about).cloned();
    for (what, says) in [("SPDK", "is SPDK "), ("target", "it answers, and has 1 set"), ("set", "\"Remap0\" is online")]
    {
        let finding = about(what).unwrap();
        assert!(finding["level"] == "ok" && finding["sentence"].as_str().unwrap().contains(says), "{finding}");
    }

    // The picture of the set while it runs is that of its spare.
    let socket = scene.target.socket();
    let picture = |args: &[&str]| {
        let (code, page, errors) = remapctl(&[&["map"], args].concat());
        assert_eq!(code, 0, "{errors}");
        let (_, rest) = page.split_once("<p class=\"hidden\" id=\"summary\">").unwrap();
        let (_, extents) = page.split_once("<script id=\"extents\"").unwrap();
        (rest.split_once('<').unwrap().0.to_owned(), extents.split_once('<').unwrap().0.to_owned())
    };
    let (live, offline) = (picture(&["Remap0", "--socket", text(&socket)]), picture(&[text(&spare)]));
    assert!(live.0.contains(&format!("{remapped} are remapped, {pending} pending, 0 lost")), "{}", live.0);
    assert_eq!(live, offline);

    // What other tools read is taken by import: all of it is known.
    let (code, map, _) = remapctl(&["list", text(&spare), "--format", "ddrescue", "--state", "remapped"]);
    assert_eq!(code, 0);
    let file = scene.target.dir().join("list.map");
    fs::write(&file, map).unwrap();
    let mut import = Command::new(script("rpc"));
    import.arg("-s").arg(scene.target.socket()).args(["bdev_remap_import", "Remap0", text(&file)]);
    let imported = import.stderr(Stdio::inherit()).output().unwrap();
    let imported: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert!(imported["already"] == remapped && imported["added"] == 0, "{imported}");

    scene.target.kill9();
    let before = [&base, &spare].map(|path| fs::read(path).unwrap());
    assert_eq!(remapctl(&check).0, 0);
    let output = scene.target.dir().join("recovered");
    let recover = ["recover", "--base", text(&base), "--spare", text(&spare), "--output", text(&output)];
    let (code, summary, errors) = remapctl(&recover);
    assert_eq!((code, errors.as_str()), (0, ""), "{summary}");
    assert!([&base, &spare].map(|path| fs::read(path).unwrap()) == before, "base or spare was changed");

    scene.start_again(&[]);
    let mut host = scene.host();
    let all = host.read_all(0, host.blocks()).expect("an answer").expect("all of it can be read");
    assert_eq!(all.len(), 32 << 20);
    let recovered = fs::read(&output).unwrap();
    let same_as = |whose: &str, seen: &[u8]| {
        let differs = seen.chunks(BLOCK).zip(recovered.chunks(BLOCK)).position(|(host, file)| host != file);
        assert!(differs.is_none() && seen.len() == recovered.len(), "{whose}: block {differs:?} differs");
    };
    same_as("the host of these tests", &all);
    same_as("SPDK's host", &read_by_spdk(&scene));
}

/// The content of the Remap bdev as SPDK's own NVMe/TCP host reads it.
fn read_by_spdk(scene: &Scene) -> Vec<u8> {
    let place = |name: &str| scene.target.dir().join(name);
    let (config, socket, output) = (place("host.json"), place("host.sock"), place("read-by-spdk"));
    let controller = json!({
        "name": "Host0", "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": scene.port.to_string(),
        "subnqn": NQN,
    });
    let attach = Config::new().bdev("bdev_nvme_attach_controller", controller);
    fs::write(&config, attach.to_json().to_string()).unwrap();
    let memory = ["-s", "512", "-m", "0x1", "-r", text(&socket), "--json", text(&config)];
    let copy = ["--ib", "Host0n1", "--of", text(&output), "--bs", "131072"];
    let read = app::run("spdk_dd", &[&memory[..], &copy].concat(), true, Duration::from_secs(60));
    assert!(read.status.success(), "{}", read.output);
    fs::read(&output).unwrap()
}

#[test]
fn check_says_what_create_says() {
    let set = Set::make(false);
    let (spare, base) = (set.spare.clone(), set.base.clone());
    let check = |base_uuid: &str| {
        let before = [&base, &spare].map(|path| fs::read(path).unwrap());
        let args = ["check", text(&spare), "--base", text(&base), "--base-uuid", base_uuid, "--json"];
        let (code, report, _) = remapctl(&args);
        assert!([&base, &spare].map(|path| fs::read(path).unwrap()) == before, "base or spare was changed");
        (code, serde_json::from_str::<Value>(&report).unwrap()["sentence"].as_str().unwrap().to_owned())
    };
    let (_, report, _) = remapctl(&["inspect", text(&spare), "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let uuid = report["set"]["base_uuid"].as_str().unwrap();
    // Sound.
    assert_eq!(check(uuid).0, 0);
    let damage = |copies: &[Copy], page: u64| {
        let file = set.spare_file();
        let area = file.log().area;
        copies.iter().for_each(|copy| file.write(file.page(*copy, area, page), &[0x5a; 4096]));
    };
    // Degraded: it is loaded, and made whole.
    damage(&[Copy::B], 1);
    let (code, sentence) = check(uuid);
    assert!(code == 1 && sentence.contains("log copy B"), "{code}: {sentence}");
    assert!(matches!(set.load(), Loaded::Yes(..)));
    set.unload();
    assert_eq!(check(uuid).0, 0, "it is whole again");
    set.mend();

    // Written by hand, it is whole as well, and loaded as it is.
    damage(&[Copy::A], 1);
    damage(&[Copy::B], 2);
    let undo = spare.with_extension("undo");
    let (code, _, errors) = remapctl(&["repair", text(&spare), "--yes", "--undo", text(&undo)]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(check(uuid).0, 0, "it is repaired");
    assert!(matches!(set.load(), Loaded::Yes(..)));
    set.unload();
    let (code, _, errors) = remapctl(&["repair", "--undo-from", text(&undo), text(&spare), "--yes"]);
    assert!(code == 8 && errors.contains("it is not as the repair"), "a target has used it since: {code}: {errors}");
    set.mend();

    // Refused, in the same words.
    let (_, message) = set.refused("another base", 4096, "99999999-0000-4000-8000-000000000000", json!({}));
    let (_, other) = message.split_once(", not to ").unwrap();
    let (code, sentence) = check(&other[..uuid.len()]);
    assert!(code == 2 && message.contains(&sentence), "{sentence} is not {message}");
    let last = set.spare_file().log().pages - 1;
    for page in [0, 2, last] {
        damage(&BOTH, page);
        let (code, sentence) = check(uuid);
        let (_, message) = set.refused("damage", 4096, BASE_UUID, json!({}));
        assert!(code == 2 && message.contains(&sentence), "page {page}: {sentence} is not {message}");
        set.mend();
    }
    fs::write(&spare, "precious ".repeat(1 << 20)).unwrap();
    let (code, sentence) = check(uuid);
    let (_, message) = set.refused("something else", 4096, BASE_UUID, json!({}));
    assert!(code == 2 && message.contains(&sentence), "{sentence} is not {message}");
}

/// A set that is refused, as nobody knows what its last commit said, is loaded as an operator has chosen it: without that commit.
#[test]
fn what_repair_brings_a_refused_set_to_is_loaded() {
    let set = Set::make(false);
    let (file, undo) = (set.spare_file(), set.spare.with_extension("undo"));
    let (spare, undo, log) = (text(&set.spare), text(&undo), file.log());
    for copy in BOTH {
        file.write(file.page(copy, log.area, log.pages - 1), &[0x5a; 4096]);
    }
    set.refused("the last commit cannot be read", 4096, BASE_UUID, json!({}));
    let damaged = fs::read(spare).unwrap();
    let (_, states, _) = remapctl(&["inspect", spare, "--json"]);
    let states: Value = serde_json::from_str(&states).unwrap();
    let states = states["candidates"].as_array().unwrap();
    let chosen = states.iter().max_by_key(|state| state["sequence"].as_u64()).unwrap();
    let at = format!("{}:{}", chosen["epoch"], chosen["sequence"]);

    let (code, plan, _) = remapctl(&["repair", spare, "--at", &at, "--json", "--undo", undo]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert!(code == 1 && plan["gives_up"]["unknown_pages"] == 1, "{code}: {plan}");
    assert!(fs::read(spare).unwrap() == damaged, "a plan writes nothing");
    let (code, _, errors) = remapctl(&["repair", spare, "--at", &at, "--yes", "--undo", undo]);
    assert_eq!(code, 0, "{errors}");
    let Loaded::Yes(status, list) = set.load() else { panic!("it is refused still") };
    assert!(copies_ok(&status) && list == set.list_before_last, "{status}: {list}");
    set.unload();
}
