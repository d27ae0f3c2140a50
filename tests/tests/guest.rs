//! A Linux guest uses a Remap bdev as its disk, over NVMe/TCP or vhost: what its kernel sees is what was written, whatever the base does, also when
//! the target is killed under it; and it is what remapctl recovers.

use std::{fs, time::Duration};

use e2e::{
    guest::{Guest, VHOST_DISK, connect, said},
    remapctl::{remapctl, text},
    scene::{NQN, Scene, Stack, fault, fault_every},
    wait::wait_until,
};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Fails if the kernel has seen an error of the disk, and tells it.
const NO_ERRORS: &str =
    "if dmesg | grep -E 'I/O error|critical .* error|EXT[0-9]-fs (error|warning)'; then exit 9; fi\n";

/// Makes a file system, mounts it, and defines `fill NUMBER`, which writes a file of random bytes, has it written out, and notes its checksum.
const FILE_SYSTEM: &str = "set -e
mke2fs -F -b 4096 $disk > /dev/null
mount -t ext2 $disk /mnt
fill() {
    dd if=/dev/urandom of=/mnt/$1 bs=64k count=4 conv=fsync 2> /dev/null
    (cd /mnt && sha256sum $1) >> /sums
}
";

/// Takes the disk out of all caches of the guest, and compares what is on it with the checksums.
const COMPARE: &str = "umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext2 -o ro $disk /mnt
cp /sums /mnt.sums
(cd /mnt && sha256sum -c /mnt.sums > /result) || { grep -v OK /result; exit 8; }
echo \"files: $(grep -c OK /result)\"
umount /mnt
";

/// Writes 40 files, and takes one away.
const FILES: &str = "for number in $(seq 40); do fill $number; done
rm /mnt/7
sed -i '/  7$/d' /sums\n";

/// The checksum of the whole disk.
const CHECKSUM: &str = "echo 3 > /proc/sys/vm/drop_caches
sum=$(sha256sum < $disk)
echo \"sum: ${sum%% *}\"\n";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A base of which one block in seven cannot be written, and 40 after another, with a file system of a guest on it.
#[test]
fn what_a_kernel_has_written_to_bad_blocks_it_reads_and_remapctl_recovers() {
    let bad = [fault_every(7, 0, 8192, "write", "write_fault"), fault(3000, 40, "write", "write_fault")];
    let mut scene = Scene::of(Stack { base_mib: 32, ..Stack::default() }, &bad);
    let commands = [&connect(scene.port, NQN), FILE_SYSTEM, FILES, COMPARE, CHECKSUM, NO_ERRORS].concat();
    let Some(guest) = Guest::start(scene.target.dir(), &commands) else { return };
    let output = guest.ended();
    assert_eq!(said(&output, "files: ").as_deref(), Some("39"), "{output}");
    let seen = said(&output, "sum: ").unwrap_or_else(|| panic!("{output}"));
    assert!(scene.count("remapped") > 300, "{}", scene.status());

    scene.target.kill9();
    let (base, spare) = (scene.base.clone(), scene.spare.clone());
    let recovered = scene.target.dir().join("recovered");
    let recover = ["recover", "--base", text(&base), "--spare", text(&spare), "--output", text(&recovered)];
    let (code, _, errors) = remapctl(&recover);
    assert_eq!((code, errors.as_str()), (0, ""));
    let recovered = fs::read(recovered).unwrap();
    assert_eq!(recovered.len(), 32 << 20);
    assert_eq!(sha256(&recovered), seen, "what is recovered is not what the kernel has read");
    assert_ne!(sha256(&fs::read(base).unwrap()), seen, "nothing of it was on the spare");
}

/// SPDK reads and writes the memory of the guest, in pieces as that has them.
#[test]
fn what_a_kernel_has_written_by_vhost_it_reads_and_hosts_as_well() {
    let bad = [fault_every(7, 0, 8192, "write", "write_fault"), fault(3000, 40, "write", "write_fault")];
    let scene = Scene::of(Stack { base_mib: 32, ..Stack::default() }, &bad);
    let socket = scene.target.dir().join("vhost");
    // SPDK lets only one of them have it.
    scene.target.rpc("nvmf_subsystem_remove_ns", json!({ "nqn": NQN, "nsid": 1 }));
    scene.target.rpc("vhost_create_blk_controller", json!({ "ctrlr": "vhost", "dev_name": "Remap0" }));
    let commands = [VHOST_DISK, FILE_SYSTEM, FILES, COMPARE, CHECKSUM, NO_ERRORS].concat();
    let Some(guest) = Guest::start_with_vhost(&socket, scene.target.dir(), &commands) else { return };
    let output = guest.ended();
    assert_eq!(said(&output, "files: ").as_deref(), Some("39"), "{output}");
    assert!(scene.count("remapped") > 300, "{}", scene.status());
    scene.target.rpc("vhost_delete_controller", json!({ "ctrlr": "vhost" }));
    scene.target.rpc("nvmf_subsystem_add_ns", json!({ "nqn": NQN, "namespace": { "bdev_name": "Remap0" } }));
    let mut host = scene.host();
    let all = host.read_all(0, host.blocks()).expect("an answer").expect("all of it can be read");
    assert_eq!(said(&output, "sum: "), Some(sha256(&all)), "a host does not read what the guest has read");
}

#[test]
fn a_guest_does_not_notice_that_the_target_was_killed_and_started_again() {
    let bad = [fault_every(5, 0, 16_384, "write", "write_fault")];
    let mut scene = Scene::start(&bad);
    let files = "for number in $(seq 60); do fill $number; echo \"file: $number\"; done\n";
    let commands = [&connect(scene.port, NQN), FILE_SYSTEM, files, COMPARE, NO_ERRORS].concat();
    let Some(mut guest) = Guest::start(scene.target.dir(), &commands) else { return };
    for number in [10_u64, 30] {
        guest.said(&format!("file: {number}"));
        scene.target.kill9();
        scene.start_again(&bad);
        let before = scene.count("remapped");
        wait_until("the guest's writes", Duration::from_secs(60), || scene.count("remapped") > before);
    }
    let output = guest.ended();
    assert_eq!(said(&output, "files: ").as_deref(), Some("60"), "{output}");
}
