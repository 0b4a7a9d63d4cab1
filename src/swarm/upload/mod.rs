//! How much a viewer uploads, and to whom: stripes are granted up to what its line carries.
//!
//! ```text
//! line    what the line carries: trains to the relay, and what their answers are worth
//! ```
//!
//! What a line carries is measured with the relay's help and not found out by trying: who tries
//! has to have something to send, and sees his neighbours' queues as well as his own. Afterwards
//! it is only watched. A home's line is the same for all neighbours, so what is seen at each of
//! them is looked at together: if half of them see a queue, it is our own. Not if one does, whose
//! own line may be slow; nor only if all do, for who came when the queue was there already takes
//! it for the way. Then less is believed, and soon the line is measured again.
//!
//! With a relay that does not measure, one stripe is tried, and more as long as nobody waits.

mod line;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Key;
use crate::swarm::stripes::rate_of;
use crate::wire::ppspp::State;

use line::Line;
pub use line::Probe;

/// What of a line is promised to others: the rest is for what the viewer says itself, for what is
/// lost and sent again, and for what others at home do.
const PROMISED: f32 = 0.85;

/// What of it is used at most, in any moment.
const PACE: f32 = 0.95;

/// Stripes that are granted at most; and at first to a line that nobody measures.
const MOST: f32 = 96.0;
const FIRST: f32 = 1.0;

/// How often one more is tried then.
const MORE_APART: Duration = Duration::from_secs(1);

/// A queue shorter than this is none; one longer than this is our own if half of those see it
/// that are fed, and twice as long if there is only one.
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_millis(130);

/// Lost chunks, in percent: below, more may be tried; above, it is too much. Of fewer chunks than
/// this nothing follows.
const LOSS_LITTLE: f32 = 8.0;
const LOSS_MUCH: f32 = 30.0;
const LOSS_OF: f32 = 10.0;

/// A queue is our own only where so much of what is promised was sent.
const BUSY: f32 = 0.5;

/// More is tried only where so much of it was carried.
const PROVEN: f32 = 0.6;

/// How often in a row it has to be too much.
const IN_A_ROW: u8 = 2;

/// What is believed then: what was carried, but not more than the one and not less than the other
/// part of what was believed before.
const LESS: f32 = 0.8;
const LEAST: f32 = 0.5;

/// How long nothing is taken back after that: the queue has to go, and neighbours to notice.
const CALM: Duration = Duration::from_secs(4);

/// A train of our own makes a queue, which says nothing.
const OWN_QUEUE: Duration = Duration::from_secs(1);

/// How far what is sent may be ahead of its pace: what waits in front of the line keeps what the
/// viewer says waiting as well.
const BURST: Duration = Duration::from_millis(40);

/// What is sent in one go lasts no longer than this, and is at least so many chunks.
const RUN: f32 = 0.012;
const RUN_MIN: u32 = 1;

/// Bits of a chunk on the wire.
const CHUNK_BITS: f32 = 1_373.0 * 8.0;

/// Over which time all of it is looked at: a neighbour that is fed one stripe gets a subtree every
/// eight.
const MEMORY: Duration = Duration::from_millis(1_500);

/// How one neighbour that is fed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its link.
    pub key: Key,
    /// How long what is sent to it waits on its way, if that is known.
    pub queueing: Option<Duration>,
    /// Chunks that were acknowledged since it was last told.
    pub acked: u64,
    /// Chunks that were lost.
    pub lost: u64,
}

/// Chunks of one neighbour that were acknowledged and lost, in the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    acked: f32,
    lost: f32,
}

