//! The storm brake: when a whole device dies, its blocks are not relocated one by one until the spare is full.
//!
//! Asked by the engine for each block that is to be relocated. It decides by the time that it is given.

use std::collections::VecDeque;
use std::time::Duration;

/// The time within which relocations are counted.
const WINDOW: Duration = Duration::from_secs(60);

pub(super) struct StormBrake {
    limit: u64,
    passed: Recent,
    tripped: bool,
}

/// Blocks that were counted within the window.
#[derive(Default)]
pub(super) struct Recent {
    /// When how many were, oldest first.
    counted: VecDeque<(Duration, u64)>,
    sum: u64,
}

impl Recent {
    /// Counts `blocks` more at `now`, unless they are more than `limit` then; whether it did.
    pub(super) fn admit(&mut self, now: Duration, blocks: u64, limit: u64) -> bool {
        while let Some(&(at, old)) = self.counted.front()
            && now.saturating_sub(at) >= WINDOW
        {
            self.counted.pop_front();
            self.sum -= old;
        }
        if self.sum.saturating_add(blocks) > limit {
            return false;
        }
        self.sum += blocks;
        match self.counted.back_mut() {
            Some((at, count)) if *at == now => *count += blocks,
            _ => self.counted.push_back((now, blocks)),
        }
        true
    }
}

impl StormBrake {
    pub(super) fn new(limit: u64) -> StormBrake {
        StormBrake { limit, passed: Recent::default(), tripped: false }
    }

    /// Whether `blocks` more may be relocated at `now`. The first that may not trip the brake, and it stays on.
    pub(super) fn admit(&mut self, now: Duration, blocks: u64) -> bool {
        if self.tripped {
            return false;
        }
        let admitted = self.passed.admit(now, blocks, self.limit);
        if !admitted {
            self.tripped = true;
        }
        admitted
    }

    pub(super) fn tripped(&self) -> bool {
        self.tripped
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Releases the brake, and counts anew.
    pub(super) fn rearm(&mut self) {
        *self = StormBrake::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_trips_only_beyond_the_limit_within_the_window() {
        let mut brake = StormBrake::new(10);
        assert!(brake.admit(at(0), 10));
        // The first ten are 60 s old now.
        assert!(brake.admit(at(60), 10));
        assert!(!brake.admit(at(119), 1));
        assert!(brake.tripped());
        assert!(!brake.admit(at(1000), 1), "it stays on");
        brake.rearm();
        assert!(!brake.tripped());
        assert!(brake.admit(at(1000), 10));
    }

    #[test]
    fn a_higher_limit_lets_more_through() {
        let mut brake = StormBrake::new(1);
        brake.set_limit(3);
        assert!(brake.admit(at(0), 3));
        assert!(!brake.admit(at(0), 1));
        assert_eq!(brake.limit(), 3);
    }
}
