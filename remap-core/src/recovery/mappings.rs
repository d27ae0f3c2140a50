//! What the log says of each block, in its order: what a checkpoint says comes in order already, and regions of the remap table are made
//! of it at once; what changes it is kept beside them.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use crate::pace::{Pace, join_what_was_freed};
use crate::table::{Gathering, Mapping, Unpublished};
use crate::units::BaseLba;

/// To put a region into a table takes as long as so many blocks, whatever is in it: some have a node of the directory of their own.
const REGION_PUT_AS: usize = 4;

/// Regions that follow each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) regions: Vec<Unpublished>,
    /// How long it takes to go through them, in blocks.
    pub(crate) blocks: usize,
}

impl Group {
    fn push(&mut self, region: Unpublished) {
        self.blocks += REGION_PUT_AS + region.len();
        self.regions.push(region);
    }

    fn is_before(&self, number: u64) -> bool {
        self.regions.last().is_none_or(|last| last.number() < number)
    }
}

impl From<Unpublished> for Group {
    fn from(region: Unpublished) -> Group {
        let mut group = Group::default();
        group.push(region);
        group
    }
}

/// What is known of each block of the base that is not simply there.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// Regions, ascending by number. None of them, and no group, is empty.
    groups: Vec<Group>,
    /// The last one, which blocks are still put into.
    last: Gathering,
    /// The number behind that of the last block in there.
    end: u64,
    /// What holds instead, and between it: all of it is before `end`. `None` for a block that is not mapped any more.
    changed: BTreeMap<BaseLba, Option<Mapping>>,
}

impl Mappings {
    /// What is known of a block.
    #[must_use]
    pub fn get(&self, lba: BaseLba) -> Option<Mapping> {
        self.changed.get(&lba).copied().unwrap_or_else(|| self.unchanged(lba))
    }

    /// All of it, ascending by block.
    pub fn iter(&self) -> impl Iterator<Item = (BaseLba, Mapping)> {
        self.range(BaseLba(0)..BaseLba(self.end))
    }

    /// What is known of the blocks in `range`, ascending.
    pub fn range(&self, range: Range<BaseLba>) -> impl Iterator<Item = (BaseLba, Mapping)> {
        let range = range.start..range.end.max(range.start);
        let mut changed = self.changed.range(range.clone()).map(|(lba, to)| (*lba, *to)).peekable();
        let (first, last) = (Unpublished::number_of(range.start), Unpublished::number_of(range.end));
        let group = self.groups.partition_point(|group| group.is_before(first));
        let regions = self.groups[group..].iter().flat_map(|group| &group.regions);
        let regions = regions.skip_while(move |region| region.number() < first);
        let regions = regions.take_while(move |region| region.number() <= last);
        let last = self.last.blocks_in(&range);
        let mut unchanged = regions.flat_map(move |region| region.blocks_in(&range)).chain(last).peekable();
        let said = iter::from_fn(move || {
            let is_next = |(lba, _): &Said| unchanged.peek().is_none_or(|(first, _)| lba <= first);
            match changed.next_if(is_next) {
                Some((lba, to)) => {
                    unchanged.next_if(|(first, _)| *first == lba);
                    Some((lba, to))
                }
                None => unchanged.next().map(|(lba, to)| (lba, Some(to))),
            }
        });
        said.filter_map(|(lba, to)| Some((lba, to?)))
    }

    /// All of it, ascending by region, with how long it takes to go through these: who does it counts that, and lets others go on. Now and
    /// then there are none, as many changes are in one region. Gives the memory of what was passed back as it goes on.
    pub(crate) fn into_regions(self) -> impl Iterator<Item = Group> {
        let mut groups = self.groups.into_iter().chain(self.last.region().map(Group::from)).peekable();
        // Those of a group in which there are changes.
        let mut regions = Vec::new().into_iter().peekable();
        let mut changed = self.changed.into_iter().peekable();
        // The changes of one region.
        let mut changes = Vec::new();
        iter::from_fn(move || {
            let change = changes.first().or(changed.peek()).map(|(lba, _)| Unpublished::number_of(*lba));
            if regions.peek().is_none() {
                let unchanged = groups.next_if(|group| change.is_none_or(|change| group.is_before(change)));
                if unchanged.is_some() {
                    return unchanged;
                }
                regions = groups.next().unwrap_or_default().regions.into_iter().peekable();
            }
            let number = regions.peek().map(Unpublished::number).into_iter().chain(change).min()?;
            if change == Some(number) {
                let is_in = |(lba, _): &Said| Unpublished::number_of(*lba) == number;
                let more = iter::from_fn(|| changed.next_if(is_in)).take(Pace::LONG_STRIDE);
                let before = changes.len();
                changes.extend(more);
                if changes.len() - before == Pace::LONG_STRIDE {
                    return Some(Group { regions: Vec::new(), blocks: Pace::LONG_STRIDE });
                }
            }
            let region = regions.next_if(|region| region.number() == number);
            let region = region.unwrap_or_else(|| Unpublished::empty(number));
            if change != Some(number) {
                return Some(region.into());
            }
            let blocks = region.len() + changes.len();
            let mut group = Group::from(region.changed(changes.drain(..)));
            group.blocks += blocks;
            Some(group)
        })
    }

