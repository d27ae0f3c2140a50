//! Repair, page by page, of what is damaged in one copy: whatever of it was written when a crash came, the set is loaded as before; and
//! where it is all written, every copy is whole.

use super::golden::{folder, load};
use super::*;
use remap_core::format::Layout;

/// What the set on the medium is loaded as.
#[derive(Debug, PartialEq)]
struct Seen {
    mappings: Vec<(BaseLba, Mapping)>,
    bad: usize,
    state: (Epoch, Sequence),
}

fn on<T: 'static>(medium: &Medium, look: impl AsyncFnOnce(Disk, Threads) -> T + 'static) -> T {
    let world = World::with(medium.clone(), true);
    let (spare, threads) = (world.spare.clone(), Threads::in_order(&world.executor));
    let seen = world.executor.block_on(async move { look(spare, threads).await }).unwrap();
    assert_eq!(world.spare.writes(), 0, "a look writes nothing");
    seen
}

/// What is loaded, and whether every copy is whole.
fn loaded(medium: &Medium) -> Result<(Seen, bool), Error> {
    let previewed = on(medium, async |spare, threads| preview(spare, threads, &params()).await)?;
    let Preview::Set(set) = previewed else { return Err(Error::Empty) };
    let whole = set.superblock_ok.all() && set.log_ok.all();
    let (bad, state) = (set.bad.len(), (set.epoch, set.sequence));
    Ok((Seen { mappings: set.mappings.iter().collect(), bad, state }, whole))
}

fn plan(medium: &Medium) -> Result<RepairPlan, Error> {
    on(medium, async |spare, threads| plan_repair(spare, threads, &params()).await).map(Option::unwrap)
}

fn bytes(medium: &Medium, plan: &RepairPlan, repair: Repair) -> Vec<u8> {
    let plan = plan.clone();
    let page = on(medium, async move |spare, threads| {
        repaired(spare, threads, &plan, &repair).await.map(|page| page.to_vec())
    });
    page.unwrap()
}

fn put(medium: &mut Medium, at: u64, bytes: &[u8]) {
    for (at, block) in (at..).zip(bytes.chunks(medium.block_size() as usize)) {
        medium.set_block(at, block);
    }
}

/// Damages that a page may come to.
const DAMAGES: [fn(&mut Vec<u8>); 3] = [|page| page.fill(0), |page| page[1000] ^= 4, |page| page[..2048].fill(0xee)];

fn damage(medium: &mut Medium, layout: &Layout, at: u64, kind: usize) {
    let mut page: Vec<u8> = (at..at + layout.page_blocks()).flat_map(|at| medium.block(at)).collect();
    DAMAGES[kind](&mut page);
    put(medium, at, &page);
}

/// Repairs what is damaged, one page after the other, and looks at it after each, and with each torn.
fn repair_in_steps(mut medium: Medium, what: &str) -> Result<Medium, Error> {
    let before = loaded(&medium).map(|(seen, _)| seen);
    let plan = plan(&medium);
    let (before, plan) = match (before, plan) {
        (Ok(before), Ok(plan)) => (before, plan),
        (Err(refused), Err(error)) => {
            assert_eq!(refused, error, "{what}");
            return Err(error);
        }
        (before, plan) => panic!("{what}: {before:?} and {plan:?}"),
    };
    for repair in &plan.repairs {
        let good = bytes(&medium, &plan, *repair);
        for tear in DAMAGES {
            let mut torn = medium.clone();
            let mut page = good.clone();
            tear(&mut page);
            put(&mut torn, repair.at.0, &page);
            assert_eq!(loaded(&torn).unwrap().0, before, "{what}: torn at {repair:?}");
        }
        put(&mut medium, repair.at.0, &good);
        assert_eq!(loaded(&medium).unwrap().0, before, "{what}: after {repair:?}");
    }
    assert_eq!(loaded(&medium).unwrap(), (before, true), "{what}");
    assert_eq!(self::plan(&medium).unwrap().repairs, [], "{what}: once is enough");
    Ok(medium)
}

