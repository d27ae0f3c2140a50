//! What the methods of bdev_remap, and those of SPDK that go with them, answer: docs/rpc.md. What a newer target says besides is
//! passed over.

use remap_core::{Epoch, Sequence};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// A set, as `bdev_remap_status` tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub enum Set {
    /// There is a Remap bdev.
    Online(Box<Online>),
    /// It waits, or is just being opened or closed.
    Offline(Offline),
}

impl TryFrom<Value> for Set {
    type Error = serde_json::Error;

    fn try_from(value: Value) -> Result<Set, serde_json::Error> {
        match value["state"].as_str() {
            Some("waiting" | "opening" | "closing") => serde_json::from_value(value).map(Set::Offline),
            _ => serde_json::from_value(value).map(Set::Online),
        }
    }
}

impl Set {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Set::Online(set) => &set.name,
            Set::Offline(set) => &set.name,
        }
    }

    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        match self {
            Set::Online(set) => set.uuid,
            Set::Offline(set) => set.uuid,
        }
    }

    /// Its state in a word.
    #[must_use]
    pub fn state(&self) -> &str {
        match self {
            Set::Online(set) => &set.state,
            Set::Offline(set) => &set.state,
        }
    }

    /// Its base and its spare, as far as they are there.
    #[must_use]
    pub fn bdevs(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Set::Online(set) => (Some(&set.base_bdev), set.spare_bdev.as_deref()),
            Set::Offline(set) => (set.base_bdev.as_deref(), set.spare_bdev.as_deref()),
        }
    }

    /// Why it is not online, if it waits.
    #[must_use]
    pub fn waits_for(&self) -> Option<&str> {
        match self {
            Set::Online(_) => None,
            Set::Offline(set) => set.waits_for.as_deref(),
        }
    }

    /// What there is to know of it if it is online.
    #[must_use]
    pub fn online(&self) -> Option<&Online> {
        match self {
            Set::Online(set) => Some(set),
            Set::Offline(_) => None,
        }
    }

    /// As [`Set::online`], of a set that is not needed any more.
    #[must_use]
    pub fn into_online(self) -> Option<Online> {
        match self {
            Set::Online(set) => Some(*set),
            Set::Offline(_) => None,
        }
    }
}

/// A set that is online.
#[derive(Clone, Debug, Deserialize)]
pub struct Online {
    /// Name of the set and its bdev.
    pub name: String,
    /// UUID of the set and its bdev.
    pub uuid: Uuid,
    /// `online`, `migrating`, `degraded` or `tripped`.
    pub state: String,
    /// The base.
    pub base_bdev: String,
    /// The spare, if it is there.
    pub spare_bdev: Option<String>,
    /// The new spare while the set moves to it.
    pub other_spare_bdev: Option<String>,
    /// The limit of the storm brake.
    pub storm_limit: u64,
    /// The data area of the spare.
    pub spare: SpareUsage,
    /// Blocks that live on the spare.
    pub remapped: u64,
    /// Blocks that are known unreadable.
    pub pending: u64,
    /// Blocks whose data is lost.
    pub lost: u64,
    /// Number of the checkpoint in force.
    pub epoch: Epoch,
    /// Number of the last page of the log.
    pub sequence: Sequence,
    /// The copies of the metadata.
    pub metadata: Metadata,
    /// When a checkpoint last became durable, in seconds since 1970.
    pub last_save_at: Option<u64>,
    /// Since the set was opened.
    #[serde(default)]
    pub counters: Counters,
    /// Those that run, and the last of each kind.
    #[serde(default)]
    pub jobs: Vec<Job>,
}

/// Blocks of the data area of the spare.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SpareUsage {
    /// All.
    pub total: u64,
    /// Taken.
    pub used: u64,
    /// Free.
    pub free: u64,
    /// Bad.
    pub bad: u64,
}

/// The copies of the metadata: `ok` or `bad`.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    superblock_a: String,
    superblock_b: String,
    log_a: String,
    log_b: String,
}