    /// Gives the memory back, in steps.
    pub(crate) async fn give_up(self, mut pace: Pace) {
        for group in self.into_regions() {
            pace.step(group.blocks).await;
            join_what_was_freed();
        }
    }

    /// Of how many blocks that is known which `is` says.
    pub fn count(&self, mut is: impl FnMut(Mapping) -> bool) -> usize {
        self.iter().filter(|(_, mapping)| is(*mapping)).count()
    }

    /// The last block that anything is known of. It looks at all behind that of which nothing holds any more.
    pub(crate) fn last(&self) -> Option<BaseLba> {
        let regions = self.groups.iter().rev().flat_map(|group| group.regions.iter().rev().map(Unpublished::blocks));
        let unchanged = iter::once_with(|| self.last.blocks_in(&(BaseLba(0)..BaseLba(self.end))))
            .chain(regions)
            .flat_map(|blocks| blocks.into_iter().rev());
        let unchanged = unchanged.map(|(lba, _)| lba).find(|lba| !self.changed.contains_key(lba));
        let changed = self.changed.iter().rev().find(|(_, to)| to.is_some()).map(|(lba, _)| *lba);
        unchanged.max(changed)
    }

    /// Whether the block is behind all others.
    #[inline(always)]
    pub(super) fn end_before(&self, lba: BaseLba) -> bool {
        self.end <= lba.0
    }

    /// Says what holds for a block that is behind all others.
    #[inline(always)]
    pub(super) fn push(&mut self, lba: BaseLba, to: Mapping) {
        self.end = lba.0 + 1;
        if let Some(region) = self.last.push(lba, to) {
            self.keep(region);
        }
    }

    /// Keeps a region that is complete.
    fn keep(&mut self, region: Unpublished) {
        match self.groups.last_mut() {
            // As many as go into a table in one step.
            Some(group) if group.blocks < Pace::LONG_STRIDE => group.push(region),
            _ => self.groups.push(region.into()),
        }
    }

    /// Says what holds for a block; what did before.
    pub(super) fn insert(&mut self, lba: BaseLba, to: Mapping) -> Option<Mapping> {
        if self.end_before(lba) {
            self.push(lba, to);
            return None;
        }
        let before = self.unchanged(lba);
        self.changed.insert(lba, Some(to)).unwrap_or(before)
    }

    /// Nothing is known of the block any more; what was.
    pub(super) fn remove(&mut self, lba: BaseLba) -> Option<Mapping> {
        match self.unchanged(lba) {
            Some(before) => self.changed.insert(lba, None).unwrap_or(Some(before)),
            None => self.changed.remove(&lba).flatten(),
        }
    }

    fn unchanged(&self, lba: BaseLba) -> Option<Mapping> {
        let number = Unpublished::number_of(lba);
        let group = self.groups.partition_point(|group| group.is_before(number));
        let Some(Group { regions, .. }) = self.groups.get(group) else { return self.last.get(lba) };
        let at = regions.binary_search_by_key(&number, Unpublished::number).ok()?;
        regions[at].get(lba)
    }
}