#[test]
fn whatever_of_a_repair_is_written_the_set_is_loaded_as_before() {
    let mut repaired = 0;
    for name in
        ["used", "used-512", "used-520", "closed", "one-copy", "torn-page", "unfinished-checkpoint", "damaged-copy"]
    {
        let json = std::fs::read_to_string(folder().join(name).with_extension("json")).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
        let medium = load(name, golden["block_size"].as_u64().unwrap() as u32);
        let layout = plan(&medium).unwrap().superblock.layout;
        repair_in_steps(medium.clone(), name).unwrap();
        for kind in 0..DAMAGES.len() {
            for copy in Copy::BOTH {
                let mut spoiled = medium.clone();
                damage(&mut spoiled, &layout, layout.superblock(copy).0, kind);
                let what = format!("{name}, superblock {copy:?}, {kind}");
                let whole = repair_in_steps(spoiled, &what).unwrap();
                assert_eq!(whole.block(layout.superblock(copy).0), medium.block(layout.superblock(copy).0), "{what}");
                for (area, page) in
                    [Area::Zero, Area::One].into_iter().flat_map(|area| [0, 1, 2, 3, 6, 7].map(|page| (area, page)))
                {
                    let mut spoiled = medium.clone();
                    let place = |copy| layout.log_page(copy, area, page).0;
                    damage(&mut spoiled, &layout, place(copy), kind);
                    let what = format!("{name}, copy {copy:?}, area {area:?}, page {page}, {kind}");
                    // Where the other copy misses it already, nobody can repair it.
                    repaired += u32::from(repair_in_steps(spoiled.clone(), &what).is_ok());
                    // And the same of the superblock as well, and of another page of the other copy.
                    damage(&mut spoiled, &layout, layout.superblock(copy.other()).0, kind);
                    damage(&mut spoiled, &layout, layout.log_page(copy.other(), area.other(), page).0, kind);
                    _ = repair_in_steps(spoiled, &format!("{what}, and the other copy of others"));
                }
            }
        }
    }
    assert!(repaired > 400, "{repaired}");
}

#[test]
fn what_both_copies_have_lost_is_refused_as_by_opening() {
    let medium = load("used", BLOCK);
    let layout = plan(&medium).unwrap().superblock.layout;
    for page in 0..3 {
        let mut spoiled = medium.clone();
        Copy::BOTH.iter().for_each(|copy| damage(&mut spoiled, &layout, layout.log_page(*copy, Area::One, page).0, 1));
        let refused = repair_in_steps(spoiled, "both copies");
        assert!(matches!(refused, Err(Error::LogDamaged { .. })), "{page}: {refused:?}");
    }
    let mut spoiled = medium.clone();
    Copy::BOTH.iter().for_each(|copy| damage(&mut spoiled, &layout, layout.superblock(*copy).0, 1));
    assert!(matches!(plan(&spoiled), Err(Error::NoSuperblock { .. })));
}

#[test]
fn a_copy_that_cannot_be_read_is_written_from_the_other() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    let layout = host.engine.layout();
    let bad = layout.log_page(Copy::B, Area::Zero, 1).0;
    let world = world.after_kill();
    world.spare.fail(Fault::new(Verb::Read, bad..bad + 1, READ_ERROR));
    world.spare.fail(Fault::new(Verb::Read, 0..1, READ_ERROR));
    let (spare, threads) = (world.spare.clone(), Threads::in_order(&world.executor));
    let plan = world.executor.block_on(async move { plan_repair(spare, threads, &params()).await }).unwrap().unwrap();
    let plan = plan.unwrap();
    let places: Vec<_> = plan.repairs.iter().map(|repair| (repair.at.0, repair.what, repair.from_other)).collect();
    assert_eq!(places, [(bad, "bad", true), (0, "unreadable", true)]);
    assert_eq!(plan.steps().count(), 2);
}

/// That a spare was given up counts when both superblocks say so: writing one from the other would decide what nobody has.
#[test]
fn a_change_of_state_that_has_not_ended_is_left_to_the_set() {
    let medium = load("used", BLOCK);
    let SuperblockContent::Valid(mut superblock) = Superblock::decode(&medium.block(0)) else { panic!("valid") };
    superblock.state = remap_core::format::SpareState::Retired;
    superblock.other =
        Some(remap_core::format::OtherSpare { id: Uuid::from_u128(9), state: remap_core::format::SpareState::Active });
    superblock.sequence = superblock.sequence.plus(1);
    let mut changed = medium.clone();
    let mut block = vec![0; BLOCK as usize];
    superblock.encode(&mut block);
    changed.set_block(0, &block);
    assert!(loaded(&changed).is_ok());
    assert!(matches!(plan(&changed), Err(Error::NotRepairable { .. })));
}
