//! Errors of the spare while the log is written: one copy, both copies, and what is in doubt then.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;

use super::*;
use remap_core::{Device, Owner, Refused, Target};

#[test]
fn one_log_copy_is_enough_and_the_other_heals_by_itself() {
    for copy in Copy::BOTH {
        let (world, host) = world();
        let epoch = host.engine.status().epoch;
        world.spare.fail(log_fault(&host, copy, Verb::Write).times(1));
        world.write(&host, 11, filled(2)).unwrap();
        assert_eq!(host.engine.status().counters.log_copy_errors, 1);
        // No time has to go by.
        world.executor.run_for(Duration::from_millis(1));
        let status = host.engine.status();
        assert_eq!((status.state, status.epoch), (SetState::Online, epoch.plus(1)), "a checkpoint in the other area");
        assert!(status.metadata.degraded_at.is_some() && status.metadata.healed_at >= status.metadata.degraded_at);
        // Either copy may go now.
        for lost in Copy::BOTH {
            let layout = host.engine.layout();
            let mut medium = world.spare.contents();
            medium.clear(layout.log_page(lost, Area::Zero, 0).0, 2 * layout.area_blocks());
            let again = world.after_crash(medium);
            let host = again.open();
            assert_eq!(mappings(&host.engine).len(), 2);
            assert_eq!(host.engine.status().state, SetState::Online);
        }
    }
}

#[test]
fn what_takes_less_than_ten_seconds_is_waited_for_and_more_than_that_is_a_failure() {
    for (seconds, expected) in [(9.9, Ok(())), (100.0, Err(Refused::LogFailed))] {
        let (world, host) = world();
        // Nobody looks after anything any more.
        world.executor.run_for(Duration::from_secs(30));
        world.spare.hang_until(world.executor.now() + Duration::from_secs_f64(seconds));
        let (engine, told) = (Rc::clone(&host.engine), Rc::new(Cell::new(None)));
        let answer = Rc::clone(&told);
        world.executor.spawn(async move { answer.set(Some(engine.set_pending(vec![lba(7)]).await)) });
        world.executor.run_for(Duration::from_millis(9_899));
        assert_eq!(told.get(), None, "nothing has come of it yet");
        world.executor.run_for(Duration::from_millis(102));
        assert_eq!(told.get(), Some(expected), "{seconds} s");
        assert_eq!(host.engine.status().counters.log_copy_errors, 0);
    }
}

#[test]
fn a_copy_that_cannot_be_made_whole_is_tried_again_with_growing_pauses() {
    let (world, host) = world();
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    world.write(&host, 11, filled(2)).unwrap();
    world.executor.run_for(Duration::from_secs(600));
    let status = host.engine.status();
    let attempts = status.counters.checkpoints;
    assert!((10..30).contains(&attempts), "{attempts} attempts in ten minutes");
    assert_eq!(
        (status.state, status.metadata.log_a, status.metadata.log_b),
        (SetState::Degraded, CopyHealth::Bad, CopyHealth::Ok)
    );
    world.spare.heal();
    world.executor.run_for(Duration::from_secs(61));
    assert_eq!(host.engine.status().state, SetState::Online);
}

/// A world in which copy `bad` of the log cannot be written any more, with three blocks remapped, and the page of the last.
fn one_copy_bad(bad: Copy) -> (World, Vbdev, u64) {
    let (world, host) = world();
    world.spare.fail(log_fault(&host, bad, Verb::Write));
    world.write(&host, 11, filled(2)).unwrap();
    // The attempt to heal has gone to another area, on the good copy alone; commits go on there.
    world.executor.run_for(Duration::from_millis(1));
    world.write(&host, 12, filled(3)).unwrap();
    let layout = host.engine.layout();
    let good = if bad == Copy::A { Copy::B } else { Copy::A };
    (world, host.clone(), layout.log_page(good, Area::One, 1).0)
}

#[test]
fn with_one_copy_bad_a_lost_page_of_the_other_is_noticed() {
    for bad in Copy::BOTH {
        let (world, _, page) = one_copy_bad(bad);
        for damage in [|medium: &mut Medium, at| medium.clear(at, 1), |medium: &mut Medium, at| medium.flip(at, 99)] {
            let mut medium = world.spare.contents();
            damage(&mut medium, page);
            let again = World::with(medium.clone(), true);
            let refused = again.open_with(params()).map(drop);
            assert!(matches!(refused, Err(Error::PagesLost { .. })), "{refused:?}");
            assert_eq!(again.spare.contents(), medium);
        }
    }
}

