//! The trees: for each stripe, who feeds whom, how deep everybody is, and how late.
//!
//! Peers sit in a slab, so that a parent is a number; children are chained. What a peer is fed
//! by the relay it is the top of a tree of. Nothing here decides anything.

use crate::base::time::Mono;
use crate::swarm::controller::plan::seats::Seat;
use crate::swarm::stripes::STRIPES;

/// No seat: as a parent, the relay.
pub(super) const NONE: u32 = u32::MAX;

/// What passing on costs besides the way, in milliseconds.
const HOP: u32 = 20;

/// The place of one peer in the tree of one stripe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Branch {
    /// Who feeds it.
    pub(super) parent: u32,
    /// Its newest child; the next older and the next younger child of its parent.
    pub(super) first: u32,
    next: u32,
    before: u32,
    pub(super) children: u16,
    /// Which of its parent's children it is, the oldest being the first.
    rank: u16,
    /// Hops from the relay.
    pub(super) depth: u8,
    /// How long after the relay it has the stripe, in milliseconds, as an estimate.
    pub(super) arrival: u32,
    /// When it was given its parent.
    pub(super) planned: Mono,
    /// When it last began or ceased to ask the relay for the stripe.
    pub(super) turned: Mono,
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut set: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            bit
        })
    })
}

/// All trees.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) seats: Vec<Seat>,
    /// Seats that nobody has.
    pub(super) vacant: Vec<u32>,
    /// Channel and seat of all peers, by channel.
    pub(super) order: Vec<(u32, u32)>,
    /// How many have a parent in each stripe.
    fed: [u32; STRIPES],
    /// Complaints that were forgotten because of newer ones.
    pub(super) forgotten: u64,
}

impl Forest {
    pub(super) fn peers(&self) -> u32 {
        self.order.len() as u32
    }

    /// How many the relay feeds in a stripe.
    pub(super) fn relayed(&self, stripe: usize) -> u32 {
        self.peers().saturating_sub(self.fed[stripe])
    }

    pub(super) fn seat(&self, at: u32) -> &Seat {
        &self.seats[at as usize]
    }

    pub(super) fn seat_mut(&mut self, at: u32) -> &mut Seat {
        &mut self.seats[at as usize]
    }

    pub(super) fn branch(&self, stripe: usize, at: u32) -> &Branch {
        &self.seats[at as usize].branches[stripe]
    }

    fn branch_mut(&mut self, stripe: usize, at: u32) -> &mut Branch {
        &mut self.seats[at as usize].branches[stripe]
    }

    /// Gives a peer without parent one. The caller has seen that it is not below the peer.
    pub(super) fn attach(&mut self, now: Mono, stripe: usize, child: u32, parent: u32) {
        let channel = self.seat(parent).row.channel;
        let newest = self.branch(stripe, parent).first;
        if newest != NONE {
            self.branch_mut(stripe, newest).before = child;
        }
        let above = self.branch_mut(stripe, parent);
        above.first = child;
        above.children += 1;
        let rank = above.children;
        self.seat_mut(parent).used += 1;
        let seat = self.seat_mut(child);
        seat.row.parents[stripe] = channel;
        seat.fed |= 1 << stripe;
        seat.delivered &= !(1 << stripe);
        let branch = &mut seat.branches[stripe];
        (branch.parent, branch.next, branch.before) = (parent, newest, NONE);
        (branch.planned, branch.rank) = (now, rank);
        self.fed[stripe] += 1;
        self.measure(stripe, child);
    }

    /// Leaves a peer, with everything below it, to the relay.
    pub(super) fn detach(&mut self, stripe: usize, child: u32) {
        let Branch { parent, next, before, .. } = *self.branch(stripe, child);
        if parent == NONE {
            return;
        }
        if next != NONE {
            self.branch_mut(stripe, next).before = before;
        }
        match before {
            NONE => self.branch_mut(stripe, parent).first = next,
            before => self.branch_mut(stripe, before).next = next,
        }
        self.branch_mut(stripe, parent).children -= 1;
        self.seat_mut(parent).used -= 1;
        let seat = self.seat_mut(child);
        seat.row.parents[stripe] = 0;
        seat.fed &= !(1 << stripe);
        seat.delivered &= !(1 << stripe);
        let branch = &mut seat.branches[stripe];
        (branch.parent, branch.next, branch.before) = (NONE, NONE, NONE);
        self.fed[stripe] -= 1;
        self.measure(stripe, child);
    }

