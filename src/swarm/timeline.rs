//! When each byte of a stream came in at the relay, as far as a viewer's node can know.
//!
//! The relay signs each subtree when its last byte came in, and says so in the signature; between
//! two such times bytes came in evenly. A subtree is never open for long (it is padded), so after
//! a pause of the publisher its bytes came in shortly before it was signed, not during the pause.

use std::collections::VecDeque;
use std::time::Duration;

use crate::swarm::stamp::Stamp;

/// The longest that a subtree is open: the relay pads one after 150 ms; the rest is tolerance.
const OPEN_MAX: Duration = Duration::from_millis(250);

/// Breaks that are remembered; each is a restart of the relay, and the oldest was played.
const BREAKS_MAX: usize = 4;

/// Times kept. Two per subtree at most; the oldest is dropped: it was played long ago.
const POINTS_MAX: usize = 8_192;

/// What came in up to a time.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Where the stretch begins that came in not long before `time`, if that is known.
    begin: Option<u64>,
    end: u64,
    time: Stamp,
}

/// Offsets and times, both growing.
#[derive(Debug, Default)]
pub struct Timeline {
    points: VecDeque<Point>,
    /// Where what another life of the relay numbered begins, oldest first.
    breaks: VecDeque<u64>,
    /// How many were forgotten.
    forgotten: u64,
}

impl Timeline {
    /// The bytes `begin .. end` came in one after the other, the last one at `time`.
    pub fn note_run(&mut self, begin: u64, end: u64, time: Stamp) {
        self.insert(Point { begin: Some(begin), end, time });
    }

    /// At `time` all bytes below `end` had come in.
    pub fn note_head(&mut self, end: u64, time: Stamp) {
        self.insert(Point { begin: None, end, time });
    }

    /// The bytes from `begin` on are of another life of the relay: none came in while it was away,
    /// and what the one before told of its own that lie there is of others.
    pub fn note_break(&mut self, begin: u64) {
        self.points.retain(|point| point.end <= begin);
        self.breaks.push_back(begin);
        if self.breaks.len() > BREAKS_MAX {
            self.breaks.pop_front();
            self.forgotten += 1;
        }
    }

    /// Breaks that were forgotten because of newer ones.
    #[must_use]
    pub fn breaks_forgotten(&self) -> u64 {
        self.forgotten
    }

