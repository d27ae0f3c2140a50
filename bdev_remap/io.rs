//! The hot path: each I/O goes where `remap-core` says, and comes back from there.
//!
//! Nothing is decided here but when the table is looked at: where looks wait for far memory, I/O is put aside for a moment, so that several wait at
//! one time. All other I/O that goes to one place as a whole is forwarded with its own buffers: no allocation, no lock, no shared write. Everything
//! else is out of line.

use std::{num::NonZeroU8, rc::Rc};

use remap_core::{
    AfterError, At, BaseLba, Devices, Extent, Glance, Request, Route, Side, after_error, glance, is_plain,
    is_plain_near, route, route_further,
};
use smallvec::SmallVec;
use spdk::{
    Child, Endpoint, Flush, Incoming, Io, OnChild, OnFan, OnFree, OnTurn, Part, Ranged, Read, Sent, Status, Unmap,
    Window, Write, WriteZeroes, thread,
};

use crate::{
    channel::{Channel, Spare},
    control,
    device::Remap,
    rescue,
    status::{to_core, to_spdk},
};

/// From so many I/Os under way on, what counts is how many there are a second, and not what one waits in the meantime.
const MANY: u64 = 8;

/// Takes an I/O.
#[inline(always)]
pub fn submit(device: &Remap, channel: &Channel, io: Incoming<Remap>) {
    match io {
        Incoming::Read(io) if io.needs_buffer() => io.get_buffer(),
        Incoming::Read(io) => start(device, channel, io),
        Incoming::Write(io) => start(device, channel, io),
        Incoming::WriteZeroes(io) => others(device, channel, io),
        Incoming::Unmap(io) => others(device, channel, io),
        Incoming::Flush(io) => others(device, channel, io),
        Incoming::Reset(io) => control::reset(device, channel, io),
        Incoming::Abort(io) => control::abort(device, channel, io),
        Incoming::Other(io) => io.complete(Err(Status::Failed)),
    }
}

#[inline(never)]
fn others<K: Asks>(device: &Remap, channel: &Channel, io: Io<Remap, K>) {
    start(device, channel, io);
}

/// A kind of I/O that goes to blocks, and what it is to `remap-core`.
pub trait Asks: Ranged + Sized {
    /// What it asks for.
    const REQUEST: Request;

    /// Rescues it.
    fn rescue(io: Io<Remap, Self>) {
        // The route of what cannot be rescued never says so.
        io.complete(Err(Status::Failed));
    }

    /// Sends it to devices as a whole.
    fn to_all(_channel: &Channel, io: Io<Remap, Self>, _devices: Devices) {
        // The route of what has blocks of its own never says so.
        io.complete(Err(Status::Failed));
    }
}

impl Asks for Read {
    const REQUEST: Request = Request::Read;

    fn rescue(io: Io<Remap, Read>) {
        rescue::start(io);
    }
}

impl Asks for Write {
    const REQUEST: Request = Request::Write;

    fn rescue(io: Io<Remap, Write>) {
        rescue::start(io);
    }
}

impl Asks for WriteZeroes {
    const REQUEST: Request = Request::WriteZeroes;

    fn rescue(io: Io<Remap, WriteZeroes>) {
        rescue::start(io);
    }
}

impl Asks for Unmap {
    const REQUEST: Request = Request::Unmap;
}

impl Asks for Flush {
    const REQUEST: Request = Request::Flush;

    fn to_all(channel: &Channel, io: Io<Remap, Flush>, devices: Devices) {
        let base = devices.base.then_some((&channel.base, io.lba(), io.blocks()));
        let spares = channel.spares_in(devices.spares);
        // To its end, as the data area may grow.
        let spares = spares.iter().map(|Spare { endpoint, data_start }| {
            (endpoint, *data_start, endpoint.descriptor().blocks().saturating_sub(*data_start))
        });
        let targets: SmallVec<[_; 3]> = base.into_iter().chain(spares).collect();
        io.broadcast::<Back>(&targets);
    }
}

