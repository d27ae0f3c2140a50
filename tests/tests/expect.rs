//! Defect 19: what lies on Remap0 is found on Remap0 after a restart, and never on its base, whatever comes first.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use e2e::{
    config::Config,
    scene::{BASE_UUID, SPARE_UUID},
    target::Target,
    wait::wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const BLOCK: u32 = 512;
const MIB: u64 = 64;
const OTHER_UUID: &str = "cccccccc-0000-4000-8000-000000000001";

/// Something that modules find by themselves on a bdev.
#[derive(Clone, Copy, Debug)]
enum Content {
    Lvol,
    Gpt,
    Raid,
}

impl Content {
    /// Puts it on Remap0.
    fn make(self, stack: &Stack) {
        let target = &stack.target;
        match self {
            Content::Lvol => {
                target.rpc("bdev_lvol_create_lvstore", json!({ "bdev_name": "Remap0", "lvs_name": "lvs0" }));
                target.rpc("bdev_lvol_create", json!({ "lvol_name": "v0", "size_in_mib": 4, "lvs_name": "lvs0" }));
            }
            // Nothing is remapped there: what is written to the base's file is on Remap0.
            Content::Gpt => write_gpt(&stack.base),
            Content::Raid => {
                let members = ["Remap0", "Mirror0"];
                target.rpc(
                    "bdev_malloc_create",
                    json!({ "name": "Mirror0", "num_blocks": MIB << 11, "block_size": BLOCK }),
                );
                let raid = json!({ "name": "Raid0", "raid_level": "raid1", "base_bdevs": members, "superblock": true });
                target.rpc("bdev_raid_create", raid);
            }
        }
    }

