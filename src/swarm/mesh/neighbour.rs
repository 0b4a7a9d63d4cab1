//! What is known of one neighbour, and what it would cost to take a stripe from it.

use std::time::Duration;

use crate::base::time::Mono;
use crate::swarm::mesh::Key;
use crate::swarm::stripes::STRIPES;

/// How long a parent that was pruned for being late is not chosen again for the stripe.
const BARRED: Duration = Duration::from_secs(2);

/// How often that doubles while a neighbour refuses what was grafted: 32 s.
const DOUBLINGS_MAX: u8 = 4;

/// The longest lag that counts.
const LAG_MAX: Duration = Duration::from_secs(2);

/// A neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub key: Key,
    pub rtt: Duration,
    /// What it can still push; `None` as long as it has said nothing.
    pub room_kbit: Option<u32>,
    /// The newest subtree of each stripe that it has, and when it showed it.
    newest: [Option<(u64, Mono)>; STRIPES],
    /// How much later than the first one it announces: how deep in the trees it is.
    pub lag: Duration,
    /// The stripes that we push to it.
    pub children: u8,
    /// Until when it is not chosen for a stripe.
    barred: [Mono; STRIPES],
    /// How often in a row it announced what it should have pushed.
    pub refusals: u8,
}

impl Neighbour {
    pub(super) fn new(key: Key, rtt: Duration) -> Neighbour {
        Neighbour {
            key,
            rtt,
            room_kbit: None,
            newest: [None; STRIPES],
            lag: Duration::ZERO,
            children: 0,
            barred: [Mono::ZERO; STRIPES],
            refusals: 0,
        }
    }

    pub(super) fn note_newest(&mut self, now: Mono, stripe: usize, subtree: u64) {
        let newest = &mut self.newest[stripe];
        if newest.is_none_or(|(known, _)| known < subtree) {
            *newest = Some((subtree, now));
        }
    }

    /// The mean over about eight announcements.
    pub(super) fn note_lag(&mut self, lag: Duration) {
        self.lag = (self.lag * 7 + lag.min(LAG_MAX)) / 8;
    }

    /// The newest subtree of a stripe that it has shown since `since`.
    pub(super) fn newest_since(&self, stripe: usize, since: Mono) -> Option<u64> {
        self.newest[stripe].filter(|(_, at)| *at >= since).map(|(subtree, _)| subtree)
    }

    /// It was the stripe's parent and is not chosen again for a while.
    pub(super) fn bar(&mut self, now: Mono, stripe: usize, refused: bool) {
        self.refusals = if refused { self.refusals.saturating_add(1) } else { self.refusals };
        let doublings = self.refusals.saturating_sub(1).min(DOUBLINGS_MAX);
        self.barred[stripe] = now + BARRED * (1 << doublings);
    }

    /// Whether it may become the stripe's parent, room left aside.
    pub(super) fn may_feed(&self, now: Mono, stripe: usize) -> bool {
        now >= self.barred[stripe] && self.children & (1 << stripe) == 0
    }

    /// Whether it has room for `stripes` of so many kbit/s. Who has said nothing may have.
    pub(super) fn has_room(&self, stripes: u32, each_kbit: u32) -> bool {
        self.room_kbit.is_none_or(|room| room >= stripes.saturating_mul(each_kbit))
    }
}