/// Lets the I/O in, asks where it goes, and sends it there.
#[inline(always)]
fn start<K: Asks>(device: &Remap, channel: &Channel, io: Io<Remap, K>) {
    let range = Extent::new(BaseLba(io.lba()), io.blocks());
    let entered = match K::REQUEST.changes() {
        true => channel.gate.enter_to_change(range),
        false => Some(channel.gate.enter()),
    };
    let Some(side) = entered else { return wait_outside(io, range) };
    io.stamp(stamp(side));
    match is_plain(K::REQUEST, range, &device.table) {
        true => io.forward::<Back>(&channel.base, range.lba.0),
        false => look_further(device, channel, io, range),
    }
}

/// Asks where an I/O goes that is inside and not known to be plain. Among many it is put aside for a moment, while what the look needs comes near.
#[inline(never)]
fn look_further<K: Asks>(device: &Remap, channel: &Channel, io: Io<Remap, K>, range: Extent) {
    let many = || channel.aside.is_in_use() || channel.gate.inside() >= MANY;
    let at_leisure = device.table.is_far() && many();
    let put = match if at_leisure { glance(K::REQUEST, range, &device.table) } else { Glance::Unknown } {
        Glance::Plain => return io.forward::<Back>(&channel.base, range.lba.0),
        Glance::Fetched => channel.aside.put::<Remap, K, Look>(io),
        Glance::Unknown => Err(io),
    };
    if let Err(io) = put {
        send(device, channel, io, range);
    }
}

/// An I/O that was put aside for a look.
struct Look;

impl<K: Asks> OnTurn<Remap, K> for Look {
    fn pass(io: Io<Remap, K>) -> Option<Io<Remap, K>> {
        let range = Extent::new(BaseLba(io.lba()), io.blocks());
        if !is_plain_near(K::REQUEST, range, &io.bdev().table) {
            return Some(io);
        }
        let mut back = None;
        io.take_up(|_, channel, io| back = io.try_forward::<Back>(&channel.base, range.lba.0).err());
        back
    }

    fn turn(io: Io<Remap, K>) {
        let range = Extent::new(BaseLba(io.lba()), io.blocks());
        io.take_up(|device, channel, io| send(device, channel, io, range));
    }
}

/// Asks where an I/O goes that is inside, and sends it there.
#[inline(always)]
fn send<K: Asks>(device: &Remap, channel: &Channel, io: Io<Remap, K>, range: Extent) {
    match route_further(K::REQUEST, range, &device.table, &channel.abilities()) {
        Route::Whole(At::Base(lba)) => io.forward::<Back>(&channel.base, lba.0),
        Route::Whole(at) => match channel.devices().place(at) {
            Some((to, lba)) => io.forward::<Back>(to, lba),
            None => io.complete(Err(Status::Failed)),
        },
        ref other => carry_out(channel, io, 0, other),
    }
}

/// What an I/O remembers of how it came in.
#[inline(always)]
fn stamp(side: Side) -> NonZeroU8 {
    match side {
        Side::Even => NonZeroU8::MIN,
        Side::Odd => NonZeroU8::MAX,
    }
}

/// An I/O that came in ends.
#[inline(always)]
pub fn ended(channel: &Channel, stamp: NonZeroU8) {
    channel.gate.leave(if stamp == NonZeroU8::MIN { Side::Even } else { Side::Odd });
}

/// Holds an I/O until the gate is open for what it changes.
#[cold]
fn wait_outside<K: Asks>(io: Io<Remap, K>, range: Extent) {
    io.take_up(|_, channel, io| {
        let (gate, holder) = (Rc::clone(&channel.gate), channel.holder.clone());
        let hold = holder.hold(io.id());
        thread::spawn(async move {
            gate.wait_outside(range, || hold.is_given_up()).await;
            match holder.let_go(io.id()) {
                true => io.complete(Err(Status::Aborted)),
                false => io.take_up(start),
            }
        });
    });
}

/// The blocks before `from` are done: asks where the others go by now, and sends them there.
#[cold]
fn go_on<K: Asks>(device: &Remap, channel: &Channel, io: Io<Remap, K>, from: u64) {
    let rest = Extent::new(BaseLba(io.lba() + from), io.blocks() - from);
    let route = route(K::REQUEST, rest, &device.table, &channel.abilities());
    carry_out(channel, io, from, &route);
}

