//! The JSON configuration of an SPDK application: a list of RPC calls per subsystem.

use std::{iter, path::Path};

use serde_json::{Value, json};

/// Calls of the `bdev` and the `nvmf` subsystem, in order.
#[derive(Clone, Debug, Default)]
pub struct Config {
    bdev: Vec<Value>,
    nvmf: Vec<Value>,
}

impl Config {
    /// A configuration without any call.
    pub fn new() -> Config {
        Config::default()
    }

    /// Adds a call of the `bdev` subsystem; `Value::Null` for one that takes no parameters.
    #[must_use]
    pub fn bdev(mut self, method: &str, params: Value) -> Config {
        self.bdev.push(match params {
            Value::Null => json!({ "method": method }),
            params => json!({ "method": method, "params": params }),
        });
        self
    }

    /// Adds an AIO bdev on `file`.
    #[must_use]
    pub fn aio(self, name: &str, file: &Path, block_size: u32, uuid: &str) -> Config {
        self.bdev("bdev_aio_create", json!({ "name": name, "filename": file, "block_size": block_size, "uuid": uuid }))
    }

    /// Adds a malloc bdev of `mib` MiB.
    #[must_use]
    pub fn malloc(self, name: &str, mib: u64, block_size: u32) -> Config {
        let blocks = (mib << 20) / u64::from(block_size);
        self.bdev("bdev_malloc_create", json!({ "name": name, "num_blocks": blocks, "block_size": block_size }))
    }

    /// Adds a call of the `nvmf` subsystem.
    #[must_use]
    pub fn nvmf(mut self, method: &str, params: Value) -> Config {
        self.nvmf.push(json!({ "method": method, "params": params }));
        self
    }

    /// Exports `bdev` as namespace 1 of subsystem `nqn` over NVMe/TCP at 127.0.0.1:`port`; the first export makes the transport.
    #[must_use]
    pub fn export(mut self, bdev: &str, nqn: &str, port: u16) -> Config {
        if self.nvmf.is_empty() {
            self = self.nvmf(
                "nvmf_create_transport",
                // Tests connect all the time: nobody waits 10 ms to be let in.
                json!({ "trtype": "TCP", "in_capsule_data_size": crate::nvme_tcp::IN_CAPSULE, "acceptor_poll_rate": 500 }),
            );
        }
        let listen = json!({ "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port.to_string() });
        self.nvmf("nvmf_create_subsystem", json!({ "nqn": nqn, "allow_any_host": true, "serial_number": "REMAP0" }))
            .nvmf("nvmf_subsystem_add_ns", json!({ "nqn": nqn, "namespace": { "bdev_name": bdev, "nsid": 1 } }))
            .nvmf("nvmf_subsystem_add_listener", json!({ "nqn": nqn, "listen_address": listen }))
    }

    /// The document for `--json`. A subsystem without calls is left out, as not every application has it. I/O structures are as many as
    /// a test may need: making the usual number takes long.
    pub fn to_json(&self) -> Value {
        let pool = json!({ "method": "bdev_set_options", "params": { "bdev_io_pool_size": 16_383 } });
        let calls: Vec<_> = iter::once(&pool).chain(&self.bdev).collect();
        let mut subsystems = vec![json!({ "subsystem": "bdev", "config": calls })];
        if !self.nvmf.is_empty() {
            subsystems.push(json!({ "subsystem": "nvmf", "config": self.nvmf }));
        }
        json!({ "subsystems": subsystems })
    }
}

/// `document` for `spdk_tgt`, which has iSCSI: if nothing is said of that, its pools are small, as making the usual ones takes long.
pub(crate) fn with_small_iscsi(mut document: Value) -> Value {
    if let Some(subsystems) = document["subsystems"].as_array_mut()
        && subsystems.iter().all(|one| one["subsystem"] != "iscsi")
    {
        let pools = json!({ "pdu_pool_size": 512, "immediate_data_pool_size": 128, "data_out_pool_size": 128 });
        let call = json!({ "method": "iscsi_set_options", "params": pools });
        subsystems.push(json!({ "subsystem": "iscsi", "config": [call] }));
    }
    document
}
