//! Everything about remapping bad blocks that needs no SPDK.
//!
//! A *base* device has bad blocks; a *spare* device takes them over. This crate holds the remap table that every I/O
//! looks at ([`table`]), the format of the spare ([`format`](mod@format)), the log that makes mappings durable, its recovery, and the
//! [`Engine`] that owns all of it on one thread ([`engine`]), with the jobs that go on beside the I/O ([`jobs`]) and what is told of it ([`events`]); and, on any thread, where each I/O goes
//! ([`route`](mod@route)), and what is done after a media error ([`rescue`](mod@rescue)). The world comes in through [`Device`], [`Env`], [`HostIo`] and [`Owner`]; nothing here uses a clock, a
//! thread or randomness of its own.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, missing_docs)]

mod allocator;
mod counters;
mod device;
pub mod engine;
mod errno;
mod error;
pub mod events;
mod extent_list;
pub mod format;
mod gate;
pub mod jobs;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
mod owner;
mod pace;
mod ranges;
mod recovery;
mod remap_log;
pub mod rescue;
pub mod route;
mod slot;
mod spare;
mod status;
mod sync;
pub mod table;
mod tasks;
mod units;

pub use counters::{Counters, CountersSnapshot};
pub use device::{Device, Env, Geometry};
pub use engine::{
    AddReport, CopyHealth, Engine, FormatPolicy, ListedExtent, ListedState, MetadataHealth, MigrateParams, NewSpare,
    OpenParams, RemoveReport, RestoreReport, SaveReport, SetState, SpareUsage, Status,
};
pub use error::Error;
pub use events::{Event, Events, What};
pub use extent_list::{ExtentList, ListError};
pub use gate::{Gate, Passed, Side};
pub use jobs::{Begun, Job, JobKind, JobOutcome, JobScope, JobState, JobStatus, ScrubCounts, Stopped};
pub use owner::{Committed, Move, Owner, Refused, Target, Uncopied};
pub use ranges::Ranges;
pub use recovery::{Candidate, GivenUp, InForce, Mappings, StatedEnd};
pub use rescue::{HostIo, HostOp, Run, rescue};
pub use route::{
    Abilities, AfterError, At, Devices, Part, Parts, Request, Route, Split, Takes, after_error, glance, is_plain,
    is_plain_near, route, route_further,
};
pub use slot::{PerSlot, Slot, SpareBlock};
pub use status::{IoStatus, RemapOn};
pub use table::{Change, Counts, Glance, Mapping, Place, Retired, Segment, Table, TableWriter};
pub use units::{BaseLba, Epoch, Extent, MAX_BASE_BLOCKS, MAX_SPARE_BLOCKS, Sequence, SpareLba};
