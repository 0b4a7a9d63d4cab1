//! Openings that were answered and not yet confirmed.
//!
//! The attack: a flood of opening handshakes from forged addresses. Each one makes us remember
//! something, because the initiator's id is not echoed in what it sends next: a cookie without
//! state, as trackers use, is impossible here (RFC 7574, 3.1.1). So the table is bounded: 40
//! bytes per opening, 4,096 of them, three seconds, the oldest out. A flood of 100,000 openings
//! a second leaves an honest one 40 ms to confirm, and it tries again for as long as it likes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::base::ids::StreamSlot;
use crate::base::planted::{Plant, is};
use crate::base::time::Mono;

/// The most openings that are remembered.
pub const OPENINGS_MAX: usize = 4_096;

/// How long each is.
pub const LIFETIME: Duration = Duration::from_secs(3);

/// One opening that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    ip: Ipv6Addr,
    port: u16,
    /// What the other end announced that is needed later.
    pub extras: u16,
    /// The other end's id.
    pub theirs: u32,
    /// Ours; 0 once it was taken out.
    ours: u32,
    /// The stream.
    pub stream: StreamSlot,
    until: Mono,
}

const _: () = assert!(size_of::<Opening>() == 40, "4,096 openings are 160 KiB");

impl Opening {
    /// Whether it came from that address.
    #[must_use]
    pub fn is_from(&self, from: SocketAddr) -> bool {
        self.ip == mapped(from.ip()) && self.port == from.port()
    }

    /// How long after it was answered, or answered first, `now` is: for who confirms, a round
    /// trip, unless that answer was lost.
    #[must_use]
    pub fn age(&self, now: Mono) -> Duration {
        LIFETIME.saturating_sub(self.until.since(now))
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The openings of one shard. All live equally long, so the first is always the oldest.
#[derive(Debug, Default)]
pub struct HalfOpen {
    openings: VecDeque<Opening>,
    /// Number of the first opening, counted from the beginning.
    first: u64,
    /// Numbers of openings by our id.
    numbers: HashMap<u32, u64>,
}

impl HalfOpen {
    /// Remembers an opening whose id `ours` is not in the table. Returns whether the oldest
    /// had to make room.
    pub fn insert(
        &mut self,
        now: Mono,
        from: SocketAddr,
        [ours, theirs]: [u32; 2],
        stream: StreamSlot,
        extras: u16,
    ) -> bool {
        self.expire(now);
        let full = self.openings.len() == OPENINGS_MAX && !is(Plant::KeepOpenings);
        if full {
            self.drop_first();
        }
        self.numbers.insert(ours, self.first + self.openings.len() as u64);
        let (ip, port, until) = (mapped(from.ip()), from.port(), now + LIFETIME);
        self.openings.push_back(Opening { ip, port, extras, theirs, ours, stream, until });
        full
    }

    /// The opening that was answered with the id `ours`.
    #[must_use]
    pub fn get(&self, now: Mono, ours: u32) -> Option<&Opening> {
        let place = self.place(ours)?;
        self.openings.get(place).filter(|opening| now < opening.until)
    }

    /// Takes an opening out: it was confirmed, or refused.
    pub fn take(&mut self, now: Mono, ours: u32) -> Option<Opening> {
        let opening = *self.get(now, ours)?;
        let place = self.place(ours)?;
        self.numbers.remove(&ours);
        self.openings.get_mut(place)?.ours = 0;
        Some(opening)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Mono) {
        if is(Plant::KeepOpenings) {
            return;
        }
        while self.openings.front().is_some_and(|first| first.ours == 0 || first.until <= now) {
            self.drop_first();
        }
    }

    fn place(&self, ours: u32) -> Option<usize> {
        let number = self.numbers.get(&ours)?;
        usize::try_from(number - self.first).ok()
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.openings.pop_front() {
            self.first += 1;
            if first.ours != 0 {
                self.numbers.remove(&first.ours);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn open(table: &mut HalfOpen, now: Mono, ours: u32) -> bool {
        table.insert(now, from(5), [ours, 9], StreamSlot(3), 0x55)
    }

    #[test]
    fn an_opening_is_confirmed_once_and_in_time() {
        let (mut table, now) = (HalfOpen::default(), Mono::from_millis(10));
        open(&mut table, now, 1);
        open(&mut table, now, 2);
        let opening = table.take(now, 1).unwrap();
        assert!(opening.is_from(from(5)) && !opening.is_from(from(6)));
        assert_eq!(opening.age(now + Duration::from_millis(70)), Duration::from_millis(70));
        assert_eq!((opening.theirs, opening.stream, opening.extras), (9, StreamSlot(3), 0x55));
        assert_eq!(table.take(now, 1), None);
        assert_eq!(table.take(now, 3), None);
        assert!(table.get(now + LIFETIME, 2).is_none() && table.len() == 1);
        table.expire(now + LIFETIME);
        assert!(table.is_empty() && table.openings.is_empty());
    }

    #[test]
    fn a_flood_pushes_the_oldest_out_and_memory_stays() {
        let (mut table, now) = (HalfOpen::default(), Mono::from_millis(10));
        let evicted = (1..=OPENINGS_MAX as u32 + 10).filter(|id| open(&mut table, now, *id));
        assert_eq!(evicted.count(), 10);
        assert_eq!(table.len(), OPENINGS_MAX);
        assert!(table.get(now, 10).is_none() && table.get(now, 11).is_some());
        // Taken out in the middle: their places go when they are the oldest.
        (20..3_000).for_each(|id| assert!(table.take(now, id).is_some()));
        let evicted = (10_000..14_000).filter(|id| open(&mut table, now, *id)).count();
        assert_eq!(table.openings.len(), OPENINGS_MAX);
        assert!(evicted > 0 && table.get(now, 13_999).is_some());
        assert_eq!(table.numbers.len(), table.len());
        assert!(open(&mut table, now, 20_000), "full");
        assert!(!open(&mut table, now + LIFETIME, 20_001), "all others are over");
        assert_eq!(table.len(), 1);
    }
}
