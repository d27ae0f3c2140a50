//! Opening: what is formatted, what is loaded, what is refused; and that a refusal has written nothing.

use super::*;
use crate::format::{SpareState, Superblock, SuperblockContent};

/// Opens what is on `medium`, which has to be refused, and checks that not a byte of it was changed.
fn refused(medium: Medium, params: OpenParams) -> Error {
    let world = World::with(medium.clone(), true);
    let Err(error) = world.open_with(params) else { panic!("it was opened") };
    assert_eq!(world.spare.contents(), medium, "a refusal has written something");
    assert_eq!(world.spare.writes(), 0);
    assert!(error.errno() < 0);
    error
}

/// A spare with one remapped block.
fn formatted() -> Medium {
    let world = World::new();
    world.bad_for_writes(5, 1);
    let host = world.host();
    world.write(&host, 5, filled(55)).unwrap();
    world.spare.contents()
}

/// Changes the superblock in both copies, with a valid checksum.
fn patched(mut medium: Medium, change: impl Fn(&mut Superblock)) -> Medium {
    for at in [0, SPARE_BLOCKS - 1] {
        let SuperblockContent::Valid(mut superblock) = Superblock::decode(&medium.block(at)) else { panic!("valid") };
        change(&mut superblock);
        let mut block = vec![0; BLOCK as usize];
        superblock.encode(&mut block);
        medium.set_block(at, &block);
    }
    medium
}

#[test]
fn an_empty_spare_is_formatted_and_loaded_again() {
    let world = World::new();
    let engine = world.open_with(params()).unwrap();
    assert_eq!(engine.set_uuid(), Uuid::from_u128(1));
    let status = engine.status();
    assert_eq!((status.state, status.epoch, status.remapped), (SetState::Online, 1, 0));
    assert_eq!(status.spare, SpareUsage { total: 138, used: 0, free: 138, bad: 0 });
    assert!(engine.table().is_empty());
    let again = world.after_kill();
    let params = OpenParams { format: FormatPolicy::Never, set_uuid: Some(Uuid::from_u128(1)), ..params() };
    let engine = again.open_with(params).unwrap();
    assert_eq!(engine.status().epoch, 1, "nothing was wrong, so nothing was written");
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
        let host = world.host_of(world.open_with(OpenParams { format, ..params() }).unwrap());
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
    let size = refused(medium.clone(), OpenParams { base_blocks: 77, ..params() });
    assert_eq!(size, Error::BaseSizeDiffers { found: BASE_BLOCKS, expected: 77 });
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
        (SpareState::Retired(Uuid::from_u128(8)), "retired"),
        (SpareState::MigratingOut(Uuid::from_u128(8)), "migrating-out"),
        (SpareState::MigratingIn, "migrating-in"),
    ] {
        let error = refused(patched(formatted(), |superblock| superblock.state = state), params());
        assert_eq!(error, Error::NotActive { state: name, other: state.other() });
    }
}

#[test]
fn a_spare_of_another_size_or_version_is_refused() {
    let mut grown = Medium::new(BLOCK, SPARE_BLOCKS + 10);
    (0..SPARE_BLOCKS).for_each(|at| grown.set_block(at, &formatted().block(at)));
    let error = refused(grown, params());
    assert_eq!(error, Error::SpareSizeDiffers { found: SPARE_BLOCKS, expected: SPARE_BLOCKS + 10 });

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
        let engine = world.open_with(OpenParams { format: FormatPolicy::Force, ..params() }).unwrap();
        assert_eq!(engine.status().state, SetState::Online);
    }
    // With a valid copy, force keeps the mapping.
    let mut medium = formatted();
    medium.set_block(0, &filled(0xAA55));
    assert_eq!(refused(medium.clone(), params()), Error::Foreign { copy: 'A' });
    let world = World::with(medium, true);
    let engine = world.open_with(OpenParams { format: FormatPolicy::Force, ..params() }).unwrap();
    assert_eq!(engine.status().state, SetState::Online);
    assert_eq!(mappings(&engine).len(), 1);
}

#[test]
fn one_bad_superblock_degrades_and_save_heals_it() {
    for at in [0, SPARE_BLOCKS - 1] {
        for damage in [|medium: &mut Medium, at| medium.flip(at, 500), |medium: &mut Medium, at| medium.clear(at, 1)] {
            let mut medium = formatted();
            damage(&mut medium, at);
            let world = World::with(medium, true);
            let host = world.host();
            assert_eq!(host.engine.status().state, SetState::Degraded);
            assert_eq!(value(&world.read(&host, 5, 1).unwrap()), 55);
            assert!(world.save(&host).unwrap().all_copies);
            assert_eq!(host.engine.status().state, SetState::Online);
            assert_eq!(world.after_kill().host().engine.status().state, SetState::Online);
        }
    }
}

#[test]
fn an_unreadable_superblock_degrades() {
    let world = World::with(formatted(), true);
    world.spare.fail(FaultKind::Read, 0, 1, READ_ERROR, u64::MAX);
    let engine = world.open_with(params()).unwrap();
    assert_eq!(engine.status().metadata.superblock_a, CopyHealth::Bad);
    assert_eq!(mappings(&engine).len(), 1);
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
    let host = world.host();
    world.write(&host, 6, filled(66)).unwrap();
    let layout = *host.engine.layout();
    let mut medium = world.spare.contents();
    for copy in crate::format::Copy::BOTH {
        medium.flip(layout.log_page(copy, 0, 1), 999);
    }
    assert!(matches!(refused(medium.clone(), params()), Error::LogDamaged { page: 1, .. }));
    // The superblock knows of a checkpoint that is not there any more.
    let mut medium = patched(world.spare.contents(), |superblock| superblock.epoch = 2);
    assert_eq!(refused(medium.clone(), params()), Error::EpochLost { known: 2, found: 1 });
    for copy in crate::format::Copy::BOTH {
        medium.clear(layout.log_page(copy, 0, 0), 130);
    }
    assert_eq!(refused(medium, params()), Error::NoCheckpoint);
}

/// After a crash of the application alone, the device may still have in its cache what is read.
#[test]
fn what_is_loaded_is_made_durable_first() {
    let world = World::with(formatted(), true);
    let host = world.host();
    world.write(&host, 5, filled(56)).unwrap();
    assert_ne!(world.spare.after(PowerCut::Drop), world.spare.contents());
    world.executor.kill();
    let again = World { executor: Executor::new(), base: world.base.clone(), spare: world.spare.clone() };
    again.open_with(params()).unwrap();
    assert_eq!(world.spare.after(PowerCut::Drop), world.spare.contents());
}
