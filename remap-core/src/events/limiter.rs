//! Lets one event of a kind through a second, and adds up those that come in between. It knows no clock: it is told the time.

use std::time::Duration;

use super::What;

/// Between two events of a kind.
const BETWEEN: Duration = Duration::from_secs(1);

/// What was let through, and what waits, by kind.
#[derive(Default)]
pub(super) struct Limiter(Vec<Kind>);

/// A kind of event, from the first one on.
struct Kind {
    name: &'static str,
    /// When the next one may be let through.
    free_at: Duration,
    /// What waits until then.
    waiting: Option<(What, u64)>,
}

impl Limiter {
    /// It happened at `now`, and is `count` times the thing that is counted. What is to be told at once comes back, what is not
    /// waits.
    pub(super) fn pass(&mut self, now: Duration, what: What, count: u64) -> Option<(What, u64)> {
        let name = what.name();
        let Some(kind) = self.0.iter_mut().find(|kind| kind.name == name) else {
            self.0.push(Kind { name, free_at: now + BETWEEN, waiting: None });
            return Some((what, count));
        };
        let all = match kind.waiting.take() {
            Some((before, waiting)) => (before.followed_by(what), waiting + count),
            None => (what, count),
        };
        if now < kind.free_at {
            kind.waiting = Some(all);
            return None;
        }
        kind.free_at = now + BETWEEN;
        Some(all)
    }

    /// When the next one that waits is to be told, if any does.
    pub(super) fn due(&self) -> Option<Duration> {
        self.0.iter().filter(|kind| kind.waiting.is_some()).map(|kind| kind.free_at).min()
    }

    /// What has waited long enough.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<(What, u64)> {
        self.take(|kind| kind.free_at <= now, now)
    }

    /// All that waits, as nothing is waited for any more.
    pub(super) fn take_all(&mut self, now: Duration) -> Vec<(What, u64)> {
        self.take(|_| true, now)
    }

    fn take(&mut self, wanted: impl Fn(&Kind) -> bool, now: Duration) -> Vec<(What, u64)> {
        let take = |kind: &mut Kind| {
            let waited = kind.waiting.take()?;
            kind.free_at = now + BETWEEN;
            Some(waited)
        };
        self.0.iter_mut().filter(|kind| wanted(kind)).filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BaseLba;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn pending(lba: u64, total: u64) -> What {
        What::Pending { lowest: BaseLba(lba), total }
    }

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_the_others_when_its_second_is_over() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.pass(at(5000), pending(7, 1), 1), Some((pending(7, 1), 1)));
        assert_eq!(limiter.due(), None, "nothing waits");
        assert_eq!(limiter.pass(at(5001), pending(9, 3), 2), None);
        assert_eq!(limiter.pass(at(5500), pending(8, 6), 3), None);
        assert_eq!(limiter.due(), Some(at(6000)));
        assert_eq!(limiter.take_due(at(5999)), []);
        assert_eq!(limiter.take_due(at(6000)), [(pending(8, 6), 5)], "counts added, the lowest LBA, the last total");
        assert_eq!(limiter.due(), None);
        // What was told late begins a second, too.
        assert_eq!(limiter.pass(at(6999), pending(1, 7), 1), None);
        assert_eq!(limiter.take_due(at(7000)), [(pending(1, 7), 1)]);
        assert_eq!(limiter.pass(at(8000), pending(2, 8), 1), Some((pending(2, 8), 1)));
    }

    #[test]
    fn what_waits_goes_with_the_next_one_where_nobody_was_there_in_time() {
        let mut limiter = Limiter::default();
        assert!(limiter.pass(at(0), pending(1, 1), 1).is_some());
        assert!(limiter.pass(at(1), pending(2, 2), 1).is_none());
        assert_eq!(limiter.pass(at(3000), pending(3, 3), 1), Some((pending(2, 3), 2)));
        assert_eq!(limiter.take_all(at(3001)), []);
    }

    #[test]
    fn one_kind_does_not_hold_up_another() {
        let mut limiter = Limiter::default();
        assert!(limiter.pass(at(0), pending(1, 1), 1).is_some());
        assert!(limiter.pass(at(1), What::Healed, 1).is_some());
        assert!(limiter.pass(at(2), What::Healed, 1).is_none());
        assert!(limiter.pass(at(3), pending(1, 1), 1).is_none());
        assert_eq!(limiter.due(), Some(at(1000)));
        assert_eq!(limiter.take_due(at(1000)), [(pending(1, 1), 1)]);
        assert_eq!(limiter.due(), Some(at(1001)));
        assert_eq!(limiter.take_all(at(1000)), [(What::Healed, 1)], "the end waits for nothing");
    }

    #[test]
    fn no_more_than_one_a_second_and_nothing_is_left_out_under_load() {
        let (mut limiter, mut told) = (Limiter::default(), Vec::new());
        for millis in 0..10_000 {
            told.extend(limiter.take_due(at(millis)).into_iter().map(|event| (millis, event)));
            told.extend(limiter.pass(at(millis), pending(millis, millis + 1), 1).map(|event| (millis, event)));
        }
        told.extend(limiter.take_all(at(10_000)).into_iter().map(|event| (10_000, event)));
        assert_eq!(
            told.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10_000]
        );
        assert_eq!(told.iter().map(|(_, (_, count))| count).sum::<u64>(), 10_000);
    }
}
