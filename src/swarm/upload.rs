//! How much a viewer uploads, and to whom: stripes are granted up to what its line carries.
//!
//! A home's line is the same for all neighbours, so what is measured at each of them is looked at
//! together: if even the fastest of them sees a queue, the queue is our own. Without a limit from
//! the user it begins with little, and tries more as long as nobody waits for it; when a queue
//! grows, stripes are taken back, and the neighbours that had them look for other parents.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Key;
use crate::wire::ppspp::State;

/// Stripes of a stream.
const STRIPES: u64 = 8;

/// What a stripe takes beyond its share of the stream, in percent: headers and hashes.
const OVERHEAD: u64 = 108;

/// Stripes that are granted at the beginning, and at most.
const FIRST: f32 = 3.0;
const MOST: f32 = 96.0;

/// How much more is tried at a time, and how often at most.
const MORE: f32 = 1.25;
const MORE_APART: Duration = Duration::from_millis(500);

/// A queue shorter than this is none; one longer than this is our own if all see it.
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_millis(130);

/// Lost chunks, in percent: below, more may be tried; above, less.
const LOSS_LITTLE: u64 = 8;
const LOSS_MUCH: u64 = 15;

/// What is kept of what was acknowledged when there is too much.
const LESS: f32 = 0.85;

/// How long nothing more is tried after that.
const CALM: Duration = Duration::from_secs(4);

/// How far the pace of a limit may be ahead.
const BURST: Duration = Duration::from_millis(100);

/// How one neighbour that is fed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its link.
    pub key: Key,
    /// How long what is sent to it waits on its way, if that is known.
    pub queueing: Option<Duration>,
    /// Chunks that were acknowledged and that were lost since it was last told.
    pub acked: u64,
    /// Lost chunks.
    pub lost: u64,
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
    calm_until: Mono,
    /// When what was sent will have passed at the limit.
    passed: Mono,
}

impl Upload {
    /// Nothing is promised. `limit`: the user's, in bits per second; `bitrate`: the stream's.
    #[must_use]
    pub fn new(limit: Option<u64>, bitrate: u64) -> Upload {
        let stripe = (bitrate * OVERHEAD / 100 / STRIPES).max(1);
        let slots = limit.map_or(FIRST, |limit| (limit as f32 / stripe as f32).min(MOST));
        let never = Mono::ZERO;
        Upload {
            limit,
            stripe,
            slots,
            grants: BTreeMap::new(),
            looked_at: never,
            tried_at: never,
            calm_until: never,
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

    /// A link has ended.
    pub fn remove(&mut self, key: Key) {
        self.grants.remove(&key.0);
    }

    /// Looks at how all who are fed do; some hundreds of milliseconds after the last time. Then
    /// [`Upload::grant`] may say less than before.
    pub fn observe(&mut self, now: Mono, children: &[Child]) {
        let took = now.since(self.looked_at).max(Duration::from_millis(1));
        self.looked_at = now;
        let used = self.used();
        let [acked, lost] = children
            .iter()
            .fold([0, 0], |[acked, lost], child| [acked + child.acked, lost + child.lost]);
        let sent = acked + lost;
        let least = children.iter().filter_map(|child| child.queueing).min();
        let most = children.iter().filter_map(|child| child.queueing).max();
        let losses = if sent < 20 { 0 } else { lost * 100 / sent };
        if self.limit.is_some() || used == 0 {
            return;
        }
        let own = children.len() > 1 || least.is_some_and(|queue| queue > 2 * LONG);
        let long = own && least.is_some_and(|queue| queue > LONG);
        if (long || losses > LOSS_MUCH) && now >= self.calm_until {
            let rate = acked as f32 * 1_316.0 * 8.0 * OVERHEAD as f32 / 100.0;
            let carried = rate / took.as_secs_f32() / self.stripe as f32;
            self.slots = (carried.min(used as f32) * LESS).max(0.0);
            self.calm_until = now + CALM;
            self.take_back();
            return;
        }
        let calm = most.is_none_or(|queue| queue < SHORT) && losses < LOSS_LITTLE;
        let full = used as f32 + 1.0 > self.slots * 0.75;
        if calm && full && now >= self.calm_until && now.since(self.tried_at) >= MORE_APART {
            self.tried_at = now;
            self.slots = (self.slots * MORE).max(self.slots + 1.0).min(MOST);
        }
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

    /// When more may be sent; `None`: there is no limit.
    #[must_use]
    pub fn ready(&self) -> Option<Mono> {
        self.limit.map(|limit| match limit {
            0 => Mono::from_nanos(u64::MAX),
            _ => self.passed - BURST,
        })
    }

    /// Bytes were sent.
    pub fn sent(&mut self, now: Mono, bytes: u64) {
        if let Some(limit) = self.limit.filter(|limit| *limit > 0) {
            let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(limit);
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.passed = self.passed.max(now) + Duration::from_nanos(nanos);
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
            room_kbit: kbit(self.free()),
            play_chunk,
            buffer_ms: u16::try_from(buffer.as_millis()).unwrap_or(u16::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(key: u16, queue: u64, acked: u64, lost: u64) -> Child {
        Child { key: Key(key), queueing: Some(Duration::from_millis(queue)), acked, lost }
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(10_000 + millis)
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
        assert_eq!(upload.ready(), Some(at(2_000 - 100)));
        let mut none = Upload::new(Some(0), 2_000_000);
        assert_eq!((none.grant(Key(1), 0xff), none.state(0, Duration::ZERO).upload_kbit), (0, 0));
        assert!(none.ready().is_some_and(|ready| ready > at(1 << 40)));
    }

    #[test]
    fn more_is_tried_while_nobody_waits_and_taken_back_when_all_do() {
        let mut upload = Upload::new(None, 2_000_000);
        let mut granted = 0;
        for step in 0..20 {
            granted = (1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum();
            let children: Vec<_> = (1..=4).map(|key| child(key, 10, 100, 1)).collect();
            upload.observe(at(step * 500), &children);
        }
        assert_eq!(granted, 32, "everything that was asked for");
        // One slow neighbour is its own affair.
        let mut children: Vec<_> = (1..=4).map(|key| child(key, 10, 100, 1)).collect();
        children[0] = child(1, 900, 10, 0);
        upload.observe(at(10_500), &children);
        assert_eq!((1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum::<u32>(), 32);
        // 100 chunks in half a second are seven stripes of 270 kbit/s.
        let children: Vec<_> = (1..=4).map(|key| child(key, 300, 25, 0)).collect();
        upload.observe(at(11_000), &children);
        let left: u32 = (1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum();
        assert!((5..9).contains(&left), "{left}");
        upload.observe(at(11_500), &children);
        let again: u32 = (1..=4).map(|key| upload.grant(Key(key), 0xff).count_ones()).sum();
        assert_eq!(again, left, "what was taken back is not granted again, nor all at once less");
        let fewer = upload.grant(Key(1), 0) as u32;
        assert_eq!((fewer, upload.grant(Key(5), 1)), (0, u8::from(left > 0)), "room for others");
    }
}
