//! Those of each stripe whom the relay feeds for good: strong ones, and others in each stripe.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::swarm::controller::mix;
use crate::swarm::controller::plan::forest::{Forest, bits};
use crate::swarm::realm::Realm;
use crate::swarm::stripes::STRIPES;

/// Peers of each stripe that the relay feeds, besides one of so many.
const ROOTS: u32 = 3;
const PEERS_PER_ROOT: u32 = 100;

/// What speaks against a root besides the time it takes, in milliseconds: that it can feed hardly
/// anybody; that it is one in another stripe already.
const WEAK: u32 = 5_000;
const TWICE: u32 = 200;

/// In so many steps at most one root of each stripe is dismissed.
const DISMISSALS: u64 = 20;

/// How many of so many peers the relay shall feed in each stripe.
pub(super) const fn copies(peers: u32) -> u32 {
    let copies = ROOTS + peers / PEERS_PER_ROOT;
    // The more of so few would not be fed by others anyway.
    let half = peers.div_ceil(2);
    if copies < half { copies } else { half }
}

impl Forest {
    /// Sees that each stripe has so many roots, as far as there are peers without parent that
    /// can feed somebody.
    pub(super) fn choose_roots(&mut self, turn: u64, copies: u32, share: u16) {
        let mut missing = [copies; STRIPES];
        for (_, seat) in &self.order {
            let seat = &mut self.seats[*seat as usize];
            // Who can feed nobody any more is fed like others.
            if seat.slots == 0 {
                seat.root = 0;
            }
            seat.root &= !seat.fed;
            bits(seat.root).for_each(|stripe| missing[stripe] = missing[stripe].saturating_sub(1));
        }
        self.dismiss(turn, copies);
        let short = |missing: &[u32; STRIPES]| {
            let stripes = (0..STRIPES).filter(|stripe| missing[*stripe] > 0);
            stripes.fold(0, |set, stripe| set | 1u8 << stripe)
        };
        let wanted = short(&missing);
        if wanted == 0 {
            return;
        }
        let realms = self.realms();
        let mut heap: BinaryHeap<Reverse<(u32, u64, u32)>> = BinaryHeap::new();
        for (channel, seat) in &self.order {
            let cost = self.root_cost(*seat, wanted, share, &realms);
            heap.extend(cost.map(|cost| Reverse((cost, mix(u64::from(*channel)), *seat))));
        }
        while let Some(Reverse((_, chance, at))) = heap.pop() {
            let seat = self.seat_mut(at);
            let open = short(&missing) & !seat.fed & !seat.root;
            let neediest = bits(open).max_by_key(|stripe| (missing[*stripe], !stripe));
            let Some(stripe) = neediest else { continue };
            seat.root |= 1 << stripe;
            missing[stripe] -= 1;
            let cost = self.root_cost(at, short(&missing), share, &realms);
            heap.extend(cost.map(|cost| Reverse((cost, chance, at))));
        }
    }

    /// Of too many roots one is fed like others: slowly, for their number may be wanted again.
    fn dismiss(&mut self, turn: u64, copies: u32) {
        let stripe = (turn % DISMISSALS) as usize;
        if stripe >= STRIPES {
            return;
        }
        let is_root = |seat: &&(u32, u32)| self.seat(seat.1).root >> stripe & 1 != 0;
        let roots = self.order.iter().filter(is_root).count();
        if roots <= copies as usize {
            return;
        }
        let least = self.order.iter().filter(is_root).min_by_key(|(_, seat)| {
            let branch = self.branch(stripe, *seat);
            (branch.children, self.seat(*seat).slots, *seat)
        });
        if let Some((_, seat)) = least.copied() {
            self.seat_mut(seat).root &= !(1 << stripe);
        }
    }

    /// What speaks against a peer as a root of one of these stripes; `None` if it can be none.
    fn root_cost(&self, at: u32, wanted: u8, share: u16, realms: &[(Realm, u32)]) -> Option<u32> {
        let seat = self.seat(at);
        if wanted & !seat.fed & !seat.root == 0 || seat.free() == 0 {
            return None;
        }
        let others = realms.iter().find(|(realm, _)| *realm == seat.realm).map_or(0, |(_, n)| *n);
        let free = u32::from(seat.free().saturating_sub(seat.reserve(None, share)));
        let free = free.min(others.saturating_sub(1));
        let weak = if free < u32::from(share / 2).max(1) { WEAK } else { 0 };
        let cost = seat.slowness().saturating_add(seat.rtt);
        Some(cost.saturating_add(weak + TWICE * seat.root.count_ones()))
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
        assert_eq!(peers.map(copies), [0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 13, 166]);
    }
}
