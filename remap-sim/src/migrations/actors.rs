//! Who acts in a life: hosts, the operator who has all move, and fate.

use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::join_all;
use remap_core::{BaseLba, Error, Extent, HostOp, IoStatus, JobKind, MigrateParams, Refused, RemapOn, Stopped};
use uuid::Uuid;

use super::super::disk::Disk;
use super::super::faults::{Effect, Fault, Verb};
use super::super::model::ZEROS;
use super::super::moves::reason;
use super::super::stamp::{stamp, value_in};
use super::super::store::Cut;
use super::super::vbdev::{Story, Vbdev};
use super::{BLOCKS, HOSTS, Scene};

/// The most blocks of an I/O.
const LONGEST: u64 = 8;

/// A host or an operator, in a process.
#[derive(Clone)]
pub(super) struct Actor {
    scene: Rc<Scene>,
    vbdev: Vbdev,
}

impl Actor {
    pub(super) fn new(scene: &Rc<Scene>, vbdev: &Vbdev) -> Actor {
        Actor { scene: Rc::clone(scene), vbdev: vbdev.clone() }
    }

    fn on_reactor(&self, reactor: usize) -> Actor {
        Actor { vbdev: Vbdev { reactor, ..self.vbdev.clone() }, ..self.clone() }
    }

