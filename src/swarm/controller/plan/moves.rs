//! Trees that have grown badly are put right, one peer at a time.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::plan::forest::Forest;
use crate::swarm::controller::plan::orphans::Matching;
use crate::swarm::stripes::STRIPES;

/// Peers that are looked at in one step.
const WINDOW: usize = 128;

/// Nobody is moved twice in so long.
const APART: Duration = Duration::from_secs(20);

/// Hops from the relay beyond which a peer is moved, and how much sooner it must have the stripe
/// afterwards otherwise, in milliseconds.
const DEEP: u8 = 6;
const BETTER: u32 = 200;

impl Forest {
    /// Whether all that a peer is to have comes from its parents, and has for long.
    fn is_settled(&self, now: Mono, stripe: usize, at: u32) -> bool {
        let seat = self.seat(at);
        let bit = 1 << stripe;
        seat.fed & bit != 0
            && seat.fed | seat.root == u8::MAX
            && seat.delivered & !seat.relayed == seat.fed
            && now.since(seat.branches[stripe].planned) >= APART
            && seat.moved.is_none_or(|moved| now.since(moved) >= APART)
    }
}

impl Matching<'_> {
    /// Moves the peer that has most need of it among some, in one stripe.
    pub(super) fn improve(&mut self, now: Mono, turn: u64) {
        let peers = self.forest.order.len();
        if peers == 0 {
            return;
        }
        // Another stripe each time, and all stripes before the next peers.
        let stripe = (turn % STRIPES as u64) as usize;
        let from = (turn as usize / STRIPES).wrapping_mul(WINDOW) % peers;
        let window = (0..WINDOW.min(peers)).map(|n| self.forest.order[(from + n) % peers].1);
        let settled = window.filter(|at| self.forest.is_settled(now, stripe, *at));
        let worst = settled.max_by_key(|at| {
            let branch = self.forest.branch(stripe, *at);
            (branch.depth > DEEP, branch.arrival, *at)
        });
        let Some(child) = worst else { return };
        let branch = *self.forest.branch(stripe, child);
        // Nobody is nearer than a child of a root.
        if branch.depth <= DEEP && branch.arrival <= BETTER {
            return;
        }
        let Some(parent) = self.find(stripe, child) else { return };
        let arrival = self.forest.arrival_from(stripe, parent, self.forest.seat(child).rtt);
        let higher = self.forest.branch(stripe, parent).depth + 1 < branch.depth;
        let sooner = arrival + BETTER < branch.arrival || branch.depth > DEEP && higher;
        let parents = self.forest.seat(parent);
        let root = parents.root >> stripe & 1 != 0 || parents.fed >> stripe & 1 != 0;
        if sooner && root && parents.is_sure_of(stripe) {
            self.give(stripe, child, parent);
            self.forest.seat_mut(child).moved = Some(now);
        }
    }
}
