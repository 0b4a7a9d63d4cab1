//! Peers that do as planned, as far as they can, and complain as real ones do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use crate::swarm::controller::{INTERVAL, mix};

pub(super) const BITRATE: u64 = 2_000_000;

/// What one stripe takes, in kbit/s.
pub(super) const STRIPE: u32 = 270;

/// How long a link takes to begin, and how long it is missed before the relay is asked.
const BEGIN: Duration = Duration::from_millis(500);
const MISSED: Duration = Duration::from_millis(300);

/// Points of a quantile function: thousandths of the peers, and a value.
type Quantiles = &'static [(u64, u64)];

/// As in the simulator: uploads in hundredths of the bitrate, delays in microseconds.
const UPLOAD: Quantiles = &[(0, 0), (200, 0), (201, 50), (1_000, 325)];
const DELAY: Quantiles =
    &[(0, 5_000), (250, 20_000), (500, 40_000), (900, 90_000), (990, 180_000), (1_000, 250_000)];

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
    /// Behind a NAT through which no other of this kind can be reached.
    pub(super) strict: bool,
    pub(super) realm: u8,
    pub(super) relayed: u8,
    pub(super) feeds: [Feed; STRIPES],
}

impl Peer {
    /// Links that it carries as it says.
    fn slots(&self) -> u32 {
        (self.said * 95 / 100 / STRIPE).min(48)
    }
}

