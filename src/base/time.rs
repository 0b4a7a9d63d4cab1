//! The clock types. Time is always an argument: only `io` and `node` read a real clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A reading of the monotonic clock in nanoseconds since an arbitrary origin (process start).
///
/// Every timer and every delay uses this half of [`Now`]. Unlike `std::time::Instant` it can be
/// made up, printed and stored in an atomic, which is what a simulator needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The origin of the clock.
    pub const ZERO: Mono = Mono(0);

    /// A reading of `nanos` nanoseconds since the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Mono {
        Mono(nanos)
    }

    /// A reading of `millis` milliseconds since the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Mono {
        Mono(millis * 1_000_000)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, rhs: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, rhs: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC. For display and signing only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(u64);

impl Utc {
    /// A time of `millis` milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Utc {
        Utc(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_millis(self) -> u64 {
        self.0
    }
}

/// One reading of both clocks, taken by a driver before it calls a machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic time: all timers and delays.
    pub mono: Mono,
    /// Wall-clock time: what people and signatures see.
    pub utc: Utc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = Mono::from_millis(5);
        assert_eq!(t.since(Mono::from_millis(7)), Duration::ZERO);
        assert_eq!(t.since(Mono::from_millis(2)), Duration::from_millis(3));
        assert_eq!(t - Duration::from_secs(1), Mono::ZERO);
        assert_eq!(Mono::from_nanos(u64::MAX) + Duration::MAX, Mono::from_nanos(u64::MAX));
    }
}
