//! How much may be under way to one peer: LEDBAT (RFC 6817) in units of one train.
//!
//! A relay sends a subtree as one train of datagrams, so the window counts trains. TARGET is the
//! RFC's 100 ms. Unlike a download, a live stream below its bitrate is worth nothing: so there is
//! a floor, which RFC 7574 (8.15) leaves to the live deployer: what is under way at 1.25 times
//! the stream's bitrate, in whole trains, and one train more, so that one lost acknowledgement
//! does not stop the stream. It is withdrawn while a tenth of all chunks is lost, for then the
//! path is too small.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::stripes::STRIPES;

/// Queueing delay that LEDBAT aims at, in microseconds.
const TARGET: f32 = 100_000.0;

/// Trains at the start, and the least. RFC 6817 has 2 for the least, of one packet each.
const WINDOW_START: f32 = 2.0;
const WINDOW_MIN: f32 = 1.0;

/// The least of a link on which chunks go singly.
const WINDOW_MIN_SINGLE: f32 = 0.25;

/// How long such chunks may wait for their acknowledgement.
const ACK_EVERY: Duration = Duration::from_millis(50);

/// How far the window may be ahead of what is used of it.
const ALLOWED_INCREASE: f32 = 1.0;

/// The base delay is the least of the last ten minutes, kept in five parts.
const BASES: usize = 5;
const BASE_PART: Duration = Duration::from_secs(120);

/// The current delay is the least of so many samples.
const FILTER: usize = 4;

/// The floor's share of the stream's bitrate...
const FLOOR: f32 = 1.25;

/// ...and beyond it, while the peer asks for what it lacks and no queue has grown: the speed of
/// the answers. See [`crate::swarm::pacer`].
const FLOOR_ASKED: f32 = 2.0;

/// What a window must not fall below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Anything: the path does not carry the stream.
    None,
    /// The stream's bitrate.
    Live,
    /// The stream's bitrate, and that of answers.
    Asked,
    /// The bitrate of some of the eight stripes, for a link on which chunks go singly, and if it
    /// is asked for chunks one stripe's at the speed of answers.
    Part {
        /// How many.
        stripes: u32,
        /// Whether questions wait.
        asked: bool,
    },
}

/// The largest round trip that is believed.
const RTT_MAX: Duration = Duration::from_secs(5);

/// The congestion window of one link.
#[derive(Clone, Debug)]
pub struct Ledbat {
    /// The first sample: clocks differ, so only differences mean anything. All others are kept
    /// relative to it, in microseconds.
    origin: i64,
    bases: [i32; BASES],
    /// When the newest part of the base history began, in [`millis`].
    part: u32,
    recent: [i32; FILTER],
    turn: u8,
    has_origin: bool,
    /// In trains.
    window: f32,
    /// Smoothed, in microseconds; 0 before the first sample.
    rtt: u32,
    /// When the window was last halved, in [`millis`]; 0 if it never was.
    halved: u32,
    /// Nothing was lost and no queue has grown yet: the window doubles with each round trip.
    starting: bool,
    /// Chunks go singly: a window need not hold a whole train.
    single: bool,
}

impl Default for Ledbat {
    fn default() -> Ledbat {
        Ledbat {
            origin: 0,
            bases: [i32::MAX; BASES],
            part: 0,
            recent: [i32::MAX; FILTER],
            turn: 0,
            has_origin: false,
            window: WINDOW_START,
            rtt: 0,
            halved: 0,
            starting: true,
            single: false,
        }
    }
}

impl Ledbat {
    /// The window of a link on which chunks go singly.
    #[must_use]
    pub fn single() -> Ledbat {
        Ledbat { single: true, ..Ledbat::default() }
    }

    /// Trains that may be under way. `train`: how long one takes at the stream's bitrate.
    #[must_use]
    pub fn window(&self, train: Duration, floor: Floor) -> f32 {
        let share = match floor {
            Floor::None => return self.window,
            _ if self.rtt == 0 => return self.window,
            Floor::Asked if self.queue() < TARGET / 2.0 => FLOOR + FLOOR_ASKED,
            Floor::Live | Floor::Asked => FLOOR,
            Floor::Part { stripes, asked } => {
                let asked = if asked && self.queue() < TARGET / 2.0 { FLOOR_ASKED } else { 0.0 };
                let share = (FLOOR * stripes as f32 + asked) / STRIPES as f32;
                let train = (train.as_micros() as f32).max(1.0);
                let time = self.rtt as f32 + ACK_EVERY.as_micros() as f32 + train;
                return self.window.max(share * time / train);
            }
        };
        // A train is acknowledged when its last datagram has come: that takes a round trip, and
        // on a narrow line nearly as long as the train lasts. Never one train alone: it would be
        // enough to lose its acknowledgement to stop the stream.
        let train = (train.as_micros() as f32).max(1.0);
        let least = share * (self.rtt as f32 + train) / train;
        self.window.max(least.ceil())
    }

