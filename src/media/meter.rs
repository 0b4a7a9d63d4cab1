//! Measures of a stream as it arrives: bit rate, clock jitter, distance of key frames.

use std::time::Duration;

use crate::base::time::Mono;
use crate::wire::mpegts::clock::{PCR_PER_SECOND, pcr_between, ticks_between};

/// One of the buckets over which the bit rate is averaged.
const BUCKET: Duration = Duration::from_millis(250);

/// Buckets kept: two seconds.
const BUCKETS: usize = 8;

/// Bits per second over the last two seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes: [u64; BUCKETS],
    /// Number of the newest bucket since the clock's origin.
    newest: u64,
    since: Option<Mono>,
}

impl Rate {
    pub(super) fn add(&mut self, now: Mono, bytes: usize) {
        self.since.get_or_insert(now);
        let bucket = bucket(now);
        if bucket > self.newest {
            let passed = (bucket - self.newest).min(BUCKETS as u64);
            for back in 0..passed {
                self.bytes[slot(bucket - back)] = 0;
            }
            self.newest = bucket;
        }
        self.bytes[slot(self.newest)] += bytes as u64;
    }

    pub(super) fn bits_per_second(&self, now: Mono) -> u64 {
        let Some(since) = self.since else { return 0 };
        let current = bucket(now).max(self.newest);
        let oldest = (current + 1).saturating_sub(BUCKETS as u64);
        let bytes: u64 = (oldest..=self.newest).map(|b| self.bytes[slot(b)]).sum();
        let start = Mono::from_nanos(oldest.saturating_mul(BUCKET.as_nanos() as u64)).max(since);
        // A burst at the very start is no rate yet.
        let span = now.since(start).max(2 * BUCKET);
        (u128::from(bytes) * 8_000_000_000 / span.as_nanos()) as u64
    }
}

fn bucket(now: Mono) -> u64 {
    now.as_nanos() / BUCKET.as_nanos() as u64
}

