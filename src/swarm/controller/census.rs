//! What shards count, and the sum of it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::swarm::controller::Situation;

/// A peer that wants the stream and can share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its channel at the relay: with the shard inside.
    pub channel: u32,
    /// Where it is.
    pub address: SocketAddr,
    /// What it can upload, as it says.
    pub upload_kbit: u32,
    /// The round trip between it and its relay.
    pub rtt: Duration,
    /// The stripes that it asks its relay to push, a bit each: those that no neighbour brings.
    pub relayed: u8,
    /// For how long it has been inside.
    pub age: Duration,
}

/// What one shard counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Peers that want the stream and can share it.
    pub peers: u32,
    /// Peers that want it and cannot share: they are pushed everything for ever.
    pub plain: u32,
    /// Those of `peers` that have been inside for [`crate::swarm::controller::PROVEN`].
    pub proven: u32,
    /// What these can upload together, as they say.
    pub upload_kbit: u64,
    /// Chunks that peers asked for since the last count, but for what newcomers catch up with.
    pub rescued: u64,
    /// Over what time that is.
    pub span: Duration,
    /// What all peers here are reckoned at in the egress budget, in bits per second.
    pub promised: u64,
    /// All of `peers`, up to [`crate::swarm::controller::MEMBERS_MAX`]: those beyond stay with
    /// the relay.
    pub members: Vec<Member>,
}

/// The counts of all shards together.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    pub(super) peers: u32,
    pub(super) plain: u32,
    pub(super) proven: u32,
    pub(super) upload_kbit: u64,
    /// What the proven ones need together.
    pub(super) demand_kbit: u64,
    /// The part of what all need that is asked of the relay.
    pub(super) rescue: f64,
    /// The egress budget has no room for these peers and one more if the relay sends everything.
    pub(super) tight: bool,
    pub(super) members: Vec<Member>,
}

impl Ballot {
    /// Takes the counts anew.
    pub(super) fn take<'a>(
        &mut self,
        counts: impl Iterator<Item = (ShardId, &'a Census)>,
        situation: &Situation,
    ) {
        let members = std::mem::take(&mut self.members);
        *self = Ballot { members, ..Ballot::default() };
        self.members.clear();
        let (mut rescues, mut promised) = (0.0, 0);
        for (_, census) in counts {
            self.peers += census.peers;
            self.plain += census.plain;
            self.proven += census.proven;
            self.upload_kbit += census.upload_kbit;
            rescues += census.rescued as f64 / census.span.as_secs_f64().max(0.05);
            promised += census.promised;
            self.members.extend(&census.members);
        }
        let others = situation.promised.saturating_sub(promised);
        let direct = situation.whole * (u64::from(self.peers) + u64::from(self.plain) + 1);
        self.tight = situation.budget.is_some_and(|budget| others + direct > budget);
        self.demand_kbit = u64::from(self.proven) * (situation.bitrate / 1_000);
        let chunks = f64::from(self.peers) * situation.chunks;
        self.rescue = if chunks > 0.0 { rescues / chunks } else { 0.0 };
    }

    /// Uploads in parts of what is needed. Newcomers count on neither side.
    pub(super) fn supply(&self) -> f64 {
        if self.demand_kbit == 0 { 0.0 } else { self.upload_kbit as f64 / self.demand_kbit as f64 }
    }
}
