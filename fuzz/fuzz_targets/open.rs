//! A valid spare with anything changed on it, checksums made right or not: it is loaded with a table that is sound, or
//! refused with nothing written. What was loaded works: a new mapping survives a restart together with the others.
#![no_main]

use std::collections::BTreeSet;
use std::rc::Rc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use remap_core::engine::inspect;
use remap_core::format::{Area, Copy, Layout};
use remap_core::{OpenParams, StatedEnd};
use remap_fuzz::{PAGE, SPARE_BLOCKS, mappings, open, params, valid_image};
use remap_sim::{Disk, Executor, Medium, Threads, Vbdev};

#[derive(Arbitrary, Debug)]
struct Edit {
    place: Place,
    at: u16,
    bytes: Vec<u8>,
    fix_crc: bool,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Superblock {
        b: bool,
    },
    Log {
        b: bool,
        area: bool,
        page: u8,
    },
    /// Another page of the log is put there.
    Copied {
        b: bool,
        area: bool,
        page: u8,
        from: u8,
    },
    /// The page is gone.
    Zero {
        b: bool,
        area: bool,
        page: u8,
    },
}

fn edit(medium: &mut Medium, layout: &Layout, edit: &Edit) {
    let copy = |b: &bool| if *b { Copy::B } else { Copy::A };
    let log = |b, area: &bool, page: u8| {
        layout
            .log_page(
                copy(b),
                if *area { Area::One } else { Area::Zero },
                u64::from(page) % u64::from(layout.area_pages),
            )
            .0
    };
    let at = match &edit.place {
        Place::Superblock { b } => layout.superblock(copy(b)).0,
        Place::Log { b, area, page } | Place::Copied { b, area, page, .. } | Place::Zero { b, area, page } => {
            // Mostly those that are there.
            log(b, area, if page % 4 == 3 { *page } else { page % 8 })
        }
    };
    let mut page = match &edit.place {
        Place::Copied { from, area, .. } => medium.block(log(&(from & 1 == 1), &((from & 2 == 2) != *area), from >> 4)),
        Place::Zero { .. } => vec![0; PAGE],
        Place::Superblock { .. } | Place::Log { .. } => medium.block(at),
    };
    let from = usize::from(edit.at) % 640;
    for (to, byte) in page[from..].iter_mut().zip(&edit.bytes) {
        *to = *byte;
    }
    if edit.fix_crc {
        remap_fuzz::fix_crc(&mut page);
    }
    medium.set_block(at, &page);
}

/// What is loaded is sound, works, and is the same after a restart.
fn check(executor: &Executor, spare: &Disk, layout: &Layout, host: Vbdev) {
    let engine = Rc::clone(&host.engine);
    let held = mappings(&engine);
    let places: Vec<_> = held.iter().filter_map(|(_, mapping)| mapping.spare()).collect();
    assert!(places.iter().all(|spare| spare.index() < layout.data_blocks), "outside the data area");
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "two blocks share a spare block");
    let usage = engine.status().spare;
    assert!(usage.used + usage.free + usage.bad == usage.total && usage.used == places.len() as u64);
    let written = executor
        .block_on(async move {
            let report = host.engine.restore(true).await.expect("what was loaded can be read again");
            assert_eq!(report.added + report.removed + report.changed, 0);
            host.write(100, vec![100; PAGE]).await
        })
        .expect("it ends");
    let now = mappings(&engine);
    if written.is_err() {
        assert_eq!(usage.free, 0, "a block was not relocated");
    }
    let (_, _, reopened) = open(spare.contents(), params());
    let reopened = reopened.expect("what was loaded once can be loaded again");
    assert_eq!(mappings(&reopened.engine), now, "a restart changes the table");
}

fuzz_target!(|edits: Vec<Edit>| {
    let mut medium = valid_image();
    let layout = Layout::for_spare(PAGE as u32, SPARE_BLOCKS).expect("it is large enough");
    edits.iter().take(12).for_each(|one| edit(&mut medium, &layout, one));
    let (executor, spare, opened) = open(medium.clone(), params());
    let refused = match opened {
        Ok(host) => return check(&executor, &spare, &layout, host),
        Err(error) => error,
    };
    assert!(refused.errno() < 0 && !refused.to_string().is_empty());
    assert!(spare.contents() == medium && spare.writes() == 0, "a refusal has written something: {refused}");
    // What an operator may choose instead is sound, or refused as well.
    let threads = Threads::in_order(&executor);
    let of = spare.clone();
    let inspected = executor.block_on(async move { inspect(of, threads).await }).expect("it ends");
    assert!(spare.writes() == 0, "inspecting has written something");
    for candidate in inspected.expect("nothing fails but the medium").candidates {
        let stated_end = Some(StatedEnd { epoch: candidate.epoch, sequence: candidate.sequence });
        let (executor, spare, opened) = open(medium.clone(), OpenParams { stated_end, ..params() });
        match opened {
            Ok(host) => check(&executor, &spare, &layout, host),
            Err(error) => assert!(spare.writes() == 0, "a refusal has written something: {error}"),
        }
    }
});
