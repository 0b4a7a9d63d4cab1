//! Those of each stripe whom the relay feeds for good: strong ones, and others in each stripe.

use crate::swarm::controller::plan::forest::{Forest, bits};
use crate::swarm::realm::Realm;
use crate::swarm::stripes::STRIPES;

/// Peers of each stripe that the relay feeds, besides one of so many.
const ROOTS: u32 = 3;
const PEERS_PER_ROOT: u32 = 25;

/// Roots that are chosen in one step, in each stripe.
const CHOSEN_MAX: u32 = 8;

/// What speaks against a root besides the time it takes, in milliseconds: that it can feed hardly
/// anybody; that it is one in another stripe already; that it has a parent.
const WEAK: u32 = 5_000;
const TWICE: u32 = 200;
const FED: u32 = 100;

/// How much better than the worst root, in milliseconds, another must be to take its place, and
/// in how many steps that is looked at once.
const MUCH: u32 = 300;
const REPLACED_EVERY: u64 = 20;

/// How many of so many peers the relay shall feed in each stripe.
pub(super) const fn copies(peers: u32) -> u32 {
    let copies = ROOTS + peers / PEERS_PER_ROOT;
    // The more of so few would not be fed by others anyway.
    let half = peers.div_ceil(2);
    if copies < half { copies } else { half }
}

impl Forest {
    /// Sees that each stripe has so many roots, as far as there are peers that can feed
    /// somebody.
    pub(super) fn choose_roots(&mut self, turn: u64, copies: u32, share: u16) {
        let mut missing = [copies; STRIPES];
        for (_, seat) in &self.order {
            let seat = &mut self.seats[*seat as usize];
            // Who can feed nobody any more is fed like others.
            if seat.slots == 0 {
                seat.root = 0;
            }
            bits(seat.root).for_each(|stripe| missing[stripe] = missing[stripe].saturating_sub(1));
        }
        let realms = self.realms();
        // One of each stripe in turn, for the best are wanted by all.
        for _ in 0..CHOSEN_MAX {
            for (stripe, missing) in missing.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
                match self.best(stripe, share, &realms) {
                    Some((_, best)) => self.crown(stripe, best),
                    None => *missing = 0,
                }
                *missing = missing.saturating_sub(1);
            }
        }
        // In a step one stripe at most, and that not always.
        let stripe = (turn % REPLACED_EVERY) as usize;
        if stripe < STRIPES && missing[stripe] == 0 {
            self.replace(stripe, copies, share, &realms);
        }
    }

    fn crown(&mut self, stripe: usize, at: u32) {
        self.detach(stripe, at);
        self.seat_mut(at).root |= 1 << stripe;
    }

    /// Lets a root be fed like others: of too many the one that feeds fewest, otherwise the
    /// worst, if there is a much better one to take its place.
    fn replace(&mut self, stripe: usize, copies: u32, share: u16, realms: &[(Realm, u32)]) {
        let seats = self.order.iter().map(|(_, at)| *at);
        let roots = seats.filter(|at| self.seat(*at).root >> stripe & 1 != 0);
        let roots: Vec<u32> = roots.collect();
        let dismissed = if roots.len() > copies as usize {
            roots.into_iter().min_by_key(|at| (self.branch(stripe, *at).children, *at))
        } else {
            let paces = roots.into_iter().map(|at| (self.pace(at), at));
            let best = self.best(stripe, share, realms);
            let Some(((pace, worst), (cost, best))) = paces.max().zip(best) else { return };
            if cost + MUCH >= pace {
                return;
            }
            self.crown(stripe, best);
            Some(worst)
        };
        if let Some(at) = dismissed {
            self.seat_mut(at).root &= !(1 << stripe);
        }
    }

    /// The best peer to become a root, and what speaks against it.
    fn best(&self, stripe: usize, share: u16, realms: &[(Realm, u32)]) -> Option<(u32, u32)> {
        let seats = self.order.iter().map(|(_, at)| *at);
        seats.filter_map(|at| Some((self.root_cost(stripe, at, share, realms)?, at))).min()
    }

    /// What speaks against a root: the time that it takes.
    fn pace(&self, at: u32) -> u32 {
        let seat = self.seat(at);
        seat.slowness().saturating_add(seat.rtt)
    }

    /// What speaks against a peer as a root; `None` if it can be none.
    fn root_cost(
        &self,
        stripe: usize,
        at: u32,
        share: u16,
        realms: &[(Realm, u32)],
    ) -> Option<u32> {
        let seat = self.seat(at);
        let bit = 1 << stripe;
        let children = seat.branches[stripe].children;
        if seat.root & bit != 0 || seat.free() + children == 0 {
            return None;
        }
        let others = realms.iter().find(|(realm, _)| *realm == seat.realm).map_or(0, |(_, n)| *n);
        let free = children + seat.free().saturating_sub(seat.reserve(None, share));
        let free = u32::from(free).min(others.saturating_sub(1));
        let weak = if free < u32::from(share / 2).max(1) { WEAK } else { 0 };
        let fed = if seat.fed & bit != 0 { FED } else { 0 };
        Some(self.pace(at).saturating_add(weak + fed + TWICE * seat.root.count_ones()))
    }

    /// How many peers are in each realm.
    fn realms(&self) -> Vec<(Realm, u32)> {
        let mut realms: Vec<(Realm, u32)> = Vec::new();
        for (_, seat) in &self.order {
            let realm = self.seat(*seat).realm;
            match realms.iter_mut().find(|(known, _)| *known == realm) {
                Some((_, count)) => *count += 1,
                None => realms.push((realm, 1)),
            }
        }
        realms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_feeds_few_of_many() {
        let peers = [0, 1, 2, 3, 4, 5, 6, 8, 60, 100, 1_000, 16_384];
        assert_eq!(peers.map(copies), [0, 1, 1, 2, 2, 3, 3, 3, 5, 7, 43, 658]);
    }
}
