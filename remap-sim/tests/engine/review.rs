//! What rests on a copy, a note or a page that is not there for good: each test once failed.

use std::time::Duration;

use super::*;

/// The spare can be written again, what cannot be read stays so.
fn heal_writes(world: &World) {
    world.spare.faults(|faults| faults.heal(|fault| fault.verb == Verb::Write));
}

fn superblocks(medium: &Medium) -> [Superblock; 2] {
    [0, SPARE_BLOCKS - 1].map(|at| match Superblock::decode(&medium.block(at)) {
        SuperblockContent::Valid(superblock) => *superblock,
        other => panic!("{other:?}"),
    })
}

fn restore(world: &World, host: &Vbdev) -> Result<RestoreReport, Error> {
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.restore(false).await }).unwrap()
}

#[test]
fn a_superblock_that_fails_when_commits_are_noted_heals_by_itself() {
    let (world, host) = world();
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT).times(1));
    world.quiet();
    let status = host.engine.status();
    assert_eq!((status.state, status.metadata.superblock_a), (SetState::Online, CopyHealth::Ok));
    assert!(status.metadata.degraded_at.is_some() && status.metadata.healed_at.is_some());
}

#[test]
fn a_copy_that_fails_while_formatting_heals_by_itself() {
    let world = World::new();
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT).times(1));
    let host = world.open();
    world.quiet();
    assert_eq!(host.engine.status().state, SetState::Online);
}

/// Found by the simulation: a superblock that could neither be read nor written came back beside that of a new set.
#[test]
fn a_superblock_of_another_set_does_not_come_back_beside_that_of_a_new_one() {
    let (world, _) = world();
    let mut medium = world.spare.contents();
    medium.clear(SPARE_BLOCKS - 1, 1);
    let world = world.after_crash(medium);
    world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR));
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    let force = OpenParams { format: FormatPolicy::Force, fresh_set_uuid: Uuid::from_u128(11), ..params() };
    let refused = world.open_with(force.clone()).map(drop);
    assert!(matches!(refused, Err(Error::Io { what: "zero", .. })), "{refused:?}");
    // It can be written again, and then read again.
    world.spare.heal();
    world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR).healed_by_write());
    world.open_with(force).unwrap();
    let again = world.after_kill();
    assert_eq!(again.open_with(params()).map(|host| host.engine.set_uuid()), Ok(Uuid::from_u128(11)));
}

/// Found by the simulation: superblock A, hidden twice by read errors, came back under the sequence number of superblock B.
#[test]
fn a_superblock_that_was_hidden_twice_is_older_than_what_was_written_meanwhile() {
    let (world, _) = world();
    let world = world.after_kill();
    let hide = |world: &World| world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR));
    let b = world.spare.contents().block(SPARE_BLOCKS - 1);
    hide(&world);
    world.open();
    // As a crash between the two leaves it.
    let mut medium = world.spare.contents();
    medium.set_block(SPARE_BLOCKS - 1, &b);
    let world = world.after_crash(medium);
    hide(&world);
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    world.open();
    let [a, b] = superblocks(&world.spare.contents());
    assert!(a.sequence < b.sequence && a.epoch < b.epoch, "{} {}", a.sequence, b.sequence);
    assert_eq!(mappings(&world.after_kill().open().engine).len(), 1);
}

/// What a crash left unnoted is saved by the next process, although nothing is committed then.
#[test]
fn what_was_committed_before_a_crash_is_missed_if_it_is_lost_after_it() {
    let (world, host) = world();
    let world = world.after_kill();
    let _online = world.open();
    let mut medium = world.spare.contents();
    for copy in Copy::BOTH {
        medium.clear(host.engine.layout().log_page(copy, Area::One, 0).0, 1);
    }
    let lost = Error::EpochLost { known: epoch(2), found: epoch(1) };
    assert_eq!(world.after_crash(medium).open_with(params()).map(drop), Err(lost));
}

