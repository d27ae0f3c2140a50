//! RESET and ABORT: what goes to I/O that is under way, and not to blocks.

use std::{future::Future, sync::atomic::Ordering};

use futures_util::future::{OptionFuture, join, join_all};
use remap_core::{BaseLba, Extent, Request, Route, route};
use spdk::{Abort, Io, Reset, Status, thread};

use crate::{channel::Channel, device::Remap, status::to_spdk};

/// Where `request` goes, which has no blocks.
fn route_of(device: &Remap, channel: &Channel, request: Request) -> Route {
    route(request, Extent::new(BaseLba(0), 0), &device.table, &channel.abilities())
}

/// Resets the devices, all at one time, and ends with ABORTED what is held: when the reset completes nothing is under way
/// that was submitted before it. Until then the bdev layer lets nothing new in. Metadata I/O to the spare is aborted with the
/// rest; `remap-core` tries it again.
#[cold]
pub fn reset(device: &Remap, channel: &Channel, io: Io<Remap, Reset>) {
    let devices = match route_of(device, channel, Request::Reset) {
        Route::AllOf(devices) => devices,
        Route::Fail(status) => return io.complete(Err(to_spdk(status))),
        _ => return io.complete(Err(Status::Failed)),
    };
    thread::spawn(async move {
        // Before anything is visited: what fails from now on is not held any more, but ended.
        io.bdev().resetting.store(true, Ordering::Release);
        io.visit_channels(Channel::give_all_up).await;
        let channel = io.channel();
        let base: OptionFuture<_> = devices.base.then(|| channel.base.reset()).into();
        let spares = channel.spares_in(devices.spares);
        let (base, spares) = join(base, join_all(spares.iter().map(|spare| spare.endpoint.reset()))).await;
        let drained = |channel: &Channel| {
            let holder = channel.holder.clone();
            async move { holder.emptied().await }
        };
        io.visit_channels(drained).await;
        io.bdev().resetting.store(false, Ordering::Release);
        io.complete(base.into_iter().chain(spares).collect());
    });
}

/// Aborts an I/O: where it is held, or on the devices, all at one time.
#[cold]
pub fn abort(device: &Remap, channel: &Channel, io: Io<Remap, Abort>) {
    let target = io.target();
    if let Some(aborted) = channel.abort(target) {
        return answer(io, aborted);
    }
    match route_of(device, channel, Request::Abort) {
        Route::AnyOf(devices) => {
            let base: OptionFuture<_> = devices.base.then(|| channel.base.abort(target)).into();
            let spares = channel.spares_in(devices.spares);
            let aborts = join_all(spares.iter().map(|spare| spare.endpoint.abort(target)));
            answer(io, async move {
                let (base, aborted) = join(base, aborts).await;
                // Not given up before.
                drop(spares);
                base == Some(true) || aborted.contains(&true)
            });
        }
        Route::Fail(status) => io.complete(Err(to_spdk(status))),
        _ => io.complete(Err(Status::Failed)),
    }
}

fn answer(io: Io<Remap, Abort>, aborted: impl Future<Output = bool> + 'static) {
    thread::spawn(async move {
        let outcome = if aborted.await { Ok(()) } else { Err(Status::Failed) };
        io.complete(outcome);
    });
}
