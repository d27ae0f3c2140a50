//! The usual stack of a test: AIO base, faults on it, AIO spare, Remap0 on top, exported over NVMe/TCP.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::{config::Config, nvme_tcp::Host, target::Target};

/// Bytes of a block in the usual stack.
pub const BLOCK: usize = 4096;
/// Subsystem that exports Remap0.
pub const NQN: &str = "nqn.2026-01.io.bdev-remap:remap0";
/// UUID of Base0.
pub const BASE_UUID: &str = "11111111-1111-4111-8111-111111111111";
/// UUID of Spare0.
pub const SPARE_UUID: &str = "22222222-2222-4222-8222-222222222222";

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

/// The parameters of `bdev_fault_inject` on Fault0.
pub fn fault(lba: u64, blocks: u64, op: &str, error: &str) -> Value {
    json!({ "name": "Fault0", "lba": lba, "num_blocks": blocks, "op": op, "error": error })
}

/// As [`fault`], on every `stride`-th block only.
pub fn fault_every(stride: u64, lba: u64, blocks: u64, op: &str, error: &str) -> Value {
    let mut params = fault(lba, blocks, op, error);
    params["stride"] = stride.into();
    params
}

/// The stack, running.
pub struct Scene {
    /// The target.
    pub target: Target,
    /// File of Base0.
    pub base: PathBuf,
    /// File of Spare0.
    pub spare: PathBuf,
    /// Where NVMe/TCP listens.
    pub port: u16,
    options: Value,
}

impl Scene {
    /// A base of 64 MiB and a spare of 16 MiB with `faults` from the start, and Remap0 over them.
    #[track_caller]
    pub fn start(faults: &[Value]) -> Scene {
        Scene::with(faults, json!({}))
    }

    /// As [`Scene::start`], with further parameters of `bdev_remap_create`.
    #[track_caller]
    pub fn with(faults: &[Value], options: Value) -> Scene {
        let target = Target::prepare();
        let (base, spare) = (target.file("base", 64), target.file("spare", 16));
        let mut scene = Scene { target, base, spare, port: free_port(), options };
        scene.start_again(faults);
        scene
    }

    /// Starts the target again, with these faults.
    #[track_caller]
    pub fn start_again(&mut self, faults: &[Value]) {
        let config = self.config(faults);
        self.target.start(&config);
    }

    /// The configuration: faults first, so that no I/O gets past them.
    pub fn config(&self, faults: &[Value]) -> Config {
        let mut config = Config::new().aio("Base0", &self.base, BLOCK as u32, BASE_UUID);
        config = config.bdev("bdev_fault_create", json!({ "name": "Fault0", "base_bdev": "Base0" }));
        for fault in faults {
            config = config.bdev("bdev_fault_inject", fault.clone());
        }
        config = config.aio("Spare0", &self.spare, BLOCK as u32, SPARE_UUID);
        let mut create = json!({ "name": "Remap0", "base_bdev": "Fault0", "spare_bdev": "Spare0" });
        if let (Some(create), Some(options)) = (create.as_object_mut(), self.options.as_object()) {
            create.extend(options.clone());
        }
        config.bdev("bdev_remap_create", create).export("Remap0", NQN, self.port)
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
