//! Opening a set, and what may come of it.

use remap_core::format::layout::superblock_b;
use remap_core::format::page::{TELLING_PAGES, used_by};
use remap_core::format::{Area, Copy, Superblock, SuperblockContent};
use remap_core::{CopyHealth, Device, Error, FormatPolicy, Geometry, OpenParams, SpareLba};

use super::plan::Harm;
use super::threads::Threads;
use super::vbdev::Vbdev;
use super::world::World;

/// Attempts to open while what stops them may pass.
const ATTEMPTS: u32 = 6;

/// Opens the set. It may be refused only if the metadata was damaged, and nothing was written then; it opens when the damage
/// is undone. Damage that cannot be undone ends the simulation.
pub(crate) async fn open(world: &World, threads: &Threads) -> Option<Vbdev> {
    let mut undone = false;
    let mut format = FormatPolicy::Auto;
    world.note(|| format!("the log: {}", world.describe()));
    for attempt in 0..ATTEMPTS {
        let (errors, writes) = (world.metadata_errors(), world.spare.writes());
        let known = world.formatted.get();
        let cached = world.cached_metadata();
        let params = OpenParams { format, ..world.params() };
        let lost = known && world.has_no_superblock();
        let untold = lost && world.nothing_tells();
        let result = Vbdev::open(&world.base, &world.spare, threads, params).await;
        let gone = lost
            && match &result {
                Ok(vbdev) => untold && Some(vbdev.engine.set_uuid()) != world.set.get(),
                Err(Error::Erased { .. } | Error::NoSuperblock { .. }) => true,
                // While it is formatted.
                Err(_) => untold,
            };
        if gone {
            world.note(|| format!("gone: {:?}", result.err()));
            world.over.set(true);
            world.count("event: gone after a wipe that failed");
            return None;
        }
        let error = match result {
            Ok(vbdev) => {
                opened(world, &vbdev, known, world.metadata_errors() > errors, &cached);
                if undone {
                    world.count("event: refused, and loaded when the damage was undone");
                }
                return Some(vbdev);
            }
            Err(error) => error,
        };
        world.note(|| format!("open: {error}"));
        if !known {
            // Errors while formatting, or a formatting or wiping that a crash has stopped.
            if !matches!(error, Error::Io { .. } | Error::CheckpointFailed) {
                world.count("event: refused as erased, and formatted by force");
                format = FormatPolicy::Force;
                world.forced.set(true);
            }
            continue;
        }
        if error == Error::CheckpointFailed && world.metadata_errors() > errors {
            // A page is bad where the log ends and may come back: nothing is served before it is made void.
            world.count("event: not served before a bad page at the end is void");
            if attempt + 2 == ATTEMPTS {
                world.undo_damage();
            }
            continue;
        }
        if world.spare.writes() != writes {
            world.fail(|| format!("a refusal has written: {error}"));
        }
        if matches!(error, Error::Io { .. }) && world.read_trouble() {
            world.count("event: refused for what may pass");
            if attempt + 2 == ATTEMPTS {
                world.undo_damage();
            }
            continue;
        }
        if matches!(error, Error::LogDamaged { what: "a page cannot be read again", .. }) && world.lied.get() {
            // A copy that gave what it had earlier does so no longer.
            world.count("event: refused for what may pass");
            continue;
        }
        if world.forced.get() && world.lied.get() && matches!(error, Error::MixedSuperblocks { .. }) {
            // A superblock of the set before could not be read, and what was written over it was lost.
            world.over.set(true);
            return None;
        }
        if world.lied.get() && matches!(error, Error::Superblock { .. }) {
            // A copy that gave an older superblock, and then lost its writes, has one of its own under the same sequence number.
            world.over.set(true);
            world.count("event: refused for good after damage");
            return None;
        }
        if !world.may_refuse() {
            world.fail(|| format!("refused for no reason: {error}"));
            return None;
        }
        let healed = world.undo_damage();
        if world.lied.get() || !healed {
            world.over.set(true);
            world.count("event: refused for good after damage");
            return None;
        }
        if undone {
            world.fail(|| format!("refused although the damage is undone: {error}"));
            return None;
        }
        undone = true;
    }
    if world.formatted.get() {
        world.fail(|| "refused again and again".into());
    }
    None
}