impl Seen {
    fn all(&self) -> f32 {
        self.acked + self.lost
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
    line: Line,
    /// Bits per second of a stripe on the wire.
    stripe: u64,
    /// Stripes that may be promised.
    slots: f32,
    /// They are a guess, or began as one.
    guesses: bool,
    grants: BTreeMap<u16, Grant>,
    looked_at: Mono,
    /// When one stripe more was tried.
    tried_at: Mono,
    /// How often in a row it was too much, and when less was believed.
    too_much: u8,
    less_at: Option<Mono>,
    /// Stripes that were sent, and that were acknowledged, in the last time.
    sends: f32,
    carries: f32,
    seen: BTreeMap<u16, Seen>,
    /// Bytes that were sent since it was last looked.
    bytes: u64,
    /// When what was sent will have passed at our pace.
    passed: Mono,
}

impl Upload {
    /// Nothing is promised. `limit`: the user's, in bits per second; `bitrate`: the stream's.
    #[must_use]
    pub fn new(limit: Option<u64>, bitrate: u64) -> Upload {
        let mut upload = Upload {
            limit,
            line: Line::default(),
            stripe: rate_of(bitrate).max(1),
            slots: 0.0,
            guesses: false,
            grants: BTreeMap::new(),
            looked_at: Mono::ZERO,
            tried_at: Mono::ZERO,
            too_much: 0,
            less_at: None,
            sends: 0.0,
            carries: 0.0,
            seen: BTreeMap::new(),
            bytes: 0,
            passed: Mono::ZERO,
        };
        upload.count_slots();
        upload
    }

    /// A link to the relay begins, which `measures` lines or does not.
    pub fn linked(&mut self, now: Mono, measures: bool) {
        if self.limit.is_none() {
            self.line.linked(now, measures);
            self.begin_to_guess();
        }
    }

    /// A train that is to be sent to the relay now. Say [`Upload::probed`] when that was done.
    pub fn probe(&mut self, now: Mono) -> Option<Probe> {
        let probe = self.line.probe(now);
        self.begin_to_guess();
        probe
    }

    /// A train was sent.
    pub fn probed(&mut self, now: Mono, probe: Probe) {
        self.line.probed(now, probe.run);
        // The others wait for it.
        if self.pace() >= 1.0 {
            let took = Duration::from_secs_f32(probe.bits() / self.pace());
            self.passed = self.passed.max(now) + took;
        }
    }

    /// The relay says that train `run` came at so many kilobits per second. Returns those that
    /// are believed now, if that is news.
    pub fn measured(&mut self, now: Mono, run: u8, kbit: u32) -> Option<u32> {
        let bits = self.line.measured(now, run, kbit, self.stripe as f32 / PROMISED)?;
        self.too_much = 0;
        self.count_slots();
        self.take_back();
        Some((bits / 1_000.0) as u32)
    }

    /// One stripe is promised, if nobody is going to say what the line carries.
    fn begin_to_guess(&mut self) {
        if self.line.is_guess() && !std::mem::replace(&mut self.guesses, true) {
            self.slots = FIRST;
        }
    }

    /// A neighbour asks for the stripes `wanted`: those that it gets. What it had it keeps as
    /// long as it asks for it.
    pub fn grant(&mut self, key: Key, wanted: u8) -> u8 {
        let mut room = self.most() - self.used() as f32;
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
        let stripe = rate_of(bitrate).max(1);
        if stripe * 3 < self.stripe * 4 && self.stripe * 3 < stripe * 4 {
            return;
        }
        // The line carries as many bits as before.
        self.slots = self.slots * self.stripe as f32 / stripe as f32;
        self.stripe = stripe;
        self.count_slots();
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
        self.remember(took, children);
        if self.line.sent_at().is_some_and(|at| now.since(at) < OWN_QUEUE) {
            self.too_much = 0;
            return;
        }
        let fed = children.iter().filter(|child| self.recent(child).all() >= 1.0);
        let queue = half(fed.clone().filter_map(|child| child.queueing));
        let many = fed.clone().map(|child| self.recent(child)).filter(|of| of.all() >= LOSS_OF);
        let losses = half(many.map(|of| (of.lost * 100.0 / of.all()) as u32)).unwrap_or(0) as f32;
        let long = if fed.count() > 1 { LONG } else { LONG * 2 };
        let much = queue.is_some_and(|queue| queue > long) || losses > LOSS_MUCH;
        if much && self.slots >= 1.0 && self.sends > self.slots * BUSY {
            self.too_much = self.too_much.saturating_add(1);
            let calm = self.less_at.is_none_or(|at| now.since(at) >= CALM);
            if self.too_much >= IN_A_ROW && calm {
                self.take_less(now);
            }
            return;
        }
        self.too_much = 0;
        let calm = queue.is_some_and(|queue| queue < SHORT) && losses < LOSS_LITTLE;
        if self.line.is_guess() && (calm || self.slots < 1.0) {
            self.try_more(now);
        }
    }