#[test]
fn with_one_copy_bad_a_page_torn_by_a_power_cut_loses_nothing() {
    for bad in Copy::BOTH {
        let (world, _, page) = one_copy_bad(bad);
        let mut medium = world.spare.contents();
        // The page behind the last one was being written.
        medium.set_block(page + 1, &filled(7));
        let again = world.after_crash(medium);
        let host = again.open();
        assert_eq!(mappings(&host.engine).len(), 3);
        assert_eq!(host.engine.status().state, SetState::Online);
    }
}

/// Found by the simulation: only copy A had the last page, nothing could be made whole, and the page was lost later.
#[test]
fn a_last_page_that_one_copy_has_is_noted_before_anything_rests_on_it() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let layout = host.engine.layout();
    let mut medium = world.spare.contents();
    medium.clear(layout.log_page(Copy::B, Area::Zero, 2).0, 1);
    let again = world.after_crash(medium);
    for copy in Copy::BOTH {
        again.spare.fail(log_fault(&host, copy, Verb::Write));
    }
    let host = again.open();
    assert_eq!(host.engine.status().state, SetState::Degraded);
    again.write(&host, 11, filled(3)).unwrap();
    let mut medium = again.spare.contents();
    medium.clear(layout.log_page(Copy::A, Area::Zero, 2).0, 1);
    let refused = World::with(medium, true).open_with(params()).map(drop);
    assert_eq!(refused, Err(Error::PagesLost { known: sequence(3), found: sequence(2) }));
}

/// Found by the simulation: a page was in doubt, the next process found it and relied on it, and both copies lost it.
#[test]
fn a_page_in_doubt_that_the_next_process_finds_is_noted_before_anything_rests_on_it() {
    let (world, host) = world();
    for copy in Copy::BOTH {
        world.spare.fail(log_fault(&host, copy, Verb::Write).with_effect(Effect::Everything).times(1));
    }
    // Nothing goes to the other area.
    let layout = host.engine.layout();
    for copy in Copy::BOTH {
        let first = layout.log_page(copy, Area::One, 0).0;
        world.spare.fail(Fault::new(Verb::Write, first..first + layout.area_blocks(), WRITE_FAULT));
    }
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    let world = world.restarted();
    let host = world.open();
    world.write(&host, 11, filled(3)).unwrap();
    let mut medium = world.spare.contents();
    Copy::BOTH.iter().for_each(|copy| medium.flip(layout.log_page(*copy, Area::Zero, 2).0, 99));
    let refused = World::with(medium, true).open_with(params()).map(drop);
    assert_eq!(refused, Err(Error::PagesLost { known: sequence(3), found: sequence(2) }));
}

#[test]
fn a_dead_log_copy_is_survived_for_ever() {
    for copy in Copy::BOTH {
        let (world, host) = world();
        world.spare.fail(log_fault(&host, copy, Verb::Write));
        world.spare.fail(log_fault(&host, copy, Verb::Read));
        for at in 11..90 {
            world.write(&host, at, filled(at)).unwrap();
        }
        assert_eq!(host.engine.status().state, SetState::Degraded);
        assert!(host.engine.status().epoch > epoch(1), "the area was full, and a checkpoint went to one copy");
        assert!(!world.save(&host).unwrap().all_copies);
        let again = world.after_kill();
        let host = again.open();
        assert_eq!(mappings(&host.engine).len(), 80);
        assert_eq!(value(&again.read(&host, 80, 1).unwrap()), 80);
    }
}

