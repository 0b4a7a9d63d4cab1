//! Whether the relay knows what it sends: what its shards measure together and hold against the
//! egress budget, against what has really left its host.

use std::collections::VecDeque;

/// Readings in a second, and seconds that are looked at: each shard measures over one, and shows
/// it until the next one is over.
const SECOND: usize = 4;
const SECONDS: usize = 3;

/// So many readings in a row must be wrong: what is shown after a pause is the pause.
const WRONG: usize = 8;

/// What nobody measures: answers to openings and farewells, also in a flood of openings.
const APART: u64 = 2_000_000;

/// The newest readings of all bytes that the host has sent, oldest first.
#[derive(Debug, Default)]
pub struct Gauge {
    readings: VecDeque<u64>,
    /// Readings in a row that were wrong.
    wrong: usize,
}

impl Gauge {
    /// Takes a reading, four in a second. Returns what went out in each of the last seconds at
    /// least, in bits per second, if that is much more than what was `measured`.
    pub fn read(&mut self, bytes: u64, measured: u64) -> Option<u64> {
        self.readings.push_back(bytes);
        if self.readings.len() <= SECOND * SECONDS {
            return None;
        }
        let at = |second: usize| self.readings[second * SECOND];
        let rates = (0..SECONDS).map(|second| (at(second + 1) - at(second)) * 8);
        let least = rates.min().unwrap_or(0);
        self.readings.pop_front();
        let is_wrong = least > measured / 3 * 4 + APART;
        self.wrong = if is_wrong { self.wrong + 1 } else { 0 };
        (self.wrong >= WRONG).then_some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_is_not_measured_shows_and_a_moment_does_not() {
        let play = |rates: &[u64], measured: u64| {
            let (mut gauge, mut bytes) = (Gauge::default(), 0);
            let mut found = 0;
            for rate in rates {
                for _ in 0..SECOND {
                    bytes += rate / 8 / SECOND as u64;
                    found += usize::from(gauge.read(bytes, measured).is_some());
                }
            }
            found
        };
        assert_eq!(play(&[40_000_000; 7], 38_000_000), 0);
        assert!(play(&[40_000_000; 7], 20_000_000) > 0);
        assert_eq!(play(&[1_500_000; 7], 0), 0, "what nobody measures");
        assert_eq!(play(&[40_000_000; 4], 0), 0, "it shows a second later");
        assert_eq!(play(&[40_000_000, 40_000_000, 0, 40_000_000, 40_000_000], 0), 0, "a pause");
    }
}
