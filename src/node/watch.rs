//! The household's watch: feeds the watchdog while every shard moves, and takes the pulse.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::control::House;
use crate::face::http::graph::{self, Picture};
use crate::face::http::status;
use crate::metrics::delay;
use crate::metrics::table::Cell;
use crate::node::notify;
use crate::registry::pulse::Pulse;

/// A shard's loop turns at least once a second; one that has not for this long is stuck.
const STUCK: Duration = Duration::from_millis(2500);

/// How often the pulse is taken, and over how many beats delays are looked at.
const BEAT: Duration = Duration::from_secs(1);
const BEATS: usize = 10;

/// How far each shard's loop had turned, and since when it has not turned further.
#[derive(Debug, Default)]
struct Progress(Vec<(u64, Instant)>);

impl Progress {
    /// Whether no shard is stuck. `rounds` of every shard, in their order.
    fn all_move(&mut self, rounds: impl ExactSizeIterator<Item = u64>, now: Instant) -> bool {
        self.0.resize(rounds.len(), (0, now));
        let mut all = true;
        for (seen, rounds) in self.0.iter_mut().zip(rounds) {
            if rounds != seen.0 {
                *seen = (rounds, now);
            }
            all &= now - seen.1 < STUCK;
        }
        all
    }
}

/// Remembers what was seen last.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Progress,
    fed: Instant,
    interval: Option<Duration>,
    beat: Instant,
    delays: VecDeque<Histogram<u64>>,
}

impl Watch {
    pub(super) fn new() -> Watch {
        let now = Instant::now();
        Watch {
            progress: Progress::default(),
            fed: now,
            interval: notify::watchdog_interval(),
            beat: now,
            delays: VecDeque::with_capacity(BEATS + 1),
        }
    }

    /// Looks at everything once.
    pub(super) fn tick(&mut self, house: &House) {
        let now = Instant::now();
        let rounds = house.cells.iter().map(|cells| cells.get(Cell::LoopRounds));
        if self.progress.all_move(rounds, now)
            && self
                .interval
                .is_some_and(|interval| now - self.fed >= (interval / 2).saturating_sub(BEAT / 4))
        {
            self.fed = now;
            notify::watchdog();
        }
        if now - self.beat >= BEAT {
            self.beat = now;
            self.take_pulse(house);
            draw(house);
        }
    }

    fn take_pulse(&mut self, house: &House) {
        let total = delay::merge(house.shelves.iter().map(Arc::as_ref));
        let mut recent = total.clone();
        if let Some(before) = self.delays.front() {
            // The older total is a part of the newer one: nothing to go below zero.
            let _ = recent.subtract(before);
        }
        self.delays.push_back(total);
        if self.delays.len() > BEATS {
            self.delays.pop_front();
        }
        let ms = |quantile| match recent.is_empty() {
            true => 0.0,
            false => (recent.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0,
        };
        let draining = house.registry.pulse.load().draining;
        let pulse = Pulse { delay_p50_ms: ms(0.5), delay_p99_ms: ms(0.99), draining };
        house.registry.pulse.store(Arc::new(pulse));
    }
}

/// Notes how each stream's swarm goes, and draws who feeds whom.
fn draw(house: &House) {
    let now = house.clock.now();
    for stream in house.registry.directory().iter() {
        let swarm = status::swarm(stream);
        let course = stream.course.load().next(now.mono, swarm.reading());
        stream.course.store(Arc::new(course));
        let picture = Picture::of(now, swarm.peers, &stream.course.load(), &stream.graph.load());
        stream.picture.store(Arc::new(graph::encode(&picture)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stuck_shard_starves_the_watchdog_until_it_moves_again() {
        let (start, mut progress) = (Instant::now(), Progress::default());
        let mut moves = |seconds: u64, rounds: [u64; 2]| {
            progress.all_move(rounds.into_iter(), start + Duration::from_secs(seconds))
        };
        assert!(moves(0, [1, 1]));
        assert!(moves(2, [2, 1]), "a sleeping shard turns at least once a second");
        assert!(!moves(3, [3, 1]), "the second one is stuck");
        assert!(!moves(60, [60, 1]));
        assert!(moves(61, [61, 2]));
    }
}