/// With both copies failing, whether or not the page reached the medium, no acknowledged write is lost.
#[test]
fn in_doubt_nothing_acknowledged_is_lost() {
    for effect in [Effect::Nothing, Effect::Everything] {
        let (world, host) = world();
        let log = host.engine.status().epoch;
        world.spare.fail(log_fault(&host, Copy::A, Verb::Write).times(1).with_effect(effect));
        world.spare.fail(log_fault(&host, Copy::B, Verb::Write).times(1).with_effect(effect));
        let free = host.engine.status().spare.free;
        assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
        assert_eq!(mappings(&host.engine)[1], (lba(11), Mapping::Pending));
        assert_eq!(host.engine.status().state, SetState::Degraded);
        assert_eq!(host.engine.status().spare.free, free - 1, "its spare block is in doubt");
        // What is on the medium now may say either.
        let crashed = world.spare.contents();
        // The base could take the block now, but a write of it must not be acknowledged without a commit.
        world.base.heal();
        let writes = world.base.writes();
        world.write(&host, 11, filled(3)).unwrap();
        assert_eq!(world.base.writes(), writes);
        let status = host.engine.status();
        assert_eq!((status.state, status.epoch), (SetState::Online, log.plus(1)));
        assert_eq!(status.spare.free, free - 1, "the one in doubt is free again, another is used");
        let again = world.after_kill();
        let host = again.open();
        assert_eq!(value(&again.read(&host, 11, 1).unwrap()), 3);
        assert_eq!(value(&again.read(&host, 10, 1).unwrap()), 1);
        // Without the commit behind it, the failed write may have happened or not.
        let early = again.after_crash(crashed);
        let host = early.open();
        let found = value(&early.read(&host, 11, 1).unwrap());
        assert!(found == 0 || (found == 2 && effect == Effect::Everything), "{found}");
    }
}

#[test]
fn a_move_between_spare_blocks_that_is_in_doubt_fails_reads_until_it_is_settled() {
    for effect in [Effect::Nothing, Effect::Everything] {
        let (world, host) = world();
        let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!() };
        let at = host.engine.layout().data(old);
        world.spare.fail(Fault::new(Verb::Write, at.0..at.0 + 1, WRITE_FAULT).times(2));
        world.spare.fail(log_fault(&host, Copy::A, Verb::Write).times(1).with_effect(effect));
        world.spare.fail(log_fault(&host, Copy::B, Verb::Write).times(1).with_effect(effect));
        assert_eq!(world.write(&host, 10, filled(2)), Err(WRITE_FAULT));
        assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Lost(old))]);
        assert_eq!(world.read(&host, 10, 1), Err(READ_ERROR));
        // The old spare block takes writes again; this one must not be acknowledged without a commit.
        let epoch = host.engine.status().epoch;
        world.write(&host, 10, filled(3)).unwrap();
        assert!(host.engine.status().epoch > epoch);
        assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Spare(old))]);
        let again = world.after_kill();
        assert_eq!(value(&again.read(&again.open(), 10, 1).unwrap()), 3);
    }
}

/// Copies a remapped block back to the base, as `remove` will do, and gives it up on the spare.
fn give_back(world: &World, host: &Vbdev, at: u64) -> Result<(), remap_core::Refused> {
    let data = world.read(host, at, 1).unwrap();
    world.base.heal();
    let (base, engine) = (world.base.clone(), Rc::clone(&host.engine));
    let moved = async move {
        Device::write(&base, at, data).await.1.unwrap();
        engine.clear(vec![lba(at)]).await
    };
    world.executor.block_on(moved).unwrap()
}

#[test]
fn a_block_that_is_given_back_lives_on_the_base_and_its_spare_block_is_used_again() {
    let (world, host) = world();
    let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!() };
    give_back(&world, &host, 10).unwrap();
    world.quiet();
    assert!(host.engine.table().is_empty());
    assert_eq!(host.engine.status().spare.free, 138);
    assert_eq!(world.read(&host, 10, 1).unwrap(), filled(1));
    // All spare blocks are in use once, the old one too.
    world.bad_for_writes(100, 200);
    for at in 100..238 {
        world.write(&host, at, filled(at)).unwrap();
    }
    assert!(mappings(&host.engine).iter().any(|(_, to)| to.spare() == Some(old)));
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(mappings(&host.engine).len(), 138);
    assert_eq!(again.read(&host, 10, 1).unwrap(), filled(1));
}

