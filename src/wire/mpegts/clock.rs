//! The two clocks of a transport stream: 33-bit time stamps at 90 kHz, and the PCR at 27 MHz.
//!
//! Both wrap (after 26.5 hours), so two readings are never compared, only subtracted.

/// Ticks of a PTS or DTS per second.
pub const TICKS_PER_SECOND: u64 = 90_000;

/// Ticks of the PCR per second.
pub const PCR_PER_SECOND: u64 = 27_000_000;

/// PCR ticks in one PTS tick.
pub const PCR_PER_TICK: u64 = 300;

/// PTS and DTS count modulo this.
pub const TICKS_MODULUS: u64 = 1 << 33;

/// The PCR counts modulo this.
pub const PCR_MODULUS: u64 = TICKS_MODULUS * PCR_PER_TICK;

/// Signed distance from `from` to `to` in 90 kHz ticks, taking the shorter way round.
///
/// The result is within plus or minus half the modulus (13 hours).
#[must_use]
pub const fn ticks_between(from: u64, to: u64) -> i64 {
    between(from, to, TICKS_MODULUS)
}

/// Signed distance from `from` to `to` in 27 MHz ticks, taking the shorter way round.
#[must_use]
pub const fn pcr_between(from: u64, to: u64) -> i64 {
    between(from, to, PCR_MODULUS)
}

/// `at + by` modulo 33 bits.
#[must_use]
pub const fn ticks_add(at: u64, by: u64) -> u64 {
    (at % TICKS_MODULUS + by % TICKS_MODULUS) % TICKS_MODULUS
}

/// `at + by` modulo the range of the PCR.
#[must_use]
pub const fn pcr_add(at: u64, by: u64) -> u64 {
    (at % PCR_MODULUS + by % PCR_MODULUS) % PCR_MODULUS
}

const fn between(from: u64, to: u64, modulus: u64) -> i64 {
    let forward = (to % modulus + modulus - from % modulus) % modulus;
    if forward < modulus / 2 { forward as i64 } else { forward as i64 - modulus as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_take_the_shorter_way_across_the_wrap() {
        let top = TICKS_MODULUS - 1;
        assert_eq!(ticks_between(top, 2), 3);
        assert_eq!(ticks_between(2, top), -3);
        assert_eq!(ticks_between(5, 5), 0);
        assert_eq!(pcr_between(PCR_MODULUS - 10, 10), 20);
        assert_eq!(pcr_between(10, PCR_MODULUS - 10), -20);
        assert_eq!(ticks_add(top, 1), 0);
        assert_eq!(pcr_add(PCR_MODULUS - 1, 2), 1);
        assert_eq!(ticks_between(u64::MAX, u64::MAX), 0);
    }
}
