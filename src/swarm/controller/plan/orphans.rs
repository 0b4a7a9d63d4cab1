//! Parents for those who have none.
//!
//! One orphan of each stripe in turn, so that no stripe takes the links of another; in each
//! stripe first those on whom others hang, then those that can feed many, so that trees are
//! broad. The parent is the one through whom the stripe comes soonest. A peer for whom there is
//! nobody stays with the relay, and then feeds others like a root.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::controller::plan::forest::{Forest, bits};
use crate::swarm::controller::plan::seats::Seat;
use crate::swarm::realm::{Realm, can_meet};
use crate::swarm::stripes::STRIPES;

/// For so long, and three round trips, a newcomer is left to the relay.
const SETTLED: Duration = Duration::from_secs(2);

/// Peers among whom a parent is looked for, per stripe and realm; and where there are many peers,
/// who all come at once perhaps: the best of half as many is nearly as good, and found in half
/// the time.
const POOL: usize = 256;
const POOL_OF_MANY: usize = 128;
const MANY: usize = 4_000;

/// How often these are collected anew in one step, because few of them are left.
const POOLS_MAX: u32 = 32;

/// Peers that are looked at in one step.
const LOOKS_MAX: usize = 300_000;

/// Parents that are given in one step: to one peer, so that not all its stripes come from
/// strangers at once, and to all, or to one peer in so many, whatever is more.
pub(super) const CHANGES_MAX: usize = 3;
const CHANGES_MAX_ALL: usize = 1_024;
const CHANGES_PER_PEERS: usize = 4;

/// Orphans of a stripe for whom there may be nobody in one step, before the others wait; and how
/// long one waits before it is its turn again, longer if there are many.
const MISSES_MAX: usize = 64;
const WAIT: Duration = Duration::from_secs(1);

/// Hops from the relay if there is any choice, and at most.
const DEPTH: u8 = 8;
const DEPTH_MAX: u8 = 12;

/// What makes a parent worse, in milliseconds: that it misses the stripe itself, or is fed by the
/// relay only as long as nobody else does; that its links are kept for a stripe of
/// which it is a root; that it has few left, in percent; that the tree grows too high.
const UNSURE: u32 = 300;
const KEPT: u32 = 150;
const NEARLY_FULL: u32 = 150;
const FULL: u16 = 85;
const HIGH: u32 = 10_000;

/// Who would get a stripe later than this, in milliseconds, had better be fed by the relay.
pub(super) const LATE: u32 = 1_200;

/// Children that a peer is thought to have in each stripe in which it has any.
const BROOD: u16 = 5;

/// Those of one realm who can take one more child in a stripe.
#[derive(Debug)]
struct Pool {
    realm: Realm,
    seats: Vec<u32>,
    /// There are more than these.
    more: bool,
}

/// A peer without parent in a stripe: whether nobody hangs on it, and whether nobody shall; how
/// slow it is; its channel and seat.
type Orphan = (bool, bool, u32, u32, u32);

/// Gives parents, in one step.
pub(super) struct Matching<'a> {
    pub(super) forest: &'a mut Forest,
    pub(super) now: Mono,
    /// Children that each root shall have.
    share: u16,
    /// Who had a free link at the beginning.
    pub(super) open: Vec<u32>,
    /// Peers of a pool.
    pool: usize,
    pools: [Option<Vec<Pool>>; STRIPES],
    collected: u32,
    looks: usize,
    pub(super) changes: usize,
}

impl Seat {
    /// Whether it is given parents at the moment.
    pub(super) fn takes_parents(&self, now: Mono) -> bool {
        // Newcomers are catching up, which takes longer on a long way.
        let young = now.since(self.came) < SETTLED + 3 * Duration::from_millis(self.rtt.into());
        !young && !self.bars.rests(now)
    }
}