impl Metadata {
    /// Each copy by its name, and whether it is whole.
    #[must_use]
    pub fn copies(&self) -> [(&'static str, bool); 4] {
        let whole = |health: &String| health == "ok";
        [
            ("superblock_a", whole(&self.superblock_a)),
            ("superblock_b", whole(&self.superblock_b)),
            ("log_a", whole(&self.log_a)),
            ("log_b", whole(&self.log_b)),
        ]
    }

    /// The names of those that are not whole, if there are any.
    #[must_use]
    pub fn bad(&self) -> Option<String> {
        let bad: Vec<_> = self.copies().into_iter().filter(|(_, whole)| !whole).map(|(name, _)| name).collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    }
}

/// What happened since the set was opened; each is explained in docs/rpc.md.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Counters {
    pub rescued_writes: u64,
    pub rescued_blocks: u64,
    pub retried_reads: u64,
    pub failed_reads: u64,
    pub failed_writes: u64,
    pub media_errors_read: u64,
    pub media_errors_write: u64,
    pub media_errors_write_zeroes: u64,
    pub media_errors_spare: u64,
    pub refused_no_spare: u64,
    pub refused_log_failed: u64,
    pub refused_tripped: u64,
    pub refused_closed: u64,
    pub pending_skipped: u64,
    pub log_pages: u64,
    pub log_copy_errors: u64,
    pub checkpoints: u64,
}

/// A job of a set.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// `migrate`, `scrub`, `import`, `add` or `remove`.
    pub kind: String,
    /// `running`, `cancelling`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it has failed.
    pub error: Option<String>,
    /// Blocks that are done.
    pub blocks_done: u64,
    /// Blocks that there are to be done, 0 if that is not known.
    pub blocks_total: u64,
    /// Since its start.
    pub blocks_per_second: u64,
    /// When it ended, in seconds since 1970.
    pub ended_at: Option<u64>,
    /// How long it will still run at this rate.
    pub remaining_seconds: Option<u64>,
    /// What a scrub has found.
    pub scrub: Option<Scrub>,
}

impl Job {
    /// Whether it has not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "cancelling")
    }
}

/// What a scrub has found.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scrub {
    /// Blocks of the base that cannot be read, and were not known to be so.
    pub unreadable: u64,
    /// Pending blocks that could be read again, and live on the spare now.
    pub rescued: u64,
    /// Remapped blocks that cannot be read on the spare.
    pub spare_unreadable: u64,
    /// Pages of the metadata that were not what they should be.
    pub metadata_bad: u64,
}

/// A set that is not online.
#[derive(Clone, Debug, Deserialize)]
pub struct Offline {
    /// Name of the set.
    pub name: String,
    /// UUID of the set.
    pub uuid: Uuid,
    /// `waiting`, `opening` or `closing`.
    pub state: String,
    /// The base that is kept for it.
    pub base_bdev: Option<String>,
    /// Its spare.
    pub spare_bdev: Option<String>,
    /// A sentence.
    pub waits_for: Option<String>,
}

/// A bdev, as `bdev_get_bdevs` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Bdev {
    /// Its UUID.
    pub uuid: Uuid,
    /// Bytes a block.
    pub block_size: u32,
    /// Its size in blocks.
    pub num_blocks: u64,
}

/// What passed through a bdev since it was made, as `bdev_get_iostat` tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct IoStat {
    /// Name of the bdev.
    pub name: String,
    /// Bytes read.
    pub bytes_read: u64,
    /// Reads.
    pub num_read_ops: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Writes.
    pub num_write_ops: u64,
}

/// Something that happened, as `notify_get_notifications` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Notification {
    /// What, for example `bdev_remap_remapped`.
    #[serde(rename = "type")]
    pub what: String,
    /// The name of the set, and facts.
    #[serde(rename = "ctx")]
    pub facts: String,
    /// Its number.
    pub id: u64,
}
