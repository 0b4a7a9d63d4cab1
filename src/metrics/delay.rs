//! Delay histograms: recorded by a shard without waiting, merged when somebody asks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest delay told apart, in microseconds: 5 minutes.
const MAX_MICROS: u64 = 300_000_000;

fn fresh() -> Histogram<u64> {
    // Three significant digits up to MAX_MICROS: constants that hdrhistogram always accepts.
    #[allow(clippy::expect_used, reason = "constant bounds, checked by the test below")]
    Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("constant bounds are valid")
}

/// What a shard publishes once a second and a scrape reads.
#[derive(Debug)]
pub struct DelayShelf(Mutex<Histogram<u64>>);

impl Default for DelayShelf {
    fn default() -> DelayShelf {
        DelayShelf(Mutex::new(fresh()))
    }
}

impl DelayShelf {
    /// A copy of everything published so far, in microseconds. Waits at most for a shard that
    /// is adding its last second.
    #[must_use]
    pub fn read(&self) -> Histogram<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A shard's own histogram of the time between two publications.
#[derive(Debug)]
pub struct DelayRecorder(Histogram<u64>);

impl Default for DelayRecorder {
    fn default() -> DelayRecorder {
        DelayRecorder(fresh())
    }
}

impl DelayRecorder {
    /// Records one delay; longer than five minutes counts as five minutes.
    pub fn record(&mut self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(MAX_MICROS);
        self.0.saturating_record(micros.clamp(1, MAX_MICROS));
    }

    /// Adds what was recorded to `shelf`. If a scrape is reading it, keeps everything for the
    /// next time: the shard never waits.
    pub fn publish(&mut self, shelf: &DelayShelf) {
        if self.0.is_empty() {
            return;
        }
        if let Ok(mut total) = shelf.0.try_lock() {
            // Equal bounds: adding cannot fail.
            if total.add(&self.0).is_ok() {
                self.0.reset();
            }
        }
    }
}

/// All shards' delays together, in microseconds.
#[must_use]
pub fn merge<'a>(shelves: impl IntoIterator<Item = &'a DelayShelf>) -> Histogram<u64> {
    let mut all = fresh();
    for shelf in shelves {
        // Equal bounds: adding cannot fail.
        let _ = all.add(shelf.read());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_while_a_scrape_reads() {
        let shelf = DelayShelf::default();
        let mut recorder = DelayRecorder::default();
        recorder.record(Duration::from_millis(3));
        let reading = shelf.0.lock().unwrap();
        recorder.publish(&shelf);
        drop(reading);
        recorder.record(Duration::MAX);
        recorder.publish(&shelf);
        let all = merge([&shelf]);
        assert_eq!(all.len(), 2);
        assert!(all.max() >= MAX_MICROS - MAX_MICROS / 500);
    }
}