/// A block, and what was said of it last: `None` if nothing holds any more.
type Said = (BaseLba, Option<Mapping>);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::slot::{Slot, SpareBlock};
    use crate::table::REGION_BLOCKS;

    /// In three regions.
    const BLOCKS: u64 = 3 * REGION_BLOCKS;

    /// One of each kind, in both slots.
    fn mapping(number: u32) -> Mapping {
        let slot = if number.is_multiple_of(2) { Slot::FIRST } else { Slot::FIRST.other() };
        let block = SpareBlock::new(slot, number).unwrap();
        match number % 5 {
            0 => Mapping::Pending,
            1 | 2 => Mapping::Lost(block),
            _ => Mapping::Spare(block),
        }
    }

    proptest! {
        #[test]
        fn it_says_what_a_map_says(
            every in 1..4_u64,
            // As near as can be, some in a region, and each in one of its own: then the regions are more than are kept together.
            apart in prop::sample::select(vec![1, 300, 1 << 30]),
            // Anywhere, or before nearly all that is unchanged.
            changes in prop::sample::select(vec![BLOCKS, BLOCKS / 16])
                .prop_flat_map(|end| vec((0..end, prop::option::of(0..100_u32)), 0..300)),
            from in 0..BLOCKS,
            to in 0..BLOCKS,
        ) {
            let (mut mappings, mut map, mut said) = (Mappings::default(), BTreeMap::new(), BTreeSet::new());
            for lba in (0..BLOCKS / 2).step_by(every as usize).map(|at| BaseLba(at * apart)) {
                let to = mapping(lba.0 as u32 % 100);
                prop_assert_eq!(mappings.insert(lba, to), map.insert(lba, to));
                said.insert(lba);
            }
            for (lba, to) in changes {
                let lba = BaseLba(lba * apart);
                said.extend(to.map(|_| lba));
                match to.map(mapping) {
                    Some(to) => prop_assert_eq!(mappings.insert(lba, to), map.insert(lba, to)),
                    None => prop_assert_eq!(mappings.remove(lba), map.remove(&lba)),
                }
                prop_assert_eq!(mappings.last(), map.last_key_value().map(|(lba, _)| *lba));
            }
            for lba in (0..BLOCKS).map(|at| BaseLba(at * apart)) {
                prop_assert_eq!(mappings.get(lba), map.get(&lba).copied());
            }
            let (from, to) = (from * apart, to * apart);
            let range = BaseLba(from)..BaseLba(to.max(from));
            let of_map = map.range(range.clone()).map(|(lba, to)| (*lba, *to));
            prop_assert!(mappings.range(range).eq(of_map));
            prop_assert!(mappings.range(BaseLba(to.max(from))..BaseLba(0)).next().is_none());
            prop_assert!(mappings.iter().eq(map.iter().map(|(lba, to)| (*lba, *to))));
            let groups: Vec<_> = mappings.clone().into_regions().collect();
            for Group { regions, blocks } in &groups {
                let held = regions.iter().map(|region| REGION_PUT_AS + region.len()).sum::<usize>();
                prop_assert!(*blocks > 0 && *blocks >= held, "{blocks} of {held}");
                prop_assert!(*blocks < Pace::LONG_STRIDE + 3 * REGION_BLOCKS as usize, "too many at once");
            }
            let all = groups.iter().map(|group| group.blocks).sum::<usize>();
            prop_assert!(all >= said.len(), "what does not hold any more takes its time, too: {all}");
            let regions: Vec<_> = groups.into_iter().flat_map(|group| group.regions).collect();
            prop_assert!(regions.is_sorted_by(|a, b| a.number() < b.number()));
            prop_assert!(regions.iter().flat_map(Unpublished::blocks).eq(map.clone()));
            // From the last region to those before it.
            for _ in 0..120 {
                let last = map.pop_last().map(|(lba, _)| lba);
                prop_assert_eq!(mappings.last(), last);
                last.into_iter().for_each(|lba| _ = mappings.remove(lba));
            }
        }
    }

    /// As many as there are blocks in a region, of which the checkpoint says nothing.
    #[test]
    fn many_changes_of_a_region_are_many_steps() {
        let mut mappings = Mappings::default();
        mappings.insert(BaseLba(REGION_BLOCKS), mapping(0));
        (0..REGION_BLOCKS).for_each(|lba| _ = mappings.insert(BaseLba(lba), mapping(7)));
        let (steps, groups): (Vec<_>, Vec<_>) = mappings.into_regions().partition(|group| group.regions.is_empty());
        assert_eq!(steps.len() * Pace::LONG_STRIDE, REGION_BLOCKS as usize);
        assert!(steps.iter().all(|step| step.blocks == Pace::LONG_STRIDE));
        let blocks = groups.iter().flat_map(|group| &group.regions).flat_map(Unpublished::blocks);
        assert!(blocks.map(|(lba, _)| lba.0).eq(0..=REGION_BLOCKS));
    }

    #[test]
    fn small_regions_go_together() {
        let mut mappings = Mappings::default();
        (0..1000).for_each(|at| _ = mappings.insert(BaseLba(at << 33), mapping(7)));
        let together: Vec<_> = mappings.into_regions().map(|group| group.regions.len()).collect();
        assert_eq!(
            (together[0], together.iter().sum::<usize>()),
            (Pace::LONG_STRIDE.div_ceil(REGION_PUT_AS + 1), 1000)
        );
    }
}