/// Reads a remapped block from a slow spare, gives it back meanwhile, and takes all spare blocks that are free; whether the one
/// that is being read is among them, and once more when the read is over.
fn is_given_out_while_it_is_read() -> (bool, bool) {
    let (world, host) = world();
    let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!() };
    world.base.heal();
    let taken = move |engine: Rc<SimEngine>| async move {
        let free = engine.status().spare.free;
        let targets = engine.reserve((1000..1000 + free).map(BaseLba).collect()).await.unwrap();
        let taken: Vec<_> = targets.into_iter().map(Target::spare).collect();
        let is_taken = taken.contains(&old);
        engine.release(taken).await;
        is_taken
    };
    let (base, spare, engine, reader) =
        (world.base.clone(), world.spare.clone(), Rc::clone(&host.engine), host.clone());
    let timing = Random::new(0);
    let test = async move {
        let moved = async {
            Device::write(&base, 10, filled(1)).await.1.unwrap();
            spare.set_timing(&timing, 1_000_000);
            let read = reader.read(10, 1);
            let cleared = async {
                spare.set_timing(&timing, 1);
                engine.clear(vec![lba(10)]).await.unwrap();
                let during = taken(Rc::clone(&engine)).await;
                assert!(!spare.under_way().is_empty(), "the read is not over");
                during
            };
            join(read, cleared).await
        };
        let (read, during) = engine.with_range_locked(Extent::new(lba(10), 1), moved).await;
        assert_eq!(read, Ok(filled(1)));
        (during, engine)
    };
    let (during, engine) = world.executor.block_on(test).unwrap();
    world.quiet();
    (during, world.executor.block_on(taken(engine)).unwrap())
}

#[test]
fn a_spare_block_that_is_free_again_is_not_given_out_while_it_is_read() {
    assert_eq!(is_given_out_while_it_is_read(), (false, true));
}

/// That the test above can fail: the simulation hardly ever meets a read that is as slow as it takes.
#[cfg(feature = "mutations")]
mod mutations {
    use super::*;
    use remap_core::mutation::Mutation;

    #[test]
    fn a_spare_block_that_is_not_drained_is_given_out_while_it_is_read() {
        assert_eq!(with_bug(Mutation::FreedSpareNotDrained, is_given_out_while_it_is_read), (true, true));
    }
}

#[test]
fn a_block_whose_return_is_in_doubt_can_be_read_and_is_written_only_with_a_commit() {
    for effect in [Effect::Nothing, Effect::Everything] {
        let (world, host) = world();
        for copy in Copy::BOTH {
            world.spare.fail(log_fault(&host, copy, Verb::Write).with_effect(effect));
        }
        assert_eq!(give_back(&world, &host, 10), Err(remap_core::Refused::LogFailed));
        assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Pending)]);
        assert_eq!(world.read(&host, 10, 1).unwrap(), filled(1), "it is in both places");
        let doubtful = world.spare.contents();
        assert_eq!(world.write(&host, 10, filled(2)), Err(WRITE_FAULT), "nothing can be committed");
        let again = world.after_crash(doubtful);
        assert_eq!(again.read(&again.open(), 10, 1).unwrap(), filled(1));
    }
}

#[test]
fn a_return_in_doubt_is_settled_by_the_next_checkpoint() {
    let (world, host) = world();
    for copy in Copy::BOTH {
        world.spare.fail(log_fault(&host, copy, Verb::Write).times(2));
    }
    let Place::Spare(old) = host.engine.table().lookup(lba(10)) else { panic!() };
    assert_eq!(give_back(&world, &host, 10), Err(remap_core::Refused::LogFailed));
    world.spare.heal();
    world.quiet();
    assert_eq!(mappings(&host.engine), [(lba(10), Mapping::Spare(old))]);
    world.write(&host, 10, filled(3)).unwrap();
    assert_eq!(world.base.contents().block(10), filled(1), "it went to the spare");
    let again = world.after_kill();
    assert_eq!(again.read(&again.open(), 10, 1).unwrap(), filled(3));
}

#[test]
fn what_is_in_doubt_stays_so_until_a_checkpoint_succeeds() {
    let (world, host) = world();
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    world.spare.fail(log_fault(&host, Copy::B, Verb::Write));
    for round in 0..3 {
        assert_eq!(world.write(&host, 11, filled(round)), Err(WRITE_FAULT));
        assert_eq!(world.write(&host, 12, filled(round)), Err(WRITE_FAULT));
    }
    assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    assert_eq!(world.read(&host, 10, 1).unwrap(), filled(1), "what was remapped still works");
    let free = host.engine.status().spare.free;
    assert_eq!(free, 138 - 2, "one used, one in doubt: no reservation is left behind");
    world.spare.heal();
    let saved = world.save(&host).unwrap();
    assert!(saved.epoch > epoch(3), "no epoch is used twice: {}", saved.epoch);
    assert_eq!(mappings(&host.engine).len(), 1, "and what was true before is so again");
    assert_eq!(host.engine.status().spare.free, 137);
    assert_eq!(world.after_kill().open().engine.status().state, SetState::Online);
}

