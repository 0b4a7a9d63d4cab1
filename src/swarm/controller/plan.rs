//! Which neighbour is to feed each peer each stripe.

use std::net::SocketAddr;

use crate::base::time::Mono;
use crate::swarm::controller::census::Member;
use crate::swarm::stripes::STRIPES;

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

/// Makes plans, each from the one before.
#[derive(Debug, Default)]
pub(super) struct Planner {}

impl Planner {
    /// Plans anew.
    pub(super) fn step(&mut self, _now: Mono, _members: &[Member], _bitrate: u64) -> Plan {
        Plan::default()
    }

    /// The most peers that the relay is to push a stripe to, by plan.
    pub(super) fn copies(&self) -> u32 {
        0
    }
}