/// The state that an operator has chosen has to be durable before anything rests on it.
#[test]
fn a_stated_end_is_durable_before_it_is_served() {
    let (world, host) = world();
    world.save(&host).unwrap();
    world.write(&host, 11, filled(2)).unwrap();
    world.quiet();
    let layout = host.engine.layout();
    let world = world.after_kill();
    for copy in Copy::BOTH {
        let at = layout.log_page(copy, Area::One, 0).0;
        world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    }
    log_cannot_be_written(&world, &host, Effect::Nothing);
    let stated_end = Some(remap_core::StatedEnd { epoch: epoch(1), sequence: sequence(2) });
    let stated = OpenParams { stated_end, ..params() };
    assert_eq!(world.open_with(stated.clone()).map(drop), Err(Error::CheckpointFailed));
    heal_writes(&world);
    let host = world.open_with(stated).unwrap();
    world.base.heal();
    world.write(&host, 11, filled(3)).unwrap();
    world.spare.heal();
    let again = world.after_kill();
    assert_eq!(value(&again.read(&again.open(), 11, 1).unwrap()), 3);
}

/// A checkpoint that settled a page in doubt is hidden by a read error: the page counts, and later the checkpoint does.
#[test]
fn a_checkpoint_that_may_come_back_is_void_before_anything_is_served() {
    let (world, host) = world();
    let layout = host.engine.layout();
    for copy in Copy::BOTH {
        let page = layout.log_page(copy, Area::Zero, 2).0;
        let fault = Fault::new(Verb::Write, page..page + 1, IoStatus::Failed);
        world.spare.fail(fault.times(1).with_effect(Effect::Everything));
    }
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    // The page is there in both copies. A crash stops the checkpoint behind its copy A.
    let mut medium = world.spare.contents();
    world.executor.run_for(Duration::from_millis(1));
    let hidden = layout.log_page(Copy::A, Area::One, 0).0;
    medium.set_block(hidden, &world.spare.contents().block(hidden));
    let world = world.after_crash(medium);
    world.spare.fail(Fault::new(Verb::Read, hidden..hidden + 1, READ_ERROR));
    log_cannot_be_written(&world, &host, Effect::Nothing);
    assert_eq!(world.open_with(params()).map(drop), Err(Error::CheckpointFailed));
    heal_writes(&world);
    let host = world.open();
    world.write(&host, 11, filled(3)).unwrap();
    world.spare.heal();
    let again = world.after_kill();
    assert_eq!(value(&again.read(&again.open(), 11, 1).unwrap()), 3);
}

/// A page in doubt may reach the medium at any later time, as long as no checkpoint has made it void.
#[test]
fn restoring_does_not_forget_that_a_page_is_in_doubt() {
    let run = |effect| {
        let (world, host) = world();
        log_cannot_be_written(&world, &host, effect);
        assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
        world.spare.heal();
        (world, host)
    };
    let late = run(Effect::Everything).0.spare.contents();
    let (world, host) = run(Effect::Nothing);
    restore(&world, &host).unwrap();
    world.base.heal();
    world.write(&host, 11, filled(3)).unwrap();
    let page = host.engine.layout().log_page(Copy::A, Area::Zero, 2).0;
    let mut medium = world.spare.contents();
    medium.set_block(page, &late.block(page));
    let again = world.after_crash(medium);
    assert_eq!(value(&again.read(&again.open(), 11, 1).unwrap()), 3);
}

/// A page that only copy A holds was loaded, and could not be made whole: to lose it then is a loss, and noticed.
#[test]
fn a_page_of_one_copy_that_was_relied_on_is_missed_when_it_is_lost() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let pages = Copy::BOTH.map(|copy| host.engine.layout().log_page(copy, Area::Zero, 2).0);
    let mut medium = world.spare.contents();
    // As a crash behind copy A leaves it.
    medium.clear(pages[1], 1);
    let world = world.after_crash(medium);
    log_cannot_be_written(&world, &host, Effect::Nothing);
    let host = world.open();
    assert_eq!(host.engine.status().state, SetState::Degraded);
    world.write(&host, 11, filled(3)).unwrap();
    world.spare.heal();
    let mut medium = world.spare.contents();
    medium.flip(pages[0], 77);
    let again = world.after_crash(medium);
    let lost = Error::PagesLost { known: sequence(3), found: sequence(2) };
    assert_eq!(again.open_with(params()).map(drop), Err(lost));
}

