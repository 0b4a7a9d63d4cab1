//! Randomness that a seed decides: every purpose has dice of its own, so that one more throw
//! for one of them changes nothing for the others.

use crate::base::spread::{GOLDEN, spread};
use std::time::Duration;

/// Parts per million: how likely something is.
pub type Ppm = u32;

const MILLION: u64 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): whole numbers only, so the same on every platform.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a world's `seed` for one purpose, `index` telling its users apart.
    #[must_use]
    pub fn new(seed: u64, purpose: &str, index: u64) -> Dice {
        let mut state = spread(seed ^ GOLDEN);
        for byte in purpose.bytes() {
            state = spread(state ^ u64::from(byte));
        }
        Dice(spread(state ^ spread(index)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        spread(self.0)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a 64-bit product is far below anything that a world could show.
        ((u128::from(self.number()) * u128::from(end)) >> 64) as u64
    }

    /// Whether something that is so likely happens. Certain and impossible things cost no throw.
    pub fn happens(&mut self, ppm: Ppm) -> bool {
        match u64::from(ppm) {
            0 => false,
            ppm if ppm >= MILLION => true,
            ppm => self.below(MILLION) < ppm,
        }
    }

    /// A time of at most `longest`.
    pub fn time(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_seeds_and_users_have_dice_of_their_own() {
        let first = |seed, purpose, index| Dice::new(seed, purpose, index).number();
        let all = [first(1, "loss", 0), first(2, "loss", 0), first(1, "jitter", 0)];
        let more = [first(1, "loss", 1), first(1, "los", 0)];
        let mut numbers: Vec<u64> = all.into_iter().chain(more).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 5);
        assert_eq!(first(1, "loss", 0), first(1, "loss", 0));
    }

    #[test]
    fn likelihoods_are_as_said() {
        let mut dice = Dice::new(7, "test", 0);
        let count = (0..100_000).filter(|_| dice.happens(20_000)).count();
        assert!((1_800..2_200).contains(&count), "{count}");
        assert!(!dice.happens(0) && dice.happens(1_000_000));
        let sum: u64 = (0..10_000).map(|_| dice.below(100)).sum();
        assert!((480_000..510_000).contains(&sum), "{sum}");
        assert!(dice.time(Duration::from_millis(3)) <= Duration::from_millis(3));
        assert_eq!(dice.time(Duration::ZERO), Duration::ZERO);
    }
}