    /// The smoothed round trip, once there is one.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt > 0).then(|| Duration::from_micros(u64::from(self.rtt)))
    }

    /// What waits in queues on the path, once there is a sample.
    #[must_use]
    pub fn queueing(&self) -> Option<Duration> {
        self.has_origin.then(|| Duration::from_micros(self.queue() as u64))
    }

    /// A whole train was acknowledged `rtt` after it was sent.
    pub fn on_round_trip(&mut self, rtt: Duration) {
        let sample = rtt.min(RTT_MAX).as_micros() as u32;
        self.rtt = match self.rtt {
            0 => sample.max(1),
            old => (old - old / 8 + sample / 8).max(1),
        };
    }

    /// The one-way delay of something that was not queued behind our own bytes.
    pub fn on_delay(&mut self, now: Mono, sample: i64) {
        let delay = i32::try_from(sample.wrapping_sub(self.origin));
        let delay = match delay {
            Ok(delay) if self.has_origin => delay,
            // The first one; or more than half an hour off: the other end's clock was set.
            _ => {
                (self.origin, self.has_origin) = (sample, true);
                self.bases = [i32::MAX; BASES];
                self.recent = [i32::MAX; FILTER];
                0
            }
        };
        if past(now, self.part) >= BASE_PART {
            self.part = millis(now);
            self.bases.rotate_right(1);
            self.bases[0] = delay;
        }
        self.bases[0] = self.bases[0].min(delay);
        self.recent[usize::from(self.turn) % FILTER] = delay;
        self.turn = self.turn.wrapping_add(1);
    }

    /// `trains` were acknowledged while `under_way` were, those included.
    ///
    /// The window begins with a slow start, as RFC 6817 (2.4.2, last paragraph) allows: a viewer
    /// who joins wants seconds of the stream at once, and one train more in each round trip of a
    /// fifth of a second comes too late for them.
    pub fn on_acked(&mut self, trains: f32, under_way: f32) {
        let off = (TARGET - self.queue()) / TARGET;
        self.starting &= off > 0.5;
        let share = if self.starting { 1.0 } else { 1.0 / self.window.max(1.0) };
        self.window += off.clamp(-1.0, 1.0) * trains * share;
        let most = under_way.max(WINDOW_START) + ALLOWED_INCREASE;
        self.window = self.window.clamp(self.least(), most);
    }

    /// Something was lost. Halves the window once per round trip.
    pub fn on_loss(&mut self, now: Mono) {
        self.starting = false;
        let again = self.rtt().unwrap_or(Duration::from_millis(100));
        if self.halved == 0 || past(now, self.halved) >= again {
            self.halved = millis(now).max(1);
            self.window = (self.window / 2.0).max(self.least());
        }
    }

    /// Nothing was acknowledged for long: begins from the least.
    pub fn on_silence(&mut self) {
        self.starting = false;
        self.window = self.least();
    }

    fn least(&self) -> f32 {
        if self.single { WINDOW_MIN_SINGLE } else { WINDOW_MIN }
    }

    /// What waits in queues, in microseconds.
    fn queue(&self) -> f32 {
        let least = |of: &[i32]| of.iter().copied().min().unwrap_or(i32::MAX);
        let (base, current) = (least(&self.bases), least(&self.recent));
        if base == i32::MAX || current == i32::MAX {
            return 0.0;
        }
        (f64::from(current) - f64::from(base)).max(0.0) as f32
    }
}

/// Milliseconds modulo 2^32: half the bytes, in each of thousands of links.
fn millis(now: Mono) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

/// Time since then, over the wrap.
fn past(now: Mono, then: u32) -> Duration {
    Duration::from_millis(millis(now).wrapping_sub(then).into())
}

/// Loss above which the floor is withdrawn: one in this many.
const LOSS_ONE_IN: u32 = 10;

/// Fewer lost chunks than this are chance: of the first two trains of a newcomer, with 2 % loss,
/// three may be lost, and without the floor it would wait for the beginning.
const LOST_MIN: u32 = 10;

/// Loss is counted over two of these.
const LOSS_PART: Duration = Duration::from_secs(1);

/// Loss that high for this long means that the path is too small for the stream.
const LOSS_ENDURED: Duration = Duration::from_secs(5);

/// What was lost over the last two seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// This part's chunks and the one's before.
    sent: [u16; 2],
    lost: [u16; 2],
    /// Whether too many are lost, and since when, in [`millis`].
    high: bool,
    since: u32,
    /// The number of this part since the clock began.
    part: u32,
}

