//! From a plan that fails to the least that still does: lives, operations and faults are left out as long as it fails.

use super::life::run;
use super::plan::{Crash, Plan};
use super::random::Random;

/// Runs that are tried for each smaller plan: leaving something out changes when everything else happens.
const TRIES: u64 = 12;

/// The least plan that was found to fail, within about `runs` runs.
#[must_use]
pub fn shrink(plan: &Plan, runs: u64) -> Plan {
    let mut shrinker = Shrinker { best: plan.clone(), left: runs, random: Random::new(plan.schedule) };
    loop {
        let before = shrinker.best.size();
        shrinker.lives();
        shrinker.ops();
        if shrinker.best.size() == before || shrinker.left == 0 {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    best: Plan,
    left: u64,
    random: Random,
}

impl Shrinker {
    /// Takes `plan` if it fails, at some schedule and crash points near those that it has.
    fn attempt(&mut self, plan: Plan) -> bool {
        for attempt in 0..TRIES {
            if self.left == 0 {
                return false;
            }
            self.left -= 1;
            let mut plan = plan.clone();
            if attempt > 0 {
                plan.schedule = self.random.next();
                for life in &mut plan.lives {
                    if let Some(Crash { polls, .. }) = &mut life.crash {
                        *polls = (*polls / 4).max(self.random.below(*polls + 1));
                    }
                }
            }
            if run(&plan, false).failure.is_some() {
                self.best = plan;
                return true;
            }
        }
        false
    }

    /// Leaves out lives, from the last.
    fn lives(&mut self) {
        let mut index = self.best.lives.len();
        while index > 0 {
            index -= 1;
            let mut plan = self.best.clone();
            if index >= plan.lives.len() || plan.lives.len() == 1 {
                continue;
            }
            plan.lives.remove(index);
            self.attempt(plan);
        }
        for index in 0..self.best.lives.len() {
            let mut plan = self.best.clone();
            if plan.lives[index].verify {
                plan.lives[index].verify = false;
                self.attempt(plan);
            }
        }
    }

    /// Leaves out operations, half a life at a time at first.
    fn ops(&mut self) {
        for life in (0..self.best.lives.len()).rev() {
            let mut chunk = self.best.lives[life].ops.len();
            while chunk > 0 {
                let mut from = 0;
                while from < self.best.lives[life].ops.len() {
                    let mut plan = self.best.clone();
                    let ops = &mut plan.lives[life].ops;
                    ops.drain(from..(from + chunk).min(ops.len()));
                    if !self.attempt(plan) {
                        from += chunk;
                    }
                }
                chunk /= 2;
            }
        }
    }
}