    /// How late a peer with such a round trip has the stripe as one of the children of another,
    /// which serves one after the other.
    pub(super) fn arrival_from(&self, stripe: usize, parent: u32, rtt: u32, rank: u16) -> u32 {
        let above = self.seat(parent);
        let served = above.train.saturating_mul(rank.into());
        let way = (above.rtt + rtt) / 2 + HOP;
        above.branches[stripe].arrival.saturating_add(served).saturating_add(way)
    }

    /// How late a peer would have it as one more child.
    pub(super) fn arrival_under(&self, stripe: usize, parent: u32, child: u32) -> u32 {
        let rank = self.branch(stripe, parent).children + 1;
        self.arrival_from(stripe, parent, self.seat(child).rtt, rank)
    }

    /// Reckons depth and delay anew, from a peer downwards.
    pub(super) fn measure(&mut self, stripe: usize, top: u32) {
        let mut at = Some(top);
        while let Some(here) = at {
            let rtt = self.seat(here).rtt;
            let Branch { parent, rank, next, .. } = *self.branch(stripe, here);
            let (depth, arrival) = match parent {
                NONE => (1, rtt / 2),
                parent => (
                    self.branch(stripe, parent).depth.saturating_add(1),
                    self.arrival_from(stripe, parent, rtt, rank),
                ),
            };
            let branch = self.branch_mut(stripe, here);
            (branch.depth, branch.arrival) = (depth, arrival);
            let Branch { first, children, .. } = *branch;
            if first != NONE {
                self.branch_mut(stripe, first).rank = children;
            }
            if here != top && next != NONE {
                self.branch_mut(stripe, next).rank = rank.saturating_sub(1).max(1);
            }
            at = self.after(stripe, top, here);
        }
    }

    /// Reckons the whole tree of a stripe anew: round trips change.
    pub(super) fn measure_all(&mut self, stripe: usize) {
        for at in 0..self.order.len() {
            let top = self.order[at].1;
            if self.branch(stripe, top).parent == NONE {
                self.measure(stripe, top);
            }
        }
    }

    /// The one behind `here` on a walk through everything below `top`: parents first.
    fn after(&self, stripe: usize, top: u32, mut here: u32) -> Option<u32> {
        let first = self.branch(stripe, here).first;
        if first != NONE {
            return Some(first);
        }
        while here != top {
            let Branch { next, parent, .. } = *self.branch(stripe, here);
            if next != NONE {
                return Some(next);
            }
            here = parent;
        }
        None
    }

    /// How many hops there are below a peer, and by how much those there are later, in
    /// milliseconds.
    pub(super) fn height(&self, stripe: usize, top: u32) -> (u8, u32) {
        let (own, mut at) = (self.branch(stripe, top), Some(top));
        let (mut deepest, mut latest) = (own.depth, own.arrival);
        while let Some(here) = at {
            let branch = self.branch(stripe, here);
            (deepest, latest) = (deepest.max(branch.depth), latest.max(branch.arrival));
            at = self.after(stripe, top, here);
        }
        (deepest - own.depth, latest - own.arrival)
    }

    /// Whether one peer is another or below it.
    pub(super) fn is_within(&self, stripe: usize, mut at: u32, top: u32) -> bool {
        while at != NONE {
            if at == top {
                return true;
            }
            at = self.branch(stripe, at).parent;
        }
        false
    }

    /// The children of a peer, the newest first.
    pub(super) fn children(&self, stripe: usize, parent: u32) -> impl Iterator<Item = u32> {
        let mut at = self.branch(stripe, parent).first;
        std::iter::from_fn(move || {
            let child = at;
            (child != NONE).then(|| {
                at = self.branch(stripe, child).next;
                child
            })
        })
    }
}

impl Branch {
    /// Of a peer that the relay feeds.
    pub(super) fn new(now: Mono, rtt: u32) -> Branch {
        Branch {
            parent: NONE,
            first: NONE,
            next: NONE,
            before: NONE,
            children: 0,
            rank: 0,
            depth: 1,
            arrival: rtt / 2,
            planned: now,
            turned: now,
        }
    }
}