fn slot(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

/// How evenly the program clock arrives.
///
/// For each PCR there is a lag: arrival less clock, up to a constant. The jitter is the largest
/// lag less the smallest over the last one to two seconds, so drift of the clocks is no part of
/// it. A clock that jumps by more than a second starts anew.
#[derive(Debug, Default)]
pub(super) struct PcrWatch {
    last: Option<(Mono, u64)>,
    lag_ns: i64,
    window: Option<Window>,
    before: Option<(i64, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Mono,
    range: (i64, i64),
}

impl PcrWatch {
    /// The clock said `pcr`; `jump` when the sender says that it may have jumped.
    pub(super) fn add(&mut self, now: Mono, pcr: u64, jump: bool) {
        let step = self.last.map(|(_, last)| pcr_between(last, pcr));
        match (step, self.last) {
            (Some(step), Some((then, _)))
                if !jump && (0..=PCR_PER_SECOND as i64).contains(&step) =>
            {
                let arrival = i64::try_from(now.since(then).as_nanos()).unwrap_or(i64::MAX);
                self.lag_ns = self.lag_ns.saturating_add(arrival).saturating_sub(step * 1000 / 27);
            }
            _ => self.restart(),
        }
        self.last = Some((now, pcr));
        let lag = self.lag_ns;
        match &mut self.window {
            Some(w) if now.since(w.since) < Duration::from_secs(1) => w.range = join(w.range, lag),
            other => {
                self.before = other.map(|w| w.range);
                *other = Some(Window { since: now, range: (lag, lag) });
            }
        }
    }

    /// Forgets the clock.
    pub(super) fn restart(&mut self) {
        *self = PcrWatch::default();
    }

    /// When the last PCR came.
    pub(super) fn last_at(&self) -> Option<Mono> {
        self.last.map(|(at, _)| at)
    }

    pub(super) fn jitter_us(&self) -> u64 {
        let Some(window) = self.window else { return 0 };
        let (low, high) = match self.before {
            Some((low, high)) => join(join(window.range, low), high),
            None => window.range,
        };
        high.abs_diff(low) / 1000
    }
}

fn join((low, high): (i64, i64), lag: i64) -> (i64, i64) {
    (low.min(lag), high.max(lag))
}

/// Time between access points.
#[derive(Debug, Default)]
pub(super) struct Gop {
    last: Option<(Mono, Option<u64>)>,
    pub(super) last_ms: u32,
    pub(super) max_ms: u32,
}

impl Gop {
    /// Longest distance that time stamps are believed for: beyond it, they jumped.
    const BELIEVED_TICKS: i64 = 60 * 90_000;

    pub(super) fn add(&mut self, now: Mono, pts: Option<u64>) {
        if let Some((then, last)) = self.last {
            let ticks = last.zip(pts).map(|(last, pts)| ticks_between(last, pts));
            let ms = match ticks {
                Some(ticks) if (1..=Gop::BELIEVED_TICKS).contains(&ticks) => ticks as u64 / 90,
                _ => u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX),
            };
            self.last_ms = u32::try_from(ms).unwrap_or(u32::MAX);
            self.max_ms = self.max_ms.max(self.last_ms);
        }
        self.last = Some((now, pts));
    }

    pub(super) fn last_at(&self) -> Option<Mono> {
        self.last.map(|(at, _)| at)
    }

    /// The next access point has nothing before it to be measured from.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mpegts::clock::{PCR_MODULUS, TICKS_MODULUS};

    #[test]
    fn rate_is_that_of_the_last_two_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.bits_per_second(Mono::ZERO), 0);
        for ms in (1000..6000).step_by(10) {
            rate.add(Mono::from_millis(ms), 1250);
        }
        let bps = rate.bits_per_second(Mono::from_millis(6000));
        assert!((980_000..1_020_000).contains(&bps), "{bps}");
        assert_eq!(rate.bits_per_second(Mono::from_millis(9000)), 0);
        rate.add(Mono::from_nanos(u64::MAX), 1);
        rate.bits_per_second(Mono::from_nanos(u64::MAX));
    }

    #[test]
    fn jitter_is_the_spread_of_the_lag() {
        let mut watch = PcrWatch::default();
        // Every 40 ms across the wrap, every fifth 7 ms late.
        for n in 0..100u64 {
            let late = if n % 5 == 4 { 7 } else { 0 };
            let pcr = (PCR_MODULUS - 20 * 1_080_000 + n * 1_080_000) % PCR_MODULUS;
            watch.add(Mono::from_millis(1000 + n * 40 + late), pcr, false);
        }
        assert_eq!(watch.jitter_us(), 7000);
        // A jump of the clock starts anew, said or not.
        watch.add(Mono::from_millis(5100), 5, false);
        assert_eq!(watch.jitter_us(), 0);
        watch.add(Mono::from_millis(5500), 5, false);
        assert_eq!(watch.jitter_us(), 400_000);
        watch.add(Mono::from_millis(5500), 6, true);
        assert_eq!(watch.jitter_us(), 0);
    }

    #[test]
    fn jitter_forgets_after_two_seconds() {
        let mut watch = PcrWatch::default();
        for n in 0..80u64 {
            let late = if n == 5 { 30 } else { 0 };
            watch.add(Mono::from_millis(n * 40 + late), n * 1_080_000, false);
            // In the window of the late one, and in the next.
            if n == 20 || n == 30 {
                assert_eq!(watch.jitter_us(), 30_000);
            }
        }
        assert_eq!(watch.jitter_us(), 0);
    }

    #[test]
    fn gop_by_time_stamps_else_by_arrival() {
        let mut gop = Gop::default();
        gop.add(Mono::from_millis(0), Some(TICKS_MODULUS - 90_000));
        gop.add(Mono::from_millis(1), Some(90_000));
        assert_eq!(gop.last_ms, 2000);
        gop.add(Mono::from_millis(501), None);
        assert_eq!(gop.last_ms, 500);
        gop.add(Mono::from_millis(1001), Some(4_000_000_000));
        gop.add(Mono::from_millis(1301), Some(7));
        assert_eq!((gop.last_ms, gop.max_ms), (300, 2000));
    }
}
