//! Spares that grow.

use super::plan::{Harm, Life, Op, Plan, What};
use super::random::Random;

impl Plan {
    /// The spare of some plans grows, and gets more blocks than it had room for. Decided by numbers of its own, so that all other
    /// plans are what they were without.
    pub(crate) fn grow_spare(&mut self, seed: u64) {
        let random = Random::new(seed ^ u64::from_be_bytes(*b"growing "));
        if self.config.harm != Harm::Errors || self.config.older_spare || !random.chance(1, 8) {
            return;
        }
        let page_blocks = u64::from(4096_u32.div_ceil(self.config.block_size));
        let all = self.config.base_blocks.max(160);
        self.config.base_blocks = all;
        for _ in 0..1 + random.below(2) {
            let life = random.below(self.lives.len() as u64) as usize;
            let Life { ops, crash, .. } = &mut self.lives[life];
            let at = random.below(ops.len() as u64 + 1) as usize;
            // With or without room for the other log areas; a part of a page, too.
            let pages = random.pick(&[0, 1, 60, 140, 200, 400]);
            let blocks = pages * page_blocks + random.below(page_blocks) + u64::from(pages == 0);
            let op = |wait, what| Op { host: 0, wait, what };
            let saves = (0..random.below(3)).map(|_| op(random.below(200) as u32, What::Save));
            let full = [(0, all), (1, all - 1)].map(|(lba, blocks)| op(0, What::Import { lba, blocks }));
            let growth: Vec<_> = [op(0, What::Grow { blocks })].into_iter().chain(saves).chain(full).collect();
            ops.splice(at..at, growth);
            if random.chance(1, 2)
                && let Some(crash) = crash
            {
                // While the first checkpoints are written.
                (crash.commands, crash.polls) = (1 + random.below(30 + 4 * at as u64), random.below(8));
            }
        }
    }
}
