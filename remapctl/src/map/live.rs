//! The picture of a Remap bdev of a running target, by what it tells over RPC.

use std::time::SystemTime;

use remap_core::format::{Copy, Layout};

use super::about::{About, Moment, Part, SpareAbout, metadata};
use super::picture::Picture;
use crate::error::{Error, Verdict};
use crate::inspect::date;
use crate::rpc::Client;
use crate::rpc::answers::{Bdev, Online};
use crate::units::counted;

/// Asks `client` for all that is known of a set that is online. It takes memory in proportion to its extents, a few bytes each.
///
/// # Errors
/// [`Error::Target`]; [`Error::Disorder`] if the set has changed too much in the midst of it.
pub fn picture(client: &Client, set: &Online) -> Result<Picture, Error> {
    let bdev = client.bdev(&set.name)?;
    let spare = set.spare_bdev.as_deref().map(|name| client.bdev(name)).transpose()?;
    let mut picture = Picture::new(about(client, set, &bdev, spare.as_ref()));
    client.extents(&set.name).try_for_each(|extent| picture.add(&extent?))?;
    Ok(picture)
}

fn about(client: &Client, set: &Online, bdev: &Bdev, spare: Option<&Bdev>) -> About {
    let (verdict, sentence) = match set.metadata.bad() {
        None => (Verdict::Sound, "every copy is whole".to_owned()),
        Some(bad) => (Verdict::Degraded, format!("the target repairs it; bad: {}", bad.replace('_', " "))),
    };
    let jobs = set.jobs.iter().filter(|job| job.runs());
    let mut notes: Vec<_> = jobs
        .map(|job| format!("a job runs: {}, {} of {} blocks are done", job.kind, job.blocks_done, job.blocks_total))
        .collect();
    if set.state != "online" {
        notes.push(format!("the set is {}", set.state));
    }
    About {
        name: set.name.clone(),
        set_uuid: set.uuid,
        source: format!("the target at {}", client.socket().display()),
        read_at: SystemTime::now(),
        verdict,
        sentence,
        block_size: bdev.block_size,
        base_blocks: bdev.num_blocks,
        spare: spare_about(set, bdev.block_size, spare),
        history: vec![
            Moment {
                what: "last checkpoint".to_owned(),
                when: set.last_save_at.map(|seconds| date(seconds.saturating_mul(1_000_000))),
                epoch: Some(set.epoch),
                sequence: None,
                says: format!("{} since the set was opened", set.counters.checkpoints),
            },
            Moment {
                what: "log".to_owned(),
                when: None,
                epoch: Some(set.epoch),
                sequence: Some(set.sequence),
                says: format!("{} since the set was opened", counted(set.counters.log_pages, "page")),
            },
        ],
        notes,
    }
}

/// The target does not say where on the spare its data area is: it is where formatting puts it, if that is as large as the target says. Else
/// the whole device is drawn.
fn spare_about(set: &Online, block_size: u32, spare: Option<&Bdev>) -> SpareAbout {
    let room = set.spare.total;
    let blocks = spare.map_or(0, |spare| spare.num_blocks);
    let layout = Layout::for_spare(block_size, blocks).ok().filter(|layout| u64::from(layout.data_blocks) == room);
    let whole = |name: &str| set.metadata.copies().iter().any(|(copy, whole)| *copy == name && *whole);
    let says = |name: &str, copy: Copy| {
        if whole(&format!("{name}_{}", copy.name().to_ascii_lowercase())) { "ok" } else { "bad" }.to_owned()
    };
    let part =
        |name, copy, first, blocks, what: &str| Part { name, first, blocks, says: says(what, copy), in_force: false };
    match layout {
        Some(layout) => SpareAbout {
            room,
            first: layout.data_start.0,
            blocks: room,
            bad: set.spare.bad,
            metadata: metadata(
                &layout,
                |name, copy, first, blocks| part(name, copy, first, blocks, "superblock"),
                |name, copy, _, first, blocks| part(name, copy, first, blocks, "log"),
            ),
        },
        None => SpareAbout { room, first: 0, blocks, bad: set.spare.bad, metadata: Vec::new() },
    }
}
