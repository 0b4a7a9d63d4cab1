//! Peers that do as planned, as far as they can, and complain as real ones do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use crate::swarm::controller::{INTERVAL, mix};

pub(super) const BITRATE: u64 = 4_000_000;

/// What one stripe takes, in kbit/s.
pub(super) const STRIPE: u32 = 540;

/// How long a link takes to begin, and how long it is missed before the relay is asked.
const BEGIN: Duration = Duration::from_millis(500);
const MISSED: Duration = Duration::from_millis(300);

/// Uploads in hundredths of the bitrate as in the simulator: points of the quantile function, in
/// thousandths of the peers.
const UPLOAD: [(u64, u64); 4] = [(0, 0), (200, 0), (201, 50), (1_000, 325)];

/// What one stripe is to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) parent: u32,
    planned: Mono,
    /// Whether it came through the parent in the last turn, and since when that is so.
    pub(super) comes: bool,
    since: Mono,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) said: u32,
    pub(super) carries: u32,
    pub(super) rtt: u64,
    pub(super) came: Mono,
    pub(super) strict: bool,
    pub(super) relayed: u8,
    pub(super) feeds: [Feed; STRIPES],
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Mono,
    pub(super) planner: Planner,
    pub(super) peers: BTreeMap<u32, Peer>,
    pub(super) plan: Plan,
    /// Of peers that are there: changes of parents.
    pub(super) changes: u64,
    dice: u64,
    next: u32,
}

impl World {
    pub(super) fn new() -> World {
        World {
            now: Mono::from_millis(1_000_000),
            planner: Planner::default(),
            peers: BTreeMap::new(),
            plan: Plan::default(),
            changes: 0,
            dice: 1,
            next: 0,
        }
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.dice = mix(self.dice);
        self.dice % end
    }

    /// A peer comes that carries so much and says so.
    pub(super) fn come(&mut self, kbit: u32) -> u32 {
        self.next += 1;
        let channel = 1 << 31 | (mix(self.next.into()) as u32 & 0x7fff_ff00);
        let feed = Feed { parent: 0, planned: self.now, comes: false, since: self.now };
        let peer = Peer {
            said: kbit,
            carries: kbit,
            rtt: 10 + self.below(120),
            came: self.now,
            strict: false,
            relayed: u8::MAX,
            feeds: [feed; STRIPES],
        };
        assert!(self.peers.insert(channel, peer).is_none());
        channel
    }

    /// A peer with a line as in the simulator, of which it says 85 %.
    pub(super) fn come_at_random(&mut self) -> u32 {
        let part = self.below(1_000);
        let at = UPLOAD.iter().position(|(to, _)| part < *to).unwrap();
        let ((from, low), (to, high)) = (UPLOAD[at - 1], UPLOAD[at]);
        let hundredths = low + (high - low) * (part - from) / (to - from);
        let kbit = BITRATE / 1_000 * hundredths / 100 * 85 / 100;
        self.come(kbit as u32)
    }

    fn members(&self) -> Vec<Member> {
        let of = |(channel, peer): (&u32, &Peer)| Member {
            channel: *channel,
            id: *channel,
            address: ([192, 0, 2, 1], (*channel >> 8) as u16 | 1).into(),
            upload_kbit: peer.said,
            rtt: Duration::from_millis(peer.rtt),
            relayed: peer.relayed,
            age: self.now.since(peer.came),
        };
        self.peers.iter().map(of).collect()
    }

    /// A quarter of a second passes.
    pub(super) fn turn(&mut self) {
        self.now = self.now + INTERVAL;
        self.plan = self.planner.step(self.now, &self.members(), BITRATE);
        for row in self.plan.rows() {
            let peer = self.peers.get_mut(&row.channel).unwrap();
            for (feed, parent) in peer.feeds.iter_mut().zip(row.parents) {
                if feed.parent != parent {
                    (feed.parent, feed.planned) = (parent, self.now);
                    self.changes += 1;
                }
            }
        }
        self.flow();
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        (0..seconds * 4).for_each(|_| self.turn());
    }