impl Losses {
    /// Notes chunks that were sent, and chunks that are known to be lost.
    pub fn note(&mut self, now: Mono, sent: u32, lost: u32) {
        let part = (now.as_nanos() / LOSS_PART.as_nanos() as u64) as u32;
        // Part by part, so that it is the same however often somebody asks. After two there is
        // nothing left.
        for gone in 1..=part.wrapping_sub(self.part).min(2) {
            (self.sent, self.lost) = ([0, self.sent[0]], [0, self.lost[0]]);
            self.judge(Mono::ZERO + LOSS_PART * self.part.wrapping_add(gone));
        }
        self.part = part;
        let clamp = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        self.sent[0] = self.sent[0].saturating_add(clamp(sent));
        self.lost[0] = self.lost[0].saturating_add(clamp(lost));
        self.judge(now);
    }

    fn judge(&mut self, now: Mono) {
        let sum = |of: [u16; 2]| u32::from(of[0]) + u32::from(of[1]);
        let (sent, lost) = (sum(self.sent), sum(self.lost));
        let high = lost >= LOST_MIN && lost * LOSS_ONE_IN >= sent;
        if !std::mem::replace(&mut self.high, high) {
            self.since = millis(now);
        }
    }

    /// Whether so much is lost that the bitrate cannot be kept up.
    #[must_use]
    pub fn high(&self) -> bool {
        self.high
    }

