//! Which neighbour is to feed each peer each stripe: a tree per stripe, of which the relay is
//! the root and pushes to few.
//!
//! Each plan is made from the one before, and only what must change is changed: everything else
//! costs peers an opening, and viewers a hole. Whether peers do as planned shows in what they ask
//! the relay for.
//!
//! ```text
//! forest      the trees; seats: who comes, goes, and carries how much
//! complaints  who is not fed by whom; trust: what that means for later
//! roots       whom the relay feeds; orphans: who is fed by others, by whom
//! moves       what could be better
//! scatter     parents by chance, to be compared with all of that
//! ```

mod complaints;
mod forest;
mod moves;
mod orphans;
mod roots;
mod scatter;
mod seats;
#[cfg(test)]
mod tests;
mod trust;

use std::net::SocketAddr;

use crate::base::time::Mono;
use crate::swarm::controller::census::Member;
use crate::swarm::settings::Strategy;
use crate::swarm::stripes::STRIPES;

use forest::Forest;
use orphans::Matching;
use roots::copies;
use seats::Rate;

/// Of one peer: who is to feed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its channel at the relay.
    pub channel: u32,
    /// Where it is.
    pub address: SocketAddr,
    /// For each stripe the channel of the peer that is to feed it; 0: the relay.
    pub parents: [u32; STRIPES],
}

/// Who is to feed whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    rows: Vec<Row>,
}

impl Plan {
    /// Of these rows, one for each peer.
    #[must_use]
    pub fn new(mut rows: Vec<Row>) -> Plan {
        rows.sort_unstable_by_key(|row| row.channel);
        Plan { rows }
    }

    /// Of the peer with this channel.
    #[must_use]
    pub fn get(&self, channel: u32) -> Option<&Row> {
        let at = self.rows.binary_search_by_key(&channel, |row| row.channel).ok()?;
        self.rows.get(at)
    }

    /// Of all, by channel.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// Children that a root shall have in its stripe: those beyond wait longer for their turn than
/// for another hop.
const SHARE: u32 = 6;

/// Makes plans, each from the one before.
#[derive(Debug, Default)]
pub(super) struct Planner {
    strategy: Strategy,
    rate: Rate,
    forest: Forest,
    turn: u64,
}

impl Planner {
    /// Nobody is planned with yet.
    pub(super) fn new(strategy: Strategy) -> Planner {
        Planner { strategy, ..Planner::default() }
    }

    /// Forgets who is there.
    pub(super) fn forget(&mut self) {
        *self = Planner::new(self.strategy);
    }

    /// Plans anew, every [`crate::swarm::controller::INTERVAL`].
    pub(super) fn step(&mut self, now: Mono, members: &[Member], bitrate: u64) -> Plan {
        self.rate.take(now, bitrate);
        let forest = &mut self.forest;
        forest.sync(now, members, &self.rate);
        forest.hear(now);
        forest.shed();
        let peers = forest.peers();
        let copies = copies(peers);
        let share = peers.div_ceil(copies.max(1)).min(SHARE) as u16;
        match self.strategy {
            Strategy::Trees => {
                forest.choose_roots(self.turn, copies, share);
                forest.measure_all((self.turn % STRIPES as u64) as usize);
                let mut matching = Matching::new(now, forest, share);
                matching.settle();
                matching.improve(now, self.turn);
            }
            Strategy::Random => Matching::new(now, forest, share).scatter(self.turn, copies),
            Strategy::Pull => {}
        }
        self.turn += 1;
        Plan { rows: forest.order.iter().map(|(_, seat)| forest.seat(*seat).row).collect() }
    }

    /// Complaints that were forgotten because of newer ones since the last call.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forest.forgotten)
    }

    /// The most peers that the relay is to push a stripe to, by plan.
    pub(super) fn copies(&self) -> u32 {
        (0..STRIPES).map(|stripe| self.forest.relayed(stripe)).max().unwrap_or(0)
    }
}
