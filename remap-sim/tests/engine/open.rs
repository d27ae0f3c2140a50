//! Opening: what is formatted, what is loaded, what is refused; and that a refusal has written nothing.

use super::*;
use remap_core::Owner;
use remap_core::format::{OtherSpare, SpareState};

/// A spare with one remapped block.
fn formatted() -> Medium {
    let world = World::new();
    world.bad_for_writes(5, 1);
    let host = world.open();
    world.write(&host, 5, filled(55)).unwrap();
    world.spare.contents()
}

#[test]
fn an_empty_spare_is_formatted_and_loaded_again() {
    let world = World::new();
    let host = world.open();
    let engine = &host.engine;
    assert_eq!(engine.set_uuid(), Uuid::from_u128(1));
    let status = engine.status();
    assert_eq!((status.state, status.epoch, status.remapped), (SetState::Online, epoch(1), 0));
    assert_eq!(status.spare, SpareUsage { total: 138, used: 0, free: 138, bad: 0 });
    assert!(engine.table().is_empty());
    world.close(&host);
    let again = world.after_kill();
    let params = OpenParams { format: FormatPolicy::Never, set_uuid: Some(Uuid::from_u128(1)), ..params() };
    let engine = again.open_with(params).unwrap().engine;
    assert_eq!(engine.status().epoch, epoch(1), "nothing was wrong, so nothing was written");
    assert_eq!(again.spare.writes(), 0);
}

#[test]
fn an_empty_spare_is_refused_with_never() {
    let params = OpenParams { format: FormatPolicy::Never, ..params() };
    assert_eq!(refused(Medium::new(BLOCK, SPARE_BLOCKS), params), Error::Empty);
}

#[test]
fn a_mapping_survives_reopening_and_force_does_not_erase_it() {
    for format in [FormatPolicy::Auto, FormatPolicy::Never, FormatPolicy::Force] {
        let world = World::with(formatted(), true);
        let host = world.open_with(OpenParams { format, ..params() }).unwrap();
        assert_eq!(mappings(&host.engine).len(), 1);
        assert_eq!(value(&world.read(&host, 5, 1).unwrap()), 55);
    }
}

#[test]
fn what_belongs_to_others_is_refused() {
    let medium = formatted();
    let uuid = Uuid::from_u128(9);
    let base = refused(medium.clone(), OpenParams { base_uuid: uuid, ..params() });
    assert_eq!(base, Error::ForeignBase { found: Uuid::from_u128(3), expected: uuid });
    let set = refused(medium.clone(), OpenParams { set_uuid: Some(uuid), ..params() });
    assert_eq!(set, Error::SetDiffers { found: Uuid::from_u128(1), expected: uuid });
    let name = refused(medium.clone(), OpenParams { name: "Other".into(), ..params() });
    assert_eq!(name, Error::NameDiffers { found: "Remap0".into(), expected: "Other".into() });
    let md = refused(medium.clone(), OpenParams { md_size: 8, ..params() });
    assert_eq!(md, Error::MdSizeDiffers { found: 0, expected: 8 });
    // Not even with force: it is a valid set.
    let forced = OpenParams { format: FormatPolicy::Force, base_uuid: uuid, ..params() };
    assert!(matches!(refused(medium, forced), Error::ForeignBase { .. }));
}

#[test]
fn a_spare_that_is_not_active_is_refused() {
    for (state, name) in [
        (SpareState::Retired, "retired"),
        (SpareState::MigratingOut, "migrating-out"),
        (SpareState::MigratingIn, "migrating-in"),
    ] {
        let other = Some(OtherSpare { id: Uuid::from_u128(8), state: SpareState::Active });
        let change = |superblock: &mut Superblock| (superblock.state, superblock.other) = (state, other);
        let error = refused(patched(formatted(), change), params());
        assert_eq!(error, Error::NotActive { state: name, other: Uuid::from_u128(8) });
    }
}

#[test]
fn what_ends_a_spare_counts_only_when_both_superblocks_say_so() {
    for (state, in_force) in
        [(SpareState::Retired, true), (SpareState::MigratingOut, true), (SpareState::MigratingIn, false)]
    {
        for at in [0, SPARE_BLOCKS - 1] {
            let mut medium = formatted();
            let ended = patched(medium.clone(), |superblock| {
                superblock.state = state;
                superblock.other = Some(OtherSpare { id: Uuid::from_u128(8), state: SpareState::Active });
                superblock.sequence = superblock.sequence.plus(1);
            });
            medium.set_block(at, &ended.block(at));
            let world = World::with(medium.clone(), true);
            assert_eq!(world.open_with(params()).is_ok(), in_force, "{state:?} in the superblock at {at} alone");
            // If that is the only one that can be read, it counts.
            medium.clear(SPARE_BLOCKS - 1 - at, 1);
            assert!(matches!(refused(medium, params()), Error::NotActive { .. }));
        }
    }
}