    /// Which links carry anything: of those of one parent the oldest, as many as it can.
    fn links(&self) -> BTreeMap<(u32, usize), bool> {
        let mut asked: BTreeMap<u32, Vec<(Mono, u32, usize)>> = BTreeMap::new();
        for (channel, peer) in &self.peers {
            for (stripe, feed) in peer.feeds.iter().enumerate().filter(|(_, feed)| feed.parent != 0)
            {
                let above = self.peers.get(&feed.parent);
                if above.is_some_and(|above| !(above.strict && peer.strict)) {
                    asked.entry(feed.parent).or_default().push((feed.planned, *channel, stripe));
                }
            }
        }
        let mut links = BTreeMap::new();
        for (parent, mut children) in asked {
            children.sort_unstable();
            let carries = (self.peers[&parent].carries / STRIPE) as usize;
            for (at, (planned, child, stripe)) in children.into_iter().enumerate() {
                let opened = self.now.since(planned) >= BEGIN;
                links.insert((child, stripe), at < carries && opened);
            }
        }
        links
    }

    /// Lets the stream flow, and everybody see what comes.
    fn flow(&mut self) {
        let links = self.links();
        let mut has: BTreeMap<u32, u8> =
            self.peers.iter().map(|(at, peer)| (*at, peer.relayed)).collect();
        let mut more = true;
        while more {
            more = false;
            for (channel, peer) in &self.peers {
                for (stripe, feed) in peer.feeds.iter().enumerate() {
                    let above = has.get(&feed.parent).is_some_and(|has| has >> stripe & 1 != 0);
                    let link = links.get(&(*channel, stripe)).is_some_and(|link| *link);
                    let own = has.get_mut(channel).unwrap();
                    if above && link && *own >> stripe & 1 == 0 {
                        *own |= 1 << stripe;
                        more = true;
                    }
                }
            }
        }
        for (channel, peer) in &mut self.peers {
            for (stripe, feed) in peer.feeds.iter_mut().enumerate() {
                let above = has.get(&feed.parent).is_some_and(|has| has >> stripe & 1 != 0);
                let comes = above && links.get(&(*channel, stripe)).is_some_and(|link| *link);
                if comes != feed.comes {
                    (feed.comes, feed.since) = (comes, self.now);
                }
                let bit = 1 << stripe;
                if comes {
                    peer.relayed &= !bit;
                } else if feed.parent == 0 || self.now.since(feed.since) >= MISSED {
                    peer.relayed |= bit;
                }
            }
        }
    }

    /// The part of all stripes that the relay is asked for.
    pub(super) fn relayed(&self) -> f64 {
        let asked: u32 = self.peers.values().map(|peer| peer.relayed.count_ones()).sum();
        f64::from(asked) / (self.peers.len() * STRIPES) as f64
    }

    /// How many the plan leaves to the relay in each stripe.
    pub(super) fn left(&self) -> [usize; STRIPES] {
        std::array::from_fn(|stripe| {
            self.plan.rows().iter().filter(|row| row.parents[stripe] == 0).count()
        })
    }

    /// Sees that nobody feeds more than it says, and nobody itself; returns the greatest depth.
    pub(super) fn check(&self) -> usize {
        let mut used: BTreeMap<u32, u32> = BTreeMap::new();
        let mut deepest = 0;
        for row in self.plan.rows() {
            for (stripe, parent) in row.parents.iter().enumerate() {
                let (mut at, mut depth) = (*parent, 1);
                if at != 0 {
                    *used.entry(at).or_default() += 1;
                }
                while at != 0 {
                    depth += 1;
                    assert!(depth <= 12 && at != row.channel, "a circle, or too deep");
                    at = self.plan.get(at).unwrap().parents[stripe];
                }
                deepest = deepest.max(depth);
            }
        }
        for (channel, used) in used {
            let said = self.peers[&channel].said;
            assert!(used <= (said * 95 / 100 / STRIPE).min(96), "{used} of {said}");
        }
        deepest
    }

    /// So many leave in a second of a million, and as many come.
    pub(super) fn churn(&mut self, ppm: u64) {
        let channels: Vec<u32> = self.peers.keys().copied().collect();
        for channel in channels {
            if self.below(1_000_000) < ppm / 4 {
                self.peers.remove(&channel);
                self.come_at_random();
            }
        }
    }
}
