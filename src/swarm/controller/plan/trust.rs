//! What children say of a peer counts more than what it says of itself.
//!
//! The attack: somebody says that it carries a hundred links and feeds nobody, and so makes the
//! relay feed many. It is found out after a few seconds, by three different children, and costs
//! the more time the more often it happened. Nobody can have somebody else left out alone: a
//! complaint bars a pair, and nothing more.

use std::time::Duration;

use crate::base::time::Mono;

/// Strikes that are remembered, and how often one fades.
const STRIKES_MAX: usize = 96;
const FADE: Duration = Duration::from_secs(10);

/// Different children that must complain before a peer is trusted less.
const VOICES: usize = 3;

/// For how long a peer is trusted less, and one that has never fed anybody; doubled each time
/// that it happens again soon, and up to how long.
const TERM: Duration = Duration::from_secs(30);
const TERM_SILENT: Duration = Duration::from_secs(60);
const TERM_MAX: Duration = Duration::from_secs(240);

/// A peer is left one in so many of its links at least: perhaps it was a moment's queue.
const LEAST: u16 = 8;

/// How a peer does as a parent.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The children that complained, the oldest first.
    strikes: Vec<u32>,
    faded: Mono,
    /// The most links that it is given, and until when.
    most: Option<u16>,
    until: Mono,
    term: Duration,
    /// Whether it ever fed anybody.
    pub(super) fed: bool,
}

impl Trust {
    /// Links that it is given, if it says that it carries so many. What was taken comes back by
    /// doubling.
    pub(super) fn limit(&mut self, now: Mono, said: u16) -> u16 {
        let Some(most) = self.most else { return said };
        if now < self.until {
            return said.min(most);
        }
        let more = most.saturating_mul(2);
        if most == 0 || more >= said {
            self.most = None;
            return said;
        }
        (self.most, self.until) = (Some(more), now + TERM);
        more
    }

    /// A child says that it is not fed. Returns whether the oldest strike is forgotten for it.
    #[must_use]
    pub(super) fn strike(&mut self, now: Mono, child: u32) -> bool {
        if self.strikes.is_empty() {
            self.faded = now;
        }
        let full = self.strikes.len() == STRIKES_MAX;
        if full {
            self.strikes.remove(0);
        }
        self.strikes.push(child);
        full
    }

    /// Forgets old strikes.
    pub(super) fn fade(&mut self, now: Mono) {
        if !self.strikes.is_empty() && now.since(self.faded) >= FADE {
            self.strikes.remove(0);
            self.faded = now;
        }
    }

    /// Trusts it less if enough have complained: with as many links as work. It was given `slots`
    /// links, has `used` of them left, and `fine` of these are content.
    pub(super) fn judge(&mut self, now: Mono, slots: u16, used: u16, fine: u16) {
        let mut voices = self.strikes.clone();
        voices.sort_unstable();
        voices.dedup();
        if voices.len() < VOICES {
            return;
        }
        let silent = !self.fed;
        if !silent && self.strikes.len() * 2 < usize::from(used) {
            return;
        }
        if now.since(self.until) >= TERM_MAX {
            self.term = Duration::ZERO;
        }
        let first = if silent { TERM_SILENT } else { TERM };
        self.term = (self.term * 2).clamp(first, TERM_MAX);
        self.until = now + self.term;
        self.most =
            Some(if silent { 0 } else { fine.max(slots / LEAST).min(slots.saturating_sub(1)) });
        self.strikes.clear();
    }
}

/// Pairs that are remembered, and for how long.
const BARS_MAX: usize = 8;
const BARRED: Duration = Duration::from_secs(60);

/// Parents in a row that did not feed a child at all, after which it rests, and for how long:
/// doubled each time.
const FAILURES: u8 = 8;
const REST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(160);

/// What a child has been through with its parents.
#[derive(Debug, Default)]
pub(super) struct Bars {
    /// Parents that did not feed it, the oldest first, and until when they are left out.
    pairs: Vec<(u32, Mono)>,
    failures: u8,
    rest: Duration,
    until: Mono,
}

impl Bars {
    /// Whether the pair is left out.
    pub(super) fn has(&self, now: Mono, parent: u32) -> bool {
        self.pairs.iter().any(|(channel, until)| *channel == parent && now < *until)
    }

    /// Leaves a pair out. Returns whether another one is left out no more for it.
    #[must_use]
    pub(super) fn add(&mut self, now: Mono, parent: u32) -> bool {
        self.pairs.retain(|(channel, until)| *channel != parent && now < *until);
        let full = self.pairs.len() == BARS_MAX;
        if full {
            self.pairs.remove(0);
        }
        self.pairs.push((parent, now + BARRED));
        full
    }

    /// A parent has never fed the child: it is perhaps nobody's fault but its own line's.
    pub(super) fn failed(&mut self, now: Mono) {
        self.failures += 1;
        if self.failures >= FAILURES {
            self.failures = 0;
            self.rest = (self.rest * 2).clamp(REST, REST_MAX);
            self.until = now + self.rest;
        }
    }

    /// Nobody can take it at the moment.
    pub(super) fn waits(&mut self, until: Mono) {
        self.until = self.until.max(until);
    }

    /// A parent feeds it.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.rest) = (0, Duration::ZERO);
    }

    /// Whether it is given parents at the moment.
    pub(super) fn rests(&self, now: Mono) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn a_ninth_pair_takes_the_place_of_the_oldest_and_says_so() {
        let mut bars = Bars::default();
        assert!((1..=8).all(|parent| !bars.add(at(parent.into()), parent)));
        assert!(!bars.add(at(9), 8), "the same again");
        assert!(bars.add(at(10), 9));
        assert!(!bars.has(at(10), 1) && (2..=9).all(|parent| bars.has(at(10), parent)));
        // The next is over by itself.
        assert!(!bars.add(at(62), 10) && !bars.has(at(62), 2));
    }

    #[test]
    fn a_strike_too_many_takes_the_place_of_the_oldest_and_says_so() {
        let mut trust = Trust::default();
        assert!((0..96).all(|child| !trust.strike(at(0), child)));
        assert!(trust.strike(at(1), 96));
        assert_eq!((trust.strikes.len(), trust.strikes[0]), (STRIKES_MAX, 1));
        trust.fade(at(10));
        assert!(!trust.strike(at(10), 97), "one has faded");
    }
}