/// Does what was decided for the blocks from `from` on.
#[cold]
#[inline(never)]
fn carry_out<K: Asks>(channel: &Channel, io: Io<Remap, K>, from: u64, route: &Route) {
    let fan_out = |io: Io<Remap, K>, parts: &[remap_core::Part], next| {
        let devices = channel.devices();
        let children = parts.iter().map(|part| {
            let (to, lba) = devices.place(part.at)?;
            Some(Part { to, lba, offset: from + part.offset, blocks: part.blocks })
        });
        io.fan_out::<Back>(children, next);
    };
    match route {
        Route::Whole(at) => {
            let (part, next) = (remap_core::Part { at: *at, offset: 0, blocks: io.blocks() - from }, io.blocks());
            fan_out(io, &[part], next);
        }
        Route::Split(split) => fan_out(io, &split.parts, from + split.blocks),
        Route::Done => io.complete(Ok(())),
        Route::Fail(status) => io.complete(Err(to_spdk(*status))),
        Route::Rescue(_) => K::rescue(io),
        Route::AllOf(devices) => K::to_all(channel, io, *devices),
        // That is for aborts.
        Route::AnyOf(_) => io.complete(Err(Status::Failed)),
    }
}

/// What was sent comes back.
struct Back;

impl<K: Asks> OnChild<Remap, K> for Back {
    #[inline]
    fn done(io: Io<Remap, K>, child: Child) {
        match child.succeeded() {
            true => io.complete_as(child),
            false => {
                let outcome = child.outcome();
                drop(child);
                settle(io, outcome);
            }
        }
    }

    fn starved(io: Io<Remap, K>, _to: &Endpoint) {
        wait(io, 0);
    }
}

impl<K: Asks> OnFan<Remap, K> for Back {
    fn done(io: Io<Remap, K>, window: Window) {
        let Window { outcome, sent, next } = window;
        match (outcome, sent) {
            (Err(_), _) => settle(io, outcome),
            (Ok(()), Sent::Nothing) => wait(io, next),
            (Ok(()), Sent::All) if next >= io.blocks() => io.complete(Ok(())),
            (Ok(()), Sent::All | Sent::Some) => {
                io.take_up(|device, channel, io| go_on(device, channel, io, next));
            }
        }
    }
}

/// Holds an I/O for which there is no structure, until there is. The blocks before `from` are done.
#[cold]
fn wait<K: Asks>(io: Io<Remap, K>, from: u64) {
    io.take_up(|_, channel, io| {
        channel.holder.hold(io.id());
        // Structures are the thread's, whichever bdev they are for.
        if let Err(io) = io.wait::<Again>(&channel.base, from) {
            channel.holder.let_go(io.id());
            // The bdev layer submits it again, in a while.
            io.complete(Err(Status::NoMemory));
        }
    });
}

/// There is a structure again.
struct Again;

impl<K: Asks> OnFree<Remap, K> for Again {
    fn again(io: Io<Remap, K>, from: u64) {
        io.take_up(|device, channel, io| match channel.holder.let_go(io.id()) {
            true => io.complete(Err(Status::Aborted)),
            false => go_on(device, channel, io, from),
        });
    }
}

/// What follows an error. Some bdevs fail what is sent to them at once: where that is a turn within the submission of another I/O, in which
/// nothing may end, it follows later.
#[cold]
fn settle<K: Asks>(io: Io<Remap, K>, outcome: Result<(), Status>) {
    io.take_up(|_, channel, io| match channel.aside.takes_turns() {
        true => thread::spawn(async move { after(io, outcome) }),
        false => after(io, outcome),
    });
}

/// Asks what follows an error.
fn after<K: Asks>(io: Io<Remap, K>, outcome: Result<(), Status>) {
    let Err(status) = outcome else { return io.complete(outcome) };
    match after_error(K::REQUEST, to_core(status), io.bdev().remap_on()) {
        AfterError::Complete(status) => io.complete(Err(to_spdk(status))),
        AfterError::Rescue(_) => K::rescue(io),
    }
}