    /// Takes what was sent and what came of it into what is remembered.
    fn remember(&mut self, took: Duration, children: &[Child]) {
        let part = (took.as_secs_f32() / MEMORY.as_secs_f32()).min(1.0);
        let bits = std::mem::take(&mut self.bytes) as f32 * 8.0;
        let acked: u64 = children.iter().map(|child| child.acked).sum();
        let stripes = |bits: f32| bits / took.as_secs_f32() / self.stripe as f32;
        let (sends, carries) = (stripes(bits), stripes(acked as f32 * CHUNK_BITS));
        self.sends += (sends - self.sends) * part;
        self.carries += (carries - self.carries) * part;
        self.seen.retain(|key, _| children.iter().any(|child| child.key.0 == *key));
        for child in children {
            let seen = self.seen.entry(child.key.0).or_default();
            seen.acked += child.acked as f32 - seen.acked * part;
            seen.lost += child.lost as f32 - seen.lost * part;
        }
    }

    fn recent(&self, child: &Child) -> Seen {
        self.seen.get(&child.key.0).copied().unwrap_or_default()
    }

    /// Nobody measures the line, and nobody waits for it.
    fn try_more(&mut self, now: Mono) {
        let patient = self.line.is_patient(now) && now.since(self.tried_at) >= MORE_APART;
        if patient && self.slots < 1.0 {
            // It may have been somebody else's download.
            self.slots = FIRST;
        } else if patient && self.carries > self.slots * PROVEN {
            self.slots = (self.slots + 1.0).min(MOST);
        } else {
            return;
        }
        self.tried_at = now;
    }

    /// It was too much.
    fn take_less(&mut self, now: Mono) {
        let part = (self.carries / self.slots).clamp(LEAST, LESS);
        (self.too_much, self.less_at) = (0, Some(now));
        self.slots *= part;
        self.line.reduce(now, part);
        self.count_slots();
        self.take_back();
    }

    /// How many stripes may be promised, by what is known.
    fn count_slots(&mut self) {
        let stripes = |bits: f32| bits / self.stripe as f32;
        self.slots = match (self.limit, self.line.bits()) {
            (Some(limit), _) => stripes(limit as f32),
            (None, Some(bits)) => stripes(bits * PROMISED),
            (None, None) => self.slots,
        };
        // Less than one is none.
        self.slots = if self.slots < 1.0 { 0.0 } else { self.slots.min(MOST) };
    }

    /// Stripes that are granted at most: who plans counts the same slots, and at times a moment
    /// earlier or later.
    fn most(&self) -> f32 {
        if self.slots < 1.0 { 0.0 } else { self.slots + 1.0 }
    }

    /// Takes stripes back until what is promised fits: from whom most is promised.
    fn take_back(&mut self) {
        while self.used() as f32 > self.most() {
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

    /// Whether anything is sent to anybody.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.pace() >= 1.0
    }

    /// When more may be sent.
    #[must_use]
    pub fn ready(&self) -> Mono {
        self.spare_at() - BURST
    }

    /// Whether there is room beside what is promised: for questions of those who are not fed.
    #[must_use]
    pub fn has_spare(&self, now: Mono) -> bool {
        self.spare_at() <= now
    }

    /// When there is.
    #[must_use]
    pub fn spare_at(&self) -> Mono {
        if self.shares() { self.passed } else { Mono::from_nanos(u64::MAX) }
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
        match (self.limit, self.line.bits()) {
            (Some(limit), _) => limit as f32,
            _ if self.slots < 1.0 => 0.0,
            (None, Some(bits)) => bits * PACE,
            (None, None) => self.slots * self.stripe as f32 * PACE / PROMISED,
        }
    }

    /// What others are told. Whole stripes only: less is no news.
    #[must_use]
    pub fn state(&self, play_chunk: u64, buffer: Duration) -> State {
        let kbit = |stripes: f32| {
            let bits = stripes.max(0.0).floor() as u64 * self.stripe;
            u32::try_from(bits / 1_000).unwrap_or(u32::MAX)
        };
        State {
            upload_kbit: kbit(self.slots),
            room_kbit: kbit(self.slots - self.used() as f32),
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