impl<'a> Matching<'a> {
    pub(super) fn new(now: Mono, forest: &'a mut Forest, share: u16) -> Matching<'a> {
        let seats = forest.order.iter().map(|(_, seat)| *seat);
        let open = seats.filter(|seat| forest.seat(*seat).free() > 0).collect();
        let pool = if forest.order.len() < MANY { POOL } else { POOL_OF_MANY };
        Matching {
            forest,
            now,
            share,
            open,
            pool,
            pools: Default::default(),
            collected: 0,
            looks: 0,
            changes: 0,
        }
    }

    /// Whether so many parents have been given as may be in one step.
    pub(super) fn is_spent(&self) -> bool {
        let most = CHANGES_MAX_ALL.max(self.forest.order.len() / CHANGES_PER_PEERS);
        self.changes >= most || self.looks >= LOOKS_MAX
    }

    /// Gives parents to as many as can be.
    pub(super) fn settle(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let queues = self.orphans();
        let mut misses = [0; STRIPES];
        let longest = queues.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..longest {
            for (stripe, queue) in queues.iter().enumerate() {
                let Some((leaf, .., orphan)) = queue.get(at) else { continue };
                if self.is_spent() || misses[stripe] >= MISSES_MAX || self.place(stripe, *orphan) {
                    continue;
                }
                if *leaf {
                    misses[stripe] += 1;
                    let wait = WAIT + WAIT * (queue.len() / MISSES_MAX) as u32 / 4;
                    self.forest.seat_mut(*orphan).bars.waits(self.now + wait);
                }
            }
        }
        for (.., orphan) in queues.iter().flatten() {
            self.forest.seat_mut(*orphan).waiting = 0;
        }
    }

    /// Those who need a parent, by stripe, in the order in which they are given one: those first
    /// on whom others hang, then those that shall feed others.
    fn orphans(&mut self) -> [Vec<Orphan>; STRIPES] {
        let mut all = Vec::new();
        for at in 0..self.forest.order.len() {
            let (channel, at) = self.forest.order[at];
            let seat = self.forest.seat_mut(at);
            seat.waiting = !seat.fed & !seat.root;
            if !seat.takes_parents(self.now) {
                seat.waiting = 0;
            }
            if seat.waiting != 0 {
                all.push((seat.slowness(), channel, at));
            }
        }
        all.sort_unstable();
        // Nobody can be near to the relay in all stripes and have links for each.
        let mut supply = [0; STRIPES];
        let mut queues: [Vec<Orphan>; STRIPES] = Default::default();
        for (slowness, channel, at) in all {
            let seat = self.forest.seat(at);
            let mut left = seat.free().saturating_sub(seat.reserve(None, self.share));
            let mut stripes: Vec<usize> = bits(seat.waiting).collect();
            stripes.sort_unstable_by_key(|stripe| {
                let leaf = seat.branches[*stripe].children == 0;
                (leaf, supply[*stripe], queues[*stripe].len(), *stripe)
            });
            for stripe in stripes.into_iter().take(CHANGES_MAX) {
                let brood = left.min(BROOD);
                (left, supply[stripe]) = (left - brood, supply[stripe] + brood);
                let leaf = seat.branches[stripe].children == 0;
                queues[stripe].push((leaf, brood == 0, slowness, channel, at));
            }
        }
        queues.iter_mut().for_each(|queue| queue.sort_unstable());
        queues
    }

    /// Gives an orphan a parent, if there is one.
    fn place(&mut self, stripe: usize, orphan: u32) -> bool {
        self.forest.seat_mut(orphan).waiting &= !(1 << stripe);
        let parent = self.find(stripe, orphan);
        if let Some(parent) = parent {
            self.give(stripe, orphan, parent);
        }
        self.offer(stripe, orphan);
        parent.is_some()
    }

    /// Gives a peer a parent, perhaps another one.
    pub(super) fn give(&mut self, stripe: usize, child: u32, parent: u32) {
        self.forest.detach(stripe, child);
        self.forest.attach(self.now, stripe, child, parent);
        self.changes += 1;
    }

    /// Who has just been placed can feed others.
    fn offer(&mut self, stripe: usize, at: u32) {
        let seat = self.forest.seat(at);
        let most = self.pool;
        let Some(pools) = self.pools[stripe].as_mut().filter(|_| seat.free() > 0) else { return };
        let pool = pool_of(pools, seat.realm);
        if pool.seats.len() < most {
            pool.seats.push(at);
        } else {
            pool.more = true;
        }
    }

    /// The best parent for a peer; it may have another one.
    pub(super) fn find(&mut self, stripe: usize, child: u32) -> Option<u32> {
        let realm = self.forest.seat(child).realm;
        loop {
            if self.pools[stripe].is_none() {
                self.collect(stripe);
            }
            let best = self.find_in_pool(stripe, child, realm);
            let pools = self.pools[stripe].as_mut()?;
            let pool = pool_of(pools, realm);
            let used_up = pool.more && pool.seats.len() < self.pool / 8;
            if best.is_some() || !used_up || self.collected >= POOLS_MAX {
                return best;
            }
            self.pools[stripe] = None;
        }
    }

    fn find_in_pool(&mut self, stripe: usize, child: u32, realm: Realm) -> Option<u32> {
        let leaf = self.forest.branch(stripe, child).children == 0;
        let height = if leaf { (0, 0) } else { self.forest.height(stripe, child) };
        let pools = self.pools[stripe].as_mut()?;
        let mut seats = std::mem::take(&mut pool_of(pools, realm).seats);
        self.looks += seats.len();
        seats.retain(|seat| self.forest.seat(*seat).free() > 0);
        let costs = seats.iter().filter_map(|parent| {
            let cost = self.cost(stripe, child, height, *parent)?;
            Some((cost, *parent))
        });
        let best = costs.min().map(|(_, parent)| parent);
        let pools = self.pools[stripe].as_mut()?;
        pool_of(pools, realm).seats = seats;
        best
    }

    /// What speaks against a parent; `None` if it cannot be.
    fn cost(
        &self,
        stripe: usize,
        child: u32,
        (height, span): (u8, u32),
        parent: u32,
    ) -> Option<u32> {
        let above = self.forest.seat(parent);
        let depth = above.branches[stripe].depth.saturating_add(1).saturating_add(height);
        if parent == child
            || depth > DEPTH_MAX
            || !self.can_pair(parent, child)
            || (height > 0 && self.forest.is_within(stripe, parent, child))
        {
            return None;
        }
        let arrival = self.forest.arrival_under(stripe, parent, child);
        if arrival > LATE || arrival + span > LATE + LATE / 4 {
            return None;
        }
        let bit = 1 << stripe;
        // One that has not begun to be fed by its parent is not worse: it is new, as all are.
        let spare = (above.fed | above.root) & bit == 0;
        let unsure = spare || above.delivered & above.relayed & bit != 0;
        let kept = above.free() <= above.reserve(Some(stripe), self.share);
        let full = (above.used + 1) * 100 > above.slots * FULL;
        let reasons = [(unsure, UNSURE), (kept, KEPT), (full, NEARLY_FULL), (depth > DEPTH, HIGH)];
        let worse: u32 = reasons.iter().filter(|(holds, _)| *holds).map(|(_, cost)| cost).sum();
        Some(arrival.saturating_add(worse))
    }

    /// Whether two can have a link, as far as is known.
    pub(super) fn can_pair(&self, parent: u32, child: u32) -> bool {
        let (above, below) = (self.forest.seat(parent), self.forest.seat(child));
        can_meet(above.row.address, below.row.address)
            && !below.bars.has(self.now, above.row.channel)
            && !above.bars.has(self.now, below.row.channel)
    }

    /// Collects who can take one more child in a stripe: the best of each realm.
    fn collect(&mut self, stripe: usize) {
        self.collected += 1;
        let mut pools: Vec<Pool> = Vec::new();
        for at in &self.open {
            let seat = self.forest.seat(*at);
            let next = seat.branches[stripe].children + 1;
            let late = self.forest.arrival_from(stripe, *at, 0, next) > LATE;
            if seat.free() > 0 && seat.waiting >> stripe & 1 == 0 && !late {
                pool_of(&mut pools, seat.realm).seats.push(*at);
            }
        }
        for pool in &mut pools {
            if pool.seats.len() > self.pool {
                let key = |at: &u32| (self.forest.arrival_under(stripe, *at, *at), *at);
                pool.seats.select_nth_unstable_by_key(self.pool - 1, key);
                pool.seats.truncate(self.pool);
                pool.more = true;
            }
        }
        self.pools[stripe] = Some(pools);
    }
}

fn pool_of(pools: &mut Vec<Pool>, realm: Realm) -> &mut Pool {
    let at = pools.iter().position(|pool| pool.realm == realm).unwrap_or_else(|| {
        pools.push(Pool { realm, seats: Vec::new(), more: false });
        pools.len() - 1
    });
    &mut pools[at]
}