/// Where a peer is, in one of three realms.
pub(super) fn address(channel: u32, realm: u8) -> SocketAddr {
    let [_, high, middle, low] = (channel >> 8).to_be_bytes();
    let port = 1_024 + u16::from(high);
    match realm {
        0 => ([198, 51, middle, low], port).into(),
        1 => ([10, 51, middle, low], port).into(),
        _ => ([0x2001, 0xdb8, 0, 0, 0, 0, middle.into(), low.into()], port).into(),
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Mono,
    pub(super) planner: Planner,
    pub(super) peers: BTreeMap<u32, Peer>,
    pub(super) plan: Plan,
    /// Changes of parents, of all peers.
    pub(super) changes: u64,
    /// Nothing comes in at the relay.
    pub(super) dry: bool,
    dice: u64,
    pub(super) next: u32,
}

impl World {
    pub(super) fn new() -> World {
        World {
            now: Mono::from_millis(1_000_000),
            planner: Planner::default(),
            peers: BTreeMap::new(),
            plan: Plan::default(),
            changes: 0,
            dry: false,
            dice: 1,
            next: 0,
        }
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.dice = mix(self.dice);
        self.dice % end
    }

    fn draw(&mut self, quantiles: Quantiles) -> u64 {
        let part = self.below(1_000);
        let at = quantiles.iter().position(|(to, _)| part < *to).unwrap();
        let ((from, low), (to, high)) = (quantiles[at - 1], quantiles[at]);
        low + (high - low) * (part - from) / (to - from)
    }

    /// A peer comes that carries so many links and says so.
    pub(super) fn come(&mut self, links: u32) -> u32 {
        self.come_with(links * STRIPE * 100 / 95 + 2)
    }

    fn come_with(&mut self, kbit: u32) -> u32 {
        self.next += 1;
        let channel = 1 << 31 | (self.next.wrapping_mul(0x9e37_79b1) & 0x7f_ffff) << 8;
        let feed = Feed { parent: 0, planned: self.now, comes: false, since: self.now };
        let peer = Peer {
            said: kbit,
            carries: kbit,
            rtt: self.draw(DELAY) * 2 / 1_000,
            came: self.now,
            strict: false,
            realm: 0,
            relayed: u8::MAX,
            feeds: [feed; STRIPES],
        };
        assert!(self.peers.insert(channel, peer).is_none());
        channel
    }

    /// A peer with a line as in the simulator, of which it says 85 %.
    pub(super) fn come_at_random(&mut self) -> u32 {
        let kbit = BITRATE / 1_000 * self.draw(UPLOAD) / 100 * 85 / 100;
        self.come_with(kbit as u32)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let of = |(channel, peer): (&u32, &Peer)| Member {
            channel: *channel,
            address: address(*channel, peer.realm),
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

    /// Who feeds whom, by their places in the order of channels, if the link carries anything: of
    /// those of one parent the oldest do, as many as it can.
    fn links(&self, channels: &[u32]) -> Vec<[Option<usize>; STRIPES]> {
        let mut asked = vec![Vec::new(); channels.len()];
        for (at, peer) in self.peers.values().enumerate() {
            for (stripe, feed) in peer.feeds.iter().enumerate().filter(|(_, feed)| feed.parent != 0)
            {
                let Ok(parent) = channels.binary_search(&feed.parent) else { continue };
                asked[parent].push((feed.planned, at, stripe));
            }
        }
        let peers: Vec<&Peer> = self.peers.values().collect();
        let mut links = vec![[None; STRIPES]; channels.len()];
        for (parent, mut children) in asked.into_iter().enumerate() {
            let above = peers[parent];
            children.retain(|(_, child, _)| !(above.strict && peers[*child].strict));
            children.sort_unstable();
            for (planned, child, stripe) in
                children.into_iter().take((above.carries / STRIPE) as usize)
            {
                let opened = self.now.since(planned) >= BEGIN;
                links[child][stripe] = Some(parent).filter(|_| opened);
            }
        }
        links
    }

    /// Lets the stream flow, and everybody see what comes.
    fn flow(&mut self) {
        let channels: Vec<u32> = self.peers.keys().copied().collect();
        let links = self.links(&channels);
        let own = |peer: &Peer| if self.dry { 0 } else { peer.relayed };
        let mut has: Vec<u8> = self.peers.values().map(own).collect();
        let comes = |links: &[Option<usize>; STRIPES], has: &[u8]| {
            let bit = |stripe: usize| links[stripe].map_or(0, |parent| has[parent] & 1 << stripe);
            (0..STRIPES).fold(0, |all, stripe| all | bit(stripe))
        };
        let mut more = true;
        while more {
            more = false;
            for (at, links) in links.iter().enumerate() {
                let now = has[at] | comes(links, &has);
                more |= now != has[at];
                has[at] = now;
            }
        }
        for (peer, links) in self.peers.values_mut().zip(links) {
            let got = comes(&links, &has);
            for (stripe, feed) in peer.feeds.iter_mut().enumerate() {
                let bit = 1 << stripe;
                if (got & bit != 0) != feed.comes {
                    (feed.comes, feed.since) = (got & bit != 0, self.now);
                }
                if feed.comes {
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

    /// Sees that nobody feeds more than it says, and nobody itself, and that no tree is too deep;
    /// returns the greatest depth.
    pub(super) fn check(&self) -> usize {
        let deepest = self.check_links();
        assert!(deepest <= 12, "too deep");
        deepest
    }

    /// The same, however deep the trees are.
    pub(super) fn check_links(&self) -> usize {
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
                    assert!(depth <= self.peers.len() && at != row.channel, "a circle");
                    at = self.plan.get(at).unwrap().parents[stripe];
                }
                deepest = deepest.max(depth);
            }
        }
        for (channel, used) in used {
            let slots = self.peers[&channel].slots();
            assert!(used <= slots, "{used} of {slots}");
        }
        deepest
    }

    /// Links that all carry together, as they say.
    pub(super) fn capacity(&self) -> usize {
        self.peers.values().map(|peer| peer.slots() as usize).sum()
    }

    /// How many links the plan gives a peer, and how many of them carry something.
    pub(super) fn children(&self, parent: u32) -> (usize, usize) {
        let feeds = self.peers.values().flat_map(|peer| peer.feeds);
        let own: Vec<Feed> = feeds.filter(|feed| feed.parent == parent).collect();
        (own.len(), own.iter().filter(|feed| feed.comes).count())
    }

    /// Hops from the relay of everybody in each stripe, and delay, as the planner sees them.
    pub(super) fn depths(&self) -> impl Iterator<Item = (u8, u32)> {
        let forest = &self.planner.forest;
        let seats = forest.order.iter().map(|(_, seat)| forest.seat(*seat));
        seats.flat_map(|seat| seat.branches).map(|branch| (branch.depth, branch.arrival))
    }

    /// The mean delay, the longest, and the greatest depth.
    pub(super) fn delays(&self) -> (u32, u32, u8) {
        let mean = self.depths().map(|(_, late)| u64::from(late)).sum::<u64>();
        let latest = self.depths().map(|(_, late)| late).max().unwrap_or(0);
        let deepest = self.depths().map(|(deep, _)| deep).max().unwrap_or(0);
        ((mean / self.depths().count().max(1) as u64) as u32, latest, deepest)
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
