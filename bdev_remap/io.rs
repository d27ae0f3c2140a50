//! The hot path: each I/O goes where `remap-core` says, and comes back from there.
//!
//! Nothing is decided here. An I/O that goes to one place as a whole is forwarded with its own buffers: no allocation, no
//! lock, no shared write. Everything else is out of line.

use remap_core::{AfterError, At, BaseLba, Devices, Extent, Request, Route, after_error, route};
use smallvec::SmallVec;
use spdk::{Child, Io, IoKind, OnChild, OnFan, Part, Status};

use crate::{
    channel::Channel,
    device::Remap,
    rescue,
    status::{to_core, to_spdk},
};

/// Takes an I/O.
#[inline]
pub fn submit(device: &Remap, channel: &Channel, io: Io<Remap>) {
    match io.kind() {
        IoKind::Read if io.needs_buffer() => io.get_buffer(),
        IoKind::Read => start(IoKind::Read, Request::Read, device, channel, io),
        IoKind::Write => start(IoKind::Write, Request::Write, device, channel, io),
        kind => others(kind, device, channel, io),
    }
}

#[inline(never)]
fn others(kind: IoKind, device: &Remap, channel: &Channel, io: Io<Remap>) {
    match request(kind) {
        Some(request) => start(kind, request, device, channel, io),
        None => io.complete(Err(Status::Failed)),
    }
}

/// What the host asks for, in the words of `remap-core`.
fn request(kind: IoKind) -> Option<Request> {
    Some(match kind {
        IoKind::Read => Request::Read,
        IoKind::Write => Request::Write,
        IoKind::WriteZeroes => Request::WriteZeroes,
        IoKind::Unmap => Request::Unmap,
        IoKind::Flush => Request::Flush,
        IoKind::Reset => Request::Reset,
        IoKind::Abort => Request::Abort,
        IoKind::Unsupported => return None,
    })
}

/// Asks where the I/O goes, and sends it there.
#[inline(always)]
fn start(kind: IoKind, request: Request, device: &Remap, channel: &Channel, io: Io<Remap>) {
    let range = Extent::new(BaseLba(io.lba()), io.blocks());
    match route(request, range, &device.table, &device.abilities) {
        Route::Whole(At::Base(lba)) => io.forward::<Back>(kind, &channel.base, lba.0),
        Route::Whole(At::Spare(index)) => io.forward::<Back>(kind, &channel.spare, device.spare_lba(index)),
        Route::Split(parts) => split(device, channel, io, &parts),
        Route::AllOf(devices) if kind == IoKind::Reset => rescue::reset(io, devices),
        Route::AllOf(devices) => flush(device, channel, io, devices),
        Route::OneOf(devices) => abort(io, devices),
        Route::Done => io.complete(Ok(())),
        Route::Fail(status) => io.complete(Err(to_spdk(status))),
        Route::Rescue(op) => rescue::start(op, io),
    }
}

#[cold]
#[inline(never)]
fn split(device: &Remap, channel: &Channel, io: Io<Remap>, parts: &[remap_core::Part]) {
    let children = parts.iter().map(|part| {
        let (to, lba) = match part.at {
            At::Base(lba) => (&channel.base, lba.0),
            At::Spare(index) => (&channel.spare, device.spare_lba(index)),
        };
        Part { to, lba, offset: part.offset, blocks: part.blocks }
    });
    io.fan_out::<FanBack>(&children.collect::<SmallVec<[Part; 8]>>());
}

#[inline(never)]
fn flush(device: &Remap, channel: &Channel, io: Io<Remap>, devices: Devices) {
    let base = Part { to: &channel.base, lba: io.lba(), offset: 0, blocks: io.blocks() };
    let spare = Part { to: &channel.spare, lba: device.data_start, offset: 0, blocks: device.data_blocks };
    match devices {
        Devices { base: true, spare: true } => io.fan_out::<FanBack>(&[base, spare]),
        Devices { base: false, spare: true } => io.fan_out::<FanBack>(&[spare]),
        Devices { spare: false, .. } => io.forward::<Back>(IoKind::Flush, &channel.base, base.lba),
    }
}

#[cold]
fn abort(io: Io<Remap>, devices: Devices) {
    match devices {
        Devices { base: true, spare: true } => io.forward_abort::<TrySpare>(|channel| &channel.base),
        Devices { base: false, spare: true } => io.forward_abort::<Back>(|channel| &channel.spare),
        Devices { spare: false, .. } => io.forward_abort::<Back>(|channel| &channel.base),
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

/// An abort that may go on to the spare.
struct TrySpare;

impl OnChild<Remap> for TrySpare {
    fn done(io: Io<Remap>, child: Child) {
        if child.succeeded() {
            return io.complete_as(child);
        }
        drop(child);
        io.forward_abort::<Back>(|channel| &channel.spare);
    }
}

/// Asks what follows an error.
#[cold]
fn settle(io: Io<Remap>, outcome: Result<(), Status>) {
    let (Err(status), Some(request)) = (outcome, request(io.kind())) else { return io.complete(outcome) };
    match after_error(request, to_core(status), io.bdev().remap_on()) {
        AfterError::Complete(status) => io.complete(Err(to_spdk(status))),
        AfterError::Rescue(op) => rescue::start(op, io),
    }
}