#[test]
fn a_set_of_another_host_is_taken_over_only_on_request_and_its_generation_is_raised() {
    let ours = |number| OpenParams { host_id: Uuid::from_u128(number), ..params() };
    let superblocks = |medium: &Medium| {
        [0, SPARE_BLOCKS - 1].map(|at| match Superblock::decode(&medium.block(at)) {
            SuperblockContent::Valid(superblock) => (superblock.host_id, superblock.generation),
            other => panic!("{other:?}"),
        })
    };
    let world = World::new();
    world.open_with(ours(1)).unwrap();
    let medium = world.spare.contents();
    assert_eq!(superblocks(&medium), [(Uuid::from_u128(1), 1); 2]);
    let other = Error::OtherHost { found: Uuid::from_u128(1), expected: Uuid::from_u128(2) };
    assert_eq!(refused(medium.clone(), ours(2)), other);
    let world = World::with(medium, true);
    world.open_with(OpenParams { take_over: true, ..ours(2) }).unwrap();
    assert_eq!(superblocks(&world.spare.contents()), [(Uuid::from_u128(2), 2); 2]);
    // Whoever has no identity takes any.
    world.after_kill().open();
}

/// The superblocks' size of the base.
pub(crate) fn base_blocks(medium: &Medium) -> [u64; 2] {
    [0, SPARE_BLOCKS - 1].map(|at| match Superblock::decode(&medium.block(at)) {
        SuperblockContent::Valid(superblock) => superblock.base_blocks,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_base_that_has_grown_is_followed_and_so_is_one_that_has_shrunk_above_what_is_used() {
    let of_size = |blocks| OpenParams { base_blocks: blocks, ..params() };
    for blocks in [6, BASE_BLOCKS - 1, BASE_BLOCKS + 1, 2 * BASE_BLOCKS] {
        let world = World::with(formatted(), true);
        let host = world.open_with(of_size(blocks)).unwrap();
        assert_eq!((host.engine.table().base_blocks(), mappings(&host.engine).len()), (blocks, 1), "{blocks} blocks");
        assert_eq!(base_blocks(&world.spare.durable()), [blocks; 2], "before anything is served");
        let again = world.after_kill();
        assert_eq!(mappings(&again.open_with(of_size(blocks)).unwrap().engine).len(), 1, "{blocks} blocks");
    }
    let shrunk = refused(formatted(), of_size(5));
    assert_eq!(shrunk, Error::BaseShrunk { found: BASE_BLOCKS, expected: 5, used: BaseLba(5) });
}

/// A block beyond the old end is pending, and given back before the base shrinks again: no start refuses what is left of it.
#[test]
fn what_was_known_beyond_the_end_of_a_base_that_grew_and_shrank_is_forgotten() {
    let grown = || OpenParams { base_blocks: BASE_BLOCKS + 1, ..params() };
    let last = BaseLba(BASE_BLOCKS);
    let world = World::with(formatted(), true);
    let engine = world.open_with(grown()).unwrap().engine;
    world.executor.block_on(async move { engine.set_pending(vec![last]).await }).unwrap().unwrap();
    let shrunk = Error::BaseShrunk { found: BASE_BLOCKS + 1, expected: BASE_BLOCKS, used: last };
    assert_eq!(refused(world.spare.contents(), params()), shrunk);
    let world = world.after_kill();
    let engine = world.open_with(grown()).unwrap().engine;
    assert_eq!(engine.table().mapping(last), Some(Mapping::Pending));
    world.executor.block_on(async move { engine.clear(vec![last]).await }).unwrap().unwrap();
    let world = world.after_kill();
    assert_eq!(mappings(&world.open().engine).len(), 1);
    assert_eq!(mappings(&world.after_kill().open().engine).len(), 1);
}

/// A set that cannot note the new size is not served: what is remapped there would be refused the next time.
#[test]
fn a_new_size_of_the_base_that_cannot_be_noted_is_refused() {
    let world = World::with(formatted(), true);
    world.spare.fail(Fault::new(Verb::Write, 0..SPARE_BLOCKS, WRITE_FAULT));
    let grown = OpenParams { base_blocks: BASE_BLOCKS + 1, ..params() };
    assert_eq!(world.open_with(grown).err(), Some(Error::CheckpointFailed));
}

#[test]
fn a_spare_of_another_size_or_version_is_refused() {
    let mut shrunk = Medium::new(BLOCK, SPARE_BLOCKS - 10);
    (0..SPARE_BLOCKS - 10).for_each(|at| shrunk.set_block(at, &formatted().block(at)));
    let error = refused(shrunk, params());
    assert_eq!(error, Error::SpareSizeDiffers { found: SPARE_BLOCKS, expected: SPARE_BLOCKS - 10 });

    let mut newer = formatted();
    for at in [0, SPARE_BLOCKS - 1] {
        let mut block = newer.block(at);
        block[12] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&block[..8]), &[0; 4]), &block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
        newer.set_block(at, &block);
    }
    assert_eq!(refused(newer, params()), Error::Version { version: 2, features: 0, known: 1 });
}

#[test]
fn a_spare_that_holds_something_else_is_refused_unless_forced() {
    for (at, copy) in [(0, 'A'), (SPARE_BLOCKS - 1, 'B')] {
        let mut medium = Medium::new(BLOCK, SPARE_BLOCKS);
        medium.set_block(at, &filled(0xAA55));
        assert_eq!(refused(medium.clone(), params()), Error::Foreign { copy });
        let never = OpenParams { format: FormatPolicy::Never, ..params() };
        assert_eq!(refused(medium.clone(), never), Error::Foreign { copy });
        let world = World::with(medium, true);
        let engine = world.open_with(OpenParams { format: FormatPolicy::Force, ..params() }).unwrap().engine;
        assert_eq!(engine.status().state, SetState::Online);
    }
}

/// What may happen to a superblock: a bit of its magic or behind, all of it, or something else is in its place.
const DAMAGE: [fn(&mut Medium, u64); 4] = [
    |medium, at| medium.flip(at, 3),
    |medium, at| medium.flip(at, 500),
    |medium, at| medium.clear(at, 1),
    |medium, at| medium.set_block(at, &filled(0xAA55)),
];

#[test]
fn one_good_superblock_is_enough_and_the_other_is_healed() {
    for at in [0, SPARE_BLOCKS - 1] {
        for damage in DAMAGE {
            for format in [FormatPolicy::Auto, FormatPolicy::Never, FormatPolicy::Force] {
                let mut medium = formatted();
                damage(&mut medium, at);
                let world = World::with(medium, true);
                let host = world.open_with(OpenParams { format, ..params() }).unwrap();
                assert_eq!(host.engine.status().state, SetState::Online);
                assert!(host.engine.status().metadata.healed_at.is_some());
                assert_eq!(value(&world.read(&host, 5, 1).unwrap()), 55);
                // The good one may go now.
                let mut medium = world.spare.contents();
                medium.clear(SPARE_BLOCKS - 1 - at, 1);
                let again = world.after_crash(medium);
                assert_eq!(mappings(&again.open().engine).len(), 1);
            }
        }
    }
}

#[test]
fn a_superblock_that_cannot_be_written_degrades_until_it_can() {
    let world = World::with(formatted(), true);
    world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR));
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    let engine = world.open().engine;
    let metadata = engine.status().metadata;
    assert_eq!((metadata.superblock_a, metadata.superblock_b), (CopyHealth::Bad, CopyHealth::Ok));
    assert_eq!((engine.status().state, metadata.healed_at), (SetState::Degraded, None));
    assert_eq!(mappings(&engine).len(), 1);
    world.spare.heal();
    world.quiet();
    let status = engine.status();
    assert_eq!((status.state, status.metadata.superblock_a), (SetState::Online, CopyHealth::Ok));
    assert!(status.metadata.healed_at.is_some());
}