    /// Whether that has been so for too long.
    #[must_use]
    pub fn endured(&self, now: Mono) -> bool {
        self.high && past(now, self.since) >= LOSS_ENDURED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: Duration = Duration::from_millis(84);

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn it_grows_while_the_queue_is_short_and_shrinks_while_it_is_long() {
        let mut ledbat = Ledbat::default();
        assert_eq!(ledbat.window(TRAIN, Floor::Live), 2.0);
        // The other end's clock is an hour behind.
        let clock = -3_600_000_000;
        for n in 0..40 {
            ledbat.on_delay(at(n * 10), clock + 20_000);
            ledbat.on_acked(1.0, 9.0);
        }
        let grown = ledbat.window(TRAIN, Floor::Live);
        assert_eq!(grown, 10.0, "one more than is used");
        for n in 40..120 {
            ledbat.on_delay(at(n * 10), clock + 20_000 + 200_000);
            ledbat.on_acked(1.0, 9.0);
        }
        assert_eq!(ledbat.window(TRAIN, Floor::None), 1.0, "a queue of twice the target");
        ledbat.on_delay(at(1_300), clock + 20_000 + 50_000);
        ledbat.on_acked(1.0, 1.0);
        assert!(ledbat.window(TRAIN, Floor::None) > 1.4, "the least of the last four counts");
    }

    #[test]
    fn it_doubles_until_a_queue_grows_or_something_is_lost() {
        let round = |ledbat: &mut Ledbat, millis, delay| {
            let trains = ledbat.window(TRAIN, Floor::None) as u32;
            for n in 0..trains {
                ledbat.on_delay(at(millis), delay);
                ledbat.on_acked(1.0, (trains + n) as f32);
            }
            ledbat.window(TRAIN, Floor::None)
        };
        let mut ledbat = Ledbat::default();
        let windows = [0, 200, 400].map(|millis| round(&mut ledbat, millis, 0));
        assert_eq!(windows, [4.0, 8.0, 16.0]);
        ledbat.on_loss(at(500));
        assert!(round(&mut ledbat, 600, 0) < 9.2, "one more in a round trip");
        let mut queued = Ledbat::default();
        round(&mut queued, 0, 0);
        (1..8).for_each(|n| queued.on_delay(at(n), 60_000));
        assert!(round(&mut queued, 200, 60_000) < 4.5, "half of the target waits");
    }

    #[test]
    fn unused_window_does_not_grow() {
        let mut ledbat = Ledbat::default();
        for n in 0..1_000 {
            ledbat.on_delay(at(n), 5);
            ledbat.on_acked(1.0, 1.0);
        }
        assert_eq!(ledbat.window(TRAIN, Floor::Live), 3.0);
    }

    #[test]
    fn old_base_delays_are_forgotten_and_a_clock_that_jumps_starts_over() {
        let mut ledbat = Ledbat::default();
        ledbat.on_delay(at(0), 0);
        let later = |minute: u64| at(minute * 60_000);
        for minute in 1..9 {
            ledbat.on_delay(later(minute), 80_000);
        }
        assert_eq!(ledbat.queue(), 80_000.0, "ten minutes are not over");
        for minute in 9..14 {
            ledbat.on_delay(later(minute), 80_000);
        }
        assert_eq!(ledbat.queue(), 0.0, "the way is longer now");
        ledbat.on_delay(later(15), i64::MIN + 7);
        assert_eq!(ledbat.queue(), 0.0);
        ledbat.on_delay(later(15), i64::MIN + 10_007);
        ledbat.on_delay(later(15), i64::MAX);
        assert!(ledbat.queue() <= 10_000.0, "wraps");
    }

    #[test]
    fn loss_halves_once_per_round_trip() {
        let mut ledbat = Ledbat { window: 8.0, ..Ledbat::default() };
        ledbat.on_round_trip(Duration::from_millis(50));
        ledbat.on_loss(at(1_000));
        ledbat.on_loss(at(1_010));
        assert_eq!(ledbat.window, 4.0);
        ledbat.on_loss(at(1_050));
        assert_eq!(ledbat.window, 2.0);
        ledbat.on_silence();
        assert_eq!(ledbat.window, 1.0);
    }

    #[test]
    fn the_floor_is_the_bitrate_and_a_quarter() {
        let mut ledbat = Ledbat { window: 1.0, ..Ledbat::default() };
        assert_eq!(ledbat.rtt(), None);
        ledbat.on_round_trip(Duration::from_millis(336));
        assert_eq!(ledbat.rtt(), Some(Duration::from_millis(336)));
        assert_eq!(
            ledbat.window(TRAIN, Floor::Live),
            7.0,
            "5 trains in the round trip, 1.25 of their own"
        );
        assert_eq!(ledbat.window(TRAIN, Floor::None), 1.0);
        (0..60).for_each(|_| ledbat.on_round_trip(Duration::from_millis(84)));
        assert_eq!(ledbat.window(TRAIN, Floor::Live), 3.0, "smoothed, whole trains");
        (0..99).for_each(|_| ledbat.on_round_trip(Duration::from_millis(1)));
        assert_eq!(ledbat.window(TRAIN, Floor::Live), 2.0, "one is never alone");
        assert_eq!(ledbat.window(TRAIN, Floor::Asked), 4.0, "three and a quarter");
        (0..8).for_each(|n| ledbat.on_delay(at(n), if n == 0 { 0 } else { 60_000 }));
        assert_eq!(ledbat.window(TRAIN, Floor::Asked), 2.0, "not into a queue");
    }

    #[test]
    fn a_link_of_single_chunks_may_hold_less_than_a_train() {
        let mut ledbat = Ledbat::single();
        assert_eq!(ledbat.queueing(), None);
        (0..8).for_each(|n| ledbat.on_delay(at(n), if n == 0 { 0 } else { 300_000 }));
        assert_eq!(ledbat.queueing(), Some(Duration::from_millis(300)));
        (0..40).for_each(|_| ledbat.on_acked(0.25, 1.0));
        assert_eq!(ledbat.window(TRAIN, Floor::None), 0.25);
        ledbat.on_round_trip(Duration::from_millis(34));
        let part = |stripes, asked| Floor::Part { stripes, asked };
        assert_eq!(ledbat.window(TRAIN, part(0, true)), 0.25, "not into a queue");
        assert_eq!(ledbat.window(TRAIN, part(4, false)), 1.25, "half of 168 ms, and a quarter");
        (8..12).for_each(|n| ledbat.on_delay(at(n), 0));
        assert_eq!(ledbat.window(TRAIN, part(0, true)), 0.5, "of a stripe twice");
        ledbat.on_acked(0.125, 0.25);
        assert_eq!(ledbat.window(TRAIN, Floor::None), 0.375, "what was acknowledged at most");
    }

    #[test]
    fn loss_is_the_same_however_often_somebody_looks() {
        let (mut often, mut rarely) = (Losses::default(), Losses::default());
        let mut endured = Vec::new();
        for tick in 10..120 {
            let now = at(tick * 100);
            often.note(now, 0, 0);
            // Over two seconds without anything it is not high.
            if tick % 10 == 3 && !(20..40).contains(&tick) {
                [&mut often, &mut rarely].into_iter().for_each(|of| of.note(now, 16, 12));
                let of = |losses: &Losses| (losses.high(), losses.endured(now));
                assert_eq!(of(&often), of(&rarely), "{tick}");
                endured.extend(often.endured(now).then_some(tick));
            }
        }
        assert_eq!(endured, [93, 103, 113], "five seconds from 4.3 s on");
    }

    #[test]
    fn loss_is_high_from_a_tenth_on_over_two_seconds() {
        let mut losses = Losses::default();
        for tick in 0..40 {
            losses.note(at(1_000 + tick * 100), 16, 1);
        }
        assert!(!losses.high(), "one in sixteen");
        for tick in 40..80 {
            losses.note(at(1_000 + tick * 100), 16, 2);
        }
        assert!(losses.high() && !losses.endured(at(9_000)));
        for tick in 80..110 {
            losses.note(at(1_000 + tick * 100), 16, 2);
        }
        assert!(losses.endured(at(12_000)), "five seconds of it");
        losses.note(at(20_000), 16, 0);
        assert!(!losses.high() && !losses.endured(at(30_000)));
    }
}
