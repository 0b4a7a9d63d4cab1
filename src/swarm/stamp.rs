//! The relay's clock as a viewer's node sees it.

use std::time::Duration;

use crate::base::time::Mono;

/// Seconds from 1900, where NTP begins, to 1970.
const NTP_UNIX: u64 = 2_208_988_800;

/// A time of the relay's clock: microseconds since 1970, as far as the relay knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// A time of `micros` microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Stamp {
        Stamp(micros)
    }

    /// An NTP time that lies less than 68 years from `near`: its seconds count modulo 2^32.
    #[must_use]
    pub fn from_ntp(ntp: u64, near: Stamp) -> Stamp {
        let around = near.0 / 1_000_000 + NTP_UNIX;
        // Both truncations are the modulus.
        let ahead = ((ntp >> 32) as u32).wrapping_sub(around as u32) as i32;
        let seconds = around.saturating_add_signed(i64::from(ahead)).saturating_sub(NTP_UNIX);
        let micros = ((ntp & u64::from(u32::MAX)) * 1_000_000) >> 32;
        Stamp(seconds * 1_000_000 + micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Stamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The time `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Stamp {
        Stamp(self.0.saturating_add(micros(by)))
    }

    /// The time `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Stamp {
        Stamp(self.0.saturating_sub(micros(by)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Tells the relay's time: what it said once, and monotonic time since.
#[derive(Clone, Copy, Debug)]
pub struct RelayClock {
    at: Mono,
    stamp: Stamp,
}

impl RelayClock {
    /// The relay said `unix_ms` in answer to a question that was `asked` and came back `got`:
    /// on average half a round trip ago.
    #[must_use]
    pub fn new(unix_ms: u64, asked: Mono, got: Mono) -> RelayClock {
        let stamp = Stamp(unix_ms.saturating_mul(1_000)).plus(got.since(asked) / 2);
        RelayClock { at: got, stamp }
    }

    /// The relay's time at `now`.
    #[must_use]
    pub fn at(&self, now: Mono) -> Stamp {
        self.stamp.plus(now.since(self.at)).minus(self.at.since(now))
    }

    /// When the relay's clock shows `stamp`.
    #[must_use]
    pub fn when(&self, stamp: Stamp) -> Mono {
        self.at + stamp.since(self.stamp) - self.stamp.since(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_times_are_told_from_each_other_across_the_wrap_of_2036() {
        // 2026-01-01T00:00:00Z, as in protocol.md.
        let start = Stamp::from_micros(1_767_225_600_000_000);
        let near = start.plus(Duration::from_secs(3));
        assert_eq!(Stamp::from_ntp(0xed00_3780_0000_0000, near), start);
        let half = Stamp::from_ntp(0xed00_3780_8000_0000, near);
        assert_eq!(half.since(start), Duration::from_millis(500));
        // 2036-02-07T06:28:16Z is second 0 of the next era.
        let wrap = Stamp::from_micros(2_085_978_496_000_000);
        assert_eq!(Stamp::from_ntp(0, wrap.minus(Duration::from_secs(2))), wrap);
        let before = Stamp::from_ntp(u64::from(u32::MAX) << 32, wrap);
        assert_eq!(wrap.since(before), Duration::from_secs(1));
    }

    #[test]
    fn the_relay_clock_runs_with_ours() {
        let ms = Mono::from_millis;
        let clock = RelayClock::new(1_000, ms(10), ms(30));
        assert_eq!(clock.at(ms(30)), Stamp::from_micros(1_010_000));
        assert_eq!(clock.at(ms(25)), Stamp::from_micros(1_005_000));
        assert_eq!(clock.when(Stamp::from_micros(1_025_000)), ms(45));
        assert_eq!(clock.when(Stamp::from_micros(1_000_000)), ms(20));
    }
}