    /// The bdev on which it was found.
    fn found_on(self, target: &Target) -> Option<String> {
        let name = match self {
            Content::Lvol => {
                target.rpc("bdev_lvol_get_lvstores", Value::Null).pointer("/0/base_bdev").cloned().unwrap_or_default()
            }
            Content::Gpt => {
                let bdevs = target.rpc("bdev_get_bdevs", Value::Null);
                let of_gpt = bdevs
                    .as_array()
                    .and_then(|bdevs| bdevs.iter().find(|bdev| bdev["driver_specific"]["gpt"].is_object()));
                of_gpt.map(|bdev| bdev["driver_specific"]["gpt"]["base_bdev"].clone()).unwrap_or_default()
            }
            Content::Raid => {
                let raids = target.rpc("bdev_raid_get_bdevs", json!({ "category": "all" }));
                let members =
                    raids.pointer("/0/base_bdevs_list").and_then(Value::as_array).cloned().unwrap_or_default();
                members.iter().find(|member| !member["name"].is_null()).map(|m| m["name"].clone()).unwrap_or_default()
            }
        };
        name.as_str().map(str::to_owned)
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A GPT with one partition of the kind that SPDK makes bdevs of.
fn write_gpt(disk: &Path) {
    let mut mbr = [0; BLOCK as usize];
    mbr[446 + 4] = 0xee;
    mbr[446 + 8..][..4].copy_from_slice(&1u32.to_le_bytes());
    mbr[446 + 12..][..4].copy_from_slice(&((MIB << 11) as u32 - 1).to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut entries = [0; 128 * 128];
    // 6527994e-2c5a-4eec-9613-8f5944074e8b
    entries[..16].copy_from_slice(&[
        0x4e, 0x99, 0x27, 0x65, 0x5a, 0x2c, 0xec, 0x4e, 0x96, 0x13, 0x8f, 0x59, 0x44, 0x07, 0x4e, 0x8b,
    ]);
    entries[16..32].fill(0x77);
    entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
    entries[40..48].copy_from_slice(&4095u64.to_le_bytes());
    let mut header = [0; BLOCK as usize];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    let last = (MIB << 11) - 1;
    for (at, lba) in [(24, 1), (32, last), (40, 34), (48, last - 33), (72, 2)] {
        header[at..at + 8].copy_from_slice(&lba.to_le_bytes());
    }
    header[56..72].fill(0x55);
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    let crc = crc32(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let disk = File::options().write(true).open(disk).unwrap();
    for (at, bytes) in [(0, &mbr[..]), (512, &header), (1024, &entries)] {
        disk.write_all_at(bytes, at).unwrap();
    }
}

/// The files of a set with something on it, its target stopped.
struct Stack {
    target: Target,
    base: PathBuf,
    spare: PathBuf,
    uuid: String,
    saved: Value,
}

impl Stack {
    fn new(content: Content) -> Stack {
        let mut target = Target::prepare();
        let (base, spare) = (target.file("base", MIB), target.file("spare", 16));
        let config = Config::new().aio("Base0", &base, BLOCK, BASE_UUID).aio("Spare0", &spare, BLOCK, SPARE_UUID);
        let create = json!({ "name": "Remap0", "base_bdev": "Base0", "spare_bdev": "Spare0" });
        target.start(&config.bdev("bdev_remap_create", create));
        let uuid = target.status("Remap0")["uuid"].as_str().unwrap().to_owned();
        let mut stack = Stack { target, base, spare, uuid, saved: Value::Null };
        content.make(&stack);
        stack.saved = stack.target.saved_config();
        stack.target.stop();
        stack
    }

    fn expectation(&self) -> Value {
        json!({ "name": "Remap0", "uuid": self.uuid, "base_uuid": BASE_UUID, "spare_uuid": SPARE_UUID })
    }

    fn plug(&self, name: &str) {
        let (file, uuid) = if name == "Base0" { (&self.base, BASE_UUID) } else { (&self.spare, SPARE_UUID) };
        let params = json!({ "name": name, "filename": file, "block_size": BLOCK, "uuid": uuid });
        self.target.rpc("bdev_aio_create", params);
        self.target.rpc("bdev_wait_for_examine", Value::Null);
    }
}

/// The calls of the bdev subsystem.
fn bdev_calls(config: &mut Value) -> &mut Vec<Value> {
    let systems = config["subsystems"].as_array_mut().unwrap();
    let bdev = systems.iter_mut().find(|system| system["subsystem"] == "bdev").unwrap();
    bdev["config"].as_array_mut().unwrap()
}

fn at(calls: &[Value], method: &str, name: Option<&str>) -> usize {
    let wanted = |call: &Value| call["method"] == method && name.is_none_or(|name| call["params"]["name"] == name);
    calls.iter().position(wanted).unwrap_or_else(|| panic!("no {method} in {calls:?}"))
}

#[test]
fn a_saved_configuration_brings_back_what_lies_on_remap0_in_both_orders() {
    for content in [Content::Lvol, Content::Gpt, Content::Raid] {
        let mut stack = Stack::new(content);
        let mut config = stack.saved.clone();
        for turn in ["the base is first", "the spare is first"] {
            let calls = bdev_calls(&mut config);
            let (base, spare) =
                (at(calls, "bdev_aio_create", Some("Base0")), at(calls, "bdev_aio_create", Some("Spare0")));
            assert_eq!(base < spare, turn == "the base is first");
            assert!(at(calls, "bdev_remap_expect", None) < base.min(spare), "{calls:?}");
            let mut expectation = stack.expectation();
            expectation["generation"] = json!(1);
            assert_eq!(calls[at(calls, "bdev_remap_expect", None)]["params"], expectation);
            calls.swap(base, spare);
            let mut this = config.clone();
            bdev_calls(&mut this).swap(base, spare);
            if let Err(log) = stack.target.try_start(&this) {
                panic!("{content:?}, {turn}: {log}");
            }
            assert_eq!(content.found_on(&stack.target).as_deref(), Some("Remap0"), "{content:?}, {turn}");
            stack.target.stop();
        }
    }
}

#[test]
fn a_base_that_is_expected_is_kept_until_its_spare_comes_or_it_is_forgotten() {
    for content in [Content::Lvol, Content::Gpt, Content::Raid] {
        let mut stack = Stack::new(content);
        stack.target.start(&Config::new().bdev("bdev_remap_expect", stack.expectation()));
        let status = stack.target.status("Remap0");
        assert_eq!((&status["state"], &status["expected"]), (&json!("waiting"), &json!(true)), "{status}");
        stack.plug("Base0");
        let status = stack.target.status("Remap0");
        assert_eq!(status["base_bdev"], "Base0", "{status}");
        let waits_for = format!("the spare with UUID {SPARE_UUID}");
        assert!(status["waits_for"].as_str().is_some_and(|what| what.contains(&waits_for)), "{status}");
        assert_eq!(content.found_on(&stack.target), None, "{content:?}");
        // The base may come and go meanwhile.
        stack.target.rpc("bdev_aio_delete", json!({ "name": "Base0" }));
        stack.plug("Base0");
        stack.plug("Spare0");
        assert_eq!(content.found_on(&stack.target).as_deref(), Some("Remap0"), "{content:?}");
        stack.target.stop();

        // A base that never gets its spare holds nothing up, and is free when its set is given up.
        stack.target.start(&Config::new().bdev("bdev_remap_expect", stack.expectation()));
        stack.plug("Base0");
        stack.target.rpc("bdev_remap_forget", json!({ "uuid": stack.uuid }));
        assert_eq!(stack.target.rpc("bdev_remap_status", json!({})), json!([]));
        stack.target.rpc("bdev_aio_delete", json!({ "name": "Base0" }));
        wait_until("the base to go", SOON, || !stack.target.has_bdev("Base0"));
        stack.plug("Base0");
        // A raid knows its members by UUID.
        let mistaken = if matches!(content, Content::Raid) { None } else { Some("Base0") };
        assert_eq!(content.found_on(&stack.target).as_deref(), mistaken, "{content:?}: it is only a disk now");
        stack.target.stop();
    }
}

#[test]
fn wrong_expectations_change_nothing() {
    let mut stack = Stack::new(Content::Lvol);
    stack.target.start(&Config::new());
    let with = |field: &str, value: Value| {
        let mut params = stack.expectation();
        params[field] = value;
        params
    };
    let nil = "00000000-0000-0000-0000-000000000000";
    for (params, wrong) in [
        (with("name", json!("")), "name"),
        (with("name", json!("x".repeat(192))), "name"),
        (with("uuid", json!(nil)), "uuid"),
        (with("base_uuid", json!(nil)), "base_uuid"),
        (with("spare_uuid", json!("zzz")), "spare_uuid"),
        (with("spare_uuid", json!(BASE_UUID)), "spare_uuid"),
        (with("spare", json!(BASE_UUID)), "spare"),
        (json!({}), "name"),
    ] {
        let (code, message) = stack.target.refused("bdev_remap_expect", params.clone());
        assert!(code == -32602 && message.contains(wrong), "{params}: {message} ({code})");
    }
    assert_eq!(stack.target.rpc("bdev_remap_status", json!({})), json!([]));
    assert_eq!(stack.target.rpc("bdev_remap_expect", stack.expectation()), true);
    assert_eq!(stack.target.rpc("bdev_remap_expect", stack.expectation()), true, "once more");
    let (code, message) = stack.target.refused("bdev_remap_expect", with("base_uuid", json!(OTHER_UUID)));
    assert!(code == -17 && message.contains(&stack.uuid), "{message} ({code})");
    assert_eq!(stack.target.status("Remap0")["base_uuid"], BASE_UUID);
    stack.target.stop();

    // Too late: the store was found on the base, and is in use. Status says so.
    stack.target.start(&Config::new().aio("Base0", &stack.base, BLOCK, BASE_UUID));
    assert_eq!(Content::Lvol.found_on(&stack.target).as_deref(), Some("Base0"));
    stack.target.rpc("bdev_remap_expect", stack.expectation());
    stack.plug("Spare0");
    let status = stack.target.status("Remap0");
    assert_eq!((&status["state"], &status["base_bdev"]), (&json!("waiting"), &Value::Null), "{status}");
    assert!(status["waits_for"].as_str().is_some_and(|what| what.contains("Base0 is in use or claimed")), "{status}");
    stack.target.stop();
}
