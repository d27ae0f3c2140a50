//! Which spare is in force after a crash, and that it is one.

use remap_core::engine::{give_up_for, identify};
use remap_core::format::Superblock;
use remap_core::{Error, FormatPolicy, OpenParams};
use uuid::Uuid;

use super::super::disk::Disk;
use super::super::executor::Executor;
use super::super::threads::Threads;
use super::super::vbdev::{SimEngine, Vbdev};
use super::Scene;

/// Opens the set on whichever spare is in force, looking at one of them first.
pub(super) async fn open(scene: &Scene, threads: &Threads) -> Option<Vbdev> {
    let first = scene.random.below(2) as usize;
    for index in [first, 1 - first] {
        let params = scene.params(FormatPolicy::Never);
        match open_with(scene, index, threads, params).await {
            Ok(vbdev) => return Some(vbdev),
            Err(error) => scene.note(|| format!("spare {index}: {error}")),
        }
    }
    for (old, new) in [(first, 1 - first), (1 - first, first)] {
        let successor = identify(scene.spares[new].clone(), threads.clone()).await;
        let Ok(Some(successor)) = successor else { continue };
        let given_up = give_up_for(scene.spares[old].clone(), threads.clone(), successor.spare_id).await;
        let Ok(given_up) = given_up else { continue };
        let params = OpenParams { given_up: Some(given_up), ..scene.params(FormatPolicy::Never) };
        match open_with(scene, new, threads, params).await {
            Ok(vbdev) => {
                scene.count("event: settled");
                return Some(vbdev);
            }
            Err(error) => scene.fail(|| format!("the old spare was given up, and the new one is refused: {error}")),
        }
    }
    scene.fail(|| "no spare is in force".into());
    None
}

async fn open_with(scene: &Scene, index: usize, threads: &Threads, params: OpenParams) -> Result<Vbdev, Error> {
    let vbdev = Vbdev::open(&scene.base, &scene.spares[index], threads, params).await?;
    if Some(vbdev.engine.set_uuid()) != scene.set.get() {
        scene.fail(|| "another set was opened".into());
    }
    scene.note(|| format!("spare {index} is in force: {:?}", vbdev.engine.slot()));
    scene.in_force.set((index, vbdev.engine.slot()));
    Ok(vbdev)
}

/// What became of a spare that was opened alone.
enum Alone {
    InForce(Uuid),
    /// It is refused, with the identity of another one.
    Names(Uuid, Uuid),
    /// It holds nothing that counts.
    Nothing,
}

/// Each spare alone, and both together, on copies: exactly one is in force, and the other is refused with the name of that one.
pub(super) fn check(scene: &Scene) {
    let alone = [0, 1].map(|index| alone(scene, index));
    match &alone {
        [Alone::InForce(_), Alone::InForce(_)] => scene.fail(|| "both spares are in force".into()),
        [Alone::InForce(one), Alone::Names(own, other)] | [Alone::Names(own, other), Alone::InForce(one)] => {
            if other != one {
                scene.fail(|| format!("the refused spare {own} names {other}, and {one} is in force"));
            }
            scene.count("after: one is in force, and the other names it");
        }
        [Alone::InForce(_), Alone::Nothing] | [Alone::Nothing, Alone::InForce(_)] => {
            scene.count("after: one is in force, and the other holds nothing");
        }
        _ => {
            let settled = [(0, 1), (1, 0)].map(|(old, new)| settles(scene, old, new));
            if settled.iter().filter(|settled| **settled).count() != 1 {
                scene.fail(|| format!("neither spare is in force, and giving up either settles {settled:?}"));
            }
            scene.count("after: neither says that it is in force, and one is");
        }
    }
}

/// A copy of the disk as it is.
fn copy(scene: &Scene, index: usize, executor: &Executor) -> Disk {
    Disk::new(executor, scene.spares[index].contents(), false)
}

fn superblock(scene: &Scene, index: usize) -> Option<Superblock> {
    let executor = Executor::new();
    let (disk, threads) = (copy(scene, index, &executor), Threads::in_order(&executor));
    executor.block_on(async move { identify(disk, threads).await })?.ok()?
}

fn alone(scene: &Scene, index: usize) -> Alone {
    let executor = Executor::new();
    let (disk, threads) = (copy(scene, index, &executor), Threads::in_order(&executor));
    let params = scene.params(FormatPolicy::Never);
    let opened = executor.block_on(async move { SimEngine::open(disk, threads, params).await.map(drop) });
    executor.kill();
    let Some(superblock) = superblock(scene, index) else { return Alone::Nothing };
    match opened {
        Some(Ok(())) => Alone::InForce(superblock.spare_id),
        Some(Err(Error::NotActive { other, .. })) => Alone::Names(superblock.spare_id, other),
        other => {
            scene.fail(|| format!("spare {index} is refused for another reason: {other:?}"));
            Alone::Nothing
        }
    }
}

/// Whether the new spare comes into force once the old one was found to be given up for it.
fn settles(scene: &Scene, old: usize, new: usize) -> bool {
    let Some(successor) = superblock(scene, new) else { return false };
    let executor = Executor::new();
    let (from, to) = (copy(scene, old, &executor), copy(scene, new, &executor));
    let (threads, params) = (Threads::in_order(&executor), scene.params(FormatPolicy::Never));
    let settled = executor.block_on(async move {
        let given_up = give_up_for(from, threads.clone(), successor.spare_id).await?;
        SimEngine::open(to, threads, OpenParams { given_up: Some(given_up), ..params }).await.map(drop)
    });
    executor.kill();
    matches!(settled, Some(Ok(())))
}
