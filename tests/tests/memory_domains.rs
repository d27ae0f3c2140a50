//! I/O whose data is in a memory domain: passed on as it is where both devices take it, brought to local memory by the bdev layer
//! where they do not. Top makes such I/O, at addresses that no CPU can use; Fault0 and Spare0 count what comes in a domain.

use e2e::{
    config::Config,
    nvme_tcp::{Host, Status},
    scene::{BASE_UUID, BLOCK, SPARE_UUID, connect, fault, free_port, stamped},
    target::Target,
};
use serde_json::{Value, json};

const NQN: &str = "nqn.2026-01.io.bdev-remap:domains";

/// What base and spare are.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Disk {
    /// It takes every domain.
    Malloc,
    /// It takes none.
    Aio,
}

/// Fault0 on Base0 and Spare0 on SpareDisk0, Remap0 on both, and Top on that, exported.
fn start(base: Disk, spare: Disk) -> (Target, Host) {
    let mut target = Target::prepare();
    let disk = |config: Config, disk: Disk, name: &str, uuid: &str| match disk {
        Disk::Malloc => config.malloc(name, 16, BLOCK as u32),
        Disk::Aio => config.aio(name, &target.file(name, 16), BLOCK as u32, uuid),
    };
    let config = disk(Config::new(), base, "Base0", BASE_UUID);
    let config = disk(config, spare, "SpareDisk0", SPARE_UUID);
    let port = free_port();
    let config = config
        .bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }))
        .bdev("bdev_fault_create", json!({ "name": "Spare0", "base_bdev": "SpareDisk0" }))
        .bdev("bdev_fault_inject", fault(10, 2, "write", "write_fault"))
        .bdev("bdev_fault_inject", fault(20, 1, "write", "write_fault"))
        .bdev("bdev_remap_create", json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" }))
        .bdev("bdev_fault_create", json!({ "name": "Top", "base_bdev": "Remap0", "hidden_memory": true }))
        .export("Top", NQN, port);
    target.start(&config);
    let host = connect(port, NQN);
    (target, host)
}

fn bdev(target: &Target, name: &str) -> Value {
    target.rpc("bdev_get_bdevs", json!({ "name": name }))[0].take()
}

/// What was counted, or is between two counts.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Count {
    /// I/O to the base in a domain.
    base: u64,
    /// The same to the spare.
    spare: u64,
    /// How often data was fetched from the domain.
    pulls: u64,
    /// How often data was brought to it.
    pushes: u64,
}

impl Count {
    fn of(target: &Target) -> Count {
        let number = |name: &str, field: &str| {
            let info = bdev(target, name);
            info["driver_specific"]["fault"]["memory_domains"][field].as_u64().unwrap_or_else(|| panic!("{info}"))
        };
        let (base, spare) = (number("Fault0", "came"), number("Spare0", "came"));
        Count { base, spare, pulls: number("Top", "pulls"), pushes: number("Top", "pushes") }
    }

    /// What `done` adds to it.
    fn added(target: &Target, done: impl FnOnce()) -> Count {
        let before = Count::of(target);
        done();
        let now = Count::of(target);
        Count {
            base: now.base - before.base,
            spare: now.spare - before.spare,
            pulls: now.pulls - before.pulls,
            pushes: now.pushes - before.pushes,
        }
    }
}

#[test]
fn remap_takes_the_domains_that_base_and_spare_take() {
    for (base, spare) in
        [(Disk::Malloc, Disk::Malloc), (Disk::Malloc, Disk::Aio), (Disk::Aio, Disk::Malloc), (Disk::Aio, Disk::Aio)]
    {
        let (mut target, _) = start(base, spare);
        let domains = |name: &str| bdev(&target, name)["memory_domains"].take();
        match (base, spare) {
            (Disk::Malloc, Disk::Malloc) => {
                assert!(domains("Base0").as_array().is_some_and(|all| !all.is_empty()), "{}", domains("Base0"));
                assert_eq!(domains("Remap0"), domains("Base0"));
            }
            _ => assert_eq!(domains("Remap0"), Value::Null, "{base:?} and {spare:?}"),
        }
        target.stop();
    }
}

/// Blocks 10, 11 and 20 are bad. Each child of an I/O fetches its own part of the data, once, and nobody else fetches any.
#[test]
fn data_in_a_domain_goes_to_each_child_as_it_is() {
    let (mut target, mut host) = start(Disk::Malloc, Disk::Malloc);
    let mut write = |lba, blocks, round| {
        let data = stamped(lba, blocks, round);
        Count::added(&target, || assert_eq!(host.write(lba, &data).unwrap(), Status::SUCCESS))
    };
    let whole = write(100, 8, 1);
    assert_eq!(whole, Count { base: 1, spare: 0, pulls: 1, pushes: 0 });

    // A rescue: what fails is counted, and fetches nothing. Blocks 10 and 11 go to the spare together.
    let rescued = write(0, 32, 1);
    assert_eq!(rescued.spare, 2, "{rescued:?}");
    assert!(rescued.base > rescued.pulls - rescued.spare && rescued.pulls > 6, "{rescued:?}");
    assert_eq!(target.status("Remap0")["remapped"], 3);

    // Base, spare, base, spare, base.
    let split = write(0, 32, 2);
    assert!(split.spare >= 2, "{split:?}");
    assert_eq!(split, Count { base: 3, spare: split.spare, pulls: 3 + split.spare, pushes: 0 });
    let on_spare = write(20, 1, 3);
    assert_eq!(on_spare, Count { base: 0, spare: 1, pulls: 1, pushes: 0 });

    let expected = [stamped(0, 20, 2), stamped(20, 1, 3), stamped(21, 11, 2)].concat();
    let mut read = |lba, blocks| {
        let mut data = Ok(Vec::new());
        let added = Count::added(&target, || data = host.read(lba, blocks).unwrap());
        (data, added)
    };
    let (data, added) = read(0, 32);
    assert_eq!(data.unwrap(), expected);
    assert_eq!(added, Count { base: 3, spare: split.spare, pulls: 0, pushes: 3 + split.spare });

    // A rescue of a read, which brings each good part to its place: the block that failed becomes pending.
    target.rpc(
        "bdev_fault_inject",
        json!({ "name": "Fault0", "lba": 5, "num_blocks": 1, "op": "read", "error": "read_error", "count": 1 }),
    );
    let (data, added) = read(0, 32);
    assert_eq!(data.unwrap(), expected);
    assert!(added.pushes > split.spare && added.pulls == 0, "{added:?}");
    target.stop();
}

/// The same I/O where one device, or both, take no domain: copied once, above Remap.
#[test]
fn data_in_a_domain_arrives_where_devices_take_none() {
    for (base, spare) in [(Disk::Malloc, Disk::Aio), (Disk::Aio, Disk::Malloc), (Disk::Aio, Disk::Aio)] {
        let (mut target, mut host) = start(base, spare);
        for round in [1, 2] {
            let data = stamped(0, 32, round);
            let written = Count::added(&target, || assert_eq!(host.write(0, &data).unwrap(), Status::SUCCESS));
            assert_eq!(written, Count { base: 0, spare: 0, pulls: 1, pushes: 0 }, "{base:?} and {spare:?}");
            let read = Count::added(&target, || assert_eq!(host.read(0, 32).unwrap().unwrap(), data));
            assert_eq!(read, Count { base: 0, spare: 0, pulls: 0, pushes: 1 }, "{base:?} and {spare:?}");
        }
        assert_eq!(target.status("Remap0")["remapped"], 3);
        target.stop();
    }
}