    /// All act, to the end of what they want.
    pub(super) async fn work(&self, last: bool) {
        let mut ends = Vec::new();
        let mut spawn = |work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            let (tell, end) = oneshot::channel();
            self.vbdev.threads.executor.spawn(async move {
                work.await;
                let _ = tell.send(());
            });
            ends.push(end);
        };
        for host in 0..HOSTS {
            let actor = self.on_reactor(host as usize);
            spawn(Box::pin(async move { actor.host().await }));
        }
        let actor = self.clone();
        spawn(Box::pin(async move { actor.operator().await }));
        if self.scene.harsh {
            let actor = self.clone();
            spawn(Box::pin(async move { actor.fate(last).await }));
        }
        join_all(ends).await;
    }

    async fn pause(&self, longest: u64) {
        let time = Duration::from_micros(self.scene.random.below(longest * self.scene.slowness));
        self.vbdev.threads.executor.sleep(time).await;
    }

    async fn host(&self) {
        let random = &self.scene.random;
        for _ in 0..random.below(60) {
            self.pause(8).await;
            let blocks = 1 + random.below(LONGEST);
            let lba = random.below(BLOCKS - blocks);
            match random.below(40) {
                0..10 => self.read(lba, blocks).await,
                10..28 => self.write(HostOp::Write, lba, blocks).await,
                28..31 => self.write(HostOp::WriteZeroes, lba, blocks).await,
                31..36 => self.flush().await,
                36 if !self.scene.harsh => self.unmap(lba, blocks).await,
                37 => self.save().await,
                38 => self.move_blocks(Extent::new(BaseLba(lba), blocks)).await,
                39 if random.chance(1, 4) => {
                    let reset = random.chance(1, 2);
                    let result = self.vbdev.abort(reset);
                    self.scene.note(|| format!("abort, all {reset}: {result:?}"));
                }
                _ => {}
            }
        }
    }

    pub(super) async fn read_all(&self) {
        for lba in 0..BLOCKS {
            self.read(lba, 1).await;
        }
    }

    async fn read(&self, lba: u64, blocks: u64) {
        let scene = &self.scene;
        let begun = scene.model.borrow_mut().begin_read();
        let size = scene.block_size as usize;
        let (result, story) = self.vbdev.submit(HostOp::Read, lba, vec![0; blocks as usize * size]).await;
        match result {
            Ok(data) => {
                for (lba, bytes) in (lba..).zip(data.chunks(size)) {
                    let read = value_in(lba, bytes)
                        .and_then(|value| scene.model.borrow_mut().read(lba, begun, value).map(|()| value));
                    match read {
                        Ok(value) => scene.note(|| format!("read of block {lba}, begun at {begun}: {value}")),
                        Err(what) => scene.fail(|| format!("{what} (read begun at {begun})")),
                    }
                }
            }
            Err(IoStatus::Aborted) => scene.count("event: aborted"),
            Err(_) if scene.harsh => scene.count("event: read failed as it may"),
            Err(status) => {
                scene.fail(|| format!("a read of {blocks} from {lba} failed: {status:?}, {:?}", story.struck))
            }
        }
        scene.model.borrow_mut().end_read(begun);
    }

    async fn write(&self, op: HostOp, lba: u64, blocks: u64) {
        let scene = &self.scene;
        let value = if op == HostOp::Write { scene.next() } else { ZEROS };
        let data = (lba..lba + blocks).flat_map(|lba| stamp(lba, value, scene.block_size as usize)).collect();
        let token = scene.model.borrow_mut().begin_write(lba, blocks, value);
        scene.note(|| format!("write {value} to {blocks} blocks from {lba} on, begun at {}", token.begun()));
        let (result, story) = self.vbdev.submit(op, lba, data).await;
        scene.note(|| format!("write {value}: {:?}, relocated {:?}", result.as_ref().map(drop), story.relocated));
        match result {
            Ok(_) => {
                if self.vbdev.engine.table().is_mirrored() {
                    scene.count("event: written while all moves");
                }
                scene.model.borrow_mut().acknowledge(&token, &story.relocated);
            }
            Err(status) => {
                let in_doubt = story.refused.iter().any(|(refused, _)| *refused == Refused::LogFailed);
                scene.model.borrow_mut().fail(&token, in_doubt);
                self.failed_write(status, &story);
            }
        }
    }

    fn failed_write(&self, status: IoStatus, story: &Story) {
        let full = story.refused.iter().any(|(refused, had_to)| *refused == Refused::NoSpare && *had_to);
        match status {
            IoStatus::Aborted => self.scene.count("event: aborted"),
            _ if full => self.scene.count("event: no spare block left"),
            _ if self.scene.harsh => self.scene.count("event: write failed as it may"),
            _ => self.scene.fail(|| format!("a write failed: {status:?}, {:?}, {:?}", story.struck, story.refused)),
        }
    }

    async fn flush(&self) {
        let begun = self.scene.model.borrow_mut().now();
        let result = self.vbdev.flush().await;
        self.scene.note(|| format!("flush begun at {begun}: {result:?}"));
        match result {
            Ok(()) => self.scene.model.borrow_mut().flushed(begun),
            Err(IoStatus::Aborted) => {}
            Err(_) if self.scene.harsh => {}
            Err(status) => self.scene.fail(|| format!("a flush failed: {status:?}")),
        }
    }

    async fn unmap(&self, lba: u64, blocks: u64) {
        let token = self.scene.model.borrow_mut().begin_write(lba, blocks, ZEROS);
        let result = self.vbdev.unmap(lba, blocks).await;
        self.scene.note(|| format!("unmap of {blocks} blocks from {lba} on: {result:?}"));
        self.scene.model.borrow_mut().fail(&token, false);
    }

    async fn save(&self) {
        let saved = self.vbdev.engine.save().await;
        if saved.is_err() && !self.scene.harsh {
            self.scene.fail(|| format!("a save failed: {saved:?}"));
        }
    }

    /// An operator relocates blocks, or gives them back.
    async fn move_blocks(&self, range: Extent) {
        let (engine, base, on) = (Rc::clone(&self.vbdev.engine), self.vbdev.base.clone(), RemapOn::Media);
        let add = self.scene.random.chance(1, 2);
        let kind = if add { JobKind::Add } else { JobKind::Remove };
        let begun = self.vbdev.engine.jobs().begin(kind, move |job| async move {
            match add {
                true => engine.add(&base, range, on, &job).await.map(drop),
                false => engine.remove(&base, range, on, &job).await.map(drop),
            }
        });
        let outcome = match begun {
            Ok(begun) => begun.join().await,
            Err(error) => Err(Stopped::Failed(error)),
        };
        self.scene.note(|| format!("{} of {range:?}: {outcome:?}", kind.name()));
        match reason(outcome) {
            Ok(()) | Err(Stopped::Cancelled) => {}
            Err(Stopped::Failed(Error::JobRuns { .. } | Error::NoSpare | Error::NotEnoughSpare { .. })) => {}
            Err(Stopped::Failed(
                Error::Io { status: IoStatus::Aborted, .. } | Error::BaseIo { status: IoStatus::Aborted, .. },
            )) => {}
            Err(_) if self.scene.harsh => {}
            Err(why) => self.scene.fail(|| format!("{} failed: {why}", kind.name())),
        }
    }

    /// Has all move to the other spare, and mostly back again.
    async fn operator(&self) {
        let random = &self.scene.random;
        for _ in 0..1 + random.below(3) {
            self.pause(60).await;
            self.migrate(random.chance(1, 8)).await;
        }
    }

    async fn migrate(&self, cancel: bool) {
        let scene = &self.scene;
        let from = self.in_force();
        let to = 1 - from;
        let rate = scene.random.chance(1, 4).then(|| 1 + scene.random.below(1 << 28));
        let params = MigrateParams { on: RemapOn::Media, bytes_per_second: rate };
        let (vbdev, disk, id) = (self.vbdev.clone(), scene.spares[to].clone(), Uuid::from_u128(scene.next().into()));
        scene.note(|| format!("migration to spare {to} begins, {params:?}"));
        scene.migrating.set(true);
        let begun = self.vbdev.engine.jobs().begin(JobKind::Migrate, move |job| async move {
            let moved = vbdev.migrate(&disk, id, params, false, &job).await;
            match moved {
                // What a crash, or a failure, has left of the formatting.
                Err(Stopped::Failed(Error::Erased { .. } | Error::NoSuperblock { .. } | Error::Foreign { .. })) => {
                    vbdev.migrate(&disk, id, params, true, &job).await
                }
                moved => moved,
            }
        });
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => return scene.fail(|| format!("no migration: {error}")),
        };
        if cancel {
            self.pause(200).await;
            let _ = self.vbdev.engine.jobs().cancel(JobKind::Migrate);
        }
        let outcome = begun.join().await;
        scene.migrating.set(false);
        scene.note(|| format!("migration to spare {to}: {outcome:?}"));
        match outcome {
            Ok(()) => {
                scene.in_force.set((to, self.vbdev.engine.slot()));
                scene.count("event: migrated");
            }
            Err(Stopped::Cancelled) => scene.count("event: migration cancelled"),
            Err(Stopped::Failed(Error::SpareTooSmall { .. } | Error::NewSpareFull)) => {
                scene.count("event: migration refused, or ended, as the new spare is full");
            }
            Err(Stopped::Failed(_)) if scene.harsh => scene.count("event: migration failed as it may"),
            Err(why) => scene.fail(|| format!("a migration failed: {why}")),
        }
    }

    /// Which spare is in force at this moment.
    fn in_force(&self) -> usize {
        let (index, slot) = self.scene.in_force.get();
        if self.vbdev.engine.slot() == slot { index } else { 1 - index }
    }

    /// Faults of the spares, now and then.
    async fn fate(&self, last: bool) {
        let scene = &self.scene;
        let random = &scene.random;
        for _ in 0..random.below(12) {
            self.pause(50).await;
            let index = random.below(2) as usize;
            let disk = &scene.spares[index];
            let times = 1 + random.below(3) as u32;
            let effect = random.pick(&[Effect::Nothing, Effect::Some, Effect::Everything]);
            match random.below(9) {
                0..2 => self.fault_of_data(disk, Verb::Write, IoStatus::WRITE_FAULT, None, Effect::Some),
                2 => self.fault_of_data(disk, Verb::Read, IoStatus::UNRECOVERED_READ, None, Effect::Nothing),
                3 => self.fault_of_data(disk, Verb::Write, IoStatus::Aborted, Some(times), effect),
                4 => self.fault_of_data(disk, Verb::Read, IoStatus::Aborted, Some(times), effect),
                5 | 6 => self.fault_of_metadata(disk, times, effect),
                7 => disk.fail(Fault::of_flush(IoStatus::Failed).times(times)),
                // The other spare goes, and comes back when the process is started again. Nothing rests on it.
                _ if !last && index != self.in_force() && !disk.is_gone() => {
                    disk.lose_power(random.pick(&[Cut::PowerNothing, Cut::PowerSome, Cut::PowerAll]));
                    scene.note(|| format!("spare {index} is gone"));
                    scene.count("event: the other spare has gone");
                }
                _ => {}
            }
        }
    }

    fn fault_of_data(&self, disk: &Disk, verb: Verb, status: IoStatus, times: Option<u32>, effect: Effect) {
        let Some(layout) = self.scene.layout(disk) else { return };
        let lba = layout.data_start.0 + self.scene.random.below(layout.data_blocks.into());
        let mut fault = Fault::new(verb, lba..lba + 1, status).with_effect(effect);
        fault.heals = verb == Verb::Read && times.is_none();
        fault.left = times;
        self.scene.note(|| format!("fate: {fault:?}"));
        disk.fail(fault);
    }

    /// Writes of a copy of log or superblock fail.
    fn fault_of_metadata(&self, disk: &Disk, times: u32, effect: Effect) {
        let Some(layout) = self.scene.layout(disk) else { return };
        let copy = self.scene.random.pick(&remap_core::format::Copy::BOTH);
        let blocks = match self.scene.random.chance(1, 2) {
            true => layout.superblock(copy).0..layout.superblock(copy).0 + 1,
            false => layout.log[copy].0..layout.log[copy].0 + 2 * layout.area_blocks(),
        };
        let fault = Fault::new(Verb::Write, blocks, IoStatus::Failed).times(times).with_effect(effect);
        self.scene.note(|| format!("fate: {fault:?}"));
        disk.fail(fault);
    }
}
