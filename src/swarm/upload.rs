//! How much a viewer uploads, and to whom: stripes are granted up to what its line carries.
//!
//! A home's line is the same for all neighbours, so what is measured at each of them is looked at
//! together: if half of them see a queue, it is our own. Not if one does, whose own line may be
//! slow; nor only if all do, for who came when the queue was there already takes it for the way.
//! Without a limit from the user it begins with little, and tries more as long as nobody waits for
//! it; when a queue grows, stripes are taken back, and the neighbours that had them look for other
//! parents. That costs them something: so the more often it happens, the longer it takes until
//! more is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Key;
use crate::swarm::stripes::STRIPES;
use crate::wire::ppspp::State;

/// What a stripe takes beyond its share of the stream, in percent: headers and hashes.
const OVERHEAD: u64 = 108;

/// Stripes that are granted at the beginning, and at most. One, for a line that does not carry
/// even that must not drown what the viewer says to be fed itself.
const FIRST: f32 = 1.0;
const MOST: f32 = 96.0;

/// What a line is said to carry of which nobody has asked enough to know better.
const GUESS: f32 = 8.0;

/// How much more is tried at a time before it was ever too much, at least one stripe, and how
/// often at most. One stripe later on.
const MORE: f32 = 1.25;
const MORE_APART: Duration = Duration::from_millis(500);

/// A queue shorter than this is none; one longer than this is our own if all see it.
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_millis(130);

/// Lost chunks, in percent: below, more may be tried; above, less.
const LOSS_LITTLE: u64 = 8;
const LOSS_MUCH: u64 = 30;

/// Of fewer chunks than this nothing follows.
const LOSS_OF: u64 = 20;

/// What is kept of what was acknowledged when there is too much.
const LESS: f32 = 0.85;

/// How long nothing is taken back after that: the queue has to go, and neighbours to notice.
const CALM: Duration = Duration::from_secs(4);

/// How long nothing more is tried: the first time, and at most. Twice as long if what was tried
/// then was soon too much again.
const PATIENCE: Duration = Duration::from_secs(4);
const PATIENCE_MAX: Duration = Duration::from_secs(120);

/// How much faster than what is promised is sent: what was lost is sent twice.
const PACE: f32 = 1.15;

/// How far what is sent may be ahead of that pace: what waits in front of the line keeps what the
/// viewer says waiting as well.
const BURST: Duration = Duration::from_millis(40);

/// What is sent in one go lasts no longer than this, and is at least so many chunks.
const RUN: f32 = 0.02;
const RUN_MIN: u32 = 2;

/// Bits of a chunk on the wire.
const CHUNK_BITS: f32 = 1_373.0 * 8.0;

/// More is tried only where so much of what is believed was carried...
const PROVEN: f32 = 0.6;

/// ...and a queue is our own only where so much of it was sent.
const BUSY: f32 = 0.5;

/// With less than this of what was sent acknowledged, the rest waits somewhere.
const ARRIVES: f32 = 0.7;

/// Of a neighbour to which less was sent, in stripes, nothing follows.
const JUDGED: f32 = 0.15;

/// How long a line that did not carry one stripe is left alone, at least.
const POOR: Duration = Duration::from_secs(30);

/// Over which time both are looked at: a neighbour that is fed one stripe gets a subtree every
/// eight.
const MEMORY: Duration = Duration::from_millis(1_500);

/// How one neighbour that is fed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its link.
    pub key: Key,
    /// How long what is sent to it waits on its way, if that is known.
    pub queueing: Option<Duration>,
    /// Chunks that were sent since it was last told.
    pub sent: u64,
    /// Chunks that were acknowledged.
    pub acked: u64,
    /// Chunks that were lost.
    pub lost: u64,
}

/// What went to one neighbour and what it acknowledged, in stripes, in the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    sends: f32,
    carries: f32,
    /// What was sent when it was looked before: the newest first.
    before: [f32; 4],
}

impl Flow {
    /// Adds what was sent and acknowledged since the last look, `part` of the time that counts.
    fn add(&mut self, sent: f32, acked: f32, part: f32) {
        self.before.rotate_right(1);
        self.before[0] = self.sends;
        self.sends += (sent - self.sends) * part;
        self.carries += (acked - self.carries) * part;
    }

