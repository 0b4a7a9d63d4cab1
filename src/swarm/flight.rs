//! Trains under way to one peer: which of their chunks were not acknowledged. Eight bytes each.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::requests::Run;

/// The most trains under way. It bounds a stream of 20 Mbit/s to a round trip of 270 ms.
pub const TRAINS_MAX: usize = 32;

/// Answers that follow each other this closely count as one train.
const SAME: Duration = Duration::from_millis(5);

/// A train that follows the one before this closely waits behind it in every queue on the way:
/// its delay says nothing of the path.
const BACK_TO_BACK: Duration = Duration::from_millis(2);

/// One train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Train {
    /// Low bits of the subtree's number: what is under way spans far less than 65,536 subtrees.
    number: u16,
    /// One bit per chunk that was sent and not acknowledged.
    missing: u16,
    /// When it was sent, in microseconds modulo 2^32, but for the lowest bits: [`FOLLOWS`] and
    /// [`TOUCHED`].
    sent: u32,
}

/// It followed the one before it closely.
const FOLLOWS: u32 = 1;

/// A part of it was acknowledged.
const TOUCHED: u32 = 2;

const FLAGS: u32 = FOLLOWS | TOUCHED;

/// How old a train is when a question can be an answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// If a part of it was acknowledged: the rest was missed.
    pub touched: Duration,
    /// If nothing was: the peer may just have asked for what it was told of.
    pub untouched: Duration,
}

const _: () = assert!(size_of::<Train>() == 8, "32 trains are 256 bytes");

/// What an acknowledgement was good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Chunks that had not been acknowledged before.
    pub chunks: u32,
    /// Time since a whole train was sent that is now complete.
    pub round_trip: Option<Duration>,
    /// Whether the delay of what was acknowledged is that of the path.
    pub sampled: bool,
}

/// The trains under way, oldest first.
#[derive(Debug, Default)]
pub struct Flight {
    trains: VecDeque<Train>,
    /// When the newest train was sent of which anything was acknowledged.
    acked: u32,
}

