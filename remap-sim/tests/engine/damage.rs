//! Pages that are lost, changed, in the wrong place, or hidden by read errors when a set is opened.

use super::*;
use remap_core::format::PageInfo;

#[test]
fn a_log_that_lost_its_end_on_both_copies_is_refused_once_the_set_was_quiet_or_closed() {
    for close in [false, true] {
        let (world, host) = world();
        world.write(&host, 11, filled(2)).unwrap();
        if close {
            world.close(&host);
        } else {
            world.quiet();
        }
        let layout = host.engine.layout();
        let mut medium = world.spare.contents();
        for copy in Copy::BOTH {
            medium.clear(layout.log_page(copy, Area::Zero, 2).0, 1);
        }
        let again = World::with(medium, true);
        let lost = Error::PagesLost { known: sequence(3), found: sequence(2) };
        assert_eq!(again.open_with(params()).map(drop), Err(lost));
    }
}

/// A checkpoint that dies behind its copy A is hidden by a read error, the older area is gone on with, and it comes back.
#[test]
fn what_a_read_error_hid_at_open_does_not_win_later() {
    for status in [READ_ERROR, IoStatus::Aborted] {
        let (world, host) = world();
        let layout = host.engine.layout();
        let hidden = layout.log_page(Copy::A, Area::One, 0).0;
        let mut medium = world.spare.contents();
        world.save(&host).unwrap();
        medium.set_block(hidden, &world.spare.contents().block(hidden));
        let world = world.after_crash(medium);
        world.spare.fail(Fault::new(Verb::Read, hidden..hidden + 1, status));
        if status == IoStatus::Aborted {
            // It says nothing about the page, so nothing rests on it.
            let refused = world.open_with(params()).map(drop);
            assert!(matches!(refused, Err(Error::Io { what: "read", .. })), "{refused:?}");
            assert_eq!(world.spare.writes(), 0);
            continue;
        }
        world.spare.fail(Fault::new(Verb::Write, hidden..hidden + 1, WRITE_FAULT));
        let host = world.open();
        for at in 11..60 {
            world.write(&host, at, filled(at)).unwrap();
        }
        world.spare.heal();
        let again = world.after_kill();
        let host = again.open();
        assert_eq!(mappings(&host.engine).len(), 50);
        assert_eq!(value(&again.read(&host, 59, 1).unwrap()), 59);
    }
}

/// Of a set with two remapped blocks: a page of an attempt under a much higher epoch, which later opens could not see and went over, is
/// in copy A again, as if what was written there since had been lost. Copy B is whole.
fn with_an_attempt_that_comes_back(area: Area) -> World {
    let (world, host) = world();
    world.save(&host).unwrap();
    world.write(&host, 11, filled(2)).unwrap();
    world.quiet();
    let mut medium = world.spare.contents();
    let owner = PageOwner { set_uuid: host.engine.set_uuid(), spare_id: params().fresh_spare_id };
    let info = PageInfo { epoch: epoch(1 << 32), sequence: sequence(3), checkpoint_pages: 1 };
    let mut block = vec![0; BLOCK as usize];
    let end = Record::EndOfCheckpoint.encode();
    encode_page(&mut block, owner, PageAt { copy: Copy::A, area, index: 0 }, info, &[end]);
    medium.set_block(host.engine.layout().log_page(Copy::A, area, 0).0, &block);
    world.after_crash(medium)
}

/// Found by the simulation.
#[test]
fn an_attempt_that_was_given_up_and_comes_back_in_one_copy_is_no_loss() {
    for area in Area::BOTH {
        let again = with_an_attempt_that_comes_back(area);
        let host = again.open();
        assert_eq!(mappings(&host.engine).len(), 2);
        assert_eq!(host.engine.status().state, SetState::Online);
        // Nor later, as nothing has its epoch or a lower one.
        again.save(&host).unwrap();
        assert!(host.engine.status().epoch > epoch(1 << 32));
        assert_eq!(mappings(&again.after_kill().open().engine).len(), 2);
    }
}