#[test]
fn a_failed_checkpoint_leaves_the_old_area_in_force() {
    let (world, host) = world();
    // The other area cannot be written at all.
    let layout = host.engine.layout();
    for copy in Copy::BOTH {
        let first = layout.log_page(copy, Area::One, 0).0;
        world.spare.fail(Fault::new(Verb::Write, first..first + 65, IoStatus::Failed));
    }
    assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    // A checkpoint of one page may be complete all the same, so nothing may be appended to the old area.
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    let again = world.after_kill();
    assert_eq!(mappings(&again.open().engine).len(), 1);
    world.spare.heal();
}

#[test]
fn data_that_cannot_be_flushed_is_not_committed() {
    let (world, host) = world();
    world.spare.fail(Fault::of_flush(IoStatus::Failed).times(1));
    assert_eq!(world.write(&host, 11, filled(2)), Err(WRITE_FAULT));
    assert_eq!(mappings(&host.engine).len(), 1);
    assert_eq!(host.engine.status().spare.free, 137, "the reservation was given back");
    world.write(&host, 11, filled(3)).unwrap();
}

/// As Linux does with fsync: what could not be written out is forgotten, and the next flush succeeds. Whichever flush it is,
/// nothing rests on what was dropped.
#[test]
fn a_flush_that_failed_and_dropped_what_was_written_is_no_flush_the_next_time() {
    for status in [IoStatus::Aio(-libc::ENOSPC), IoStatus::Other(-5)] {
        let mut failed = [Vec::new(), Vec::new()];
        for passes in 0..8 {
            let (world, host) = world();
            world.save(&host).unwrap();
            let flushing = host.clone();
            world.executor.block_on(async move { flushing.flush().await }).unwrap().unwrap();
            world.spare.fail(Fault::of_flush(status).after(passes).times(1).with_effect(Effect::Dropped));
            let written =
                [(11, 2), (12, 3)].map(|(at, data)| world.write(&host, at, filled(data)).map(|()| (at, data)));
            let after = world.after_crash(world.spare.left_by(|_, _| 0));
            let again = after.open();
            for (written, failed) in written.into_iter().zip(&mut failed) {
                match written {
                    Ok((at, data)) => assert_eq!(value(&after.read(&again, at, 1).unwrap()), data, "after {passes}"),
                    Err(_) => failed.push(passes),
                }
            }
            assert_eq!(value(&after.read(&again, 10, 1).unwrap()), 1);
        }
        // A flush of data, and one of either copy: two copies are two.
        assert_eq!(failed, [vec![0], vec![3]], "{status:?}");
    }
}

#[test]
fn restore_does_not_use_the_epochs_of_failed_checkpoints_again() {
    let (world, host) = world();
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    world.spare.fail(log_fault(&host, Copy::B, Verb::Write));
    for _ in 0..3 {
        assert_eq!(world.save(&host), Err(Error::CheckpointFailed));
    }
    world.spare.heal();
    let engine = Rc::clone(&host.engine);
    world.executor.block_on(async move { engine.restore(false).await }).unwrap().unwrap();
    // Epochs 2 to 4 failed, at least; they may be complete on the spare.
    assert!(world.save(&host).unwrap().epoch >= epoch(5));
    assert_eq!(mappings(&host.engine).len(), 1);
}

/// Copy B alone is not proof that copy A had been written, if that had failed.
#[test]
fn a_crash_in_a_checkpoint_on_copy_b_alone_falls_back_to_the_old_area() {
    let world = World::with(Medium::new(BLOCK, 2000), true);
    world.bad_for_writes(0, 2000);
    let host = world.open();
    for at in 0..300 {
        let host = host.clone();
        world.executor.spawn(async move { host.write(at * 2, filled(at)).await.unwrap() });
    }
    world.executor.run();
    world.spare.fail(log_fault(&host, Copy::A, Verb::Write));
    // Copy B has one page of two when power fails.
    world.spare.die_at(world.spare.steps() + 1);
    let engine = Rc::clone(&host.engine);
    assert!(world.executor.block_on(async move { engine.save().await }).is_none());
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(mappings(&host.engine).len(), 300);
    assert_eq!(host.engine.status().state, SetState::Online, "a fresh checkpoint was written");
    assert_eq!(host.engine.status().epoch, epoch(3));
}
