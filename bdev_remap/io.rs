//! The hot path: where each I/O goes.
//!
//! An I/O that touches no entry of the remap table goes to the base as it is: one atomic load while nothing is remapped, no
//! allocation, no lock, no shared write. Everything else is out of line.

use remap_core::{BaseLba, Extent, IoStatus, Place, Segment};
use spdk::{Child, Io, IoKind, OnChild, OnFan, Part, Status};

use crate::{channel::Channel, device::Remap, rescue, status::to_core};

/// NVMe unrecovered read error: what the read of a lost block gets.
const UNRECOVERED_READ: Status = Status::Nvme { cdw0: 0, sct: 2, sc: 0x81 };

/// Takes an I/O.
#[inline]
pub fn submit(device: &Remap, channel: &Channel, io: Io<Remap>) {
    match io.kind() {
        IoKind::Read if io.needs_buffer() => io.get_buffer(),
        IoKind::Read => pass(IoKind::Read, device, channel, io),
        IoKind::Write => pass(IoKind::Write, device, channel, io),
        kind @ (IoKind::WriteZeroes | IoKind::Unmap) => pass(kind, device, channel, io),
        IoKind::Flush => flush(device, channel, io),
        IoKind::Reset => rescue::reset(io),
        IoKind::Abort => io.forward_abort::<AbortBack>(|channel| &channel.base),
        IoKind::Unsupported => io.complete(Err(Status::Failed)),
    }
}

/// To the base, unless some block of the range is in the table. While that is empty nothing else is in the way.
#[inline(always)]
fn pass(kind: IoKind, device: &Remap, channel: &Channel, io: Io<Remap>) {
    if device.table.is_empty() {
        let lba = io.lba();
        io.forward::<Back>(kind, &channel.base, lba);
    } else {
        look_up(kind, device, channel, io);
    }
}

/// Out of line, so that the way through an empty table stays short.
#[inline(never)]
fn look_up(kind: IoKind, device: &Remap, channel: &Channel, io: Io<Remap>) {
    let range = Extent::new(BaseLba(io.lba()), io.blocks());
    if device.table.touches(range) {
        route(device, channel, io, range);
    } else {
        io.forward::<Back>(kind, &channel.base, range.lba.0);
    }
}

/// Some block of the range is in the table.
#[cold]
#[inline(never)]
fn route(device: &Remap, channel: &Channel, io: Io<Remap>, range: Extent) {
    let kind = io.kind();
    let (mut parts, mut lost, mut unsettled) = (Vec::new(), false, false);
    device.table.for_each_segment(range, |Segment { place, offset, blocks }| {
        let (to, lba) = match place {
            Place::Base(lba) => (&channel.base, lba.0),
            Place::Pending(lba) => {
                unsettled = true;
                (&channel.base, lba.0)
            }
            Place::Spare(index) => (&channel.spare, device.data_start + u64::from(index.get())),
            Place::Lost(index) => {
                (lost, unsettled) = (true, true);
                (&channel.spare, device.data_start + u64::from(index.get()))
            }
        };
        // Unmap is advice: a spare that takes none just keeps its data.
        let skip =
            kind == IoKind::Unmap && matches!(place, Place::Spare(_) | Place::Lost(_)) && !device.abilities.spare_unmap;
        if !skip {
            parts.push(Part { to, lba, offset, blocks });
        }
    });
    match (kind, parts.as_slice()) {
        (IoKind::Read, _) if lost => io.complete(Err(UNRECOVERED_READ)),
        // A write settles pending and lost blocks, durably.
        (IoKind::Write | IoKind::WriteZeroes, _) if unsettled => rescue::start(io),
        (_, []) => io.complete(Ok(())),
        (kind, [only]) if only.blocks == range.blocks => io.forward::<Back>(kind, only.to, only.lba),
        (_, parts) => io.fan_out::<FanBack>(parts),
    }
}

/// To every device that may hold written data in a cache.
#[inline(never)]
fn flush(device: &Remap, channel: &Channel, io: Io<Remap>) {
    let (lba, blocks) = (io.lba(), io.blocks());
    let base = Part { to: &channel.base, lba, offset: 0, blocks };
    let spare = Part { to: &channel.spare, lba: device.data_start, offset: 0, blocks: device.data_blocks };
    let to_spare = device.abilities.spare_flush && !device.table.is_empty();
    match (device.abilities.base_flush, to_spare) {
        (true, false) => io.forward::<Back>(IoKind::Flush, &channel.base, lba),
        (true, true) => io.fan_out::<FanBack>(&[base, spare]),
        (false, true) => io.fan_out::<FanBack>(&[spare]),
        (false, false) => io.complete(Ok(())),
    }
}

/// The whole I/O went to one place.
struct Back;

impl OnChild<Remap> for Back {
    #[inline]
    fn done(io: Io<Remap>, child: Child) {
        match child.succeeded() {
            true => io.complete_as(child),
            false => {
                let outcome = child.outcome();
                drop(child);
                settle(io, outcome);
            }
        }
    }
}

/// The I/O went to several places.
struct FanBack;

impl OnFan<Remap> for FanBack {
    fn done(io: Io<Remap>, outcome: Result<(), Status>) {
        settle(io, outcome);
    }
}

/// A media error starts a rescue; anything else goes up as it is.
#[cold]
fn settle(io: Io<Remap>, outcome: Result<(), Status>) {
    match outcome {
        Err(status) if may_rescue(&io, to_core(status)) => rescue::start(io),
        outcome => io.complete(outcome),
    }
}

fn may_rescue(io: &Io<Remap>, status: IoStatus) -> bool {
    matches!(io.kind(), IoKind::Read | IoKind::Write | IoKind::WriteZeroes)
        && status.is_media_error(io.bdev().remap_on())
}

/// An abort that found nothing on the base: the I/O may be on the spare.
struct AbortBack;

impl OnChild<Remap> for AbortBack {
    fn done(io: Io<Remap>, child: Child) {
        if child.succeeded() || io.bdev().table.is_empty() {
            return io.complete_as(child);
        }
        drop(child);
        io.forward_abort::<SpareAbortBack>(|channel| &channel.spare);
    }
}

struct SpareAbortBack;

impl OnChild<Remap> for SpareAbortBack {
    fn done(io: Io<Remap>, child: Child) {
        io.complete_as(child);
    }
}
