//! When a byte came in: to the millisecond for the newest, to a quarter of a second for the rest.
//!
//! Delays are measured at the live edge, where a millisecond counts. How far a slow viewer lags
//! is asked of bytes that are many seconds old, where it does not: one fine log would be either
//! too short for that or too large.

use crate::base::time::Mono;
use crate::ring::log::Log;
use crate::ring::sync::{AtomicU64, Ordering};

/// Entries of the fine log: two seconds of a stream that is published every millisecond.
const FINE_ENTRIES: usize = 2_047;

/// At most one fine entry in this many nanoseconds; what comes in between belongs to the last.
const FINE_STEP: u64 = 1_000_000;

/// Entries of the coarse log: four minutes.
const COARSE_ENTRIES: usize = 1_023;

/// The same for the coarse log.
const COARSE_STEP: u64 = 250_000_000;

/// Offsets and the times at which they were published.
pub(super) struct Timeline {
    fine: Scale,
    coarse: Scale,
    /// Nanoseconds of the newest publication.
    newest: AtomicU64,
}

/// One log with entries at least `step` nanoseconds apart.
struct Scale {
    entries: Log,
    step: u64,
    /// Nanoseconds of the newest entry. The writer's own note.
    noted: AtomicU64,
}

impl Scale {
    fn new(entries: usize, step: u64) -> Scale {
        Scale { entries: Log::new(entries), step, noted: AtomicU64::new(0) }
    }

    fn note(&self, first: u64, now: u64) {
        let noted = self.noted.load(Ordering::Relaxed);
        if self.entries.count() == 0 || now / self.step != noted / self.step {
            self.noted.store(now, Ordering::Relaxed);
            self.entries.push(first, now);
        }
    }

    fn oldest(&self) -> Option<(u64, u64)> {
        let count = self.entries.count();
        (self.entries.oldest(count)..count).find_map(|n| self.entries.get(n))
    }
}

impl Timeline {
    /// A timeline without entries.
    pub(super) fn new() -> Timeline {
        Timeline {
            fine: Scale::new(FINE_ENTRIES, FINE_STEP),
            coarse: Scale::new(COARSE_ENTRIES, COARSE_STEP),
            newest: AtomicU64::new(0),
        }
    }

    /// Writer, before it publishes: the bytes from `first` on came in at `now`.
    pub(super) fn note(&self, first: u64, now: Mono) {
        let now = now.as_nanos();
        self.newest.store(now, Ordering::Relaxed);
        self.fine.note(first, now);
        self.coarse.note(first, now);
    }

    /// When the newest bytes came in; the clock's origin if none has.
    pub(super) fn newest(&self) -> Mono {
        Mono::from_nanos(self.newest.load(Ordering::Relaxed))
    }

    /// When the byte at `at` came in: early by less than a millisecond near the live edge, by
    /// less than a quarter of a second behind it; for bytes older than both logs the time of
    /// the oldest entry. `None` while there is none.
    pub(super) fn find(&self, at: u64) -> Option<Mono> {
        let fine = self.fine.entries.find(at);
        let found = fine.or_else(|| self.coarse.entries.find(at)).or_else(|| self.coarse.oldest());
        found.map(|(_, nanos)| Mono::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known_to_the_millisecond_and_older_ones_to_a_quarter_second() {
        let line = Timeline::new();
        assert_eq!(line.find(0), None);
        for tick in 0..300_000_u64 {
            line.note(tick * 188, Mono::from_nanos(tick * 100_000));
        }
        assert_eq!(line.newest(), Mono::from_nanos(299_999 * 100_000));
        assert_eq!(line.find(299_999 * 188 + 7), Some(Mono::from_millis(29_999)));
        assert_eq!(line.find(299_989 * 188), Some(Mono::from_millis(29_998)));
        assert_eq!(line.find(100_000 * 188), Some(Mono::from_millis(10_000)));
        assert_eq!(line.find(102_400 * 188), Some(Mono::from_millis(10_000)), "10.24 s, early");
        assert_eq!(line.find(0), Some(Mono::ZERO));
    }

    #[test]
    fn what_is_older_than_both_logs_came_in_with_the_oldest_entry() {
        let line = Timeline::new();
        for second in 0..3_000_u64 {
            line.note(second * 188, Mono::from_millis(second * 1_000));
        }
        let oldest = line.find(0);
        assert_eq!(oldest, line.find(188));
        assert!(oldest > Some(Mono::ZERO) && line.find(2_999 * 188) == Some(line.newest()));
    }
}
