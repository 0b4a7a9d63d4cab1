//! What a viewer with a small buffer would see of the stream that a probe gets.
//!
//! A probe plays a fixed time behind live. A marker that comes more than 40 ms after its moment
//! of play-out is a stall: play-out stood still for as long as the marker was late, and goes on
//! that much further behind live. Markers that never came are a stall of the media time that
//! they stood for.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::Outcome;
use crate::bench::marker::Marker;

/// Lateness that nobody sees.
const UNSEEN: Duration = Duration::from_millis(40);

/// The longest delay that is told from a longer one: one minute, in microseconds.
const DELAY_MAX: u64 = 60_000_000;

/// The record of one probe.
#[derive(Clone, Debug)]
pub struct PlayOut {
    /// Delay behind live of each marker in microseconds.
    pub delays: Histogram<u64>,
    /// Number of stalls.
    pub stalls: u64,
    /// Their length.
    pub stalled: Duration,
    /// How far behind live it plays.
    behind: Duration,
    last: Option<Marker>,
}

impl PlayOut {
    /// A record of a probe that plays `behind` live.
    ///
    /// # Errors
    /// Never for the bounds that are used here.
    pub fn new(behind: Duration) -> Outcome<PlayOut> {
        let delays = Histogram::new_with_bounds(1, DELAY_MAX, 3)?;
        Ok(PlayOut { delays, stalls: 0, stalled: Duration::ZERO, behind, last: None })
    }

    /// A marker came at `now` (see [`crate::bench::marker::now`]).
    pub fn handle(&mut self, now: u64, marker: Marker) {
        let delay = Duration::from_nanos(now.saturating_sub(marker.sent));
        self.delays.saturating_record(u64::try_from(delay.as_micros()).unwrap_or(DELAY_MAX));
        if let Some(last) = self.last
            && marker.number != last.number + 1
        {
            // Counted from the last one that came: what was between the two was not played.
            self.stall(Duration::from_nanos(marker.sent.saturating_sub(last.sent)));
        }
        if delay > self.behind + UNSEEN {
            self.stall(delay - self.behind);
            self.behind = delay;
        }
        self.last = Some(marker);
    }

    fn stall(&mut self, length: Duration) {
        self.stalls += 1;
        self.stalled += length;
    }

    /// Adds the record of another probe.
    ///
    /// # Errors
    /// Never: all records have the same bounds.
    pub fn add(&mut self, other: &PlayOut) -> Outcome<()> {
        self.delays.add(&other.delays)?;
        self.stalls += other.stalls;
        self.stalled += other.stalled;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Markers every 10 ms with these delays in milliseconds; `None` never comes.
    fn play(delays: &[Option<u64>]) -> PlayOut {
        let mut play = PlayOut::new(ms(300)).unwrap();
        for (number, delay) in (0..).zip(delays) {
            let sent = 5_000 * MILLI + number * 10 * MILLI;
            if let Some(delay) = delay {
                play.handle(sent + delay * MILLI, Marker { number, sent });
            }
        }
        play
    }

    #[test]
    fn what_the_buffer_covers_is_no_stall() {
        let seen = play(&[Some(1), Some(250), Some(300), Some(340), Some(2)]);
        assert_eq!((seen.stalls, seen.stalled), (0, Duration::ZERO));
        assert_eq!((seen.delays.len(), seen.delays.min()), (5, 1_000));
    }

    #[test]
    fn a_late_marker_stalls_once_and_play_out_goes_on_later() {
        let seen = play(&[Some(1), Some(341), Some(341), Some(381), Some(382)]);
        assert_eq!((seen.stalls, seen.stalled), (2, ms(41 + 41)));
    }

    #[test]
    fn missing_markers_are_a_stall_of_their_media_time() {
        let seen = play(&[Some(1), None, None, Some(1), Some(1)]);
        assert_eq!((seen.stalls, seen.stalled), (1, ms(30)));
        assert_eq!(seen.delays.len(), 3);
    }

    #[test]
    fn records_add_up() {
        let mut both = play(&[Some(1), Some(400)]);
        both.add(&play(&[Some(2), None, Some(500)])).unwrap();
        assert_eq!((both.stalls, both.stalled), (3, ms(100 + 200 + 20)));
        assert_eq!(both.delays.len(), 4);
    }
}
