//! NTP time stamps (RFC 5905, 6): seconds since 1900 in the upper 32 bits, their fraction below.
//!
//! The seconds wrap in 2036, so two stamps are only ever compared by their difference.

use std::time::Duration;

/// Seconds from 1900 to 1970.
const TO_UNIX: u64 = 2_208_988_800;

const NANOS: u64 = 1_000_000_000;

/// The stamp of a time in nanoseconds since 1970 UTC.
#[must_use]
pub const fn from_unix_nanos(nanos: u64) -> u64 {
    let seconds = (nanos / NANOS).wrapping_add(TO_UNIX);
    let fraction = ((nanos % NANOS) << 32) / NANOS;
    (seconds << 32) | fraction
}

/// The stamp of a time in milliseconds since 1970 UTC.
#[must_use]
pub const fn from_unix_millis(millis: u64) -> u64 {
    let seconds = (millis / 1000).wrapping_add(TO_UNIX);
    let fraction = ((millis % 1000) << 32) / 1000;
    (seconds << 32) | fraction
}

/// The stamp `later` after `ntp`.
#[must_use]
pub fn plus(ntp: u64, later: Duration) -> u64 {
    let fraction = (u64::from(later.subsec_nanos()) << 32) / NANOS;
    ntp.wrapping_add(later.as_secs() << 32).wrapping_add(fraction)
}

/// How long `ntp` lies before `reference`; an error with the time that it lies behind it.
///
/// # Errors
/// If `ntp` is the later of the two.
pub fn before(reference: u64, ntp: u64) -> Result<Duration, Duration> {
    let apart = reference.wrapping_sub(ntp).cast_signed();
    let fixed = apart.unsigned_abs();
    let nanos = ((fixed & 0xffff_ffff) * NANOS) >> 32;
    let apart_for = Duration::from_secs(fixed >> 32) + Duration::from_nanos(nanos);
    if apart < 0 { Err(apart_for) } else { Ok(apart_for) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_vectors() {
        // 2026-01-01T00:00:00Z.
        let unix = 1_767_225_600;
        assert_eq!(from_unix_millis(unix * 1000), 0xed00_3780_0000_0000);
        assert_eq!(from_unix_nanos(unix * NANOS + NANOS / 2), 0xed00_3780_8000_0000);
        assert_eq!(from_unix_millis(unix * 1000 + 250), 0xed00_3780_4000_0000);
    }

    #[test]
    fn differences_go_across_the_end_of_the_era() {
        let second = Duration::from_secs(1);
        // 2036-02-07T06:28:15Z is the last second of the era.
        let last = from_unix_nanos(2_085_978_495 * NANOS);
        assert_eq!(last >> 32, 0xffff_ffff);
        let next = plus(last, second);
        assert_eq!(next, 0);
        assert_eq!(from_unix_nanos(2_085_978_496 * NANOS), 0);
        assert_eq!(before(next, last), Ok(second));
        assert_eq!(before(last, next), Err(second));
        assert_eq!(before(next, next), Ok(Duration::ZERO));
        let half = plus(last, Duration::from_millis(500));
        assert_eq!(before(half, last), Ok(Duration::from_millis(500)));
        assert_eq!(before(last, half), Err(Duration::from_millis(500)));
    }
}