/// What is promised of a set that has just been opened.
fn opened(world: &World, vbdev: &Vbdev, known: bool, errors: bool, cached: &[u64]) {
    // After a wipe that failed it may be the set that was there, on a spare that has grown.
    world.follow(vbdev.engine.layout());
    let set = vbdev.engine.set_uuid();
    if known && world.set.get() != Some(set) {
        world.fail(|| "a set that was there was formatted anew".into());
    }
    if !known {
        world.bad_saved.set(0);
        // What was there before is another set's.
        world.past.borrow_mut().clear();
        world.spare.set_past(None);
    }
    world.set.set(Some(set));
    world.formatted.set(true);
    world.open.set(true);
    if world.harm == Harm::Both {
        world.settle_damage();
    }
    let status = vbdev.engine.status();
    world.note(|| format!("open: {:?}", status.metadata));
    if status.spare.bad < world.bad_saved.get() {
        world.fail(|| {
            format!("of {} bad spare blocks that were saved {} are known", world.bad_saved.get(), status.spare.bad)
        });
    }
    if !errors && !world.lied.get() {
        check_copies(world, vbdev, "when it was opened");
    }
    let still = world.cached_metadata();
    if !errors && cached.iter().any(|lba| still.contains(lba)) {
        world.fail(|| "what was read of the metadata is not durable".into());
    }
}

impl World {
    /// What of the metadata is in the cache only.
    fn cached_metadata(&self) -> Vec<u64> {
        let ranges = Copy::BOTH.map(|copy| [self.metadata(true, copy), self.metadata(false, copy)]);
        ranges.into_iter().flatten().flat_map(|range| self.spare.cached(range)).collect()
    }

    /// Whether reads or flushes of the metadata failed that may succeed later.
    fn read_trouble(&self) -> bool {
        let names = ["fault: metadata read trouble", "fault: spare flush error"];
        self.spare.faults(|faults| faults.any(|fault| names.contains(&fault.name)))
    }

    /// Whether a wipe took superblock A, which could not be written since, and the other one is not at the end of the device any more.
    fn has_no_superblock(&self) -> bool {
        let Geometry { block_size, blocks } = self.spare.geometry();
        let places = [Some(self.layout.get().superblock(Copy::A)), superblock_b(block_size, blocks)];
        let valid = |at: SpareLba| matches!(Superblock::decode(&self.page(at.0)), SuperblockContent::Valid(_));
        let lost = !places.into_iter().flatten().any(valid);
        self.wipe_failed.get() && self.grew.get() && lost
    }

    /// Whether copy A of the log has no page that shows that there is a set.
    fn nothing_tells(&self) -> bool {
        let layout = self.layout.get();
        let first = |area| (0..u64::from(TELLING_PAGES)).map(move |page| layout.log_page(Copy::A, area, page).0);
        let mut first = Area::BOTH.into_iter().flat_map(first);
        first.all(|at| used_by(&self.page(at), Copy::A).is_none())
    }

    /// Whether the damage is such that the set may be refused.
    fn may_refuse(&self) -> bool {
        match self.harm {
            Harm::Errors => false,
            Harm::One(copy) => !self.is_whole(if copy == Copy::A { Copy::B } else { Copy::A }),
            Harm::KnownBad(_) | Harm::Both => self.damaged(),
        }
    }
}

/// All copies of the metadata are whole, as nothing has failed.
pub(crate) fn check_copies(world: &World, vbdev: &Vbdev, when: &str) {
    let metadata = vbdev.engine.status().metadata;
    let copies = [metadata.superblock_a, metadata.superblock_b, metadata.log_a, metadata.log_b];
    if copies.contains(&CopyHealth::Bad) && !world.wiped.get() && !world.spare.is_gone() {
        world.fail(|| format!("copies are bad {when}: {metadata:?}"));
    }
}
