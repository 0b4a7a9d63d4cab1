//! How a stream's swarm has gone over the last minutes: taken once a second by one thread, for
//! everybody to read.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Mono;

/// What offload is reckoned over.
const WINDOW: Duration = Duration::from_secs(60);

/// Readings that are kept for it: one a second, and the one before.
const READINGS_MAX: usize = 64;

/// Points of the curves, and how far they are apart: five minutes.
pub const POINTS_MAX: usize = 150;
/// See [`POINTS_MAX`].
pub const POINTS_APART: Duration = Duration::from_secs(2);

/// What is read off a stream's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// UDP payload that the relay sent to the stream's peers, since the start.
    pub sent: u64,
    /// Bytes of the stream that they say they got, each once, since the start.
    pub played: u64,
    /// Peers.
    pub peers: u64,
    /// Mean of their median delays behind live in milliseconds.
    pub delay_p50_ms: u64,
    /// The largest of their 99th percentiles.
    pub delay_p99_ms: u64,
    /// Mean of their median times from signing to verified.
    pub arrival_p50_ms: u64,
}

/// One point of the curves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub at: Mono,
    /// Offload then; `None`: nothing was played.
    pub offload: Option<f64>,
    /// Everything else.
    pub reading: Reading,
}

/// The last minutes of a stream's swarm. Immutable: each second makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// 1 - bytes that the relay sent on the swarm face / bytes that peers played, over the last
    /// 60 s, or since there are peers. Below 0 if the relay sent more than was played. `None`:
    /// nothing was played.
    pub offload: Option<f64>,
    /// The curves, oldest first.
    pub points: VecDeque<Point>,
    readings: VecDeque<(Mono, u64, u64)>,
}

impl Course {
    /// The course one reading later.
    #[must_use]
    pub fn next(&self, now: Mono, reading: Reading) -> Course {
        let mut next = self.clone();
        let readings = &mut next.readings;
        readings.push_back((now, reading.sent, reading.played));
        // The newest reading that is old enough is where the window begins.
        while readings.get(1).is_some_and(|(at, ..)| now.since(*at) >= WINDOW)
            || readings.len() > READINGS_MAX
        {
            readings.pop_front();
        }
        next.offload = readings.front().and_then(|(_, sent, played)| {
            let played = reading.played.saturating_sub(*played);
            let sent = reading.sent.saturating_sub(*sent);
            (played > 0).then(|| 1.0 - sent as f64 / played as f64)
        });
        let newest = next.points.back().map(|point| point.at);
        let due = newest.is_none_or(|at| now.since(at) >= POINTS_APART);
        // Without peers, now or before, there is nothing to draw.
        if due && (reading.peers > 0 || newest.is_some()) {
            next.points.push_back(Point { at: now, offload: next.offload, reading });
            if next.points.len() > POINTS_MAX {
                next.points.pop_front();
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(course: &Course, second: u64, sent: u64, played: u64) -> Course {
        let reading = Reading { sent, played, peers: 20, ..Reading::default() };
        course.next(Mono::from_millis(second * 1_000), reading)
    }

    #[test]
    fn offload_is_that_of_the_last_minute() {
        let mut course = Course::default();
        let (mut sent, mut played) = (0, 0);
        for second in 0..300 {
            course = after(&course, second, sent, played);
            match second {
                0 => assert_eq!(course.offload, None, "nothing was played yet"),
                1..100 => assert!((course.offload.unwrap() + 0.04).abs() < 1e-9, "{course:?}"),
                131 => assert!((course.offload.unwrap() - 0.43).abs() < 0.01, "half a minute"),
                162.. => assert!((course.offload.unwrap() - 0.9).abs() < 1e-9, "{second}"),
                _ => {}
            }
            // At first everything comes from the relay, then a tenth of it.
            played += 1_000;
            sent += if second < 101 { 1_040 } else { 100 };
        }
        assert_eq!(course.points.len(), POINTS_MAX);
        let ages = course.points.iter().zip(course.points.iter().skip(1));
        assert!(ages.clone().all(|(a, b)| b.at.since(a.at) == POINTS_APART));
        assert!(course.readings.len() <= READINGS_MAX);
    }

    #[test]
    fn without_peers_there_is_nothing_to_draw() {
        let course = Course::default().next(Mono::ZERO, Reading::default());
        assert_eq!((course.offload, course.points.len()), (None, 0));
        // A stream whose peers have left goes on: that is what the curves show.
        let course = after(&course, 1, 10, 10);
        let course = course
            .next(Mono::from_millis(9_000), Reading { sent: 10, played: 10, ..Reading::default() });
        assert_eq!((course.offload, course.points.len()), (Some(0.0), 2));
    }
}
