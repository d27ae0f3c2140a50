//! Repair, page by page, of what is damaged in one copy: whatever of it was written when a crash came, the set is loaded as before; and
//! where it is all written, every copy is whole. A set that is refused is mended to any state that an operator can choose: whatever of that
//! was written, it is refused or in that state, and never in another.

use super::golden::{folder, load};
use super::*;
use remap_core::format::Layout;
use remap_core::{Candidate, GivenUp, StatedEnd};

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
    loaded_with(medium, params())
}

fn loaded_with(medium: &Medium, params: OpenParams) -> Result<(Seen, bool), Error> {
    let previewed = on(medium, async move |spare, threads| preview(spare, threads, &params).await)?;
    let Preview::Set(set) = previewed else { return Err(Error::Empty) };
    let whole = set.superblock_ok.all() && set.log_ok.all();
    let (bad, state) = (set.bad.len(), (set.epoch, set.sequence));
    Ok((Seen { mappings: set.mappings.iter().collect(), bad, state }, whole))
}

fn plan(medium: &Medium) -> Result<RepairPlan, Error> {
    plan_with(medium, params())
}

fn plan_with(medium: &Medium, params: OpenParams) -> Result<RepairPlan, Error> {
    on(medium, async move |spare, threads| plan_repair(spare, threads, &params).await).map(Option::unwrap)
}

/// With the state that an operator has chosen.
fn stated(Candidate { epoch, sequence, .. }: Candidate) -> OpenParams {
    OpenParams { stated_end: Some(StatedEnd { epoch, sequence }), ..params() }
}

