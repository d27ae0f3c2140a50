//! What the engine tells about itself. Plain data that serialises to what the RPC methods answer.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::counters::CountersSnapshot;
use crate::format::Layout;
use crate::jobs::JobStatus;
use crate::recovery::StatedEnd;
use crate::table::Mapping;
use crate::units::{BaseLba, Epoch, Sequence, SpareLba};

/// What to do with a spare that has no superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatPolicy {
    /// Format an empty spare, refuse one that holds something else.
    #[default]
    Auto,
    /// Only load.
    Never,
    /// Format also what holds something else. A valid set is still loaded, never overwritten: wipe it first.
    Force,
}

/// How a set is opened. Nothing in it is kept by the caller; the random UUIDs come from there so that tests decide them.
#[derive(Clone, Debug)]
pub struct OpenParams {
    /// Name of the Remap bdev, 1 to 191 bytes.
    pub name: String,
    /// The set UUID if the user gave one: it must be the spare's, or becomes it when the spare is formatted.
    pub set_uuid: Option<Uuid>,
    /// The set UUID to use if a spare is formatted and the user gave none.
    pub fresh_set_uuid: Uuid,
    /// The id of the spare to use if it is formatted.
    pub fresh_spare_id: Uuid,
    /// UUID of the base.
    pub base_uuid: Uuid,
    /// Size of the base in blocks.
    pub base_blocks: u64,
    /// Metadata bytes a block.
    pub md_size: u32,
    /// What to do with a spare that has no superblock.
    pub format: FormatPolicy,
    /// Blocks that may be relocated within 60 s before the storm brake trips.
    pub storm_limit: u64,
    /// The host that opens it, or nil: then any set will do.
    pub host_id: Uuid,
    /// Whether a set that belongs to another host is taken over.
    pub take_over: bool,
    /// The spare in the other slot, which was given up for this one ([`super::give_up_for`]) when a crash stopped the migration: this
    /// one comes into force.
    pub given_up: Option<Uuid>,
    /// The end of the log that an operator accepts, although something is lost with it.
    pub stated_end: Option<StatedEnd>,
}

/// The state of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SetState {
    /// All is well.
    Online,
    /// It works, but some copy of the metadata is bad, or the log cannot be written.
    Degraded,
    /// The storm brake is on: nothing is relocated.
    Tripped,
    /// All is well, and moves to another spare.
    Migrating,
}

/// The health of one copy of some metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyHealth {
    /// It holds what it should.
    Ok,
    /// It does not; it is written anew by itself, with growing pauses while that fails.
    Bad,
}

/// The health of all copies of the metadata on the spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MetadataHealth {
    /// Superblock A, at the start of the spare.
    pub superblock_a: CopyHealth,
    /// Superblock B, at its end.
    pub superblock_b: CopyHealth,
    /// Log copy A.
    pub log_a: CopyHealth,
    /// Log copy B.
    pub log_b: CopyHealth,
    /// When some copy last became bad, in seconds since 1970 UTC, if one has since the set was opened.
    pub degraded_at: Option<u64>,
    /// When all copies were last made whole again, in seconds since 1970 UTC.
    pub healed_at: Option<u64>,
}

/// The use of the data area of the spare, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SpareUsage {
    /// All.
    pub total: u64,
    /// Taken by remapped and lost blocks, or by relocations under way.
    pub used: u64,
    /// Free.
    pub free: u64,
    /// Bad.
    pub bad: u64,
}

/// All that there is to know about a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The state in one word.
    pub state: SetState,
    /// The set UUID.
    pub uuid: Uuid,
    /// The data area of the spare.
    pub spare: SpareUsage,
    /// Blocks that live on the spare.
    pub remapped: u64,
    /// Blocks known unreadable on the base and not rewritten.
    pub pending: u64,
    /// Blocks whose data is lost.
    pub lost: u64,
    /// Epoch of the log.
    pub epoch: Epoch,
    /// Sequence number of the last log page.
    pub sequence: Sequence,
    /// The copies of the metadata.
    pub metadata: MetadataHealth,
    /// Epoch of the last checkpoint that became durable.
    pub last_save_epoch: Epoch,
    /// When that was, in seconds since 1970 UTC, if it was since the set was opened.
    pub last_save_at: Option<u64>,
    /// The limit of the storm brake.
    pub storm_limit: u64,
    /// What happened since the set was opened.
    pub counters: CountersSnapshot,
    /// The jobs that run, and the last one of each kind that has ended since the set was opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobStatus>,
}

/// A checkpoint that became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SaveReport {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its size in bytes, of one copy.
    pub bytes: u64,
    /// Whether every copy of log and superblock took it.
    pub all_copies: bool,
}

/// How a block's mapping differed between memory and spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// On the spare, not in memory.
    Added,
    /// In memory, not on the spare.
    Removed,
    /// In both, not the same.
    Changed,
}

/// A run of blocks whose mapping differed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DifferingExtent {
    /// Its first block.
    pub lba: BaseLba,
    /// Its length in blocks.
    pub num_blocks: u64,
    /// How it differed.
    pub difference: Difference,
}

/// What a reload from the spare found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Whether it only looked.
    pub dry_run: bool,
    /// Epoch found.
    pub epoch: Epoch,
    /// Sequence number of the last log page found.
    pub sequence: Sequence,
    /// Blocks with a mapping on the spare, and none in memory.
    pub added: u64,
    /// Blocks with a mapping in memory, and none on the spare.
    pub removed: u64,
    /// Blocks whose mapping differed.
    pub changed: u64,
    /// The first extents that differed.
    pub first: Vec<DifferingExtent>,
}

/// The state of listed blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListedState {
    /// They live on the spare.
    Remapped,
    /// Known unreadable on the base, not rewritten.
    Pending,
    /// Their data is lost; they have a place on the spare.
    Lost,
}

/// A run of blocks that are remapped, pending or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedExtent {
    /// First block on the base.
    pub lba: BaseLba,
    /// Length in blocks.
    pub num_blocks: u64,
    /// First block on the spare device, where there is one.
    pub spare_lba: Option<SpareLba>,
    /// What they are.
    pub state: ListedState,
}

impl ListedExtent {
    /// The block `lba`, for which the table holds `mapping`, of a set whose spare has this layout.
    #[must_use]
    pub fn of(lba: BaseLba, mapping: Mapping, layout: &Layout) -> ListedExtent {
        let state = match mapping {
            Mapping::Spare(_) => ListedState::Remapped,
            Mapping::Pending => ListedState::Pending,
            Mapping::Lost(_) => ListedState::Lost,
        };
        ListedExtent { lba, num_blocks: 1, spare_lba: mapping.spare().map(|block| layout.data(block)), state }
    }

    /// Puts `next` on the end of this one, if it is its direct continuation.
    pub fn extend(&mut self, next: &ListedExtent) -> bool {
        let goes_on = self.lba.plus(self.num_blocks) == next.lba
            && self.state == next.state
            && self.spare_lba.map(|spare| spare.plus(self.num_blocks)) == next.spare_lba;
        if goes_on {
            self.num_blocks += next.num_blocks;
        }
        goes_on
    }
}
