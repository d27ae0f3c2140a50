//! What follows a media error, on the thread of the I/O: `remap-core`'s rescue with SPDK's I/O under it and the owner thread
//! behind it.

use std::rc::Rc;

use remap_core::{At, BaseLba, Extent, HostIo, HostOp, IoStatus, Slot, rescue};
use spdk::{Endpoint, Held, Io, Ranged, Read, Status, Write, WriteZeroes, thread};

use crate::{
    device::Remap,
    status::{to_core, to_spdk},
};

/// A kind of I/O that can be rescued.
pub trait Rescued: Ranged + Sized {
    /// What it is to `remap-core`.
    const OP: HostOp;

    /// Does a part of the I/O on the spare in this slot.
    async fn on_spare(
        held: &Rc<Held<Remap, Self>>,
        _slot: Slot,
        (spare, lba): (&Endpoint, u64),
        offset: u64,
        blocks: u64,
    ) -> Result<(), Status> {
        spare.part_of(held, offset, blocks, lba).await
    }
}

impl Rescued for Read {
    const OP: HostOp = HostOp::Read;
}

impl Rescued for Write {
    const OP: HostOp = HostOp::Write;
}

impl Rescued for WriteZeroes {
    const OP: HostOp = HostOp::WriteZeroes;

    async fn on_spare(
        held: &Rc<Held<Remap, Self>>,
        slot: Slot,
        (spare, lba): (&Endpoint, u64),
        offset: u64,
        blocks: u64,
    ) -> Result<(), Status> {
        match held.channel().abilities().spares[slot].zeroes {
            true => spare.part_of(held, offset, blocks, lba).await,
            false => spare.write_zeros_for(held, blocks, lba).await,
        }
    }
}

/// Rescues `io` and completes it with the outcome. Until then it is held.
#[cold]
pub fn start<K: Rescued>(io: Io<Remap, K>) {
    io.take_up(|_, channel, io| {
        let id = io.id();
        let hold = channel.holder.hold(id);
        if hold.is_given_up() {
            channel.holder.let_go(id);
            return io.complete(Err(Status::Aborted));
        }
        let held = Held::new(io, hold);
        thread::spawn(async move {
            let device = held.bdev();
            let host_io = InRescue(Rc::clone(&held));
            let outcome = rescue(&host_io, &device.table, &device.owner, device.remap_on(), &device.counters).await;
            drop(host_io);
            held.channel().holder.let_go(id);
            held.end(outcome.map_err(to_spdk));
        });
    });
}

/// A host I/O that is rescued. Once it was given up nothing of it is sent any more.
struct InRescue<K: Rescued>(Rc<Held<Remap, K>>);

impl<K: Rescued> HostIo for InRescue<K> {
    fn op(&self) -> HostOp {
        K::OP
    }

    fn range(&self) -> Extent {
        Extent::new(BaseLba(self.0.lba()), self.0.blocks())
    }

    fn is_given_up(&self) -> bool {
        self.0.is_given_up()
    }

    async fn issue(&self, offset: u64, blocks: u64, at: At) -> Result<(), IoStatus> {
        let held = &self.0;
        let Some((to, lba)) = held.channel().reach(at) else { return Err(IoStatus::Failed) };
        let done = match at {
            At::Base(_) => to.part_of(held, offset, blocks, lba).await,
            At::Spare(block) => K::on_spare(held, block.slot(), (&to, lba), offset, blocks).await,
        };
        done.map_err(to_core)
    }
}