impl Flight {
    /// Whether another train may be added.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.trains.len() < TRAINS_MAX
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Chunks under way.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.trains.iter().map(|train| train.missing.count_ones()).sum()
    }

    /// Chunks of one subtree (of `size` chunks) were sent. Asks [`Flight::has_room`] before.
    pub fn send(&mut self, now: Mono, run: Run, size: u64) {
        let number = number(run.first() / size);
        let missing = run.bits(run.first() / size, size);
        let sent = micros(now) & !FLAGS;
        let back = self.trains.back_mut();
        if let Some(back) = back
            && back.number == number
            && since(sent, back.sent) < SAME.as_micros() as u32
        {
            back.missing |= missing;
            return;
        }
        let follows = self.follows(sent);
        self.add(Train { number, missing, sent: sent | follows });
    }

    /// As [`Flight::send`], for subtrees of which chunks are sent singly as they come: all that
    /// are under way count as one train, sent when the last of them was. So what is under way
    /// stays few trains, no round trip is too short, and the delay is that of the path if one of
    /// them did not follow another closely.
    pub fn join(&mut self, now: Mono, run: Run, size: u64) {
        let number = number(run.first() / size);
        let missing = run.bits(run.first() / size, size);
        let sent = micros(now) & !FLAGS;
        let follows = self.follows(sent);
        let known = self.trains.iter().rposition(|train| train.number == number);
        // To the end: trains lie in the order in which they were sent.
        let train = match known.and_then(|at| self.trains.remove(at)) {
            None => Train { number, missing, sent: sent | follows },
            Some(known) => {
                let flags = known.sent & TOUCHED | known.sent & follows;
                Train { number, missing: known.missing | missing, sent: sent | flags }
            }
        };
        self.add(train);
    }

    /// The flag of a train that is sent now.
    fn follows(&self, sent: u32) -> u32 {
        let close = |back: &Train| since(sent, back.sent) < BACK_TO_BACK.as_micros() as u32;
        if self.trains.back().is_some_and(close) { FOLLOWS } else { 0 }
    }

    fn add(&mut self, train: Train) {
        if self.trains.len() == self.trains.capacity() {
            let more = self.trains.len().max(4).min(TRAINS_MAX - self.trains.len());
            self.trains.reserve_exact(more);
        }
        self.trains.push_back(train);
    }

    /// Chunks `first` to `last` were acknowledged.
    pub fn ack(&mut self, now: Mono, run: Run, size: u64) -> Acked {
        let mut acked = Acked::default();
        let now = micros(now);
        for at in 0..self.trains.len() {
            let train = self.trains[at];
            let got = train.missing & named(&train, run, size);
            if got == 0 {
                continue;
            }
            acked.chunks += got.count_ones();
            acked.sampled |= train.sent & FOLLOWS == 0;
            if self.acked == 0 || since(train.sent, self.acked) < u32::MAX / 2 {
                self.acked = train.sent & !FLAGS;
            }
            self.trains[at].missing &= !got;
            self.trains[at].sent |= TOUCHED;
            // Acknowledged in one go, or chunk by chunk without a hole.
            if train.missing == got {
                acked.round_trip = Some(Duration::from_micros(since(now, train.sent).into()));
            }
        }
        self.trains.retain(|train| train.missing != 0);
        acked
    }

    /// Gives `found` those chunks of a run that are under way and younger than `age`:
    /// too late for the peer to know anything of them when it asked.
    pub fn fresh(&self, now: Mono, run: Run, size: u64, age: Age, found: &mut dyn FnMut(Run)) {
        for train in self.trains.iter().filter(|train| is_younger(train, now, age)) {
            let mut bits = train.missing & named(train, run, size);
            let Some(first) = first_chunk(train, run, size).filter(|_| bits != 0) else { continue };
            let mut at = 0;
            while bits != 0 {
                let gap = bits.trailing_zeros();
                bits >>= gap;
                let count = bits.trailing_ones();
                bits = bits.checked_shr(count).unwrap_or(0);
                at += gap;
                let begin = first + u64::from(at);
                Run::new(begin, begin + u64::from(count) - 1).into_iter().for_each(&mut *found);
                at += count;
            }
        }
    }

    /// The peer asks for chunks: those of them that were under way for longer than `age` are
    /// lost. Returns how many.
    pub fn report(&mut self, now: Mono, run: Run, size: u64, age: Age) -> u32 {
        let mut lost = 0;
        for train in self.trains.iter_mut().filter(|train| !is_younger(train, now, age)) {
            let gone = train.missing & named(train, run, size);
            lost += gone.count_ones();
            train.missing &= !gone;
        }
        self.trains.retain(|train| train.missing != 0);
        lost
    }

    /// Takes out trains older than `grace` of which a part was acknowledged, or a later one.
    /// Returns how many chunks were lost with them.
    pub fn expire(&mut self, now: Mono, grace: Duration) -> u32 {
        let (now, acked) = (micros(now), self.acked);
        let mut lost = 0;
        while let Some(first) = self.trains.front() {
            let old = u128::from(since(now, first.sent)) > grace.as_micros();
            let passed = acked != 0 && since(acked, first.sent) < u32::MAX / 2;
            let passed = passed && first.sent & !FLAGS != acked;
            if !old || !passed && first.sent & TOUCHED == 0 {
                break;
            }
            lost += first.missing.count_ones();
            self.trains.pop_front();
        }
        lost
    }

    /// Gives everything up. Returns how many chunks that were.
    pub fn clear(&mut self) -> u32 {
        let lost = self.chunks();
        self.trains.clear();
        lost
    }
}

fn number(subtree: u64) -> u16 {
    (subtree & 0xffff) as u16
}

fn micros(now: Mono) -> u32 {
    (now.as_nanos() / 1_000) as u32
}

/// Microseconds from `earlier` to `later`, over the wrap.
fn since(later: u32, earlier: u32) -> u32 {
    (later & !FLAGS).wrapping_sub(earlier & !FLAGS)
}

