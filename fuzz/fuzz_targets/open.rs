//! A valid spare with anything changed on it, checksums made right or not: it is loaded with a table that is sound, or
//! refused with nothing written. What was loaded works: a new mapping survives a restart together with the others.
#![no_main]

use std::collections::BTreeSet;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use remap_core::engine::inspect;
use remap_core::format::Layout;
use remap_core::{OpenParams, StatedEnd};
use remap_fuzz::{Edit, PAGE, SPARE_BLOCKS, edited, mappings, open, params};
use remap_sim::{Disk, Executor, Threads, Vbdev};

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
    let medium = edited(&edits);
    let layout = Layout::for_spare(PAGE as u32, SPARE_BLOCKS).expect("it is large enough");
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