/// The process dies before a page is in copy B. Copy A reads as it was before that, and the block is written to the base; then copy A
/// tells the truth. What the block holds for a host, and the world of the last process.
fn after_a_page_that_a_stale_copy_hid(trouble: impl Fn(&World, &Vbdev)) -> (u64, World) {
    let (world, host) = world();
    let before = world.spare.contents();
    world.write(&host, 11, filled(2)).unwrap();
    let [a, b] = Copy::BOTH.map(|copy| host.engine.layout().log_page(copy, Area::Zero, 2).0);
    let mut medium = world.spare.contents();
    medium.clear(b, 1);
    let world = world.after_crash(medium);
    world.spare.set_past(Some(before));
    world.spare.fail(Fault::new(Verb::Read, a..a + 1, IoStatus::Failed).with_effect(Effect::Stale).times(1));
    world.base.heal();
    trouble(&world, &host);
    let host = world.open();
    assert_eq!(mappings(&host.engine).len(), 1, "block 11 is not known to be remapped");
    world.write(&host, 11, filled(3)).unwrap();
    let world = world.after_kill();
    let host = world.open();
    assert_eq!(host.engine.status().state, SetState::Online);
    (value(&world.read(&host, 11, 1).unwrap()), world)
}

#[test]
fn a_page_that_a_stale_copy_hid_at_open_does_not_come_back() {
    assert_eq!(after_a_page_that_a_stale_copy_hid(|_, _| {}).0, 3);
}

fn after_a_page_that_nobody_saw_and_no_checkpoint() -> (u64, World) {
    after_a_page_that_a_stale_copy_hid(|world, host| log_cannot_be_written(world, host, Effect::Nothing))
}

/// Found by the simulation.
#[test]
fn nor_does_it_if_no_checkpoint_could_be_written() {
    let (holds, world) = after_a_page_that_nobody_saw_and_no_checkpoint();
    assert_eq!(holds, 3);
    // It is void for good: there is a new epoch.
    assert_eq!(mappings(&world.after_kill().open().engine).len(), 1);
}

/// No checkpoint can be written, as far as the device says, and what is there is restored; behind it, an attempt to zero the area has
/// torn a page in both copies. Nothing was appended there, and the superblocks say so.
#[test]
fn what_was_restored_and_not_saved_is_not_refused_later() {
    let (world, host) = world();
    let world = world.after_kill();
    log_cannot_be_written(&world, &host, Effect::Everything);
    let host = world.open();
    world.restore(&host, false);
    world.spare.heal();
    log_cannot_be_written(&world, &host, Effect::Nothing);
    for copy in Copy::BOTH {
        let page = host.engine.layout().log_page(copy, Area::Zero, 1).0;
        world.spare.rot(|medium| medium.set_block(page, &filled(7)));
    }
    world.restore(&host, false);
    assert_eq!(host.engine.status().epoch, epoch(3));
    world.close(&host);
    let world = world.after_kill();
    let host = world.open();
    assert_eq!((host.engine.status().state, mappings(&host.engine).len()), (SetState::Online, 1));
}

/// What a process that died had under way is settled at the next start; after a clean close there is nothing to settle.
#[test]
fn a_set_that_was_not_closed_is_saved_when_it_is_opened() {
    let (world, host) = world();
    let world = world.after_kill();
    let again = world.open();
    assert_eq!((host.engine.status().epoch, again.engine.status().epoch), (epoch(1), epoch(2)));
    world.close(&again);
    let world = world.after_kill();
    assert_eq!(world.open().engine.status().epoch, epoch(2));
    // It did nothing, so that its death does not matter.
    let world = world.after_kill();
    assert_eq!(world.open().engine.status().epoch, epoch(2));
    assert_eq!(world.spare.writes(), 0);
}

#[test]
fn an_error_at_open_that_passes_is_waited_for() {
    let (world, host) = world();
    world.close(&host);
    let world = world.after_kill();
    let blocks = host.engine.layout().spare_blocks;
    world.spare.fail(Fault::new(Verb::Read, 0..blocks, IoStatus::Aborted).times(4));
    let host = world.open();
    assert_eq!(mappings(&host.engine).len(), 1);
    assert_eq!(world.spare.writes(), 0);
}

/// A crash between a checkpoint and its superblocks: they catch up at once, so that they know when the area is lost.
#[test]
fn superblocks_catch_up_after_a_crash_between_checkpoint_and_superblocks() {
    let (world, host) = world();
    let superblocks = [0, SPARE_BLOCKS - 1].map(|at| (at, world.spare.contents().block(at)));
    world.save(&host).unwrap();
    let mut medium = world.spare.contents();
    superblocks.iter().for_each(|(at, block)| medium.set_block(*at, block));
    let world = world.after_crash(medium);
    world.bad_for_writes(11, 20);
    let host = world.open();
    for at in [11, 12, 13] {
        world.write(&host, at, filled(at)).unwrap();
    }
    let (layout, at) = (host.engine.layout(), host.engine.status().epoch);
    assert_eq!(at, epoch(3), "a checkpoint of its own, and superblocks that know it");
    let mut medium = world.spare.contents();
    for copy in Copy::BOTH {
        medium.clear(layout.log_page(copy, Area::Zero, 0).0, layout.area_blocks());
    }
    let refused = World::with(medium, true).open_with(params()).map(drop);
    assert_eq!(refused, Err(Error::EpochLost { known: epoch(3), found: epoch(2) }));
}

