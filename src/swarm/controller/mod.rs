//! Who is sent what in a stream's swarm: by the relay, by policy, four times a second.
//!
//! One controller stands over each stream, on the shard that coordinates it: the stream's slot
//! modulo the shards. It needs no writer, so it never moves when publishers come and go, and is
//! there before the first peer is. Every shard with peers of the stream sends it a [`Census`];
//! what it decides goes back to them as [`Orders`].
//!
//! ```text
//! census    what a shard counts, and its peers
//! judge     direct or hybrid
//! plan      which neighbour is to feed each peer each stripe
//! ```
//!
//! Peers are told of the plan what concerns them. A peer that is not fed by whom it should be asks
//! the relay, so that a bad plan costs egress and nothing else; whether it was good shows in
//! that, and in how many chunks are asked of the relay: **rescues**. Without clock, socket or
//! chance, so that a run can be made again.
//!
//! How to use it: [`Controller::handle_census`] for what comes; [`Controller::step`] every
//! [`INTERVAL`].

mod census;
mod judge;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::base::spread::{GOLDEN, spread};
use crate::base::time::Mono;
use crate::swarm::settings::{Mode, Strategy};

pub use census::{Census, Member};
pub use plan::{Plan, Row};

use census::Ballot;
use judge::Judge;
use plan::Planner;

/// How often a shard counts and the controller decides.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// The most peers of one shard that are planned with; those beyond stay with the relay.
pub const MEMBERS_MAX: usize = 16_384;

/// A shard that has not counted for so long has no peers.
const CENSUS_OVER: Duration = Duration::from_secs(1);

/// What a peer must have been inside before its upload is counted on.
pub const PROVEN: Duration = Duration::from_secs(2);

/// What a newcomer is charged for is reckoned over so much.
const CHARGE_OVER: Duration = Duration::from_secs(10);

/// And is this much of the stream at least, in percent; so is what somebody inside is reckoned at,
/// so that ten times the budget goes out at most when all are fed by the relay again.
pub const CHARGE_MIN: u64 = 10;

/// Readings for it: one a second.
const READINGS_MAX: usize = 12;
const READINGS_APART: Duration = Duration::from_secs(1);

/// What is known of the stream at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Its bitrate in bits per second.
    pub bitrate: u64,
    /// Chunks per second.
    pub chunks: f64,
    /// UDP payload sent to its peers since the start.
    pub sent: u64,
    /// Bytes of it that they got, each once, since the start, as they say.
    pub played: u64,
    /// What a peer costs to which the relay sends everything, in bits per second.
    pub whole: u64,
    /// What the peers of all streams are reckoned at together, in bits per second.
    pub promised: u64,
    /// What they may be, if that is limited.
    pub budget: Option<u64>,
}

/// What shards shall do.
#[derive(Clone, Debug, PartialEq)]
pub struct Orders {
    /// Whether peers pass on what they get. If not, everybody is pushed everything.
    pub hybrid: bool,
    /// When that was last decided.
    pub since: Mono,
    /// Who is to feed whom. Empty in direct mode.
    pub plan: Plan,
    /// What a newcomer is charged for, in percent of the bitrate.
    pub charge: u64,
}

impl Orders {
    /// Everything to everybody.
    #[must_use]
    pub fn direct(now: Mono) -> Orders {
        Orders { hybrid: false, since: now, plan: Plan::default(), charge: 100 }
    }
}

/// Spreads a number over all numbers (splitmix64).
#[must_use]
pub const fn mix(number: u64) -> u64 {
    spread(number.wrapping_add(GOLDEN))
}

/// The controller of one stream.
#[derive(Debug)]
pub struct Controller {
    judge: Judge,
    planner: Planner,
    /// The last count of each shard that has peers, by shard.
    counts: Vec<(ShardId, Mono, Census)>,
    /// What was sent and played, a second apart.
    readings: VecDeque<(Mono, u64, u64)>,
    stepped: Option<Mono>,
    ballot: Ballot,
    copies: u32,
    forgotten: u64,
}

impl Controller {
    /// A stream without peers.
    #[must_use]
    pub fn new(now: Mono, mode: Mode) -> Controller {
        Controller {
            judge: Judge::new(now, mode),
            planner: Planner::default(),
            counts: Vec::new(),
            readings: VecDeque::with_capacity(READINGS_MAX + 1),
            stepped: None,
            ballot: Ballot::default(),
            copies: 0,
            forgotten: 0,
        }
    }

    /// Another way to plan.
    #[must_use]
    pub fn with_strategy(self, strategy: Strategy) -> Controller {
        Controller { planner: Planner::new(strategy), ..self }
    }

    /// A shard has counted. There are as many counts as shards.
    pub fn handle_census(&mut self, now: Mono, shard: ShardId, census: Census) {
        match self.counts.binary_search_by_key(&shard, |(shard, ..)| *shard) {
            Ok(at) => self.counts[at] = (shard, now, census),
            Err(at) => self.counts.insert(at, (shard, now, census)),
        }
    }

    /// Whether it is time for [`Controller::step`].
    #[must_use]
    pub fn is_due(&self, now: Mono) -> bool {
        // Shards do not count at the same moment; a step must not wait for the second next count.
        self.stepped.is_none_or(|stepped| now.since(stepped) >= INTERVAL * 4 / 5)
    }

    /// Decides anew.
    pub fn step(&mut self, now: Mono, situation: &Situation) -> Orders {
        self.stepped = Some(now);
        self.counts.retain(|(_, at, _)| now.since(*at) < CENSUS_OVER);
        self.ballot.take(self.counts.iter().map(|(shard, _, census)| (*shard, census)), situation);
        let charge = self.charge(now, situation);
        let ballot = &self.ballot;
        let hybrid = self.judge.look(now, ballot);
        if !hybrid {
            self.planner.forget();
            self.copies = 0;
            return Orders { charge: 100, ..Orders::direct(self.judge.since()) };
        }
        let plan = self.planner.step(now, &ballot.members, situation.bitrate);
        self.copies = self.planner.copies();
        self.forgotten += self.planner.take_forgotten();
        Orders { hybrid, since: self.judge.since(), plan, charge }
    }

    /// Peers to whom the relay pushes each stripe by plan, at most; 0 in direct mode.
    #[must_use]
    pub fn copies(&self) -> u32 {
        self.copies
    }

    /// Complaints of peers about each other that were forgotten because of newer ones.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How often the mode was changed.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.judge.switches()
    }

    /// Shards with peers of the stream.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.counts.iter().map(|(shard, ..)| *shard)
    }

    /// What a newcomer is charged for: as much as those inside cost, over the last moments.
    fn charge(&mut self, now: Mono, situation: &Situation) -> u64 {
        let newest = self.readings.back().map(|(at, ..)| *at);
        if newest.is_none_or(|at| now.since(at) >= READINGS_APART) {
            self.readings.push_back((now, situation.sent, situation.played));
        }
        let old = |at: &Mono| now.since(*at) > CHARGE_OVER;
        while self.readings.len() > READINGS_MAX
            || self.readings.get(1).is_some_and(|(at, ..)| old(at))
        {
            self.readings.pop_front();
        }
        let Some((at, sent, played)) = self.readings.front().copied() else { return 100 };
        let (sent, played) =
            (situation.sent.saturating_sub(sent), situation.played.saturating_sub(played));
        // Before that nobody knows.
        if now.since(at) < CHARGE_OVER / 2 || played == 0 {
            return 100;
        }
        (sent.saturating_mul(100) / played).clamp(CHARGE_MIN, 100)
    }
}