    fn insert(&mut self, mut new: Point) {
        let place = self.points.partition_point(|point| point.end < new.end);
        if let Some(later) = self.points.get(place) {
            new.time = new.time.min(later.time);
        }
        for earlier in self.points.range_mut(..place).rev() {
            if earlier.time <= new.time {
                break;
            }
            earlier.time = new.time;
        }
        match self.points.get_mut(place) {
            Some(same) if same.end == new.end => {
                new.begin = new.begin.or(same.begin);
                *same = new;
            }
            _ => self.points.insert(place, new),
        }
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// When the byte at `offset` came in; `None` if that is not known yet, or no longer.
    #[must_use]
    pub fn time_of(&self, offset: u64) -> Option<Stamp> {
        let place = self.points.partition_point(|point| point.end <= offset);
        let point = self.points.get(place)?;
        let (from, low) = self.run(place);
        if offset >= from.0 {
            return Some(between(offset, from, (point.end, point.time)));
        }
        if let Some(low) = low {
            return Some(between(offset, low, from));
        }
        // Behind a break, before all that is known of it: at the latest then.
        self.breaks.iter().any(|begin| *begin <= offset).then_some(from.1)
    }

    /// Stream offset below which everything had come in by `time`, as far as is known.
    #[must_use]
    pub fn reach(&self, time: Stamp) -> u64 {
        let place = self.points.partition_point(|point| point.time <= time);
        let Some(point) = self.points.get(place) else {
            return self.points.back().map_or(0, |point| point.end);
        };
        let (from, low) = self.run(place);
        if time >= from.1 {
            return share(time, from, (point.end, point.time));
        }
        // Before a break that is still ahead all had come in, however long nothing does then.
        low.map_or_else(|| self.tail(place), |low| share(time, low, from))
    }

    /// Where the life of the relay ended that was before the point at `place`.
    fn tail(&self, place: usize) -> u64 {
        let Some(before) = place.checked_sub(1).map(|index| self.points[index].end) else {
            return 0;
        };
        self.breaks.iter().copied().find(|begin| before <= *begin).unwrap_or(before)
    }

    /// Stream offset behind the newest byte that is known to have come in, and when it did.
    #[must_use]
    pub fn newest(&self) -> Option<(u64, Stamp)> {
        self.points.back().map(|point| (point.end, point.time))
    }

    /// Forgets what lies far below `offset`.
    pub fn forget_below(&mut self, offset: u64) {
        while self.points.get(1).is_some_and(|second| second.end < offset) {
            self.points.pop_front();
        }
    }

    /// Where the stretch of the point at `place` begins, and the end of the one before it.
    fn run(&self, place: usize) -> ((u64, Stamp), Option<(u64, Stamp)>) {
        let point = self.points[place];
        let before = place.checked_sub(1).map(|index| self.points[index]);
        let low = before.map(|before| (before.end, before.time));
        let broken = |begin: &u64| low.is_some_and(|low| low.0 <= *begin) && *begin < point.end;
        let broken = self.breaks.iter().rev().copied().find(broken);
        let earliest = point.time.minus(OPEN_MAX);
        match (point.begin, low) {
            (Some(begin), Some(_)) if broken.is_some() => ((begin, earliest), None),
            (None, Some(_)) if broken.is_some() => {
                ((broken.unwrap_or(point.end), point.time), None)
            }
            (Some(begin), Some(before)) => {
                let begin = begin.max(before.0);
                let even = between(begin, before, (point.end, point.time));
                ((begin, earliest.max(even)), low)
            }
            (Some(begin), None) => ((begin, earliest), None),
            (None, Some(low)) => (low, None),
            (None, None) => ((point.end, point.time), None),
        }
    }
}

/// The time at `offset` on the line between two points.
fn between(offset: u64, from: (u64, Stamp), to: (u64, Stamp)) -> Stamp {
    let (bytes, time) = (to.0.saturating_sub(from.0).max(1), to.1.since(from.1));
    let part = offset.saturating_sub(from.0).min(bytes) as f64 / bytes as f64;
    from.1.plus(time.mul_f64(part))
}

/// The offset at `time` on the line between two points.
fn share(time: Stamp, from: (u64, Stamp), to: (u64, Stamp)) -> u64 {
    let (bytes, span) = (to.0.saturating_sub(from.0), to.1.since(from.1).as_secs_f64());
    let part = if span > 0.0 { time.since(from.1).as_secs_f64() / span } else { 1.0 };
    from.0 + (bytes as f64 * part.min(1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Stamp {
        Stamp::from_micros(1_000_000 + ms * 1_000)
    }

    fn ms(stamp: Option<Stamp>) -> Option<i64> {
        stamp.map(|stamp| (stamp.micros() as i64 - 1_000_000) / 1_000)
    }

    #[test]
    fn bytes_come_in_evenly_between_signatures() {
        let mut line = Timeline::default();
        assert_eq!((line.time_of(0), line.reach(at(9))), (None, 0));
        line.note_head(1_000, at(100));
        line.note_run(2_000, 3_000, at(300));
        line.note_run(1_000, 2_000, at(200));
        assert_eq!(ms(line.time_of(1_500)), Some(150));
        assert_eq!(ms(line.time_of(2_250)), Some(225));
        assert_eq!(line.time_of(3_000), None, "not known yet");
        assert_eq!((line.reach(at(150)), line.reach(at(999))), (1_500, 3_000));
        assert_eq!(line.reach(at(50)), 0, "before all that is known");
        assert_eq!(line.newest(), Some((3_000, at(300))));
    }

    #[test]
    fn a_pause_of_the_publisher_is_no_slow_subtree() {
        let mut line = Timeline::default();
        line.note_run(0, 1_000, at(100));
        line.note_run(1_000, 2_000, at(5_100));
        assert_eq!(ms(line.time_of(1_000)), Some(4_850));
        assert_eq!(line.reach(at(3_000)), 1_000);
        assert_eq!(line.reach(at(4_975)), 1_500);
    }

    #[test]
    fn a_subtree_that_is_not_known_lies_between_those_that_are() {
        let mut line = Timeline::default();
        line.note_run(0, 1_000, at(100));
        line.note_run(2_000, 3_000, at(300));
        let middle = ms(line.time_of(1_500)).unwrap();
        assert!((100..=300).contains(&middle), "{middle}");
        let reached = line.reach(at(100));
        assert_eq!(reached, 1_000);
        for step in 0..300 {
            let (now, next) = (line.reach(at(step)), line.reach(at(step + 1)));
            assert!(now <= next, "{step}: {now} {next}");
        }
    }

    #[test]
    fn nothing_came_in_while_the_relay_was_away() {
        let mut line = Timeline::default();
        line.note_run(0, 1_000, at(100));
        line.note_break(1_600);
        line.note_run(3_600, 4_600, at(5_100));
        assert_eq!(ms(line.time_of(500)), Some(-25), "of the old life, as before");
        assert_eq!(ms(line.time_of(1_600)), Some(4_850), "not before the relay came back");
        assert_eq!(line.reach(at(3_000)), 1_600, "what was before is not waited for, what is is");
        assert_eq!(line.reach(at(4_975)), 4_100);
        line.note_head(2_600, at(4_600));
        assert_eq!(ms(line.time_of(1_600)), Some(4_600));
        assert_eq!(ms(line.time_of(3_100)), Some(4_725), "between two of one life");
    }

    /// With key frames evenly apart, those of both lives lie at the same places.
    #[test]
    fn what_the_life_before_told_of_itself_says_nothing_of_the_next() {
        let mut line = Timeline::default();
        line.note_head(1_000, at(100));
        line.note_head(2_600, at(1_700));
        line.note_break(1_600);
        assert_eq!((line.time_of(2_000), line.newest()), (None, Some((1_000, at(100)))));
        line.note_head(2_600, at(6_700));
        assert_eq!(ms(line.time_of(1_600)), Some(6_700));
    }

    #[test]
    fn a_fifth_break_takes_the_place_of_the_oldest_and_says_so() {
        let mut line = Timeline::default();
        (1..=4).for_each(|n| line.note_break(n * 1_000));
        assert_eq!(line.breaks_forgotten(), 0);
        line.note_break(5_000);
        assert_eq!((line.breaks_forgotten(), line.breaks.len()), (1, BREAKS_MAX));
        assert_eq!(line.breaks[0], 2_000);
    }

    #[test]
    fn times_never_run_backwards_and_memory_is_bounded() {
        let mut line = Timeline::default();
        line.note_head(1_000, at(500));
        line.note_run(1_000, 2_000, at(400));
        assert!(line.time_of(999) <= line.time_of(1_000));
        assert!(line.time_of(1_000) <= line.time_of(1_999));
        for n in 0..20_000 {
            line.note_run(2_000 + n * 10, 2_010 + n * 10, at(400 + n));
        }
        assert!(line.points.len() <= POINTS_MAX);
        line.forget_below(2_000 + 19_000 * 10);
        assert!(line.points.len() < 1_010);
        assert!(line.time_of(2_000 + 19_000 * 10).is_some());
    }
}