/// A superblock that was newer, and could not be read for a moment, is not mistaken for the one that came after it.
#[test]
fn a_superblock_that_comes_back_is_older_than_what_was_written_meanwhile() {
    let world = World::with(formatted(), true);
    world.bad_for_writes(6, 1);
    let host = world.open();
    // Copy A gets a superblock that copy B does not get.
    let b = world.spare.contents().block(SPARE_BLOCKS - 1);
    world.save(&host).unwrap();
    let mut medium = world.spare.contents();
    medium.set_block(SPARE_BLOCKS - 1, &b);
    let world = world.after_crash(medium);
    world.bad_for_writes(6, 1);
    world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR));
    world.spare.fail(Fault::new(Verb::Write, 0..1, WRITE_FAULT));
    let host = world.open();
    world.write(&host, 6, filled(66)).unwrap();
    let again = world.after_kill();
    let host = again.open();
    assert_eq!(mappings(&host.engine).len(), 2);
    assert_eq!(value(&again.read(&host, 6, 1).unwrap()), 66);
}

#[test]
fn a_set_whose_numbers_are_used_up_is_refused() {
    let huge = 1 << 62;
    for change in [
        |superblock: &mut Superblock| superblock.sequence = sequence(1 << 62),
        |superblock: &mut Superblock| superblock.committed = sequence(1 << 62),
    ] {
        let refusal = refused(patched(formatted(), change), params());
        assert!(matches!(refusal, Error::LogDamaged { .. } | Error::PagesLost { .. }), "{refusal:?}");
    }
    let refusal = refused(patched(formatted(), |superblock| superblock.epoch = epoch(huge)), params());
    assert_eq!(refusal, Error::EpochLost { known: epoch(huge), found: epoch(1) });
}

