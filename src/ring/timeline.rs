//! When a byte came in: one entry per millisecond, for the last 2,048 milliseconds with traffic.

use crate::base::time::Mono;
use crate::ring::log::Log;
use crate::ring::sync::{AtomicU64, Ordering};

/// Entries kept: two seconds of a stream that is published every millisecond, more of others.
const ENTRIES: usize = 2_047;

/// At most one entry in this many nanoseconds; what comes in between belongs to the last one.
const STEP: u64 = 1_000_000;

/// Offsets and the times at which they were published.
pub(super) struct Timeline {
    entries: Log,
    /// Nanoseconds of the newest publication.
    newest: AtomicU64,
    /// Nanoseconds of the newest entry. The writer's own note.
    noted: AtomicU64,
}

impl Timeline {
    /// A timeline without entries.
    pub(super) fn new() -> Timeline {
        let newest = AtomicU64::new(0);
        Timeline { entries: Log::new(ENTRIES), newest, noted: AtomicU64::new(0) }
    }

    /// Writer, before it publishes: the bytes from `first` on came in at `now`.
    pub(super) fn note(&self, first: u64, now: Mono) {
        let now = now.as_nanos();
        self.newest.store(now, Ordering::Relaxed);
        let noted = self.noted.load(Ordering::Relaxed);
        if self.entries.count() == 0 || now / STEP != noted / STEP {
            self.noted.store(now, Ordering::Relaxed);
            self.entries.push(first, now);
        }
    }

    /// When the newest bytes came in; the clock's origin if none has.
    pub(super) fn newest(&self) -> Mono {
        Mono::from_nanos(self.newest.load(Ordering::Relaxed))
    }

    /// When the byte at `at` came in, early by less than a millisecond; for bytes older than the
    /// timeline the time of its oldest entry. `None` while it is empty.
    pub(super) fn find(&self, at: u64) -> Option<Mono> {
        let found = self.entries.find(at).or_else(|| {
            let count = self.entries.count();
            (self.entries.oldest(count)..count).find_map(|n| self.entries.get(n))
        });
        found.map(|(_, nanos)| Mono::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_a_millisecond_apart_and_the_oldest_stands_for_what_is_older() {
        let line = Timeline::new();
        assert_eq!(line.find(0), None);
        for tick in 0..30_000_u64 {
            line.note(tick * 188, Mono::from_nanos(tick * 100_000));
        }
        assert_eq!(line.newest(), Mono::from_nanos(29_999 * 100_000));
        assert_eq!(line.find(29_999 * 188 + 7), Some(Mono::from_millis(2_999)));
        assert_eq!(line.find(29_989 * 188), Some(Mono::from_millis(2_998)));
        assert_eq!(line.find(0), line.find(9_530 * 188), "older than the timeline");
        assert_eq!(line.find(0), Some(Mono::from_millis(953)));
    }
}
