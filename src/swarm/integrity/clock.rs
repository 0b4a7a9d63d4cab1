//! The signer's clock: it never goes back and never jumps, whatever the machine's clock does.

use crate::base::time::{Mono, Now, Utc};
use crate::swarm::integrity::ntp;

const MILLI: u64 = 1_000_000;

/// Wall-clock time at one moment, and monotonic time from there on.
///
/// It begins at UTC, or where the process before it stopped signing if that is later, and the
/// wall clock is never read again: who receives the stream judges times of signing by their
/// distance to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerClock {
    /// Nanoseconds since 1970 at `from`.
    unix: u64,
    from: Mono,
}

impl SignerClock {
    /// A clock that begins now, and not before `signed`: when something was last signed.
    #[must_use]
    pub fn new(now: Now, signed: Utc) -> SignerClock {
        let millis = now.utc.max(signed).as_unix_millis();
        SignerClock { unix: millis.saturating_mul(MILLI), from: now.mono }
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn unix_nanos(&self, now: Mono) -> u64 {
        let since = u64::try_from(now.since(self.from).as_nanos()).unwrap_or(u64::MAX);
        self.unix.saturating_add(since)
    }

    /// The time, as it is told to people and in `swarm.json`.
    #[must_use]
    pub fn utc(&self, now: Mono) -> Utc {
        Utc::from_unix_millis(self.unix_nanos(now) / MILLI)
    }

    /// The time, as it is signed.
    #[must_use]
    pub fn ntp(&self, now: Mono) -> u64 {
        ntp::from_unix_nanos(self.unix_nanos(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn now(mono: u64, utc: u64) -> Now {
        Now { mono: Mono::from_millis(mono), utc: Utc::from_unix_millis(utc) }
    }

    #[test]
    fn it_goes_on_where_signing_stopped() {
        let later = SignerClock::new(now(50, 9_000), Utc::from_unix_millis(1_000));
        assert_eq!(later.utc(Mono::from_millis(57)), Utc::from_unix_millis(9_007));
        let set_back = SignerClock::new(now(50, 9_000), Utc::from_unix_millis(70_000));
        let at = Mono::from_millis(50) + Duration::from_micros(1_500);
        assert_eq!(set_back.utc(at), Utc::from_unix_millis(70_001));
        assert_eq!(set_back.ntp(at), ntp::from_unix_nanos(70_001_500_000));
        assert_eq!(set_back.utc(Mono::ZERO), Utc::from_unix_millis(70_000), "never before");
    }
}
