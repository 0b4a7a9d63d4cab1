//! Trees that have grown badly are put right, a few peers at a time.

use std::cmp::Reverse;
use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::plan::forest::{Branch, Forest, NONE};
use crate::swarm::controller::plan::orphans::{LATE, Matching};
use crate::swarm::stripes::STRIPES;

/// Peers that are looked at in one step, those of them that are tried, and those that are moved
/// at most.
const WINDOW: usize = 128;
const TRIED: usize = 24;
const MOVES_MAX: usize = 12;

/// Nobody is moved twice in a stripe in so long.
const APART: Duration = Duration::from_secs(10);

/// How much sooner a peer must have the stripe to be moved, and one with children, in
/// milliseconds: with these many others change.
const BETTER: u32 = 100;
const BETTER_ALL: u32 = 150;

/// Links that make a peer without children worth a better place.
const PROMISING: u16 = 5;

impl Forest {
    /// Whether a stripe comes from a peer's parent, and has for long.
    fn is_settled(&self, now: Mono, stripe: usize, at: u32) -> bool {
        let seat = self.seat(at);
        let branch = &seat.branches[stripe];
        branch.parent != NONE && seat.is_sure_of(stripe) && now.since(branch.planned) >= APART
    }
}

impl Matching<'_> {
    /// Moves those that have most need of it in one stripe, of those whose turn it is to be
    /// looked at.
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
        let mut window: Vec<(u32, u32)> =
            settled.map(|at| (self.forest.branch(stripe, at).arrival, at)).collect();
        window.sort_unstable_by_key(|late| Reverse(*late));
        let mut moves = 0;
        for (_, at) in window.iter().take(TRIED) {
            if moves < MOVES_MAX && self.lift(now, stripe, *at) {
                moves += 1;
            }
        }
        while moves + 2 <= MOVES_MAX && self.promote(now, stripe, &window) {
            moves += 2;
        }
        if let Some((_, latest)) = window.first() {
            self.give_up(stripe, *latest);
        }
    }

    /// Leaves a peer that lies too far behind to the relay, with everybody who does because of
    /// it.
    fn give_up(&mut self, stripe: usize, latest: u32) {
        let of = |at: u32| *self.forest.branch(stripe, at);
        if of(latest).arrival <= LATE + LATE / 4 {
            return;
        }
        let mut at = latest;
        while of(at).parent != NONE && of(of(at).parent).arrival > LATE {
            at = of(at).parent;
        }
        self.forest.detach(stripe, at);
    }

    /// Gives a peer a parent through whom it has the stripe sooner, if one has a free link.
    fn lift(&mut self, now: Mono, stripe: usize, child: u32) -> bool {
        let branch = *self.forest.branch(stripe, child);
        let better = if branch.children > 0 { BETTER_ALL } else { BETTER };
        if branch.arrival <= better || !self.forest.is_settled(now, stripe, child) {
            return false;
        }
        let Some(parent) = self.find(stripe, child) else { return false };
        let above = self.forest.seat(parent);
        let arrival = self.forest.arrival_under(stripe, parent, child);
        // Who has no parent itself is perhaps given one next to nowhere.
        let kept = (above.root | above.fed) >> stripe & 1 != 0;
        let well = parent != branch.parent
            && kept
            && above.is_sure_of(stripe)
            && arrival + better < branch.arrival;
        if well {
            self.give(stripe, child, parent);
        }
        well
    }

    /// Lets one that feeds others, or can, change places with one that does not and lies nearer
    /// to the relay: the two that gain most by it.
    fn promote(&mut self, now: Mono, stripe: usize, window: &[(u32, u32)]) -> bool {
        let forest = &*self.forest;
        let settled = |at: &u32| forest.is_settled(now, stripe, *at);
        let feeds = |at: &u32| {
            forest.branch(stripe, *at).children > 0 || forest.seat(*at).free() >= PROMISING
        };
        let seats = || window.iter().map(|(_, at)| *at).filter(settled);
        let late = seats().filter(feeds).take(TRIED);
        let early: Vec<u32> = seats().rev().filter(|at| !feeds(at)).take(TRIED).collect();
        let pairs = late.flat_map(|at| early.iter().map(move |leaf| (at, *leaf)));
        let gains = pairs.filter_map(|(at, leaf)| Some((self.gain(stripe, at, leaf)?, at, leaf)));
        let Some((_, at, leaf)) = gains.max() else { return false };
        let of = |at: u32| self.forest.branch(stripe, at).parent;
        let (above, beside) = (of(at), of(leaf));
        self.forest.detach(stripe, at);
        self.give(stripe, leaf, above);
        self.give(stripe, at, beside);
        true
    }

    /// What all gain together if a peer is where another is, on whom nobody hangs; `None` if
    /// that is not enough.
    fn gain(&self, stripe: usize, at: u32, leaf: u32) -> Option<u32> {
        let of = |at: u32| *self.forest.branch(stripe, at);
        let Branch { parent: above, arrival: late, children, .. } = of(at);
        let Branch { parent: beside, arrival: early, .. } = of(leaf);
        let (strong, weak) = (self.forest.seat(at), self.forest.seat(leaf));
        if beside == above || strong.slowness() > weak.slowness() {
            return None;
        }
        let sooner = self.forest.arrival_from(stripe, beside, strong.rtt, of(beside).children);
        let later = self.forest.arrival_from(stripe, above, weak.rtt, of(above).children);
        let fits = sooner + BETTER_ALL < late
            && later <= late + BETTER
            && self.can_pair(beside, at)
            && self.can_pair(above, leaf)
            && !self.forest.is_within(stripe, beside, at);
        if !fits {
            return None;
        }
        // Those who hang on it, or could.
        let others = u32::from(children + strong.free() / 2);
        let gain = (late - sooner).saturating_mul(1 + others);
        gain.checked_sub(later.saturating_sub(early))
    }
}