#[test]
fn an_erased_spare_is_not_taken_for_an_empty_one() {
    let mut medium = formatted();
    medium.clear(0, 1);
    medium.clear(SPARE_BLOCKS - 1, 1);
    let set = Uuid::from_u128(1);
    for format in [FormatPolicy::Auto, FormatPolicy::Never] {
        assert_eq!(refused(medium.clone(), OpenParams { format, ..params() }), Error::Erased { set });
    }
    // Any page of a commit that is left tells.
    let world = World::with(medium.clone(), true);
    let forced = OpenParams { format: FormatPolicy::Force, fresh_set_uuid: Uuid::from_u128(11), ..params() };
    let layout = world.open_with(forced).unwrap().engine.layout();
    for copy in Copy::BOTH {
        let mut medium = Medium::new(BLOCK, SPARE_BLOCKS);
        let at = layout.log_page(copy, Area::Zero, 1).0;
        medium.set_block(at, &formatted().block(at));
        assert_eq!(refused(medium, params()), Error::Erased { set });
    }
}

#[test]
fn two_bad_superblocks_are_refused() {
    let mut medium = formatted();
    medium.flip(0, 2000);
    medium.flip(SPARE_BLOCKS - 1, 3000);
    assert_eq!(refused(medium.clone(), params()), Error::NoSuperblock { a: "corrupt", b: "corrupt" });
    medium.clear(0, 1);
    assert_eq!(refused(medium, params()), Error::NoSuperblock { a: "zero", b: "corrupt" });
}

#[test]
fn copies_of_different_sets_are_refused() {
    let mut medium = formatted();
    let other = patched(formatted(), |superblock| superblock.set_uuid = Uuid::from_u128(7));
    medium.set_block(SPARE_BLOCKS - 1, &other.block(SPARE_BLOCKS - 1));
    assert_eq!(refused(medium, params()), Error::MixedSuperblocks { a: Uuid::from_u128(1), b: Uuid::from_u128(7) });
}

#[test]
fn impossible_parameters_are_refused() {
    let small = refused(Medium::new(BLOCK, 100), params());
    assert_eq!(small, Error::TooSmall { have_mib: 0, least_mib: 2 });
    assert_eq!(refused(Medium::new(BLOCK, 1), params()), Error::TooSmall { have_mib: 0, least_mib: 2 });
    let medium = Medium::new(BLOCK, SPARE_BLOCKS);
    let name = OpenParams { name: "n".repeat(256), ..params() };
    assert_eq!(refused(medium.clone(), name), Error::NameLength { len: 256 });
    let large = OpenParams { base_blocks: 1 << 49, ..params() };
    assert_eq!(refused(medium, large), Error::BaseTooLarge { blocks: 1 << 49 });
}

#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    // Both copies of the only page with a record behind the checkpoint.
    let world = World::with(formatted(), true);
    world.bad_for_writes(5, 2);
    let host = world.open();
    world.write(&host, 6, filled(66)).unwrap();
    let layout = host.engine.layout();
    let mut medium = world.spare.contents();
    for copy in remap_core::format::Copy::BOTH {
        medium.flip(layout.log_page(copy, Area::One, 1).0, 999);
    }
    assert!(matches!(refused(medium.clone(), params()), Error::LogDamaged { page: 1, .. }));
    // The superblock knows of a checkpoint that is not there any more.
    let mut medium = patched(world.spare.contents(), |superblock| superblock.epoch = epoch(3));
    assert_eq!(refused(medium.clone(), params()), Error::EpochLost { known: epoch(3), found: epoch(2) });
    for copy in remap_core::format::Copy::BOTH {
        medium.clear(layout.log_page(copy, Area::Zero, 0).0, 130);
    }
    assert_eq!(refused(medium, params()), Error::NoCheckpoint);
}

/// After a crash of the application alone, the device may still have in its cache what is read.
#[test]
fn what_is_loaded_is_made_durable_first() {
    let world = World::with(formatted(), true);
    let host = world.open();
    world.write(&host, 5, filled(56)).unwrap();
    assert_ne!(world.spare.durable(), world.spare.contents());
    world.restarted().open();
    assert_eq!(world.spare.durable(), world.spare.contents());
}