    /// Whether so much is sent that it can be judged, and whether less comes than was sent:
    /// acknowledgements are of what was sent some time ago.
    fn is_short(&self) -> Option<bool> {
        let then = self.before.iter().fold(self.sends, |least, sent| least.min(*sent));
        (then > JUDGED).then_some(self.carries < then * ARRIVES)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Grant {
    granted: u8,
    /// Taken back: not granted again before the neighbour has asked for less.
    refused: u8,
}

/// What a viewer can send, and what of it is promised to whom.
#[derive(Debug)]
pub struct Upload {
    limit: Option<u64>,
    /// Bits per second of a stripe on the wire.
    stripe: u64,
    /// Stripes that the line is believed to carry.
    slots: f32,
    grants: BTreeMap<u16, Grant>,
    looked_at: Mono,
    tried_at: Mono,
    /// When it was too much, if it ever was.
    too_much_at: Option<Mono>,
    patience: Duration,
    /// Stripes that were sent, and that were acknowledged, in the last time.
    sends: f32,
    carries: f32,
    /// The same of each neighbour.
    flows: BTreeMap<u16, Flow>,
    /// Bytes that were sent since it was last looked.
    bytes: u64,
    /// When what was sent will have passed at the limit.
    passed: Mono,
}

impl Upload {
    /// Nothing is promised. `limit`: the user's, in bits per second; `bitrate`: the stream's.
    #[must_use]
    pub fn new(limit: Option<u64>, bitrate: u64) -> Upload {
        let stripe = (bitrate * OVERHEAD / 100 / STRIPES as u64).max(1);
        let slots = limit.map_or(FIRST, |limit| (limit as f32 / stripe as f32).min(MOST));
        let never = Mono::ZERO;
        Upload {
            limit,
            stripe,
            slots,
            grants: BTreeMap::new(),
            looked_at: never,
            tried_at: never,
            too_much_at: None,
            patience: PATIENCE,
            sends: 0.0,
            carries: 0.0,
            flows: BTreeMap::new(),
            bytes: 0,
            passed: never,
        }
    }

    /// A neighbour asks for the stripes `wanted`: those that it gets. What it had it keeps as
    /// long as it asks for it.
    pub fn grant(&mut self, key: Key, wanted: u8) -> u8 {
        let mut room = self.free();
        let grant = self.grants.entry(key.0).or_default();
        grant.refused &= wanted;
        room += f32::from((grant.granted & !wanted).count_ones() as u8);
        grant.granted &= wanted;
        for bit in (0..8).map(|stripe| 1 << stripe) {
            let new = wanted & bit & !grant.granted & !grant.refused != 0;
            if new && room >= 1.0 {
                grant.granted |= bit;
                room -= 1.0;
            }
        }
        let granted = grant.granted;
        if granted == 0 && grant.refused == 0 {
            self.grants.remove(&key.0);
        }
        granted
    }

    /// The stream takes so many bits per second. Who joins when it begins has to guess; small
    /// changes are none, for what is told to others should not change all the time.
    pub fn set_bitrate(&mut self, bitrate: u64) {
        let stripe = (bitrate * OVERHEAD / 100 / STRIPES as u64).max(1);
        if stripe * 3 < self.stripe * 4 && self.stripe * 3 < stripe * 4 {
            return;
        }
        // The line carries as many bits as before.
        self.slots = (self.slots * self.stripe as f32 / stripe as f32).min(MOST);
        if let Some(limit) = self.limit {
            self.slots = (limit as f32 / stripe as f32).min(MOST);
        }
        self.stripe = stripe;
        self.take_back();
    }

    /// A link has ended.
    pub fn remove(&mut self, key: Key) {
        self.grants.remove(&key.0);
    }

    /// Looks at how all who are fed do; some hundreds of milliseconds after the last time. Then
    /// [`Upload::grant`] may say less than before.
    pub fn observe(&mut self, now: Mono, children: &[Child]) {
        let took = now.since(self.looked_at).max(Duration::from_millis(1));
        let first = std::mem::replace(&mut self.looked_at, now) == Mono::ZERO;
        if self.limit.is_some() || first {
            return;
        }
        // What one sees to which nothing goes is old.
        let fed = || children.iter().filter(|child| child.acked + child.lost > 0);
        let queue = half(fed().filter_map(|child| child.queueing));
        let many = fed().filter(|child| child.acked + child.lost >= LOSS_OF);
        let losses = half(many.map(|child| child.lost * 100 / (child.acked + child.lost)));
        let losses = losses.unwrap_or(0);
        let long = if fed().count() > 1 { LONG } else { LONG * 2 };
        let long = queue.is_some_and(|queue| queue > long);
        let since = self.too_much_at.map(|at| now.since(at));
        let acked: u64 = children.iter().map(|child| child.acked).sum();
        let bits = std::mem::take(&mut self.bytes) as f32 * 8.0;
        let part = (took.as_secs_f32() / MEMORY.as_secs_f32()).min(1.0);
        self.carries += (self.stripes(acked as f32 * CHUNK_BITS, took) - self.carries) * part;
        self.sends += (self.stripes(bits, took) - self.sends) * part;
        let short = self.is_short(children, took, part);
        let patient = since.is_none_or(|since| since >= self.patience);
        if self.slots < 1.0 {
            // It may have been somebody else's download.
            self.slots = if patient { 1.0 } else { self.slots };
            return;
        }
        if (short || long || losses > LOSS_MUCH) && self.sends > self.slots * BUSY {
            if since.is_none_or(|since| since >= CALM) {
                self.take_less(now);
            }
            return;
        }
        let calm = queue.is_some_and(|queue| queue < SHORT) && losses < LOSS_LITTLE;
        let full = self.carries > self.slots * PROVEN;
        if calm && full && patient && now.since(self.tried_at) >= MORE_APART {
            self.tried_at = now;
            let more = if since.is_none() { self.slots * MORE } else { 0.0 };
            self.slots = more.max(self.slots + 1.0).min(MOST);
        }
    }

    /// Whether to all neighbours to whom much is sent less comes than was sent. One that gets all
    /// of it shows that it is not our line.
    fn is_short(&mut self, children: &[Child], took: Duration, part: f32) -> bool {
        self.flows.retain(|key, _| children.iter().any(|child| child.key.0 == *key));
        let mut judged = None;
        for child in children {
            let [sent, acked] = [child.sent, child.acked]
                .map(|chunks| self.stripes(chunks as f32 * CHUNK_BITS, took));
            let flow = self.flows.entry(child.key.0).or_default();
            flow.add(sent, acked, part);
            if let Some(short) = flow.is_short() {
                judged = Some(judged.unwrap_or(true) && short);
            }
        }
        judged.unwrap_or(false)
    }

    /// It was too much: no more than what was carried.
    fn take_less(&mut self, now: Mono) {
        let soon = self.too_much_at.is_some_and(|at| now.since(at) < self.patience * 3);
        self.patience = if soon { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE };
        self.too_much_at = Some(now);
        let less = self.carries.min(self.slots) * LESS;
        // A line that does not carry one stripe is left alone for a while.
        self.slots = if less < 1.0 { 0.0 } else { less };
        if less < 1.0 {
            self.patience = self.patience.max(POOR);
        }
        self.take_back();
    }

    /// Bits in some time, in stripes.
    fn stripes(&self, bits: f32, took: Duration) -> f32 {
        bits / took.as_secs_f32() / self.stripe as f32
    }

    /// Takes stripes back until what is promised fits: from whom most is promised.
    fn take_back(&mut self) {
        while self.used() as f32 > self.slots {
            let most = self.grants.values_mut().max_by_key(|grant| grant.granted.count_ones());
            let Some(grant) = most.filter(|grant| grant.granted != 0) else { break };
            let bit = 1 << (7 - grant.granted.leading_zeros());
            grant.granted &= !bit;
            grant.refused |= bit;
        }
    }

    fn used(&self) -> u32 {
        self.grants.values().map(|grant| grant.granted.count_ones()).sum()
    }

    fn free(&self) -> f32 {
        self.slots - self.used() as f32
    }

    /// When more may be sent.
    #[must_use]
    pub fn ready(&self) -> Mono {
        if self.pace() < 1.0 { Mono::from_nanos(u64::MAX) } else { self.passed - BURST }
    }

    /// Whether there is room beside what is promised: for questions of those who are not fed.
    #[must_use]
    pub fn has_spare(&self, now: Mono) -> bool {
        self.passed <= now && self.pace() >= 1.0
    }

    /// Chunks that are sent in one go.
    #[must_use]
    pub fn run(&self) -> u32 {
        ((self.pace() * RUN / CHUNK_BITS) as u32).max(RUN_MIN)
    }

    /// Bytes were sent.
    pub fn sent(&mut self, now: Mono, bytes: u64) {
        self.bytes += bytes;
        let took = Duration::from_secs_f32(bytes as f32 * 8.0 / self.pace().max(1_000.0));
        self.passed = self.passed.max(now) + took;
    }

    /// Bits per second at which is sent; 0: nothing is.
    fn pace(&self) -> f32 {
        match self.limit {
            Some(limit) => limit as f32,
            None => self.slots * self.stripe as f32 * PACE,
        }
    }

    /// What others are told. Whole stripes only: less is no news.
    #[must_use]
    pub fn state(&self, play_chunk: u64, buffer: Duration) -> State {
        let kbit = |stripes: f32| {
            let bits = stripes.max(0.0).floor() as u64 * self.stripe;
            u32::try_from(bits / 1_000).unwrap_or(u32::MAX)
        };
        let known = self.limit.is_some() || self.too_much_at.is_some();
        let carries = if known { self.slots } else { self.slots.max(GUESS) };
        State {
            upload_kbit: kbit(carries),
            room_kbit: kbit(self.free()),
            play_chunk,
            buffer_ms: u16::try_from(buffer.as_millis()).unwrap_or(u16::MAX),
        }
    }
}

/// What the lower half sees at most.
fn half<T: Ord>(seen: impl Iterator<Item = T>) -> Option<T> {
    let mut seen: Vec<T> = seen.collect();
    seen.sort_unstable();
    let middle = seen.len().checked_sub(1)? / 2;
    seen.into_iter().nth(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(key: u16, queue: u64, acked: u64, lost: u64) -> Child {
        let queueing = Some(Duration::from_millis(queue));
        Child { key: Key(key), queueing, sent: acked + lost, acked, lost }
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(10_000 + millis)
    }

    #[test]
    fn a_guess_of_the_bitrate_is_put_right() {
        // A limit of 500 kbit/s carries one stripe of 2 Mbit/s, and all of 113 kbit/s four times.
        let mut upload = Upload::new(Some(500_000), 2_000_000);
        let told = |upload: &Upload| upload.state(0, Duration::ZERO).upload_kbit;
        assert_eq!(told(&upload), 270);
        assert_eq!(upload.grant(Key(1), 0xff).count_ones(), 1);
        upload.set_bitrate(113_000);
        assert!((480..=500).contains(&told(&upload)), "{}", told(&upload));
        assert_eq!(upload.grant(Key(1), 0xff), 0xff);
        let before = told(&upload);
        upload.set_bitrate(125_000);
        assert_eq!(told(&upload), before, "little is no change");
        upload.set_bitrate(2_000_000);
        assert_eq!(upload.grant(Key(1), 0xff).count_ones(), 1, "what does not fit is taken back");
        // Without a limit the guess is one of the stream.
        let mut upload = Upload::new(None, 2_000_000);
        assert_eq!(told(&upload), 2_160);
        upload.set_bitrate(1_000_000);
        assert_eq!(told(&upload), 1_080);
    }

    #[test]
    fn a_limit_is_kept_in_promises_and_in_pace() {
        let mut upload = Upload::new(Some(1_080_000), 2_000_000);
        assert_eq!(upload.grant(Key(1), 0b111), 0b111);
        assert_eq!(upload.grant(Key(2), 0b11), 0b1, "four stripes fit");
        assert_eq!(upload.state(0, Duration::ZERO).room_kbit, 0);
        assert_eq!(upload.grant(Key(1), 0b1), 0b1);
        assert_eq!(upload.grant(Key(2), 0b11), 0b11);
        upload.remove(Key(2));
        assert_eq!(upload.state(7, Duration::ZERO).room_kbit, 810);
        (0..20).for_each(|_| upload.sent(at(0), 13_500));
        let ready = upload.ready().since(at(0)).as_millis();
        assert!((1_958..=1_961).contains(&ready), "{ready}");
        let mut none = Upload::new(Some(0), 2_000_000);
        assert_eq!((none.grant(Key(1), 0xff), none.state(0, Duration::ZERO).upload_kbit), (0, 0));
        assert!(none.ready() > at(1 << 40) && !none.has_spare(at(1 << 40)));
    }

    #[test]
    fn more_is_tried_while_nobody_waits_and_taken_back_when_all_do() {
        let mut upload = Upload::new(None, 2_000_000);
        let mut granted = 0;
        for step in 0..40 {
            granted = (1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum();
            let children: Vec<_> = (1..=4).map(|key| child(key, 10, 100, 1)).collect();
            upload.sent(at(step * 500), 404 * 1_373);
            upload.observe(at(step * 500), &children);
        }
        assert_eq!(granted, 32, "everything that was asked for");
        // One slow neighbour is its own affair.
        let mut children: Vec<_> = (1..=4).map(|key| child(key, 10, 100, 1)).collect();
        children[0] = child(1, 900, 10, 0);
        upload.observe(at(20_500), &children);
        assert_eq!((1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum::<u32>(), 32);
        // All wait, and less arrives than is sent.
        let children: Vec<_> = (1..=4).map(|key| child(key, 300, 25, 0)).collect();
        let mut left = 32;
        for step in 42..48 {
            upload.sent(at(step * 500), 400 * 1_373);
            upload.observe(at(step * 500), &children);
            left = (1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum::<u32>();
        }
        assert!((1..32).contains(&left), "{left}: not all at once");
        let fewer = upload.grant(Key(1), 0) as u32;
        assert_eq!((fewer, upload.grant(Key(5), 1)), (0, 1), "room for others");
    }

    /// A home's line with the neighbours that it feeds. A queue of 400 ms in front of it.
    struct Home {
        upload: Upload,
        now: u64,
        /// Bits per second, and bits that wait.
        line: f64,
        queue: f64,
        /// Of each neighbour what it wants, what it gets, what came and what was lost since the
        /// last look; and the queue when it came, which it takes for the way.
        wants: Vec<u8>,
        granted: Vec<u8>,
        counts: Vec<[f64; 2]>,
        ways: Vec<f64>,
        /// When it last was refused something.
        refused: Vec<Option<u64>>,
        refusals: u32,
        /// Milliseconds with a queue of more than 200 ms, and bits that were carried.
        queued: u64,
        carried: f64,
    }

    impl Home {
        fn new(line: f64, neighbours: usize) -> Home {
            Home {
                upload: Upload::new(None, 2_000_000),
                now: 0,
                line,
                queue: 0.0,
                wants: vec![0; neighbours],
                granted: vec![0; neighbours],
                counts: vec![[0.0; 2]; neighbours],
                ways: vec![f64::MAX; neighbours],
                refused: vec![None; neighbours],
                refusals: 0,
                queued: 0,
                carried: 0.0,
            }
        }

        fn wait(&self) -> f64 {
            self.queue / self.line * 1_000.0
        }

        /// Ten milliseconds.
        fn tick(&mut self) {
            self.now += 10;
            let wait = self.wait();
            for (child, granted) in self.granted.iter().enumerate() {
                let bits = f64::from(granted.count_ones()) * 270_000.0 / 100.0;
                let lost = wait > 400.0;
                self.counts[child][usize::from(lost)] += bits / 11_400.0;
                self.queue += if lost { 0.0 } else { bits };
                self.upload.sent(at(self.now), (bits / 8.0) as u64);
                if bits > 0.0 {
                    self.ways[child] = self.ways[child].min(wait);
                }
            }
            let passed = self.queue.min(self.line / 100.0);
            self.queue -= passed;
            self.carried += passed;
            self.queued += if wait > 200.0 { 10 } else { 0 };
            if self.now.is_multiple_of(500) {
                self.look(wait);
            }
        }

        fn look(&mut self, wait: f64) {
            let counts = self.counts.iter_mut().map(|of| std::mem::take(of).map(|n| n as u64));
            let children: Vec<_> = counts
                .zip(1..)
                .map(|([acked, lost], key)| {
                    let queue = (wait - self.ways[usize::from(key) - 1]).max(0.0);
                    // Of what came a part waits still.
                    let acked = acked.min((self.line / 2.0 / 11_400.0) as u64);
                    child(key, queue as u64, acked, lost)
                })
                .collect();
            self.upload.observe(at(self.now), &children);
            for child in 0..self.wants.len() {
                if self.refused[child].is_some_and(|at| self.now - at >= 1_000) {
                    // It has found other parents.
                    self.wants[child] &= self.granted[child];
                    self.refused[child] = None;
                }
                let room = self.upload.state(0, Duration::ZERO).room_kbit >= 270;
                if room && self.refused[child].is_none() && self.wants[child] != 0xff {
                    self.wants[child] |= 1 << self.wants[child].trailing_ones();
                }
                let granted = self.upload.grant(Key(child as u16 + 1), self.wants[child]);
                let fewer = (self.granted[child] & !granted).count_ones();
                if fewer > 0 {
                    self.refusals += fewer;
                    self.refused[child] = Some(self.now);
                }
                self.granted[child] = granted;
            }
        }

        fn run(&mut self, seconds: u64) {
            (self.queued, self.carried, self.refusals) = (0, 0.0, 0);
            (0..seconds * 100).for_each(|_| self.tick());
        }
    }

    #[test]
    fn losses_of_all_are_our_own_even_without_a_queue() {
        let mut upload = Upload::new(None, 2_000_000);
        let looks = |upload: &mut Upload, from: u64, lost| {
            for step in from..from + 10 {
                for key in 1..=3 {
                    upload.grant(Key(key), 0xf);
                }
                let children =
                    [child(1, 10, 91, lost), child(2, 10, 91, lost), child(3, 10, 99, 1)];
                upload.sent(at(step * 500), (282 + 2 * lost) * 1_373);
                upload.observe(at(step * 500), &children);
            }
            (1..=3).map(|key| upload.grant(Key(key), 0xf).count_ones()).sum::<u32>()
        };
        assert_eq!(looks(&mut upload, 0, 0), 12);
        assert_eq!(looks(&mut upload, 10, 20), 12, "neither");
        assert!(looks(&mut upload, 20, 120) <= 11);
    }

    #[test]
    fn a_line_is_filled_and_its_queue_does_not_last() {
        for line in [600_000.0, 1_500_000.0, 5_000_000.0, 12_000_000.0] {
            let mut home = Home::new(line, 10);
            home.run(60);
            home.run(120);
            let used = home.carried / line / 120.0;
            assert!((0.4..1.0).contains(&used), "{line}: {used}");
            assert!(home.queued < 8_000, "{line}: {} ms", home.queued);
            assert!(home.refusals < 40, "{line}: {}", home.refusals);
        }
    }

    #[test]
    fn a_line_that_changes_is_followed() {
        let mut home = Home::new(8_000_000.0, 8);
        home.run(60);
        home.line = 2_000_000.0;
        home.run(20);
        home.run(60);
        let used = home.carried / home.line / 60.0;
        assert!((0.5..1.0).contains(&used) && home.queued < 10_000, "{used} {}", home.queued);
        home.line = 0.0001;
        home.run(5);
        (home.line, home.queue) = (8_000_000.0, 0.0);
        home.run(120);
        home.run(60);
        let used = home.carried / home.line / 60.0;
        assert!(used > 0.5, "nothing is given up for ever: {used}");
    }

    #[test]
    fn who_is_not_fed_and_who_is_slow_hold_nothing_up() {
        let mut upload = Upload::new(None, 2_000_000);
        for step in 0..20 {
            for key in 1..=5 {
                upload.grant(Key(key), 0b1111);
            }
            let mut children: Vec<_> = (1..=5).map(|key| child(key, 10, 100, 1)).collect();
            children[0] = child(1, 700, 60, 40);
            children[1] = child(2, 700, 0, 0);
            upload.observe(at(step * 500), &children);
        }
        let granted: u32 = (1..=5).map(|key| upload.grant(Key(key), 0b1111).count_ones()).sum();
        assert_eq!(granted, 20);
    }
}