/// The medium of a set of host 1 on which the area that is not in force has a bad page, so that it has to be zeroed first.
fn with_a_bad_page() -> (World, Vbdev, Medium) {
    let world = World::new();
    let host = world.open_with(OpenParams { host_id: Uuid::from_u128(1), ..params() }).unwrap();
    let mut medium = world.spare.contents();
    medium.set_block(host.engine.layout().log_page(Copy::A, Area::One, 9).0, &filled(7));
    (world, host, medium)
}

#[test]
fn a_take_over_is_durable_before_the_set_is_served() {
    let (world, host, medium) = with_a_bad_page();
    let world = world.after_crash(medium);
    log_cannot_be_written(&world, &host, Effect::Nothing);
    let taken = OpenParams { host_id: Uuid::from_u128(2), take_over: true, ..params() };
    assert_eq!(world.open_with(taken.clone()).map(drop), Err(Error::CheckpointFailed));
    let hosts = |world: &World| superblocks(&world.spare.contents()).map(|superblock| superblock.host_id);
    assert_eq!(hosts(&world), [Uuid::from_u128(1); 2]);
    world.spare.heal();
    world.open_with(taken).unwrap();
    assert_eq!(hosts(&world), [Uuid::from_u128(2); 2]);
}

/// The first host with an identity makes the set its own; while that cannot be written it is tried again.
#[test]
fn what_cannot_be_put_right_at_open_is_tried_again() {
    let world = World::new();
    let host = world.open();
    let mut medium = world.spare.contents();
    medium.set_block(host.engine.layout().log_page(Copy::A, Area::One, 9).0, &filled(7));
    let world = world.after_crash(medium);
    log_cannot_be_written(&world, &host, Effect::Nothing);
    let host = world.open_with(OpenParams { host_id: Uuid::from_u128(2), ..params() }).unwrap();
    assert_eq!(host.engine.status().state, SetState::Degraded);
    world.spare.heal();
    world.quiet();
    assert_eq!(host.engine.status().state, SetState::Online);
    let hosts = superblocks(&world.spare.contents()).map(|superblock| superblock.host_id);
    assert_eq!(hosts, [Uuid::from_u128(2); 2]);
}

#[test]
fn a_generation_that_is_used_up_ends_nothing() {
    let (world, _, medium) = with_a_bad_page();
    let world = world.after_crash(patched(medium, |superblock| superblock.generation = u64::MAX));
    // Opened or refused: it answers.
    let _ = world.open_with(OpenParams { host_id: Uuid::from_u128(2), take_over: true, ..params() });
}

/// No more blocks can be pending than a log area has room for; a record of 2^32 of them would take all memory.
#[test]
fn more_pending_blocks_than_there_may_be_are_refused() {
    let (world, host) = world();
    let mut medium = world.spare.contents();
    change_page(&mut medium, &host.engine, Area::Zero, 1, |records| {
        records.iter().copied().chain([Record::Pending { lba: lba(1000), count: 65 }]).collect()
    });
    let refused = world.after_crash(medium).open_with(params()).map(drop);
    assert!(matches!(refused, Err(Error::LogDamaged { page: 1, .. })), "{refused:?}");
}

/// A device keeps the buffer of what is under way: no operation is dropped before its end.
#[test]
fn a_refusal_leaves_no_read_half_done() {
    let (world, host) = world();
    let at = host.engine.layout().log_page(Copy::A, Area::Zero, 0).0;
    for seed in 0..8 {
        let world = world.after_kill();
        world.spare.set_timing(&Random::new(seed), 100_000);
        world.spare.fail(Fault::new(Verb::Read, at..at + 65, IoStatus::Aborted));
        assert!(matches!(world.open_with(params()).map(drop), Err(Error::Io { .. })));
        world.executor.run_for(Duration::from_secs(30));
        assert_eq!(world.spare.under_way(), []);
    }
}
