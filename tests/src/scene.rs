//! The usual stack of a test: AIO base, faults on it, AIO spare, Remap0 on top, exported over NVMe/TCP.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    config::Config,
    nvme_tcp::{Host, Status},
    target::Target,
    wait::wait_for,
};

/// Bytes of a block in the usual stack.
pub const BLOCK: usize = 4096;
/// Subsystem that exports Remap0.
pub const NQN: &str = "nqn.2026-01.io.bdev-remap:remap0";
/// UUID of Base0.
pub const BASE_UUID: &str = "11111111-1111-4111-8111-111111111111";
/// UUID of Spare0.
pub const SPARE_UUID: &str = "22222222-2222-4222-8222-222222222222";
/// UUID of Spare1.
pub const SPARE1_UUID: &str = "33333333-3333-4333-8333-333333333333";

/// How long a job may take.
const JOB: Duration = Duration::from_secs(60);

/// A TCP port that was free a moment ago.
#[track_caller]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

/// `blocks` blocks that tell where they belong and which `round` of writing they are of.
pub fn stamped(lba: u64, blocks: u64, round: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(blocks as usize * BLOCK);
    for block in lba..lba + blocks {
        for word in 0..(BLOCK / 16) as u64 {
            data.extend(((block << 16) ^ word).to_le_bytes());
            data.extend((round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes());
        }
    }
    data
}

/// Writes these blocks as [`stamped`] of the first round, 30 at a time.
#[track_caller]
pub fn write_stamped(host: &mut Host, lba: u64, blocks: u64) {
    for at in (lba..lba + blocks).step_by(30) {
        let some = 30.min(lba + blocks - at);
        assert_eq!(host.write(at, &stamped(at, some, 1)).expect("an answer"), Status::SUCCESS, "block {at}");
    }
}

/// The parameters of `bdev_fault_inject` on Fault0, the base.
pub fn fault(lba: u64, blocks: u64, op: &str, error: &str) -> Value {
    json!({ "name": "Fault0", "lba": lba, "num_blocks": blocks, "op": op, "error": error })
}

/// As [`fault`], on each of these blocks.
pub fn fault_at(lbas: &[u64], op: &str, error: &str) -> Value {
    json!({ "name": "Fault0", "lba": lbas, "num_blocks": 1, "op": op, "error": error })
}

/// As [`fault`], on the spare; `lba` is one of the spare bdev.
pub fn spare_fault(lba: u64, blocks: u64, op: &str, error: &str) -> Value {
    json!({ "name": "Spare0", "lba": lba, "num_blocks": blocks, "op": op, "error": error })
}

/// As [`fault`], on every `stride`-th block only.
pub fn fault_every(stride: u64, lba: u64, blocks: u64, op: &str, error: &str) -> Value {
    let mut params = fault(lba, blocks, op, error);
    params["stride"] = stride.into();
    params
}

/// Whether status says that every copy of the metadata is as it should be.
pub fn copies_ok(status: &Value) -> bool {
    ["superblock_a", "superblock_b", "log_a", "log_b"].iter().all(|copy| status["metadata"][copy] == "ok")
}

/// What the stack is made of.
#[derive(Clone)]
pub struct Stack {
    /// MiB of the base.
    pub base_mib: u64,
    /// MiB of the spare.
    pub spare_mib: u64,
    /// MiB of Spare1, on which no set is made; 0 for none.
    pub spare1_mib: u64,
    /// Bytes of a block.
    pub block_size: usize,
    /// Whether base and spare have volatile write caches.
    pub volatile: bool,
    /// Whether there is a fault bdev on the spare, too: then it is Spare0, and SpareDisk0 is below it. The same of Spare1.
    pub faulty_spare: bool,
    /// Latency of the base in microseconds.
    pub latency_us: u32,
    /// Reactors of the target: one or two.
    pub reactors: u32,
    /// Further parameters of `bdev_remap_create`.
    pub options: Value,
}

impl Default for Stack {
    fn default() -> Stack {
        Stack {
            base_mib: 64,
            spare_mib: 16,
            spare1_mib: 0,
            block_size: BLOCK,
            volatile: false,
            faulty_spare: false,
            latency_us: 0,
            reactors: 1,
            options: json!({}),
        }
    }
}

/// The usual stack on two reactors, with further parameters of `bdev_remap_create`.
pub fn stack_on_two_reactors(options: Value) -> Stack {
    Stack { reactors: 2, options, ..Stack::default() }
}

/// `stack` with volatile caches on base and spare.
pub fn stack_with_caches(stack: Stack) -> Stack {
    Stack { volatile: true, faulty_spare: true, ..stack }
}

/// The stack, running.
pub struct Scene {
    /// The target.
    pub target: Target,
    /// File of Base0.
    pub base: PathBuf,
    /// File of the spare.
    pub spare: PathBuf,
    /// File of Spare1.
    pub spare1: PathBuf,
    /// Where NVMe/TCP listens.
    pub port: u16,
    stack: Stack,
}

impl Scene {
    /// The usual stack with `faults` from the start.
    #[track_caller]
    pub fn start(faults: &[Value]) -> Scene {
        Scene::with(faults, json!({}))
    }

    /// As [`Scene::start`], with further parameters of `bdev_remap_create`.
    #[track_caller]
    pub fn with(faults: &[Value], options: Value) -> Scene {
        Scene::of(Stack { options, ..Stack::default() }, faults)
    }

    /// Any stack, with `faults` from the start.
    #[track_caller]
    pub fn of(stack: Stack, faults: &[Value]) -> Scene {
        let mut scene = Scene::prepare(stack);
        scene.start_again(faults);
        scene
    }

    /// The files of a stack, nothing running yet.
    #[track_caller]
    pub fn prepare(stack: Stack) -> Scene {
        let target = if stack.reactors > 1 { Target::prepare_on_two_reactors() } else { Target::prepare() };
        let (base, spare) = (target.file("base", stack.base_mib), target.file("spare", stack.spare_mib));
        let spare1 = target.file("spare1", stack.spare1_mib);
        Scene { target, base, spare, spare1, port: free_port(), stack }
    }

    /// Starts the target again, with these faults.
    #[track_caller]
    pub fn start_again(&mut self, faults: &[Value]) {
        let config = self.config(faults);
        self.target.start(&config);
    }

    /// Starts the target again, with these faults and with its devices in this order: what it finds on them is all that it knows.
    #[track_caller]
    pub fn start_assembling(&mut self, faults: &[Value], order: &[&str]) {
        let config = self.assembling(faults, order);
        self.target.start(&config);
    }

    /// The configuration: faults come before what is above them, so that no I/O gets past them.
    pub fn config(&self, faults: &[Value]) -> Config {
        // A set is assembled as soon as both devices are there: by then the faults of the metadata must be in force.
        let order: &[_] = match (self.stack.faulty_spare, self.stack.spare1_mib) {
            (true, 0) => &["Spare0", "Fault0"],
            (true, _) => &["Spare0", "Spare1", "Fault0"],
            (false, 0) => &["Fault0", "Spare0"],
            (false, _) => &["Fault0", "Spare0", "Spare1"],
        };
        let mut create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        if let (Some(create), Some(options)) = (create.as_object_mut(), self.stack.options.as_object()) {
            create.extend(options.clone());
        }
        self.disks(faults, order).bdev("bdev_remap_create", create).export("Remap0", NQN, self.port)
    }

    /// As [`Scene::config`], of these devices in this order, and without `bdev_remap_create`.
    pub fn assembling(&self, faults: &[Value], order: &[&str]) -> Config {
        self.disks(faults, order).export("Remap0", NQN, self.port)
    }

    /// Only these devices, in this order.
    pub fn disks(&self, faults: &[Value], order: &[&str]) -> Config {
        let Stack { volatile, faulty_spare, latency_us, block_size, spare1_mib, .. } = &self.stack;
        let fault_bdev = |config: Config, name: &str, base: &str, latency_us: u32| {
            let params =
                json!({ "name": name, "base_bdev": base, "volatile_cache": volatile, "latency_us": latency_us });
            let config = config.bdev("bdev_fault_create", params);
            let of_it = faults.iter().filter(|fault| fault["name"] == name);
            of_it.fold(config, |config, fault| config.bdev("bdev_fault_inject", fault.clone()))
        };
        let block_size = *block_size as u32;
        let spares =
            [("Spare0", "SpareDisk0", &self.spare, SPARE_UUID), ("Spare1", "SpareDisk1", &self.spare1, SPARE1_UUID)];
        let mut config = Config::new().aio("Base0", &self.base, block_size, BASE_UUID);
        if *faulty_spare {
            let disks = spares.iter().take(if *spare1_mib > 0 { 2 } else { 1 });
            config = disks.fold(config, |config, (_, disk, file, uuid)| config.aio(disk, file, block_size, uuid));
        }
        for name in order {
            config = match spares.iter().find(|(spare, ..)| spare == name) {
                None => fault_bdev(config, name, "Base0", *latency_us),
                Some((_, disk, ..)) if *faulty_spare => fault_bdev(config, name, disk, 0),
                Some((_, _, file, uuid)) => config.aio(name, file, block_size, uuid),
            };
        }
        config
    }

    /// Connects to Remap0.
    #[track_caller]
    pub fn host(&self) -> Host {
        connect(self.port, NQN)
    }

    /// Remap0's status.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.target.status("Remap0")
    }

    /// A number of Remap0's status.
    #[track_caller]
    pub fn count(&self, field: &str) -> u64 {
        let status = self.status();
        status[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {status}"))
    }

    /// The job of this kind in Remap0's status.
    #[track_caller]
    pub fn job(&self, kind: &str) -> Option<Value> {
        let status = self.status();
        status["jobs"].as_array()?.iter().find(|job| job["kind"] == kind).cloned()
    }

    /// Waits for the end of the job of this kind; how it ended.
    #[track_caller]
    pub fn ended(&self, kind: &str) -> Value {
        wait_for(&format!("the end of {kind}"), JOB, || {
            self.job(kind).filter(|job| job["state"] != "running" && job["state"] != "cancelling")
        })
    }

    /// On how many threads Remap0 was written to.
    #[track_caller]
    pub fn writing_threads(&self) -> usize {
        let stat = self.target.rpc("bdev_get_iostat", json!({ "name": "Remap0", "per_channel": true }));
        let channels = stat["channels"].as_array().unwrap_or_else(|| panic!("{stat}"));
        channels.iter().filter(|channel| channel["num_write_ops"].as_u64() > Some(0)).count()
    }

    /// Blocks of the base's file, as they are there.
    #[track_caller]
    pub fn base_blocks(&self, lba: u64, blocks: u64) -> Vec<u8> {
        let mut data = vec![0; blocks as usize * BLOCK];
        File::open(&self.base)
            .and_then(|file| file.read_exact_at(&mut data, lba * BLOCK as u64))
            .expect("the base can be read");
        data
    }
}

/// Connects to subsystem `nqn` at `port`.
#[track_caller]
pub fn connect(port: u16, nqn: &str) -> Host {
    Host::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), nqn).unwrap_or_else(|error| panic!("{nqn}: {error}"))
}
