//! How long a shard gathers bytes before it sends them: as short as its load allows.
//!
//! Bytes per send are the largest lever on what a viewer costs (a factor of 40 between one chunk
//! and 60 KiB). So a busy shard gathers longer, and an idle one sends at once.
//!
//! The work of a shard is about `a + b / interval`: `a` for the bytes themselves, `b` for the
//! sends. The controller moves the interval by a power of how far the busy share is from its
//! target. In logarithms the plant's gain lies between 0 and -1, so a power of one half leaves
//! at most half of an error uncorrected and cannot overshoot: no oscillation, whatever the load.

use std::time::Duration;

use crate::base::time::Mono;

/// The shortest interval: one look at every ring per millisecond of work.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How long the busy share is observed before the interval moves; longer with long intervals,
/// so that every observation holds several rounds.
const OBSERVE: Duration = Duration::from_millis(100);
const ROUNDS: u32 = 3;

/// One step moves the interval by this factor at most.
const STEP_MAX: f64 = 2.0;

/// Inside this band around the target the interval stays: noise is no reason to move.
const CALM: f64 = 0.1;

/// The controller of one shard's flush interval.
#[derive(Debug)]
pub(super) struct Pace {
    target: f64,
    longest: Duration,
    interval: Duration,
    since: Mono,
    worked: Duration,
}

impl Pace {
    /// A pace that keeps the busy share near `target` (0 to 1) if `longest` allows.
    pub(super) fn new(target: f64, longest: Duration) -> Pace {
        let longest = longest.max(INTERVAL_MIN);
        let since = Mono::ZERO;
        Pace { target, longest, interval: INTERVAL_MIN, since, worked: Duration::ZERO }
    }

    /// How long to gather now.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes the time that the shard has worked in all, by its driver's account. Moves the
    /// interval when enough was observed; returns the busy share then.
    pub(super) fn observe(&mut self, now: Mono, worked: Duration) -> Option<f64> {
        let elapsed = now.since(self.since);
        if elapsed < OBSERVE.max(self.interval * ROUNDS) {
            return None;
        }
        let busy = worked.saturating_sub(self.worked).as_secs_f64() / elapsed.as_secs_f64();
        self.since = now;
        self.worked = worked;
        let error = busy / self.target;
        if (1.0 - CALM..=1.0 + CALM).contains(&error) {
            return Some(busy);
        }
        let factor = error.sqrt().clamp(1.0 / STEP_MAX, STEP_MAX);
        self.interval = self.interval.mul_f64(factor).clamp(INTERVAL_MIN, self.longest);
        Some(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard whose work is `bytes + sends / interval`, with a little noise from `seed`.
    struct Plant {
        pace: Pace,
        now: Mono,
        worked: Duration,
        trace: Vec<Duration>,
        noise: fastrand::Rng,
    }

    impl Plant {
        fn new(seed: u64) -> Plant {
            Plant {
                pace: Pace::new(0.35, Duration::from_millis(200)),
                now: Mono::from_millis(1),
                worked: Duration::ZERO,
                trace: Vec::new(),
                noise: fastrand::Rng::with_seed(seed),
            }
        }

        fn run(&mut self, time: Duration, bytes: f64, sends_ms: f64) {
            let end = self.now + time;
            while self.now < end {
                let step = Duration::from_millis(10);
                let interval_ms = self.pace.interval().as_secs_f64() * 1e3;
                let busy = (bytes + sends_ms / interval_ms).min(1.0);
                let busy = busy * (0.9 + 0.2 * self.noise.f64());
                self.worked += step.mul_f64(busy.min(1.0));
                self.now = self.now + step;
                if self.pace.observe(self.now, self.worked).is_some() {
                    self.trace.push(self.pace.interval());
                }
            }
        }
    }

    #[test]
    fn an_idle_shard_sends_at_once() {
        let mut plant = Plant::new(1);
        plant.run(Duration::from_secs(5), 0.02, 0.05);
        assert_eq!(plant.pace.interval(), INTERVAL_MIN);
    }

    #[test]
    fn a_step_of_load_settles_without_oscillation() {
        for seed in 0..50 {
            let mut plant = Plant::new(seed);
            plant.run(Duration::from_secs(2), 0.01, 0.1);
            plant.trace.clear();
            // 100 viewers become 4,000: work for 4 intervals of a millisecond in each.
            plant.run(Duration::from_secs(10), 0.15, 4.0);
            // It settles where 0.15 + 4 / t is the target: at 20 ms.
            let last = plant.pace.interval().as_secs_f64() * 1e3;
            assert!((16.0..26.0).contains(&last), "seed {seed}: {last} ms");
            let peak = plant.trace.iter().max().unwrap().as_secs_f64() * 1e3;
            assert!(peak < 27.0, "seed {seed}: overshoot to {peak} ms");
            let settled = &plant.trace[plant.trace.len() / 2..];
            let turns = settled.windows(3).filter(|w| (w[0] < w[1]) != (w[1] < w[2])).count();
            let moved = settled.windows(2).filter(|w| w[0] != w[1]).count();
            assert!(turns <= settled.len() && moved * 2 <= settled.len(), "seed {seed}: hunting");
            plant.run(Duration::from_secs(10), 0.01, 0.1);
            assert_eq!(plant.pace.interval(), INTERVAL_MIN, "seed {seed}: comes back");
        }
    }

    #[test]
    fn the_longest_interval_is_kept() {
        let mut plant = Plant::new(3);
        plant.run(Duration::from_secs(20), 0.6, 30.0);
        assert_eq!(plant.pace.interval(), Duration::from_millis(200));
    }
}