fn candidates(medium: &Medium) -> Vec<Candidate> {
    on(medium, async |spare, threads| inspect(spare, threads).await).unwrap().candidates
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
    for name in [
        "used",
        "used-512",
        "used-520",
        "closed",
        "one-copy",
        "torn-page",
        "unfinished-checkpoint",
        "ended",
        "damaged-copy",
    ] {
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
    let places: Vec<_> = plan.repairs.iter().map(|repair| (repair.at.0, repair.what, repair.from)).collect();
    assert_eq!(places, [(bad, "bad", WrittenFrom::OtherCopy), (0, "unreadable", WrittenFrom::OtherCopy)]);
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

/// Checks that the set is in the chosen state, or refused and can be brought to it still; whether it is in it.
fn chosen_or_refused(medium: &Medium, chosen: &OpenParams, expected: &Seen, what: &str) -> bool {
    assert_eq!(&loaded_with(medium, chosen.clone()).unwrap().0, expected, "{what}: it can be chosen no more");
    match loaded(medium) {
        Ok((seen, _)) => assert_eq!(&seen, expected, "{what}: in another state"),
        Err(_) => return false,
    }
    true
}

/// Mends a set at once.
fn mend(medium: &mut Medium, chosen: &OpenParams, what: &str) {
    let plan = plan_with(medium, chosen.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for repair in &plan.repairs {
        let page = bytes(medium, &plan, *repair);
        put(medium, repair.at.0, &page);
    }
}

fn page_of(medium: &Medium, plan: &RepairPlan, repair: Repair) -> Vec<u8> {
    let at = repair.at.0;
    (at..at + plan.superblock.layout.page_blocks()).flat_map(|at| medium.block(at)).collect()
}

/// Mends a set that is refused to this state, with all that a crash may leave of it: each page torn, any part of a step. What is given up.
fn mend_in_steps(mut medium: Medium, candidate: Candidate, random: &mut Random, what: &str) -> GivenUp {
    let chosen = stated(candidate);
    let (expected, _) = loaded_with(&medium, chosen.clone()).unwrap();
    let plan = plan_with(&medium, chosen.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut in_it = false;
    for step in plan.steps() {
        let pages: Vec<_> = step.iter().map(|repair| (repair.at.0, bytes(&medium, &plan, *repair))).collect();
        for _ in 0..4 {
            let mut part = medium.clone();
            pages.iter().filter(|_| random.below(2) == 0).for_each(|(at, page)| put(&mut part, *at, page));
            chosen_or_refused(&part, &chosen, &expected, &format!("{what}: a part of {step:?}"));
        }
        let again = random.below(pages.len() as u64);
        for (number, (at, page)) in (0..).zip(pages) {
            // What is erased is torn between what was there and zeros, too.
            let before: Vec<u8> =
                (at..at + plan.superblock.layout.page_blocks()).flat_map(|at| medium.block(at)).collect();
            let half = [&page[..512], &before[512..]].concat();
            let torn = DAMAGES.map(|tear| {
                let mut page = page.clone();
                tear(&mut page);
                page
            });
            for torn in torn.into_iter().chain([half]) {
                let mut part = medium.clone();
                put(&mut part, at, &torn);
                chosen_or_refused(&part, &chosen, &expected, &format!("{what}: torn at {at}"));
                // Nothing but zeros is not torn, unless it is erased.
                if number == again && torn.iter().any(|byte| *byte != 0) {
                    mend(&mut part, &chosen, what);
                    let differ = |repair: &&Repair| bytes(&medium, &plan, **repair) != page_of(&part, &plan, **repair);
                    assert_eq!(plan.repairs.iter().find(differ), None, "{what}: mended otherwise, after {at} was torn");
                }
            }
            put(&mut medium, at, &page);
            in_it = chosen_or_refused(&medium, &chosen, &expected, &format!("{what}: after {at}"));
        }
    }
    assert!(in_it, "{what}: it is refused at the end");
    assert_eq!(loaded(&medium).unwrap(), (expected, true), "{what}");
    assert_eq!(self::plan(&medium).unwrap().repairs, [], "{what}: nothing is left to be repaired");
    let again = plan_with(&medium, chosen).unwrap();
    assert_eq!((again.repairs, again.gives_up), (vec![], None), "{what}: nor to be given up");
    // And the set goes on from there.
    let world = World::with(medium, true);
    let before: Vec<_> = mappings(&world.open().engine);
    assert_eq!(mappings(&world.after_kill().open().engine), before, "{what}: in use");
    plan.gives_up.unwrap()
}

#[test]
fn a_set_that_is_refused_is_mended_to_each_state_that_can_be_chosen() {
    let (mut mended, mut of_older, mut with_loss) = (0, 0, 0);
    let mut random = Random::new(1);
    for name in ["used", "closed", "full-area", "one-copy", "torn-page", "unfinished-checkpoint", "damaged"] {
        let medium = load(name, BLOCK);
        let SuperblockContent::Valid(superblock) = Superblock::decode(&medium.block(0)) else { panic!("valid") };
        let layout = superblock.layout;
        let last = layout.area_pages - 1;
        for area in Area::BOTH {
            for page in [0, 1, 2, 3, 6, 7, last] {
                for kind in 0..2 * DAMAGES.len() {
                    let mut spoiled = medium.clone();
                    let place = |copy| layout.log_page(copy, area, page.into()).0;
                    Copy::BOTH
                        .iter()
                        .for_each(|copy| damage(&mut spoiled, &layout, place(*copy), kind % DAMAGES.len()));
                    if kind >= DAMAGES.len() {
                        // A superblock, and a page of one copy as well.
                        let copy = Copy::BOTH[kind % 2];
                        damage(&mut spoiled, &layout, layout.superblock(copy).0, kind % DAMAGES.len());
                        damage(&mut spoiled, &layout, layout.log_page(copy, area.other(), 1).0, 1);
                    }
                    if loaded(&spoiled).is_ok() {
                        continue;
                    }
                    for candidate in candidates(&spoiled) {
                        let what = format!("{name}, area {area:?}, page {page}, {kind}, to {candidate:?}");
                        let gives_up = mend_in_steps(spoiled.clone(), candidate, &mut random, &what);
                        mended += 1;
                        of_older += u32::from(candidate.epoch < superblock.epoch);
                        with_loss += u32::from(gives_up.pages + gives_up.unknown_pages > 0);
                    }
                }
            }
        }
    }
    assert!(mended > 100 && of_older > 30 && with_loss > 60, "{mended}, {of_older}, {with_loss}");
}

/// Both areas have a complete checkpoint of one epoch, which only a copy of an area by somebody else makes.
#[test]
fn one_of_two_states_of_one_epoch_is_chosen_by_its_sequence() {
    let (world, host) = world();
    world.write(&host, 11, filled(2)).unwrap();
    world.quiet();
    let layout = host.engine.layout();
    let mut medium = world.spare.contents();
    let SuperblockContent::Valid(superblock) = Superblock::decode(&medium.block(0)) else { panic!("valid") };
    let owner = PageOwner { set_uuid: superblock.set_uuid, spare_id: superblock.spare_id };
    for copy in Copy::BOTH {
        let from = PageAt { copy, area: Area::Zero, index: 0 };
        let page = medium.block(layout.log_page(copy, Area::Zero, 0).0);
        let PageContent::Valid(info, records) = decode_page(&page, owner, from) else { panic!("valid") };
        let mut other = vec![0; BLOCK as usize];
        encode_page(&mut other, owner, PageAt { area: Area::One, ..from }, info, records);
        medium.set_block(layout.log_page(copy, Area::One, 0).0, &other);
    }
    assert!(matches!(loaded(&medium), Err(Error::LogDamaged { .. })));
    let all = candidates(&medium);
    assert_eq!(all.len(), 2);
    let mut random = Random::new(2);
    for candidate in all {
        mend_in_steps(medium.clone(), candidate, &mut random, &format!("{candidate:?}"));
    }
}

#[test]
fn what_a_choice_gives_up_is_counted() {
    let (world, host) = world();
    for at in 11..16 {
        world.write(&host, at, filled(at)).unwrap();
    }
    world.quiet();
    let layout = host.engine.layout();
    let mut medium = world.spare.contents();
    let of = |medium: &Medium| {
        let [candidate] = candidates(medium)[..] else { panic!("one") };
        let gives_up = plan_with(medium, stated(candidate)).unwrap().gives_up.unwrap();
        (candidate.sequence, gives_up)
    };
    // Page 3 of six: two behind it are there, with a block each.
    Copy::BOTH.iter().for_each(|copy| damage(&mut medium, &layout, layout.log_page(*copy, Area::Zero, 3).0, 1));
    let expected = GivenUp { pages: 3, unknown_pages: 1, remapped: 3, ..GivenUp::default() };
    assert_eq!(of(&medium), (sequence(3), expected));
    // What is in force by itself is not given up for another state.
    let (world, host) = self::world();
    world.save(&host).unwrap();
    world.write(&host, 11, filled(2)).unwrap();
    world.quiet();
    let medium = world.spare.contents();
    let all = candidates(&medium);
    let older = all.into_iter().min_by_key(|one| one.epoch).unwrap();
    let refused = plan_with(&medium, stated(older));
    assert!(matches!(refused, Err(Error::NotRefused { .. })), "{refused:?}");
}

/// As after a crash in the midst of a mend: what other states have left goes, and nothing is given up for that.
#[test]
fn of_a_set_that_is_in_the_chosen_state_nothing_is_given_up() {
    for name in ["unfinished-checkpoint", "used", "damaged-copy"] {
        let mut medium = load(name, BLOCK);
        let before = loaded(&medium).unwrap();
        let in_force = candidates(&medium).into_iter().find(|one| (one.epoch, one.sequence) == before.0.state);
        let chosen = stated(in_force.unwrap());
        let plan = plan_with(&medium, chosen.clone()).unwrap();
        assert_eq!(plan.gives_up, None, "{name}");
        assert_eq!(plan.repairs.is_empty(), name == "used", "{name}: what is whole is left as it is");
        for repair in &plan.repairs {
            let page = bytes(&medium, &plan, *repair);
            put(&mut medium, repair.at.0, &page);
            assert_eq!(loaded(&medium).unwrap().0, before.0, "{name}: after {repair:?}");
        }
        assert_eq!(plan_with(&medium, chosen).unwrap().repairs, [], "{name}");
    }
}

/// A device may lose the write that erases a page, and show what was there after the next power cut: under numbers of their own, the
/// pages that were given up are older than all that was written since.
#[test]
fn what_was_given_up_never_counts_again_where_its_erasure_was_lost() {
    let given_up = load("damaged", BLOCK);
    let [candidate] = candidates(&given_up)[..] else { panic!("one") };
    let mut medium = given_up.clone();
    mend(&mut medium, &stated(candidate), "damaged");
    let layout = plan(&medium).unwrap().superblock.layout;
    // The first checkpoint goes where the one was that was given up.
    let world = World::with(medium, true);
    let host = world.open();
    let went_on = world.after_kill().spare.contents();
    let (expected, _) = loaded(&went_on).unwrap();
    assert_eq!(expected.mappings, mappings(&host.engine));
    for copies in [&[Copy::A][..], &[Copy::B], &Copy::BOTH] {
        for pages in [&[1][..], &[2], &[1, 2]] {
            let mut stale = went_on.clone();
            for at in copies.iter().flat_map(|copy| pages.iter().map(|page| layout.log_page(*copy, Area::One, *page).0))
            {
                stale.set_block(at, &given_up.block(at));
            }
            assert_eq!(loaded(&stale).unwrap().0, expected, "{copies:?}, {pages:?}");
        }
    }
}