/// A write went to another place of the log as well: that is one bad page, as any other.
#[test]
fn a_misdirected_page_is_bad_and_nothing_else() {
    let (world, host) = world();
    for at in 11..14 {
        world.write(&host, at, filled(at)).unwrap();
    }
    let layout = host.engine.layout();
    let medium = world.spare.contents();
    let pages = |copy, area| (0..5).map(move |page| layout.log_page(copy, area, page).0);
    let of_a: Vec<_> = Area::BOTH.into_iter().flat_map(|area| pages(Copy::A, area)).collect();
    let all = of_a.iter().copied().chain(pages(Copy::B, Area::Zero));
    for from in all {
        for to in &of_a {
            let mut misdirected = medium.clone();
            misdirected.set_block(*to, &medium.block(from));
            let again = world.after_crash(misdirected);
            let host = again.open();
            assert_eq!(mappings(&host.engine).len(), 4, "from {from} to {to}");
            assert_eq!(host.engine.status().state, SetState::Online);
        }
    }
}

/// What loading found to be bad is made whole, so that the other copy may lose the same page later.
#[test]
fn damage_found_while_loading_is_healed_before_the_other_copy_is_needed() {
    let (mut world, host) = world();
    for at in 11..15 {
        world.write(&host, at, filled(at)).unwrap();
    }
    let layout = host.engine.layout();
    for copy in Copy::BOTH {
        let mut medium = world.spare.contents();
        for page in 0..8 {
            medium.clear(layout.log_page(copy, Area::Zero, page).0, 1);
            medium.clear(layout.log_page(copy, Area::One, page).0, 1);
        }
        world = world.after_crash(medium);
        assert_eq!(mappings(&world.open().engine).len(), 5);
    }
}

/// A page that cannot be read where the log ends may be read later, and count: nothing is served before it is made void.
#[test]
fn a_set_is_not_served_while_a_page_at_the_end_may_come_back() {
    let (world, host) = world();
    let at = host.engine.layout().log_page(Copy::A, Area::Zero, 2).0;
    world.write(&host, 11, filled(2)).unwrap();
    let mut medium = world.spare.contents();
    // As a crash behind copy A leaves it.
    medium.clear(host.engine.layout().log_page(Copy::B, Area::Zero, 2).0, 1);
    let world = world.after_crash(medium);
    world.spare.fail(Fault::new(Verb::Read, at..at + 1, READ_ERROR));
    world.spare.fail(Fault::new(Verb::Write, 0..SPARE_BLOCKS, WRITE_FAULT));
    assert_eq!(world.open_with(params()).map(drop), Err(Error::CheckpointFailed));
    world.spare.heal();
    let host = world.open();
    assert_eq!(value(&world.read(&host, 11, 1).unwrap()), 2);
}

#[test]
fn what_an_operator_accepts_to_lose_is_lost_and_nothing_else() {
    let (world, host) = world();
    for at in 11..14 {
        world.write(&host, at, filled(at)).unwrap();
    }
    world.quiet();
    let layout = host.engine.layout();
    let mut medium = world.spare.contents();
    Copy::BOTH.iter().for_each(|copy| medium.flip(layout.log_page(*copy, Area::Zero, 3).0, 77));
    let again = world.after_crash(medium.clone());
    let refused = again.open_with(params()).err().unwrap();
    let (spare, threads) = (again.spare.clone(), Threads::in_order(&again.executor));
    let inspection = again.executor.block_on(async move { inspect(spare, threads).await }).unwrap().unwrap();
    assert_eq!((again.spare.contents(), again.spare.writes()), (medium, 0), "inspecting writes nothing");
    assert_eq!(inspection.refusal, Some(refused));
    let states: Vec<_> = inspection.candidates.iter().map(|one| (one.epoch, one.sequence)).collect();
    assert_eq!(states, [(epoch(1), sequence(3))]);
    let area = &inspection.areas.unwrap()[Area::Zero];
    assert_eq!(area.pages[Copy::A], PageCounts { current: 4, older: 0, zero: 60, bad: 1 });
    let run = |first, pages, view| PageRun { first, pages, holds: PerCopy([view; 2]) };
    let (valid, bad, zero) = (PageView::Valid(epoch(1)), PageView::Bad, PageView::Zero);
    assert_eq!(area.runs, [run(0, 3, valid), run(3, 1, bad), run(4, 1, valid), run(5, 60, zero)]);
    assert_eq!(inspection.in_force, None);
    let stated = |last| {
        let stated_end = Some(remap_core::StatedEnd { epoch: epoch(1), sequence: sequence(last) });
        OpenParams { stated_end, ..params() }
    };
    let wrong = again.open_with(stated(4)).map(drop);
    assert_eq!(wrong, Err(Error::NoSuchState { epoch: epoch(1), sequence: sequence(4) }));
    let host = again.open_with(stated(3)).unwrap();
    let held: Vec<_> = mappings(&host.engine).iter().map(|(lba, _)| lba.0).collect();
    assert_eq!(held, [10, 11]);
    // From then on it is as any other.
    assert_eq!(mappings(&again.after_kill().open().engine).len(), 2);
}