/// Whether a train is too young for a question to be an answer to it.
fn is_younger(train: &Train, now: Mono, age: Age) -> bool {
    let age = if train.sent & TOUCHED == 0 { age.untouched } else { age.touched };
    u128::from(since(micros(now), train.sent)) < age.as_micros()
}

/// The subtree of a train: the one with its number that is nearest to `run`.
fn subtree(train: &Train, run: Run, size: u64) -> Option<u64> {
    let first = run.first() / size;
    let ahead = train.number.wrapping_sub(number(first)).cast_signed();
    first.checked_add_signed(ahead.into())
}

/// The first chunk of that subtree.
fn first_chunk(train: &Train, run: Run, size: u64) -> Option<u64> {
    subtree(train, run, size)?.checked_mul(size)
}

/// The bits of `run` in this train's subtree.
fn named(train: &Train, run: Run, size: u64) -> u16 {
    subtree(train, run, size).map_or(0, |subtree| run.bits(subtree, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Mono {
        Mono::from_nanos(micros * 1_000)
    }

    fn run(first: u64, last: u64) -> Run {
        Run::new(first, last).unwrap()
    }

    fn train(subtree: u64) -> Run {
        run(subtree * 16, subtree * 16 + 15)
    }

    #[test]
    fn whole_trains_are_timed_and_close_followers_not_sampled() {
        let mut flight = Flight::default();
        // Around the wrap of the clock, and of the numbers.
        let begin = (1 << 32) - 50_000;
        flight.send(at(begin), train(65_535), 16);
        flight.send(at(begin + 100), train(65_536), 16);
        flight.send(at(begin + 60_000), train(65_537), 16);
        assert_eq!(flight.chunks(), 48);
        let acked = flight.ack(at(begin + 70_000), train(65_536), 16);
        let trip = |micros| Some(Duration::from_micros(micros));
        assert_eq!(acked, Acked { chunks: 16, round_trip: trip(69_900), sampled: false });
        let acked = flight.ack(at(begin + 80_000), run(65_530 * 16, 65_536 * 16), 16);
        assert_eq!(acked, Acked { chunks: 16, round_trip: trip(80_000), sampled: true });
        assert_eq!(flight.ack(at(begin + 80_000), train(65_536), 16), Acked::default());
        for chunk in 0..16 {
            let acked =
                flight.ack(at(begin + 90_000), run(65_537 * 16 + chunk, 65_537 * 16 + chunk), 16);
            assert_eq!((acked.chunks, acked.round_trip.is_some()), (1, chunk == 15));
        }
        assert!(flight.is_empty());
    }

    #[test]
    fn holes_that_are_asked_for_are_lost_once() {
        let mut flight = Flight::default();
        flight.send(at(1_000), train(3), 16);
        let acked = flight.ack(at(50_000), run(48, 60), 16);
        assert_eq!((acked.chunks, acked.round_trip), (13, None));
        let millis = Duration::from_millis;
        let age = Age { touched: millis(40), untouched: millis(900) };
        assert_eq!(flight.report(at(40_000), run(61, 63), 16, age), 0, "nobody can know yet");
        assert_eq!(flight.report(at(60_000), run(61, 63), 16, age), 3);
        assert_eq!(flight.report(at(60_000), run(61, 63), 16, age), 0);
        assert!(flight.is_empty());
        let never = flight.report(at(60_000), run(0, 1_000), 16, age);
        assert_eq!(never, 0, "what was never sent is not lost");
    }

    #[test]
    fn what_is_fresh_is_told_chunk_by_chunk() {
        let mut flight = Flight::default();
        flight.send(at(1_000), train(2), 16);
        flight.send(at(81_000), train(3), 16);
        flight.ack(at(90_000), run(50, 55), 16);
        let fresh = |asked: Run, age| {
            let mut found = Vec::new();
            let millis = Duration::from_millis;
            let age = Age { touched: millis(age), untouched: millis(age + 20) };
            flight.fresh(at(100_000), asked, 16, age, &mut |r| found.push((r.first(), r.last())));
            found
        };
        assert_eq!(fresh(run(0, 1_000), 50), [(48, 49), (56, 63)]);
        assert_eq!(fresh(run(57, 57), 50), [(57, 57)]);
        assert_eq!(fresh(run(40, 49), 90), [(40, 47), (48, 49)], "the older one is untouched");
        assert_eq!(fresh(run(0, 1_000), 0), []);
    }

    /// The clock's microseconds wrap every 71 minutes. In the second half of those, what had been
    /// overtaken was never given up, and filled the window.
    #[test]
    fn the_first_acknowledgement_counts_whatever_the_clock_says() {
        let mut flight = Flight::default();
        let begin = 3_000_000_000;
        (0..2).for_each(|n| flight.send(at(begin + n * 80_000), train(n), 16));
        flight.ack(at(begin + 170_000), train(1), 16);
        assert_eq!(flight.expire(at(begin + 300_000), Duration::from_millis(150)), 16);
    }

    #[test]
    fn what_later_trains_overtook_is_lost_after_a_grace() {
        let mut flight = Flight::default();
        (0..4).for_each(|n| flight.send(at(1_000 + n * 80_000), train(n), 16));
        let grace = Duration::from_millis(150);
        assert_eq!(flight.expire(at(900_000), grace), 0, "nobody has acknowledged anything");
        flight.ack(at(250_000), train(2), 16);
        assert_eq!(flight.expire(at(160_000), grace), 16);
        assert_eq!(flight.expire(at(260_000), grace), 16);
        assert_eq!((flight.expire(at(900_000), grace), flight.chunks()), (0, 16));
        assert_eq!(flight.clear(), 16);
    }

    #[test]
    fn chunks_sent_as_they_come_count_as_one_train_of_the_last_of_them() {
        let mut flight = Flight::default();
        let one = |chunk| run(chunk, chunk);
        for n in 0..8 {
            // Two subtrees from different parents, each chunk 20 ms behind the one before.
            flight.join(at(1_000 + n * 20_000), one(16 + n), 16);
            flight.join(at(1_500 + n * 20_000), one(48 + n), 16);
        }
        assert_eq!((flight.trains.len(), flight.chunks()), (2, 16));
        let acked = flight.ack(at(181_500), run(48, 55), 16);
        let trip = |micros| Some(Duration::from_micros(micros));
        assert_eq!(acked, Acked { chunks: 8, round_trip: trip(40_000), sampled: false });
        let acked = flight.ack(at(181_500), run(16, 19), 16);
        assert_eq!(acked, Acked { chunks: 4, round_trip: None, sampled: true });
        flight.join(at(190_000), run(24, 31), 16);
        assert_eq!(flight.ack(at(230_000), run(24, 31), 16).round_trip, None, "a hole");
        let grace = Duration::from_millis(150);
        assert_eq!(flight.expire(at(330_000), grace), 0, "of the last of them");
        assert_eq!(flight.expire(at(341_000), grace), 4, "of which a part was acknowledged");
        for n in 0..200 {
            flight.join(at(400_000 + n * 100), one(160 + n % 16), 16);
        }
        assert_eq!((flight.trains.len(), flight.chunks()), (1, 16));
    }

    #[test]
    fn single_answers_join_and_the_bound_holds() {
        let mut flight = Flight::default();
        for chunk in 0..4 {
            flight.send(at(1_000 + chunk * 100), run(chunk * 2, chunk * 2), 8);
        }
        assert_eq!((flight.trains.len(), flight.chunks()), (1, 4));
        (2..100)
            .take_while(|n| {
                let room = flight.has_room();
                if room {
                    flight.send(at(n * 10_000), run(n * 8, n * 8 + 7), 8);
                }
                room
            })
            .count();
        assert_eq!((flight.trains.len(), flight.trains.capacity()), (TRAINS_MAX, TRAINS_MAX));
    }
}
