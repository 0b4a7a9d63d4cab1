//! Whether a munro is of now: what was signed long ago proves nothing about a live stream.
//!
//! The viewer's own wall clock may be wrong by hours, so it plays no part. The reference is the
//! newest munro that was verified, and monotonic time since; before there is one, the relay's
//! word in `swarm.json`.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::integrity::ntp;

/// A munro this much older than the reference is a replay.
pub const OLD: Duration = Duration::from_secs(30);

/// A munro this much ahead of the reference is wrong.
pub const AHEAD: Duration = Duration::from_secs(5);

/// A subtree signed longer ago is not announced, served, or sent as right-most munro.
pub const SERVED: Duration = Duration::from_secs(20);

/// Why a munro is not taken. None of it is a crime: datagrams can be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Signed more than [`OLD`] before the reference.
    Old,
    /// Signed more than [`AHEAD`] after the reference.
    Ahead,
}

/// The reference of one swarm, as one receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    ntp: u64,
    at: Mono,
}

impl Freshness {
    /// Begins with `now` of swarm.json, in milliseconds since 1970: it was asked for at `asked`
    /// and came at `came`, so it was written half of that before.
    #[must_use]
    pub fn new(unix_millis: u64, asked: Mono, came: Mono) -> Freshness {
        let ntp = ntp::plus(ntp::from_unix_millis(unix_millis), came.since(asked) / 2);
        Freshness { ntp, at: came }
    }

    /// What the signer's clock shows now, as far as is known.
    #[must_use]
    pub fn reference(&self, now: Mono) -> u64 {
        ntp::plus(self.ntp, now.since(self.at))
    }

    /// How long ago something was signed; zero if it lies ahead.
    #[must_use]
    pub fn age(&self, ntp: u64, now: Mono) -> Duration {
        ntp::before(self.reference(now), ntp).unwrap_or_default()
    }

    /// Whether a munro signed at `ntp` may be taken. Ask before its signature is checked: that
    /// is what costs.
    ///
    /// # Errors
    /// [`Stale`] says why not.
    pub fn judge(&self, ntp: u64, now: Mono) -> Result<(), Stale> {
        match ntp::before(self.reference(now), ntp) {
            Ok(age) if age > OLD => Err(Stale::Old),
            Err(ahead) if ahead > AHEAD => Err(Stale::Ahead),
            _ => Ok(()),
        }
    }

    /// A munro signed at `ntp` was verified: the newest one becomes the reference.
    ///
    /// Not the one that shows the latest time for now: two clocks that run apart by some seconds
    /// a day would then end every session that is long enough.
    pub fn verified(&mut self, ntp: u64, now: Mono) {
        if ntp::before(self.ntp, ntp).is_err() {
            *self = Freshness { ntp, at: now };
        }
    }

    /// Whether what was signed at `ntp` may still be announced and served.
    #[must_use]
    pub fn is_served(&self, ntp: u64, now: Mono) -> bool {
        self.age(ntp, now) <= SERVED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_767_225_600_000;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn signed(millis: u64) -> u64 {
        ntp::from_unix_millis(START + millis)
    }

    #[test]
    fn limits_are_those_of_the_protocol() {
        let fresh = Freshness::new(START, at(1_000), at(1_200));
        assert_eq!(fresh.reference(at(1_200)), signed(100), "half of the round trip");
        // Ten seconds later the signer's clock shows START + 10.1 s.
        let now = at(11_200);
        assert_eq!(fresh.judge(signed(10_100), now), Ok(()));
        let before = ntp::from_unix_millis(START - 19_800);
        assert_eq!(fresh.judge(before, now), Ok(()), "29.9 s old");
        assert!(!fresh.is_served(before, now));
        let before = ntp::from_unix_millis(START - 20_000);
        assert_eq!(fresh.judge(before, now), Err(Stale::Old), "30.1 s old");
        assert_eq!(fresh.judge(signed(15_000), now), Ok(()), "4.9 s ahead");
        assert_eq!(fresh.judge(signed(15_200), now), Err(Stale::Ahead), "5.1 s ahead");
        let (young, old) = (ntp::from_unix_millis(START - 9_800), START - 10_000);
        assert!(fresh.is_served(young, now));
        assert!(!fresh.is_served(ntp::from_unix_millis(old), now));
    }

    #[test]
    fn the_newest_verified_munro_is_the_reference() {
        let mut fresh = Freshness::new(START, at(0), at(0));
        // The relay's word was wrong by four seconds: the signature is what counts.
        fresh.verified(signed(4_000), at(100));
        assert_eq!(fresh.reference(at(200)), signed(4_100));
        fresh.verified(signed(3_000), at(300));
        assert_eq!(fresh.reference(at(300)), signed(4_200), "an older one changes nothing");
        // A receiver's clock that runs fast by a tenth keeps up for ever.
        for tick in 1..1_000 {
            let (ntp, now) = (signed(4_000 + tick * 100), at(300 + tick * 110));
            assert_eq!(fresh.judge(ntp, now), Ok(()), "tick {tick}");
            fresh.verified(ntp, now);
        }
    }

    #[test]
    fn seconds_compare_across_the_end_of_the_era() {
        let end = 2_085_978_496_000;
        let fresh = Freshness::new(end - 1_000, at(0), at(0));
        for (signed, verdict) in [
            (end + 3_000, Ok(())),
            (end + 4_500, Err(Stale::Ahead)),
            (end - 30_900, Ok(())),
            (end - 31_100, Err(Stale::Old)),
        ] {
            assert_eq!(fresh.judge(ntp::from_unix_millis(signed), at(0)), verdict, "{signed}");
        }
    }
}