#[test]
fn rot_of_one_copy_is_healed_and_rot_of_both_is_refused() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    world.write(&host, 12, filled(3)).unwrap();
    let layout = host.engine.layout();
    let medium = world.spare.contents();
    for page in 0..3 {
        for copy in Copy::BOTH {
            let mut rotten = medium.clone();
            rotten.flip(layout.log_page(copy, Area::Zero, page).0, 77);
            let again = world.after_crash(rotten);
            let host = again.open();
            assert_eq!(host.engine.status().state, SetState::Online, "page {page}");
            assert!(host.engine.status().metadata.healed_at.is_some(), "page {page}");
            assert_eq!(mappings(&host.engine).len(), 3);
        }
        let mut rotten = medium.clone();
        Copy::BOTH.iter().for_each(|copy| rotten.flip(layout.log_page(*copy, Area::Zero, page).0, 77));
        let again = world.after_crash(rotten.clone());
        assert!(again.open_with(params()).is_err(), "page {page}");
        assert_eq!(again.spare.contents(), rotten);
    }
}

/// That tests above can fail: the simulation seldom meets what they are about.
/// All pages are looked at before those in force are read again for their records. The one that is not as it was then is valid, of an older epoch.
#[test]
fn a_page_that_is_not_read_again_as_it_was_seen_comes_from_the_other_copy() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let before = world.spare.contents();
    for _ in 0..2 {
        world.save(&host).unwrap();
    }
    for lba in [12, 13] {
        world.write(&host, lba, filled(lba)).unwrap();
    }
    let held = mappings(&host.engine);
    world.close(&host);
    let opened = |copies: &[Copy], effect| {
        let world = world.after_kill();
        world.spare.set_past(Some(before.clone()));
        for copy in copies {
            let page = host.engine.layout().log_page(*copy, Area::Zero, 2).0;
            world.spare.fail(Fault::new(Verb::Read, page..page + 1, READ_ERROR).with_effect(effect).after(1));
        }
        world.open_with(params()).map(|host| mappings(&host.engine))
    };
    for effect in [Effect::Nothing, Effect::Stale] {
        assert_eq!(Copy::BOTH.map(|copy| opened(&[copy], effect)), [Ok(held.clone()), Ok(held.clone())], "{effect:?}");
        let lost = opened(&Copy::BOTH, effect);
        assert!(
            matches!(lost, Err(Error::LogDamaged { what: "a page cannot be read again", page: 2, .. })),
            "{lost:?}"
        );
    }
}

#[cfg(feature = "mutations")]
mod mutations {
    use super::*;
    use remap_core::mutation::Mutation;

    #[test]
    fn a_whole_set_is_refused_or_has_less_if_an_attempt_counts_that_was_given_up() {
        for area in Area::BOTH {
            let opened =
                with_bug(Mutation::GivenUpCounts, || with_an_attempt_that_comes_back(area).open_with(params()));
            let left = opened.map(|host| mappings(&host.engine).len());
            assert_ne!(left, Ok(2), "{area:?}");
        }
    }

    #[test]
    fn a_page_that_was_not_seen_comes_back_if_the_end_is_not_noted() {
        let (holds, _) = with_bug(Mutation::EndNotNoted, after_a_page_that_nobody_saw_and_no_checkpoint);
        assert_eq!(holds, 2);
    }
}
